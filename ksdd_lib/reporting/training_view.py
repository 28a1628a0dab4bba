"""A training while it runs, as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure

from ksdd_lib.reporting.plots import Histories, draw_stages, sheet, style
from ksdd_lib.reporting.surface_pictures import picture_style, show_image
from ksdd_lib.runs.run import fold_name

CURVES = 2.6  # inches, the height of the loss curves
TILES = 10  # places in a row of forming masks: the surface, and one for each moment


@dataclass(frozen=True)
class Forming:
    """How the masks of some surfaces form."""

    images: Sequence[np.ndarray]  # each (H, W) uint8
    outlines: Sequence[np.ndarray]  # each (H, W) bool, the annotation
    masks: Mapping[int, np.ndarray]  # step -> probabilities (N, h, w), in the order of the images

    def height(self) -> float:
        """Inches for one row of upright tiles for each surface."""
        ratios = [image.shape[0] / image.shape[1] for image in self.images]
        return 0.35 + sum(min(1.4, 0.8 * ratio) + 0.1 for ratio in ratios)


def training_view(
    stages: Histories, fold: int, steps: int, heading: str, forming: Forming | None = None
) -> Figure:
    """The losses of a training, and below them the masks of some surfaces as they form.

    The last stage is in training and will take `steps`. Other folds than `fold` are drawn thin.
    """
    below = forming.height() if forming else 0.0
    figure = sheet(9.0, CURVES + below, above=0.3)
    with style():
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(CURVES, max(below, 1e-3)))
        top, bottom = parts[:, 0]
        axes = top.subplots(1, len(stages), squeeze=False)[0]
        place = 0.08 / figure.get_figwidth(), 1 - 0.08 / figure.get_figheight()
        figure.text(*place, heading, ha="left", va="top", fontsize=9.5).set_in_layout(False)
    draw_stages(axes, stages)
    for ax in axes:
        for line in ax.lines[1::2]:  # the running means
            line.set_linewidth(2.2 if line.get_label() == fold_name(fold) else 1.0)
    axes[-1].set_xlim(0, steps)
    if forming:
        _draw_forming(bottom, forming)
    return figure


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
    titles = ["surface", *(f"step {step}" for step in forming.masks)]
    for ax, title in zip(grid[0], titles, strict=False):
        ax.set_title(title, fontsize=8.5, pad=3)
