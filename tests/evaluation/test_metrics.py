"""Numbers are what the literature means by them; undefined stays undefined; files round-trip."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.predictions import (
    COLUMNS,
    Prediction,
    every_score,
    failures_first,
    read_predictions,
    write_predictions,
)
from ksdd_lib.evaluation.summary import summarize
from ksdd_lib.evaluation.thresholds import (
    OperatingThreshold,
    apply_thresholds,
    operating_thresholds,
)
from ksdd_lib.storage import sha256

GOOD, BAD = False, True


def make_rows(count=60, folds=3, seed=0, separation=2.0):
    """Rows of `count` surfaces, 4 an item, every fourth item's last one defective."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        item = index // 4
        is_defective = index % 4 == 3
        score = float(generator.normal(separation if is_defective else -separation, 1.5))
        rows.append(
            Prediction(
                image=f"gen{item:02}/Part{index % 4}",
                item=f"gen{item:02}",
                fold=item % folds,
                seed=seed,
                is_defective=is_defective,
                score=score,
                map_score=score + float(generator.normal()),
            )
        )
    return rows


def train_items(rows, folds=3):
    return {k: {row.item for row in rows if row.fold != k} for k in range(folds)}


def judged(rows, items):
    return apply_thresholds(rows, operating_thresholds(rows, items))


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
    assert (counts["tp"], counts["fp"], counts["fn"], counts["tn"]) == (2, 1, 1, 1)
    assert counts["accuracy"] == 0.6
    assert counts["precision"] == counts["recall"] == counts["f1"] == pytest.approx(2 / 3)


def test_rates_without_a_denominator_are_undefined():
    nothing_flagged = metrics.error_counts([BAD, GOOD], [False, False])
    assert nothing_flagged["precision"] is None
    assert nothing_flagged["f1"] == 0.0
    no_defects = metrics.error_counts([GOOD], [False])
    assert no_defects["recall"] is None and no_defects["f1"] is None
    assert metrics.error_counts([], [])["accuracy"] is None


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
    assert metrics.bootstrap_average_precision(labels, scores, items, seed=3) == [low, high]
    assert metrics.bootstrap_average_precision(labels, scores, items, seed=4) != [low, high]


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


# The operating threshold


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
    assert threshold.images == len(others) == 36
    assert threshold.value == metrics.best_f1_threshold(
        [row.is_defective for row in others], [row.score for row in others]
    )


def test_a_single_fold_is_judged_at_even_odds_and_says_so():
    rows = [row for row in make_rows() if row.fold == 0]
    items = train_items(make_rows())
    threshold = operating_thresholds(rows, items)[0]
    assert (threshold.value, threshold.images) == (0.0, 0)
    summary = summarize(judged(rows, items), "clean", 0, items)
    assert "a logit of 0.0" in summary["threshold_rule"]
    assert "single fold" in summary["threshold_rule"]
    assert summary["folds_trained"] == [0]


def test_two_of_three_folds_use_the_training_items_that_have_a_score():
    rows = [row for row in make_rows() if row.fold != 2]
    thresholds = operating_thresholds(rows, train_items(make_rows()))
    assert set(thresholds) == {0, 1}
    assert thresholds[0].images == sum(row.fold == 1 for row in rows)


def test_out_of_fold_scores_without_defects_give_even_odds():
    rows = [row for row in make_rows() if row.fold == 0 or not row.is_defective]
    items = train_items(rows)
    assert operating_thresholds(rows, items)[0].value == 0.0
    summary = summarize(judged(rows, items), "clean", 0, items)
    assert "in fold 0" in summary["threshold_rule"]


def test_a_test_item_among_the_training_items_is_refused():
    rows = make_rows()
    items = train_items(rows)
    items[0].add("gen00")
    with pytest.raises(RunError, match="Fold 0 tests gen00, which it was trained on"):
        operating_thresholds(rows, items)


def test_a_score_at_the_threshold_is_not_flagged():
    row = replace(make_rows()[0], score=1.5)
    at = {0: OperatingThreshold(1.5, 4, 2)}
    below = {0: OperatingThreshold(1.4, 4, 2)}
    assert apply_thresholds([row], at)[0].is_flagged is False
    assert apply_thresholds([row], below)[0].is_flagged is True


# The summary


def test_summary_has_the_agreed_names_and_is_json():
    rows = make_rows()
    items = train_items(rows)
    summary = summarize(judged(rows, items), "clean", 0, items)
    json.dumps(summary, allow_nan=False)
    assert {"protocol", "seed", "folds", "fold_mean", "pooled"} <= set(summary)
    block = {"images", "defective", "ap", "auc", "fp", "fn", "oracle", "intervals"}
    assert block <= set(summary["pooled"])
    for fold in summary["folds"]:
        assert block | {"fold", "threshold"} <= set(fold)
    assert {"threshold", "fp", "fn", "fp_at_fn0"} <= set(summary["pooled"]["oracle"])
    assert {"ap", "auc"} <= set(summary["fold_mean"])


def test_pooled_counts_are_the_sums_over_folds():
    rows = make_rows()
    items = train_items(rows)
    summary = summarize(judged(rows, items), "clean", 0, items)
    for name in ("images", "defective", "tp", "fp", "fn", "tn"):
        assert summary["pooled"][name] == sum(fold[name] for fold in summary["folds"])


@pytest.mark.fault(14)
def test_a_fold_without_defects_is_left_out_of_the_mean():
    rows = [row for row in make_rows() if row.fold != 2 or not row.is_defective]
    items = train_items(rows)
    summary = summarize(judged(rows, items), "clean", 0, items)
    assert summary["folds"][2]["ap"] is None
    assert summary["folds"][2]["oracle"]["fp"] is None
    assert summary["fold_mean"]["ap_folds"] == 2
    first, second, _ = (fold["ap"] for fold in summary["folds"])
    assert summary["fold_mean"]["ap"] == pytest.approx((first + second) / 2)


def test_perfect_separation_has_ap_one_without_an_interval():
    rows = make_rows(separation=50.0)
    items = train_items(rows)
    pooled = summarize(judged(rows, items), "clean", 0, items)["pooled"]
    assert pooled["ap"] == pytest.approx(1)
    assert (pooled["fp"], pooled["fn"], pooled["oracle"]["fp_at_fn0"]) == (0, 0, 0)
    assert pooled["intervals"]["ap"] is None
    assert pooled["intervals"]["recall"][0] < 1


def test_segmentation_score_is_summarised_beside_the_decision():
    rows = [replace(row, map_score=-row.score) for row in make_rows(separation=50.0)]
    items = train_items(rows)
    summary = summarize(judged(rows, items), "clean", 0, items)
    assert summary["pooled"]["auc"] == 1
    assert summary["segmentation_score"]["pooled"]["auc"] == 0


@pytest.mark.fault(32)
def test_edited_or_mixed_rows_are_refused():
    rows = make_rows()
    items = train_items(rows)
    rows = judged(rows, items)
    edited = [replace(rows[0], is_flagged=not rows[0].is_flagged), *rows[1:]]
    with pytest.raises(RunError, match="does not follow from the scores"):
        summarize(edited, "clean", 0, items)
    with pytest.raises(RunError, match="gen00/Part0 is predicted twice"):
        summarize([*rows, rows[0]], "clean", 0, items)
    with pytest.raises(RunError, match="seed 1 are mixed into a run of seed 0"):
        summarize([replace(rows[0], seed=1), *rows[1:]], "clean", 0, items)
    with pytest.raises(RunError, match="no predictions"):
        summarize([], "clean", 0, items)


# Files


def test_rows_round_trip_exactly_and_match_the_stored_hash(tmp_path):
    rows = make_rows()
    items = train_items(rows)
    rows = judged(rows, items)
    rows = [*rows[:-1], replace(rows[-1], map_score=-1e-300 / 3)]
    write_predictions(tmp_path / "predictions.csv", rows)
    assert read_predictions(tmp_path / "predictions.csv") == rows
    summary = summarize(rows, "clean", 0, items)
    assert summary["predictions_sha256"] == sha256(tmp_path / "predictions.csv")


def test_numbers_from_numpy_are_stored_as_plain_numbers(tmp_path):
    row = Prediction("a/b", "a", np.int64(1), np.int64(2), np.bool_(True), np.float32(0.1), 0.5)
    write_predictions(tmp_path / "predictions.csv", [row])
    (back,) = read_predictions(tmp_path / "predictions.csv")
    assert back == replace(row, score=float(np.float32(0.1)))
    assert type(back.is_defective) is bool and back.threshold is None


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-b", "@c", "'d", "''=e", 'a,"b"', "é ü/<img onerror=x>", "a\nb"]
)
@pytest.mark.fault(12)
def test_awkward_names_are_safe_in_a_spreadsheet_and_restored(tmp_path, name):
    row = replace(make_rows()[0], image=name, item=name)
    path = tmp_path / "predictions.csv"
    write_predictions(path, [row])
    with open(path, encoding="utf-8", newline="") as file:
        stored = list(csv.reader(file))[1][0]
    assert not stored.startswith(("=", "+", "-", "@"))
    assert read_predictions(path) == [row]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("image,score\na,1\n", "has the columns"),
        (",".join(COLUMNS) + "\na,a,0,0,yes,1.0,1.0,,\n", "row 2: expected 0 or 1"),
        (",".join(COLUMNS) + "\na,a,0,0,1,nan,1.0,,\n", "diverged"),
        (",".join(COLUMNS) + "\na,a,0\n", "row 2"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_predictions(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="evaluate the trained model first"):
        read_predictions(tmp_path / "predictions.csv")


@pytest.mark.parametrize(("kind", "score"), [("decision", 2.0), ("both", 0.5), ("mask", -1.5)])
def test_the_stored_scores_tell_what_each_kind_would_have_been(kind, score):
    rows = [Prediction("a/1", "a", 0, 0, True, score, -1.5)]
    found = every_score(rows, kind, "cross_entropy")
    expected = {"decision": [2.0], "mask": [-1.5], "both": [0.5]}
    assert found == (expected if kind != "mask" else {"mask": [-1.5]})


def test_a_mask_without_logits_is_never_added_to_the_decision():
    rows = [Prediction("a/1", "a", 0, 0, True, 2.0, 0.9)]
    found = every_score(rows, "decision", "mean_squared_error")
    assert found == {"decision": [2.0], "mask": [0.9]}


def surface(image: str, defective: bool, score: float) -> Prediction:
    """A row of predictions.csv, judged at a threshold of 0."""
    item = image.partition("/")[0]
    return Prediction(image, item, 0, 0, defective, score, score, 0.0, score > 0)


def test_failures_come_first_each_kind_by_how_bad_it_is():
    rows = [
        surface("a/hit", True, 3.0),
        surface("a/close hit", True, 0.5),
        surface("a/passed", False, -2.0),
        surface("a/alarm", False, 1.0),
        surface("a/loud alarm", False, 5.0),
        surface("a/miss", True, -1.0),
        surface("a/bad miss", True, -4.0),
    ]
    order = [row.image.removeprefix("a/") for row in failures_first(rows)]
    assert order == ["bad miss", "miss", "loud alarm", "alarm", "close hit", "hit"]
