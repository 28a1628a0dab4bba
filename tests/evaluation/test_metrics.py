"""Numbers are what the literature means by them; undefined stays undefined."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score
from small_results import ROWS, make_rows, row

from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.evaluation import metrics, threshold_costs
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.threshold_costs import Costs

GOOD, BAD = False, True


# Ranking


@pytest.mark.fault(31)
def test_average_precision_is_step_wise_on_ties():
    labels, scores = [BAD, GOOD, BAD, GOOD], [1.0, 1.0, 1.0, 0.0]
    assert metrics.average_precision(labels, scores) == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [[GOOD] * 3, [BAD] * 3, []])
@pytest.mark.fault(14)
def test_ranking_numbers_are_undefined_without_both_classes(labels):
    scores = np.arange(len(labels), dtype=float)
    assert metrics.average_precision(labels, scores) is None
    assert metrics.roc_auc(labels, scores) is None
    assert metrics.best_f1_threshold(labels, scores) is None
    assert metrics.bootstrap_average_precision(labels, scores, ["a"] * len(labels)) is None


@pytest.mark.fault(31)
def test_equal_scores_have_chance_auc_and_prevalence_as_average_precision():
    labels, scores = [BAD, GOOD, GOOD, GOOD], [0.5] * 4
    assert metrics.roc_auc(labels, scores) == 0.5
    assert metrics.average_precision(labels, scores) == 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.fault(31)
def test_scores_that_are_no_numbers_are_refused(bad):
    for function in (
        metrics.average_precision,
        metrics.roc_auc,
        metrics.best_f1_threshold,
        metrics.false_positives_at_full_recall,
    ):
        with pytest.raises(KsddError, match="1 of 2 scores are NaN or infinite"):
            function([BAD, GOOD], [bad, 0.0])
    with pytest.raises(RunError, match="score of a/b is"):
        Prediction("a/b", "a", 0, 0, True, bad, 0.0)


def test_labels_and_scores_of_different_length_are_refused():
    with pytest.raises(KsddError, match="do not fit"):
        metrics.average_precision([BAD, GOOD], [0.0])


# The threshold


def test_threshold_is_the_middle_of_the_gap():
    assert metrics.best_f1_threshold([GOOD, GOOD, BAD, BAD], [-3.0, 1.0, 2.0, 9.0]) == 1.5


def test_threshold_reaches_the_best_f1_of_all_cuts():
    generator = np.random.default_rng(4)
    for _ in range(20):
        labels = generator.random(20) < 0.4
        labels[:2] = BAD, GOOD
        scores = generator.normal(labels, 1.0).round(1)  # rounded: with ties
        flagged = scores > metrics.best_f1_threshold(labels, scores)
        cuts = [f1_score(labels, scores >= value) for value in scores]
        assert f1_score(labels, flagged) == pytest.approx(max(cuts))


def test_equal_f1_is_decided_by_fewer_errors():
    # Flagging 1 of 2 defects alone, or both with 2 good ones, gives F1 2/3: one error against two.
    labels = [BAD, GOOD, GOOD, BAD, GOOD]
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    assert metrics.best_f1_threshold(labels, scores) == 4.5


@pytest.mark.fault(31)
def test_equal_scores_are_all_flagged_from_just_below():
    threshold = metrics.best_f1_threshold([BAD, GOOD], [0.25, 0.25])
    assert threshold < 0.25
    assert threshold == pytest.approx(0.25)


def test_threshold_separates_neighbouring_floats():
    low = 1.0
    high = float(np.nextafter(low, 2.0))
    threshold = metrics.best_f1_threshold([GOOD, BAD], [low, high])
    assert low <= threshold < high


def test_adding_a_constant_to_the_scores_moves_the_threshold_along():
    labels, scores = [GOOD, BAD, GOOD, BAD], np.array([0.0, 1.0, 2.0, 3.0])
    moved = metrics.best_f1_threshold(labels, scores + 7)
    assert moved == metrics.best_f1_threshold(labels, scores) + 7


# Counts


def test_error_counts_and_rates():
    counts = metrics.error_counts([BAD, BAD, BAD, GOOD, GOOD], [True, True, False, True, False])
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (2, 1, 1, 1)
    assert counts.accuracy == 0.6
    assert counts.precision == counts.recall == counts.f1 == pytest.approx(2 / 3)


def test_rates_without_a_denominator_are_undefined():
    nothing_flagged = metrics.error_counts([BAD, GOOD], [False, False])
    assert nothing_flagged.precision is None
    assert nothing_flagged.f1 == 0.0
    no_defects = metrics.error_counts([GOOD], [False])
    assert no_defects.recall is None and no_defects.f1 is None
    assert metrics.error_counts([], []).accuracy is None


def test_false_positives_at_full_recall_counts_what_scores_above_the_lowest_defect():
    # Scikit-learn's first threshold of recall 1 is the lowest score of all: 3 instead of 2.
    labels = [BAD, GOOD, GOOD, BAD, GOOD]
    assert metrics.false_positives_at_full_recall(labels, [5.0, 4.0, 2.0, 2.0, 1.0]) == 2
    assert metrics.false_positives_at_full_recall([GOOD], [1.0]) is None


# Intervals


def test_clopper_pearson_gives_textbook_values():
    assert metrics.clopper_pearson(0, 10) == pytest.approx([0.0, 0.3085], abs=1e-4)
    assert metrics.clopper_pearson(5, 10) == pytest.approx([0.1871, 0.8129], abs=1e-4)
    assert metrics.clopper_pearson(10, 10)[1] == 1.0
    assert metrics.clopper_pearson(0, 0) is None


def test_weighted_average_precision_is_scikit_learns():
    generator = np.random.default_rng(1)
    labels = generator.random(30) < 0.3
    scores = generator.normal(labels, 1.0).round(1)
    weights = generator.integers(0, 4, (8, 30))
    ours = metrics._weighted_average_precision(labels, scores, weights)
    theirs = [average_precision_score(labels, scores, sample_weight=row) for row in weights]
    assert ours == pytest.approx(theirs)


def test_bootstrap_surrounds_the_average_precision_and_repeats():
    rows = make_rows(separation=0.8)
    labels, scores, items = zip(*((r.is_defective, r.score, r.item) for r in rows), strict=True)
    low, high = metrics.bootstrap_average_precision(labels, scores, items, seed=3)
    assert 0 < low < metrics.average_precision(labels, scores) < high <= 1
    assert metrics.bootstrap_average_precision(labels, scores, items, seed=3) == (low, high)
    assert metrics.bootstrap_average_precision(labels, scores, items, seed=4) != (low, high)


def test_bootstrap_draws_items_not_images():
    # Eight copies of each surface in one item add nothing: the interval stays as wide.
    generator = np.random.default_rng(2)
    labels = generator.random(40) < 0.4
    scores = generator.normal(labels, 1.0)
    items = [str(index) for index in range(40)]
    once = metrics.bootstrap_average_precision(labels, scores, items)
    copies = metrics.bootstrap_average_precision(
        np.repeat(labels, 8), np.repeat(scores, 8), np.repeat(items, 8)
    )
    assert copies == pytest.approx(once)


def test_bootstrap_is_silent_on_perfect_separation_and_on_a_single_item():
    assert metrics.bootstrap_average_precision([GOOD, BAD], [0.0, 1.0], ["a", "b"]) is None
    assert metrics.bootstrap_average_precision([GOOD, BAD], [1.0, 0.0], ["a", "a"]) is None


# What a threshold costs, counted on the stored scores


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
    assert dear_misses.misses == 0
    assert (dear_misses.shift, dear_misses.false_alarms) == (-1.25, 2)
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
    point = threshold_costs.cheapest(good, Costs())
    assert (point.defective, point.misses, point.false_alarms, point.cost(Costs())) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_tied", [True, False])
def test_errors_and_the_cheapest_point_are_those_of_every_single_shift(seed: int, is_tied: bool):
    random = np.random.default_rng(seed)
    scores = random.normal(size=40) * 3
    scores = scores.round() / 2 if is_tied else scores
    rows = [row(f"a/{n}", 0, random.random() < 0.3, s, 0.7) for n, s in enumerate(scores.tolist())]
    places = np.sort([*threshold_costs.shifts(rows), *random.normal(size=20), *scores - 0.7])
    points = [threshold_costs.at(rows, place) for place in places]
    misses, alarms = threshold_costs.errors(rows, places)
    assert misses.tolist() == [point.misses for point in points]
    assert alarms.tolist() == [point.false_alarms for point in points]
    costs = Costs(*random.uniform(0, 9, 2), random.random())
    least = min(point.cost(costs) for point in points)
    assert threshold_costs.cheapest(rows, costs).cost(costs) == least


@pytest.mark.parametrize(("misses", "needed"), [(0, 299), (1, 473), (2, 628)])
def test_the_parts_needed_to_claim_one_percent(misses: int, needed: int):
    """299 is ln 0.05 / ln 0.99, rounded up; the others are of the same exact test."""
    assert metrics.parts_needed(0.01, misses) == needed
    assert metrics.parts_needed(0.05) == 59
