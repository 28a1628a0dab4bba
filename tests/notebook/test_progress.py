"""One bar tells how far all of a notebook's work is; what is saved of it can be read."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import live, progress
from ksdd_lib.notebook.progress import Whole, Work
from ksdd_lib.runs.run import FINAL
from ksdd_lib.training.loop import Progress


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A tiny run of three folds, its data, and a network of few weights."""
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    data = tiny_data(tmp_path / "data")
    steps = {"segmentation_steps": 40, "decision_steps": 10, "fold": "all"}
    return tiny_run(tmp_path / "run", **steps), data


def write_history(run, fold: int, stage: str, step: int, seconds: float) -> None:
    row = f'{{"step": {step}, "loss": 0.5, "lr": 0.1, "seconds": {seconds}}}\n'
    folder = run.fold_folder(fold)
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(folder / f"{stage}.jsonl", row)


def told(stage: str, fold: int, step: int, steps: int, seconds: float) -> Progress:
    return Progress(stage, fold, step, steps, [{"step": step, "loss": 0.5, "seconds": seconds}])


@pytest.mark.parametrize(
    ("parts", "words", "share"),
    [
        ([("a", 100, 0, 0.0), ("a", 100, 0, 0.0)], "0 %", 0.0),
        ([("a", 100, 100, 60.0), ("a", 100, 0, 0.0)], "50 %, 60 s of about 2 min", 0.5),
        ([("a", 100, 100, 60.0), ("a", 300, 0, 0.0)], "25 %, 60 s of about 4 min", 0.25),
        # of another pace: half the steps are a fifth of the time
        ([("a", 10, 10, 40.0), ("b", 10, 5, 80.0)], "60 %, 2 min of about 3.3 min", 0.6),
        # a kind of which nothing is known yet counts as the known ones do
        ([("a", 10, 10, 40.0), ("b", 10, 0, 0.0)], "50 %, 40 s of about 80 s", 0.5),
        ([("a", 10, 10, 40.0), ("b", 10, 10, 20.0)], "done in 60 s", 1.0),
        # never "100 %" before all is done
        ([("a", 1000, 999, 999.0)], "99 %, 17 min of about 17 min", 0.999),
        ([], "done", 1.0),
    ],
)
def test_what_is_done_and_left_of_all_parts_is_one_number(parts, words, share):
    whole = Whole({number: Work(*part) for number, part in enumerate(parts)})
    assert whole.words() == words
    assert whole.share == pytest.approx(share)


def test_a_pace_that_is_known_from_before_counts_for_what_has_not_begun():
    before = [Work("a", 10, 10, 30.0), Work("b", 10, 10, 10.0), Work("c", 5, 5, 500.0)]
    whole = Whole({0: Work("a", 10), 1: Work("b", 10)}, before=before)
    assert whole.words() == "0 %, 0 s of about 40 s"
    whole.parts[0] = Work("a", 10, 5, 30.0)
    assert whole.words() == "42 %, 30 s of about 70 s"


@pytest.mark.fault(90)
def test_the_bar_is_html_that_needs_no_script_and_no_widget():
    whole = Whole({0: Work("a", 100, 25, 60.0)}, "3 folds <b>")
    page = whole.page("fold 0: step 25 & more")
    assert "width: 25.0%" in page and 'aria-valuenow="25"' in page
    assert "fold 0: step 25 &amp; more" in page and "3 folds &lt;b&gt;: 25 %" in page
    assert not re.search(r"<(script|progress|svg|input)|class=|id=", page)


def test_all_folds_of_a_stage_are_one_work_and_finished_ones_count(place):
    run, _ = place
    write_history(run, 0, "segmentation", 40, 80.0)
    write_history(run, 1, "segmentation", 10, 20.0)
    whole = progress.training(run, "segmentation", 1)
    assert whole.name == "all 3 folds" and len(whole.parts) == 3
    assert whole.words() == "41 %, 1.7 min of about 4 min"
    alone = replace(run, settings=run.settings.with_values({"fold": "1"}))
    assert progress.training(alone, "segmentation", 1).name == "fold 1"
    assert progress.training(alone, "segmentation", 1).words() == "25 %, 20 s of about 80 s"


def test_the_model_of_all_items_is_both_stages_at_the_pace_of_the_folds(place):
    run, _ = place
    for fold in range(3):
        write_history(run, fold, "segmentation", 40, 80.0)
        write_history(run, fold, "decision", 10, 5.0)
    whole = progress.training(run, "segmentation", FINAL)
    assert whole.name == "the final model" and whole.words() == "0 %, 0 s of about 85 s"


def test_one_bar_stands_for_all_folds_and_is_renewed_in_place(screen, place):
    run, data = place
    watch = live.watch_training(run, data)
    bars = lambda: [one for one in screen.bundles if "text/html" in one]  # noqa: E731
    for fold in range(3):
        watch(told("segmentation", fold, 20, 40, 60.0))
        watch(told("segmentation", fold, 40, 40, 120.0))
        assert len(bars()) == 1
    assert bars()[0]["text/plain"].endswith("all 3 folds: done in 6 min")
    assert "width: 100.0%" in bars()[0]["text/html"]
    assert screen.bundles[0] is bars()[0], "above the pictures"


@pytest.mark.fault(90)
def test_a_session_that_goes_on_begins_where_the_work_is(screen, place):
    run, data = place
    write_history(run, 0, "segmentation", 40, 80.0)
    write_history(run, 1, "segmentation", 30, 60.0)
    watch = live.watch_training(run, data)
    watch(told("segmentation", 0, 40, 40, 80.0))  # it had finished
    [bar] = [one for one in screen.bundles if "text/html" in one]
    assert bar["text/plain"].endswith("all 3 folds: 58 %, 2.3 min of about 4 min")
    # the last checkpoint was an earlier step: what is done again counts again
    live_again = live.watch_training(run, data)
    live_again(told("segmentation", 1, 10, 40, 20.0))
    assert screen.bundles[-2]["text/plain"].endswith("all 3 folds: 41 %, 1.7 min of about 4 min")


@pytest.mark.fault(90)
def test_it_is_whole_when_a_finished_stage_is_run_again(screen, place):
    run, data = place
    run = replace(run, settings=run.settings.with_values({"fold": "0"}))
    assert train_stage(run, data, 0, "segmentation", watch=live.watch_training(run, data))
    screen.bundles.clear()
    assert not train_stage(run, data, 0, "segmentation", watch=live.watch_training(run, data))
    [bar] = [one for one in screen.bundles if "text/html" in one]
    assert "width: 100.0%" in bar["text/html"] and "fold 0: done in" in bar["text/plain"]


def test_scoring_is_one_bar_over_the_images_of_all_folds(screen, place, monkeypatch):
    run, data = place
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    watch = progress.watch_scoring(run, data)
    total = sum(len(fold.test) for fold in data.folds)
    sizes = [len(fold.test) for fold in data.folds]
    for fold, size in enumerate(sizes):
        for done in range(1, size + 1):
            clock[0] += 2.0
            watch(fold, done, size)
    [bar] = screen.bundles
    words = f"scoring, fold 2: {sizes[2]} of {sizes[2]} images; all 3 folds: done in "
    assert bar["text/plain"].startswith(words) and total == sum(sizes)
    assert "width: 100.0%" in bar["text/html"]


def test_in_a_terminal_scoring_is_a_line(place, capsys):
    run, data = place
    watch = progress.watch_scoring(run, data)
    for fold in data.folds:
        for done in range(1, len(fold.test) + 1):
            watch(fold.number, done, len(fold.test))
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith("all 3 folds: done in 0 s") and "<" not in line
