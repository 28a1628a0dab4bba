"""Pictures that are called defective, and no mask says where."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts.conftest import write

from ksdd_lib.data.dataset import fingerprint, read_mask
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import Survey, survey
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.presets import resolve
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data, prepare_data

Surfaces = dict[str, tuple[np.ndarray, np.ndarray]]


def folders(root: Path, surfaces: Surfaces) -> None:
    for name, (image, mask) in surfaces.items():
        write(root / ("Dellen" if mask.any() else "good") / f"{name}.png", image)


def table(root: Path, surfaces: Surfaces) -> None:
    rows = [("image", "class")]
    for name, (image, mask) in surfaces.items():
        write(root / f"{name}.png", image)
        rows.append((f"{name}.png", "scratched" if mask.any() else "good"))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def boxes(root: Path, surfaces: Surfaces) -> None:
    images, annotations = [], []
    for number, (name, (image, mask)) in enumerate(surfaces.items(), 1):
        write(root / f"{name}.png", image)
        height, width = image.shape
        images.append(dict(id=number, file_name=f"{name}.png", height=height, width=width))
        if mask.any():
            box = dict(id=number, image_id=number, category_id=1, bbox=[5, 5, 20, 20])
            annotations.append(box)
    categories = [{"id": 1, "name": "crack"}]
    held = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(held))


def mvtec(root: Path, surfaces: Surfaces) -> None:
    for name, (image, mask) in surfaces.items():
        kind = "bent" if mask.any() else "good"
        write(root / "test" / kind / f"{name}.png", image)
    write(root / "train" / "good" / "first.png", next(iter(surfaces.values()))[0] // 2)
    one, (_, mask) = next(iter(surfaces.items()))
    write(root / "ground_truth" / "bent" / f"{one}_mask.png", mask)  # of one alone


@pytest.fixture(params=[folders, table, boxes])
def root(request: pytest.FixtureRequest, surfaces: Surfaces, tmp_path: Path) -> Path:
    request.param(tmp_path / "data", surfaces)
    return tmp_path / "data"


def seen(root: Path, needs_masks: bool, tmp_path: Path) -> Survey:
    settings = resolve({"preset": "cpu", "item": "picture"})
    folder = as_item_folders(DataFolder(root, root.name), tmp_path / "home", settings)
    return survey(folder.root, needs_masks=needs_masks)


@pytest.mark.fault(74)
def test_they_are_refused_where_masks_are_needed_and_it_is_said_what_would_do(
    root: Path, tmp_path: Path
) -> None:
    found = seen(root, True, tmp_path)
    assert len(found.defective) == 3 and len(found.samples) == 3
    with pytest.raises(DataError, match="3 of them are called defective: masks=given learns"):
        found.usable()


@pytest.mark.fault(74)
def test_they_are_defective_samples_without_a_mask_elsewhere(root: Path, tmp_path: Path) -> None:
    samples = seen(root, False, tmp_path).usable()
    defective = [one for one in samples if one.is_defective]
    assert len(samples) == 6 and len(defective) == 3
    for one in samples:
        assert one.has_mask == (not one.is_defective) and not read_mask(one).any()
        assert read_mask(one).shape == one.size == (160, 128)


def test_masks_that_are_there_are_read(surfaces: Surfaces, tmp_path: Path) -> None:
    mvtec(tmp_path / "data", surfaces)
    samples = seen(tmp_path / "data", False, tmp_path).usable()
    masked = [one for one in samples if one.is_defective and one.has_mask]
    assert len(masked) == 1 and read_mask(masked[0]).any()
    assert sum(one.is_defective for one in samples) == 3


def test_an_unreadable_mask_is_no_label(surfaces: Surfaces, tmp_path: Path) -> None:
    mvtec(tmp_path / "data", surfaces)
    mask = next((tmp_path / "data" / "ground_truth").rglob("*.png"))
    mask.write_bytes(b"no picture")
    found = seen(tmp_path / "data", False, tmp_path)
    assert len(found.unreadable) == 1
    with pytest.raises(DataError, match="1 of the images cannot be used"):
        found.usable()


@pytest.mark.parametrize("masks", ["given", "none", "2"])
def test_a_run_finds_them_again(
    surfaces: Surfaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: str
) -> None:
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    folders(tmp_path / "data", surfaces)
    settings = {"data": str(tmp_path / "data"), "preset": "cpu", "masks": masks, "item": "picture"}
    run = open_run(tmp_path / "run", settings)
    first, again = prepare_data(run), open_data(run)
    assert fingerprint(first.samples) == fingerprint(again.samples) == first.fingerprint
    assert first.record.report.without_mask == 3
    assert [one.has_mask for one in again.samples] == [one.has_mask for one in first.samples]


@pytest.mark.parametrize("named", ["good", "pictures"])
def test_good_pictures_alone_are_a_data_set_where_all_are_said_to_be_good(
    surfaces: Surfaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    for name, (image, mask) in surfaces.items():
        if not mask.any():
            write(tmp_path / named / f"{name}.png", image)
    settings = {"data": str(tmp_path / named), "preset": "cpu", "item": "picture"}
    with pytest.raises(DataError, match="in no known layout.*incomplete=good"):
        prepare_data(open_run(tmp_path / "one", {**settings, "labels": "none"}))
    settings["incomplete"] = "good"
    data = prepare_data(open_run(tmp_path / "two", {**settings, "labels": "none"}))
    assert len(data.samples) == 3 and not any(one.is_defective for one in data.samples)
    assert [len(fold.test) for fold in data.folds] == [1, 1, 1]


def lost(root: Path, surfaces: Surfaces) -> None:
    """A table that names masks of all defects, of which none is there."""
    rows = [("image", "mask")]
    for name, (image, mask) in surfaces.items():
        write(root / f"{name}.png", image)
        rows.append((f"{name}.png", f"drawn/{name}.png" if mask.any() else ""))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def outlined(root: Path, surfaces: Surfaces) -> None:
    """Folders called by what they show, and labelme's file for one of the defects."""
    folders(root, surfaces)
    shapes = [{"label": "x", "points": [[9, 9], [60, 9], [60, 60]], "shape_type": "polygon"}]
    held = {"imagePath": "part0_0.png", "shapes": shapes, "imageHeight": 160, "imageWidth": 128}
    (root / "Dellen" / "part0_0.json").write_text(json.dumps(held))


def in_a_good_folder(root: Path, surfaces: Surfaces) -> None:
    """A table that calls pictures in a folder called good defective."""
    table(root / "good", surfaces)
    text = (root / "good" / "labels.csv").read_text().replace("part", "good/part")
    (root / "good" / "labels.csv").unlink()
    (root / "labels.csv").write_text(text)


@pytest.mark.fault(65)
@pytest.mark.parametrize("made", [folders, table, boxes, mvtec, lost, outlined, in_a_good_folder])
@pytest.mark.parametrize("incomplete", ["refuse", "good"])
def test_what_anything_calls_defective_is_never_the_rest_that_is_good(
    made: Callable[[Path, Surfaces], None], incomplete: str, surfaces: Surfaces, tmp_path: Path
) -> None:
    """Neither NOT_GOOD nor LABELS is in any of these names: the class alone tells."""
    made(tmp_path / "data", surfaces)
    settings = resolve({"preset": "cpu", "item": "picture", "incomplete": incomplete})
    folder = as_item_folders(DataFolder(tmp_path / "data", "data"), tmp_path / "home", settings)
    found = survey(folder.root)
    assert not {Path(s.name).name for s in found.samples if not s.is_defective} & set(BAD)


BAD = ("part0_0", "part0_1", "part1_0")
"""The defective ones of the `surfaces`."""


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (folders, "part0_0.png has no label: its folder 'Dellen' names a defect, and no mask"),
        (table, "part0_0.png has no label: labels.csv names no mask for it"),
        (boxes, "part0_0.png has no label: it has boxes, which outline no defect"),
        (lost, "part0_0.png has no label: its mask 'drawn/part0_0.png' is not there"),
    ],
)
def test_a_refusal_says_why_there_is_no_label(
    made: Callable[[Path, Surfaces], None], told: str, surfaces: Surfaces, tmp_path: Path
) -> None:
    made(tmp_path / "data", surfaces)
    found = seen(tmp_path / "data", True, tmp_path)
    assert told in found.unreadable[0].reason
    with pytest.raises(DataError, match=re.escape(told)):
        found.usable()
