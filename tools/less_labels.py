"""The table of what is reached with fewer labels."""

from kept import LESS, Kept, readable
from pages import mean_and_range, table
from protocols import pooled

COLUMNS = (
    "preset, folds",
    "learned from",
    "seeds",
    "AP: mean (range)",
    "FP at FN = 0",
    "FP / FN, operating threshold",
    "published AP, leaking folds",
)

PUBLISHED = {"masks-none": "93.4", "masks-5": "99.1", "masks-16": "about 99.5 (15 masks)"}
"""Božič 2021, the mean of the official folds."""


def less_labels_table(kept: Kept) -> str:
    """What each regime comes to on KolektorSDD; "" while no run of one is kept."""
    rows = []
    for recipe, runs in kept.recipes.items():
        if not (match := LESS.fullmatch(recipe)):
            continue
        judged = [pooled(run.rows) for run in runs]
        known = match["known"]
        rows.append(
            [
                readable(f"{match['preset']}-{match['folds']}"),
                _in_words(known),
                str(len(runs)),
                mean_and_range([one.ap for one in judged]),
                ", ".join(str(one.fp_at_fn0) for one in judged),
                ", ".join(f"{r.summary.pooled.fp} / {r.summary.pooled.fn}" for r in runs),
                PUBLISHED.get(known, ""),
            ]
        )
    return table(COLUMNS, rows) if rows else ""


def _in_words(known: str) -> str:
    count = known.rpartition("-")[2]
    if known == "labels-none":
        return "good surfaces alone"
    return "labels alone" if count == "none" else f"{count} masks, the other defects labelled only"
