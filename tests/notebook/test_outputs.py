"""A cell shows pictures and lines that are replaced as work goes on, and that stay."""

import base64

import pytest

from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots


@pytest.mark.parametrize("is_generated", [True, False])
def test_a_figure_is_shown_as_a_picture_and_says_generated(screen, is_generated: bool):
    figure = plots.new_axes(2, 2).figure
    figure.axes[0].set(xlabel="distance", ylabel="time")
    outputs.show_figure(figure, {"is_generated": is_generated})
    assert base64.b64decode(screen.bundles[0]["image/png"]).startswith(b"\x89PNG")
    words = "GENERATED; time against distance" if is_generated else "time against distance"
    assert screen.bundles[0]["text/plain"] == words
    assert screen.metadata[0] == {"image/png": {"alt": words}}
    assert [text.get_text() for text in figure.texts] == ["GENERATED"] * is_generated


def test_scoring_shows_one_line_for_each_fold(screen):
    watch = outputs.progress_line("scoring")
    for fold in (0, 1):
        for done in range(1, 41):
            watch(fold, done, 40)
    assert [bundle["text/plain"] for bundle in screen.bundles] == [
        "scoring, fold 0: 40 of 40 images, 0 s",
        "scoring, fold 1: 40 of 40 images, 0 s",
    ]
