"""Parts are gone through in a chosen order, and a folder of one's own is judged as a whole."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_results import ROWS, Judge

from ksdd_lib.data.dataset import find_samples
from ksdd_lib.deploy import detection
from ksdd_lib.errors import DataError
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.notebook import browse
from ksdd_lib.reporting import surface_pictures
from ksdd_lib.reporting.surface_pictures import JudgedSurface
from ksdd_lib.runs.prepare import DataSet


def surface(row: Prediction) -> JudgedSurface:
    mask = np.zeros((96, 64), bool)
    mask[40:44, 10:30] = row.is_defective
    image = np.random.default_rng(0).integers(90, 160, (96, 64)).astype(np.uint8)
    return JudgedSurface(row, image, mask, np.full((12, 8), 0.2))


def test_the_orders_begin_where_they_say():
    ways = browse.orders(ROWS)
    assert [row.image for row in ways["failures first"]] == ["a/2", "a/3", "b/2", "a/1"]
    assert ways["closest calls"][0].image == "b/3"
    assert ways["most suspicious first"][0].image == "a/1"
    assert ways["suspicious labels"][0].image in ("a/2", "a/3")


def test_one_part_stays_and_the_controls_go_through_all(screen, capsys):
    browse.parts(ROWS, surface, True)
    assert capsys.readouterr().out == "missed: a/2, score 0.50, threshold 1.00\n"
    figure, panel = screen.bundles
    assert figure["image/png"]
    order, place, opacity, told, drawn = panel.children
    assert "Move a control" in told.value and not drawn.value and place.max == 4
    place.value = 2
    assert "false alarm: a/3" in told.value
    assert (
        'alt="GENERATED; surface, annotation; output at 50%; the white square, enlarged'
        in drawn.value
    )
    half = drawn.value
    opacity.value = 1.0
    assert drawn.value != half
    order.value = "closest calls"
    assert place.value == 1 and place.max == 6 and "b/3" in told.value


def test_the_enlarged_square_holds_the_defect():
    rows, columns = browse.surface_pictures._around(surface(ROWS[0]).annotation, 32)
    assert rows.start <= 40 and rows.stop >= 44 and columns.stop - columns.start == 32
    figure = surface_pictures.overlay(surface(ROWS[3]), 0.0)
    assert [ax.get_title() for ax in figure.axes][1] == "output at 0%"


def test_suspicious_labels_are_named_and_shown(screen, capsys):
    browse.suspicious_labels(ROWS, surface, {"is_generated": True})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and {line.split()[-1] for line in lines[:2]} == {"a/2", "a/3"}
    assert screen.bundles[0]["image/png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bright, a dark and a broken picture."""
    pixels = np.random.default_rng(0).integers(0, 40, (64, 48)).astype(np.uint8)
    for name, level in (("bright", 150), ("dark", 10)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels + level)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def test_a_folder_becomes_a_table_and_a_contact_sheet(folder: Path, screen, capsys):
    rows = browse.judge_folder(Judge(), folder, folder / "out")
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
    assert (
        (results / "verdicts.csv")
        .read_text()
        .startswith("image,label,score,threshold,x,y,reason\n")
    )
    sheet = cv2.imread(str(results / "contact_sheet.png"))
    assert sheet.std() > 10


def test_each_folder_judged_keeps_its_own_results(folder: Path, tmp_path_factory, screen):
    out = tmp_path_factory.mktemp("judged")
    for _ in range(2):
        browse.judge_folder(Judge(), folder, out)
    assert len(list(out.glob("*/verdicts.csv"))) == 2


def test_what_was_judged_goes_to_drive_too(folder: Path, tmp_path_factory, screen, capsys):
    out, drive = tmp_path_factory.mktemp("judged"), tmp_path_factory.mktemp("MyDrive")
    browse.judge_folder(Judge(), folder, out, drive)
    [here], [there] = out.iterdir(), (drive / "ksdd" / "judged").iterdir()
    assert there.name == here.name
    for name in ("verdicts.csv", "contact_sheet.png"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert f"and in {here.name} (in judged) on Drive" in capsys.readouterr().out


@pytest.mark.fault(25)
def test_where_drive_takes_nothing_the_results_stay_here(
    folder: Path, tmp_path_factory, screen, capsys
):
    out = tmp_path_factory.mktemp("judged")
    with pytest.warns(UserWarning, match="could not be copied to Drive") as caught:
        browse.judge_folder(Judge(), folder, out, folder / "gone")
    assert len(caught) == 1 and len(list(out.glob("*/verdicts.csv"))) == 1
    assert "on Drive" not in capsys.readouterr().out and not (folder / "gone").exists()


def test_in_colab_the_table_is_offered_for_download(folder: Path, screen, monkeypatch):
    offered = []
    monkeypatch.setattr(browse.colab, "in_colab", lambda: True)
    monkeypatch.setattr(browse.colab, "share", offered.append)
    browse.judge_folder(Judge(), folder, folder / "out")
    assert [path.name for path in offered] == ["verdicts.csv"]


def test_the_form_judges_the_folder_typed_and_says_what_is_wrong(
    folder: Path, screen, monkeypatch, capsys
):
    browse.folder_form(Judge(), folder / "out")
    box, button, _ = screen.bundles[-1].children
    monkeypatch.chdir(folder)  # an empty box does not mean the folder at work
    box.value = "  "
    button.click()
    assert capsys.readouterr().out == "Type the path of a folder first.\n"
    assert not (folder / "out").exists() and not button.disabled
    box.value = str(folder)
    button.click()
    assert list((folder / "out").glob("*/contact_sheet.png")) and not button.disabled
    with pytest.raises(DataError, match="nowhere does not exist"):
        browse.judge_folder(Judge(), folder / "nowhere", folder)
    box.value = str(folder / "nowhere")
    button.click()  # says so below, and raises nothing


def test_a_sheet_that_shows_only_some_says_so(tmp_path: Path):
    rows = [detection.Judged(f"{number}.png", "unreadable") for number in range(50)]
    heading = "the 48 most suspicious of 50; all are in verdicts.csv"
    assert browse.sheet_of(rows, tmp_path).get_suptitle() == heading
    assert not browse.sheet_of(rows[:48], tmp_path).get_suptitle()


def test_a_sheet_of_one_and_of_many_can_be_drawn():
    picture = np.zeros((30, 20), np.uint8)
    assert len(surface_pictures.contact_sheet([picture], ["x"], [True]).axes) == 1
    many = surface_pictures.contact_sheet([picture] * 9, ["x"] * 9, [False] * 9)
    assert len(many.axes) == 16


@pytest.mark.parametrize("twice", [False, True])
def test_a_surface_annotated_twice_is_shown(tmp_path, make_data_set, screen, capsys, twice):
    root = make_data_set(tmp_path / "data", items=3, parts=2)
    if twice:  # the same photograph under another name, its mask annotated a little wider
        shutil.copytree(root / "tiny01", root / "tiny04")
        wider = cv2.dilate(cv2.imread(str(root / "tiny04" / "Part1_label.bmp"), 0), np.ones((3, 3)))
        cv2.imwrite(str(root / "tiny04" / "Part1_label.bmp"), wider)
    samples = tuple(find_samples(root))
    data = DataSet(root, samples, (), {"is_kolektor": False, "is_generated": True})
    browse.second_annotations(data)
    if not twice:
        assert "No defective surface" in capsys.readouterr().out and not screen.bundles
        return
    [(names, overlap)] = browse.annotated_twice(data)
    assert names == ("tiny01/Part1", "tiny04/Part1") and 0.3 < overlap < 0.9
    assert f"tiny04/Part1 IoU {overlap:.2f}" in screen.bundles[0]["text/plain"]


@pytest.mark.slow
def test_kolektor_has_four_defective_surfaces_annotated_twice(kolektor_root, screen):
    samples = tuple(find_samples(kolektor_root))
    browse.second_annotations(
        DataSet(kolektor_root, samples, (), {"is_kolektor": True, "is_generated": False})
    )
    assert screen.bundles[0]["text/plain"].count("IoU") == 8
