"""What COCO's files say is read back equal: polygons, runs, sides; boxes and strays are told."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts.conftest import same, write
from layouts.drawn import lacks, masks, notes, outlines, pictures, ring
from pycocotools import mask as coco_mask

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.layouts.readers import coco

CATEGORIES = [
    {"id": 1, "name": "crack", "supercategory": "defect"},
    {"id": 2, "name": "hole", "supercategory": ""},
]


def polygons(mask: np.ndarray) -> list[object]:
    """A list of segmentations, one for each defect."""
    return [[np.ravel(one).tolist()] for one in outlines(mask)]


def parts(mask: np.ndarray) -> list[object]:
    """One segmentation of all defects."""
    return [[np.ravel(one).tolist() for one in outlines(mask)]] if mask.any() else []


def uncompressed(mask: np.ndarray) -> list[object]:
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat.astype(int), prepend=0, append=1 - int(flat[-1])))
    counts = np.diff(ends, prepend=0).tolist()
    return [{"counts": counts, "size": list(mask.shape)}] if mask.any() else []


def compressed(mask: np.ndarray) -> list[object]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    found["counts"] = found["counts"].decode()
    return [found] if mask.any() else []


def instances(
    path: Path, surfaces: dict, segmentations=polygons, name: str = "{}.png", **more: object
) -> dict:
    """Write an instances file; returns what it holds."""
    images, annotations = [], []
    for number, (stem, (image, mask)) in enumerate(surfaces.items(), 7):
        height, width = image.shape
        images.append(
            {
                "id": number,
                "file_name": name.format(stem),
                "height": height,
                "width": width,
                "license": 0,
                "date_captured": "",
            }
        )
        for segmentation in segmentations(mask):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "area": float(mask.sum()),
                    "bbox": [1.0, 2.0, 30.0, 40.0],
                    "iscrowd": int(isinstance(segmentation, dict)),
                }
            )
    value = {"info": {"year": 2024}, "licenses": [], "images": images} | {
        "annotations": annotations,
        "categories": CATEGORIES,
    }
    value |= more
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return value


@pytest.mark.parametrize(
    ("segmentations", "slack"), [(polygons, 1), (parts, 1), (uncompressed, 0), (compressed, 0)]
)
@pytest.mark.parametrize(
    ("picture", "file", "name"),
    [
        ("{}.png", "_annotations.coco.json", "{}.png"),
        ("images/{}.png", "annotations/instances_default.json", "{}.png"),
        ("images/lot/{}.png", "annotations/a.json", "lot/{}.png"),
        ("images/{}.bmp", "labels.json", "E:\\photos\\{}.JPG"),
    ],
)
def test_each_way_is_read_back_equal(
    segmentations, slack, picture, file, name, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    pictures(root, surfaces, picture)
    instances(root / file, surfaces, segmentations, name)
    assert recognise(Tree(root))[0] == "coco"
    same(read_back(root), surfaces, slack)
    assert notes(root) == ""


@pytest.mark.parametrize("segmentations", [uncompressed, compressed])
@pytest.mark.parametrize("corner", [False, True])
def test_runs_keep_holes(segmentations, corner, surfaces, tmp_path: Path):
    mask = ring()
    mask[0, 0] = mask[-1, -1] = corner
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    instances(tmp_path / "a.json", {"a": (surfaces["part0_0"][0], mask)}, segmentations)
    assert np.array_equal(masks(coco.find(Tree(tmp_path)))["a"], mask)


def test_overlapping_parts_are_joined(surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    two = [10, 10, 40, 10, 40, 40, 10, 40], [20, 20, 50, 20, 50, 50, 20, 50]
    for number, segments in enumerate(([list(two)], [[two[0]], [two[1]]])):
        instances(
            tmp_path / "a.json", {"a": surfaces["part0_0"]}, lambda _, segments=segments: segments
        )
        mask = masks(coco.find(Tree(tmp_path)))["a"]
        assert mask[10:41, 10:41].all() and mask[20:51, 20:51].all(), number
        assert mask.sum() == 2 * 31**2 - 21**2


@pytest.mark.parametrize(
    ("files", "sides"),
    [
        (("annotations/instances_train.json", "annotations/instances_val.json"), "train test"),
        (("instances_train2017.json", "instances_test2017.json"), "train test"),
        (("train/_annotations.coco.json", "valid/_annotations.coco.json"), "train test"),
        (("a/instances_val.json", "a/instances_test.json"), "train test"),
        (("one.json", "two.json"), " "),
    ],
)
def test_several_files_keep_their_sides(files, sides, surfaces, read_back, tmp_path: Path):
    root, names = tmp_path / "data", list(surfaces)
    pictures(root, surfaces, "images/{}.png")
    for file, mine in zip(files, (names[::2], names[1::2]), strict=True):
        instances(root / file, {name: surfaces[name] for name in mine})
    found = coco.find(Tree(root))
    told = {one.path.stem: one.side for one in found.pictures}
    wanted = sides.split(" ")
    assert told == {name: wanted[number % 2] for number, name in enumerate(names)}
    same(read_back(root), surfaces, slack=1)


def test_classes_are_kept(surfaces, tmp_path: Path):
    pictures(tmp_path, surfaces)
    value = instances(tmp_path / "a.json", surfaces)
    for number, one in enumerate(value["annotations"]):
        one["category_id"] = (1, 2, 99)[number % 3]
    (tmp_path / "a.json").write_text(json.dumps(value))
    found = {one.path.stem: one.classes for one in coco.find(Tree(tmp_path)).pictures}
    assert found["part0_0"] == ("crack",) and found["part0_1"] == ("hole",)
    assert found["part1_0"][-1:] == ("crack",) and found["part2_0"] == ()


@pytest.mark.fault(61)
@pytest.mark.parametrize("segmentation", [None, [], {}])
def test_boxes_are_no_labels_and_told(segmentation, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    instances(root / "a.json", surfaces, lambda mask: [segmentation] if mask.any() else [])
    boxes = dict.fromkeys(list(surfaces)[:3], "it has boxes, which outline no defect")
    assert lacks(root) == boxes and "part0_0, part0_1, part1_0" in notes(root)
    with pytest.raises(DataError, match="3 of the images"):
        read_back(root)


def test_masks_beside_boxes_are_taken(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", mask)
    instances(root / "a.json", surfaces, lambda mask: [[]] if mask.any() else [])
    same(read_back(root), surfaces)
    instances(root / "a.json", surfaces)
    with pytest.raises(DataError, match=r"layout=masks_beside\) and as .*layout=coco"):
        read_back(root)
    same(read_back(root, layout="coco"), surfaces, slack=1)
    same(read_back(root, layout="masks_beside"), surfaces)


NO_LABELS = {
    "two points": [[1.0, 2.0, 3.0, 4.0]],
    "an odd number": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
    "one good part of two": [[1.0, 2.0, 9.0, 4.0, 5.0, 6.0], [1.0, 2.0]],
    "no number": [[float("nan"), 2.0, 9.0, 4.0, 5.0, 6.0]],
    "infinity": [[float("-inf"), 2.0, 9.0, 4.0, 5.0, 6.0]],
    "a huge number": [[10**400, 2.0, 9.0, 4.0, 5.0, 6.0]],
    "no list in the list": [1.0, 2.0, 9.0, 4.0, 5.0, 6.0],
    "text": "a crack",
    "a number": 7,
    "no counts": {"size": [160, 128]},
    "no size": {"counts": [5, 20475]},
    "another size": {"size": [128, 160], "counts": [5, 20475]},
    "a size of three": {"size": [160, 128, 1], "counts": [5, 20475]},
    "a huge size": {"size": [10**9, 10**9], "counts": [10**18]},
    "too few": {"size": [160, 128], "counts": [5, 20]},
    "none": {"size": [160, 128], "counts": []},
    "too many": {"size": [160, 128], "counts": [5, 20475, 1]},
    "negative": {"size": [160, 128], "counts": [20481, -1]},
    "halves": {"size": [160, 128], "counts": [0.5, 20479.5]},
    "huge counts": {"size": [160, 128], "counts": [2**62, 2**62, 2**62, 2**62, 20480]},
    "cut": {"size": [160, 128], "counts": compressed(ring())[0]["counts"][:40]},
    "cut inside a number": {"size": [160, 128], "counts": "P" * 9},
    "empty text": {"size": [160, 128], "counts": ""},
    "other letters": {"size": [160, 128], "counts": "ééé\u0000"},
    "of another size": {"size": [320, 128], "counts": compressed(ring())[0]["counts"]},
    "a huge compressed size": {"size": [10**6, 10**6], "counts": "PPYo0"},
}


DO_NOT_FILL = ("too few", "too many", "negative", "huge counts", "cut", "empty text")


@pytest.mark.fault(61)
@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_outlines_nothing_is_no_label_and_told(kind, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    value = instances(root / "a.json", surfaces)
    value["annotations"][0]["segmentation"] = NO_LABELS[kind]
    (root / "a.json").write_text(json.dumps(value))
    [(name, reason)] = lacks(root).items()
    assert name == "part0_0" and reason.startswith("shape 1 of part0_0.png in a.json ")
    assert reason in notes(root)
    assert ("do not fill its 20,480 pixels" in reason) == (kind in DO_NOT_FILL)


@pytest.mark.fault(63)
def test_without_pycocotools_one_sentence_says_what_to_do(
    surfaces, read_back, tmp_path: Path, monkeypatch
):
    root = tmp_path / "data"
    pictures(root, surfaces)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    instances(root / "a.json", surfaces, compressed)
    with pytest.raises(DataError, match="install it by `pip install pycocotools`"):
        read_back(root)
    instances(root / "a.json", surfaces, uncompressed)
    same(read_back(root), surfaces)


def changed(value: dict, kind: str) -> dict:
    """The same file with annotations that belong to no picture, or perhaps to one."""
    first = value["annotations"][0]
    if kind == "numbers as text":
        for one in value["annotations"]:
            one["image_id"] = str(one["image_id"])
    if kind == "an unknown number":
        first["image_id"] = 99
    if kind == "no number":
        del first["image_id"]
    if kind == "a list":
        first["image_id"] = [7]
    if kind == "no annotation":
        value["annotations"].append("crack")
    if kind == "a number twice":
        value["images"][5]["id"] = first["image_id"]
    if kind == "pictures without numbers":
        for one in value["images"]:
            del one["id"]
    return value


STRAYS = ("numbers as text", "an unknown number", "no number", "a list", "no annotation")


@pytest.mark.fault(64)
@pytest.mark.parametrize("kind", [*STRAYS, "a number twice", "pictures without numbers"])
def test_stray_annotations_leave_no_picture_good(kind, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    value = changed(instances(root / "a.json", surfaces), kind)
    (root / "a.json").write_text(json.dumps(value))
    assert all(mask is None or mask.any() for mask in masks(coco.find(Tree(root))).values())
    assert "annotations of a.json belong to no picture, or to two" in notes(root)
    assert "annotations of a.json may belong to it" in lacks(root).values()


@pytest.mark.fault(64)
def test_a_picture_that_is_not_there_is_told(surfaces, read_back, tmp_path: Path):
    root, names = tmp_path / "data", list(surfaces)
    pictures(root, {name: surfaces[name] for name in names[1:]}, "train/{}.png")
    write(root / "test" / "part0_0.png", surfaces["part0_0"][0])
    value = instances(root / "a.json", surfaces, name="train/{}.png")
    value["images"] += [{"id": 50}, None, 3]
    (root / "a.json").write_text(json.dumps(value))
    said = notes(root)
    assert (
        "1 named pictures are not there, or several have the name: train/part0_0.png (a.json)"
        in said
    )
    assert "3 pictures of a.json have no file_name" in said
    assert lacks(root) == {
        "test/part0_0": "a label names a picture called so, but not plainly this one"
    }
    with pytest.raises(DataError, match="1 of the images"):
        read_back(root)


@pytest.mark.fault(62)
def test_the_size_must_be_the_pictures(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    value = instances(root / "a.json", surfaces)
    value["images"][0] |= {"height": 320, "width": 256}
    value["images"][4] |= {"height": 10**300, "width": 256}
    value["images"][5] |= {"height": 0, "width": 0}
    (root / "a.json").write_text(json.dumps(value))
    found = lacks(root)
    assert found.keys() == {"part0_0", "part2_0"}
    assert found["part0_0"] == (
        "a.json is for a picture of 320x256 pixels (height x width), but it has 160x128"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"images": [{"id": 1, "file_name": "part0_0.png"}]},  # of a test whose labels are kept
        {"images": [], "annotations": []},
        {"images": {}, "annotations": []},
        {
            "images": [{"id": 1, "file_name": "part0_0.png"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "a surface"}],
        },
        {
            "images": [{"id": 1, "file_name": "part0_0.png"}],
            "annotations": [{"image_id": 1, "segments_info": []}],
        },
        [1, 2],
        "text",
        None,
    ],
)
@pytest.mark.fault(61)
def test_other_files_are_named_and_make_nothing_good(other, surfaces, tmp_path: Path):
    root, names = tmp_path / "data", list(surfaces)
    pictures(root, surfaces)
    instances(root / "a.json", {name: surfaces[name] for name in names[1:]})
    (root / "b.json").write_text(json.dumps(other))
    assert "1 files not understood: b.json" in notes(root)
    assert lacks(root) == {"part0_0": "it has no label"}


def test_a_file_beside_its_like_of_labelme_is_asked_for(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    instances(root / "coco.json", surfaces)
    for name, (_, mask) in surfaces.items():
        shapes = [{"label": "crack", "points": one} for one in outlines(mask)]
        (root / f"{name}.json").write_text(
            json.dumps({"shapes": shapes, "imagePath": f"{name}.png"})
        )
    with pytest.raises(DataError, match=r"layout=labelme\) and as .*layout=coco"):
        read_back(root)
    for layout in ("labelme", "coco"):
        same(read_back(root, layout=layout), surfaces, slack=1)


@pytest.mark.fault(64)
@pytest.mark.parametrize("folders", [("left", "right"), ("a/left", "b/right")])
def test_of_two_pictures_of_one_name_none_is_good_and_it_is_said_why(
    folders, surfaces, tmp_path: Path
):
    root, names = tmp_path / "data", list(surfaces)
    for number, folder in enumerate(folders):
        write(root / folder / "part0_0.png", surfaces["part0_0"][0] // (number + 1))
    pictures(root, {name: surfaces[name] for name in names[1:]}, "left/{}.png")
    instances(root / "a.json", surfaces)
    wanted = "a label names a picture called so, but not plainly this one"
    assert lacks(root) == {f"{folder}/part0_0": wanted for folder in folders}
    assert "or several have the name: part0_0.png (a.json)" in notes(root)
