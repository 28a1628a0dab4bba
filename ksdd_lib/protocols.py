"""One set of stored scores under each protocol of the literature; no number mixes two of them.

Three choices make a protocol: which test images count (all, or without those whose twin was
trained on), how folds are joined (pooled, or each fold on its own), and where the threshold comes
from (fixed in advance: operating; best for the test scores themselves: oracle).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ksdd_lib import metrics
from ksdd_lib.metrics import Prediction


@dataclass(frozen=True)
class Judgement:
    """The numbers of one way to join the folds.

    Attributes:
        images, defective: how many were judged.
        ap: average precision; of folds on their own, the mean of theirs.
        operating, oracle: (false alarms, misses); of folds on their own, the sum over folds, for
            the oracle each at its own best threshold.
        fp_at_fn0: false alarms where the threshold misses nothing.
    """

    images: int
    defective: int
    ap: float | None
    operating: tuple[int, int]
    oracle: tuple[int, int]
    fp_at_fn0: int


def without_leaks(
    rows: Iterable[Prediction],
    train_items: Mapping[int, Collection[str]],
    twins: Iterable[Collection[str]],
) -> list[Prediction]:
    """The rows whose part was not trained on under another name.

    Args:
        train_items: of each fold, the names of its training items.
        twins: groups of items that show one part.
    """
    others = {item: set(group) - {item} for group in twins for item in group}
    return [row for row in rows if not others.get(row.item, set()) & set(train_items[row.fold])]


def pooled(rows: Sequence[Prediction]) -> Judgement:
    """All folds' scores in one list, one oracle threshold: as published in 2019.

    The rows have their verdicts (`metrics.apply_thresholds`) and hold both kinds of surface.
    """
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    operating = metrics.error_counts(labels, [row.is_flagged for row in rows])
    oracle = metrics.oracle(labels, scores)
    return Judgement(
        images=len(rows),
        defective=sum(labels),
        ap=metrics.average_precision(labels, scores),
        operating=(operating["fp"], operating["fn"]),
        oracle=(oracle["fp"], oracle["fn"]),
        fp_at_fn0=oracle["fp_at_fn0"],
    )


def by_fold(rows: Sequence[Prediction]) -> Judgement:
    """Each fold on its own, AP averaged and errors summed, as published in 2020 and 2021.

    It forgives scores that are shifted between folds, so it is never better evidence than `pooled`.
    """
    numbers = sorted({row.fold for row in rows})
    folds = [pooled([row for row in rows if row.fold == number]) for number in numbers]
    return Judgement(
        images=sum(fold.images for fold in folds),
        defective=sum(fold.defective for fold in folds),
        ap=sum(fold.ap for fold in folds) / len(folds),
        operating=_sums(fold.operating for fold in folds),
        oracle=_sums(fold.oracle for fold in folds),
        fp_at_fn0=sum(fold.fp_at_fn0 for fold in folds),
    )


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    false_alarms, misses = zip(*pairs, strict=True)
    return sum(false_alarms), sum(misses)
