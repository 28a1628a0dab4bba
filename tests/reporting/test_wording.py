"""What results say in words is what their numbers say."""

from dataclasses import replace

from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import FoldScores, Intervals, PooledScores, Summary
from ksdd_lib.reporting import wording


def test_the_first_sentences_say_what_was_found_and_what_is_left_open():
    intervals = Intervals.model_construct(recall=(0.889, 0.999), false_positive_rate=(0.002, 0.027))
    pooled = PooledScores.model_construct(
        tp=47, fn=1, fp=3, tn=324, ap=0.99, recall=47 / 48, intervals=intervals
    )
    row = Prediction("a", "a", 0, 0, True, -1.0, 0.0, threshold=0.0, is_flagged=False)
    found, left_open, missed = wording.in_words(pooled, [row])
    assert found.startswith("47 of 48 defective surfaces were found, and 3 of 327 good ones")
    assert (
        "0 of 1 defective ones have a flagged surface. Every item here has a defect. A good "
        "surface was flagged on 0 of 1, about the share of good items that would be stopped."
    ) in found
    alarm = Prediction("a/2", "a", 0, 0, False, 1.0, 0.0, threshold=0.0, is_flagged=True)
    assert "was flagged on 1 of 1, about" in wording.in_words(pooled, [row, alarm])[0]
    assert found.endswith(
        "Here 13\xa0% of the surfaces are defective. If only 1 in 1,000 were, about 9 of 10 "
        "alarms would be false."
    )
    good = replace(row, image="b", item="b", is_defective=False, is_flagged=True)
    assert ", and so have 1 of 1 good ones." in wording.in_words(pooled, [row, good])[0]
    assert "up to 11.1\xa0% of the defects" in left_open
    assert "up to 2.7\xa0% of the good" in left_open
    assert (
        "fewer than 1\xa0% misses with 95\xa0% confidence (one-sided), 473 defective" in left_open
    )
    assert "in all, with only this one missed. The 48 tested here count towards them." in left_open
    assert "prove anything" not in left_open
    two, none = (pooled.model_copy(update={"fn": missed}) for missed in (2, 0))
    assert "with only these 2 missed." in wording.in_words(two, [row])[1]
    assert "with none of them missed." in wording.in_words(none, [row])[1]
    toy = pooled.model_copy(update={"tp": 2, "fn": 1, "ap": 1.0})
    _, left_open, ranked, _ = wording.in_words(toy, [row])
    assert left_open.startswith("Only 3 defective surfaces were tested, too few to prove anything.")
    assert ranked.startswith("All defects score above all good surfaces")
    assert missed == "Missed: a. They are shown first below."
    assert (
        "all of one kind" in wording.in_words(pooled.model_copy(update={"tp": 0, "fn": 0}), [])[0]
    )


def test_the_conclusion_stands_first_and_recommends_no_more_than_a_trial():
    intervals = Intervals.model_construct(recall=(0.8893, 0.999), false_positive_rate=(0.0, 0.1))
    pooled = PooledScores.model_construct(tp=47, fn=1, fp=3, tn=324, intervals=intervals)
    told = wording.conclusion(pooled, is_generated=False)
    assert told.startswith("In short: 47 of 48 defects were found, and 3 of 327 good surfaces were")
    assert "up to 11.1\xa0% may be missed" in told and "not to replace one" in told
    assert "nothing about real parts" in wording.conclusion(pooled, is_generated=True)
    undefined = Intervals.model_construct(recall=None, false_positive_rate=(0.0, 0.1))
    of_one_kind = pooled.model_copy(update={"tp": 0, "fn": 0, "intervals": undefined})
    assert wording.conclusion(of_one_kind, is_generated=False) == ""


def test_errors_of_a_threshold_alone_are_called_so():
    """As on the official folds at 1056x384: nearly all misses came from one fold's threshold."""
    names = ("fold", "ap", "fp", "fn", "threshold")
    rows = [(0, 1.0, 2, 0, 1.33), (1, 1.0, 0, 5, 4.8), (2, 0.99, 1, 1, 0.69)]
    folds = [FoldScores.model_construct(**dict(zip(names, row, strict=True))) for row in rows]
    told = wording.unlucky_thresholds(Summary.model_construct(folds=folds))
    assert "In fold 0 all defects" in told and "its errors (2 FP, 0 FN) come from" in told
    assert "(0 FP, 5 FN) come from its threshold alone, 4.80" in told and "In fold 2" not in told
    assert told.endswith(
        "The folds' thresholds are 1.33, 4.80, 0.69. With few defects, a threshold is uncertain."
    )
    assert wording.unlucky_thresholds(Summary.model_construct(folds=folds[2:])) == ""
    lucky = [folds[0].model_copy(update={"fp": 0}), folds[2]]
    assert wording.unlucky_thresholds(Summary.model_construct(folds=lucky)) == ""


def test_what_precision_means_where_defects_are_rare():
    """1 alarm in 100 good surfaces, half of the defects found: 9.99 false for each 0.5 found."""
    pooled = PooledScores.model_construct(recall=0.5, fp=1, tn=99)
    assert abs(wording.false_share(pooled, 0.001) - 9.99 / (9.99 + 0.5)) < 1e-12
    assert wording.false_share(pooled.model_copy(update={"fp": 0, "tn": 100}), 0.001) == 0
    assert wording.false_share(pooled.model_copy(update={"recall": None}), 0.001) is None
    none = PooledScores.model_construct(recall=0.0, fp=0, tn=9)
    assert wording.false_share(none, 0.001) is None
