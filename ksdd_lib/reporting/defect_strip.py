"""Rows of image, annotation, output and score: a run's defective and flagged surfaces."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksdd_lib.evaluation.predictions import Prediction, verdict
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, GOOD, INK, Keywords
from ksdd_lib.reporting.surface_pictures import (
    GRAY,
    HEAT,
    OUTLINE,
    JudgedSurface,
    outlines_of,
    picture_style,
    shortened,
)

PANEL, GAP, NOTE, HEAD = 3.45, 0.08, 2.0, 0.62  # inches: a picture, between, the note, the head
FINEST = 800  # pixels: twice what a panel shows


@picture_style
def defect_strip(surfaces: Sequence[JudgedSurface], score_range: tuple[float, float]) -> Figure:
    """Rows of image, annotation, output and score; tall surfaces lie on their left side.

    The output is drawn on one fixed scale, probability 0 to 1, so that rows can be compared.

    Args:
        surfaces: in the order to show.
        score_range: the ends of the number line in logits, see `logit_range`.
    """
    shapes = [_lying(surface.image).shape for surface in surfaces]
    row_height = PANEL * float(np.median([height / width for height, width in shapes] or [0.4]))
    row_height = max(row_height, 0.75)
    size = 3 * (PANEL + GAP) + NOTE + 2 * GAP, HEAD + len(surfaces) * (row_height + GAP)
    figure = Figure(figsize=size)
    # One sheet measured in inches: axes for each picture would take four times as long.
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]))
    ax.set_axis_off()
    ax.autoscale(enable=False)
    for index, surface in enumerate(surfaces):
        bottom = size[1] - HEAD - (index + 1) * (row_height + GAP) + GAP
        _draw_surface(ax, surface, bottom, row_height)
        _draw_note(ax, surface.prediction, bottom, row_height, score_range)
    _draw_head(ax, any(_is_tall(surface.image) for surface in surfaces))
    return figure


def logit_range(rows: Sequence[Prediction]) -> tuple[float, float]:
    """The least and the greatest score or threshold of the rows, with a margin."""
    values = [value for row in rows for value in (row.score, row.threshold or 0.0)] or [0.0]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _left(column: int) -> float:
    """Where a column of the strip begins, in inches."""
    return GAP + column * (PANEL + GAP)


def _is_tall(pixels: np.ndarray) -> bool:
    return pixels.shape[0] > pixels.shape[1]


def _lying(pixels: np.ndarray) -> np.ndarray:
    """A tall picture turned counter-clockwise by a quarter, its top to the left."""
    return np.rot90(pixels) if _is_tall(pixels) else pixels


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A picture that lies, at no more than `FINEST` pixels wide; each pixel keeps its share."""
    height, width = pixels.shape
    size = min(width, FINEST), max(1, round(height * min(1.0, FINEST / width)))
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


def _draw_surface(ax: Axes, surface: JudgedSurface, bottom: float, row_height: float) -> None:
    image = _shrunk(_lying(surface.image))
    mask = _shrunk(_lying(surface.annotation).astype(np.float32)) > 0
    output = surface.output.astype(np.float32)
    output = np.rot90(output) if _is_tall(surface.image) else output
    pixel = min(PANEL / image.shape[1], row_height / image.shape[0])  # inches
    top, (height, width) = bottom + row_height, (pixel * side for side in image.shape)
    heat: Keywords = HEAT | {"interpolation": "nearest"}
    for column, (picture, look) in enumerate(((image, GRAY), (image, GRAY), (output, heat))):
        left = _left(column)
        place = left, left + width, top - height, top
        ax.imshow(picture, extent=place, aspect="auto", **look)
        if column > 0:
            for outline in outlines_of(mask):
                x, y = left + pixel * (outline[:, 0] + 0.5), top - pixel * (outline[:, 1] + 0.5)
                ax.plot(x, y, color=OUTLINE, linewidth=1.3)
    if not mask.any():
        box = {"boxstyle": "square,pad=0.3", "facecolor": "white", "edgecolor": "none"}
        style: Keywords = {"fontsize": 8.5, "ha": "center", "va": "center", "bbox": box}
        ax.text(_left(1) + width / 2, top - height / 2, "no defect annotated", **style)


def _draw_note(
    ax: Axes, row: Prediction, bottom: float, row_height: float, score_range: tuple[float, float]
) -> None:
    kind = verdict(row)
    color = GOOD if kind == "found" else DEFECTIVE
    title = f"{kind if kind == 'found' else kind.upper()}, fold {row.fold}"
    numbers = f"score {row.score:.2f}, threshold {row.threshold:.2f}".replace("-", "−")
    left, top = _left(3) + 0.06, bottom + row_height
    ax.text(left, top - 0.04, title, va="top", color=color, fontsize=10.5, fontweight="bold")
    ax.text(left, top - 0.26, shortened(row.image, 27), va="top", fontsize=9)
    ax.text(left, top - 0.43, numbers, va="top", fontsize=8.5)
    right, line = left + NOTE - 0.12, bottom + 0.18 * row_height
    score, threshold = np.interp([row.score, row.threshold], score_range, (left, right))
    ax.plot([left, right], [line, line], color=FAINT, linewidth=1)
    ax.plot([threshold] * 2, [line - 0.1, line + 0.1], color=INK, linewidth=1.5)
    ax.plot(score, line, "o", color=color, markersize=6)


def _draw_head(ax: Axes, turned: bool) -> None:
    titles = (
        "image (top edge at the left)" if turned else "image",
        "annotation (outlined)",
        "output: probability",
        "score ● and threshold |",
    )
    base = ax.get_ylim()[1] - HEAD + 0.1
    for column, title in enumerate(titles):
        ax.text(_left(column), base, title, va="bottom", fontsize=10, fontweight="bold")
    left, width = _left(2) + 1.75, 1.5
    place = left, left + width, base + 0.03, base + 0.13
    ax.imshow(np.linspace(0, 1, 128)[None], extent=place, aspect="auto", cmap=HEAT["cmap"])
    for value in (0, 0.1, 0.5, 1):
        x = left + width * float(HEAT["norm"](value))
        ax.text(x, base + 0.16, f"{value:g}", ha="center", va="bottom", fontsize=8)
