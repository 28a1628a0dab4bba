"""Pictures of surfaces beside each other, with annotation and output.

As in `plots`, functions take arrays, draw, and return the figure. They never show or save.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ksdd_lib.evaluation.predictions import Prediction, verdict
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, Keywords, sheet, style

OUTLINE = "#56B4E9"

GRAY: Keywords = {"cmap": "gray", "vmin": 0, "vmax": 255}
HEAT: Keywords = {"cmap": "inferno", "norm": PowerNorm(0.5, vmin=0, vmax=1)}
"""The colours of an output follow its square root, so that 1 % is seen: what a miss did answer."""

picture_style = style(axes_grid=False, axes_titlelocation="center", axes_titleweight="normal")
"""The look of figures that hold pictures."""


@dataclass(frozen=True)
class JudgedSurface:
    """One test surface with all that is shown of it.

    Attributes:
        prediction: its row of predictions.csv, with threshold and verdict.
        image: (H, W) uint8.
        annotation: (H, W) bool.
        output: (h, w) in [0, 1], the probability of a defect at each place, at any size.
    """

    prediction: Prediction
    image: np.ndarray
    annotation: np.ndarray
    output: np.ndarray

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
    """Draw a picture alone on axes: uint8 in gray, floats as a probability from 0 to 1.

    Args:
        outline: a mask (H, W) bool, whose edge is drawn on the picture.
    """
    if pixels.dtype == np.uint8:
        ax.imshow(pixels, **GRAY)
    else:
        ax.imshow(pixels, interpolation="nearest", **HEAT)
    if outline is not None and outline.any():
        ax.contour(outline, [0.5], colors=OUTLINE, linewidths=1)
    ax.set_axis_off()


@picture_style
def gallery(
    pictures: Sequence[np.ndarray],
    outlines: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Surfaces upright beside each other.

    Args:
        pictures, outlines: each as for `show_image`.
        titles: a short text for each.
    """
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = min(1.7, 13.0 / len(pictures))
    figure = sheet(width * len(pictures), width * ratio + 0.65, above=0.2)
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for index, (ax, picture) in enumerate(zip(axes, pictures, strict=True)):
        show_image(ax, picture, None if outlines is None else outlines[index])
        if titles is not None:
            ax.set_title(titles[index], fontsize=9, pad=4)
    return figure


@picture_style
def overlay(surface: JudgedSurface, opacity: float = 0.5, side: int = 160) -> Figure:
    """A surface, the output laid over it, and the place that matters in full resolution.

    That place is the annotated defect, else where the output is highest. The output's colours are
    on the fixed scale of all pictures, 0 to 1.

    Args:
        opacity: of the output, from 0 (not seen) to 1. The surface shines through where the output
            is weak, and is covered where it is certain and `opacity` is 1.
        side: of the square cut-out, in the image's own pixels.
    """
    output, cut = surface.full_output(), surface.closest(side)
    covered = opacity * np.clip(np.asarray(HEAT["norm"](output)), 0, 1)
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
        if surface.annotation.any() and ax is not axes[2]:
            ax.contour(surface.annotation, [0.5], colors=OUTLINE, linewidths=1)
        ax.set_axis_off()
        ax.set_anchor("N")
        ax.set_title(title, fontsize=9, pad=4)
    rows, columns = cut
    size = columns.stop - columns.start, rows.stop - rows.start
    box = Rectangle((columns.start, rows.start), *size, fill=False, edgecolor="white", linewidth=1)
    axes[1].add_patch(box)
    return figure


CLOSE_UP = 0.22
"""Side of a close-up, as a share of the surface's longer side: the crack and its ground."""


@picture_style
def close_ups(surfaces: Sequence[JudgedSurface]) -> Figure:
    """One enlarged place of each surface beside each other: what was missed, or raised an alarm.

    That place is the annotated defect, outlined, else where the output is highest.
    """
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
        look: Keywords = {"fontsize": 8.5, "fontweight": "bold", "color": DEFECTIVE}
        ax.set_title(title, loc="left", pad=3, **look)
        ax.set_axis_off()
        look = {"transform": ax.transAxes, "fontsize": 7, "ha": "center", "va": "top"}
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


SHEET = 48
"""Pictures on a contact sheet."""


@picture_style
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
    figure = sheet(1.35 * across, down * (1.25 * ratio + 0.42) + 0.3, above=0.24)
    if heading:
        figure.suptitle(heading, fontsize=8)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for ax in grid[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, title, alarms in zip(grid, pictures, titles, alarming, strict=False):
        ax.imshow(np.full((8, 8), 235, np.uint8) if picture is None else _small(picture), **GRAY)
        if picture is None:
            ax.text(0.5, 0.5, "unreadable", ha="center", va="center", transform=ax.transAxes)
        ax.set_title(title, fontsize=7, pad=3)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=True, color=DEFECTIVE if alarms else FAINT)
            spine.set_linewidth(2.0 if alarms else 0.8)
    return figure


def _small(picture: np.ndarray, most: int = 320) -> np.ndarray:
    """A picture of at most `most` pixels in each direction."""
    scale = min(1.0, most / max(picture.shape))
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
