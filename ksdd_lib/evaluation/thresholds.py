"""Operating thresholds, fixed without the scores of the surfaces that they judge."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.metrics import best_f1_threshold
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.text import listed

DEFAULT_THRESHOLD = 0.0  # logits: even odds


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

    For fold k these are the test rows of the *other* folds whose item is in `train_items[k]`.
    Each was scored by the model of the fold that holds it out, and none is tested in fold k.
    Training items that no trained fold tests have no such score and are left out. Where the
    scores lack a class, as with a single trained fold, the threshold is 0.0 from 0 images.

    Raises:
        RunError: a fold tests an item that it was trained on.
    """
    folds = sorted({row.fold for row in rows})
    return {k: _operating_threshold(rows, k, train_items[k]) for k in folds}


def _operating_threshold(
    rows: Sequence[Prediction], fold: int, items: Collection[str]
) -> OperatingThreshold:
    tested = {row.item for row in rows if row.fold == fold}
    if shared := sorted(tested & set(items)):
        raise RunError(f"Fold {fold} tests {listed(shared, 5)}, which it was trained on.")
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


def threshold_rule(thresholds: Mapping[int, OperatingThreshold]) -> str:
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
