"""How a picture becomes what the network sees, and how a map goes back to the picture.

Training, scoring, `judge` and the figures all look through here.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from ksdd_lib.errors import DataError

STRIDE = 8
"""Pixels that the network sees for each value of its map, in each direction."""

OUTSIDE = -1000.0
"""A map's value where the picture was not looked at: no defect, whatever the method."""

RECTANGLE = re.compile(r"\s*(\d{1,7})\s*,\s*(\d{1,7})\s*,\s*(\d{1,7})\s*,\s*(\d{1,7})\s*")


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """What lies in it, of (H, W)."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def parse_region(text: str) -> Box | None:
    """ "x,y,width,height" as a box; None of "none" and "part". ValueError of anything else."""
    if text in ("none", "part"):
        return None
    if not (match := RECTANGLE.fullmatch(text)):
        raise ValueError(text)
    left, top, width, height = map(int, match.groups())
    if min(width, height) < 16:
        raise ValueError(text)
    return Box(top, left, height, width)


def region_box(region: str, image: np.ndarray) -> Box:
    """Where the region, as the setting, is on a picture (H, W).

    Raises DataError: the rectangle lies outside of the picture.
    """
    height, width = image.shape
    if region == "part":
        return find_part(image)
    top, left, high, wide = parse_region(region) or Box(0, 0, height, width)
    if top >= height or left >= width:
        raise DataError(
            f"The region {region} lies outside of the picture, which is {height}x{width} "
            "(height x width)."
        )
    return Box(top, left, min(high, height - top), min(wide, width - left))


@dataclass(frozen=True)
class View:
    """What the network sees of a picture, by the settings of a run.

    Attributes:
        size: the network's input (H, W).
        fit: "stretch" to fill it, or "pad" to keep the picture's shape within an even border.
        region: as the setting; what lies outside is cut off first.
        tiled: whether it sees tiles of this size instead of whole pictures. These keep their scale,
            and only those that are smaller have a border.
    """

    size: tuple[int, int]
    fit: str = "stretch"
    region: str = "none"
    tiled: bool = False

    def reaches_beyond(self, shape: tuple[int, ...]) -> bool:
        """Whether the rectangle reaches beyond a picture of this shape (H, W)."""
        box = parse_region(self.region)
        return box is not None and (
            box.top + box.height > shape[0] or box.left + box.width > shape[1]
        )

    def scale(self, shape: tuple[int, ...]) -> float:
        """Pixels that the network sees for one of a picture or region of this shape (H, W)."""
        return 1.0 if self.tiled else min(self.size[0] / shape[0], self.size[1] / shape[1])

    def placed(self, image: np.ndarray) -> "Placed":
        """Where a picture, gray (H, W), lies in what the network sees; raises as `region_box`."""
        box = region_box(self.region, image)
        high, wide = rows, columns = self.size
        if self.tiled or self.fit == "pad":
            scale = self.scale(box[2:])
            rows, columns = (max(1, round(scale * side)) for side in box[2:])
        if self.tiled:  # tiles lie on the grid of the map
            high, wide = (
                max(high, -(-rows // STRIDE) * STRIDE),
                max(wide, -(-columns // STRIDE) * STRIDE),
            )
        inner = Box((high - rows) // 2, (wide - columns) // 2, rows, columns)
        return Placed(image.shape, box, (high, wide), inner, self.size)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """A picture, gray (H, W), as the network sees it: uint8 at its size; raises likewise.

        Of tiles it is the one in the middle.
        """
        placed = self.placed(image)
        (high, wide), (rows, columns) = placed.canvas, self.size
        middle = Box((high - rows) // 2, (wide - columns) // 2, rows, columns)
        return middle.cut(placed.lay(image))


def view_of(view: View | tuple[int, int]) -> View:
    """A view as it is; of a size alone, the whole picture stretched to it."""
    return view if isinstance(view, View) else View(view)


@dataclass(frozen=True)
class Placed:
    """Where a picture lies on the canvas that the network sees.

    Attributes:
        shape: the picture's (H, W).
        box: what is seen of it.
        canvas: the canvas' (H, W).
        inner: what the box fills of the canvas. Around it is an even border.
        tile: what the network sees at a time (H, W): all of the canvas, or less.
    """

    shape: tuple[int, ...]
    box: Box
    canvas: tuple[int, int]
    inner: Box
    tile: tuple[int, int]

    @property
    def tiles(self) -> list[Box]:
        """The overlapping tiles that cover the canvas, row by row; all on the grid of the map."""
        starts = []
        for length, side in zip(self.canvas, self.tile, strict=True):
            count = 1 + math.ceil((length - side) / (side - _overlap(side)))
            starts.append(
                [STRIDE * round(at / STRIDE) for at in np.linspace(0, length - side, count)]
            )
        return [Box(top, left, *self.tile) for top in starts[0] for left in starts[1]]

    def joined(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """The maps of all tiles (h/8, w/8) as one of the canvas (H/8, W/8), without seams.

        Where tiles overlap, each counts by how far the place is from its edge. Nearer to an edge
        than `REACH` it does not count, where another tile sees the place whole.
        """
        if len(maps) == 1:
            return maps[0]
        weight = np.outer(*(_weights(side) for side in self.tile))
        total, sums = (np.zeros([side // STRIDE for side in self.canvas]) for _ in range(2))
        for box, values in zip(self.tiles, maps, strict=True):
            place = Box(*(side // STRIDE for side in box))
            place.cut(total)[:] += weight
            place.cut(sums)[:] += weight * values
        return (sums / total).astype(np.float32)

    def lay(self, pixels: np.ndarray, border: int | None = None) -> np.ndarray:
        """The picture, or its mask as uint8, on the canvas.

        The border has the level `border`, or the median of the outermost pixels.
        """
        cut, (top, left, rows, columns) = self.box.cut(pixels), self.inner
        resized = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA)
        if (rows, columns) == self.canvas:
            return resized
        if border is None:
            edges = [resized[0], resized[-1], resized[:, 0], resized[:, -1]]
            border = int(np.median(np.concatenate(edges)))
        below, beside = self.canvas[0] - top - rows, self.canvas[1] - left - columns
        return cv2.copyMakeBorder(
            resized, top, below, left, beside, cv2.BORDER_CONSTANT, value=border
        )

    def back(self, values: np.ndarray) -> np.ndarray:
        """A map of the canvas (H/8, W/8) as a map of the whole picture, about as fine."""
        if (self.inner[2:], self.box[2:]) == (self.canvas, self.shape):
            return values
        scale = self.inner.height / self.box.height, self.inner.width / self.box.width
        sides = [max(1, round(a * b / STRIDE)) for a, b in zip(self.shape, scale, strict=True)]
        # Where the middle of each value lies: in the picture, then in the map of the canvas.
        middles = [(np.arange(n) + 0.5) * a / n for n, a in zip(sides, self.shape, strict=True)]
        y, x = (
            ((middle - start) * factor + offset) / STRIDE - 0.5
            for middle, start, factor, offset in zip(
                middles, self.box[:2], scale, self.inner[:2], strict=True
            )
        )
        columns, rows = (grid.astype(np.float32) for grid in np.meshgrid(x, y))
        found = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = [
            (middle >= start) & (middle < start + length)
            for middle, start, length in zip(middles, self.box[:2], self.box[2:], strict=True)
        ]
        return np.where(np.outer(*inside), found, np.float32(OUTSIDE))


REACH = 112
"""Pixels beyond which nothing changes a value of the map, but for the normalisation of features."""

RAMP = 32
"""Pixels over which one tile fades into the next at least."""


def _overlap(side: int) -> int:
    """By how many pixels tiles of this side overlap: enough to be exact from 512 on, else half."""
    return min(2 * REACH + RAMP, side // 2)


def _weights(side: int) -> np.ndarray:
    """How much each value along a tile's side counts, (side/8,): a ramp from both edges."""
    count = side // STRIDE
    middles = STRIDE * (np.arange(count) + 0.5)
    edge = np.minimum(middles, side - middles)
    reach = (_overlap(side) - RAMP) / 2
    return ((edge - reach) / RAMP).clip(1e-6, 1)


PART_SIDE = 512
"""The longer side, in pixels, at which a part is looked for."""

LEAST_STEP = 5
"""Gray levels by which a part differs from the background at least."""


def find_part(image: np.ndarray) -> Box:
    """The part on a picture, gray (H, W): what stands out from an even background.

    The background is known by the four corners. The part is the largest piece that differs from
    them, with a margin of 1 % of the longer side. It is the whole picture where the corners differ
    among each other, or nothing of at least 1 % of the picture stands out.
    """
    factor = min(1.0, PART_SIDE / max(image.shape))
    height, width = (max(1, round(factor * side)) for side in image.shape)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    small: np.ndarray = cv2.GaussianBlur(resized, (5, 5), 0).astype(np.int16)
    edge = max(2, min(height, width) // 16)
    sides = slice(None, edge), slice(-edge, None)
    corners = np.stack([small[high, wide] for high in sides for wide in sides])
    level = int(np.median(corners))
    contrast = abs(small - level).astype(np.uint8)
    least = max(LEAST_STEP, 2 * float(np.percentile(abs(corners - level), 99)))
    halfway, _ = cv2.threshold(contrast, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask: np.ndarray = (contrast > least).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((edge, edge), np.uint8))
    found = cv2.connectedComponentsWithStats(mask)[2][1:]
    if halfway < least or not len(found) or found[:, 4].max() < 0.01 * height * width:
        return Box(0, 0, image.shape[0], image.shape[1])
    left, top, columns, rows, _ = found[found[:, 4].argmax()] / factor
    margin = 0.01 * max(image.shape)
    first, start = (max(0, math.floor(side - margin)) for side in (top, left))
    ends = top + rows + margin, left + columns + margin
    below, right = (min(math.ceil(a), b) for a, b in zip(ends, image.shape, strict=True))
    return Box(first, start, below - first, right - start)
