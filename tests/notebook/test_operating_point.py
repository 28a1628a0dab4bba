"""Each fold's errors stand in a table, and a slider tells what another threshold would cost."""

import re

from small_results import ROWS

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.evaluation.threshold_costs import Costs
from ksdd_lib.notebook import operating_point

COSTS = Costs(miss=100.0, false_alarm=1.0, defective_share=0.01)


def test_each_fold_stands_in_a_table_misses_first(screen):
    _, summary = conclude(ROWS, "clean", 0, {0: {"b"}, 1: {"a"}})
    operating_point.show_folds(summary)
    table = screen.bundles[0]["text/html"]
    assert table.count("<tr>") == 5 and table.index("misses") < table.index("false alarms")
    cells = re.sub("<[^>]*>", "|", table)
    assert "|fold 0||0 of 2||1 of 1||0.8333||0.5000||-1.70||" in cells
    assert "|pooled||1 of 3||1 of 3||0.8056||0.7778||each fold's own|" in cells


def test_three_operating_points_stay_as_a_table_and_a_figure(screen):
    operating_point.show(ROWS, False, COSTS)
    table, figure, panel = screen.bundles
    assert table["text/html"].count("<tr>") == 4
    assert "1 of 3 [0.8%, 90.6%]" in table["text/html"]
    assert "473 defective parts must be tested; here are 3" in table["text/html"]
    assert figure["image/png"] and type(panel).__name__ == "VBox"


def test_moving_the_slider_tells_what_changes_sides(screen):
    operating_point.show(ROWS, False, COSTS)
    slider, *_, told, drawn = screen.bundles[-1].children
    assert "Move a control" in told.value and not drawn.value
    slider.value = slider.min
    assert "3 of 3 [29.2%, 100.0%]" in told.value and "0 of 3" in told.value
    assert "a/2 (defective, flagged now, score 0.50)" in told.value
    assert 'alt="Precision-recall curve; precision against recall' in drawn.value
    assert "chosen: 3 FP, 0 FN" in drawn.value


def test_the_user_s_own_money_decides_which_point_is_cheapest(screen):
    operating_point.show(ROWS, False, COSTS)
    _, miss, false_alarm, share, told, _ = screen.bundles[-1].children
    miss.value, share.value = 1e6, 0.5
    assert "least cost (oracle)" in told.value
    cheapest = threshold_costs.cheapest(ROWS, Costs(1e6, 1.0, 0.5))
    assert f"{cheapest.shift:+.2f}" in told.value
    share.value = 2
    assert "the share lies between 0 and 1" in told.value


def test_in_a_terminal_the_points_are_lines(capsys):
    operating_point.show(ROWS, False, COSTS)
    assert capsys.readouterr().out.splitlines()[0].startswith("operating            1 misses of 3")
