"""One list of scores under each protocol of the literature, and the tables that compare.

No number mixes two protocols. Three choices make one. Which test images count: all, or none whose
twin was trained on. How folds are joined: pooled, or each on its own. Where the threshold comes
from: fixed in advance (operating), or best for the test scores themselves (oracle).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kept import Kept, KeptRun, readable
from pages import mean_and_range, table

from ksdd_lib.data.kolektorsdd import DOUBTFUL, PUBLISHED, TwinSurfaces, kolektor_twins
from ksdd_lib.evaluation.metrics import average_precision, error_counts, oracle
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.formatting import number

SEED_COLUMNS = (
    "seeds",
    "AP: mean (range)",
    "FP / FN, operating threshold",
    "FP / FN, oracle",
    "FP at FN = 0",
)

PUBLISHED_COLUMNS = ("", "three folds pooled: AP", "FP / FN", "mean of folds: AP")

PROTOCOL_COLUMNS = ("preset, folds", "test images", "joined", *SEED_COLUMNS)

TWIN_COLUMNS = (
    "preset, folds",
    "one part",
    "IoU of its two annotations",
    "scores differ by, mean / most",
    "verdicts differ",
)


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


def over_seeds(judged: Sequence[Judgement]) -> list[str]:
    """The cells of SEED_COLUMNS: AP as mean and range, then each seed's errors."""
    errors = [[one.operating for one in judged], [one.oracle for one in judged]]
    return [
        str(len(judged)),
        mean_and_range([one.ap for one in judged]),
        *(", ".join("{} / {}".format(*pair) for pair in pairs) for pairs in errors),
        ", ".join(str(one.fp_at_fn0) for one in judged),
    ]


def published_table(kept: Kept) -> str:
    """What the literature reports, which no result here changes."""
    rows = []
    for one in PUBLISHED:
        aps = ("" if ap is None else number(ap, 1) for ap in (one.pooled, one.fold_mean))
        pooled, fold_mean = aps
        errors = "" if one.errors is None else "{} / {}".format(*one.errors)
        rows.append([one.name, pooled, errors, fold_mean])
    return table(PUBLISHED_COLUMNS, rows)


def protocol_table(kept: Kept) -> str:
    """The presets under each protocol, a recipe's seeds together."""
    return _under_each_protocol(kept, variants=False)


def variant_protocol_table(kept: Kept) -> str:
    """The same of every other recipe, but for those with few defects."""
    return _under_each_protocol(kept, variants=True)


def twin_table(kept: Kept) -> str:
    """How alike surfaces that are in KolektorSDD twice were judged, of every run that has both.

    One row a pair of items; the seeds of a recipe stand one after the other.
    """
    rows = []
    for recipe, runs in kept.recipes.items():
        if not recipe.endswith("-official"):
            continue  # the clean folds keep one of each pair
        judged = [repetitions(run.rows, kolektor_twins()) for run in runs]
        for same in zip(*judged, strict=True):
            rows.append([readable(recipe), *_twin_cells(same)])
    return table(TWIN_COLUMNS, rows)


def _twin_cells(same: Sequence[Repetition]) -> list[str]:
    differences = [one.differences for one in same]
    return [
        " = ".join(same[0].items),
        ", ".join(number(iou, 2) for iou in same[0].mask_ious),
        ", ".join(f"{number(sum(d) / len(d), 1)} / {number(max(d), 1)}" for d in differences),
        ", ".join(f"{one.disagreements} of {len(one.differences)}" for one in same),
    ]


def _under_each_protocol(kept: Kept, variants: bool) -> str:
    shown = {run.recipe for run in kept.with_all_defects(variants)}
    rows = []
    for recipe, runs in kept.recipes.items():
        if recipe in shown:
            rows += [[readable(recipe), *cells] for cells in _protocol_rows(runs)]
    return table(PROTOCOL_COLUMNS, rows)


def _protocol_rows(runs: Sequence[KeptRun]) -> list[list[str]]:
    """One recipe, with and, where there are any, without its leaked test images."""
    found: dict[tuple[str, str], list[Judgement]] = {}
    for run in runs:
        for protocol, judgement in _judgements(run).items():
            found.setdefault(protocol, []).append(judgement)
    return [
        [f"{part}: {judged[0].images}, {judged[0].defective} defective", join, *over_seeds(judged)]
        for (part, join), judged in found.items()
    ]


def _judgements(run: KeptRun) -> dict[tuple[str, str], Judgement]:
    """(which test images, how folds are joined) -> one run's numbers."""
    clean = without_leaks(run.rows, run.train_items, run.data.twins)
    parts = {"all": run.rows}
    if len(clean) < len(run.rows):
        parts["without the leaked ones"] = clean
    parts["without two doubtful labels"] = without_doubtful(run.rows)
    joins = {"pooled": pooled, "one by one": by_fold}
    return {
        (part, join): judge(rows) for part, rows in parts.items() for join, judge in joins.items()
    }
