"""What a cell shows is replaced as work goes on, stays, and is whole again after a reload."""

import base64
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from tiny_training import tiny_data, tiny_run

from ksdd_lib import formatting
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import live, outputs
from ksdd_lib.reporting import plots, training_view
from ksdd_lib.training.batches import load_surfaces
from ksdd_lib.training.loop import Progress, Session, read_history


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


def at(step: int, fold: int = 0, steps: int = 350) -> Progress:
    rows = [
        {"step": n, "loss": 1 / n, "lr": 0.1, "seconds": 2.0 * n} for n in range(10, step + 1, 10)
    ]
    return Progress("segmentation", fold, step, steps, rows)


def look(image: torch.Tensor) -> torch.Tensor:
    """Answers with the same map everywhere."""
    return torch.full((image.shape[2] // 8, image.shape[3] // 8), 0.5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A tiny run, its data, and a network of few weights."""
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    data = tiny_data(tmp_path / "data")
    data = replace(data, record=data.record.model_copy(update={"is_generated": True}))
    return tiny_run(tmp_path / "run", segmentation_steps=3, decision_steps=3), data


def test_a_stage_has_one_live_picture_for_all_folds(screen, place):
    watch = live.watch_training(*place)
    for step in range(10, 351, 10):
        watch(at(step))
    [bundle] = screen.pictures
    assert screen.drawn == 2, "at the start and at the end of this quick training"
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == "segmentation, fold 0: all 350 steps done, loss 0.00286, 12 min"
    watch(at(350, fold=1))
    assert [one["text/plain"].partition(":")[0] for one in screen.pictures] == [
        "segmentation, fold 1"
    ]
    watch(replace(at(10), stage="decision"))
    assert len(screen.pictures) == 2


def test_the_picture_of_all_folds_shows_what_each_has_seen(screen, place, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        live, "training_view", lambda *told: (drawn.append(told), plots.sheet(1, 1))[1]
    )
    watch = live.watch_training(*place)
    for fold in (0, 1):
        for step in (10, 350):
            watch(replace(at(step, fold), look=look))
    *_, forming = drawn[-1]
    assert [(one.title, len(one.images)) for one in forming] == [("fold 0", 1), ("fold 1", 2)]
    assert [list(one.masks) for one in forming] == [[10, 350]] * 2
    assert all(mask.shape[0] == len(one.images) for one in forming for mask in one.masks.values())


@pytest.mark.fault(87)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_scores_of_a_decision_training_stay_in_its_history_and_are_drawn(
    screen, place, monkeypatch, batch: int
):
    run, data = place
    run = tiny_run(
        run.folder.with_name("other"),
        segmentation_steps=3,
        decision_steps=4,
        decision_batch_size=batch,
    )
    train_stage(run, data, 0, "segmentation")
    drawn = []
    draw = training_view._draw_scores
    monkeypatch.setattr(
        training_view, "_draw_scores", lambda *told: (drawn.append(told[1]), draw(*told))[1]
    )
    train_stage(run, data, 0, "decision", watch=live.watch_training(run, data))
    rows = read_history(run.fold_folder(0) / "decision.jsonl")
    shown = (
        sum("lowest_defective" in row for row in rows),
        sum("highest_good" in row for row in rows),
    )
    assert shown == {1: (2, 2), 2: (4, 4), 3: (4, 4)}[batch], "the kinds alternate"
    assert [len(drawn[-1][name]) for name in ("lowest_defective", "highest_good")] == list(shown)
    assert drawn[-1]["highest_good"] == [
        (row["step"], row["highest_good"]) for row in rows if "highest_good" in row
    ]


def test_of_a_history_without_scores_the_losses_are_drawn():
    rows = at(350).history
    view = training_view.training_view({"decision": {0: rows}}, 0, 350)
    assert len(view.axes) == 1
    rows = [row | {"highest_good": -1.0} for row in rows]
    assert len(training_view.training_view({"decision": {0: rows}}, 0, 350).axes) == 2


def test_of_several_pictures_in_a_row_the_two_nearest_to_an_error_are_drawn(place):
    session = Session.__new__(Session)
    seen = [(torch.tensor(2.0), torch.tensor(True)), (0.5, True), (-3.0, False), (-1.25, False)]
    run = place[0]
    run.fold_folder(0).mkdir(parents=True)
    session.stage = Mock(seen=seen, history=[], folder=run.fold_folder(0))
    session.stage.name, session.pending, session.began = "decision", [torch.tensor(0.5)], 0.0
    session.log(1, 0.1)
    [row] = session.stage.history
    assert (row["lowest_defective"], row["highest_good"]) == (0.5, -1.25) and not seen


def test_it_is_drawn_again_after_its_pause_and_says_what_is_on_drive(screen, place, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(outputs.time, "monotonic", lambda: clock[0])
    watch = live.watch_training(*place, lambda: "safe on Drive: step 50")
    for second, drawn in ((0, 1), (4, 1), (5.1, 2), (9, 2), (10.5, 3)):
        clock[0] = 1000.0 + second
        watch(at(100))
        assert screen.drawn == drawn, second
    assert screen.pictures[0]["text/plain"].endswith("left; safe on Drive: step 50")


def test_in_a_terminal_it_is_one_line_at_the_end(place, capsys: pytest.CaptureFixture):
    watch = live.watch_training(*place)
    watch(at(100))
    assert capsys.readouterr().out == ""
    watch(at(350))
    assert capsys.readouterr().out.startswith("segmentation, fold 0: all 350 steps done")


def test_progress_says_what_is_done_at_which_rate_and_how_long_it_takes():
    assert live.describe(at(120)) == (
        "segmentation, fold 0: step 120 of 350, loss 0.00833, 2 s a step, 4 min, about 7.7 min left"
    )
    assert formatting.duration(40) == "40 s"
    assert formatting.duration(9000) == "2.5 h"


def test_masks_are_asked_for_a_few_times_and_stay_on_disk(place):
    run, data = place
    examples = live.Examples(run, data, 0)
    assert [bool(mask.any()) for _, mask in examples.pairs] == [True, False]
    train = load_surfaces(data.folds[0].train, run.settings.view, "fine")
    known = [train.image(row) for row in range(len(train.samples))]
    assert all(any(torch.equal(image, one) for one in known) for image, _ in examples.pairs)
    for step in range(10, 351, 10):
        examples.look(replace(at(step), look=look))
    assert list(examples.masks) == [10, 30, 50, 90, 140, 200, 270, 350]
    assert examples.masks[350].shape == (2, 16, 16) and examples.masks[350].dtype == np.uint8
    again = live.Examples(run, data, 0)
    assert list(again.masks) == list(examples.masks)
    assert np.array_equal(again.masks[350], examples.masks[350])


def test_what_a_lost_session_saw_later_is_dropped(place):
    run, data = place
    examples = live.Examples(run, data, 0)
    for step in (10, 140, 270):
        examples.look(replace(at(step), look=look))
    examples.look(replace(at(100), look=look))
    assert list(examples.masks) == [10, 100]


def test_damaged_masks_are_asked_for_again(place, monkeypatch):
    """A file that was cut anywhere, or in which any byte is another, never stops a training."""
    run, data = place
    path = run.fold_folder(0) / "examples.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **{"10": np.arange(128, dtype=np.uint8).reshape(2, 8, 8) // 3})
    whole = path.read_bytes()
    surfaces = Mock(show=lambda _: None)
    monkeypatch.setattr(
        live, "one_of_each", lambda *_: (surfaces, ())
    )  # it has nothing to do with them
    damaged = [whole[:length] for length in range(len(whole))]
    altered = [whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1 :] for k in range(len(whole))]
    lost = 0
    for content in [b"PK\x03\x04 cut", *damaged, *altered]:
        path.write_bytes(content)
        lost += live.Examples(run, data, 0).masks == {}
    assert lost > len(damaged) + len(altered) / 3


@pytest.mark.fault(87)
def test_looking_changes_nothing_of_the_training(screen, place, tmp_path: Path):
    run, data = place
    other = tiny_run(tmp_path / "other", segmentation_steps=3, decision_steps=3)
    for stage, steps in (("segmentation", 3), ("decision", run.settings.decision_steps)):
        train_stage(run, data, 0, stage, watch=live.watch_training(run, data))
        train_stage(other, data, 0, stage)
        ours, theirs = (r.fold_folder(0) / f"{stage}-{steps:06}.json" for r in (run, other))
        assert ours.read_bytes() == theirs.read_bytes(), "it holds the weights' hash"


def test_a_finished_stage_is_shown_whole_from_disk(screen, place):
    run, data = place
    assert train_stage(run, data, 0, "segmentation", watch=live.watch_training(run, data))
    drawn = picture(screen.pictures[-1])
    screen.bundles.clear()
    assert not train_stage(run, data, 0, "segmentation", watch=live.watch_training(run, data))
    [bundle] = screen.pictures
    assert "all 3 steps done" in bundle["text/plain"]
    assert np.array_equal(picture(bundle), drawn)


def picture(bundle: dict) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(bundle["image/png"]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)
