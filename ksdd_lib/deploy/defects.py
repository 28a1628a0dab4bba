"""The defects on a picture, each on its own, and pictures that show them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ksdd_lib import storage

BLUE = (233, 180, 86)
"""Blue, green and red of outlines, as in the report."""


@dataclass(frozen=True)
class Defect:
    """A connected place of marked pixels; everything in pixels of the picture.

    Attributes:
        left, top, width, height: its upright box.
        area: its pixels.
        length: the longer side of the smallest turned box around it.
        probability: the highest one in it.
        class_name: what it is, where the model tells several classes apart; else "".
    """

    left: int
    top: int
    width: int
    height: int
    area: int
    length: float
    probability: float
    class_name: str = ""


def find_defects(
    mask: np.ndarray, threshold: float, class_maps: Mapping[str, np.ndarray] | None = None
) -> tuple[Defect, ...]:
    """The defects in a map of probabilities, float (H, W), the most probable first.

    Pixels are marked from the threshold on. Those that touch, also by a corner, are one defect.
    Where each class has a map of its own, a pixel is of the class that is most probable there, and
    two classes that touch are two defects.
    """
    marked, maps = mask >= threshold, class_maps or {"": mask}
    kinds = np.argmax(list(maps.values()), axis=0)
    parts = [_places(mask, marked & (kinds == k), name) for k, name in enumerate(maps)]
    return tuple(
        sorted(sum(parts, []), key=lambda one: (-one.probability, -one.area, one.top, one.left))
    )


def _places(mask: np.ndarray, marked: np.ndarray, class_name: str) -> list[Defect]:
    """The connected places of marked pixels, bool (H, W)."""
    count, places, boxes, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8))
    found = []
    for number in range(1, count):  # 0 is what lies around them
        left, top, width, height, area = map(int, boxes[number])
        cut = slice(top, top + height), slice(left, left + width)
        here = places[cut] == number
        _, sides, _ = cv2.minAreaRect(np.argwhere(here).astype(np.float32))
        length = round(max(sides) + 1, 1)  # from edge to edge, not between the centres of pixels
        highest = round(float(mask[cut][here].max()), 4)
        found.append(Defect(left, top, width, height, area, length, highest, class_name))
    return found


def overlay(pixels: np.ndarray, mask: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """A gray picture with its map of probabilities over it and marked pixels outlined, BGR."""
    seen = np.sqrt(mask.clip(0, 1))  # so that 1 % is seen
    heat = cv2.applyColorMap((255 * seen).astype(np.uint8), cv2.COLORMAP_INFERNO)
    cover = 0.6 * np.minimum(1, 2 * seen)
    shown = cv2.blendLinear(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), heat, 1 - cover, cover)
    line = max(1, round(0.004 * min(mask.shape)))  # pixels; it lies just outside
    around = cv2.dilate(marked.astype(np.uint8), np.ones((2 * line + 1,) * 2))
    outlines, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(shown, outlines, -1, BLUE, line)


def save_pictures(
    folder: Path, name: str, pixels: np.ndarray, mask: np.ndarray, marked: np.ndarray
) -> None:
    """Write NAME_mask.png, white where pixels are marked, and NAME_overlay.png to a folder.

    The name is that of the picture without its ending. One that is taken gets a number, and the
    middle of a very long one is left out.
    """
    short = name if len(os.fsencode(name)) < 200 else name[:40]
    free = storage.first_free(folder, short, lambda path: not _beside(path, "mask").exists())
    shown = {"mask": marked.astype(np.uint8) * 255, "overlay": overlay(pixels, mask, marked)}
    for kind, picture in shown.items():
        storage.write_bytes(_beside(free, kind), cv2.imencode(".png", picture)[1].tobytes())


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}_{kind}.png")
