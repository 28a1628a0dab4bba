"""Numbers from scores: pure functions of arrays.

Labels are bool (N,), True for defective. Scores are raw logits (N,), higher for more suspicious.
Items are the names (N,) of the physical parts. A surface is flagged when its score is strictly
greater than the threshold. A number that the data do not define, for want of defective or of good
surfaces, is None, never 0 or 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ksdd_lib.errors import RunError
from ksdd_lib.storage import Record

CONFIDENCE = 0.95
RESAMPLES = 2000

Interval = tuple[float, float]
"""The lower and the upper end."""


class Counts(Record):
    """Right and wrong verdicts, and the rates that follow from them."""

    tp: int
    fp: int
    fn: int
    tn: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


class Oracle(Record):
    """Counts at the best-F1 threshold of the scores themselves; all None without both classes."""

    threshold: float | None = None  # in logits
    tp: int | None = None
    fp: int | None = None
    fn: int | None = None
    tn: int | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    fp_at_fn0: int | None  # false positives where no defect is missed; None without a defect


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as arrays; RunError where they do not fit or are not finite."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise RunError(f"{labels.shape} labels do not fit {scores.shape} scores: expected (N,).")
    if not np.isfinite(scores).all():
        raise RunError(
            f"{np.sum(~np.isfinite(scores))} of {len(scores)} scores are NaN or infinite: "
            "the model has diverged. Train again, with a lower learning rate or in float32."
        )
    return labels, scores


def _has_both_classes(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Step-wise average precision as scikit-learn defines it; None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    labels, scores = _checked(labels, scores)
    return float(average_precision_score(labels, scores)) if _has_both_classes(labels) else None


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve; ties count half; None unless both classes occur."""
    from sklearn.metrics import roc_auc_score

    labels, scores = _checked(labels, scores)
    return float(roc_auc_score(labels, scores)) if _has_both_classes(labels) else None


def best_f1_threshold(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The middle of the gap between two neighbouring scores that gives the best F1, in logits.

    Of cuts with equal F1 the one with fewer errors (FP + FN) wins. Equal scores are never
    separated. Where flagging everything is best there is no gap, and the threshold is the next
    number below the lowest score. None unless both classes occur.
    """
    labels, scores = _checked(labels, scores)
    if not _has_both_classes(labels):
        return None
    values, inverse = np.unique(scores, return_inverse=True)
    defective = np.bincount(inverse, weights=labels)[::-1].cumsum()[::-1]
    flagged = np.bincount(inverse)[::-1].cumsum()[::-1]  # at each value: flag it and all above
    f1 = 2 * defective / (flagged + labels.sum())
    errors = flagged - defective + labels.sum() - defective
    best = np.lexsort((errors, -f1))[0]
    if best == 0:
        return float(np.nextafter(values[0], -np.inf))
    lower, upper = values[best - 1], values[best]
    middle = lower / 2 + upper / 2
    return float(middle if middle < upper else lower)  # neighbours in float64 have no middle


def good_parts_threshold(
    scores: ArrayLike, items: Sequence[str], share: float
) -> tuple[float, int, int]:
    """A threshold by good surfaces alone, in logits, with the parts and those that it flags.

    No more than this share of the parts has a surface above it. It lies in the middle of the gap
    between the highest scores of two parts, or at the highest of all where none may be flagged.
    """
    scores, names = np.asarray(scores, np.float64), np.asarray(items)
    highest = np.sort([scores[names == name].max() for name in np.unique(names)])[::-1]
    count = int(share * len(highest) + 1e-9)
    pair = highest[max(0, count - 1) : count + 1]
    flagged = int(np.sum(highest > pair.mean()))
    return float(pair.mean()), len(highest), flagged


def error_bound(errors: ArrayLike, parts: int) -> np.ndarray:
    """Below which share of all parts err with 95 % confidence, one-sided, where so many here do.

    It is exact where the threshold was fixed without these parts, which are a random sample
    (Clopper and Pearson 1934). So it is at one of `good_parts_threshold`: the share above an order
    statistic is beta distributed (Wilks 1941).
    """
    from scipy.stats import beta

    errors = np.asarray(errors)
    return np.where(errors < parts, beta.ppf(CONFIDENCE, errors + 1, parts - errors), 1.0)


def parts_needed(rate: float, misses: int = 0) -> int:
    """How many defective parts must be tested to claim a rate of misses below `rate`.

    At this many parts, were the rate `rate`, the chance of no more than `misses` misses is at most
    5 % (one-sided, exact binomial). It is 299 for 1 % and no miss.
    """
    from scipy.stats import nbinom

    found_before_one_more_miss = int(nbinom.ppf(CONFIDENCE, misses + 1, rate))
    return found_before_one_more_miss + misses + 1


def error_counts(labels: ArrayLike, flagged: ArrayLike) -> Counts:
    """Counts and rates of verdicts, which are bool (N,) as the labels are."""
    labels, flagged = np.asarray(labels, bool), np.asarray(flagged, bool)
    tp, fp = int(np.sum(labels & flagged)), int(np.sum(~labels & flagged))
    fn, tn = int(np.sum(labels & ~flagged)), int(np.sum(~labels & ~flagged))
    return Counts(
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        accuracy=_ratio(tp + tn, len(labels)),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def false_positives_at_full_recall(labels: ArrayLike, scores: ArrayLike) -> int | None:
    """Good surfaces that score at least as high as the lowest defective one; None without any."""
    labels, scores = _checked(labels, scores)
    return int(np.sum(scores[~labels] >= scores[labels].min())) if labels.any() else None


def clopper_pearson(k: int, n: int) -> Interval | None:
    """The exact binomial interval of the rate k of n; None where n is 0.

    It takes the n trials as independent. Surfaces of one item are not quite, so the uncertainty is
    at least this. Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    from scipy.stats import beta

    assert 0 <= k <= n, (k, n)
    if n == 0:
        return None
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def bootstrap_average_precision(
    labels: ArrayLike, scores: ArrayLike, items: Sequence[str], seed: int = 0
) -> Interval | None:
    """The percentile interval of average precision when items are drawn again.

    Whole items are drawn with replacement, as the surfaces of one item resemble each other. Draws
    without both classes are left out. None where average precision is undefined, with a single
    item, or where separation is perfect: every draw would give 1, which says nothing.
    """
    labels, scores = _checked(labels, scores)
    names, item_of = np.unique(np.asarray(items), return_inverse=True)
    if len(names) < 2 or not _has_both_classes(labels):
        return None
    if scores[labels].min() > scores[~labels].max():
        return None
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    values = _weighted_average_precision(labels, scores, draws[:, item_of])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _weighted_average_precision(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision (R,) under each row of image counts `weights` (R, N); NaN if undefined."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    flagged = weights[:, order].cumsum(axis=1)[:, last_of_tie]
    found = (weights[:, order] * labels[order]).cumsum(axis=1)[:, last_of_tie]
    precision = found / np.maximum(flagged, 1)
    steps = np.diff(found, axis=1, prepend=0)
    defective, total = found[:, -1], flagged[:, -1]
    defined = (defective > 0) & (defective < total)
    return np.where(defined, (steps * precision).sum(axis=1) / np.maximum(defective, 1), np.nan)


def oracle(labels: Sequence[bool], scores: Sequence[float]) -> Oracle:
    """The counts at the best-F1 threshold of these very scores, as the literature reports them."""
    threshold = best_f1_threshold(labels, scores)
    fp_at_fn0 = false_positives_at_full_recall(labels, scores)
    if threshold is None:
        return Oracle(fp_at_fn0=fp_at_fn0)
    counts = error_counts(labels, np.asarray(scores) > threshold)
    return Oracle(threshold=threshold, **dict(counts), fp_at_fn0=fp_at_fn0)
