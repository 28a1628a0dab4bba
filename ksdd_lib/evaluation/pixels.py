"""How well maps show where a defect is: numbers over pixels, and the threshold that marks them.

Every picture counts at its own size, with the probabilities that `judge` would give for it. They
are sorted into 1,024 steps, so that all pixels of a data set fit into memory as counts.
"""

from collections.abc import Collection, Mapping, Sequence

import cv2
import numpy as np

from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import AllPixelScores, FoldPixelScores, PixelScores
from ksdd_lib.evaluation.thresholds import FoldThreshold, operating_thresholds

STEPS = 1024
EVEN = 0.5
"""The threshold where no map is there to choose one by."""

RULE = (
    "best Dice over the pixels of out-of-fold maps of the fold's own training items; "
    f"{EVEN}, fixed in advance, where these show no defect"
)


def at_full_size(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map's probabilities (h, w) at the size (H, W) of its picture, float32."""
    return cv2.resize(probability.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)


def count(probability: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    """How many pixels lie in each step: (2, STEPS + 1), of good and of annotated ones.

    The probabilities (h, w) are of a picture with this annotation, bool (H, W). The last step is
    that of probability 1.
    """
    full, ends = at_full_size(probability, annotation.shape), [0, 1 + 1 / STEPS]
    kinds = [(annotation == kind).astype(np.uint8) for kind in (False, True)]
    counts = [cv2.calcHist([full], [0], kind, [STEPS + 1], ends).ravel() for kind in kinds]
    return np.stack(counts).astype(np.int64)


def best_threshold(counts: np.ndarray) -> float | None:
    """The probability from which pixels are to be marked for the best Dice; None without a defect.

    Of thresholds that are equally good it is the one in the middle.
    """
    good, annotated = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # that are marked, from each step on
    if not annotated[0]:
        return None
    dice = 2 * annotated[1:] / (good[1:] + annotated[1:] + annotated[0])
    best = np.flatnonzero(dice == dice.max()) + 1
    return float(best[len(best) // 2] / STEPS)


def pixel_scores(
    rows: Sequence[Prediction],
    counts: Mapping[str, np.ndarray],
    train_items: Mapping[int, Collection[str]],
    knows_defects: bool = True,
    held: Sequence[Prediction] = (),
) -> AllPixelScores:
    """The numbers over the pixels of all rows, each fold marked as of `mask_thresholds`."""
    thresholds = mask_thresholds([*rows, *held], counts, train_items, knows_defects)
    values = {one.fold: one.threshold for one in thresholds}
    folds = [
        FoldPixelScores(
            **dict(one), **dict(_scores([r for r in rows if r.fold == one.fold], counts, values))
        )
        for one in thresholds
    ]
    return AllPixelScores(threshold_rule=RULE, folds=folds, pooled=_scores(rows, counts, values))


def mask_thresholds(
    rows: Sequence[Prediction],
    counts: Mapping[str, np.ndarray],
    train_items: Mapping[int, Collection[str]],
    knows_defects: bool,
) -> list[FoldThreshold]:
    """Each fold's threshold from the rows that its operating threshold is taken from, whose counts
    go by image; a fixed one where no defect may be known."""
    zero = np.zeros((2, STEPS + 1), np.int64)

    def best(used: Sequence[Prediction]) -> float | None:
        total = sum([counts[row.image] for row in used], zero)
        return best_threshold(total) if knows_defects else None

    return operating_thresholds(rows, train_items, best, EVEN)


def _scores(
    rows: Sequence[Prediction], counts: Mapping[str, np.ndarray], thresholds: Mapping[int, float]
) -> PixelScores:
    """The numbers over the pixels of some rows, each marked at its fold's threshold."""
    from sklearn.metrics import average_precision_score

    total = np.sum([counts[row.image] for row in rows], axis=0)
    if not total[1].any():
        return PixelScores(ap_loc=None, iou=None, dice=None, image_iou=None)
    marked, annotated = [], []
    for row in rows:
        first = round(STEPS * thresholds[row.fold])
        marked.append(counts[row.image][:, first:].sum(axis=1))
        annotated.append(counts[row.image][1].sum())
    false, true = np.array(marked).T
    union = np.array(annotated) + false
    steps, kinds = np.arange(STEPS + 1), np.repeat([0, 1], STEPS + 1)
    ap = average_precision_score(kinds, np.tile(steps, 2), sample_weight=total.ravel())
    shared, all_of_them = true.sum(), union.sum()
    has_defect = np.array(annotated) > 0
    return PixelScores(
        ap_loc=float(ap),
        iou=float(shared / all_of_them),
        dice=float(2 * shared / (shared + all_of_them)),
        image_iou=float((true[has_defect] / union[has_defect]).mean()),
    )
