"""Outlines, lines, ellipses and runs of pixels become masks.

What is not as its format has it is a DataError, of which `shapes_of` makes a reason for no label.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from ksdd_lib.data.pixels import MAX_PIXELS
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import printable
from ksdd_lib.layouts.found import Draw, Found, Labels, Shape, Tree, joined, naming
from ksdd_lib.layouts.readers import masks_beside

Reader = Callable[[Any], Shape | str | None]
"""What a file holds -> the shape; None where it is no defect, or why it outlines none."""

LINE = 3  # pixels: how wide a line is that somebody drew along a defect
FAR = 1e6  # pixels from the corner: nothing lies farther, as OpenCV counts in 32 bits
LINES = f"lines, taken as {LINE} pixels wide, so advice on sizes may not fit them"
RECTANGLES = "rectangles, filled whole"


def found(tree: Tree, labels: list[Labels], notes: Sequence[str] = ()) -> Found | None:
    """What the labels give, as `found.joined`; None where there are none."""
    beside = masks_beside.find(tree)
    return joined(tree, labels, beside.used if beside else set(), notes) if labels else None


def shapes_of(where: str, raws: Iterable[Any], read: Reader) -> tuple[list[Shape], str]:
    """The shapes that a file lists, and why they are not all of the defects, or ""."""
    shapes = list[Shape]()
    try:
        for number, raw in enumerate(raws, 1):
            place = f"shape {number} of {where}"
            with naming(place):
                shape = read(raw)
            if isinstance(shape, str):
                return shapes, shape
            if shape:
                shapes.append(shape._replace(where=place))
    except DataError as error:
        return shapes, str(error)
    return shapes, ""


def class_name(value: Any) -> str:
    """The name of a class in a file; "" where it is neither text nor a number."""
    return printable(str(value)).strip() if isinstance(value, str | int) else ""


def outline(points: Any, is_share: bool = False) -> Draw:
    """What points (x, y), in pixels or shares of the sides, enclose; cut off at the edges."""
    corners = _points(points, 3)
    return lambda canvas: cv2.fillPoly(canvas, [_pixels(corners, canvas, is_share)], 1)


def line(points: Any) -> Draw:
    """The line through points (x, y), `LINE` pixels wide."""
    corners, brush = _points(points, 2), np.ones((LINE, LINE), np.uint8)

    def draw(canvas: np.ndarray) -> None:
        thin = cv2.polylines(np.zeros_like(canvas), [_pixels(corners, canvas)], False, 1)
        canvas |= cv2.dilate(thin, brush)  # OpenCV's own thickness is not exact

    return draw


def box(x: float, y: float, other_x: float, other_y: float, *, degrees: float = 0) -> Draw:
    """What a box with these two corners encloses, turned clockwise around its middle."""
    corners = np.array([(x, y), (other_x, y), (other_x, other_y), (x, other_y)], float)
    return outline(_turned(corners, ((x + other_x) / 2, (y + other_y) / 2), degrees))


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, degrees: float = 0) -> Draw:
    """What an ellipse around (x, y) encloses, turned clockwise."""
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    around = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)
    return outline(_turned(around, (x, y), degrees))


def runs(counts: Any, shape: tuple[int, int]) -> np.ndarray:
    """Counts of pixels, background and defect in turn -> bool of `shape`, row by row."""
    lengths, area = np.asarray(counts), shape[0] * shape[1]
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or area > MAX_PIXELS:
        raise DataError("has runs that are no whole numbers, or longer than any picture")
    if not 0 <= lengths.min() <= lengths.max() <= area or lengths.sum() != area:
        raise DataError(f"has runs that do not fill its {area:,} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 > 0, lengths).reshape(shape)


def stamp(canvas: np.ndarray, pixels: np.ndarray, left: int = 0, top: int = 0) -> None:
    """Set pixels, bool (h, w), at their place in a picture; what lies beyond it is cut off."""
    part = canvas[max(top, 0) : max(top + len(pixels), 0), max(left, 0) :]
    own = pixels[max(-top, 0) :, max(-left, 0) :][: len(part), : part.shape[1]]
    part[:, : own.shape[1]] |= own


def _points(points: Any, least: int) -> np.ndarray:
    given = np.asarray(points, float)
    if given.size and (given.ndim != 2 or given.shape[1] != 2 or not np.isfinite(given).all()):
        raise DataError("has a point that is not two numbers")
    if len(given) < least:
        raise DataError(f"has {len(given)} points, and needs {least}")
    return given


def _pixels(points: np.ndarray, canvas: np.ndarray, is_share: bool = False) -> np.ndarray:
    scaled = points * canvas.shape[::-1] if is_share else points
    return np.rint(scaled.clip(-FAR, FAR)).astype(np.int32)


def _turned(points: np.ndarray, middle: tuple[float, float], degrees: float) -> np.ndarray:
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
