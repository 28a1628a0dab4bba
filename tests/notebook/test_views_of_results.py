"""Parts are gone through in any order, and doubtful labels are shown."""

import shutil

import cv2
import numpy as np
import pytest
from small_data import data_record
from small_results import ROWS

from ksdd_lib.data.survey import find_samples
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
    rows, columns = surface(ROWS[0]).closest(32)
    assert rows.start <= 40 and rows.stop >= 44 and columns.stop - columns.start == 32
    figure = surface_pictures.overlay(surface(ROWS[3]), 0.0)
    assert [ax.get_title() for ax in figure.axes][1] == "output at 0%"


def test_suspicious_labels_are_named_and_shown(screen, capsys):
    browse.suspicious_labels(ROWS, surface, True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and {line.split()[-1] for line in lines[:2]} == {"a/2", "a/3"}
    assert screen.bundles[0]["image/png"]


@pytest.mark.parametrize("twice", [False, True])
def test_a_surface_annotated_twice_is_shown(tmp_path, make_data_set, screen, capsys, twice):
    root = make_data_set(tmp_path / "data", items=3, parts=2)
    if twice:  # the same photograph under another name, its mask annotated a little wider
        shutil.copytree(root / "tiny01", root / "tiny04")
        wider = cv2.dilate(cv2.imread(str(root / "tiny04" / "Part1_label.bmp"), 0), np.ones((3, 3)))
        cv2.imwrite(str(root / "tiny04" / "Part1_label.bmp"), wider)
    samples = tuple(find_samples(root))
    data = DataSet(root, samples, (), data_record(is_generated=True))
    browse.second_annotations(data)
    if not twice:
        assert "No defective surface" in capsys.readouterr().out and not screen.bundles
        return
    [(names, overlap)] = browse.annotated_twice(data)
    assert names == ("tiny01/Part1", "tiny04/Part1") and 0.3 < overlap < 0.9
    assert f"tiny04/Part1 IoU {overlap:.2f}" in screen.bundles[0]["text/plain"]


@pytest.mark.slow
def guessed(root, layout="masks_beside", twins=(), **fields) -> DataSet:
    """A data set whose items a name has told, in its own words."""
    record = data_record(**fields)
    report = record.report.model_copy(update={"layout": layout, "twins": twins})
    record = record.model_copy(update={"report": report})
    return DataSet(root, tuple(find_samples(root)), (), record)


def test_parts_that_names_or_looks_tell_stand_in_rows(
    tmp_path, make_data_set, make_surface, screen, capsys
):
    root = make_data_set(tmp_path / "set", items=3, parts=3)
    for extra in range(4, 11):
        make_surface(root / "tiny03", f"Part{extra}", extra, False)
    rows = []
    draw = surface_pictures.item_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            surface_pictures, "item_rows", lambda some: (rows.extend(some), draw(some))[1]
        )
        browse.items(guessed(root, twins=(("tiny01", "tiny02"),)))
    assert [title for title, *_ in rows] == [
        "tiny01 = tiny02 (they look alike)",
        "tiny03, 8 of 10 pictures",
    ]
    assert [len(pictures) for _, pictures, _ in rows] == [6, 8]
    assert rows[0][2] == [True, True, False, False, False, False], "defective ones first"
    said = capsys.readouterr().out
    assert "2 parts have several pictures, 1 of them because these look alike; 0 have one." in said
    assert "Shown: 2 parts, up to 8 pictures each" in said and screen.bundles[0]["image/png"]


def test_of_many_parts_the_largest_are_shown_and_the_rest_is_counted(
    tmp_path, make_data_set, screen, capsys
):
    root = make_data_set(tmp_path / "set", items=12, parts=2, size=(32, 24))
    browse.items(guessed(root))
    said = capsys.readouterr().out
    assert "12 parts have several pictures" in said and "Shown: 10 parts" in said


@pytest.mark.parametrize("kind", ["generated", "kolektor", "folders", "one each"])
def test_where_nobody_guessed_no_parts_are_shown(
    tmp_path, make_data_set, screen, capsys, kind: str
):
    root = make_data_set(tmp_path / "set", items=3, parts=1 if kind == "one each" else 2)
    known = {"is_generated": kind == "generated", "is_kolektor": kind == "kolektor"}
    browse.items(guessed(root, "" if kind == "folders" else "labelme", **known))
    said = "Each picture is a part." if kind == "one each" else "Which pictures show one part"
    assert said in capsys.readouterr().out and not screen.bundles


def test_kolektor_has_four_defective_surfaces_annotated_twice(kolektor_root, screen):
    samples = tuple(find_samples(kolektor_root))
    browse.second_annotations(DataSet(kolektor_root, samples, (), data_record(is_kolektor=True)))
    assert screen.bundles[0]["text/plain"].count("IoU") == 8
