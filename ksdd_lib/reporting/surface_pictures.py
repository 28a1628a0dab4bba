"""Pictures of surfaces beside each other, with annotation and output."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ksdd_lib.evaluation.predictions import Prediction, verdict
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, GOOD, INK, Keywords, sheet, style

OUTLINE = "#56B4E9"
CLOSE_UP = 0.22  # side of a close-up, as a share of the surface's longer side
SHEET = 48  # pictures on a contact sheet
PANEL, GAP, NOTE, HEAD = 3.45, 0.08, 2.0, 0.62  # inches: a picture, between, the note, the head
FINEST = 800  # pixels: twice what a panel of the strip shows

GRAY: Keywords = {"cmap": "gray", "vmin": 0, "vmax": 255}
HEAT: Keywords = {"cmap": "inferno", "norm": PowerNorm(0.5, vmin=0, vmax=1)}
"""The colours of an output follow its square root, so that 1 % is seen: what a miss did answer."""

_rgba = [
    *colormaps["gray"](np.linspace(0, 1, 128)),
    *colormaps[HEAT["cmap"]](np.linspace(0, 1, 126)),
    *to_rgba_array([OUTLINE, DEFECTIVE]),
]
CARD_COLOURS = np.rint(255 * np.array(_rgba)[:, :3]).astype(np.uint8).tobytes()
"""The palette of a card: 128 grays, 126 colours of the output, the outline, and words."""

picture_style = style(axes_grid=False, axes_titlelocation="center", axes_titleweight="normal")


@dataclass(frozen=True)
class JudgedSurface:
    """One test surface with all that is shown of it."""

    prediction: Prediction
    image: np.ndarray  # (H, W) uint8
    annotation: np.ndarray  # (H, W) bool
    output: np.ndarray  # (h, w) in [0, 1], of any size: the probability of a defect

    def full_output(self) -> np.ndarray:
        """The output (H, W) at the size of the image."""
        return cv2.resize(self.output.astype(np.float32), self.image.shape[::-1])

    def closest(self, side: int) -> tuple[slice, slice]:
        """Rows and columns of a square around the annotated defect, else the highest output."""
        mask = self.annotation
        if not mask.any():
            output = self.full_output()
            mask = output >= output.max()
        found = []
        for where, length in zip(np.nonzero(mask), mask.shape, strict=True):
            start = int(np.clip(np.median(where) - side / 2, 0, max(0, length - side)))
            found.append(slice(start, min(length, start + side)))
        return found[0], found[1]


def show_image(ax: Axes, pixels: np.ndarray, outline: np.ndarray | None = None) -> None:
    """Draw a picture, uint8 in gray or floats as probabilities, and the edge of a bool mask."""
    heat: Keywords = HEAT | {"interpolation": "nearest"}
    ax.imshow(pixels, **(GRAY if pixels.dtype == np.uint8 else heat))
    if outline is not None and outline.any():
        ax.contour(outline, [0.5], colors=OUTLINE, linewidths=1)
    ax.set_axis_off()


@picture_style
def gallery(
    pictures: Sequence[np.ndarray],
    outlines: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Surfaces upright beside each other, each as of `show_image`."""
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = min(1.7, 13.0 / len(pictures))
    figure = sheet(width * len(pictures), width * ratio + 0.65, above=0.2)
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for index, (ax, picture) in enumerate(zip(axes, pictures, strict=True)):
        show_image(ax, picture, outlines[index] if outlines else None)
        if titles:
            ax.set_title(titles[index], fontsize=9, pad=4)
    return figure


@picture_style
def verdicts(
    pictures: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    titles: Sequence[str],
    words: Sequence[str],
    is_right: Sequence[bool],
) -> Figure:
    """Surfaces (H, W) upright, each with its title; below, its output over it and the verdict."""
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = min(1.5, 13.0 / len(pictures))
    figure = sheet(width * len(pictures), 2 * width * ratio + 0.8, above=0.2)
    above, below = figure.subplots(2, len(pictures), squeeze=False)
    for index, (picture, output) in enumerate(zip(pictures, outputs, strict=True)):
        show_image(above[index], picture)
        show_image(below[index], picture)
        below[index].imshow(output, alpha=_covered(output), **HEAT)
        color = GOOD if is_right[index] else DEFECTIVE
        above[index].set_title(titles[index], fontsize=9, pad=4)
        below[index].set_title(words[index], fontsize=9, pad=4, color=color, fontweight="bold")
    return figure


@picture_style
def overlay(surface: JudgedSurface, opacity: float) -> Figure:
    """A surface, the output laid over it at an opacity from 0 to 1, and its `closest` place."""
    output, cut = surface.full_output(), surface.closest(160)
    covered = opacity * _covered(output)
    ratio = surface.image.shape[0] / surface.image.shape[1]
    panel = min(2.6, 5.2 / ratio)
    height = panel * ratio + 0.75
    figure = sheet(2 * panel + height - 0.4, height, above=0.24)
    axes = figure.subplots(1, 3, width_ratios=(panel, panel, height - 0.75))
    titles = ("surface, annotation", f"output at {opacity:.0%}", "the white square, enlarged")
    everything = slice(None), slice(None)
    for ax, place, title in zip(axes, (everything, everything, cut), titles, strict=True):
        ax.imshow(surface.image[place], interpolation="nearest", **GRAY)
        if ax is not axes[0]:
            ax.imshow(output[place], alpha=covered[place], **HEAT)
        if surface.annotation.any() and ax is axes[0]:
            ax.contour(surface.annotation, [0.5], colors=OUTLINE, linewidths=1)
        ax.set_axis_off()
        ax.set_anchor("N")
        ax.set_title(title, fontsize=9, pad=4)
    rows, columns = cut
    box = (columns.start, rows.start), columns.stop - columns.start, rows.stop - rows.start
    frame = axes[1].add_patch(Rectangle(*box, fill=False, edgecolor="white", linewidth=1))
    frame.set_in_layout(False)  # at the edge it would make this panel the smallest
    return figure


def _covered(output: np.ndarray) -> np.ndarray:
    """How much of a surface its output hides: whole from a probability of 0.25 on."""
    return np.clip(2 * np.asarray(HEAT["norm"](output)), 0, 1)


@picture_style
def close_ups(surfaces: Sequence[JudgedSurface]) -> Figure:
    """The place that matters of each surface, see `closest`, enlarged; defects are outlined."""
    tile = 1.9  # inches
    figure = sheet(tile * len(surfaces), tile + 0.55, above=0.2)
    axes = figure.subplots(1, len(surfaces), squeeze=False)[0]
    for surface, ax in zip(surfaces, axes, strict=True):
        place = surface.closest(round(CLOSE_UP * max(surface.image.shape)))
        cut = surface.image[place]
        ax.imshow(cut, interpolation="antialiased", **GRAY)
        for line in outlines_of(surface.annotation[place]):
            ax.plot(line[:, 0], line[:, 1], color=OUTLINE, linewidth=1.1)
        ax.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5))
        title = f"{verdict(surface.prediction).upper()}\n{shortened(surface.prediction.image, 24)}"
        ax.set_title(title, loc="left", pad=3, fontsize=8.5, fontweight="bold", color=DEFECTIVE)
        ax.set_axis_off()
        look: Keywords = {"transform": ax.transAxes, "fontsize": 7, "ha": "center", "va": "top"}
        ax.text(0.5, -0.03, f"{cut.shape[1]} pixels across", **look)
    return figure


def outlines_of(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines (n, 2) of x and y just outside a mask, so that thin cracks stay seen."""
    margin = 2 * max(1, round(0.008 * mask.shape[1])) + 1  # pixels
    around = cv2.dilate(mask.astype(np.uint8), np.ones((margin, margin), np.uint8))
    found, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [np.concatenate([line[:, 0], line[:1, 0]]) for line in found]


def shortened(name: str, most: int) -> str:
    """A name of at most so many letters, its middle left out."""
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head - most + 1 :]}"


@picture_style
def contact_sheet(
    pictures: Sequence[np.ndarray | None],
    titles: Sequence[str],
    alarming: Sequence[bool],
    heading: str = "",
) -> Figure:
    """Small pictures (H, W) uint8 in rows, the alarming ones framed; None where unreadable."""
    across = min(8, max(1, len(pictures)))
    down = -(-len(pictures) // across)
    known = [picture.shape[0] / picture.shape[1] for picture in pictures if picture is not None]
    ratio = min(2.8, float(np.median(known or [1.0])))
    figure = sheet(1.35 * across, down * (1.25 * ratio + 0.42) + 0.3, above=0.24)
    if heading:
        figure.suptitle(heading, fontsize=8)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for ax in grid[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, title, alarms in zip(grid, pictures, titles, alarming, strict=False):
        if picture is None:
            picture = np.full((8, 8), 235, np.uint8)
            ax.text(0.5, 0.5, "unreadable", ha="center", va="center", transform=ax.transAxes)
        _show_small(ax, small(picture), alarms)
        ax.set_title(title, fontsize=7, pad=3)
    return figure


def card(surface: JudgedSurface, longest: int, is_generated: bool) -> bytes:
    """A PNG of a surface, upright, beside its output, both with the annotation outlined.

    Neither side of the surface has more than `longest` pixels. A wide one has its output below.
    """
    height, width = surface.image.shape
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    gray = cv2.resize(surface.image, size, interpolation=cv2.INTER_AREA) // 2
    output = cv2.resize(surface.output.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    heat = 128 + np.rint(125 * np.asarray(HEAT["norm"](output))).astype(np.uint8)
    mask = cv2.resize(surface.annotation.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    lines = [np.rint(line).astype(np.int32) for line in outlines_of(mask)]
    for panel in (gray, heat):
        cv2.polylines(panel, lines, True, 254, 1 + max(size) // 400)
    if is_generated:
        cv2.putText(heat, "GENERATED", (4, size[1] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
    axis = int(height >= width)
    gap = np.full((4, size[0]) if axis == 0 else (size[1], 4), 127, np.uint8)
    whole = Image.fromarray(np.concatenate([gray, gap, heat], axis))
    whole.putpalette(CARD_COLOURS)
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()


@picture_style
def item_rows(rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[bool]]]) -> Figure:
    """A row for each title: small pictures (H, W) uint8 of one part, the defective ones framed."""
    across = max(len(pictures) for _, pictures, _ in rows)
    ratio = float(np.median([p.shape[0] / p.shape[1] for _, some, _ in rows for p in some]))
    height = min(1.6, 1.05 * ratio)
    size = max(3.0, height / ratio * 1.1 * across), len(rows) * (height + 0.3) + 0.1
    figure = sheet(*size, above=0.2)
    figure.get_layout_engine().set(hspace=0.3 / height)  # type: ignore[call-arg, union-attr]
    for axes, (title, pictures, defective) in zip(
        figure.subplots(len(rows), across, squeeze=False), rows, strict=True
    ):
        for ax in axes[len(pictures) :]:
            ax.set_axis_off()
        for ax, picture, alarms in zip(axes, pictures, defective, strict=False):
            _show_small(ax, picture, alarms)
        place: Keywords = {"transform": axes[0].transAxes, "va": "bottom", "fontsize": 8}
        axes[0].text(0, 1.02, title, **place).set_in_layout(False)  # it reaches over its neighbours
    return figure


def small(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W) of at most 320 pixels a side."""
    scale = min(1.0, 320 / max(picture.shape))
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _show_small(ax: Axes, picture: np.ndarray, alarms: bool) -> None:
    ax.imshow(picture, **GRAY)
    ax.set(xticks=[], yticks=[])
    color, width = (DEFECTIVE, 2.0) if alarms else (FAINT, 0.8)
    ax.spines[:].set(visible=True, color=color, linewidth=width)


@picture_style
def defect_strip(surfaces: Sequence[JudgedSurface], score_range: tuple[float, float]) -> Figure:
    """Rows of image, annotation, output and score; tall surfaces lie on their left side.

    All outputs have one scale, 0 to 1; `score_range` are the ends of the scores' line in logits.
    """
    shapes = [sorted(surface.image.shape) for surface in surfaces]
    ratio = float(np.median([short / long for short, long in shapes] or [0.4]))
    row_height = max(PANEL * ratio, 0.75)
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
    """Whether it is turned counter-clockwise by a quarter, its top to the left."""
    return pixels.shape[0] > pixels.shape[1]


def _lying(pixels: np.ndarray) -> np.ndarray:
    """A picture on its left side if it is tall, and no more than `FINEST` pixels wide."""
    pixels = np.rot90(pixels) if _is_tall(pixels) else pixels
    height, width = pixels.shape
    size = min(width, FINEST), max(1, round(height * min(1.0, FINEST / width)))
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


def _draw_surface(ax: Axes, surface: JudgedSurface, bottom: float, row_height: float) -> None:
    """Image, annotation and output, each in its column."""
    image = _lying(surface.image)
    mask = _lying(surface.annotation.astype(np.float32)) > 0
    output = np.rot90(surface.output, int(_is_tall(surface.image))).astype(np.float32)
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
    """Verdict, name and numbers in words, and the score and the threshold on a line."""
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
    """What the columns hold, and the colours of the output."""
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
