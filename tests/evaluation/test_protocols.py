"""The same scores under each protocol."""

import pytest

from ksdd_lib.data.dataset import find_samples, read_image, read_mask
from ksdd_lib.data.duplicates import aligned_correlation
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.protocols import (
    by_fold,
    kolektor_twins,
    pooled,
    repetitions,
    without_leaks,
)


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


def test_one_part_judged_twice_tells_how_far_scores_move():
    pairs = [
        {"surfaces": ["a/0", "c/0"], "mask_iou": 0.5},
        {"surfaces": ["a/1", "c/1"], "mask_iou": None},
        {"surfaces": ["b/0", "c/1"], "mask_iou": None},
    ]
    first, second = repetitions(ROWS, pairs)
    assert (first.items, second.items) == (("a", "c"), ("b", "c"))
    assert first.differences == (10.0, 10.0) and second.differences == (8.5,)
    assert (first.disagreements, second.disagreements) == (1, 1)
    assert first.mask_ious == (0.5,) and second.mask_ious == ()


def test_kolektorsdd_holds_24_surfaces_twice_and_four_of_them_are_defective():
    pairs = kolektor_twins()
    names = [name for pair in pairs for name in pair["surfaces"]]
    assert len(pairs) == 24 and len(set(names)) == 48
    items = {tuple(name.split("/")[0] for name in pair["surfaces"]) for pair in pairs}
    assert items == {("kos01", "kos26"), ("kos27", "kos34"), ("kos38", "kos39")}
    assert sum(pair["mask_iou"] is not None for pair in pairs) == 4


@pytest.mark.slow
def test_the_stored_pairs_are_those_of_the_photographs(kolektor_root):
    samples = {sample.name: sample for sample in find_samples(kolektor_root)}
    for items in (("kos01", "kos26"), ("kos27", "kos34"), ("kos38", "kos39")):
        parts = [[s for s in samples.values() if s.item == item] for item in items]
        images = [read_image(sample) for part in parts for sample in part]
        alike = aligned_correlation(images)[: len(parts[0]), len(parts[0]) :]
        found = {parts[0][i].name: parts[1][j].name for i, j in enumerate(alike.argmax(1))}
        stored = [pair for pair in kolektor_twins() if pair["surfaces"][0] in found]
        assert {tuple(pair["surfaces"]) for pair in stored} == set(found.items())
        assert sorted(pair["correlation"] for pair in stored) == pytest.approx(
            sorted(alike.max(1)), abs=0.01
        )
        if items[0] == "kos38":
            continue  # its masks are compared only after alignment to the pixel
        for pair in stored:
            one, other = (read_mask(samples[name]) for name in pair["surfaces"])
            union = (one | other).sum()
            iou = (one & other).sum() / union if union else None
            assert pair["mask_iou"] == (iou and pytest.approx(iou, abs=0.01))
