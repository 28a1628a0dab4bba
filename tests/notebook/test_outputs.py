"""A cell shows pictures and lines that are replaced as work goes on, and that stay."""

import base64

import pytest

from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots


@pytest.mark.parametrize("is_generated", [True, False])
def test_a_figure_is_shown_as_a_picture_and_says_generated(screen, is_generated: bool):
    figure = plots.new_axes(2, 2).figure
    figure.axes[0].set(xlabel="distance", ylabel="time")
    outputs.show_figure(figure, is_generated)
    assert base64.b64decode(screen.bundles[0]["image/png"]).startswith(b"\x89PNG")
    words = "GENERATED; time against distance" if is_generated else "time against distance"
    assert screen.bundles[0]["text/plain"] == words
    assert screen.metadata[0] == {"image/png": {"alt": words}}
    assert [text.get_text() for text in figure.texts] == ["GENERATED"] * is_generated


def test_each_fold_is_counted_in_a_line_of_its_own(screen):
    watch = outputs.counter("scoring")
    for fold in (0, 1):
        for done in range(1, 41):
            watch(fold, done, 40)
    assert [bundle["text/plain"] for bundle in screen.bundles] == [
        "scoring, fold 0: 40 of 40 images, 0 s",
        "scoring, fold 1: 40 of 40 images, 0 s",
    ]


def test_in_a_file_only_the_last_line_stands(capsys):
    watch = outputs.counter("judged")
    for done in range(1, 41):
        watch(done, 40)
    assert capsys.readouterr().out == "judged: 40 of 40 images, 0 s\n"


def test_on_a_terminal_the_line_is_written_over(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    line = outputs.ProgressLine(0.0)
    line.show("step 1", key="a")
    line._due = 0.0
    line.show("step 2", is_last=True, key="a")
    line.show("another line that is too long", key="b")
    line.end()
    line.end()
    renewed = "\r\x1b[K"
    first, second, rest = capsys.readouterr().out.split("\n")
    assert first == f"{renewed}step 1{renewed}step 2"
    assert second == f"{renewed}another line that i" and rest == ""
