"""A picture without a label is told by what its layout would have, not by another layout's file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from layouts.conftest import write
from layouts.drawn import outlines, pictures
from layouts.test_coco import instances
from layouts.test_cvat import polygon, write_xml
from layouts.test_labelme import labelme_5, shape
from layouts.test_via import export, of_surfaces
from layouts.test_voc import VOC, indices, save
from layouts.test_yolo import segments

from ksdd_lib.data.data_report import inspect_data
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import survey
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.presets import resolve

LOST = "part0_1"


def but_one(surfaces) -> dict:
    return {name: pair for name, pair in surfaces.items() if name != LOST}


def labelme(root: Path, surfaces) -> None:
    pictures(root, surfaces)
    for name, (_, mask) in but_one(surfaces).items():
        labelme_5(root / f"{name}.json", f"{name}.png", [shape(one) for one in outlines(mask)])


def coco(root: Path, surfaces) -> None:
    pictures(root, surfaces)
    instances(root / "a.json", but_one(surfaces))


def cvat(root: Path, surfaces) -> None:
    pictures(root, surfaces)
    found = {f"{n}.png": polygon(m) if m.any() else "" for n, (_, m) in but_one(surfaces).items()}
    write_xml(root / "a.xml", found)


def via(root: Path, surfaces) -> None:
    pictures(root, surfaces)
    export(root / "via.json", of_surfaces(but_one(surfaces)))


def yolo(root: Path, surfaces) -> None:
    pictures(root, surfaces, "images/{}.png")
    for name, (_, mask) in but_one(surfaces).items():
        segments(root / "labels" / f"{name}.txt", mask)


def voc(root: Path, surfaces) -> None:
    pictures(root, surfaces, "JPEGImages/{}.png")
    for name, (_, mask) in but_one(surfaces).items():
        save(root / "SegmentationClass" / f"{name}.png", indices(mask), "P", VOC)


def masks(root: Path, surfaces) -> None:
    pictures(root, surfaces, "images/{}.png")
    for name, (_, mask) in but_one(surfaces).items():
        write(root / "masks" / f"{name}.png", mask)


def kolektorsdd2(root: Path, surfaces) -> None:
    for number, (name, (image, mask)) in enumerate(surfaces.items()):
        side = root / ("train", "test")[number % 2]
        write(side / f"{name}.png", image)
        if name != LOST:
            write(side / f"{name}_GT.png", mask)


def mvtec(root: Path, surfaces) -> None:
    for number, (name, (image, mask)) in enumerate(surfaces.items()):
        side = root / ("train" if number == 5 else "test") / ("crack" if mask.any() else "good")
        write(side / f"{name}.png", image)
        if mask.any() and name != LOST:
            write(root / "ground_truth" / "crack" / f"{name}_mask.png", mask)


def table(root: Path, surfaces) -> None:
    pictures(root, surfaces)
    rows = ["image,class,mask"]
    for name, (_, mask) in but_one(surfaces).items():
        write(root / "white" / f"{name}.png", mask)
        rows.append(f"{name}.png,crack,white/{name}.png" if mask.any() else f"{name}.png,good,")
    (root / "labels.csv").write_text("\n".join([*rows, f"{LOST}.png,crack,"]) + "\n")


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("lay", "wanted"),
    [
        (labelme, "JSON file of labelme"),
        (coco, "COCO"),
        (cvat, "XML of CVAT"),
        (via, "VIA"),
        (yolo, "text file of YOLO"),
        (voc, "mask in SegmentationClass"),
        (masks, "in a folder of masks"),
        (kolektorsdd2, "NAME_GT.png"),
        (mvtec, "mask in ground_truth"),
        (table, "labels.csv"),
    ],
)
def test_what_the_layout_would_have_is_named(
    lay: Callable[[Path, dict], None], wanted: str, surfaces, tmp_path: Path
):
    lay(tmp_path / "data", surfaces)
    settings = resolve({"preset": "cpu"})
    folder = as_item_folders(DataFolder(tmp_path / "data", "data"), tmp_path / "home", settings)
    found = survey(folder.root)
    [lost] = found.unreadable
    assert LOST in lost.reason and wanted in lost.reason and "_label.bmp" not in lost.reason
    assert any(LOST in note and wanted in note for note in folder.notes)
    with pytest.raises(DataError, match=re.escape(wanted)):
        found.usable()
    assert inspect_data(found, folder, settings).unreadable == found.unreadable


@pytest.mark.fault(7)
def test_a_label_that_is_drawn_later_is_read(surfaces, tmp_path: Path):
    labelme(tmp_path / "data", surfaces)
    settings = resolve({"preset": "cpu"})
    folder = as_item_folders(DataFolder(tmp_path / "data", "data"), tmp_path / "home", settings)
    [place] = folder.root.glob(f"*/{LOST}.png")
    write(place.with_name(f"{LOST}_Label.png"), surfaces[LOST][1])
    [lost] = survey(folder.root).unreadable
    assert "looks like the label" in lost.reason
    place.with_name(f"{LOST}_Label.png").rename(place.with_name(f"{LOST}_label.png"))
    assert not survey(folder.root).unreadable
