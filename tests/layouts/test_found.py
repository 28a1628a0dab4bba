"""Annotations name pictures in many ways; what cannot be read is told with its reason."""

from pathlib import Path

import pytest
from layouts.conftest import write

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree

PICTURES = (
    "set/images/lot1/a.png",
    "set/images/lot2/a.png",
    "set/images/lot1/b.png",
    "set/train/c.png",
    "set/test/c.png",
    "set/test/d.jpg",
    "set/test/d.png",
    "set/test/e.1.png",
)


@pytest.mark.parametrize(
    ("named", "beside", "meant"),
    [
        ("b.png", "x.json", PICTURES[2]),
        ("lot1/a.png", "set/x.json", PICTURES[0]),
        ("lot2\\a.png", "x.json", PICTURES[1]),
        ("../images/lot2/a.png", "set/labels/x.json", PICTURES[1]),
        ("C:\\Users\\me\\photos\\lot1\\a.png", "x.json", PICTURES[0]),
        ("/home/me/b.tif", "x.json", PICTURES[2]),
        ("d.png", "x.json", PICTURES[6]),
        ("d", "x.json", None),
        ("e.1", "x.json", PICTURES[7]),
        ("a.png", "x.json", None),
        ("a.png", "set/images/lot1/x.json", PICTURES[0]),
        ("train/d.png", "x.json", None),  # of another folder that is there
        ("set/images/lot2/b.png", "x.json", None),
        ("../../../b.png", "x.json", PICTURES[2]),
        ("", "x.json", None),
        ("\ud800\0", "x.json", None),
    ],
)
def test_a_picture_is_found_by_the_end_of_its_path(named, beside, meant, surfaces, tmp_path: Path):
    for name in PICTURES:
        write(tmp_path / name, surfaces["part0_0"][0])
    assert Tree(tmp_path).image(named, beside) == meant


@pytest.mark.parametrize("text", ['{"images": [', "[" * 100_000, "1" * 5000, "\xff"])
def test_a_file_that_is_no_json_is_named(text, surfaces, tmp_path: Path):
    write(tmp_path / "a.png", surfaces["part0_0"][0])
    (tmp_path / "marks.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"marks.json \(no valid JSON\)"):
        recognise(Tree(tmp_path))
