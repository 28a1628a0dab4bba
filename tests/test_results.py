"""What stays in the repository: its numbers are those of the stored predictions."""

import json
from pathlib import Path

import pytest

from ksdd_lib import metrics, results

ROOT = Path(__file__).resolve().parent.parent
KEPT = sorted(path.parent for path in (ROOT / "assets" / "results").glob("*/metrics.json"))


def test_the_readme_shows_exactly_the_kept_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results.TABLE.search(readme)[0] == results.results_table(ROOT)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
class TestEachKeptResult:
    def test_its_metrics_follow_from_its_predictions(self, folder):
        stored = json.loads((folder / "metrics.json").read_text())
        split = json.loads((folder / "folds.json").read_text())["folds"]
        train_items = {fold["fold"]: fold["train_items"] for fold in split}
        rows = metrics.read_predictions(folder / "predictions.csv")
        again = metrics.summarize(rows, stored["protocol"], stored["seed"], train_items)
        assert again["predictions_sha256"] == stored["predictions_sha256"]
        assert again["pooled"]["ap"] == pytest.approx(stored["pooled"]["ap"], abs=1e-12)
        for name in ("images", "defective", "fp", "fn"):
            assert again["pooled"][name] == stored["pooled"][name]

    def test_says_how_it_was_made(self, folder):
        made = json.loads((folder / "environment.json").read_text())
        assert made["command"].startswith("python -m ksdd_lib")
        assert made["commit"] != "unknown" and not made["commit"].endswith("+")

    def test_shows_no_surface(self, folder):
        pictures = {path.stem for path in folder.rglob("*.png")}
        assert pictures == set(results.CURVES)
