"""A picture is judged in one line and one figure, a folder as a table and a contact sheet."""

import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_results import Judge

from ksdd_lib.deploy import folder_table
from ksdd_lib.deploy.detection import Verdict
from ksdd_lib.errors import DataError
from ksdd_lib.notebook import judge_pictures
from ksdd_lib.reporting import surface_pictures


def picture(level: int) -> np.ndarray:
    pixels = np.full((32, 32), level, np.uint8)
    pixels[0] += 1
    return pixels


def test_a_picture_is_judged_in_one_line_and_one_figure(screen, capsys):
    found = judge_pictures.judge_picture(Judge(), picture(120), "mine", False)
    assert found.label == "defective"
    assert capsys.readouterr().out == "mine: defective, score 120.03, threshold 100.00\n"
    figure, upload = screen.bundles
    assert figure["image/png"] and type(upload).__name__ == "VBox"
    frame = judge_pictures.judge_picture(Judge(), np.zeros((32, 32), np.uint8), "dark", False)
    assert frame.label == "not a surface" and capsys.readouterr().out == "dark: not a surface\n"
    judge_pictures.judge_picture(Judge(), picture(120)[:8], "wide", False)
    assert capsys.readouterr().out.splitlines()[1] == "Warning: it is wide."


@pytest.mark.parametrize("marked", [0.5, 2.0])
def test_a_defective_picture_without_a_marked_pixel_says_so(screen, capsys, monkeypatch, marked):
    sure = Judge().judge(picture(120))
    found = replace(sure, mask_threshold=marked)
    monkeypatch.setattr(Judge, "judge", lambda self, pixels: found)
    judge_pictures.judge_picture(Judge(), picture(120), "mine", False)
    assert ("no pixel is marked" in capsys.readouterr().out) == (marked > 1)


def test_drawn_surfaces_are_compared_with_the_truth_in_words(screen, capsys):
    """Every pair of truth and verdict, and a frame in which nothing is seen."""
    levels = {"a": 120, "b": 40, "c": 130, "d": 50}
    surfaces = {name: picture(level) for name, level in levels.items()}
    surfaces["e"] = np.zeros((32, 32), np.uint8)
    judge_pictures.compare(Judge(), surfaces, [True, True, False, False, True])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "a: crack found",
        "b: CRACK MISSED",
        "c: FALSE ALARM",
        "d: good, and passed",
        "e: CRACK MISSED",
    ]
    assert lines[0].endswith("(score 120.0, threshold 100.0)")
    [shown] = screen.bundles
    assert "GENERATED" in shown["text/plain"] and "FALSE ALARM" in shown["text/plain"]


@pytest.mark.parametrize("version", [7, 8])
def test_uploaded_pictures_are_judged_one_after_the_other(screen, capsys, version):
    content = cv2.imencode(".png", picture(40))[1].tobytes()
    judge_pictures.judge_picture(Judge(), picture(120), "example", False)
    button, told, drawn = screen.bundles[-1].children

    def upload(name: str, bytes_: bytes) -> None:
        old = {name: {"metadata": {}, "content": bytes_}}
        new = ({"name": name, "content": memoryview(bytes_)},)
        button.notify_change(
            {"name": "value", "new": old if version == 7 else new, "type": "change"}
        )

    upload("a.png", content)
    assert "a.png: good, score 40.03" in told.value and "<img" in drawn.value
    upload("b.txt", b"no picture")
    assert "the image is not a JPEG" in told.value and not drawn.value
    assert "a.png" not in told.value, "an older answer would be read as that on this picture"
    upload("<b>.png", content)
    assert "&lt;b&gt;.png: good" in told.value and "not a JPEG" not in told.value


@pytest.mark.fault(49)
def test_an_uploaded_picture_that_leaves_most_of_its_bits_empty_is_told(screen, capsys):
    content = cv2.imencode(".png", picture(120).astype(np.uint16) * 16)[1].tobytes()
    judge_pictures.judge_picture(Judge(), content, "deep", False)
    assert "Warning: it uses 3.0\u00a0% of its 16 bits" in capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bright, a dark and a broken picture."""
    pixels = np.random.default_rng(0).integers(0, 40, (64, 48)).astype(np.uint8)
    for name, level in (("bright", 150), ("dark", 10)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels + level)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def test_a_folder_becomes_a_table_and_a_contact_sheet(folder: Path, screen, capsys):
    rows, _ = judge_pictures.judge_folder(Judge(), folder, folder / "out")
    assert [(row.image, row.label) for row in rows] == [
        ("broken.jpg", "unreadable"),
        ("bright.png", "defective"),
        ("dark.png", "good"),
    ]
    [results] = (folder / "out").iterdir()
    assert re.fullmatch(rf"{folder.name}-[\d-]{{17}}", results.name)
    said = capsys.readouterr().out
    assert "1 unreadable, 1 defective, 1 good" in said
    assert f"verdicts.csv and contact_sheet.png are in {results.name} (in out)\n" in said
    header = (results / "verdicts.csv").read_text().splitlines()[0]
    assert header.startswith("image,label,score,threshold,x,y,reason,classes,defect,left,top,")
    sheet = cv2.imread(str(results / "contact_sheet.png"))
    assert sheet.std() > 10


def test_a_single_picture_has_its_sheet_too(folder: Path, screen):
    rows, sheet = judge_pictures.judge_folder(Judge(), folder / "bright.png", folder / "out")
    assert [(row.image, row.label) for row in rows] == [("bright.png", "defective")]
    assert (sheet.axes[0].images[0].get_array() > 100).all()


def test_each_folder_judged_keeps_its_own_results(folder: Path, tmp_path_factory, screen):
    out = tmp_path_factory.mktemp("judged")
    for _ in range(2):
        judge_pictures.judge_folder(Judge(), folder, out)
    assert len(list(out.glob("*/verdicts.csv"))) == 2


def test_what_was_judged_goes_to_drive_too(folder: Path, tmp_path_factory, screen, capsys):
    out, drive = tmp_path_factory.mktemp("judged"), tmp_path_factory.mktemp("MyDrive")
    judge_pictures.judge_folder(Judge(), folder, out, drive)
    [here], [there] = out.iterdir(), (drive / "ksdd" / "judged").iterdir()
    assert there.name == here.name
    for name in ("verdicts.csv", "contact_sheet.png"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert f"and in {here.name} (in judged) on Drive" in capsys.readouterr().out


@pytest.mark.fault(47)
@pytest.mark.parametrize("name", [b"teile-\xfc\xff", b"a\rb", " \u00fc ".encode(), b"x" * 251])
def test_a_folder_and_pictures_of_any_name_are_judged(
    folder: Path, tmp_path_factory, screen, capsys, name: bytes
):
    out = tmp_path_factory.mktemp("judged")
    odd = folder.rename(folder.with_name(os.fsdecode(name)))
    (odd / "bright.png").rename(odd / os.fsdecode(b"bri\xffght.png"))
    (odd / "broken.jpg").rename(odd / "bro\nken $a_{$.jpg")
    judge_pictures.judge_folder(Judge(), odd, out)
    [results] = out.iterdir()
    assert r"bri\xffght.png,defective" in (results / "verdicts.csv").read_text("utf-8")
    assert (results / "contact_sheet.png").stat().st_size and results.name.isprintable()
    capsys.readouterr().out.encode()


@pytest.mark.fault(25)
def test_where_drive_takes_nothing_the_results_stay_here(
    folder: Path, tmp_path_factory, screen, capsys
):
    out = tmp_path_factory.mktemp("judged")
    with pytest.warns(UserWarning, match="could not be copied to Drive") as caught:
        judge_pictures.judge_folder(Judge(), folder, out, folder / "gone")
    assert len(caught) == 1 and len(list(out.glob("*/verdicts.csv"))) == 1
    assert "on Drive" not in capsys.readouterr().out and not (folder / "gone").exists()


def test_in_colab_the_table_is_offered_for_download(folder: Path, screen, monkeypatch):
    offered = []
    monkeypatch.setattr(judge_pictures.colab, "in_colab", lambda: True)
    monkeypatch.setattr(judge_pictures.colab, "share", offered.append)
    judge_pictures.judge_folder(Judge(), folder, folder / "out")
    assert [path.name for path in offered] == ["verdicts.csv"]


def test_the_form_judges_the_folder_typed_and_says_what_is_wrong(
    folder: Path, screen, monkeypatch, capsys
):
    judge_pictures.folder_form(Judge(), folder / "out")
    box, button, told, drawn, _ = screen.bundles[-1].children
    monkeypatch.chdir(folder)  # an empty box does not mean the folder at work
    box.value = "  "
    button.click()
    assert "Type the path of a folder first." in told.value
    assert not (folder / "out").exists() and not button.disabled
    with pytest.raises(DataError, match="nowhere does not exist"):
        judge_pictures.judge_folder(Judge(), folder / "nowhere", folder)
    box.value = str(folder / "nowhere")
    button.click()
    assert "nowhere does not exist" in told.value and not drawn.value
    box.value = f' "{folder}" '
    button.click()
    assert "1 unreadable, 1 defective, 1 good" in told.value
    assert "nowhere" not in told.value, "an old error above a new result would be believed"
    assert "<img" in drawn.value
    assert list((folder / "out").glob("*/contact_sheet.png")) and not button.disabled


def test_the_form_says_how_far_it_is(folder: Path, screen, monkeypatch):
    judge_pictures.folder_form(Judge(), folder / "out")
    box, button, told, *_ = screen.bundles[-1].children
    seen = []
    told.observe(lambda change: seen.append(change["new"]), names="value")
    box.value = str(folder)
    button.click()
    assert [text for text in seen if "judged: " in text] == [
        f"judged: {done} of 3 images" for done in (1, 2, 3)
    ]
    assert "judged: " not in told.value


def test_what_is_warned_stands_below_the_form(folder: Path, screen):
    judge_pictures.folder_form(Judge(), folder / "out", folder / "gone")
    box, button, told, *_ = screen.bundles[-1].children
    box.value = str(folder)
    button.click()
    assert "Warning: The results could not be copied to Drive" in told.value


def test_a_sheet_that_shows_only_some_says_so(tmp_path: Path):
    rows = [folder_table.Judged(f"{number}.png", "unreadable") for number in range(50)]
    heading = "the 48 most suspicious of 50; all are in verdicts.csv"
    assert judge_pictures.sheet_of(rows, tmp_path).get_suptitle() == heading
    assert not judge_pictures.sheet_of(rows[:48], tmp_path).get_suptitle()


def test_a_sheet_of_one_and_of_many_can_be_drawn():
    picture = np.zeros((30, 20), np.uint8)
    assert len(surface_pictures.contact_sheet([picture], ["x"], [True]).axes) == 1
    many = surface_pictures.contact_sheet([picture] * 9, ["x"] * 9, [False] * 9)
    assert len(many.axes) == 16


def test_the_classes_of_a_picture_are_named_where_several_are_told_apart(
    screen, capsys, folder, monkeypatch
):
    judge = Judge.judge

    def named(self: Judge, image: np.ndarray | Path) -> Verdict:
        found = judge(self, image)
        return replace(found, classes=("scratch", "=dent") if found.label == "defective" else ())

    monkeypatch.setattr(Judge, "judge", named)
    judge_pictures.judge_picture(Judge(), picture(120), "mine", False)
    assert "mine: defective (scratch, =dent), score 120.03" in capsys.readouterr().out
    rows = folder_table.judge_folder(Judge(), folder)
    titles = [ax.get_title() for ax in judge_pictures.sheet_of(rows, folder).axes]
    assert any(title.startswith("scratch; =dent 169.9") for title in titles), titles
