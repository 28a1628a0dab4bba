"""The rules without training go the whole way without a line of their own outside their files."""

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
from ksdd_lib.methods.local_contrast import ContrastJudge, local_contrast
from ksdd_lib.pipeline import is_finished, run_series
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.view import View


@pytest.fixture(scope="module", params=["darkest_pixel", "local_contrast"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSDD_HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        small = {"image_size": "128x128", "generated_items": 6, "method": request.param}
        run = open_run(folder / "run", {"preset": "demo", **small})
        run_series(run)
    return run


def test_its_score_is_the_darkest_pixel_and_its_map_says_where() -> None:
    pixels = torch.full((1, 1, 128, 144), 200, dtype=torch.uint8)
    pixels[0, 0, 17, 30] = 20
    score, values = DarknessJudge(torch.device("cpu")).judge(pixels)
    assert score.item() == 107.5 == values.max().item()
    assert values.shape == (16, 18)
    assert divmod(int(values.argmax()), 18) == (2, 3)
    share = METHODS["darkest_pixel"].probability(torch.tensor([-127.5, 0.0, 127.5]), Settings())
    assert share.tolist() == [0.0, 0.5, 1.0]


def textured(height: int, width: int, spread: float = 3.0) -> np.ndarray:
    """An even surface of gray 120 with a fine texture."""
    noise = np.random.default_rng(0).normal(120, spread, (height, width))
    return noise.round().astype(np.uint8)


def contrast(image: np.ndarray) -> tuple[float, np.ndarray]:
    score, values = ContrastJudge().judge(torch.from_numpy(image)[None, None])
    assert score.item() == values.max().item()
    return score.item(), values.numpy()


@pytest.mark.parametrize("step", [-40, 40])
@pytest.mark.parametrize(("high", "wide"), [(3, 60), (60, 3), (8, 8), (25, 25)])
def test_what_is_darker_or_brighter_than_its_surroundings_stands_out(
    step: int, high: int, wide: int
) -> None:
    image = textured(192, 256)
    plain, _ = contrast(image)
    image[100 : 100 + high, 150 : 150 + wide] += np.uint8(step % 256)
    score, values = contrast(image)
    assert score > 3 * plain
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert values.shape == (24, 32)
    assert 12 <= row <= (99 + high) // 8 and 18 <= column <= (149 + wide) // 8


def test_contrast_is_relative_to_the_texture_of_the_picture() -> None:
    calm, rough = textured(192, 256), textured(192, 256, 12)
    assert contrast(rough)[0] < 1.5 * contrast(calm)[0]
    for image in (calm, rough):
        image[90:98, 90:98] -= 40
    assert contrast(calm)[0] > 2 * contrast(rough)[0]


@pytest.mark.parametrize("level", [0, 120, 255])
def test_an_even_picture_has_no_contrast_and_slow_shading_little(level: int) -> None:
    assert contrast(np.full((128, 144), level, np.uint8))[0] == 0
    shading = np.tile(np.linspace(40, 200, 256), (192, 1)) + textured(192, 256) - 120.0
    assert contrast(shading.round().astype(np.uint8))[0] < 1.5 * contrast(textured(192, 256))[0]


@pytest.mark.parametrize("shape", [(192, 128), (128, 192), (160, 160), (192, 20), (20, 192)])
def test_the_step_to_an_even_border_is_no_contrast(shape: tuple[int, int]) -> None:
    image = textured(*shape)
    image[: shape[0] // 4] //= 2  # the border is like most of the edge, and unlike the rest
    placed = View((192, 192), "pad").placed(image)
    score, values = contrast(placed.lay(image))
    assert score == local_contrast(placed.inner.cut(placed.lay(image)).copy()).max()
    top, left, high, wide = placed.inner
    assert not values[: top // 8].any() and not values[-(-(top + high) // 8) :].any()
    assert not values[:, : left // 8].any() and not values[:, -(-(left + wide) // 8) :].any()


def test_a_contrast_is_shown_as_a_share() -> None:
    share = METHODS["local_contrast"].probability(torch.tensor([0.0, 5.0, 45.0]), Settings())
    assert share.tolist() == pytest.approx([0, 0.5, 0.9])


def test_predictions_thresholds_metrics_and_report_come_by_the_same_way(run: Run) -> None:
    rows = read_predictions(run.folder / "predictions.csv")
    assert len(rows) == 48 and all(row.score == row.map_score for row in rows)
    results = load_results(run.folder)
    assert results.summary.folds_trained == [0, 1, 2]
    assert results.masks is not None and len(results.masks) == 48
    assert 0 < results.summary.pooled.ap <= 1
    page = (run.folder / "report.html").read_text()
    assert run.settings.method.replace("_", " ") in page and "Training" not in page
    assert is_finished(run)


def test_it_has_no_stage_to_train(run: Run) -> None:
    from ksdd_lib import pipeline

    assert method_of(run.settings).stages == ()
    with pytest.raises(RunError, match=f"{run.settings.method} has no segmentation stage"):
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

    assert run.settings.method in run_name(run.settings)
    assert "two_stage" not in run_name(Settings())
