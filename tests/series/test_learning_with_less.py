"""Each way to learn with fewer labels, trained on generated surfaces."""

from pathlib import Path

import pytest

from ksdd_lib import storage
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.notebook.label_effort import compare, efforts
from ksdd_lib.pipeline import run_series
from ksdd_lib.runs.open import open_run

REGIMES = [{"labels": "none"}, {"masks": "none"}, {"masks": "5"}]
"""Good surfaces alone, labels alone, and 5 masks beside the labels."""

DRAWN = {"drawn_length": "30 to 110"}
"""The cracks of the generated surfaces are up to 105 pixels long."""


@pytest.mark.slow
def test_each_regime_does_better_than_the_darkest_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    taught = [(0, 48), (0, 64), (5, 64)]
    for number, (regime, known) in enumerate(zip(REGIMES, taught, strict=True)):
        run = open_run(tmp_path / "runs" / str(number), {"fold": "0", **DRAWN, **regime})
        report = run_series(run)
        found = storage.read_record(run.folder / "metrics.json", Summary)
        assert found.taught is not None and (found.taught.masks, found.taught.labels) == known
        assert found.darkest_pixel is not None and found.darkest_pixel.ap is not None
        assert found.pooled.ap is not None and found.pooled.ap > found.darkest_pixel.ap, regime
        said = "No defect was known in training" if not number else f"knew {known[0]} masks"
        assert said in report.read_text("utf-8")
    assert [one.name for one in efforts(run)] == ["0", "1", "2"]
    capsys.readouterr()
    compare(run)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows if row and row[0] == "0"] == [["0", "0", "48", "1"]]
