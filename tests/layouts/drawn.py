"""Surfaces as an annotation tool has them: pictures alone, and the outlines of their masks."""

from pathlib import Path

import cv2
import numpy as np
from layouts.conftest import write

from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.errors import DataError, without_link
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Found, Tree
from ksdd_lib.presets import resolve

Surfaces = dict[str, tuple[np.ndarray, np.ndarray]]


def outlines(mask: np.ndarray) -> list[list[list[float]]]:
    """The points (x, y) around each defect, three at least."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.resize(one[:, 0], (max(len(one), 3), 2)).astype(float).tolist() for one in found]


def ring() -> np.ndarray:
    """A defect with a hole, bool (160, 128)."""
    mask = np.zeros((160, 128), np.uint8)
    cv2.circle(mask, (60, 70), 30, 1, 9)
    return mask > 0


def pictures(root: Path, surfaces: Surfaces, pattern: str = "{}.png") -> None:
    """Write the pictures alone."""
    for name, (image, _) in surfaces.items():
        write(root / pattern.format(name), image)


def notes(root: Path, layout: str = "auto") -> str:
    """What is told of a folder, as one text."""
    folder = DataFolder(root, root.name)
    settings = resolve({"preset": "cpu", "layout": layout, "item": "picture"})
    return "\n".join(as_item_folders(folder, root.parent / "home", settings).notes)


def lacks(root: Path, layout: str = "auto") -> dict[str, str]:
    """Path of each picture without a label, as it is named in the data -> the reason."""
    found = {}
    for one in recognise(Tree(root), layout)[1].pictures:
        try:
            if one.mask is None:
                found[one.name] = one.lack
            else:
                one.mask(read_image(one.path).shape)
        except DataError as error:
            found[one.name] = without_link(str(error))
    return found


def masks(found: Found | None, size: tuple[int, int] = (160, 128)) -> dict[str, np.ndarray | None]:
    """Name of a picture -> its mask, or None where it has none."""
    assert found is not None
    return {one.path.stem: one.mask and one.mask(size) for one in found.pictures}
