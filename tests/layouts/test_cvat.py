"""CVAT's XML for images is read back equal; a DTD is refused, and what outlines nothing is told."""

from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest
from layouts.conftest import same, write
from layouts.drawn import lacks, masks, notes, outlines, pictures, ring

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.layouts.readers import cvat

META = (
    "<version>1.1</version>\n<meta><task><id>5</id><name>plates</name><size>6</size><labels>"
    "<label><name>crack</name><type>any</type></label></labels></task></meta>\n"
)


def element(tag: str, label: str = "crack", inside: str = "", **values: object) -> str:
    words = {"label": label, "source": "manual", "occluded": 0} | values | {"z_order": 0}
    text = " ".join(f"{name}={quoteattr(str(value))}" for name, value in words.items())
    return f"<{tag} {text}>{inside}</{tag}>"


def points(outline: list) -> str:
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in outline)


def polygon(mask: np.ndarray) -> str:
    attribute = '<attribute name="depth">3</attribute>'
    return "\n".join(
        element("polygon", inside=attribute, points=points(one)) for one in outlines(mask)
    )


def runs(mask: np.ndarray) -> str:
    """A mask element, as CVAT writes it: runs, row by row, in the box of the defect."""
    if not mask.any():
        return ""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    counts, level = [0], False
    for pixel in box.ravel():
        if pixel != level:
            counts.append(0)
            level = pixel
        counts[-1] += 1
    left, top, (height, width) = columns[0], rows[0], box.shape
    rle = ", ".join(map(str, counts))
    return element("mask", rle=rle, left=left, top=top, width=width, height=height)


def write_xml(path: Path, images: dict[str, str], size=(160, 128), subset: str = "") -> None:
    """`images`: name -> what is in its element."""
    body = "".join(
        f'<image id="{number}" name={quoteattr(name)} subset={quoteattr(subset)} task_id="5" '
        f'width="{size[1]}" height="{size[0]}">\n{inside}\n</image>\n'
        for number, (name, inside) in enumerate(images.items())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    path.write_text(f"{head}<annotations>\n{META}{body}</annotations>\n", encoding="utf-8")


@pytest.mark.parametrize(("drawn", "slack"), [(polygon, 1), (runs, 0)])
@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("images/{}.png", "{}.png"),
        ("images/lot & 1/{}.png", "lot & 1/{}.png"),
        ("{}.png", "some/where/else/{}.png"),
    ],
)
def test_each_way_is_read_back_equal(
    drawn, slack, picture, name, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    pictures(root, surfaces, picture)
    inside = {name.format(stem): drawn(mask) for stem, (_, mask) in surfaces.items()}
    write_xml(root / "annotations.xml", inside)
    assert recognise(Tree(root))[0] == "cvat"
    same(read_back(root), surfaces, slack)
    assert notes(root) == ""


def test_names_with_folders_are_told_apart(surfaces, tmp_path: Path):
    inside = {}
    for name, (image, mask) in surfaces.items():
        write(tmp_path / "images" / name / "top.png", image)
        inside[f"{name}/top.png"] = polygon(mask)
    write_xml(tmp_path / "annotations.xml", inside)
    found = cvat.find(Tree(tmp_path))
    is_defective = {one.name.split("/")[1]: one.mask((160, 128)).any() for one in found.pictures}
    assert is_defective == {name: mask.any() for name, (_, mask) in surfaces.items()}


def test_runs_keep_holes_and_are_cut_off_at_the_edge(surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    write_xml(tmp_path / "a.xml", {"a.png": runs(ring())})
    assert np.array_equal(masks(cvat.find(Tree(tmp_path)))["a"], ring())
    for left, top in ((-20, -10), (100, 150), (-200, 0), (500, 10**20)):
        shape = element("mask", rle="0, 900", left=left, top=top, width=30, height=30)
        write_xml(tmp_path / "a.xml", {"a.png": shape})
        wanted = np.zeros((160, 128), bool)
        wanted[max(top, 0) : max(top + 30, 0), max(left, 0) : max(left + 30, 0)] = True
        assert np.array_equal(masks(cvat.find(Tree(tmp_path)))["a"], wanted), (left, top)


def turned(center: tuple, half: tuple, degrees: float, is_box: bool) -> np.ndarray:
    """A box or ellipse around a center, turned clockwise, by its definition."""
    y, x = np.mgrid[:160, :128]
    angle = np.deg2rad(degrees)
    along = (x - center[0]) * np.cos(angle) + (y - center[1]) * np.sin(angle)
    across = (y - center[1]) * np.cos(angle) - (x - center[0]) * np.sin(angle)
    far = [np.abs(along) / half[0], np.abs(across) / half[1]]
    return (np.maximum(*far) if is_box else np.hypot(*far)) <= 1


@pytest.mark.parametrize("degrees", [0, 30, 90, 330])
@pytest.mark.parametrize("kind", ["box", "ellipse"])
def test_boxes_and_ellipses_are_filled_as_they_are_turned(kind, degrees, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    values = (
        {"xtl": "20.00", "ytl": "50.00", "xbr": "100.00", "ybr": "80.00"}
        if kind == "box"
        else {"cx": "60.00", "cy": "65.00", "rx": "40.00", "ry": "15.00"}
    )
    turn = {"rotation": f"{degrees:.2f}"} if degrees else {}
    write_xml(tmp_path / "a.xml", {"a.png": element(kind, **values, **turn)})
    mask = masks(cvat.find(Tree(tmp_path)))["a"].astype(np.uint8)
    wanted = turned((60, 65), (40, 15), degrees, kind == "box").astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    assert not (mask & ~cv2.dilate(wanted, kernel)).any()
    assert not (wanted & ~cv2.dilate(mask, kernel)).any()


def test_a_polyline_is_told_with_its_width(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    write(root / "a.png", surfaces["part0_0"][0])
    write_xml(root / "a.xml", {"a.png": element("polyline", points="10,40;110,40")})
    mask = masks(cvat.find(Tree(root)))["a"]
    assert mask[39:42, 20:100].all() and mask.sum() < 400
    assert "1 shapes are lines, taken as 3 pixels wide" in notes(root)


def test_a_subset_is_a_side_and_labels_are_classes(surfaces, tmp_path: Path):
    pictures(tmp_path, surfaces)
    names = list(surfaces)
    for subset, mine in (("Train", names[:4]), ("Validation", names[4:])):
        inside = {f"{name}.png": element("polygon", "hole", points="1,1;9,1;9,9") for name in mine}
        write_xml(tmp_path / f"{subset}.xml", inside, subset=subset)
    found = cvat.find(Tree(tmp_path)).pictures
    assert [one.side for one in found] == ["train"] * 4 + ["test"] * 2
    assert {one.classes for one in found} == {("hole",)}


NO_LABELS = {
    "points": element("points", points="5,5"),
    "a cuboid": element("cuboid", xtl1=5),
    "a skeleton": "<skeleton label='x'><points label='y' points='1,1'/></skeleton>",
    "a tag": element("tag", "broken"),
    "two points": element("polygon", points="1,1;2,2"),
    "no points": element("polygon"),
    "half a point": element("polygon", points="1,1;2,2;3"),
    "words": element("polygon", points="a,b;c,d;e,f"),
    "no number": element("polygon", points="nan,1;2,2;3,3"),
    "infinity": element("polygon", points="1,1;2,2;3,1e999"),
    "half a box": element("box", xtl=1, ytl=2),
    "an ellipse of no size": element("ellipse", cx=1, cy=1, rx="nan", ry=3),
    "no runs": element("mask", rle="", left=0, top=0, width=3, height=3),
    "too few": element("mask", rle="1, 2", left=0, top=0, width=3, height=3),
    "negative": element("mask", rle="10, -1", left=0, top=0, width=3, height=3),
    "negative sides": element("mask", rle="9", left=0, top=0, width=-3, height=-3),
    "huge": element("mask", rle=str(10**18), left=0, top=0, width=10**9, height=10**9),
    "beyond counting": element("mask", rle="9" * 4000, left=0, top=0, width=3, height=3),
    "too long to read": element("mask", rle="9" * 9000, left=0, top=0, width=3, height=3),
    "one good of two": element("polygon", points="1,1;9,1;9,9") + element("points", points="5,5"),
}


@pytest.mark.fault(61)
@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_outlines_nothing_is_no_label_and_told(kind, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    inside = {f"{name}.png": polygon(mask) for name, (_, mask) in surfaces.items()}
    write_xml(root / "a.xml", inside | {"part2_1.png": NO_LABELS[kind]})
    [(name, reason)] = lacks(root).items()
    assert name == "part2_1" and reason in notes(root)
    assert "outlines nothing" in reason or " of part2_1.png in a.xml " in reason
    with pytest.raises(DataError, match="part2_1"):
        read_back(root)


def test_a_tag_that_says_good_is_no_defect(surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    write_xml(tmp_path / "a.xml", {"a.png": element("tag", "OK")})
    assert not masks(cvat.find(Tree(tmp_path)))["a"].any()


@pytest.mark.fault(61)
@pytest.mark.fault(64)
def test_a_picture_not_listed_and_one_not_there_are_told(surfaces, tmp_path: Path):
    root, names = tmp_path / "data", list(surfaces)
    pictures(root, surfaces)
    write_xml(root / "a.xml", {f"{name}.png": "" for name in names[1:]} | {"gone.png": ""})
    assert "1 named pictures are not there, or several have the name: gone.png (a.xml)" in notes(
        root
    )
    assert lacks(root) == {"part0_0": "it has no label"}


@pytest.mark.fault(62)
def test_the_size_must_be_the_pictures(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    pictures(root, surfaces)
    write_xml(root / "a.xml", {f"{name}.png": "" for name in surfaces}, (128, 160))
    said = "a.xml is for a picture of 128x160 pixels (height x width), but it has 160x128"
    assert lacks(root) == dict.fromkeys(surfaces, said)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED = {
    "a DTD": '<!DOCTYPE annotations SYSTEM "http://example.com/x.dtd"><annotations/>',
    "entities": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotations>&l9;</annotations>',
    "a file": '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotations>&f;</annotations>',
    "no DTD but an entity": "<annotations>&unknown;</annotations>",
    "half a file": '<?xml version="1.0"?><annotations><image name="part0_0.png">',
    "no XML": "name,class\n",
    "nothing": "",
    "no text": "\xff\xfe\x00",
    "other XML": "<annotation><filename>part0_0.png</filename></annotation>",
    "a video": '<annotations><track id="0" label="crack"/></annotations>',
    "deep": "<annotations>" * 100_000 + "</annotations>" * 100_000,
}


@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_by_name(kind, surfaces, tmp_path: Path):
    root, names = tmp_path / "data", list(surfaces)
    pictures(root, surfaces)
    write_xml(root / "a.xml", {f"{name}.png": "" for name in names[1:]})
    (root / "b.xml").write_bytes(REFUSED[kind].encode("latin-1"))
    said = notes(root)
    assert "1 files not understood: b.xml" in said
    assert ("b.xml (it has a DTD" in said) == ("!DOCTYPE" in REFUSED[kind])
    assert ("b.xml (CVAT for video" in said) == (kind == "a video")
    assert lacks(root) == {"part0_0": "it has no label"}


def test_two_layouts_that_fit_are_both_named_and_one_is_chosen(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", mask)
    inside = {f"{name}.png": polygon(mask) for name, (_, mask) in surfaces.items()}
    write_xml(root / "annotations.xml", inside)
    with pytest.raises(DataError, match=r"layout=masks_beside\) and as .*layout=cvat"):
        read_back(root)
    same(read_back(root, layout="masks_beside"), surfaces)
    same(read_back(root, layout="cvat"), surfaces, slack=1)
