"""What stays in the repository: its numbers are those of the stored predictions."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ksdd_lib import settings_io
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import read_predictions, write_predictions
from ksdd_lib.evaluation.summary import conclude, summarize
from ksdd_lib.run_names import run_name, unnamed
from tools import keep_results

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted(path.parent for path in (ROOT / "assets" / "results").glob("*/metrics.json"))
SOURCE = ROOT / "assets" / "results" / "cpu-clean-10defective-seed0"


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
class TestEachKeptResult:
    @pytest.mark.fault(32)
    def test_its_metrics_follow_from_its_predictions(self, folder):
        stored = json.loads((folder / "metrics.json").read_text())
        split = json.loads((folder / "folds.json").read_text())["folds"]
        train_items = {fold["fold"]: fold["train_items"] for fold in split}
        rows = read_predictions(folder / "predictions.csv")
        again = summarize(rows, stored["protocol"], stored["seed"], train_items)
        assert again["predictions_sha256"] == stored["predictions_sha256"]
        assert again["pooled"]["ap"] == pytest.approx(stored["pooled"]["ap"], abs=1e-12)
        for name in ("images", "defective", "fp", "fn"):
            assert again["pooled"][name] == stored["pooled"][name]

    def test_says_how_it_was_made(self, folder):
        made = json.loads((folder / "environment.json").read_text())
        assert made["command"].startswith(("python -m ksdd_lib", "python benchmarks/runs.py"))
        assert re.fullmatch("[0-9a-f]{7,}", made["commit"]), "of a checkout without changes"

    def test_is_of_the_preset_as_it_is_now(self, folder):
        """But for what its name says: seeds of one name are put together."""
        stored = settings_io.from_json(json.loads((folder / "settings.json").read_text()))
        assert unnamed(stored) == []
        assert folder.name == run_name(replace(stored, data="kolektorsdd"))

    def test_shows_no_surface(self, folder):
        pictures = {path.stem for path in folder.rglob("*.png")}
        assert pictures == set(keep_results.CURVES)


def only(run: Path, folds: list[int]) -> Path:
    """A copy of a run folder in which no more than these folds are trained."""
    part = run.parent / f"only{''.join(map(str, folds))}"
    shutil.copytree(run, part)
    split = json.loads((part / "folds.json").read_text())["folds"]
    train_items = {fold["fold"]: fold["train_items"] for fold in split}
    rows = [row for row in read_predictions(part / "predictions.csv") if row.fold in folds]
    before = json.loads((part / "metrics.json").read_text())
    rows, summary = conclude(rows, before["protocol"], before["seed"], train_items)
    of_folds = tuple(f"fold {fold}" for fold in folds)
    summary["made_from"] = dict(before["made_from"])
    summary["made_from"]["weights"] = {
        str(k): before["made_from"]["weights"][str(k)] for k in folds
    }
    summary["trained_defects"] = {str(k): before["trained_defects"][str(k)] for k in folds}
    write_predictions(part / "predictions.csv", rows)
    (part / "metrics.json").write_text(json.dumps(summary))
    for fold in {0, 1, 2} - set(folds):
        shutil.rmtree(part / f"fold{fold}")
    timing = json.loads((part / "timing.json").read_text())
    timing = [row for row in timing if row["what"].endswith(of_folds)]
    (part / "timing.json").write_text(json.dumps(timing))
    made = json.loads((part / "environment.json").read_text())
    made = {k: made[k] for k in made if "stage of" not in k or k.endswith(of_folds)}
    (part / "environment.json").write_text(json.dumps(made))
    settings = json.loads((part / "settings.json").read_text())
    if len(folds) == 1:
        (part / "settings.json").write_text(json.dumps(settings | {"fold": str(folds[0])}))
    return part


class TestKeep:
    """What may not enter assets/results is refused, and what is there is left alone."""

    @pytest.fixture
    def root(self, tmp_path):
        """A checkout with one kept result, and the run folder that it came from."""
        (tmp_path / "checkout").mkdir()
        source, run = SOURCE, tmp_path / "run"
        shutil.copytree(source, run)
        summary = json.loads((run / "metrics.json").read_text())
        report = json.loads((run / "data.json").read_text())
        data = {"name": "KolektorSDD.zip", "is_kolektor": True, "is_generated": False}
        data["report"] = report
        (run / "data.json").write_text(json.dumps(data))
        assert keep_results.keep(run, tmp_path / "checkout").name == source.name
        assert summary["folds_trained"]
        return tmp_path

    def test_a_finished_run_is_kept_without_surfaces(self, root):
        [kept] = (root / "checkout" / "assets" / "results").iterdir()
        assert (kept / "predictions.csv").read_bytes() == (SOURCE / "predictions.csv").read_bytes()
        assert not list(kept.rglob("strip*"))

    def test_what_was_kept_stays_until_the_new_result_is_whole(self, root, monkeypatch):
        """Its folds may be nowhere else."""
        [kept] = (root / "checkout" / "assets" / "results").iterdir()
        before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
        plain, target = keep_results._copy, []

        def full(source, goal):
            if target:
                keep_results.storage.write_text(goal / "settings.json", "{}")
                raise OSError(28, "No space left on device")
            target.append(goal)
            plain(source, goal)

        monkeypatch.setattr(keep_results, "_copy", full)
        with pytest.raises(OSError, match="No space"):
            keep_results.keep(root / "run", root / "checkout")
        assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
        assert list(kept.parent.iterdir()) == [kept]

    def test_another_image_size_is_another_result(self, root):
        run = root / "run"
        for path in (run / "settings.json", run / "metrics.json"):
            text = path.read_text()
            assert '"704x256"' in text
            path.write_text(text.replace('"704x256"', '"1056x384"'))
        kept = keep_results.keep(run, root / "checkout")
        assert kept.name == "cpu-1056x384-clean-10defective-seed0"

    def test_other_data_is_refused(self, root):
        data = {"name": "mine", "is_kolektor": False, "is_generated": False}
        (root / "run" / "data.json").write_text(json.dumps(data))
        with pytest.raises(RunError, match="not on mine"):
            keep_results.keep(root / "run", root / "checkout")

    def test_what_no_preset_does_is_refused(self, root):
        """Its name would not tell, and it would count as another seed of the preset."""
        stored = json.loads((root / "run" / "settings.json").read_text())
        changed = stored | {"segmentation_steps": 2, "seed": 7}
        (root / "run" / "settings.json").write_text(json.dumps(changed))
        summary = json.loads((root / "run" / "metrics.json").read_text())
        summary["made_from"]["settings"] |= {"segmentation_steps": 2, "seed": 7}
        (root / "run" / "metrics.json").write_text(json.dumps(summary))
        with pytest.raises(RunError, match="not as its preset cpu: segmentation_steps"):
            keep_results.keep(root / "run", root / "checkout")

    def test_results_of_an_earlier_preset_of_that_name_are_not_joined(self, root):
        [kept] = (root / "checkout" / "assets" / "results").iterdir()
        stored = json.loads((kept / "settings.json").read_text())
        (kept / "settings.json").write_text(json.dumps(stored | {"segmentation_steps": 2}))
        with pytest.raises(RunError, match="another segmentation_steps"):
            keep_results.keep(root / "run", root / "checkout")

    def test_a_result_older_than_a_setting_may_be_replaced(self, root):
        [kept] = (root / "checkout" / "assets" / "results").iterdir()
        stored = json.loads((kept / "settings.json").read_text())
        assert stored.pop("rotation") is False, "a setting that the result leaves at its default"
        (kept / "settings.json").write_text(json.dumps(stored))
        assert keep_results.keep(root / "run", root / "checkout") == kept

    @pytest.mark.parametrize("first, then", [([0], [1, 2]), ([1, 2], [0]), ([0, 1, 2], [1])])
    def test_folds_that_are_kept_one_after_the_other_are_as_if_kept_together(
        self, root, first, then
    ):
        """As a training of many hours comes: thresholds follow from all folds that are there."""
        checkout = root / "other"
        keep_results.keep(only(root / "run", first), checkout)
        kept = keep_results.keep(only(root / "run", then), checkout)
        assert (kept / "predictions.csv").read_bytes() == (SOURCE / "predictions.csv").read_bytes()
        whole, source = (
            json.loads((folder / "metrics.json").read_text()) for folder in (kept, SOURCE)
        )
        del source["darkest_pixel"], source["masks_sha256"]  # of all images, which are not there
        assert whole == source
        assert sorted(kept.glob("fold*/*.jsonl")) == [
            kept / path.relative_to(SOURCE) for path in sorted(SOURCE.glob("fold*/*.jsonl"))
        ]
        settings = json.loads((kept / "settings.json").read_text())
        assert settings == json.loads((SOURCE / "settings.json").read_text())
        timing, of_source = (
            {
                row["what"]: row["seconds"]
                for row in json.loads((folder / "timing.json").read_text())
            }
            for folder in (kept, SOURCE)
        )
        assert timing == of_source
        made = json.loads((kept / "environment.json").read_text())
        assert made.items() >= json.loads((SOURCE / "environment.json").read_text()).items()
        assert {name for name in made if name.startswith("command of")} == {
            f"command of fold {fold}" for fold in first if fold not in then
        }

    def test_folds_of_other_items_are_not_joined(self, root):
        keep_results.keep(only(root / "run", [0]), root / "other")
        run = only(root / "run", [1])
        folds = json.loads((run / "folds.json").read_text())
        folds["folds"][2]["train_items"].pop()
        (run / "folds.json").write_text(json.dumps(folds))
        with pytest.raises(RunError, match="holds folds of other items"):
            keep_results.keep(run, root / "other")

    def test_an_unfinished_run_leaves_the_kept_result_alone(self, root):
        (root / "run" / "environment.json").unlink()
        before = sorted((root / "checkout").rglob("*"))
        with pytest.raises(RunError, match="environment.json is missing"):
            keep_results.keep(root / "run", root / "checkout")
        assert sorted((root / "checkout").rglob("*")) == before
