"""A fold is judged by a threshold that its own test scores have no part in."""

from dataclasses import replace

import pytest
from small_results import make_rows, train_items

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.evaluation.thresholds import (
    FoldThreshold,
    Size,
    apply_thresholds,
    operating_thresholds,
)


def test_a_folds_threshold_ignores_its_own_test_scores():
    rows = make_rows()
    items = train_items(rows)
    before = operating_thresholds(rows, items)
    moved = [replace(row, score=row.score + 100) if row.fold == 1 else row for row in rows]
    after = operating_thresholds(moved, items)
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_a_folds_threshold_comes_from_its_training_items_only():
    rows = make_rows()
    items = train_items(rows)
    others = [row for row in rows if row.fold != 0 and row.item != "gen01"]
    items[0].remove("gen01")
    threshold = operating_thresholds(rows, items)[0]
    assert threshold.threshold_from.images == len(others) == 36
    assert threshold.threshold == metrics.best_f1_threshold(
        [row.is_defective for row in others], [row.score for row in others]
    )


def test_a_single_fold_is_judged_at_even_odds_and_says_so():
    rows = [row for row in make_rows() if row.fold == 0]
    items = train_items(make_rows())
    threshold = operating_thresholds(rows, items)[0]
    assert (threshold.threshold, threshold.threshold_from.images) == (0.0, 0)
    _, summary = conclude(rows, "clean", 0, items)
    assert "a logit of 0.0" in summary.threshold_rule
    assert "single fold" in summary.threshold_rule
    assert summary.folds_trained == [0]


def test_two_of_three_folds_use_the_training_items_that_have_a_score():
    rows = [row for row in make_rows() if row.fold != 2]
    thresholds = operating_thresholds(rows, train_items(make_rows()))
    assert [one.fold for one in thresholds] == [0, 1]
    assert thresholds[0].threshold_from.images == sum(row.fold == 1 for row in rows)


def test_out_of_fold_scores_without_defects_give_even_odds():
    rows = [row for row in make_rows() if row.fold == 0 or not row.is_defective]
    items = train_items(rows)
    assert operating_thresholds(rows, items)[0].threshold == 0.0
    _, summary = conclude(rows, "clean", 0, items)
    assert "in fold 0" in summary.threshold_rule


def test_a_test_item_among_the_training_items_is_refused():
    rows = make_rows()
    items = train_items(rows)
    items[0].add("gen00")
    with pytest.raises(RunError, match="Fold 0 tests gen00, which it was trained on"):
        operating_thresholds(rows, items)


def test_a_score_at_the_threshold_is_not_flagged():
    row = replace(make_rows()[0], score=1.5)
    for threshold, is_flagged in ((1.5, False), (1.4, True)):
        origin = Size(images=4, defective=2)
        one = FoldThreshold(fold=0, threshold=threshold, threshold_from=origin)
        assert apply_thresholds([row], [one])[0].is_flagged is is_flagged
