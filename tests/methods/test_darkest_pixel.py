"""A second method goes the whole way without a line of its own outside its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ksdd_lib.deploy import detection, weights
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.methods.catalog import METHODS, method_of
from ksdd_lib.methods.darkest_pixel import DarknessJudge
from ksdd_lib.pipeline import is_finished, run_series
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("darkest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSDD_HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        small = {"image_size": "128x128", "generated_items": 6, "method": "darkest_pixel"}
        run = open_run(folder / "run", {"preset": "demo", **small})
        run_series(run)
    return run


def test_its_score_is_the_darkest_pixel_and_its_map_says_where() -> None:
    pixels = torch.full((1, 1, 128, 144), 200, dtype=torch.uint8)
    pixels[0, 0, 17, 30] = 20
    score, values = DarknessJudge(torch.device("cpu")).judge(pixels)
    assert score.item() == 107.5 == values.max().item()
    assert values.shape == (16, 18)
    assert np.unravel_index(values.argmax(), values.shape) == (2, 3)
    share = METHODS["darkest_pixel"].probability(torch.tensor([-127.5, 0.0, 127.5]), Settings())
    assert share.tolist() == [0.0, 0.5, 1.0]


def test_predictions_thresholds_metrics_and_report_come_by_the_same_way(run: Run) -> None:
    rows = read_predictions(run.folder / "predictions.csv")
    assert len(rows) == 48 and all(row.score == row.map_score for row in rows)
    results = load_results(run.folder)
    assert results.summary.folds_trained == [0, 1, 2]
    assert results.masks is not None and len(results.masks) == 48
    assert 0 < results.summary.pooled.ap <= 1
    page = (run.folder / "report.html").read_text()
    assert "darkest" in page and "Training" not in page
    assert is_finished(run)


def test_it_has_no_stage_to_train(run: Run) -> None:
    from ksdd_lib import pipeline

    assert method_of(run.settings).stages == ()
    with pytest.raises(RunError, match="darkest_pixel has no segmentation stage"):
        pipeline.train(run, open_data(run), "segmentation")


def test_it_can_be_given_away_and_judges_a_picture(run: Run, tmp_path: Path) -> None:
    data = open_data(run)
    weights.publish(run, data, 0, tmp_path / "rule.safetensors")
    detector = detection.load(tmp_path / "rule.safetensors")
    own = detection.of_run(run, data, 0)
    for row in read_predictions(run.folder / "predictions.csv")[:4]:
        image = data.read_pair(row.image)[0]
        assert detector.judge(image).label == own.judge(image).label
        assert detector.judge(image).score == own.judge(image).score


def test_a_run_of_it_is_called_by_it(run: Run) -> None:
    from ksdd_lib.presets import run_name

    assert "darkest_pixel" in run_name(run.settings)
    assert "two_stage" not in run_name(Settings())
