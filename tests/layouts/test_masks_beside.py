"""Masks beside their pictures, or in a folder of their own, are read back equal."""

from pathlib import Path

import numpy as np
import pytest
from layouts.conftest import same, write

from ksdd_lib.data.sources import DataFolder
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders, item_of, propose
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Picture, Tree
from ksdd_lib.presets import resolve


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("{}.png", "{}_label.png"),
        ("{}.jpg.png", "{}.jpg_mask.png"),
        ("{}.bmp", "{}_GT.bmp"),
        ("deep/er/{}.png", "deep/er/{} mask.png"),
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.png", "labels/{}_label.png"),
        ("set/images/train/{}.png", "set/ground_truth/train/{}_mask.png"),
        ("train/img/{}.png", "train/annotations/{}.png"),
        ("JPEGImages/{}.png", "SegmentationClass/{}.png"),
    ],
)
def test_each_way_is_read_back_equal(picture, mask, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / picture.format(name), image)
        write(root / mask.format(name), annotation)
    same({name.replace(".jpg", ""): pair for name, pair in read_back(root).items()}, surfaces)


def test_a_mask_may_have_the_name_of_its_photograph(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / f"{name}.jpg", image)
        write(root / f"{name}.png", annotation)
    found = read_back(root)
    same(
        {name: (surfaces[name.partition("/")[0]][0], pair[1]) for name, pair in found.items()},
        surfaces,
    )


@pytest.mark.fault(89)
@pytest.mark.parametrize(("picture", "mask"), [("bmp", "png"), ("png", "bmp"), ("PNG", "BMP")])
def test_of_two_files_of_one_name_the_one_of_two_levels_is_the_mask(
    picture, mask, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / f"{name}.{picture}", image)
        write(root / f"{name}.{mask}", annotation)
    same(read_back(root), surfaces)
    write(root / f"part0_0.{mask}", surfaces["part0_1"][0])
    with pytest.raises(DataError, match=r"part0_0\.\w+ and part0_0\.\w+ would both be"):
        read_back(root)


@pytest.mark.fault(92)
@pytest.mark.parametrize("ending", ["tif", "TIFF", "webp", "jfif"])
@pytest.mark.parametrize("every", [False, True])
def test_pictures_of_other_kinds_are_named_with_what_to_do(ending, every, surfaces, tmp_path: Path):
    for name, (image, annotation) in surfaces.items():
        write(tmp_path / "masks" / f"{name}.png", annotation)
        if every or name == "part0_0":
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / f"{name}.{ending}").write_bytes(b"x")
        else:
            write(tmp_path / "images" / f"{name}.png", image)
    folder, settings = DataFolder(tmp_path, "data"), resolve({"preset": "cpu"})
    try:
        told = " ".join(as_item_folders(folder, tmp_path.parent / "home", settings).notes)
    except DataError as error:
        told = str(error)
    assert ending in told and "Save pictures as PNG or JPEG" in told


def test_a_picture_without_a_mask_is_never_good(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        if name != "part2_1":
            write(root / "masks" / f"{name}.png", annotation)
    with pytest.raises(DataError, match="part2_1.png has no label: no mask has its name"):
        read_back(root)


def test_one_in_a_folder_called_good_is(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / ("crack" if annotation.any() else "good") / f"{name}.png", image)
        if annotation.any():
            write(root / "crack" / f"{name}_mask.png", annotation)
    same(read_back(root), surfaces)


def test_a_picture_with_two_masks_is_named(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", annotation)
        write(root / "masks" / f"{name}_mask.png", annotation)
    with pytest.raises(DataError, match="has no label: it has two masks"):
        read_back(root)


def test_a_mask_of_another_size_is_no_label(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", annotation[:-16])
    with pytest.raises(DataError, match="has no label: .* its mask"):
        read_back(root)


def test_the_item_comes_by_rule(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / "a" / "images" / f"{name}.png", image)
        write(root / "a" / "masks" / f"{name}.png", annotation)
    items = {rule: {n.partition("/")[0] for n in read_back(root, item=rule)} for rule in RULES}
    assert {rule: len(found) for rule, found in items.items()} == RULES
    assert items["(.+)_[0-9]"] == {"part0", "part1", "part2"}


RULES = {"auto": 6, "picture": 6, "folder": 1, "(.+)_[0-9]": 3, "(part0)_.": 5}


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("auto", "Each picture is taken for a part of its own. Where their names tell"),
        ("picture", ""),
        ("folder", "1 of 6 pictures are taken for parts of their own, as item=folder does"),
        ("(part0)_.", "4 of 6 pictures are taken for parts of their own, as item=(part0)_. does"),
        ("(.+)_[0-9]+", ""),
    ],
)
def test_pictures_whose_part_is_not_told_are_counted(rule, told, surfaces, tmp_path: Path):
    for name, (image, annotation) in surfaces.items():
        folder = tmp_path if name == "part2_1" else tmp_path / "a"
        write(folder / f"{name}.png", image)
        write(folder / f"{name}_mask.png", annotation)
    folder = DataFolder(tmp_path, "data")
    settings = resolve({"preset": "cpu", "item": rule})
    notes = as_item_folders(folder, tmp_path.parent / "home", settings).notes
    assert told in " ".join(notes) and bool(told) == bool(notes)


@pytest.mark.fault(92)
@pytest.mark.parametrize("rule", ["T0", r"(.+)_[0-9]+\.png", "^part", "folder"])
def test_a_rule_that_tells_no_part_is_refused(rule, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / f"{name}.png", image)
        write(root / f"{name}_mask.png", annotation)
    with pytest.raises(DataError, match="tells the part of no picture: "):
        read_back(root, item=rule)


def test_item_folders_are_read_as_they_lie(tiny_root: Path, read_back):
    assert np.array_equal(len(read_back(tiny_root)), 24)
    assert not (tiny_root.parent / "home").exists()
    assert len({name.partition("/")[0] for name in read_back(tiny_root, item="picture")}) == 24


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["kos01_Part5", "kos01_Part6", "kos02_Part1", "kos02_Part2", "k3_a", "k3_b"], 3),
        (["a1", "a2", "b1", "b2", "c1", "c2"], 3),
        ([f"set/IMG_{number:04}" for number in range(9)], 0),
        ([f"{number}" for number in range(9)], 0),
        (["left 1 x", "left 2 y", "right 1 x", "right 2 y", "top 1 x", "top 2 y"], 3),
        ([f"{camera}/{number}" for camera in ("left", "right") for number in range(6)], 0),
        ([f"{kind}/{number:03}" for kind in ("good", "crack", "dent") for number in range(3)], 0),
        ([f"images/{side}/{number}" for side in ("train", "val", "test") for number in (1, 2)], 0),
        ([f"part {part}/{number}" for part in range(4) for number in range(3)], 4),
        ([f"s/{part}/images/{number}" for part in "ABC" for number in range(2)], 3),
    ],
)
def test_the_pattern_that_names_suggest_is_proposed(names, parts):
    told = propose(names)
    if not parts:
        assert told == ""
        return
    assert f"makes {parts} parts of {len(names)} pictures" in told
    pattern = told.partition("'item=")[2].partition("'")[0]
    pictures = [Picture(name, Path(name), None) for name in names]
    assert len({item_of(one, pattern) for one in pictures}) == parts


@pytest.mark.fault(89)
@pytest.mark.parametrize("where", ["{}", "set/{}", "my parts/2024/{}"])
def test_item_folders_stay_parts_beside_other_files(where, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / where.format(name[:5]) / f"{name}.png", image)
        write(root / where.format(name[:5]) / f"{name}_label.png", annotation)
    (root / "info.json").write_text("{}")
    found = read_back(root)
    same(found, surfaces)
    assert {name.partition("/")[0] for name in found} == {"part0", "part1", "part2"}


@pytest.mark.fault(89)
@pytest.mark.parametrize("where", ["{}", "set/{}"])
@pytest.mark.parametrize("good", ["good", "OK"])
def test_folders_that_name_classes_are_no_parts(where, good, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        folder = root / where.format("crack" if annotation.any() else good)
        write(folder / f"{name}.png", image)
        write(folder / f"{name}_label.png", annotation)
    found = read_back(root)
    same(found, surfaces)
    assert len({name.partition("/")[0] for name in found}) == 6


@pytest.mark.fault(89)
@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("{kind}/{name}.png", "{kind}/{name}_mask.png"),
        ("{kind}/Imgs/{name}.jpg", "{kind}/Imgs/{name}.png"),
        ("images/{kind}/{name}.png", "masks/{kind}/{name}.png"),
    ],
)
@pytest.mark.parametrize("good", ["good", "OK", "MT_Free"])
def test_folders_name_the_classes_of_masks_and_of_what_has_none(
    picture, mask, good, surfaces, tmp_path: Path
):
    """Also where good ones have black masks, which would otherwise count as pictures."""
    kinds = {name: ("Riss", "Delle")[int(name[-1])] for name in surfaces}
    kinds |= {name: good for name, (_, annotation) in surfaces.items() if not annotation.any()}
    kinds["bare"] = "Delle"
    pairs = {**surfaces, "bare": (surfaces["part0_1"][0] // 2, None)}
    for name, (image, annotation) in pairs.items():
        write(tmp_path / picture.format(kind=kinds[name], name=name), image)
        if annotation is not None:
            write(tmp_path / mask.format(kind=kinds[name], name=name), annotation)
    layout, found = recognise(Tree(tmp_path))
    assert layout == "masks_beside"
    told = {one.path.stem: (one.classes, one.is_defective) for one in found.pictures}
    named = {
        name: (() if kind == good else (kind,), name == "bare") for name, kind in kinds.items()
    }
    assert told == named
