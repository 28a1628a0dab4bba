"""The few-defects experiment: its table, and its figure `assets/few_defects.png`."""

from collections.abc import Mapping, Sequence

import numpy as np
from kept import FEW, Kept, KeptRun, readable
from matplotlib.figure import Figure
from pages import mean_and_range, table
from protocols import Judgement, pooled

from ksdd_lib import storage
from ksdd_lib.reporting import plots
from ksdd_lib.reporting.plots import DEFECTIVE, FOLD_COLORS, sheet, style

LEAST_AP = 60  # percent; the results worth comparing lie above it

COLUMNS = (
    "preset, folds",
    "defective images in training",
    "draws or seeds",
    "AP: mean (range)",
    "FP at FN = 0",
)

PUBLISHED = {
    "Tabernik 2019": {33: 99.9, 25: 99.2, 20: 98.1, 15: 98.5, 10: 96.7, 5: 96.1},
    "Cognex ViDi 2.1": {33: 99.0, 25: 97.4, 20: 95.7, 15: 97.1, 10: 95.6, 5: 89.2},
    "DeepLabv3+": {33: 98.0, 25: 92.0, 20: 98.6, 15: 98.3, 10: 46.5, 5: 16.5},
    "U-Net": {33: 96.1, 25: 74.6, 20: 84.6, 15: 84.0, 10: 91.9, 5: 69.8},
}
"""AP in percent by the number of defective training items, each with its defective image (Tabernik
2019)."""

Few = Mapping[int, Sequence[float]]
"""Number of defective training images -> AP in percent of each draw."""

Draws = dict[int, list[Judgement]]
"""Number of defective training images -> each draw, its folds pooled."""


def few_defects_table(kept: Kept) -> str:
    """What each number of defective training images comes to, beside the published AP."""
    rows = []
    for recipe, draws in _few_defects(kept).items():
        for count, judged in sorted(draws.items(), reverse=True):
            cells = [
                readable(recipe),
                str(count),
                str(len(judged)),
                mean_and_range([one.ap for one in judged]),
                ", ".join(str(one.fp_at_fn0) for one in judged),
            ]
            rows.append([*cells, *(_published_near(count, few) for few in PUBLISHED.values())])
    return table([*COLUMNS, *PUBLISHED], rows) if rows else ""


def draw_few_defects(kept: Kept) -> None:
    """Draw the figure from the kept runs, where any was trained with few defects."""
    found = _few_defects(kept)
    if not found:
        return
    ours = {
        readable(recipe): {n: [100 * one.ap for one in judged] for n, judged in draws.items()}
        for recipe, draws in found.items()
    }
    published = {name: {n: [ap] for n, ap in few.items()} for name, few in PUBLISHED.items()}
    picture = plots.png(few_defects_curve(ours, published))
    storage.write_bytes(kept.folder.parent / "few_defects.png", picture)


def _few_defects(kept: Kept) -> dict[str, Draws]:
    """Recipe -> its draws, of each recipe that was trained with few defects.

    Its trainings with all are there too, under the mean number of defective images in its folds.
    """
    found: dict[str, Draws] = {}
    runs_of = kept.recipes
    for name, runs in runs_of.items():
        if match := FEW.fullmatch(name):
            draws = found.setdefault(match["recipe"], {})
            draws[int(match["count"])] = [pooled(run.rows) for run in runs]
    for name, draws in found.items():
        if runs := runs_of.get(name, []):
            draws[_training_defects(runs[0])] = [pooled(run.rows) for run in runs]
    return found


def _training_defects(run: KeptRun) -> int:
    """The mean number of defective images in the training parts of a run's folds."""
    folds = run.data.folds[run.folds.protocol].folds
    return round(sum(fold.train_defective for fold in folds) / len(folds))


def _published_near(count: int, published: Mapping[int, float]) -> str:
    """The AP with so many defective items, or, beyond them, of all with their number."""
    most, next_most = sorted(published, reverse=True)[:2]
    if count in published:
        return f"{published[count]}"
    return f"{published[most]} (of {most})" if count > next_most else ""


@style()
def few_defects_curve(ours: Mapping[str, Few], published: Mapping[str, Few]) -> Figure:
    """AP over the number of defective training images: a dot a draw, a line through the means.

    Args:
        ours, published: the results of each method by its name.
    """
    figure = sheet(6.4, 4.0)
    ax = figure.subplots()
    for (name, few), marker in zip(published.items(), "sv^D", strict=False):
        line = ax.plot(*_means(few), color="#8a8a8a", linewidth=0.9, label=name)[0]
        line.set(marker=marker, markersize=4.5, markerfacecolor="white")
    for (name, few), color in zip(ours.items(), (*FOLD_COLORS, DEFECTIVE), strict=False):
        ax.plot(*_means(few), color=color, linewidth=2, label=f"{name}: mean of draws")
        dots = [(count, ap) for count in sorted(few) for ap in few[count]]
        ax.plot(*zip(*dots, strict=True), "o", color=color, markersize=4)
    ax.set_ylim(bottom=LEAST_AP)
    ax.set(xlabel="defective images in training", ylabel="average precision, %")
    ax.set_title(f"Few defects (below {LEAST_AP} % cut off)")
    ax.legend(loc="lower right")
    return figure


def _means(few: Few) -> tuple[list[int], list[float]]:
    counts = sorted(few)
    return counts, [float(np.mean(few[count])) for count in counts]
