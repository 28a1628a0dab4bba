"""Everything that metrics.json holds, from the rows of predictions.csv alone."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.metrics import (
    CONFIDENCE,
    average_precision,
    bootstrap_average_precision,
    clopper_pearson,
    error_counts,
    oracle,
    roc_auc,
)
from ksdd_lib.evaluation.predictions import Prediction, predictions_text
from ksdd_lib.evaluation.thresholds import (
    OperatingThreshold,
    apply_thresholds,
    operating_thresholds,
    threshold_rule,
)
from ksdd_lib.storage import sha256


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
        "threshold_rule": threshold_rule(thresholds),
        "flag_rule": "score > threshold",
        "folds": folds,
        "fold_mean": _fold_mean(folds),
        "pooled": _summary(rows, [row.score for row in rows], seed)
        | {"items": len({row.item for row in rows})},
        "segmentation_score": _segmentation_summary(list(by_fold.values())),
        "predictions_sha256": sha256(predictions_text(rows).encode("utf-8")),
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


def _segmentation_summary(folds: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """What the maximum of the mask reaches without the decision network."""

    def ranks(rows: Sequence[Prediction]) -> dict[str, Any]:
        labels = [row.is_defective for row in rows]
        scores = [row.map_score for row in rows]
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
