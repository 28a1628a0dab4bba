"""Where operating thresholds come from: scores of a fold's training items by the other folds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from statistics import median

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.metrics import best_f1_threshold, error_bound, good_parts_threshold
from ksdd_lib.evaluation.predictions import Prediction, of_highest
from ksdd_lib.formatting import listed, percent
from ksdd_lib.runs.run import FINAL, HELD
from ksdd_lib.storage import Record


class Size(Record):
    """How many images, and how many of them are defective."""

    images: int
    defective: int


class FoldThreshold(Record):
    """A fold's threshold, in logits or of pixels, and the images that it was taken from."""

    fold: int
    threshold: float
    threshold_from: Size


class Numbered(Record):
    """The number of a fold."""

    fold: int


class FalseAlarms(Numbered):
    """What a fold's threshold by good surfaces alone promises."""

    wanted: float  # at most this share of the parts flagged
    parts: int
    flagged: int
    below: float  # this share of all good parts is flagged, with 95 % confidence


def out_of_fold(
    rows: Sequence[Prediction], train_items: Mapping[int, Collection[str]]
) -> dict[int, list[Prediction]]:
    """Each trained fold -> the out-of-fold scores of its own training items.

    For fold k these are the test rows of the *other* folds whose item is in `train_items[k]`.
    Each was scored by the model of the fold that holds it out, and none is tested in fold k.
    Training items that no trained fold tests have no such score and are left out.
    What a fold alone has held out of its training counts as tested by another, `HELD`.
    With `train_items` of `FINAL` alone they are those of the final model: all that there are.
    Raises RunError where a fold tests an item that it was trained on.
    """
    found = {}
    for fold in [FINAL] if FINAL in train_items else sorted({row.fold for row in rows} - {HELD}):
        items = set(train_items[fold])
        if shared := sorted(items & {row.item for row in rows if row.fold == fold}):
            raise RunError(f"Fold {fold} tests {listed(shared, 5)}, which it was trained on.")
        found[fold] = [row for row in rows if row.fold != fold and row.item in items]
    return found


def _best_f1(rows: Sequence[Prediction]) -> float | None:
    return best_f1_threshold([row.is_defective for row in rows], [r.score for r in rows])


def _between_medians(rows: Sequence[Prediction]) -> float | None:
    kinds = [[row.score for row in rows if row.is_defective == kind] for kind in (False, True)]
    return sum(map(median, kinds)) / 2 if all(kinds) else None


BEST: dict[str, Callable[[Sequence[Prediction]], float | None]] = {
    "medians": _between_medians,
    "best_f1": _best_f1,
    "zero": lambda rows: None,
}
"""The setting `threshold` -> the best threshold for scores; None for the fixed one."""

WORDS = {
    "medians": "halfway between the medians of the good and of the defective scores",
    "best_f1": "middle of the gap at best F1",
}


def operating_thresholds(
    rows: Sequence[Prediction],
    train_items: Mapping[int, Collection[str]],
    best: Callable[[Sequence[Prediction]], float | None] = _best_f1,
    default: float = 0.0,  # even odds
) -> list[FoldThreshold]:
    """Each trained fold's threshold, the `best` for out-of-fold scores of its own training items.

    Where the scores lack a class, as with a single trained fold, it is the `default` from 0 images.
    Raises as `out_of_fold`.
    """
    found = []
    for fold, used in out_of_fold(rows, train_items).items():
        labels = [row.is_defective for row in used]
        threshold = best(used)
        if threshold is None:
            labels, threshold = [], default
        size = Size(images=len(labels), defective=sum(labels))
        found.append(FoldThreshold(fold=fold, threshold=threshold, threshold_from=size))
    return found


def good_thresholds(
    rows: Sequence[Prediction], train_items: Mapping[int, Collection[str]], share: float
) -> tuple[list[FoldThreshold], list[FalseAlarms]]:
    """As `operating_thresholds`, by good surfaces alone, and what each threshold promises.

    So it is where no defect is known: no more than this share of the parts is flagged.
    """
    thresholds, promised = [], []
    for fold, used in out_of_fold(rows, train_items).items():
        good = [row for row in used if not row.is_defective]
        value, size = 0.0, Size(images=len(good), defective=0)
        if good:
            scores, items = [row.score for row in good], [row.item for row in good]
            value, parts, flagged = good_parts_threshold(scores, items, share)
            below = float(error_bound(flagged, parts))
            promised.append(
                FalseAlarms(fold=fold, wanted=share, parts=parts, flagged=flagged, below=below)
            )
        thresholds.append(FoldThreshold(fold=fold, threshold=value, threshold_from=size))
    return thresholds, promised


def class_folds(
    rows: Sequence[Prediction], train_items: Mapping[int, Collection[str]], rule: str = "best_f1"
) -> list[list[FoldThreshold]]:
    """The operating thresholds of each class that is told apart, as if it were all there is."""
    classes = range(len(rows[0].classes))
    each = ([of_class(row, k) for row in rows] for k in classes)
    return [operating_thresholds(own, train_items, BEST[rule]) for own in each]


def of_class(row: Prediction, number: int) -> Prediction:
    """A row as if the class of this number were all that is asked for."""
    one = row.classes[number]
    return replace(row, score=one.score, is_defective=one.is_there, classes=())


def apply_thresholds(
    rows: Sequence[Prediction],
    thresholds: Sequence[FoldThreshold],
    of_classes: Sequence[Sequence[FoldThreshold]] = (),
) -> list[Prediction]:
    """The rows with their threshold, and flagged where the score is greater than it.

    It is that of the fold, or `of_highest` where each class has its own.
    """
    values = {one.fold: one.threshold for one in thresholds}
    each = [{one.fold: one.threshold for one in own} for own in of_classes]
    found = []
    for row in rows:
        scores, own = [one.score for one in row.classes], [one[row.fold] for one in each]
        threshold = of_highest(scores, own) if own else values[row.fold]
        found.append(replace(row, threshold=threshold, is_flagged=row.score > threshold))
    return found


PER_CLASS = "each class has its own, of its score and label alone: "
"""What is said first of the rule of thresholds, where several classes are told apart."""


def threshold_rule(
    thresholds: Sequence[FoldThreshold],
    rule: str = "best_f1",
    false_alarms: float | None = None,
    is_held_out: bool = False,
) -> str:
    """Where the operating thresholds come from, in words for the report; `rule` as in `BEST`."""
    fixed = [str(one.fold) for one in thresholds if not one.threshold_from.images]
    default, of_all = "a logit of 0.0, fixed in advance", thresholds[0].fold == FINAL
    if len(fixed) == len(thresholds) == 1 and not of_all:
        return (
            f"{default}: with a single fold trained there are no out-of-fold scores, so no score "
            "has chosen it and another may do far better (in a new run, held_out takes one from "
            "parts that training has not seen)"
        )
    if rule == "zero" and false_alarms is None:
        return f"{default}, by the setting threshold; no score has chosen it"
    if len(fixed) == len(thresholds):
        return f"{default}: the out-of-fold scores of the training items lack a class"
    whose = "all items that a fold has tested" if of_all else "the fold's own training items"
    scores, who = "out-of-fold scores", " (each scored by the model of the fold that holds it out)"
    if is_held_out:
        whose, scores, who = "parts that were held out of the fold's training", "scores", ""
    text = f"{WORDS.get(rule)}, in logits, over {scores} of {whose}{who}"
    if false_alarms is not None:
        text = (
            f"at most {percent(false_alarms)} of the parts flagged, over {scores} of the good "
            f"surfaces alone, of {whose}; no defect was used"
        )
    return text + (f"; {default}, in fold {', '.join(fixed)}" if fixed else "")
