"""What labelme writes is read back equal, of each of its versions; what is no outline is told."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts.conftest import same, write
from layouts.drawn import lacks, notes, outlines, pictures, ring

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.layouts.readers import labelme


def shape(points: object, kind: str = "polygon", label: object = "crack", **more: object) -> dict:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    } | more


def labelme_5(path: Path, image: str, shapes: list, **more: object) -> None:
    value = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": base64.b64encode(b"a picture").decode(),
        "imageHeight": 160,
        "imageWidth": 128,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value | more, indent=2))


def labelme_3(path: Path, image: str, shapes: list) -> None:
    old = [{"label": one["label"], "points": one["points"], "line_color": None} for one in shapes]
    value = {"imagePath": image, "imageData": None, "shapes": old, "fillColor": [255, 0, 0, 128]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8-sig")


def png_shape(mask: np.ndarray) -> dict:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    png = cv2.imencode(".png", box.astype(np.uint8))[1].tobytes()
    corners = [[columns[0], rows[0]], [columns[-1], rows[-1]]]
    return shape(np.array(corners, float).tolist(), "mask", mask=base64.b64encode(png).decode())


@pytest.mark.parametrize("written", [labelme_5, labelme_3])
@pytest.mark.parametrize(
    ("picture", "marks", "named"),
    [
        ("{}.png", "{}.json", "{}.png"),
        ("lot/{}.png", "lot/{}.json", "{}.png"),
        ("images/{}.png", "json/{}.json", "..\\images\\{}.png"),
        ("images/{}.png", "annotations/{}.json", "../images/{}.png"),
        ("{}.bmp", "{}.json", "C:\\Users\\me\\{}.jpg"),
        ("{}.png", "{}.json", "before_it_was_renamed.png"),
    ],
)
def test_each_way_is_read_back_equal(
    written, picture, marks, named, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    pictures(root, surfaces, picture)
    for name, (_, mask) in surfaces.items():
        written(root / marks.format(name), named.format(name), list(map(shape, outlines(mask))))
    assert recognise(Tree(root))[0] == "labelme"
    same(read_back(root), surfaces, slack=1)
    assert notes(root) == ""


def test_a_mask_is_read_back_with_its_holes(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    drawn = surfaces | {"part0_0": (surfaces["part0_0"][0], ring())}
    pictures(root, drawn)
    for name, (_, mask) in drawn.items():
        labelme_5(root / f"{name}.json", f"{name}.png", [png_shape(mask)] if mask.any() else [])
    same(read_back(root), drawn)


def filled(kind: str, points: list) -> np.ndarray:
    """What labelme itself fills, by the definition of each shape."""
    y, x = np.mgrid[:160, :128]
    (x0, y0), (x1, y1) = points[0], points[-1]
    if kind == "rectangle":
        left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return np.hypot(x - x0, y - y0) <= np.hypot(x1 - x0, y1 - y0)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("rectangle", [[20.0, 30.0], [60.0, 50.0]]),
        ("rectangle", [[60.0, 50.0], [20.0, 30.0]]),
        ("rectangle", [[100.0, 30.0], [180.0, 300.0]]),
        ("circle", [[60.0, 70.0], [60.0, 100.0]]),
        ("circle", [[10.0, 10.0], [30.0, 10.0]]),
    ],
)
def test_rectangles_and_circles_are_filled(kind, points, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    labelme_5(tmp_path / "a.json", "a.png", [shape(points, kind)])
    found = labelme.find(Tree(tmp_path))
    mask, whole = found.pictures[0].mask((160, 128)), filled(kind, points)
    edge = cv2.dilate(whole.astype(np.uint8), np.ones((3, 3))) - cv2.erode(
        whole.astype(np.uint8), np.ones((3, 3))
    )
    assert not ((mask != whole) & (edge == 0)).any()
    assert found.pictures[0].classes == ("crack",)


@pytest.mark.parametrize("kind", ["line", "linestrip"])
def test_lines_have_a_width_that_is_told(kind, surfaces, tmp_path: Path):
    write(tmp_path / "data" / "a.png", surfaces["part0_0"][0])
    strip = shape([[10, 40], [110, 40]], kind)
    labelme_5(tmp_path / "data" / "a.json", "a.png", [strip])
    mask = labelme.find(Tree(tmp_path / "data")).pictures[0].mask((160, 128))
    assert mask[39:42, 20:100].all() and not mask[:37].any() and not mask[44:].any()
    assert "1 shapes are lines, taken as 3 pixels wide" in notes(tmp_path / "data")


NO_LABELS = {
    "a point": [shape([[5.0, 5.0]], "point")],
    "an unknown kind": [shape([[5, 5], [9, 9], [5, 9]], "cuboid")],
    "a polygon beside a point": [shape([[5, 5], [9, 9], [5, 9]]), shape([[1, 1]], "point")],
    "two points": [shape([[5.0, 5.0], [9.0, 9.0]])],
    "no points": [shape([])],
    "points of three": [shape([[1, 2, 3]] * 4)],
    "no number": [shape([[float("nan"), 5], [9, 9], [5, 9]])],
    "infinity": [shape([[float("inf"), 5], [9, 9], [5, 9]])],
    "a huge number": [shape([[10**400, 5], [9, 9], [5, 9]])],
    "text": [shape("everywhere")],
    "points without end": [json.loads("[" * 200 + "]" * 200)],
    "no shape": [None, 7, "crack"],
    "no keys": [{}],
    "a mask that is none": [shape([[0, 0], [5, 5]], "mask", mask="bm90IGEgcG5n")],
    "a mask that is no text": [shape([[0, 0], [5, 5]], "mask", mask=[1])],
    "a mask that is cut": [shape([[0, 0], [5, 5]], "mask", mask=png_shape(ring())["mask"][:60])],
    "a mask of a word": [shape([[0, 0], [5, 5]], "mask", mask="é")],
    "a mask larger than its picture": [png_shape(np.ones((161, 128), bool))],
    "a circle of one point": [shape([[5, 5]], "circle")],
}


@pytest.mark.fault(61)
@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_outlines_nothing_is_no_label_and_told(kind, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "good"  # by its folder alone it would be good
    pictures(root / "good", surfaces)
    for name in ("y", "z"):
        write(root / "x" / f"{name}.png", surfaces["part0_0"][0])
        labelme_5(root / "x" / f"{name}.json", f"{name}.png", [shape([[5, 5], [9, 9], [5, 9]])])
    labelme_5(root / "good" / "part0_0.json", "part0_0.png", NO_LABELS[kind])
    [(name, reason)] = lacks(root).items()
    assert name == "good/part0_0" and reason in notes(root)
    assert " of good/part0_0.json " in reason or "outlines nothing" in reason
    with pytest.raises(DataError, match="1 of the images"):
        read_back(root)


@pytest.mark.parametrize("far", [-50, -1e9, -1e300, 300, 1e9, 1e300])
def test_what_lies_beyond_the_picture_is_cut_off(far, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    points = [[far, far], [40.2, far], [40.2, 40.2], [far, 40.2]]
    labelme_5(tmp_path / "a.json", "a.png", [shape(points)])
    mask, wanted = labelme.find(Tree(tmp_path)).pictures[0].mask((160, 128)), np.zeros((160, 128))
    inside = slice(None, 41) if far < 0 else slice(40, None)
    wanted[inside, inside] = 1
    assert np.array_equal(mask, wanted)


@pytest.mark.parametrize("label", ["_background_", "__ignore__"])
def test_background_is_no_defect(label, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    labelme_5(tmp_path / "a.json", "a.png", [shape([[5, 5], [9, 9], [5, 9]], label=label)])
    assert not labelme.find(Tree(tmp_path)).pictures[0].mask((160, 128)).any()


@pytest.mark.fault(61)
def test_a_picture_without_a_file_is_not_good(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    for name in list(surfaces)[:5]:
        labelme_5(root / f"{name}.json", f"{name}.png", [])
    labelme_5(root / "gone.json", "gone.png", [])
    assert (
        "1 named pictures are not there, or several have the name: gone.png (gone.json)"
        in notes(root)
    )
    assert lacks(root) == {"part2_1": "it has no label"}
    with pytest.raises(DataError, match="part2_1"):
        read_back(root)


@pytest.mark.fault(61)
def test_two_files_that_differ_are_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    for name, (_, mask) in surfaces.items():
        labelme_5(root / f"{name}.json", f"{name}.png", list(map(shape, outlines(mask))))
        labelme_5(root / "b" / f"{name}.json", f"../{name}.png", list(map(shape, outlines(mask))))
    assert notes(root) == ""
    labelme_5(root / "b" / "part0_0.json", "../part0_0.png", [])
    [(name, reason)] = lacks(root).items()
    assert name == "part0_0" and "part0_0.json outline other defects in it" in reason


@pytest.mark.fault(62)
def test_the_size_must_be_the_pictures(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    for name in surfaces:
        labelme_5(root / f"{name}.json", f"{name}.png", [])
    labelme_5(root / "part0_0.json", "part0_0.png", [], imageHeight=320, imageWidth=256)
    labelme_5(root / "part1_0.json", "part1_0.png", [], imageHeight="x", imageWidth=[])
    labelme_5(root / "part1_1.json", "part1_1.png", [], imageHeight=128, imageWidth=160)
    labelme_5(root / "part2_0.json", "part2_0.png", [], imageHeight=None, imageWidth=None)
    found = lacks(root)
    assert found.keys() == {"part0_0", "part1_0", "part1_1"}
    assert found["part0_0"] == (
        "part0_0.json is for a picture of 320x256 pixels (height x width), but it has 160x128"
    )
    assert found["part1_1"].endswith("128x160 pixels (height x width), but it has 160x128")


@pytest.mark.fault(62)
@pytest.mark.parametrize("orientation", [6, 8])
def test_outlines_of_a_picture_that_exif_turns_are_told(orientation, surfaces, tmp_path: Path):
    from PIL import Image

    root = tmp_path / "data"
    pictures(root, surfaces)
    for name in surfaces:
        labelme_5(root / f"{name}.json", f"{name}.png", [])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(surfaces["part0_0"][0].T.copy()).save(root / "turned.jpg", exif=exif)
    labelme_5(root / "turned.json", "turned.jpg", [])
    assert lacks(root) == {}
    labelme_5(root / "turned.json", "turned.jpg", [], imageHeight=128, imageWidth=160)
    [(name, reason)] = lacks(root).items()
    assert name == "turned" and "128x160" in reason
    assert reason.endswith("before its EXIF turns it: outline it as every viewer shows it")


def test_classes_are_kept(surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    three = [[5, 5], [9, 9], [5, 9]]
    labels = ["scratch", "crack", "", None, 3, {"a": 1}, " crack ", "a\nb\ud800"]
    labelme_5(tmp_path / "a.json", "a.png", [shape(three, label=label) for label in labels])
    found = labelme.find(Tree(tmp_path))
    assert found.pictures[0].classes == ("", "3", "a\\nb\\ud800", "crack", "scratch")


def test_two_layouts_that_fit_are_both_named_and_one_is_chosen(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / f"{name}.png", image)
        write(root / f"{name}_mask.png", mask)
        labelme_5(root / f"{name}.json", f"{name}.png", list(map(shape, outlines(mask))))
    with pytest.raises(DataError, match=r"layout=masks_beside\) and as .*layout=labelme"):
        read_back(root)
    same(read_back(root, layout="masks_beside"), surfaces)
    same(read_back(root, layout="labelme"), surfaces, slack=1)
    assert "6 pictures are masks, which this layout does not read" in notes(root, "labelme")
    assert "6 files not understood: part0_0.json" in notes(root, "masks_beside")


@pytest.mark.fault(61)
@pytest.mark.parametrize("text", ['{"shapes": [', "[1, 2]", "7", '{"shapes": {}}', '"x"', ""])
def test_other_files_are_named(text, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    for name in list(surfaces)[1:]:
        labelme_5(root / f"{name}.json", f"{name}.png", [])
    (root / "part0_0.json").write_text(text)
    assert "1 files not understood: part0_0.json" in notes(root)
    assert lacks(root) == {"part0_0": "it has no label"}
