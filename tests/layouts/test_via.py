"""VIA's JSON is read back equal, project and export, of both versions; points are told."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts.conftest import same, write
from layouts.drawn import lacks, masks, notes, outlines, pictures

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.layouts.readers import via


def region(name: str = "polygon", label: object = "crack", **values: object) -> dict:
    return {
        "shape_attributes": {"name": name} | values,
        "region_attributes": {"class": label},
    }


def polygon(outline: list) -> dict:
    x, y = (np.array(outline)[:, axis].astype(int).tolist() for axis in (0, 1))
    return region(all_points_x=x, all_points_y=y)


def entries(regions: dict[str, list]) -> dict:
    """`regions`: file name -> its regions."""
    return {
        f"{name}{12_345}": {
            "filename": name,
            "size": 12_345,
            "regions": several,
            "file_attributes": {},
        }
        for name, several in regions.items()
    }


def export(path: Path, regions: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries(regions)))


def export_of_version_1(path: Path, regions: dict[str, list]) -> None:
    found = entries(regions)
    for one in found.values():
        one["regions"] = {str(number): each for number, each in enumerate(one["regions"])}
        one |= {"fileref": "", "base64_img_data": ""}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def project(path: Path, regions: dict[str, list]) -> None:
    value = {
        "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "x"}},
        "_via_img_metadata": entries(regions),
        "_via_attributes": {"region": {"class": {"type": "text"}}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(entries(regions)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def of_surfaces(surfaces, name: str = "{}.png") -> dict[str, list]:
    return {
        name.format(stem): list(map(polygon, outlines(mask)))
        for stem, (_, mask) in surfaces.items()
    }


@pytest.mark.parametrize("written", [export, export_of_version_1, project])
@pytest.mark.parametrize(
    ("picture", "file", "name"),
    [
        ("{}.png", "via_region_data.json", "{}.png"),
        ("images/{}.png", "labels/via.json", "{}.png"),
        ("lot/{}.png", "via.json", "https://example.com/surfaces/{}.png"),
    ],
)
def test_each_way_is_read_back_equal(
    written, picture, file, name, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    pictures(root, surfaces, picture)
    written(root / file, of_surfaces(surfaces, name))
    assert recognise(Tree(root))[0] == "via"
    same(read_back(root), surfaces, slack=1)
    assert notes(root) == ""


def disc(x0: float, y0: float, rx: float, ry: float, theta: float = 0) -> np.ndarray:
    y, x = np.mgrid[:160, :128]
    along = (x - x0) * np.cos(theta) + (y - y0) * np.sin(theta)
    across = (y - y0) * np.cos(theta) - (x - x0) * np.sin(theta)
    return np.hypot(along / rx, across / ry) <= 1


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((160, 128), bool)
    mask[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = True
    return mask


@pytest.mark.parametrize(
    ("drawn", "wanted"),
    [
        (region("rect", x=20, y=30, width=40, height=10), block(20, 30, 60, 40)),
        (region("rect", x=-20, y=30, width=400, height=10), block(0, 30, 127, 40)),
        (region("circle", cx=60, cy=70, r=25.5), disc(60, 70, 25.5, 25.5)),
        (region("circle", cx=0, cy=0, r=30), disc(0, 0, 30, 30)),
        (region("ellipse", cx=60, cy=70, rx=50, ry=20), disc(60, 70, 50, 20)),
        (region("ellipse", cx=60, cy=70, rx=50, ry=20, theta=0.6), disc(60, 70, 50, 20, 0.6)),
        (region("ellipse", cx=60, cy=70, rx=20, ry=50, theta=-0.6), disc(60, 70, 20, 50, -0.6)),
    ],
)
def test_other_shapes_are_filled(drawn, wanted, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    export(tmp_path / "via.json", {"a.png": [drawn]})
    mask = masks(via.find(Tree(tmp_path)))["a"].astype(np.uint8)
    kernel, wanted = np.ones((3, 3), np.uint8), wanted.astype(np.uint8)
    assert not (mask & ~cv2.dilate(wanted, kernel)).any()
    assert not (wanted & ~cv2.dilate(mask, kernel)).any()


def test_lines_and_rectangles_are_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    write(root / "a.png", surfaces["part0_0"][0])
    line = region("polyline", all_points_x=[10, 110], all_points_y=[40, 40])
    export(root / "via.json", {"a.png": [line, line, region("rect", x=1, y=1, width=5, height=5)]})
    said = notes(root)
    assert "2 shapes are lines, taken as 3 pixels wide" in said
    assert "1 shapes are rectangles, filled whole" in said
    mask = masks(via.find(Tree(root)))["a"]
    assert mask[39:42, 9:112].all() and mask.sum() == 3 * 103 + 6 * 6


@pytest.mark.parametrize(
    ("attributes", "classes"),
    [
        ({"class": "crack"}, ("crack",)),
        ({"comment": "", "type": "hole"}, ("hole",)),
        ({"kind": {"crack": True, "hole": False}}, ("crack",)),
        ({"kind": {"crack": True, "hole": True}}, ("crack and hole",)),
        ({"number": 3}, ("3",)),
        ({}, ()),
        (None, ()),
        ({"kind": [1]}, ()),
    ],
)
def test_attributes_are_classes(attributes, classes, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    drawn = region("circle", cx=9, cy=9, r=5) | {"region_attributes": attributes}
    export(tmp_path / "via.json", {"a.png": [drawn]})
    assert via.find(Tree(tmp_path)).pictures[0].classes == classes


NO_LABELS = {
    "a point": region("point", cx=5, cy=5),
    "another kind": region("spline", cx=5, cy=5),
    "two points": region(all_points_x=[1, 2], all_points_y=[1, 2]),
    "as many x as y": region(all_points_x=[1, 2, 3], all_points_y=[1, 2]),
    "no points": region(),
    "no list": region(all_points_x=1, all_points_y=2),
    "no number": region(all_points_x=[1, None, 3], all_points_y=[1, 2, 5]),
    "not a number": region("circle", cx=float("nan"), cy=5, r=5),
    "a huge number": region("circle", cx=10**400, cy=5, r=5),
    "half a rectangle": region("rect", x=1, y=2),
    "text for numbers": region("rect", x="a", y="b", width="c", height="d"),
    "no attributes": {"region_attributes": {}},
    "no region": "crack",
    "nothing": None,
}


@pytest.mark.fault(61)
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_outlines_nothing_is_no_label_and_told(kind, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    export(root / "via.json", of_surfaces(surfaces) | {"part2_1.png": [NO_LABELS[kind]]})
    [(name, reason)] = lacks(root).items()
    assert name == "part2_1" and reason in notes(root)
    assert "outlines nothing" in reason or "shape 1 of part2_1.png in via.json " in reason
    with pytest.raises(DataError, match="part2_1"):
        read_back(root)


@pytest.mark.fault(61)
@pytest.mark.fault(64)
def test_what_is_not_listed_or_not_there_is_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    regions = of_surfaces(surfaces) | {"gone.png": []}
    del regions["part0_0.png"]
    export(root / "via.json", regions)
    value = json.loads((root / "via.json").read_text())
    (root / "via.json").write_text(json.dumps(value | {"x": {"filename": "part0_0.png"}, "y": 3}))
    said = notes(root)
    assert "1 named pictures are not there, or several have the name: gone.png (via.json)" in said
    assert "2 entries of via.json are damaged" in said
    assert lacks(root) == {"part0_0": "it has no label"}


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"a": {"filename": 3, "regions": []}}', '{"_via_img_metadata": 4}', '{"a": {"b'],
)
def test_other_files_are_named(text, surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    export(root / "via.json", of_surfaces(surfaces))
    (root / "other.json").write_text(text)
    assert "1 files not understood: other.json" in notes(root)
    assert lacks(root) == {}


def test_two_layouts_that_fit_are_both_named_and_one_is_chosen(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / f"{name}.png", image)
        write(root / f"{name}_gt.png", mask)
    export(root / "via.json", of_surfaces(surfaces))
    with pytest.raises(DataError, match=r"layout=masks_beside\) and as .*layout=via"):
        read_back(root)
    same(read_back(root, layout="masks_beside"), surfaces)
    same(read_back(root, layout="via"), surfaces, slack=1)
