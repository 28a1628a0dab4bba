"""A cell shows pictures and lines that are replaced as work goes on, and that stay."""

import base64

import pytest

from ksdd_lib import outputs, report, visualize
from ksdd_lib.train import Progress


@pytest.mark.parametrize("is_generated", [True, False])
def test_a_figure_is_shown_as_a_picture_and_says_generated(screen, is_generated: bool):
    figure = visualize.new_axes(2, 2).figure
    outputs.show_figure(figure, {"is_generated": is_generated})
    assert base64.b64decode(screen.bundles[0]["image/png"]).startswith(b"\x89PNG")
    assert [text.get_text() for text in figure.texts] == ["GENERATED"] * is_generated


def at(step: int, fold: int = 0, steps: int = 350) -> Progress:
    rows = [
        {"step": n, "loss": 1 / n, "lr": 0.1, "seconds": 2.0 * n} for n in range(10, step + 1, 10)
    ]
    return Progress("segmentation", fold, step, steps, rows)


def test_the_live_curve_is_one_picture_that_is_replaced(screen):
    watch = outputs.live_curve()
    for step in range(10, 351, 10):
        watch(at(step))
    [bundle] = screen.bundles
    assert screen.drawn == 2, "at the start and at the end of this quick training"
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == (
        "segmentation, fold 0: all 350 steps done, loss 0.00286, 12 min"
    )
    watch(at(10, fold=1))
    assert len(screen.bundles) == 2


def test_the_live_curve_is_drawn_again_after_its_pause(screen, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(outputs.time, "monotonic", lambda: clock[0])
    watch = outputs.live_curve(is_generated=True)
    for second, drawn in ((0, 1), (4, 1), (5.1, 2), (9, 2), (10.5, 3)):
        clock[0] = 1000.0 + second
        watch(at(100))
        assert screen.drawn == drawn, second


def test_a_live_curve_in_a_terminal_is_one_line_at_the_end(capsys: pytest.CaptureFixture):
    watch = outputs.live_curve()
    watch(at(100))
    assert capsys.readouterr().out == ""
    watch(at(350))
    assert capsys.readouterr().out.startswith("segmentation, fold 0: all 350 steps done")


def test_progress_says_what_is_done_and_how_long_it_takes():
    assert outputs.describe(at(120)) == (
        "segmentation, fold 0: step 120 of 350, loss 0.00833, 4 min, about 7.7 min left"
    )
    assert report.duration(40) == "40 s"
    assert report.duration(9000) == "2.5 h"


def test_scoring_shows_one_line_for_each_fold(screen):
    watch = outputs.progress_line("scoring")
    for fold in (0, 1):
        for done in range(1, 41):
            watch(fold, done, 40)
    assert [bundle["text/plain"] for bundle in screen.bundles] == [
        "scoring, fold 0: 40 of 40 images, 0 s",
        "scoring, fold 1: 40 of 40 images, 0 s",
    ]
