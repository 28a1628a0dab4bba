"""Operating thresholds, fixed without the scores of the surfaces that they judge."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.metrics import best_f1_threshold
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.storage import Record
from ksdd_lib.text import listed


class Size(Record):
    """How many images, and how many of them are defective."""

    images: int
    defective: int


class FoldThreshold(Record):
    """A fold's operating threshold in logits, and the scores that it was taken from."""

    fold: int
    threshold: float
    threshold_from: Size


def operating_thresholds(
    rows: Sequence[Prediction], train_items: Mapping[int, Collection[str]]
) -> list[FoldThreshold]:
    """Each trained fold's threshold, from out-of-fold scores of its own training items.

    For fold k these are the test rows of the *other* folds whose item is in `train_items[k]`.
    Each was scored by the model of the fold that holds it out, and none is tested in fold k.
    Training items that no trained fold tests have no such score and are left out. Where the
    scores lack a class, as with a single trained fold, the threshold is 0.0 from 0 images.
    Raises RunError where a fold tests an item that it was trained on.
    """
    found = []
    for fold in sorted({row.fold for row in rows}):
        items = set(train_items[fold])
        if shared := sorted(items & {row.item for row in rows if row.fold == fold}):
            raise RunError(f"Fold {fold} tests {listed(shared, 5)}, which it was trained on.")
        used = [row for row in rows if row.fold != fold and row.item in items]
        labels = [row.is_defective for row in used]
        threshold = best_f1_threshold(labels, [row.score for row in used])
        if threshold is None:
            labels, threshold = [], 0.0  # even odds
        size = Size(images=len(labels), defective=sum(labels))
        found.append(FoldThreshold(fold=fold, threshold=threshold, threshold_from=size))
    return found


def apply_thresholds(
    rows: Sequence[Prediction], thresholds: Sequence[FoldThreshold]
) -> list[Prediction]:
    """The rows with their fold's threshold, and flagged where the score is greater than it."""
    values = {one.fold: one.threshold for one in thresholds}
    return [
        replace(row, threshold=values[row.fold], is_flagged=row.score > values[row.fold])
        for row in rows
    ]


def threshold_rule(thresholds: Sequence[FoldThreshold]) -> str:
    """Where the operating thresholds come from, in words for the report."""
    fixed = [str(one.fold) for one in thresholds if not one.threshold_from.images]
    default = "a logit of 0.0, fixed in advance"
    if len(fixed) == len(thresholds) == 1:
        return f"{default}: with a single fold trained there are no out-of-fold scores"
    if len(fixed) == len(thresholds):
        return f"{default}: the out-of-fold scores of the training items lack a class"
    rule = (
        "middle of the gap at best F1, in logits, over out-of-fold scores of the fold's own "
        "training items (each scored by the model of the fold that holds it out)"
    )
    return rule + (f"; {default}, in fold {', '.join(fixed)}" if fixed else "")
