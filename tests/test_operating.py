"""What a threshold costs is counted on the stored scores, and what can be claimed is exact."""

import pytest

from ksdd_lib import operating
from ksdd_lib.metrics import Prediction
from ksdd_lib.operating import Costs


def row(name: str, fold: int, defective: bool, score: float, threshold: float) -> Prediction:
    item = name.partition("/")[0]
    flagged = score > threshold
    return Prediction(name, item, fold, 0, defective, score, score, threshold, flagged)


ROWS = [
    row("a/1", 0, True, 3.0, 1.0),
    row("a/2", 0, True, 0.5, 1.0),  # missed by half a logit
    row("a/3", 0, False, 1.5, 1.0),  # a false alarm by half a logit
    row("b/1", 1, False, -4.0, -2.0),
    row("b/2", 1, True, -1.0, -2.0),
    row("b/3", 1, False, -2.4, -2.0),
]


def test_at_no_shift_it_counts_the_stored_verdicts():
    point = operating.at(ROWS, 0.0)
    assert (point.misses, point.defective, point.false_alarms, point.good) == (1, 3, 1, 3)
    assert point.changed == ()


def test_a_shift_moves_the_threshold_of_every_fold():
    lower = operating.at(ROWS, -0.45)
    assert (lower.misses, lower.false_alarms) == (1, 2)
    assert [r.image for r in lower.changed] == ["b/3"]
    assert [r.image for r in operating.at(ROWS, 0.6).changed] == ["a/3"]


def test_all_points_are_among_the_shifts():
    found = {
        (p.misses, p.false_alarms) for p in (operating.at(ROWS, s) for s in operating.shifts(ROWS))
    }
    assert found == {(0, 3), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (3, 0)}
    assert 0.0 in operating.shifts(ROWS)


def test_the_cheapest_point_depends_on_what_errors_cost():
    dear_misses = operating.cheapest(ROWS, Costs(miss=1000, false_alarm=1, defective_share=0.5))
    assert dear_misses.misses == 0 and dear_misses == operating.without_misses(ROWS)
    dear_alarms = operating.cheapest(ROWS, Costs(miss=1, false_alarm=1000, defective_share=0.5))
    assert dear_alarms.false_alarms == 0 and dear_alarms.misses == 1


def test_cost_weighs_the_rates_with_the_share_on_the_line():
    point = operating.at(ROWS, 0.0)
    cost = point.cost(Costs(miss=30, false_alarm=3, defective_share=0.01))
    assert cost == pytest.approx(1000 * (0.01 * 30 / 3 + 0.99 * 3 / 3))


def test_without_defective_parts_nothing_is_missed():
    good = [r for r in ROWS if not r.is_defective]
    point = operating.without_misses(good)
    assert point.miss_interval is None and point.false_alarms == 0


@pytest.mark.parametrize(("misses", "needed"), [(0, 299), (1, 473), (2, 628)])
def test_the_parts_needed_to_claim_one_percent(misses: int, needed: int):
    """299 is ln 0.05 / ln 0.99, rounded up; the others are of the same exact test."""
    assert operating.parts_needed(0.01, misses) == needed
    assert operating.parts_needed(0.05) == 59
