"""What comes out of a judgement: a table of pictures and their defects, masks, an exit status."""

import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib import storage
from ksdd_lib.__main__ import main
from ksdd_lib.data.pixels import decode_mask
from ksdd_lib.deploy import detection, folder_table
from ksdd_lib.deploy.detection import Verdict, as_pixels
from ksdd_lib.deploy.folder_table import UNMARKED, Judged, outcome
from ksdd_lib.errors import RunError

SHAPE = 80, 120


@dataclass(frozen=True)
class DarkPlaces:
    """Calls dark places defects, and a picture defective that is darker than gray on average."""

    threshold: float = 0.0
    origin: str = "by the gray levels"
    size: tuple[int, int] = SHAPE

    def judge(self, image) -> Verdict:
        gray = as_pixels(image).astype(np.float32)
        if gray.std() == 0:
            return Verdict("not a surface")
        score = float(100 - gray.min())
        return Verdict("defective" if score > 0 else "good", score, 1 - gray / 255, 0.75)

    def doubt(self, shape) -> str:
        return ""


def picture(*places):
    """A bright picture with dark boxes (left, top, width, height, gray level)."""
    pixels = np.full(SHAPE, 200, np.uint8)
    pixels[::2] = 190
    for left, top, width, height, level in places:
        pixels[top : top + height, left : left + width] = level
    return pixels


PICTURES = {
    "one.png": picture((5, 6, 30, 4, 50)),
    "lines/two.png": picture((90, 2, 3, 70, 10), (10, 40, 12, 2, 0)),
    "good.png": picture(),
    "faint.png": picture((5, 6, 30, 4, 99)),  # a defect by its score, that its mask does not mark
}


@pytest.fixture
def folder(tmp_path):
    for name, pixels in PICTURES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(path), pixels)
    return tmp_path / "in"


@pytest.fixture
def judge(monkeypatch, tmp_path, capsys):
    """Runs the command on a path -> its exit status, and what it said."""
    monkeypatch.setattr(detection, "load", lambda path: DarkPlaces())
    monkeypatch.chdir(tmp_path)

    def run(path, *words):
        status = main(["judge", str(path), *map(str, words)])
        return status, "".join(capsys.readouterr())

    return run


def boxes(defects):
    names = ("left", "top", "width", "height")
    return [tuple(int(one[name]) for name in names) for one in defects]


@pytest.mark.fault(66)
@pytest.mark.parametrize("name", ["table.json", "Table.JSON"])
def test_json_has_each_picture_with_its_defects(folder, judge, tmp_path, name):
    status, _ = judge(folder, "--out", name)
    found = {row["image"]: row for row in json.loads((tmp_path / name).read_text("utf-8"))}
    assert status == 1 and set(found) == set(PICTURES)
    labels = {name: row["label"] for name, row in found.items()}
    assert labels == dict.fromkeys(PICTURES, "defective") | {"good.png": "good"}
    assert found["good.png"]["defects"] == found["faint.png"]["defects"] == []
    assert "no pixel is marked" in found["faint.png"]["reason"]
    assert not any(found[name]["reason"] for name in PICTURES if name != "faint.png")
    assert boxes(found["one.png"]["defects"]) == [(5, 6, 30, 4)]
    assert boxes(found["lines/two.png"]["defects"]) == [(10, 40, 12, 2), (90, 2, 3, 70)]
    [one] = found["one.png"]["defects"]
    assert (one["area"], one["length"]) == (120, 30)
    assert one["probability"] == pytest.approx(1 - 50 / 255, abs=1e-4)
    assert found["one.png"]["score"] == 50 and found["one.png"]["threshold"] == 0


@pytest.mark.fault(66)
@pytest.mark.parametrize("other", ["", "it was made for wider pictures, of another size than this"])
@pytest.mark.parametrize("names", [["faint.png"], ["faint.png", "lines/two.png"], ["good.png"]])
def test_the_terminal_tells_of_pictures_without_a_mark(folder, other, names):
    reasons = {name: UNMARKED if name == "faint.png" else other for name in names}
    rows = [Judged(name, "defective", reason=reason) for name, reason in reasons.items()]
    told = outcome(rows)
    assert (f"faint.png: {UNMARKED}" in told) == ("faint.png" in names)
    assert (other in told) == (not other or other in reasons.values())
    assert told.count("Warning for 1") == len(list(filter(None, reasons.values())))


@pytest.mark.fault(66)
def test_csv_has_a_row_for_each_defect_with_the_same_numbers(folder, judge, tmp_path):
    judge(folder, "--out", "table.csv")
    judge(folder, "--out", "table.json")
    pictures = json.loads((tmp_path / "table.json").read_text("utf-8"))
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["defect"]) for r in rows] == [
        (one["image"], str(number) if one["defects"] else "")
        for one in pictures
        for number in range(1, 1 + max(1, len(one["defects"])))
    ]
    for row in rows:
        one = next(one for one in pictures if one["image"] == row["image"])
        assert row["label"] == one["label"] and float(row["score"]) == one["score"]
        defect = one["defects"][int(row["defect"]) - 1] if row["defect"] else {}
        for name in ("left", "top", "width", "height", "area", "length", "probability"):
            assert (float(row[name]) if row[name] else None) == defect.get(name)


@pytest.mark.fault(66)
@pytest.mark.parametrize("name", ["table.txt", "table", "table.csv.gz", ".json", "table.xlsx"])
def test_another_ending_is_refused_before_anything_is_judged(folder, judge, tmp_path, name):
    status, said = judge(folder, "--out", name, "--masks", "masks")
    assert status == 2 and f"error: {name} must end in .csv or .json" in said
    assert os.listdir(tmp_path) == ["in"]
    with pytest.raises(RunError, match="must end in"):
        folder_table.write_verdicts(tmp_path / name, [])


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ("good", 0),
        ("good good", 0),
        ("defective", 1),
        ("good defective", 1),
        ("broken", 2),
        ("good broken", 2),
        ("defective broken", 2),
        ("good black", 2),
        ("black defective", 2),
    ],
)
def test_the_exit_status_tells_the_worst(tmp_path, judge, kinds, status):
    content = {
        "good": cv2.imencode(".png", picture())[1].tobytes(),
        "defective": cv2.imencode(".png", picture((5, 6, 30, 4, 50)))[1].tobytes(),
        "black": cv2.imencode(".png", np.zeros(SHAPE, np.uint8))[1].tobytes(),
        "broken": b"no picture",
    }
    (tmp_path / "in").mkdir()
    for number, kind in enumerate(kinds.split()):
        (tmp_path / "in" / f"{number}.png").write_bytes(content[kind])
    assert judge("in")[0] == status
    if len(kinds.split()) == 1:
        assert judge("in/0.png", "--out", "one.json")[0] == status


@pytest.mark.fault(66)
def test_a_command_that_fails_never_says_that_all_is_good(folder, judge):
    for words in (["nowhere"], [folder, "--out", folder], [folder, "--masks", folder / "x"]):
        assert judge(*words)[0] == 2


def test_the_exit_status_stands_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 all are good; 1 some are defective; 2 some are unreadable" in said


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    "name", ["one.png", "lines/two.png", "good.png", "one.picture", "x_label.png"]
)
def test_a_file_is_judged_as_in_its_folder(folder, judge, tmp_path, name):
    if name not in PICTURES:
        (folder / "one.png").rename(folder / name)
    judge(folder, "--out", "all.json")
    status, _ = judge(folder / name, "--out", "one.json")
    [alone] = json.loads((tmp_path / "one.json").read_text("utf-8"))
    every = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert alone == next(row for row in every if row["image"] == name) | {"image": Path(name).name}
    assert status == (alone["label"] == "defective")


@pytest.mark.fault(11)
def test_a_file_that_is_no_picture_is_unreadable_alone_too(tmp_path, judge):
    (tmp_path / "notes.txt").write_text("of no picture")
    assert judge("notes.txt")[0] == 2
    assert (
        (tmp_path / "verdicts.csv").read_text().splitlines()[1].startswith("notes.txt,unreadable")
    )


@pytest.mark.fault(66)
def test_masks_and_overlays_lie_as_the_pictures_do(folder, judge, tmp_path):
    (folder / "broken.png").write_bytes(b"no picture")
    judge(folder, "--masks", "masks")
    saved = {p.relative_to(tmp_path / "masks").as_posix() for p in tmp_path.glob("masks/**/*.png")}
    stems = [name.removesuffix(".png") for name in PICTURES]
    assert saved == {f"{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
    for stem in stems:
        pixels = PICTURES[f"{stem}.png"]
        mask = decode_mask((tmp_path / "masks" / f"{stem}_mask.png").read_bytes(), stem)
        assert np.array_equal(mask, (pixels <= 0.25 * 255) & (stem != "good"))
        shown = cv2.imread(str(tmp_path / "masks" / f"{stem}_overlay.png")).astype(int)
        assert shown.shape == (*SHAPE, 3)
        coloured = shown.max(axis=2) - shown.min(axis=2) > 20
        assert coloured.any()
        if mask.any():
            around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > mask
            drawn = (shown == (233, 180, 86)).all(axis=2)
            assert drawn.any() and not (drawn & ~around).any()


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "a.bmp", "a"],
        ["a.png", "a.bmp", "a-2.bmp"],
        ["x" * 240 + ".png", "x" * 241 + ".png"],
        [os.fsdecode(b"pr\xfcf.png"), "Tür ü.png", "\U0001f600" * 60 + ".png"],
        ["a_mask.png", "a.png"],
    ],
)
def test_no_mask_is_written_over_another(tmp_path, judge, names):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        content = cv2.imencode(".png", picture((5, 6, 10 + number, 4, 50)))[1].tobytes()
        (tmp_path / "in" / name).write_bytes(content)
    assert judge("in", "--masks", "masks", "--out", "table.json")[0] == 1
    areas = [
        np.count_nonzero(decode_mask(path.read_bytes(), path.name))
        for path in (tmp_path / "masks").iterdir()
        if path.stem.endswith("_mask")
    ]
    assert sorted(areas) == [4 * (10 + number) for number in range(len(names))]
    assert len(list((tmp_path / "masks").glob("*_overlay.png"))) == len(names)


@pytest.mark.fault(66)
@pytest.mark.parametrize("place", ["in/masks", "in", "in/lines/deep/masks", "verdicts.csv/masks"])
def test_masks_are_never_put_among_the_pictures(folder, judge, place):
    before = sorted(folder.rglob("*"))
    status, said = judge(folder, "--masks", place)
    assert status == 2 and ("is there already" if place == "in" else "with --masks") in said
    assert sorted(folder.rglob("*")) == before


def test_a_folder_of_masks_that_is_there_stays_as_it_is(folder, judge, tmp_path):
    (tmp_path / "masks").mkdir()
    status, said = judge(folder, "--masks", "masks")
    assert status == 2 and "masks is there already" in said
    assert not list((tmp_path / "masks").iterdir())
    assert not (tmp_path / "verdicts.csv").exists()


def test_odd_names_stand_in_json_as_in_csv(tmp_path):
    names = [os.fsdecode(b"pr\xfcf.png"), "a\nb.png", "=1+1.png"]
    rows = [folder_table.Judged(name, "unreadable", reason="\x1b") for name in names]
    folder_table.write_verdicts(tmp_path / "x.json", rows)
    found = storage.read_json(tmp_path / "x.json")
    assert [row["image"] for row in found] == [r"pr\xfcf.png", r"a\nb.png", "=1+1.png"]
    assert {row["reason"] for row in found} == {r"\x1b"}


def test_a_good_picture_has_no_defect_whatever_its_mask_says():
    mask = np.zeros((20, 20), np.float32)
    mask[3:5, 3:9] = 0.9
    bad, good = (Verdict(label, 1.0, mask) for label in ("defective", "good"))
    assert len(bad.defects) == 1 and bad.marked.sum() == 12 and bad.mask_threshold == 0.5
    assert good.defects == () and not good.marked.any()
    assert Verdict("defective", 1.0, mask, 0.95).defects == ()
    assert Verdict("not a surface").defects == () and Verdict("not a surface").marked is None


@dataclass(frozen=True)
class TwoKinds(DarkPlaces):
    """Calls dark places of the left half `left`, and of the other `"=right"`."""

    def judge(self, image) -> Verdict:
        found = super().judge(image)
        if found.mask is None:
            return found
        half = np.arange(found.mask.shape[1]) < found.mask.shape[1] / 2
        maps = {"left": found.mask * half, "=right": found.mask * ~half}
        return replace(found, classes=("left",), class_maps=maps)


@pytest.mark.fault(72)
def test_each_defect_in_the_table_has_its_class(folder, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "load", lambda path: TwoKinds())
    cv2.imwrite(str(folder / "both.png"), picture((50, 30, 20, 4, 20)))  # over the middle
    judge(folder, "--out", "table.json")
    pictures = {row["image"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    named = {
        name: [(one["class_name"], one["left"]) for one in row["defects"]]
        for name, row in pictures.items()
    }
    assert named["one.png"] == [("left", 5)] and named["good.png"] == []
    assert named["lines/two.png"] == [("left", 10), ("=right", 90)]
    assert named["both.png"] == [("left", 50), ("=right", 60)]
    judge(folder, "--out", "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["class_name"] for r in rows if r["image"] == "both.png"] == ["left", "'=right"]
    assert [r["class_name"] for r in rows if r["image"] == "faint.png"] == [""]


@pytest.mark.fault(72)
@pytest.mark.parametrize("kind", [DarkPlaces, TwoKinds])
def test_the_column_of_classes_is_there_only_where_they_are_told_apart(
    folder, judge, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(detection, "load", lambda path: kind())
    judge(folder, "--out", "table.csv")
    judge(folder, "--out", "table.json")
    header = (tmp_path / "table.csv").read_text("utf-8").splitlines()[0]
    assert ("class_name" in header) is (kind is TwoKinds)
    assert header.startswith("image,label,score,threshold,x,y,reason,classes,defect,left,top,")
    assert ("class_name" in (tmp_path / "table.json").read_text()) is (kind is TwoKinds)
