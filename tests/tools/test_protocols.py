"""The same scores under each protocol."""

import pytest
from protocols import by_fold, pooled, repetitions, without_doubtful, without_leaks

from ksdd_lib.data.kolektorsdd import TwinSurfaces
from ksdd_lib.evaluation.predictions import Prediction


def row(image: str, fold: int, is_defective: bool, score: float, threshold: float) -> Prediction:
    item = image.split("/")[0]
    flagged = score > threshold
    return Prediction(image, item, fold, 0, is_defective, score, score, threshold, flagged)


ROWS = [  # fold 1's scores lie 10 higher than fold 0's; each alone is separated perfectly
    row("a/0", 0, True, 2.0, 1.0),
    row("a/1", 0, False, 0.0, 1.0),
    row("b/0", 0, False, 1.5, 1.0),
    row("c/0", 1, True, 12.0, 13.0),
    row("c/1", 1, False, 10.0, 13.0),
]


def test_folds_on_their_own_forgive_a_shift_and_pooled_ones_do_not():
    alone, together = by_fold(ROWS), pooled(ROWS)
    assert (alone.ap, alone.oracle, alone.fp_at_fn0) == (1.0, (0, 0), 0)
    assert together.ap == pytest.approx((1 + 2 / 3) / 2)
    assert together.oracle == (1, 0) and together.fp_at_fn0 == 1


def test_operating_errors_are_the_stored_verdicts_in_both():
    assert pooled(ROWS).operating == by_fold(ROWS).operating == (1, 1)
    assert (pooled(ROWS).images, by_fold(ROWS).defective) == (5, 2)


def test_images_whose_twin_was_trained_on_are_left_out():
    train = {0: ["c", "x"], 1: ["a", "b"]}
    kept = without_leaks(ROWS, train, [("a", "x"), ("c", "y", "z")])
    assert [one.image for one in kept] == ["b/0", "c/0", "c/1"]


def test_a_twin_tested_in_the_same_fold_is_no_leak():
    assert without_leaks(ROWS, {0: ["c"], 1: ["d"]}, [("a", "b")]) == ROWS


def test_a_part_that_was_itself_trained_on_is_not_its_own_twin():
    assert len(without_leaks(ROWS, {0: ["a"], 1: ["d"]}, [("a", "q")])) == 5


def test_two_doubtful_surfaces_of_kolektorsdd_are_left_out():
    doubtful = [row("kos19/Part2", 0, False, 0.0, 1.0), row("kos46/Part6", 1, False, 0.0, 1.0)]
    assert without_doubtful([*doubtful, *ROWS]) == ROWS


def test_one_part_judged_twice_tells_how_far_scores_move():
    pairs = [
        TwinSurfaces(surfaces=("a/0", "c/0"), correlation=0.9, mask_iou=0.5),
        TwinSurfaces(surfaces=("a/1", "c/1"), correlation=0.9, mask_iou=None),
        TwinSurfaces(surfaces=("b/0", "c/1"), correlation=0.9, mask_iou=None),
    ]
    first, second = repetitions(ROWS, pairs)
    assert (first.items, second.items) == (("a", "c"), ("b", "c"))
    assert first.differences == (10.0, 10.0) and second.differences == (8.5,)
    assert (first.disagreements, second.disagreements) == (1, 1)
    assert first.mask_ious == (0.5,) and second.mask_ious == ()
