"""label_good: only what is plainly a photograph of an item is called good, and it can be undone."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib import storage
from ksdd_lib.__main__ import main
from ksdd_lib.data.item_folders import missing_labels, write_labels
from ksdd_lib.data.survey import find_samples, survey
from ksdd_lib.errors import DataError


def state(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture
def root(tiny_root: Path) -> Path:
    """The tiny data set, where the labels of all good pictures of tiny01 and tiny02 are missing."""
    for item in ("tiny01", "tiny02"):
        for part in (0, 2, 3):
            (tiny_root / item / f"Part{part}_label.bmp").unlink()
    return tiny_root


def test_a_dry_run_lists_what_would_be_good_and_writes_nothing(root: Path, capsys):
    before = state(root)
    assert main(["label_good", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [f"tiny0{item}/Part{part}_label.png" for item in (1, 2) for part in (0, 2, 3)]
    assert lines[:6] == wanted
    assert "6 labels would be written" in lines[6] and "Nothing was written" in lines[7]
    assert state(root) == before


def test_black_labels_are_written_and_no_other_file_changes(root: Path, capsys):
    before = state(root)
    assert main(["label_good", str(root), "--write"]) == 0
    assert "6 labels written, all black" in capsys.readouterr().out
    after = state(root)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 7, "six labels and the record"
    samples = {one.name: one for one in find_samples(root)}
    assert len(samples) == 24 and not survey(root).ignored
    assert {name for name, one in samples.items() if one.is_defective} == {
        f"tiny0{n}/Part1" for n in range(1, 7)
    }
    assert missing_labels(root) == {}


def test_undo_leaves_exactly_what_was_there_before(root: Path, capsys):
    before = state(root)
    main(["label_good", str(root), "--write"])
    assert main(["label_good", str(root), "--undo"]) == 0
    assert "6 labels removed" in capsys.readouterr().out
    assert state(root) == before
    assert main(["label_good", str(root), "--undo"]) == 0
    assert "0 labels removed" in capsys.readouterr().out
    assert state(root) == before


def test_undo_takes_back_what_was_written_at_several_times_or_in_part(root: Path, monkeypatch):
    before = state(root)
    labels = missing_labels(root)
    some = dict(list(labels.items())[:2])
    write_labels(root, some)
    assert missing_labels(root).keys() == labels.keys() - some.keys()
    write, written = storage.write_bytes, []

    def failing(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", failing)
        assert main(["label_good", str(root), "--write"]) == 2
    assert 2 < len(state(root)) - len(before) - 1 < 6
    assert main(["label_good", str(root), "--undo"]) == 0
    assert state(root) == before


@pytest.mark.fault(33)
def test_undo_keeps_and_names_a_label_that_was_changed_since(root: Path, capsys):
    before = state(root)
    main(["label_good", str(root), "--write"])
    drawn, replaced = (root / "tiny01" / f"Part{part}_label.png" for part in (0, 2))
    cv2.imwrite(str(drawn), 255 * np.eye(160, 128))
    replaced.write_bytes(replaced.read_bytes() + b"\0")
    (root / "tiny01" / "Part3_label.png").unlink()
    capsys.readouterr()
    main(["label_good", str(root), "--undo"])
    text = capsys.readouterr().out
    assert "tiny01/Part0_label.png was changed since, and stays" in text
    assert "tiny01/Part2_label.png was changed since, and stays" in text
    assert "3 labels removed" in text
    assert state(root).keys() - before.keys() == {
        "tiny01/Part0_label.png",
        "tiny01/Part2_label.png",
    }


@pytest.mark.fault(33)
def test_undo_removes_nothing_outside_the_items_whatever_the_record_names(root: Path):
    main(["label_good", str(root), "--write"])
    outside = root.parent / "kept_label.png"
    data = (root / "tiny01" / "Part0_label.png").read_bytes()
    outside.write_bytes(data)
    record = storage.read_json(root / ".label_good.json")
    own = storage.FileHash.of(data).model_dump()
    record["files"] |= {"../kept_label.png": own, str(outside): own, "tiny01/../x": own}
    storage.write_json(root / ".label_good.json", record)
    assert main(["label_good", str(root), "--undo"]) == 0
    assert outside.exists()


FORMS = {
    "another case": "PART0_LABEL.png",
    "a case of its own": "Part0_Label.PNG",
    "gt": "Part0_GT.png",
    "gt in one word": "Part0gt.png",
    "the picture's ending": "Part0.jpg_label.png",
    "a copy in a browser": "Part0_label (1).png",
    "a copied label": "Part0_label copy.png",
    "a copy": "Part0 copy.png",
    "a number in brackets": "Part0 (1).png",
    "a number": "Part0_2.png",
    "a typo": "Part0_lable.png",
    "another typo": "Part0_labl.bmp",
    "labelled": "Part0_labeled.png",
    "a mask": "Part0-mask.png",
    "annotated": "Part0 annotated.png",
    "seg": "Part0.seg.png",
    "a prefix": "mask_Part0.png",
    "another prefix": "labelPart0.png",
    "a photograph with marks": "Part0_marked.jpg",
    "another stem": "Part_0_label.png",
    "a JPEG": "Part0_label.jpg",
    "a kind that is not read": "Part0_label.tif",
    "json": "Part0.json",
    "xml": "Part0.xml",
    "txt": "Part0.txt",
    "one file for all": "annotations.csv",
    "a subfolder": "labels/Part0.png",
    "another subfolder": "ground_truth/Part0_mask.png",
    "a folder aside": "../masks/Part0.png",
    "a numbered folder aside": "../tiny01_gt/Part0.png",
    "a folder that extends the item's": "../tiny01 b/Part0.png",
    "a file aside": "../defects.txt",
    "coco": "../instances.json",
}


@pytest.mark.fault(33)
@pytest.mark.parametrize("stray", FORMS.values(), ids=FORMS)
def test_nothing_is_written_where_a_label_may_lie_under_another_name(
    root: Path, stray: str, capsys
):
    path = root / "tiny01" / stray
    path.parent.mkdir(exist_ok=True)
    if path.suffix in (".json", ".xml", ".txt", ".csv"):
        path.write_text("{}")
    elif "marked" in stray:
        shutil.copy(root / "tiny01" / "Part1.jpg", path)
    else:
        shutil.copy(root / "tiny01" / "Part1_label.bmp", path)
    before = state(root)
    assert main(["label_good", str(root), "--write"]) == 2
    error = capsys.readouterr().err
    assert state(root) == before
    assert "Nothing was written" in error
    assert Path(stray).name in error or f"{Path(stray).parent.name}/" in error


@pytest.mark.fault(33)
def test_a_label_whose_letters_are_written_in_two_signs_is_seen(root: Path):
    for form, name in (("NFC", "Prüf0.jpg"), ("NFD", "Prüf0_label.bmp")):
        source = root / "tiny01" / name.replace("Prüf0", "Part1")
        source.rename(source.with_name(unicodedata.normalize(form, name)))
    with pytest.raises(DataError, match="Nothing was written.*f0_label.bmp"):
        missing_labels(root)
    found = next(root.glob("tiny01/Pr*_label.bmp"))
    found.rename(found.with_name(found.name.replace("_label.bmp", "_x.png")))
    with pytest.raises(DataError, match="f0_x.png, which may belong to tiny01/Pr"):
        missing_labels(root)


def drawn() -> np.ndarray:
    mask = np.zeros((160, 128), np.uint8)
    cv2.line(mask, (20, 30), (100, 140), 255, 5, cv2.LINE_AA)
    return mask


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "two levels": lambda: drawn() // 128 * 255,
    "smoothed": drawn,
    "inverted": lambda: 255 - drawn(),
    "black": lambda: drawn() * 0,
    "classes": lambda: drawn() // 64 * 40,
    "colours": lambda: np.dstack([drawn() * 0, drawn() * 0, drawn()]),
}


@pytest.mark.fault(33)
@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_picture_of_hardly_more_than_two_levels_is_a_label(root: Path, picture, extension: str):
    cv2.imwrite(str(root / "tiny05" / f"Part7{extension}"), picture())
    with pytest.raises(DataError, match=f"tiny05/Part7{extension} has hardly more than two gray"):
        missing_labels(root)


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "name",
    ["NG", "NG_01", "bad", "defects3", "Defekt 4", "reject1", "failed_2", "scratch 01", "n.i.O. 7"]
    + ["crack", "good", "OK", "masks", "gt1", "Labels2", "ground truth 3", "不良1", "nok-12"],
)
def test_nothing_is_written_where_a_folder_is_no_numbered_item(root: Path, name: str):
    (root / "tiny02").rename(root / name)
    with pytest.raises(DataError, match="Nothing was written") as caught:
        missing_labels(root)
    assert f"{name}/" in str(caught.value)


@pytest.mark.fault(33)
@pytest.mark.parametrize("name", ["NG", "bad", "Defects", "rejected", "masks"])
def test_nothing_is_written_in_a_folder_of_bad_parts_or_beside_one_of_labels(root: Path, name: str):
    bad = root.rename(root.with_name(name))
    with pytest.raises(DataError, match=f"the folder {name}/"):
        missing_labels(bad)
    if name == "masks":
        shutil.copytree(bad, root.with_name("images"))
        with pytest.raises(DataError, match="the folder masks/"):
            missing_labels(root.with_name("images"))


@pytest.mark.fault(33)
@pytest.mark.parametrize("name", ["Part5_NG.jpg", "scratch_5.jpg", "5 defect.jpg"])
def test_nothing_is_written_where_a_picture_is_called_bad(root: Path, name: str):
    (root / "tiny02" / "Part3.jpg").rename(root / "tiny02" / name)
    with pytest.raises(DataError, match=f"Nothing was written.*tiny02/{name}"):
        missing_labels(root)


def test_longer_numbers_default_names_and_files_of_the_system_are_no_obstacle(root: Path):
    for old, new in (("Part2", "Part10"), ("Part3", "default_1"), ("Part0", "stainless_10")):
        (root / "tiny01" / f"{old}.jpg").rename(root / "tiny01" / f"{new}.jpg")
    (root / "tiny02").rename(root / "tiny011")
    for name in ("Thumbs.db", "tiny01/desktop.ini", "tiny01/.DS_Store", "tiny01/._Part1_label.png"):
        (root / name).write_text("x")
    assert len(missing_labels(root)) == 6


def test_an_unreadable_picture_is_named_and_nothing_is_written(root: Path):
    (root / "tiny02" / "Part3.jpg").write_bytes(b"no picture")
    before = state(root)
    with pytest.raises(DataError, match="tiny02/Part3.jpg is not a JPEG, PNG or BMP image"):
        missing_labels(root)
    assert state(root) == before


def test_images_outside_a_folder_of_their_own_are_not_taken_for_labelled(root: Path):
    with pytest.raises(DataError, match="expected a folder for each item"):
        missing_labels(root / "tiny01")
    shutil.copy(root / "tiny01" / "Part0.jpg", root / "Part0.jpg")
    with pytest.raises(DataError, match="Nothing was written.*Part0.jpg"):
        missing_labels(root)
