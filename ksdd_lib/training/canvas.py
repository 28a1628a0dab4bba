"""A sample as the network sees it: the whole picture, or a tile of it that is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.data.layout_note import read_classes
from ksdd_lib.training.targets import annotate
from ksdd_lib.view import Box, View

MIDDLE = (0.0, 0.5, 0.5, 0.5)
"""The draw of one tile to look at: in the middle, of a defective sample around its first defect."""


@dataclass(frozen=True)
class Canvas:
    """A sample and its annotation as `view.Placed` lays them.

    Attributes:
        image: uint8 (H, W).
        masks: the annotation * 255 of each class (K, H, W); None of a good sample.
        inner: what the picture fills of it.
        tile: what the network sees at a time (H, W): all of it, or less.
    """

    image: np.ndarray
    masks: np.ndarray | None
    inner: Box
    tile: tuple[int, int]
    pixels: np.ndarray  # int32 (N, 2), rows and columns of the annotated ones, where it has tiles
    pieces: np.ndarray  # int32 (N,): which defect each belongs to, from 1 on

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        arrays = self.image, self.masks, self.pixels, self.pieces
        return sum(array.nbytes for array in arrays if array is not None)

    def cut(self, draw: tuple[float, ...] = MIDDLE) -> tuple[np.ndarray, np.ndarray | None]:
        """Image (h, w) and masks (K, h, w) of the tile that four numbers below 1 draw, uint8.

        That of a defective sample has a pixel of a defect in its middle half, as far as the edges
        of the picture allow. The first number draws the defect, the second its pixel.
        """
        room = [whole - side for whole, side in zip(self.image.shape, self.tile, strict=True)]
        starts = [int(number * (free + 1)) for number, free in zip(draw[2:], room, strict=True)]
        if len(self.pixels):
            piece = self.pixels[self.pieces == 1 + int(draw[0] * self.pieces.max())]
            pixel = piece[int(draw[1] * len(piece))]
            ahead = [
                side * (0.25 + number / 2) for side, number in zip(self.tile, draw[2:], strict=True)
            ]
            starts = [round(float(at - before)) for at, before in zip(pixel, ahead, strict=True)]
        top, left = (min(max(0, start), free) for start, free in zip(starts, room, strict=True))
        there = ..., slice(top, top + self.tile[0]), slice(left, left + self.tile[1])
        return self.image[there], None if self.masks is None else self.masks[there]


def read_canvas(sample: Sample, view: View, annotation: str, classes: Sequence[str] = ()) -> Canvas:
    """Read a sample, annotate it as `targets.annotate`, and lay it as the view does."""
    image = read_image(sample)
    placed, masks = view.placed(image), None
    pixels, pieces = np.zeros((0, 2), np.int32), np.zeros(0, np.int32)
    if sample.is_defective and sample.has_mask:
        each = read_classes(sample, classes) if len(classes) > 1 else [read_mask(sample)]
        marked = [annotate(mask, annotation).astype(np.uint8) * 255 for mask in each]
        masks = np.stack([placed.lay(mask, 0) for mask in marked])
        if view.tiled:
            _, labels = cv2.connectedComponents(masks.max(0))
            pixels, pieces = np.argwhere(labels).astype(np.int32), labels[labels > 0]
    return Canvas(placed.lay(image), masks, placed.inner, placed.tile, pixels, pieces)
