"""YOLO's segments are read back equal; boxes and lines that are none are told."""

from pathlib import Path

import numpy as np
import pytest
from layouts.conftest import same, write
from layouts.drawn import lacks, masks, notes, outlines, pictures

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.layouts.readers import yolo

DATA = "path: ../set\ntrain: images/train\nval: images/val\nnc: 2\n"


def line(outline: list, kind: int = 0) -> str:
    shares = np.array(outline) / (128, 160)
    return " ".join([str(kind), *(f"{value:.6f}" for value in shares.ravel())])


def segments(path: Path, mask: np.ndarray, kind: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line(one, kind) for one in outlines(mask)))


def data_set(root: Path, surfaces, picture: str = "{}.png", text: str = "{}.txt") -> None:
    pictures(root, surfaces, picture)
    for name, (_, mask) in surfaces.items():
        segments(root / text.format(name), mask)


@pytest.mark.parametrize(
    ("picture", "text", "names"),
    [
        ("images/{}.png", "labels/{}.txt", "data.yaml"),
        ("images/train/{}.png", "labels/train/{}.txt", "data.yaml"),
        ("set/train/images/{}.bmp", "set/train/labels/{}.txt", "set/data.yml"),
        ("{}.png", "{}.txt", "classes.txt"),
        ("obj_train_data/{}.png", "obj_train_data/{}.txt", "obj.names"),
        ("images/images/{}.png", "images/labels/{}.txt", "labels/classes.txt"),
    ],
)
def test_each_way_is_read_back_equal(picture, text, names, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces, picture, text)
    (root / names).parent.mkdir(exist_ok=True)
    (root / names).write_text(DATA + "names: [crack, hole]\n" if "data" in names else "crack\nhole")
    assert recognise(Tree(root))[0] == "yolo"
    same(read_back(root), surfaces, slack=1)
    assert notes(root) == ""
    assert {one.classes for one in yolo.find(Tree(root)).pictures} == {("crack",), ()}


@pytest.mark.parametrize(
    "names",
    [
        "names: [crack, hole]",
        "names: ['crack', \"hole\"]  # two",
        "names: [\n  crack,\n  hole\n]",
        "names: {0: crack, 1: hole}",
        "names:\n  0: crack\n  1: hole\n",
        "names:\n- crack\n- hole\nkpt: 1",
        "names:\n  - 'crack'  # thin\n  - hole\n",
        'names:\n  1: "hole"\n  0: "crack"\n',
    ],
)
def test_classes_are_named_by_the_file_of_the_data_set(names, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    three = [[5, 5], [90, 5], [90, 90]]
    (tmp_path / "a.txt").write_text("\n".join(line(three, kind) for kind in (1, 0, 5)) + "\n\n")
    (tmp_path / "data.yaml").write_text(f"{DATA}{names}\n")
    found = yolo.find(Tree(tmp_path))
    assert found.pictures[0].classes == ("5", "crack", "hole")
    assert found.used == {"a.txt", "data.yaml"}


@pytest.mark.parametrize("text", ["", "nc: 2", "\xff", "names: 7", "names:\nnc: 2", "names: []"])
def test_a_file_without_names_is_left_out_and_told(text, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces)
    (root / "data.yaml").write_bytes(text.encode("latin-1"))
    assert {one.classes for one in yolo.find(Tree(root)).pictures} == {("0",), ()}
    assert "1 files not understood: data.yaml" in notes(root)


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        (("images/train", "images/val"), "train test"),
        (("train/images", "valid/images"), "train test"),
        (("train/images", "test/images"), "train test"),
        (("images/train2017", "images/test2017"), "train test"),
        (("a/images", "b/images"), " "),
    ],
)
def test_folders_keep_their_sides(sides, told, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for number, (name, (image, mask)) in enumerate(surfaces.items()):
        side = sides[number % 2]
        write(root / side / f"{name}.png", image)
        segments(root / side.replace("images", "labels") / f"{name}.txt", mask)
    found = {one.path.stem: one.side for one in yolo.find(Tree(root)).pictures}
    assert [found[name] for name in surfaces] == told.split(" ") * 3
    same(read_back(root), surfaces, slack=1)


@pytest.mark.fault(61)
def test_a_missing_text_is_no_label_and_an_empty_one_is_good(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces, "images/{}.png", "labels/{}.txt")
    assert (root / "labels" / "part2_1.txt").read_text() == ""
    (root / "labels" / "part2_1.txt").rename(root / "labels" / "other.txt")
    assert lacks(root) == {"images/part2_1": "it has no label"}
    assert "1 files not understood: labels/other.txt" in notes(root)
    with pytest.raises(DataError, match="1 of the images"):
        read_back(root)


@pytest.mark.fault(61)
def test_boxes_are_no_labels_and_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces, "images/{}.png", "labels/{}.txt")
    for name in ("part0_0", "part2_1"):
        (root / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.1 0.2\n")
    with (root / "labels" / "part0_1.txt").open("a") as file:
        file.write("\n0 0.5 0.5 0.1 0.2\n")
    boxes = ("images/part0_0", "images/part0_1", "images/part2_1")
    assert lacks(root) == dict.fromkeys(boxes, "it has boxes, which outline no defect")
    assert "it has boxes, which outline no defect" in notes(root)


def test_masks_beside_boxes_are_taken(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", mask)
        path = root / "labels" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("0 0.5 0.5 0.1 0.2\n" * bool(mask.any()))
    same(read_back(root), surfaces)
    for name, (_, mask) in surfaces.items():
        segments(root / "labels" / f"{name}.txt", mask)
    with pytest.raises(DataError, match=r"layout=masks_beside\) and as .*layout=yolo"):
        read_back(root)
    same(read_back(root, layout="yolo"), surfaces, slack=1)
    same(read_back(root, layout="masks_beside"), surfaces)


NO_LABELS = {
    "half a point": "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",
    "a score behind": "0 0.1 0.1 0.2 0.1 0.2 0.2 0.98 ",
    "one number": "0",
    "three numbers": "0 0.1 0.2",
    "words": "a photograph of a surface",
    "seven words": "this is a photograph of a surface",
    "a class that is a word": "crack 0.1 0.1 0.2 0.1 0.2 0.2",
    "half a class": "0.5 0.1 0.1 0.2 0.1 0.2 0.2",
    "a class below zero": "-1 0.1 0.1 0.2 0.1 0.2 0.2",
    "a huge class": "1e300 0.1 0.1 0.2 0.1 0.2 0.2",
    "no class": "nan 0.1 0.1 0.2 0.1 0.2 0.2",
    "no number": "0 nan 0.1 0.2 0.1 0.2 0.2",
    "infinity": "0 0.1 0.1 inf 0.1 0.2 0.2",
    "pixels": "0 20 30 60 30 60 40",
    "commas": "0,0.1,0.1,0.2,0.1,0.2,0.2",
    "bytes": "\x00\x01",
}


@pytest.mark.fault(61)
@pytest.mark.parametrize("kind", NO_LABELS)
@pytest.mark.parametrize("before", ["", "0 0.1 0.1 0.2 0.1 0.2 0.2\n"])
def test_what_outlines_nothing_is_no_label_and_told(kind, before, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces)
    (root / "part2_1.txt").write_text(before + NO_LABELS[kind])
    [(name, reason)] = lacks(root).items()
    assert name == "part2_1" and f"shape {2 if before else 1} of part2_1.txt " in reason


@pytest.mark.fault(61)
def test_a_text_that_is_none_is_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    data_set(root, surfaces)
    (root / "part2_1.txt").write_bytes(b"\xff\xfe0\x00")
    [(name, reason)] = lacks(root).items()
    assert name == "part2_1" and "part2_1.txt is not UTF-8" in reason


def test_corners_beyond_the_picture_are_cut_off(surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    (tmp_path / "a.txt").write_text("0 -0.5 -0.5 0.5 -0.5 0.5 0.5 -0.5 0.5")
    mask = masks(yolo.find(Tree(tmp_path)))["a"]
    assert mask[:81, :65].all() and mask.sum() == 81 * 65


@pytest.mark.parametrize("text", ["a photograph", "1 2 3", "x"])
def test_other_texts_beside_pictures_are_not_this(text, surfaces, tmp_path: Path):
    pictures(tmp_path, surfaces)
    for name in surfaces:
        (tmp_path / f"{name}.txt").write_text(text)
    assert yolo.find(Tree(tmp_path)) is None
    with pytest.raises(DataError, match="in no known layout"):
        recognise(Tree(tmp_path))
