"""The tables that compare: protocols of the literature, and parts that are in the data twice."""

from collections.abc import Sequence

import protocols
from kept import Kept, KeptRun
from pages import table
from run_tables import SEED_COLUMNS, over_seeds, readable, recipes, runs_of

from ksdd_lib.data.kolektorsdd import PUBLISHED, kolektor_twins
from ksdd_lib.text import number

PUBLISHED_COLUMNS = ("", "three folds pooled: AP", "FP / FN", "mean of folds: AP")

PROTOCOL_COLUMNS = ("preset, folds", "test images", "joined", *SEED_COLUMNS)

TWIN_COLUMNS = (
    "preset, folds",
    "one part",
    "IoU of its two annotations",
    "scores differ by, mean / most",
    "verdicts differ",
)


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
    for recipe, runs in recipes(kept).items():
        if not recipe.endswith("-official"):
            continue  # the clean folds keep one of each pair
        judged = [protocols.repetitions(run.rows, kolektor_twins()) for run in runs]
        for same in zip(*judged, strict=True):
            rows.append([readable(recipe), *_twin_cells(same)])
    return table(TWIN_COLUMNS, rows)


def _twin_cells(same: Sequence[protocols.Repetition]) -> list[str]:
    differences = [one.differences for one in same]
    return [
        " = ".join(same[0].items),
        ", ".join(number(iou, 2) for iou in same[0].mask_ious),
        ", ".join(f"{number(sum(d) / len(d), 1)} / {number(max(d), 1)}" for d in differences),
        ", ".join(f"{one.disagreements} of {len(one.differences)}" for one in same),
    ]


def _under_each_protocol(kept: Kept, variants: bool) -> str:
    shown = {run.recipe for run in runs_of(kept, variants)}
    rows = []
    for recipe, runs in recipes(kept).items():
        if recipe in shown:
            rows += [[readable(recipe), *cells] for cells in _protocol_rows(runs)]
    return table(PROTOCOL_COLUMNS, rows)


def _protocol_rows(runs: Sequence[KeptRun]) -> list[list[str]]:
    """One recipe, with and, where there are any, without its leaked test images."""
    found: dict[tuple[str, str], list[protocols.Judgement]] = {}
    for run in runs:
        for protocol, judgement in _judgements(run).items():
            found.setdefault(protocol, []).append(judgement)
    return [
        [f"{part}: {judged[0].images}, {judged[0].defective} defective", join, *over_seeds(judged)]
        for (part, join), judged in found.items()
    ]


def _judgements(run: KeptRun) -> dict[tuple[str, str], protocols.Judgement]:
    """(which test images, how folds are joined) -> one run's numbers."""
    clean = protocols.without_leaks(run.rows, run.train_items, run.data.twins)
    parts = {"all": run.rows}
    if len(clean) < len(run.rows):
        parts["without the leaked ones"] = clean
    parts["without two doubtful labels"] = protocols.without_doubtful(run.rows)
    joins = {"pooled": protocols.pooled, "one by one": protocols.by_fold}
    return {
        (part, join): judge(rows) for part, rows in parts.items() for join, judge in joins.items()
    }
