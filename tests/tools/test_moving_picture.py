"""The README's moving picture: what it says is counted, and what is kept can be looked at."""

import io
from pathlib import Path
from unittest.mock import Mock

import moving_picture
import numpy as np
import pytest
from evaluated_run import make_run, read_pair
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from small_results import row

from ksdd_lib.errors import RunError
from ksdd_lib.reporting.report import open_surfaces
from ksdd_lib.reporting.training_view import Forming

ROWS = [
    row("a", 0, True, 2.0, 0.5),
    row("b", 0, True, 0.2, 0.5),
    row("c", 0, False, 0.5, 0.5),
    row("d", 1, False, -1.0, -2.0),
    row("e", 1, False, -3.0, -2.0),
]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(
    ("place", "missed", "alarms"),
    [(0.0, 1, 1), (-0.5, 0, 2), (0.9, 1, 1), (1.6, 2, 0), (-9.0, 0, 3), (9.0, 2, 0)],
)
def test_the_errors_that_it_tells_are_those_of_the_scores(place, missed, alarms):
    told = words(moving_picture.scores(ROWS, place))
    assert told[3:9] == [f"{missed}", "of 2", "missed", f"{alarms}", "of 3", "false alarms"]
    assert ("of other folds" in told[-1]) == (place == 0)


def test_at_the_operating_threshold_they_are_those_of_the_results():
    flagged = [one.is_flagged for one in ROWS]
    missed = sum(one.is_defective and not one.is_flagged for one in ROWS)
    told = words(moving_picture.scores(ROWS, 0.0))
    assert (told[3], told[6]) == (str(missed), str(sum(flagged) - (2 - missed)))


@pytest.mark.parametrize("best", [True, False])
def test_the_verdict_is_that_of_the_part(tmp_path: Path, best: bool):
    rows, surface = open_surfaces(make_run(tmp_path / "run"), read_pair)
    defective = sorted((one for one in rows if one.is_defective), key=lambda one: one.margin)
    chosen = defective[-1 if best else 0]
    told = words(moving_picture.judged(surface(chosen)))
    assert told[3] == ("found" if best else "missed") and chosen.image in told[5]


def test_all_frames_say_that_surfaces_are_generated_and_play_in_order():
    images, outlines = [np.full((64, 32), 90, np.uint8)] * 2, [np.zeros((64, 32), bool)] * 2
    masks = {step: np.full((2, 8, 4), step / 50, np.float32) for step in (1, 20, 50)}
    forming = Forming("fold 0", images, outlines, masks)
    shown = [(moving_picture.training(forming, step, 50), 500) for step in masks]
    shown.append((moving_picture.scores(ROWS, 0.0), 900))
    assert all("GENERATED" in words(figure) for figure, _ in shown)
    assert [words(figure)[3] for figure, _ in shown[:3]] == ["1", "20", "50"]
    made = Image.open(io.BytesIO(moving_picture.gif(shown)))
    played = [(one.convert("RGB"), one.info["duration"]) for one in ImageSequence.Iterator(made)]
    assert [time for _, time in played] == [500, 500, 500, 900] and made.info["loop"] == 0
    assert all(one.getpixel((500, 8)) == (255, 255, 255) for one, _ in played)


def test_a_run_that_kept_no_maps_is_refused(tmp_path: Path, monkeypatch):
    rows = open_surfaces(make_run(tmp_path / "run"), read_pair)
    monkeypatch.setattr(moving_picture, "open_data", lambda run: Mock())
    monkeypatch.setattr(moving_picture, "open_surfaces", lambda *_: rows)
    monkeypatch.setattr(moving_picture, "Examples", lambda *_: Mock(forming=lambda *_: None))
    with pytest.raises(RunError, match="kept no maps of its training"):
        next(moving_picture.frames(tmp_path / "run"))


def test_the_kept_picture_is_light_and_as_long_as_a_glance():
    kept = Image.open(moving_picture.PICTURE)
    times = [one.info["duration"] for one in ImageSequence.Iterator(kept)]
    assert moving_picture.PICTURE.stat().st_size < 2_000_000 and kept.size == (800, 360)
    assert len(times) > 25 and 12_000 < sum(times) < 18_000
