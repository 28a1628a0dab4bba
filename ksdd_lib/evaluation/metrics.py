"""Scores into numbers: pure functions of arrays, the rows of predictions.csv, and metrics.json.

Throughout: labels are bool (N,), True for defective; scores are raw logits (N,), higher for more
suspicious; items are the names (N,) of the physical parts. A surface is flagged when its score is
strictly greater than the threshold, at the operating threshold and at the oracle alike. A number
that the data do not define (no defective surface, no good one) is None, never 0 or 1.
"""

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ksdd_lib.errors import RunError
from ksdd_lib.storage import csv_text, sha256, write_text

CONFIDENCE = 0.95
DEFAULT_THRESHOLD = 0.0  # logits: even odds for the decision network


@dataclass(frozen=True)
class Prediction:
    """What the model said about one test image: one row of predictions.csv.

    Attributes:
        image, item: "kos01/Part5" and "kos01".
        fold, seed: which model scored it; the image is in that fold's test set.
        score: logit that the image is judged by; see the setting of that name.
        segmentation_score: maximum of the mask logits.
        threshold, is_flagged: the operating threshold in logits and whether the score is above
            it; None until `apply_thresholds` has set both.

    Raises:
        RunError: a score is NaN or infinite.
    """

    image: str
    item: str
    fold: int
    seed: int
    is_defective: bool
    score: float
    segmentation_score: float
    threshold: float | None = None
    is_flagged: bool | None = None

    def __post_init__(self) -> None:
        for name in ("score", "segmentation_score", "threshold"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise RunError(
                    f"The {name} of {self.image} is {value}: the model has diverged. "
                    "Train this fold again, with a lower learning rate or in float32."
                )

    @property
    def margin(self) -> float:
        """How far the score lies above the operating threshold, in logits."""
        return self.score - self.threshold


COLUMNS = tuple(field.name for field in fields(Prediction))


# Files


def verdict(row: Prediction) -> str:
    """ "missed", "false alarm", "found" or "passed"."""
    if row.is_defective:
        return "found" if row.is_flagged else "missed"
    return "false alarm" if row.is_flagged else "passed"


def failures_first(rows: Sequence[Prediction]) -> list[Prediction]:
    """Defective and flagged surfaces: misses, then false alarms, then hits; each worst first."""
    missed = [row for row in rows if verdict(row) == "missed"]
    alarms = [row for row in rows if verdict(row) == "false alarm"]
    found = [row for row in rows if verdict(row) == "found"]

    def score(row: Prediction) -> float:
        return row.score

    return [
        *sorted(missed, key=score),
        *sorted(alarms, key=score, reverse=True),
        *sorted(found, key=score),
    ]


def suspicious(rows: Sequence[Prediction], count: int = 4) -> list[Prediction]:
    """Surfaces whose label the scores doubt most: good ones far above their fold's threshold and
    defective ones far below, `count` of each kind, the greatest doubt first.

    Args:
        rows: of predictions.csv, with thresholds.
    """

    def doubt(row: Prediction) -> float:
        return -row.margin if row.is_defective else row.margin

    kinds = [[row for row in rows if row.is_defective is kind] for kind in (False, True)]
    chosen = [row for kind in kinds for row in sorted(kind, key=doubt, reverse=True)[:count]]
    return sorted(chosen, key=doubt, reverse=True)


def write_predictions(path: Path, rows: Iterable[Prediction]) -> None:
    """Write rows as predictions.csv, atomically; `read_predictions` gives back equal rows."""
    write_text(path, _predictions_text(rows))


def _predictions_text(rows: Iterable[Prediction]) -> str:
    return csv_text(COLUMNS, ([getattr(row, name) for name in COLUMNS] for row in rows))


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a predictions.csv, exactly as they were written.

    Raises:
        RunError: the file is missing, has other columns, or a row cannot be read.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
    except FileNotFoundError:
        raise RunError(f"{path.name} is missing: evaluate the trained model first.") from None
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path.name} cannot be read ({error}): evaluate again.") from None
    if tuple(header) != COLUMNS:
        raise RunError(f"{path.name} has the columns {header}, not {list(COLUMNS)}.")
    return [_read_row(path, number, line) for number, line in enumerate(lines, start=2)]


def _read_row(path: Path, number: int, line: list[str]) -> Prediction:
    try:
        image, item, fold, seed, is_defective, score, segmentation, threshold, flagged = line
        return Prediction(
            image=image.removeprefix("'"),
            item=item.removeprefix("'"),
            fold=int(fold),
            seed=int(seed),
            is_defective=_read_bool(is_defective),
            score=float(score),
            segmentation_score=float(segmentation),
            threshold=float(threshold) if threshold else None,
            is_flagged=_read_bool(flagged) if flagged else None,
        )
    except ValueError as error:
        raise RunError(f"{path.name}, row {number}: {error}. Evaluate again.") from None


def _read_bool(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"expected 0 or 1, found {text!r}")
    return text == "1"


# Numbers


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
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


def every_score(rows: Sequence[Prediction], kind: str, loss: str) -> dict[str, list[float]]:
    """What the rows would have been judged by under each `score` setting, as far as they tell.

    Args:
        kind: the setting that they were judged by; after "mask" the decision network is unknown.
        loss: the `segmentation_loss`; only a mask trained with "cross_entropy" has logits to add.

    Returns:
        "decision", "mask" and "both" -> a score for each row.
    """
    mask = [row.segmentation_score for row in rows]
    if kind == "mask":
        return {"mask": mask}
    known = [row.score for row in rows]
    if loss != "cross_entropy":
        return {"decision": known, "mask": mask}
    if kind == "both":
        decision = [score - highest for score, highest in zip(known, mask, strict=True)]
        return {"decision": decision, "mask": mask, "both": known}
    both = [score + highest for score, highest in zip(known, mask, strict=True)]
    return {"decision": known, "mask": mask, "both": both}


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

    Of cuts with equal F1 the one with fewer errors (FP + FN) wins; equal F1 and equal errors are
    the same cut, so no further rule is needed. Equal scores are never separated. Where flagging
    everything is best (as when all scores are equal) there is no gap, and the threshold is the
    next number below the lowest score. None unless both classes occur.
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


def error_counts(labels: ArrayLike, flagged: ArrayLike) -> dict[str, int | float | None]:
    """Counts and rates of a verdict: tp, fp, fn, tn, accuracy, precision, recall, f1."""
    labels, flagged = np.asarray(labels, bool), np.asarray(flagged, bool)
    tp, fp = int(np.sum(labels & flagged)), int(np.sum(~labels & flagged))
    fn, tn = int(np.sum(labels & ~flagged)), int(np.sum(~labels & ~flagged))
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "accuracy": _ratio(tp + tn, len(labels)),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def false_positives_at_full_recall(labels: ArrayLike, scores: ArrayLike) -> int | None:
    """Good surfaces that score at least as high as the lowest defective one; None without any."""
    labels, scores = _checked(labels, scores)
    return int(np.sum(scores[~labels] >= scores[labels].min())) if labels.any() else None


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> list[float] | None:
    """The exact binomial interval [low, high] of the rate k of n; None where n is 0.

    It takes the n trials as independent. Surfaces of one item are not quite, so it is a lower
    bound of the uncertainty. Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    from scipy.stats import beta

    assert 0 <= k <= n, (k, n)
    if n == 0:
        return None
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return [low, high]


def bootstrap_average_precision(
    labels: ArrayLike,
    scores: ArrayLike,
    items: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = CONFIDENCE,
) -> list[float] | None:
    """The percentile interval [low, high] of average precision when items are drawn again.

    Whole items are drawn with replacement, as the surfaces of one item resemble each other.
    Draws without both classes are left out. None where average precision is undefined, where
    separation is perfect (every draw would give 1, which says nothing) or with a single item.
    """
    labels, scores = _checked(labels, scores)
    names, item_of = np.unique(np.asarray(items), return_inverse=True)
    if not _has_both_classes(labels) or scores[labels].min() > scores[~labels].max():
        return None
    if len(names) < 2:
        return None
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = _weighted_average_precision(labels, scores, draws[:, item_of])
    tail = 100 * (1 - confidence) / 2
    values = values[np.isfinite(values)]
    return [float(value) for value in np.percentile(values, [tail, 100 - tail])]


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


# The operating threshold


@dataclass(frozen=True)
class OperatingThreshold:
    """A threshold in logits, and how many images (and defective ones) it was taken from."""

    value: float
    images: int
    defective: int


def operating_thresholds(
    rows: Sequence[Prediction], train_items: Mapping[int, Collection[str]]
) -> dict[int, OperatingThreshold]:
    """Each trained fold's threshold, from out-of-fold scores of its own training items.

    For fold k these are the test rows of the *other* folds whose item is in `train_items[k]`:
    each was scored by the model of the fold that holds it out, and none is tested in fold k.
    With some folds untrained, the training items that have such a score are used. Where they
    lack a class (always with a single trained fold) it is 0.0 logits,
    taken from 0 images.
    """
    return {k: _operating_threshold(rows, k, train_items[k]) for k in _folds_of(rows)}


def _folds_of(rows: Sequence[Prediction]) -> list[int]:
    return sorted({row.fold for row in rows})


def _operating_threshold(
    rows: Sequence[Prediction], fold: int, items: Collection[str]
) -> OperatingThreshold:
    tested = {row.item for row in rows if row.fold == fold}
    if shared := sorted(tested & set(items)):
        raise RunError(f"Fold {fold} tests {', '.join(shared[:5])}, which it was trained on.")
    used = [row for row in rows if row.fold != fold and row.item in items]
    labels = [row.is_defective for row in used]
    threshold = best_f1_threshold(labels, [row.score for row in used])
    if threshold is None:
        return OperatingThreshold(DEFAULT_THRESHOLD, 0, 0)
    return OperatingThreshold(threshold, len(used), sum(labels))


def apply_thresholds(
    rows: Sequence[Prediction], thresholds: Mapping[int, OperatingThreshold]
) -> list[Prediction]:
    """The rows with their fold's threshold, and flagged where the score is greater than it."""
    values = {fold: threshold.value for fold, threshold in thresholds.items()}
    return [
        replace(row, threshold=values[row.fold], is_flagged=row.score > values[row.fold])
        for row in rows
    ]


def _threshold_rule(thresholds: Mapping[int, OperatingThreshold]) -> str:
    """Where the operating thresholds come from, in words for the report."""
    ruled = [fold for fold, threshold in thresholds.items() if threshold.images]
    default = "a logit of 0.0, fixed in advance"
    if not ruled and len(thresholds) == 1:
        return f"{default}: with a single fold trained there are no out-of-fold scores"
    if not ruled:
        return f"{default}: the out-of-fold scores of the training items lack a class"
    rule = (
        "middle of the gap at best F1, in logits, over out-of-fold scores of the fold's own "
        "training items (each scored by the model of the fold that holds it out)"
    )
    others = [str(fold) for fold in thresholds if fold not in ruled]
    return rule + (f"; {default}, in fold {', '.join(others)}" if others else "")


# The summary


def conclude(
    rows: Sequence[Prediction],
    protocol: str,
    seed: int,
    train_items: Mapping[int, Collection[str]],
) -> tuple[list[Prediction], dict[str, Any]]:
    """The rows with the thresholds and verdicts that follow from all scores, and their summary.

    Args: as for `summarize`, but the rows may have no thresholds yet, or those of fewer folds.

    Raises:
        RunError: no rows, an image twice, or another seed.
    """
    judged = apply_thresholds(rows, operating_thresholds(rows, train_items))
    return judged, summarize(judged, protocol, seed, train_items)


def summarize(
    rows: Sequence[Prediction],
    protocol: str,
    seed: int,
    train_items: Mapping[int, Collection[str]],
) -> dict[str, Any]:
    """Everything that metrics.json holds, from the rows of predictions.csv alone.

    Args:
        rows: after `apply_thresholds`.
        protocol: "clean", "official" or another name of the split.
        seed: of the run; it also seeds the bootstrap.
        train_items: of each fold, the names of its training items.

    Raises:
        RunError: no rows, an image twice, another seed, or thresholds that the rule does not
            give: the rows are edited, or mixed from several runs.
    """
    _check_rows(rows, seed)
    thresholds = operating_thresholds(rows, train_items)
    if list(rows) != apply_thresholds(rows, thresholds):
        raise RunError(
            "A threshold or verdict does not follow from the scores: predictions.csv was edited "
            "or mixed from several runs. Evaluate again."
        )
    by_fold = {fold: [row for row in rows if row.fold == fold] for fold in thresholds}
    folds = [_fold_summary(by_fold[fold], thresholds[fold], seed) for fold in thresholds]
    return {
        "protocol": protocol,
        "seed": seed,
        "folds_trained": list(thresholds),
        "threshold_rule": _threshold_rule(thresholds),
        "flag_rule": "score > threshold",
        "folds": folds,
        "fold_mean": _fold_mean(folds),
        "pooled": _summary(rows, [row.score for row in rows], seed)
        | {"items": len({row.item for row in rows})},
        "segmentation_score": _segmentation_summary(list(by_fold.values())),
        "predictions_sha256": sha256(_predictions_text(rows).encode("utf-8")),
    }


def _check_rows(rows: Sequence[Prediction], seed: int) -> None:
    if not rows:
        raise RunError("There are no predictions: train and evaluate at least one fold first.")
    names = [row.image for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RunError(f"{twice} is predicted twice: rows of several runs are mixed.")
    if others := sorted({row.seed for row in rows} - {seed}):
        raise RunError(f"Rows of seed {others[0]} are mixed into a run of seed {seed}.")


def _fold_summary(
    rows: Sequence[Prediction], threshold: OperatingThreshold, seed: int
) -> dict[str, Any]:
    origin = {"images": threshold.images, "defective": threshold.defective}
    return {
        "fold": rows[0].fold,
        "threshold": threshold.value,
        "threshold_from": origin,
        **_summary(rows, [row.score for row in rows], seed),
    }


def _summary(rows: Sequence[Prediction], scores: Sequence[float], seed: int) -> dict[str, Any]:
    labels = [row.is_defective for row in rows]
    counts = error_counts(labels, [row.is_flagged for row in rows])
    ap_interval = bootstrap_average_precision(labels, scores, [row.item for row in rows], seed)
    return {
        "images": len(rows),
        "defective": sum(labels),
        "ap": average_precision(labels, scores),
        "auc": roc_auc(labels, scores),
        **counts,
        "oracle": oracle(labels, scores),
        "intervals": {"confidence": CONFIDENCE, "ap": ap_interval, **_count_intervals(counts)},
    }


def _count_intervals(counts: Mapping[str, Any]) -> dict[str, list[float] | None]:
    tp, fp, fn, tn = (counts[name] for name in ("tp", "fp", "fn", "tn"))
    return {
        "accuracy": clopper_pearson(tp + tn, tp + fp + fn + tn),
        "precision": clopper_pearson(tp, tp + fp),
        "recall": clopper_pearson(tp, tp + fn),
        "false_positive_rate": clopper_pearson(fp, fp + tn),
    }


def oracle(labels: Sequence[bool], scores: Sequence[float]) -> dict[str, Any]:
    """The counts at the best-F1 threshold of these very scores, as the literature reports them."""
    threshold = best_f1_threshold(labels, scores)
    if threshold is None:
        counts = dict.fromkeys(error_counts([], []))
    else:
        counts = error_counts(labels, np.asarray(scores) > threshold)
    fp_at_fn0 = false_positives_at_full_recall(labels, scores)
    return {"threshold": threshold, **counts, "fp_at_fn0": fp_at_fn0}


def _segmentation_summary(folds: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """What the maximum of the mask reaches without the decision network."""

    def ranks(rows: Sequence[Prediction]) -> dict[str, Any]:
        labels = [row.is_defective for row in rows]
        scores = [row.segmentation_score for row in rows]
        ap, auc = average_precision(labels, scores), roc_auc(labels, scores)
        return {"ap": ap, "auc": auc, "oracle": oracle(labels, scores)}

    summaries = [{"fold": rows[0].fold, **ranks(rows)} for rows in folds]
    pooled = ranks([row for rows in folds for row in rows])
    return {"folds": summaries, "fold_mean": _fold_mean(summaries), "pooled": pooled}


def _fold_mean(folds: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """The mean over the folds where each number is defined, and over how many it is."""
    mean: dict[str, float | int | None] = {}
    for name in ("ap", "auc"):
        values = [fold[name] for fold in folds if fold[name] is not None]
        mean[name] = sum(values) / len(values) if values else None
        mean[f"{name}_folds"] = len(values)
    return mean
