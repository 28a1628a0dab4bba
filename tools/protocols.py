"""One list of scores under each protocol of the literature; no number mixes two of them.

Three choices make a protocol. Which test images count: all, or none whose twin was trained on. How
folds are joined: pooled, or each on its own. Where the threshold comes from: fixed in advance
(operating), or best for the test scores themselves (oracle).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ksdd_lib.data.kolektorsdd import DOUBTFUL, TwinSurfaces
from ksdd_lib.evaluation.metrics import average_precision, error_counts, oracle
from ksdd_lib.evaluation.predictions import Prediction


@dataclass(frozen=True)
class Judgement:
    """The numbers of one way to join the folds.

    Attributes:
        images, defective: how many were judged.
        ap: average precision; of folds on their own, the mean of theirs.
        operating: (false alarms, misses); of folds on their own, the sum over folds.
        oracle: likewise, each fold on its own at its own best threshold.
        fp_at_fn0: false alarms where the threshold misses nothing.
    """

    images: int
    defective: int
    ap: float
    operating: tuple[int, int]
    oracle: tuple[int, int]
    fp_at_fn0: int


def pooled(rows: Sequence[Prediction]) -> Judgement:
    """All folds' scores in one list, one oracle threshold: as published in 2019.

    The rows have their verdicts and hold both kinds of surface.
    """
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    operating = error_counts(labels, [bool(row.is_flagged) for row in rows])
    ap, best = average_precision(labels, scores), oracle(labels, scores)
    assert ap is not None and best.fp is not None and best.fn is not None
    assert best.fp_at_fn0 is not None
    return Judgement(
        images=len(rows),
        defective=sum(labels),
        ap=ap,
        operating=(operating.fp, operating.fn),
        oracle=(best.fp, best.fn),
        fp_at_fn0=best.fp_at_fn0,
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


def without_doubtful(rows: Iterable[Prediction]) -> list[Prediction]:
    """The rows without KolektorSDD's two good surfaces that may not be good."""
    return [row for row in rows if row.image not in DOUBTFUL]


@dataclass(frozen=True)
class Repetition:
    """How differently the surfaces that two items share were judged.

    Attributes:
        items: the two names of one part.
        differences: of the scores, in logits, absolute, a value for each surface.
        disagreements: how many surfaces got two different verdicts.
        mask_ious: how far the annotations of the defective surfaces agree, once aligned.
    """

    items: tuple[str, str]
    differences: tuple[float, ...]
    disagreements: int
    mask_ious: tuple[float, ...]


def repetitions(rows: Iterable[Prediction], pairs: Iterable[TwinSurfaces]) -> list[Repetition]:
    """The scores of surfaces that are in the data twice, a row for each pair of items.

    The two may have been judged by models of different folds.

    Args:
        rows: with their verdicts, of every surface in `pairs`.
    """
    by_name = {row.image: row for row in rows}
    groups: dict[tuple[str, str], list[tuple[Prediction, Prediction, float | None]]] = {}
    for pair in pairs:
        one, other = (by_name[name] for name in pair.surfaces)
        groups.setdefault((one.item, other.item), []).append((one, other, pair.mask_iou))
    return [
        Repetition(
            items,
            tuple(abs(one.score - other.score) for one, other, _ in group),
            sum(one.is_flagged != other.is_flagged for one, other, _ in group),
            tuple(iou for *_, iou in group if iou is not None),
        )
        for items, group in groups.items()
    ]
