"""Thresholds by good surfaces alone, and what they promise."""

from dataclasses import replace

import numpy as np
import pytest

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.metrics import error_bound, good_parts_threshold
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.results import require_true
from ksdd_lib.evaluation.summary import MadeFrom, conclude
from ksdd_lib.evaluation.thresholds import BEST, operating_thresholds

SCORES = [5.0, 1.0, 3.0, 2.0, 4.0]  # the highest of parts a to e


@pytest.mark.parametrize(
    ("share", "threshold", "flagged"), [(0, 5, 0), (0.19, 5, 0), (0.2, 4.5, 1), (0.4, 3.5, 2)]
)
def test_the_threshold_counts_parts_not_surfaces(
    share: float, threshold: float, flagged: int
) -> None:
    scores = [*SCORES, -9, 0.5, 4.9, 4.8]  # part a has three photographs
    items = [*"abcde", *"bbaa"]
    assert good_parts_threshold(scores, items, share) == (threshold, 5, flagged)


def test_parts_of_one_score_are_not_parted() -> None:
    assert good_parts_threshold([2.0, 2.0, 1.0], ["a", "b", "c"], 1 / 3) == (2.0, 3, 0)


@pytest.mark.fault(75)
@pytest.mark.parametrize(("parts", "share"), [(31, 0.05), (31, 0.0), (12, 0.1), (100, 0.02)])
def test_the_promise_holds_in_at_least_95_of_100_draws(parts: int, share: float) -> None:
    """The true share of flagged parts is known: scores are drawn evenly from 0 to 1."""
    random, held, draws = np.random.default_rng(parts), 0, 4000
    items = [str(number) for number in range(parts)]
    for _ in range(draws):
        threshold, _, flagged = good_parts_threshold(random.random(parts), items, share)
        held += 1 - threshold <= error_bound(flagged, parts)
    assert held / draws > 0.94
    assert held / draws < 0.99 or share == 0.0  # and it is no wider than need be


@pytest.mark.fault(85)
@pytest.mark.parametrize("kind", [False, True], ids=["good", "defective"])
@pytest.mark.parametrize("move", [-40.0, 40.0])
def test_one_surface_does_not_move_a_threshold_between_medians(kind: bool, move: float) -> None:
    """However far it goes."""
    before = rows()
    changed = next(row for row in before if row.is_defective == kind)
    after = [replace(row, score=row.score + move) if row == changed else row for row in before]
    best = BEST["medians"]
    found = [operating_thresholds(each, TRAIN, best) for each in (before, after)]
    moved = [abs(one.threshold - other.threshold) for one, other in zip(*found, strict=True)]
    assert max(moved) < 0.5


@pytest.mark.fault(85)
@pytest.mark.parametrize("rule", BEST)
def test_results_are_true_by_the_rule_that_they_were_made_with_alone(rule: str) -> None:
    judged, summary = conclude(rows(), "clean", 0, TRAIN, rule=rule)
    made = MadeFrom(data="f", settings={"threshold": rule}, weights={})
    require_true(summary.model_copy(update={"made_from": made}), judged, TRAIN)
    old = MadeFrom(data="f", settings={}, weights={})  # of a version without the choice
    for other in {"medians", "best_f1", "zero"} - {rule}:
        told = MadeFrom(data="f", settings={"threshold": other}, weights={})
        with pytest.raises(RunError, match="threshold or verdict does not follow"):
            require_true(summary.model_copy(update={"made_from": told}), judged, TRAIN)
    if rule == "best_f1":
        require_true(summary.model_copy(update={"made_from": old}), judged, TRAIN)
    words = {"medians": "halfway between the medians", "best_f1": "best F1", "zero": "logit of 0.0"}
    assert words[rule] in summary.threshold_rule


@pytest.mark.fault(85)
@pytest.mark.parametrize("rule", BEST)
@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_alone_says_that_no_score_has_chosen_its_threshold(rule: str, fold: int) -> None:
    alone = [row for row in rows() if row.fold == fold]
    _, summary = conclude(alone, "clean", 0, TRAIN, rule=rule)
    assert [one.threshold for one in summary.folds] == [0.0]
    assert "fixed in advance" in summary.threshold_rule
    assert "no score has chosen it" in summary.threshold_rule


def rows(shift: float = 0.0) -> list[Prediction]:
    """Two folds of six parts, a good and a defective surface each."""
    found, random = [], np.random.default_rng(1)
    for number in range(12):
        for is_defective in (False, True):
            score = float(random.normal(3 * is_defective)) + shift * is_defective
            name, fold = f"part{number}", number % 2
            found.append(
                Prediction(f"{name}/{is_defective}", name, fold, 0, is_defective, score, score)
            )
    return found


TRAIN = {fold: {f"part{n}" for n in range(12) if n % 2 != fold} for fold in (0, 1)}


@pytest.mark.fault(75)
def test_no_score_of_a_defect_moves_such_a_threshold() -> None:
    judged, summary = conclude(rows(), "clean", 0, TRAIN, false_alarms=0.2)
    _, moved = conclude(rows(shift=-2.0), "clean", 0, TRAIN, false_alarms=0.2)
    thresholds = [fold.threshold for fold in summary.folds]
    assert thresholds == [fold.threshold for fold in moved.folds]
    assert thresholds != [f.threshold for f in conclude(rows(), "clean", 0, TRAIN)[1].folds]
    assert summary.false_alarms is not None and "no defect was used" in summary.threshold_rule
    for fold, promise in zip(summary.folds, summary.false_alarms, strict=True):
        assert (promise.parts, promise.flagged, promise.wanted) == (6, 1, 0.2)
        assert promise.below == pytest.approx(0.582, abs=1e-3)  # exact upper bound for 1 of 6
        assert (fold.threshold_from.images, fold.threshold_from.defective) == (6, 0)
    require_true(summary, judged, TRAIN)


def test_a_data_set_of_good_surfaces_alone_is_summed_up() -> None:
    good = [row for row in rows() if not row.is_defective]
    judged, summary = conclude(good, "clean", 0, TRAIN, false_alarms=0.2)
    assert summary.pooled.ap is None and summary.pooled.recall is None
    assert summary.pooled.fp + summary.pooled.tn == len(good) == len(judged)


def test_a_single_fold_has_no_such_threshold() -> None:
    one = [replace(row, fold=0) for row in rows() if row.fold == 0]
    _, summary = conclude(one, "clean", 0, TRAIN, false_alarms=0.2)
    assert summary.folds[0].threshold == 0 and "fixed in advance" in summary.threshold_rule
