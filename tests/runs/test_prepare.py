"""The data of a run: got once, found again, and the same ever after."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib import storage
from ksdd_lib.data.folds import clean_folds
from ksdd_lib.errors import DataError, FoldError, RunError
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import DataRecord, open_data, prepare_data
from ksdd_lib.runs.run import Run
from ksdd_lib.training.batches import load_surfaces


@pytest.fixture
def run(tmp_path: Path, tiny_root: Path) -> Run:
    """A run on the tiny data set, that is of 6 items with 4 surfaces each."""
    return open_run(tmp_path / "run", {"data": str(tiny_root)})


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.iterdir())


def test_own_data_is_surveyed_and_split(run: Run, tiny_root: Path) -> None:
    data = prepare_data(run)
    assert data.root == tiny_root
    assert len(data.samples) == 24 and sum(one.is_defective for one in data.samples) == 6
    assert [len(fold.test) for fold in data.folds] == [8, 8, 8]
    assert names(run) == ["data.json", "folds.json", "settings.json"]
    record = storage.read_record(run.folder / "data.json", DataRecord)
    assert record == data.record
    assert record.name == "tiny" and record.fingerprint == data.fingerprint
    assert not record.is_generated and not record.is_kolektor
    assert record.report.images == 24
    assert "The preset demo is made for generated surfaces" in record.report.advice[0]


def test_no_absolute_path_is_stored(run: Run, tmp_path: Path) -> None:
    prepare_data(run)
    for path in run.folder.iterdir():
        assert str(tmp_path) not in path.read_text()


def test_later_notebooks_find_the_same_data(run: Run) -> None:
    prepared = prepare_data(run)
    stored = {name: (run.folder / name).stat().st_mtime_ns for name in names(run)}
    again = open_run(run.folder, {})  # which knows the name of the data, not its place
    for found in (open_data(again), prepare_data(again)):
        assert found.samples == prepared.samples
        assert [(f.train, f.test) for f in found.folds] == [
            (f.train, f.test) for f in prepared.folds
        ]
        assert found.fingerprint == prepared.fingerprint
    assert stored == {name: (run.folder / name).stat().st_mtime_ns for name in names(run)}


def test_before_training_each_file_is_decoded_twice_at_most(run: Run, decoded: Counter) -> None:
    data = prepare_data(run)
    assert len(decoded) == 48 and set(decoded.values()) == {1}
    assert open_data(run).samples == data.samples
    assert set(decoded.values()) == {1}, "opening a prepared run decodes nothing"
    load_surfaces(data.samples, run.settings.size, "fine")
    assert len(decoded) == 48 and max(decoded.values()) == 2


def test_a_run_of_before_the_contents_were_stored_opens(run: Run, decoded: Counter) -> None:
    data = prepare_data(run)
    stored = storage.read_json(run.folder / "data.json")
    del stored["contents"], stored["report"]["advice"], stored["report"]["defect_widths"]
    del stored["report"]["mask_levels"]
    storage.write_json(run.folder / "data.json", stored)
    decoded.clear()
    again = open_data(run)
    assert again.samples == data.samples and again.folds == data.folds
    assert len(decoded) == 48 and set(decoded.values()) == {1}


@pytest.mark.fault(21)
@pytest.mark.parametrize("edited", ["Part1.jpg", "Part1_label.bmp"])
def test_an_edited_picture_or_mask_is_noticed(run: Run, tiny_root: Path, edited: str) -> None:
    prepare_data(run)
    path = tiny_root / "tiny01" / edited
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    pixels[:9, :9] = 255
    cv2.imwrite(str(path), pixels)
    with pytest.raises(RunError, match="is not what run was begun with: fingerprint"):
        open_data(run)


@pytest.mark.fault(15)
def test_folds_edited_so_that_twins_stand_on_both_sides_are_refused(
    run: Run, tiny_root: Path
) -> None:
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny07")
    prepare_data(run)
    stored = storage.read_json(run.folder / "folds.json")
    for fold in stored["folds"]:
        if "tiny02" in fold["test_items"]:
            fold["test_items"].remove("tiny07")
            fold["train_items"].append("tiny07")
    storage.write_json(run.folder / "folds.json", stored)
    with pytest.raises(FoldError, match="leaks: tiny02"):
        open_data(run)


def test_a_pair_is_read_by_its_name_at_its_own_size(run: Run) -> None:
    image, mask = prepare_data(run).read_pair("tiny02/Part1")
    assert image.shape == mask.shape == (160, 128)
    assert image.dtype == np.uint8 and mask.dtype == bool and mask.any()


def test_without_the_first_notebook_it_is_named(run: Run) -> None:
    with pytest.raises(RunError, match="run 01_download_data.ipynb first"):
        open_data(run)


@pytest.mark.fault(21)
def test_changed_data_is_refused(run: Run, tiny_root: Path) -> None:
    prepare_data(run)
    shutil.copy(tiny_root / "tiny01" / "Part0.jpg", tiny_root / "tiny02" / "Part3.jpg")
    with pytest.raises(RunError, match="is not what run was begun with: fingerprint") as told:
        open_data(run)
    assert f"%env KSDD_RUN={run.folder}-2 into a new cell" in str(told.value)


def test_moved_data_is_found_where_it_is_said_to_be(
    run: Run, tiny_root: Path, tmp_path: Path
) -> None:
    fingerprint = prepare_data(run).fingerprint
    (tmp_path / "elsewhere").mkdir()
    tiny_root.rename(tmp_path / "elsewhere" / "tiny")
    with pytest.raises(DataError, match="not on this machine.*%env KSDD_DATA=/path/to/tiny"):
        open_data(open_run(run.folder, {}))
    moved = open_run(run.folder, {"data": str(tmp_path / "elsewhere" / "tiny")})
    assert open_data(moved).fingerprint == fingerprint


@pytest.mark.parametrize("below", ["", "ksdd"], ids=["in MyDrive", "in MyDrive/ksdd"])
@pytest.mark.parametrize("name", ["parts.zip", "parts"])
def test_data_in_drive_is_found_by_its_name_on_a_new_machine(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, name: str
) -> None:
    drive = tmp_path / "MyDrive"
    place = drive / below / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix:
        shutil.make_archive(str(place.with_suffix("")), "zip", tiny_root)
    else:
        shutil.copytree(tiny_root, place)
    first = open_run(tmp_path / "first" / "run", {"data": str(place)})
    fingerprint = prepare_data(first, drive).fingerprint
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new" / "home"))
    shutil.copytree(first.folder, tmp_path / "new" / "home" / "runs" / "run")
    again = open_run(tmp_path / "new" / "home" / "runs" / "run", {})
    assert again.settings.data == name
    assert open_data(again, drive).fingerprint == fingerprint
    place.rename(drive / "renamed")
    shutil.rmtree(tmp_path / "new" / "home" / "data", ignore_errors=True)
    with pytest.raises(DataError, match=f"run %env KSDD_DATA={drive}/{name} "):
        open_data(again, drive)


@pytest.mark.fault(21)
def test_other_data_of_the_name_in_drive_is_refused(
    tiny_root: Path, tmp_path: Path, make_data_set
) -> None:
    drive = tmp_path / "MyDrive"
    run = open_run(tmp_path / "run", {"data": str(tiny_root)})
    prepare_data(run)
    shutil.rmtree(tiny_root)
    make_data_set(drive / "tiny", items=7)
    with pytest.raises(RunError, match="is not what run was begun with: fingerprint"):
        open_data(open_run(run.folder, {}), drive)


def test_folds_that_do_not_suit_the_data_leave_nothing_behind(
    tmp_path: Path, tiny_root: Path
) -> None:
    run = open_run(tmp_path / "run", {"data": str(tiny_root), "folds": "official"})
    with pytest.raises(FoldError, match="official folds belong to KolektorSDD"):
        prepare_data(run)
    assert names(run) == ["settings.json"]


def test_few_defects_and_another_partition_are_found_again(tmp_path: Path, tiny_root: Path) -> None:
    wanted = {"data": str(tiny_root), "defective_images": 1, "partition": 3}
    run = open_run(tmp_path / "run", wanted)
    data = prepare_data(run)
    for fold in data.folds:
        assert sum(sample.is_defective for sample in fold.train) == 1
    assert [s.name for f in data.folds for s in f.test] != [
        s.name for f in clean_folds(data.samples) for s in f.test
    ]
    assert open_data(run).folds == data.folds


def test_parts_that_look_alike_are_kept_where_the_settings_say_so(
    tmp_path: Path, tiny_root: Path
) -> None:
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny07")
    for image in (tiny_root / "tiny07").glob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"\0")
    run = open_run(tmp_path / "run", {"data": str(tiny_root), "twins": "identical"})
    data = prepare_data(run)
    assert len({sample.item for fold in data.folds for sample in fold.test}) == 7
    assert data.record.report.twins == ()
    assert open_data(open_run(run.folder, {})).folds == data.folds


def test_killed_between_its_two_files_it_starts_again(run: Run) -> None:
    prepare_data(run)
    (run.folder / "data.json").unlink()
    (run.folder / "folds.json").write_text("{}")
    data = prepare_data(run)
    assert open_data(run).folds == data.folds


def test_generated_surfaces_are_made_once_and_made_again_when_gone(
    tmp_path: Path, own_home: Path
) -> None:
    settings = {"data": "generated", "generated_items": 6, "image_size": "128x128"}
    run = open_run(tmp_path / "run", settings)
    data = prepare_data(run)
    assert data.root == own_home / "data" / "generated-6-128x128"
    assert data.is_generated and len(data.samples) == 48
    shutil.rmtree(own_home / "data")
    assert open_data(run).fingerprint == data.fingerprint
