"""metrics.json says what the rows of predictions.csv say, and keeps its form."""

from dataclasses import replace

import pytest
from small_results import make_rows, train_items

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.results import require_true
from ksdd_lib.evaluation.summary import (
    AllClassScores,
    AllPixelScores,
    MadeFrom,
    PixelScores,
    Ranking,
    Summary,
    Taught,
    conclude,
)
from ksdd_lib.evaluation.thresholds import (
    FalseAlarms,
    FoldThreshold,
    Size,
    apply_thresholds,
    operating_thresholds,
)

COUNTS = ["tp", "fp", "fn", "tn", "accuracy", "precision", "recall", "f1"]
SCORES = ["images", "defective", "ap", "auc", *COUNTS, "oracle", "intervals"]
LATER = ["darkest_pixel", "made_from", "masks_sha256", "trained_defects", "pixel_scores"]
LATER += ["class_scores", "false_alarms", "taught", "learned_nothing"]
PIXELS = PixelScores(ap_loc=0.5, iou=0.4, dice=0.6, image_iou=None)


@pytest.fixture
def summary():
    rows = make_rows()
    items = train_items(rows)
    return conclude(rows, "clean", 0, items)[1]


def test_the_file_has_the_agreed_names_in_their_order(summary, tmp_path):
    storage.write_record(tmp_path / "metrics.json", summary)
    stored = storage.read_json(tmp_path / "metrics.json")
    assert list(stored) == [
        name for name in Summary.model_fields if name not in (*LATER, "held_sha256")
    ]
    assert list(stored["pooled"]) == [*SCORES, "items"]
    assert list(stored["folds"][1]) == ["fold", "threshold", "threshold_from", *SCORES]
    assert list(stored["folds"][1]["threshold_from"]) == ["images", "defective"]
    assert list(stored["pooled"]["oracle"]) == ["threshold", *COUNTS, "fp_at_fn0"]
    of_map = stored["segmentation_score"]
    assert list(of_map) == ["folds", "fold_mean", "pooled"]
    assert list(of_map["folds"][0]) == ["fold", "ap", "auc", "oracle"]
    assert list(of_map["pooled"]) == ["ap", "auc", "oracle"]


def test_the_file_gives_back_the_same_summary_with_and_without_what_was_added_later(
    summary, tmp_path
):
    path = tmp_path / "metrics.json"
    whole = summary.model_copy(
        update={
            "darkest_pixel": Ranking(ap=None, auc=0.5),
            "made_from": MadeFrom(data="f", settings={"seed": 1}, weights={"0": "a"}),
            "masks_sha256": "b",
            "trained_defects": {"0": ["a/1"]},
            "pixel_scores": AllPixelScores(threshold_rule="r", folds=[], pooled=PIXELS),
            "class_scores": AllClassScores(threshold_rule="r", classes=[], confusion={}),
            "false_alarms": [FalseAlarms(fold=0, wanted=0.1, parts=6, flagged=0, below=0.4)],
            "taught": Taught(masks=1, labels=2),
            "learned_nothing": ("decision stage of fold 0",),
        }
    )
    for one, names in ((summary, []), (whole, LATER)):
        storage.write_record(path, one)
        assert storage.read_record(path, Summary) == one
        assert [name for name in storage.read_json(path) if name in LATER] == names
    assert storage.read_json(path)["darkest_pixel"] == {"ap": None, "auc": 0.5}


def test_pooled_counts_are_the_sums_over_folds(summary):
    for name in ("images", "defective", "tp", "fp", "fn", "tn"):
        assert getattr(summary.pooled, name) == sum(getattr(fold, name) for fold in summary.folds)


@pytest.mark.fault(14)
def test_a_fold_without_defects_is_left_out_of_the_mean():
    rows = [row for row in make_rows() if row.fold != 2 or not row.is_defective]
    items = train_items(rows)
    _, summary = conclude(rows, "clean", 0, items)
    assert summary.folds[2].ap is None
    assert summary.folds[2].oracle.fp is None
    assert summary.fold_mean.ap_folds == 2
    first, second, _ = (fold.ap for fold in summary.folds)
    assert summary.fold_mean.ap == pytest.approx((first + second) / 2)


def test_perfect_separation_has_ap_one_without_an_interval():
    rows = make_rows(separation=50.0)
    items = train_items(rows)
    pooled = conclude(rows, "clean", 0, items)[1].pooled
    assert pooled.ap == pytest.approx(1)
    assert (pooled.fp, pooled.fn, pooled.oracle.fp_at_fn0) == (0, 0, 0)
    assert pooled.intervals.ap is None
    assert pooled.intervals.recall[0] < 1


def test_the_map_s_score_is_summarised_beside_the_score():
    rows = [replace(row, map_score=-row.score) for row in make_rows(separation=50.0)]
    items = train_items(rows)
    _, summary = conclude(rows, "clean", 0, items)
    assert summary.pooled.auc == 1
    assert summary.segmentation_score.pooled.auc == 0


@pytest.mark.fault(32)
def test_edited_or_mixed_rows_are_refused():
    items = train_items(make_rows())
    rows, summary = conclude(make_rows(), "clean", 0, items)
    require_true(summary, rows, items)
    edited = [replace(rows[0], is_flagged=not rows[0].is_flagged), *rows[1:]]
    with pytest.raises(RunError, match="does not follow from the scores"):
        require_true(summary, edited, items)
    with pytest.raises(RunError, match="gen00/Part0 is predicted twice"):
        conclude([*rows, rows[0]], "clean", 0, items)
    with pytest.raises(RunError, match="seed 1 are mixed into a run of seed 0"):
        conclude([replace(rows[0], seed=1), *rows[1:]], "clean", 0, items)
    with pytest.raises(RunError, match="no predictions"):
        conclude([], "clean", 0, items)


# A fold is judged by a threshold that its own test scores have no part in


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
