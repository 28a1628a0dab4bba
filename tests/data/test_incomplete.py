"""Pictures without a usable label stop a training, or are left out and named: the user decides."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib.data.data_report import format_report, inspect_data, obstacles
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import survey
from ksdd_lib.data.synthetic import generate
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.presets import resolve
from ksdd_lib.runs.prepare import open_data, prepare_data
from ksdd_lib.runs.run import Run


@pytest.fixture
def broken_root(tiny_root: Path) -> Path:
    (tiny_root / "tiny01" / "Part0_label.bmp").unlink()
    (tiny_root / "tiny02" / "Part2.jpg").write_bytes(b"no picture")
    return tiny_root


def run_in(folder: Path, root: Path, **chosen: str) -> Run:
    from ksdd_lib.runs import open as runs

    return runs.create(resolve({"preset": "cpu", "data": str(root), **chosen}), folder)


def test_by_default_nothing_is_trained_without_them(broken_root: Path, tmp_path: Path):
    with pytest.raises(DataError, match="2 of the images cannot be used.*or set incomplete to"):
        prepare_data(run_in(tmp_path / "run", broken_root))


def test_they_are_left_out_where_one_says_so(broken_root: Path, tmp_path: Path):
    run = run_in(tmp_path / "run", broken_root, incomplete="leave_out")
    data = prepare_data(run)
    names = {sample.name for sample in data.samples}
    assert len(names) == 22 and not {"tiny01/Part0", "tiny02/Part2"} & names
    assert sum(len(fold.test) for fold in data.folds) == 22
    assert {one.name for one in data.record.report.unreadable} == {"tiny01/Part0", "tiny02/Part2"}
    again = open_data(run)
    assert again.samples == data.samples and again.folds == data.folds


def test_the_report_names_them_and_goes_on(broken_root: Path):
    settings = resolve({"preset": "cpu", "incomplete": "leave_out"})
    report = inspect_data(survey(broken_root), DataFolder(broken_root, "tiny"), settings)
    assert obstacles(report) == []
    text = format_report(report)
    assert "unreadable: left out" in text and "tiny01/Part0.jpg has no mask" in text


def good_report(root: Path, home: Path, **chosen: str):
    settings = resolve({"preset": "cpu", "incomplete": "good", **chosen})
    folder = as_item_folders(DataFolder(root, "own"), home, settings)
    return inspect_data(survey(folder.root), folder, settings)


@pytest.mark.fault(65)
@pytest.mark.parametrize("is_nested", [False, True], ids=["item folders", "masks in a folder"])
def test_what_no_label_names_is_good_where_one_says_so(
    tiny_root: Path, tmp_path: Path, is_nested: bool
):
    root = tiny_root
    if is_nested:
        root = tmp_path / "own"
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for label in tiny_root.glob("*/*_label.bmp"):
            name = f"{label.parent.name}-{label.name.removesuffix('_label.bmp')}"
            label.with_name(f"{label.name[:5]}.jpg").rename(root / "images" / f"{name}.jpg")
            label.rename(root / "masks" / f"{name}.bmp")
    good = [path for path in root.rglob("*.bmp") if not cv2.imread(str(path)).any()]
    for path in good:
        path.unlink()
    report = good_report(root, tmp_path / "home")
    assert (report.images, report.defective, report.unreadable) == (24, 6, ())
    assert "18 pictures without a label are good, as set" in format_report(report)


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    "near",
    ["tiny01/Part0.json", "tiny01/part0_GT.png", "tiny01/NG_7.jpg", "defekt/7.jpg", "Part0.xml"]
    + ["tiny01/Part0 (1).png", "masks/Part0.png", "labels.txt", "tiny01/Part0 copy.jpg"],
)
def test_nothing_is_good_while_a_label_may_be_near(tiny_root: Path, tmp_path: Path, near: str):
    (tiny_root / "tiny01" / "Part0_label.bmp").unlink()
    stranger = tiny_root / near
    stranger.parent.mkdir(exist_ok=True)
    picture = (tiny_root / "tiny02" / "Part0.jpg").read_bytes()
    stranger.write_bytes(b"?" if stranger.suffix in (".json", ".xml", ".txt") else picture)
    try:
        report = good_report(tiny_root, tmp_path / "home")
    except DataError as error:
        assert re.match("No picture is called good while|.* in no known layout", str(error))
    else:  # it is read as the label that it is, and refused as one
        assert [one.name for one in report.unreadable] == ["tiny01/Part0"]


@pytest.mark.fault(65)
def test_a_label_of_one_of_several_pictures_makes_none_of_them_good(
    tiny_root: Path, tmp_path: Path
):
    (tiny_root / "tiny03" / "Part1_label.bmp").unlink()
    root = tmp_path / "own"
    for number, folder in enumerate(("a", "b", "c")):
        (root / folder).mkdir(parents=True)
        shutil.copy(tiny_root / f"tiny0{number + 1}" / "Part1.jpg", root / folder / "7.jpg")
    shutil.copy(tiny_root / "tiny05" / "Part1.jpg", root / "c" / "8.jpg")
    shape = {"label": "crack", "points": [[10, 10], [60, 10], [60, 60]], "shape_type": "polygon"}
    (root / "labels").mkdir()
    for name in ("7", "8"):
        labels = {"version": "5", "imagePath": f"{name}.jpg", "shapes": [shape]}
        (root / "labels" / f"{name}.json").write_text(json.dumps(labels))
    report = good_report(root, tmp_path / "home", layout="labelme")
    assert (report.images, report.defective, len(report.unreadable)) == (1, 1, 3)
    for folder in ("b", "c"):
        shutil.copy(root / "a" / "7.jpg", root / folder / "7.jpg")
    report = good_report(root, tmp_path / "home", layout="labelme")
    assert report.defective == 4 and not report.unreadable, "one picture, wherever it lies"


@pytest.mark.parametrize(
    ("spoil", "advised"),
    [("gone", True), ("small", False), ("both", False), ("gone, good", False)],
)
def test_to_call_them_good_is_advised_only_where_they_lack_a_label(tmp_path, spoil, advised):
    """Not where a label does not fit, and not where it is set already."""
    root = generate(tmp_path / "data", items=6, size=(128, 128))
    first, second, *_ = sorted(root.rglob("*_label.bmp"))
    if spoil != "small":
        first.unlink()
    if spoil in ("small", "both"):
        cv2.imwrite(str(second), np.zeros((64, 64), np.uint8))
    chosen = {"preset": "cpu", "incomplete": "good" if "good" in spoil else "refuse"}
    report = inspect_data(survey(root), DataFolder(root, "tiny"), resolve(chosen))
    told = "If all that no label names are good, set incomplete=good."
    assert (told in report.advice) == advised and report.unreadable
