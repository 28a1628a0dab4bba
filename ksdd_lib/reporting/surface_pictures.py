"""Pictures of surfaces: beside each other, or in rows with annotation, output and score.

As in `visualize`, functions take arrays, draw, and return the figure; they never show or save.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from ksdd_lib.evaluation.predictions import Prediction, verdict
from ksdd_lib.reporting.plots import (
    DEFECTIVE,
    FAINT,
    FOLD_COLORS,
    GOOD,
    INK,
    STYLE,
    stamp,
    training_curve,
)

OUTLINE = "#56B4E9"
OUTPUT_COLORS = "inferno"
OUTPUT_SCALE = PowerNorm(0.5, vmin=0, vmax=1)  # 1 % is visible: what a miss did answer


@dataclass(frozen=True)
class JudgedSurface:
    """All that one row of the strip shows.

    Attributes:
        prediction: its row of predictions.csv, with threshold and verdict.
        image: (H, W) uint8.
        annotation: (H, W) bool.
        output: (h, w) in [0, 1], the segmentation network's probability at any size.
    """

    prediction: Prediction
    image: np.ndarray
    annotation: np.ndarray
    output: np.ndarray


PANEL, GAP, NOTE, HEAD = 3.45, 0.08, 2.0, 0.62  # inches: a picture, between, the note, the head
FINEST = 800  # pixels: twice what a panel shows


def defect_strip(
    surfaces: Sequence[JudgedSurface], score_range: tuple[float, float] | None = None
) -> Figure:
    """Rows of image, annotation, output and score; tall surfaces lie on their left side.

    The output is drawn on one fixed scale, probability 0 to 1, so that rows can be compared;
    its colours follow the square root, so that a weak answer is seen too.

    Args:
        surfaces: in the order to show.
        score_range: the ends of the number line in logits; by default of these surfaces.
    """
    score_range = score_range or logit_range([surface.prediction for surface in surfaces])
    shapes = [_lying(surface.image).shape for surface in surfaces]
    row_height = PANEL * float(np.median([height / width for height, width in shapes] or [0.4]))
    row_height = max(row_height, 0.75)
    size = 3 * (PANEL + GAP) + NOTE + 2 * GAP, HEAD + len(surfaces) * (row_height + GAP)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=size)
        # One sheet measured in inches: axes for each picture would take four times as long.
        ax = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]))
        ax.set_axis_off()
        ax.autoscale(enable=False)
        for index, surface in enumerate(surfaces):
            bottom = size[1] - HEAD - (index + 1) * (row_height + GAP) + GAP
            _draw_surface(ax, surface, bottom, row_height)
            _draw_note(ax, surface.prediction, bottom, row_height, score_range)
        _draw_head(ax, any(s.image.shape[0] > s.image.shape[1] for s in surfaces))
    return figure


def logit_range(rows: Sequence[Prediction]) -> tuple[float, float]:
    """The least and the greatest score or threshold of the rows, with a margin."""
    values = [value for row in rows for value in (row.score, row.threshold or 0.0)] or [0.0]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _left(column: int) -> float:
    """Where a column of the strip begins, in inches."""
    return GAP + column * (PANEL + GAP)


def _lying(pixels: np.ndarray) -> np.ndarray:
    """A tall picture turned counter-clockwise by a quarter, its top to the left."""
    return np.rot90(pixels) if pixels.shape[0] > pixels.shape[1] else pixels


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A picture that lies, at no more than `FINEST` pixels wide; each pixel keeps its share."""
    height, width = pixels.shape
    size = min(width, FINEST), max(1, round(height * min(1.0, FINEST / width)))
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


def _draw_surface(ax: Axes, surface: JudgedSurface, bottom: float, row_height: float) -> None:
    image = _shrunk(_lying(surface.image))
    mask = _shrunk(_lying(surface.annotation).astype(np.float32)) > 0
    output = surface.output.astype(np.float32)
    output = np.rot90(output) if surface.image.shape[0] > surface.image.shape[1] else output
    pixel = min(PANEL / image.shape[1], row_height / image.shape[0])  # inches
    top, (height, width) = bottom + row_height, (pixel * side for side in image.shape)
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255}
    heat = {"cmap": OUTPUT_COLORS, "norm": OUTPUT_SCALE, "interpolation": "nearest"}
    for column, (picture, style) in enumerate(((image, gray), (image, gray), (output, heat))):
        left = _left(column)
        place = {"extent": (left, left + width, top - height, top), "aspect": "auto"}
        ax.imshow(picture, **style, **place)
        if column > 0:
            for outline in _outlines(mask):
                x, y = left + pixel * (outline[:, 0] + 0.5), top - pixel * (outline[:, 1] + 0.5)
                ax.plot(x, y, color=OUTLINE, linewidth=1.3)
    if not mask.any():
        box = {"boxstyle": "square,pad=0.3", "facecolor": "white", "edgecolor": "none"}
        style = {"fontsize": 8.5, "ha": "center", "va": "center", "bbox": box}
        ax.text(_left(1) + width / 2, top - height / 2, "no defect annotated", **style)


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines (n, 2) of x and y just outside a mask, so that thin cracks stay seen."""
    margin = 2 * max(1, round(0.008 * mask.shape[1])) + 1  # pixels
    around = cv2.dilate(mask.astype(np.uint8), np.ones((margin, margin), np.uint8))
    found, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [np.concatenate([line[:, 0], line[:1, 0]]) for line in found]


def _draw_note(
    ax: Axes, row: Prediction, bottom: float, row_height: float, score_range: tuple[float, float]
) -> None:
    kind = verdict(row)
    color = GOOD if kind == "found" else DEFECTIVE
    title = f"{kind if kind == 'found' else kind.upper()}, fold {row.fold}"
    name = _shortened(row.image, 27)
    numbers = f"score {row.score:.2f}, threshold {row.threshold:.2f}".replace("-", "−")
    left, top = _left(3) + 0.06, bottom + row_height
    ax.text(left, top - 0.04, title, va="top", color=color, fontsize=10.5, fontweight="bold")
    ax.text(left, top - 0.26, name, va="top", fontsize=9)
    ax.text(left, top - 0.43, numbers, va="top", fontsize=8.5)
    right, line = left + NOTE - 0.12, bottom + 0.18 * row_height
    score, threshold = np.interp([row.score, row.threshold], score_range, (left, right))
    ax.plot([left, right], [line, line], color=FAINT, linewidth=1)
    ax.plot([threshold] * 2, [line - 0.1, line + 0.1], color=INK, linewidth=1.5)
    ax.plot(score, line, "o", color=color, markersize=6)


def _shortened(name: str, most: int) -> str:
    """A name of at most so many letters, its middle left out."""
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head - most + 1 :]}"


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
    place = {"extent": (left, left + width, base + 0.03, base + 0.13), "aspect": "auto"}
    ramp = np.linspace(0, 1, 128)[None]
    ax.imshow(ramp, cmap=OUTPUT_COLORS, **place)
    for value in (0, 0.1, 0.5, 1):
        x = left + width * float(OUTPUT_SCALE(value))
        ax.text(x, base + 0.16, f"{value:g}", ha="center", va="bottom", fontsize=8)


# A training while it runs


@dataclass(frozen=True)
class Forming:
    """How the masks of some surfaces form.

    Attributes:
        images: each (H, W) uint8.
        outlines: each (H, W) bool, the annotation.
        masks: step -> probabilities (N, h, w), in the order of the images.
    """

    images: Sequence[np.ndarray]
    outlines: Sequence[np.ndarray]
    masks: Mapping[int, np.ndarray]


def training_view(
    stages: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]],
    fold: int,
    steps: int,
    forming: Forming | None = None,
) -> Figure:
    """The losses of a training, and below them the masks of some surfaces as they form.

    Args:
        stages: stage name -> fold -> history rows; the last stage is in training.
        fold: the one in training; the others are drawn thin.
        steps: that the last stage will take.
    """
    curves, strip = 2.6, _strip_height(forming)
    with matplotlib.rc_context(STYLE | {"axes.titlesize": 9.5}):
        figure = Figure(figsize=(9.0, curves + strip), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.3 / (curves + strip)))
        above, below = figure.subfigures(2, 1, height_ratios=(curves, max(strip, 1e-3)))
        axes = above.subplots(1, len(stages), squeeze=False)[0]
    for ax, (stage, histories) in zip(axes, stages.items(), strict=True):
        for number, history in histories.items():
            color = FOLD_COLORS[number % len(FOLD_COLORS)]
            if history:
                training_curve(history, ax, label=f"fold {number}", color=color)
        for line in ax.lines[1::2]:  # the running means
            line.set_linewidth(2.2 if line.get_label() == f"fold {fold}" else 1.0)
        ax.set_title(f"{stage.capitalize()} network: training loss")
    axes[-1].set_xlim(0, steps)
    if forming:
        _draw_forming(below, forming)
    return figure


def head(figure: Figure, line: str, is_generated: bool) -> Figure:
    """Write a line over a figure, and GENERATED where the surfaces are."""
    with matplotlib.rc_context(STYLE):
        place = 0.08 / figure.get_figwidth(), 1 - 0.08 / figure.get_figheight()
        figure.text(*place, line, ha="left", va="top", fontsize=9.5).set_in_layout(False)
    return stamp(figure) if is_generated else figure


TILES = 10
"""Places in a row of forming masks: the surface, and one for each moment."""


def _strip_height(forming: Forming | None) -> float:
    """Inches for one row of upright tiles for each surface."""
    if forming is None:
        return 0.0
    ratios = [image.shape[0] / image.shape[1] for image in forming.images]
    return 0.35 + sum(min(1.4, 0.8 * ratio) + 0.1 for ratio in ratios)


def _draw_forming(figure: SubFigure, forming: Forming) -> None:
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "center"}):
        grid = figure.subplots(len(forming.images), TILES, squeeze=False)
        for ax in grid.flat:
            ax.set_axis_off()
        heat = {"cmap": OUTPUT_COLORS, "norm": OUTPUT_SCALE, "interpolation": "nearest"}
        for row, (axes, image) in enumerate(zip(grid, forming.images, strict=True)):
            axes[0].imshow(image, cmap="gray", vmin=0, vmax=255)
            if forming.outlines[row].any():
                axes[0].contour(forming.outlines[row], [0.5], colors=OUTLINE, linewidths=1)
            for ax, (step, masks) in zip(axes[1:], forming.masks.items(), strict=False):
                ax.imshow(masks[row], **heat)
                if row == 0:
                    ax.set_title(f"step {step}", fontsize=8.5, fontweight="normal", pad=3)
        grid[0, 0].set_title("surface", fontsize=8.5, fontweight="normal", pad=3)


# Surfaces beside each other


def gallery(
    pictures: Sequence[np.ndarray],
    outlines: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Surfaces upright beside each other.

    Args:
        pictures: each (H, W), uint8 drawn in gray, or float drawn as a probability from 0 to 1.
        outlines: a mask (H, W) bool for each; its edge is drawn on the picture.
        titles: a short text for each.
    """
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = min(1.7, 13.0 / len(pictures))
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "center"}):
        height = width * ratio + 0.65
        figure = Figure(figsize=(width * len(pictures), height), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.2 / height))  # room for the stamp
        for index, ax in enumerate(figure.subplots(1, len(pictures), squeeze=False)[0]):
            picture = pictures[index]
            if picture.dtype == np.uint8:
                ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
            else:
                ax.imshow(picture, cmap=OUTPUT_COLORS, norm=OUTPUT_SCALE, interpolation="nearest")
            if outlines is not None and outlines[index].any():
                ax.contour(outlines[index], [0.5], colors=OUTLINE, linewidths=1)
            if titles is not None:
                ax.set_title(titles[index], fontsize=9, fontweight="normal", pad=4)
            ax.set_axis_off()
    return figure


def overlay(surface: JudgedSurface, opacity: float = 0.5, side: int = 160) -> Figure:
    """A surface, the output laid over it, and the place that matters in full resolution.

    That place is the annotated defect, else where the output is highest. The output's colours are
    on the fixed scale of all pictures, 0 to 1.

    Args:
        opacity: of the output, from 0 (not seen) to 1; the surface shines through where the
            output is weak, and is covered where it is certain and `opacity` is 1.
        side: of the square cut-out, in the image's own pixels.
    """
    image, annotation = surface.image, surface.annotation
    height, width = image.shape
    full = cv2.resize(surface.output.astype(np.float32), (width, height))
    covered = opacity * np.clip(np.asarray(OUTPUT_SCALE(full)), 0, 1)
    cut = _place_that_matters(surface, side)
    ratio = height / width
    panel = min(2.6, 5.2 / ratio)
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "center"}):
        high = panel * ratio + 0.75
        figure = Figure(figsize=(2 * panel + high - 0.4, high), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.24 / high))
        axes = figure.subplots(1, 3, width_ratios=(panel, panel, high - 0.75))
        for ax, place in ((axes[0], None), (axes[1], None), (axes[2], cut)):
            rows, columns = place or (slice(None), slice(None))
            ax.imshow(image[rows, columns], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if ax is not axes[0]:
                heat = {"cmap": OUTPUT_COLORS, "norm": OUTPUT_SCALE}
                ax.imshow(full[rows, columns], alpha=covered[rows, columns], **heat)
            mask = annotation[rows, columns]
            if mask.any() and ax is not axes[2]:
                ax.contour(mask, [0.5], colors=OUTLINE, linewidths=1)
            ax.set_axis_off()
            ax.set_anchor("N")
        corner = (cut[1].start, cut[0].start)
        size = cut[1].stop - cut[1].start, cut[0].stop - cut[0].start
        axes[1].add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1))
        titles = ("surface, annotation", f"output at {opacity:.0%}", "the white square, enlarged")
        for ax, title in zip(axes, titles, strict=True):
            ax.set_title(title, fontsize=9, fontweight="normal", pad=4)
    return figure


CLOSE_UP = 0.22
"""Side of a close-up, as a share of the surface's longer side: the crack and its ground."""


def close_ups(surfaces: Sequence[JudgedSurface]) -> Figure:
    """One enlarged place of each surface beside each other: what was missed, or raised an alarm.

    That place is the annotated defect, outlined, else where the output is highest.
    """
    tile = 1.9  # inches
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "left"}):
        figure = Figure(figsize=(tile * len(surfaces), tile + 0.55), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.2 / (tile + 0.55)))
        axes = figure.subplots(1, len(surfaces), squeeze=False)[0]
        for surface, ax in zip(surfaces, axes, strict=True):
            rows, columns = _place_that_matters(surface, round(CLOSE_UP * max(surface.image.shape)))
            cut = surface.image[rows, columns]
            ax.imshow(cut, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            for line in _outlines(surface.annotation[rows, columns]):
                ax.plot(line[:, 0], line[:, 1], color=OUTLINE, linewidth=1.1)
            ax.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5))
            kind, name = verdict(surface.prediction), _shortened(surface.prediction.image, 24)
            ax.set_title(f"{kind.upper()}\n{name}", fontsize=8.5, color=DEFECTIVE, pad=3)
            ax.set_axis_off()
            ax.text(
                *(0.5, -0.03),
                f"{cut.shape[1]} pixels across",
                transform=ax.transAxes,
                fontsize=7,
                ha="center",
                va="top",
            )
    return figure


def _place_that_matters(surface: JudgedSurface, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square around the annotated defect, else the highest output."""
    if surface.annotation.any():
        return _around(surface.annotation, side)
    height, width = surface.image.shape
    full = cv2.resize(surface.output.astype(np.float32), (width, height))
    return _around(full >= full.max(), side)


def _around(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square around the middle of a mask, inside the picture."""
    found = []
    for where, length in zip(np.nonzero(mask), mask.shape, strict=True):
        start = int(np.clip(np.median(where) - side / 2, 0, max(0, length - side)))
        found.append(slice(start, min(length, start + side)))
    return found[0], found[1]


SHEET = 48
"""Pictures on a contact sheet."""


def contact_sheet(
    pictures: Sequence[np.ndarray | None],
    titles: Sequence[str],
    alarming: Sequence[bool],
    heading: str = "",
) -> Figure:
    """Small pictures in rows, each with its verdict; those that alarm have an orange frame.

    Args:
        pictures: each (H, W) uint8; None where a file could not be read.
        titles: a short text for each.
        alarming: whether each needs a second look.
        heading: stands above all.
    """
    across = min(8, max(1, len(pictures)))
    down = -(-len(pictures) // across)
    known = [picture.shape[0] / picture.shape[1] for picture in pictures if picture is not None]
    ratio = min(2.8, float(np.median(known or [1.0])))
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "center"}):
        height = down * (1.25 * ratio + 0.42) + 0.3
        figure = Figure(figsize=(1.35 * across, height), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.24 / height))
        if heading:
            figure.suptitle(heading, fontsize=8)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for ax in grid[len(pictures) :]:
            ax.set_axis_off()
        for ax, picture, title, alarms in zip(grid, pictures, titles, alarming, strict=False):
            shown = np.full((8, 8), 235, np.uint8) if picture is None else _small(picture)
            ax.imshow(shown, cmap="gray", vmin=0, vmax=255)
            if picture is None:
                ax.text(0.5, 0.5, "unreadable", ha="center", va="center", transform=ax.transAxes)
            ax.set_title(title, fontsize=7, fontweight="normal", pad=3)
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set(visible=True, color=DEFECTIVE if alarms else FAINT)
                spine.set_linewidth(2.0 if alarms else 0.8)
    return figure


def _small(picture: np.ndarray, most: int = 320) -> np.ndarray:
    """A picture of at most `most` pixels in each direction."""
    scale = min(1.0, most / max(picture.shape))
    size = tuple(max(1, round(side * scale)) for side in picture.shape[::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
