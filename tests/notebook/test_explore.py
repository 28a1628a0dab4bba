"""What one looks into with a control in hand is judged and shown as plain output too."""

import re

import cv2
import numpy as np
import pytest
from small_results import ROWS, Judge

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.threshold_costs import Costs
from ksdd_lib.notebook import explore

REAL = {"is_generated": False}


def picture(level: int) -> np.ndarray:
    pixels = np.full((32, 32), level, np.uint8)
    pixels[0] += 1
    return pixels


def test_a_picture_is_judged_in_one_line_and_one_figure(screen, capsys):
    found = explore.judge_picture(Judge(), picture(120), "mine", REAL)
    assert found.label == "defective"
    assert capsys.readouterr().out == "mine: defective, score 120.03, threshold 100.00\n"
    figure, upload = screen.bundles
    assert figure["image/png"] and type(upload).__name__ == "VBox"
    frame = explore.judge_picture(Judge(), np.zeros((32, 32), np.uint8), "dark", REAL)
    assert frame.label == "not a surface" and capsys.readouterr().out == "dark: not a surface\n"
    explore.judge_picture(Judge(), picture(120)[:8], "wide", REAL)
    assert capsys.readouterr().out.splitlines()[1] == "Warning: it is wide."


@pytest.mark.parametrize("version", [7, 8])
def test_uploaded_pictures_are_judged_one_after_the_other(screen, capsys, version):
    content = cv2.imencode(".png", picture(40))[1].tobytes()
    explore.judge_picture(Judge(), picture(120), "example", REAL)
    button = screen.bundles[-1].children[0]
    capsys.readouterr()
    for name, bytes_ in (("a.png", content), ("b.txt", b"no picture")):
        old = {name: {"metadata": {}, "content": bytes_}}
        new = ({"name": name, "content": memoryview(bytes_)},)
        button.notify_change(
            {"name": "value", "new": old if version == 7 else new, "type": "change"}
        )
    said = capsys.readouterr().out
    assert "a.png: good, score 40.03" in said
    assert "b.txt: the image is not a JPEG" in said


def test_each_fold_stands_in_a_table_misses_first(screen, capsys):
    one = {"images": 10, "defective": 2, "fn": 1, "fp": 0, "ap": 0.9, "auc": None}
    summary = {
        "folds": [{"fold": 0, "threshold": -0.5} | one, {"fold": 1, "threshold": 1.0} | one],
        "fold_mean": {"ap": 0.9, "auc": None},
        "pooled": one | {"images": 20, "defective": 4, "fn": 2},
    }
    explore.show_folds(summary)
    table = screen.bundles[0]["text/html"]
    assert table.count("<tr>") == 5 and table.index("misses") < table.index("false alarms")
    cells = re.sub("<[^>]*>", "|", table)
    assert "|fold 0||1 of 2||0 of 8||0.9000||undefined||-0.50|" in cells
    assert "|pooled||2 of 4||0 of 16||0.9000||undefined||each fold's own|" in cells


# The operating point

COSTS = Costs(miss=100.0, false_alarm=1.0, defective_share=0.01)


def test_three_operating_points_stay_as_a_table_and_a_figure(screen):
    explore.operating_point(ROWS, REAL, COSTS)
    table, figure, panel = screen.bundles
    assert table["text/html"].count("<tr>") == 4
    assert "1 of 3 [0.8%, 90.6%]" in table["text/html"]
    assert "473 defective parts must be tested; here are 3" in table["text/html"]
    assert figure["image/png"] and type(panel).__name__ == "VBox"


def test_moving_the_slider_tells_what_changes_sides(screen):
    explore.operating_point(ROWS, REAL, COSTS)
    slider, *_, told, drawn = screen.bundles[-1].children
    assert "Move a control" in told.value and not drawn.value
    slider.value = slider.min
    assert "3 of 3 [29.2%, 100.0%]" in told.value and "0 of 3" in told.value
    assert "a/2 (defective, flagged now, score 0.50)" in told.value
    assert 'alt="Precision-recall curve; precision against recall' in drawn.value
    assert "chosen: 3 FP, 0 FN" in drawn.value


def test_the_user_s_own_money_decides_which_point_is_cheapest(screen):
    explore.operating_point(ROWS, REAL, COSTS)
    _, miss, false_alarm, share, told, _ = screen.bundles[-1].children
    miss.value, share.value = 1e6, 0.5
    assert "least cost (oracle)" in told.value
    cheapest = threshold_costs.cheapest(ROWS, Costs(1e6, 1.0, 0.5))
    assert f"{cheapest.shift:+.2f}" in told.value
    share.value = 2
    assert "the share lies between 0 and 1" in told.value


def test_in_a_terminal_the_points_are_lines(capsys):
    explore.operating_point(ROWS, REAL, COSTS)
    assert capsys.readouterr().out.splitlines()[0].startswith("operating            1 misses of 3")
