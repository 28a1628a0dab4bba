"""A run keeps its settings and knows what comes next."""

from pathlib import Path

import pytest

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.run import NOTEBOOKS, Run


def begin(run: Run, stage: str) -> None:
    storage.write_text(run.fold_folder(0) / f"{stage}.jsonl", "")


def test_settings_may_change_until_a_stage_has_used_them(run: Run) -> None:
    amended = run.amend({"segmentation_steps": 7, "decision_steps": 9})
    assert open_run(run.folder, {}).settings == amended.settings
    assert (amended.settings.segmentation_steps, amended.settings.decision_steps) == (7, 9)


def test_settings_of_a_stage_that_has_begun_are_fixed(run: Run) -> None:
    begin(run, "segmentation")
    for name, value in {"segmentation_steps": 7, "annotation": "box", "seed": 4}.items():
        with pytest.raises(RunError, match=name):
            run.amend({name: value})
    assert run.amend({"decision_steps": 9}).settings.decision_steps == 9
    begin(run, "decision")
    with pytest.raises(RunError, match="decision_steps"):
        run.amend({"decision_steps": 8})
    assert open_run(run.folder, {}).settings.decision_steps == 9


def test_data_settings_are_fixed_once_the_data_is_there(run: Run) -> None:
    assert run.amend({"image_size": "128x128"}).settings.size == (128, 128)
    storage.write_json(run.folder / "data.json", {})
    with pytest.raises(RunError, match="image_size"):
        run.amend({"image_size": "512x256"})


def test_a_stage_of_any_name_fixes_the_settings_of_the_whole_run(run: Run) -> None:
    storage.write_text(run.fold_folder(0) / ".first_stage.jsonl.1.tmp", "")
    assert not run.has_begun("run")
    begin(run, "first_stage")
    assert run.has_begun("run") and run.has_begun("first_stage")
    assert not run.has_begun("decision")


def test_touching_a_fixed_setting_without_changing_it_is_welcome(run: Run) -> None:
    begin(run, "segmentation")
    assert run.amend({"seed": 3}).settings == run.settings


def test_a_missing_part_names_the_notebook_that_makes_it(run: Run) -> None:
    for part, notebook in NOTEBOOKS.items():
        assert not run.has(part)
        with pytest.raises(RunError, match=f"no finished {part} yet: run {notebook}.ipynb first"):
            run.require(part)


def test_a_missing_stage_is_to_be_trained_first(run: Run) -> None:
    with pytest.raises(RunError, match="The run run has no finished first_stage yet: train it"):
        run.require("first_stage")
    with pytest.raises(RunError, match="no finished first_stage yet: run 02_train.ipynb first"):
        run.require("first_stage", "02_train")


def test_a_stage_that_diverged_says_where(run: Run) -> None:
    mark = {"stage": "first_stage", "fold": 0, "step": 7, "images": ["kos01/Part1", "kos02/Part3"]}
    storage.write_json(run.folder / "fold0/first_stage.diverged.json", mark)
    with pytest.raises(RunError, match=r"fold 0 diverged at step 7 \(kos01/Part1, kos02/Part3\)"):
        run.require("first_stage")


@pytest.mark.fault(20)
def test_a_stage_is_finished_when_all_its_folds_are(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", {"fold": "all"})
    for fold in (0, 1):
        storage.write_json(run.fold_folder(fold) / "segmentation.done.json", {})
    assert run.has("segmentation", 1) and not run.has("segmentation", 2)
    assert not run.has("segmentation")
    storage.write_json(run.fold_folder(2) / "segmentation.done.json", {})
    assert run.has("segmentation") and not run.has("decision")


def test_timing_keeps_one_line_for_each_thing(run: Run) -> None:
    run.note_time("segmentation stage, fold 0", 2.04)
    run.note_time("decision stage, fold 0", 1)
    run.note_time("segmentation stage, fold 0", 3)
    assert storage.read_json(run.folder / "timing.json") == [
        {"what": "decision stage, fold 0", "seconds": 1},
        {"what": "segmentation stage, fold 0", "seconds": 3},
    ]
