"""A training while it runs, as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure

from ksdd_lib.reporting.plots import INK, Histories, draw_stages, scatter_by_label, sheet, style
from ksdd_lib.reporting.surface_pictures import picture_style, show_image
from ksdd_lib.runs.run import fold_name

SCORES = ("highest_good", "lowest_defective")  # of a row of a history
CURVES = 2.6  # inches, the height of the loss curves
TILES = 10  # places in a row of forming masks: the surface, and one for each moment


@dataclass(frozen=True)
class Forming:
    """How the masks of some surfaces form."""

    title: str
    images: Sequence[np.ndarray]  # each (H, W) uint8
    outlines: Sequence[np.ndarray]  # each (H, W) bool, the annotation
    masks: Mapping[int, np.ndarray]  # step -> probabilities (N, h, w), in the order of the images

    def height(self) -> float:
        """Inches for one row of upright tiles for each surface."""
        ratios = [image.shape[0] / image.shape[1] for image in self.images]
        return 0.35 + sum(min(1.4, 0.8 * ratio) + 0.1 for ratio in ratios)


def training_view(
    stages: Histories, fold: int, steps: int, forming: Sequence[Forming] = ()
) -> Figure:
    """The losses of a training, and below them the scores of its surfaces, or masks as they form.

    The last stage is in training and will take `steps`. Other folds than `fold` are drawn thin.
    """
    history = list(stages.values())[-1][fold]
    scores = {name: [(r["step"], r[name]) for r in history if name in r] for name in SCORES}
    has_scores = any(scores.values())
    heights = [CURVES, *([CURVES] if has_scores else [one.height() for one in forming])]
    figure = sheet(9.0, sum(heights), above=0.3)
    with style():
        top, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        axes = top.subplots(1, len(stages), squeeze=False)[0]
    draw_stages(axes, stages)
    for ax in axes:
        for line in ax.lines[1::2]:  # the running means
            line.set_linewidth(2.2 if line.get_label() == fold_name(fold) else 1.0)
    axes[-1].set_xlim(0, steps)
    if has_scores:
        _draw_scores(below[0], scores, steps)
    else:
        for part, one in zip(below, forming, strict=True):
            _draw_forming(part, one)
    return figure


@style()
def _draw_scores(
    figure: SubFigure, scores: Mapping[str, Sequence[tuple[float, float]]], steps: int
) -> None:
    """Dots for the scores of training surfaces by step, and a line where defective begins."""
    ax, (good, bad) = figure.subplots(), (scores[name] for name in SCORES)
    x, y = np.array([*good, *bad]).T
    scatter_by_label(ax, np.repeat([False, True], [len(good), len(bad)]), x, y)
    ax.axhline(0, color=INK, linewidth=1, linestyle=":")
    ax.set(xlim=(0, steps), xlabel="step", ylabel="score (logit)")
    ax.set_title("Scores of training surfaces, the worst of each kind")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


@picture_style
def _draw_forming(figure: SubFigure, forming: Forming) -> None:
    """A row for each surface: itself, then its masks by step."""
    grid = figure.subplots(len(forming.images), TILES, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for row, (axes, image) in enumerate(zip(grid, forming.images, strict=True)):
        show_image(axes[0], image, forming.outlines[row])
        for ax, masks in zip(axes[1:], forming.masks.values(), strict=False):
            show_image(ax, masks[row])
    titles = [forming.title, *(f"step {step}" for step in forming.masks)]
    for ax, title in zip(grid[0], titles, strict=False):
        ax.set_title(title, fontsize=8.5, pad=3)
