"""What a threshold costs is counted on the stored scores, and what can be claimed is exact."""

import pytest
from small_results import ROWS

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.threshold_costs import Costs


def test_at_no_shift_it_counts_the_stored_verdicts():
    point = threshold_costs.at(ROWS, 0.0)
    assert (point.misses, point.defective, point.false_alarms, point.good) == (1, 3, 1, 3)
    assert point.changed == ()


def test_a_shift_moves_the_threshold_of_every_fold():
    lower = threshold_costs.at(ROWS, -0.45)
    assert (lower.misses, lower.false_alarms) == (1, 2)
    assert [r.image for r in lower.changed] == ["b/3"]
    assert [r.image for r in threshold_costs.at(ROWS, 0.6).changed] == ["a/3"]


def test_all_points_are_among_the_shifts():
    found = {
        (p.misses, p.false_alarms)
        for p in (threshold_costs.at(ROWS, s) for s in threshold_costs.shifts(ROWS))
    }
    assert found == {(0, 3), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (3, 0)}
    assert 0.0 in threshold_costs.shifts(ROWS)


def test_the_cheapest_point_depends_on_what_errors_cost():
    dear_misses = threshold_costs.cheapest(
        ROWS, Costs(miss=1000, false_alarm=1, defective_share=0.5)
    )
    assert dear_misses.misses == 0 and dear_misses == threshold_costs.without_misses(ROWS)
    dear_alarms = threshold_costs.cheapest(
        ROWS, Costs(miss=1, false_alarm=1000, defective_share=0.5)
    )
    assert dear_alarms.false_alarms == 0 and dear_alarms.misses == 1


def test_cost_weighs_the_rates_with_the_share_on_the_line():
    point = threshold_costs.at(ROWS, 0.0)
    cost = point.cost(Costs(miss=30, false_alarm=3, defective_share=0.01))
    assert cost == pytest.approx(1000 * (0.01 * 30 / 3 + 0.99 * 3 / 3))


def test_without_defective_parts_nothing_is_missed():
    good = [r for r in ROWS if not r.is_defective]
    point = threshold_costs.without_misses(good)
    assert (point.defective, point.misses, point.false_alarms) == (0, 0, 0)


@pytest.mark.parametrize(("misses", "needed"), [(0, 299), (1, 473), (2, 628)])
def test_the_parts_needed_to_claim_one_percent(misses: int, needed: int):
    """299 is ln 0.05 / ln 0.99, rounded up; the others are of the same exact test."""
    assert threshold_costs.parts_needed(0.01, misses) == needed
    assert threshold_costs.parts_needed(0.05) == 59
