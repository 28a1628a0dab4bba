"""Pictures and masks to lay out in each way, and what is read back of them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib.data import synthetic
from ksdd_lib.data.dataset import read_image, read_mask
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import find_samples
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.presets import resolve

SIZE = (160, 128)


@pytest.fixture(scope="session")
def surfaces() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> image and mask of six surfaces: three defective, three good."""
    found = {}
    for number in range(6):
        image, mask = synthetic.render(SIZE, 7, number, 0, number < 3)
        found[f"part{number // 2}_{number % 2}"] = image, mask.astype(bool)
    return found


def write(path: Path, pixels: np.ndarray) -> None:
    """Write pixels, or a mask as black and white, and the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels.astype(np.uint8) * (255 if pixels.dtype == bool else 1))


@pytest.fixture
def read_back(tmp_path: Path) -> Callable[..., dict[str, tuple[np.ndarray, np.ndarray]]]:
    """(root, settings) -> sample name -> image and mask, as training would see them."""

    def read(root: Path, **chosen: object) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        settings = resolve({"preset": "cpu", **chosen})
        folder = as_item_folders(DataFolder(root, root.name), tmp_path / "home", settings)
        return {one.name: (read_image(one), read_mask(one)) for one in find_samples(folder.root)}

    return read


def same(
    found: dict[str, tuple[np.ndarray, np.ndarray]],
    wanted: dict[str, tuple[np.ndarray, np.ndarray]],
    slack: int = 0,
) -> None:
    """Assert that the same surfaces are there, by the last part of their names.

    With `slack`, outlines may differ by so many pixels: a polygon is no mask.
    """
    by_part = {name.rpartition("/")[2]: pair for name, pair in found.items()}
    assert by_part.keys() == wanted.keys()
    kernel = np.ones((2 * slack + 1, 2 * slack + 1), np.uint8)
    for name, (image, mask) in by_part.items():
        assert np.array_equal(image, wanted[name][0]), name
        ours, theirs = (one.astype(np.uint8) for one in (mask, wanted[name][1]))
        assert not (ours & ~cv2.dilate(theirs, kernel)).any(), name
        assert not (theirs & ~cv2.dilate(ours, kernel)).any(), name
