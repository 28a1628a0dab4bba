"""Numbers over pixels are those that a plain count of the pixels gives."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score
from small_results import make_rows, train_items

from ksdd_lib import storage
from ksdd_lib.data.kolektorsdd import annotators_iou
from ksdd_lib.evaluation import pixels
from ksdd_lib.evaluation.summary import AllPixelScores, Summary, conclude


def surface(seed, shape=(64, 48), defect=True, factor=1):
    """A map of probabilities on the steps, and an annotation that it resembles."""
    random = np.random.default_rng(seed)
    wanted = np.zeros(shape, bool)
    if defect:
        top, left = random.integers(0, 40, 2)
        wanted[top : top + 9, left : left + 20] = True
    values = random.integers(0, 700, shape) + 300 * wanted
    share = (values / 1024).astype(np.float32)[::factor, ::factor]
    return share, wanted


def test_every_pixel_is_counted_once_by_its_kind():
    share, wanted = surface(0)
    counts = pixels.count(share, wanted)
    assert counts.shape == (2, 1025) and counts.sum() == wanted.size
    assert counts[1].sum() == wanted.sum()
    for step in (0, 1, 500, 999, 1024):
        assert counts[:, step].sum() == (share == step / 1024).sum()


@pytest.mark.parametrize("value, step", [(0.0, 0), (1.0, 1024), (0.5, 512), (0.9999, 1023)])
@pytest.mark.parametrize("shape", [(8, 8), (100, 36)])
def test_the_ends_of_the_steps(value, step, shape):
    counts = pixels.count(np.full((8, 8), value, np.float32), np.ones(shape, bool))
    assert counts[1, step] == shape[0] * shape[1] == counts.sum()


@pytest.mark.fault(67)
@pytest.mark.parametrize("count", [1, 5])
def test_the_numbers_are_those_of_all_pixels_on_one_list(count):
    rows = [replace(row, fold=0) for row in make_rows(count)]
    shown = [surface(seed, defect=seed % 2 == 0) for seed in range(count)]
    counts = {row.image: pixels.count(*one) for row, one in zip(rows, shown, strict=True)}
    found = pixels.pixel_scores(rows, counts, {0: []})
    share, wanted = (np.concatenate([one[k].ravel() for one in shown]) for k in (0, 1))
    marked = share >= 0.5
    assert [fold.threshold for fold in found.folds] == [0.5]
    for one in (found.folds[0], found.pooled):
        assert one.ap_loc == pytest.approx(average_precision_score(wanted, share))
        assert one.iou == pytest.approx(jaccard_score(wanted, marked))
        assert one.dice == pytest.approx(f1_score(wanted, marked))
        each = [jaccard_score(w.ravel(), s.ravel() >= 0.5) for s, w in shown if w.any()]
        assert one.image_iou == pytest.approx(np.mean(each))


@pytest.mark.fault(67)
@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_has_the_best_dice(seed):
    share, wanted = surface(seed)
    threshold = pixels.best_threshold(pixels.count(share, wanted))
    best = max(f1_score(wanted.ravel(), share.ravel() >= k / 1024) for k in range(1, 1025))
    assert f1_score(wanted.ravel(), share.ravel() >= threshold) == pytest.approx(best)


@pytest.mark.parametrize("low, high, threshold", [(0.25, 0.75, 0.5), (0.0, 0.125, 0.0625)])
def test_of_equal_thresholds_it_is_the_middle_one(low, high, threshold):
    wanted = np.zeros((20, 20), bool)
    wanted[4:9, 3:17] = True
    share = np.where(wanted, high, low)
    assert pixels.best_threshold(pixels.count(share, wanted)) == pytest.approx(threshold, abs=2e-3)


def test_each_fold_is_marked_by_what_the_others_show():
    """Fold k's own maps take no part in its threshold."""
    rows = make_rows(24, 3)
    counts = {}
    for row in rows:
        wanted = np.zeros((32, 32), bool)
        wanted[8:12, 4:28] = row.is_defective
        high = (0.3, 0.5, 0.9)[row.fold]
        counts[row.image] = pixels.count(np.where(wanted, high, 0.1 * high), wanted)
    found = pixels.pixel_scores(rows, counts, train_items(rows))
    own = {fold.fold: fold.threshold for fold in found.folds}
    assert 0.09 < own[0] <= 0.5 and 0.09 < own[1] <= 0.3 and 0.05 < own[2] <= 0.3
    assert found.folds[2].iou == 1  # 0.9 is above it
    assert [fold.threshold_from.images for fold in found.folds] == [16, 16, 16]
    changed = {
        row.image: np.roll(counts[row.image], 40, axis=1) if row.fold == 1 else counts[row.image]
        for row in rows
    }
    again = pixels.pixel_scores(rows, changed, train_items(rows))
    assert again.folds[1].threshold == own[1] and again.folds[0].threshold != own[0]


@pytest.mark.fault(67)
def test_without_a_defect_nothing_is_defined():
    rows = make_rows(12, 3, with_defects=False)
    blank = np.zeros((16, 16), bool)
    counts = {row.image: pixels.count(np.full((2, 2), 0.7), blank) for row in rows}
    found = pixels.pixel_scores(rows, counts, train_items(rows))
    for one in (*found.folds, found.pooled):
        assert (one.ap_loc, one.iou, one.dice, one.image_iou) == (None,) * 4
    assert [(f.threshold, f.threshold_from.images) for f in found.folds] == [(0.5, 0)] * 3


def test_the_numbers_come_back_from_the_file_and_older_files_have_none(tmp_path):
    rows = make_rows()
    counts = {
        row.image: pixels.count(*surface(number, defect=row.is_defective, factor=8))
        for number, row in enumerate(rows)
    }
    _, summary = conclude(rows, "clean", 0, train_items(rows))
    found = pixels.pixel_scores(rows, counts, train_items(rows))
    storage.write_record(tmp_path / "old.json", summary)
    storage.write_record(tmp_path / "new.json", summary.model_copy(update={"pixel_scores": found}))
    old, new = (storage.read_record(tmp_path / f"{n}.json", Summary) for n in ("old", "new"))
    assert old.pixel_scores is None and new.pixel_scores == found
    assert isinstance(found, AllPixelScores) and 0 < found.pooled.iou < 1


def test_two_annotators_agree_as_the_twins_say():
    assert annotators_iou() == (0.4, 0.66)
