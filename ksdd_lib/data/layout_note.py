"""What item folders were written from, where they are not as somebody made them.

It holds what the folders cannot: whence they come, and which defects are of which class.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, read_file, read_mask, short_path
from ksdd_lib.errors import DataError

NOTE = ".layout.json"
"""Beside the items: a `LayoutNote`."""

CLASSES = ".classes"
"""Beside the items: `<item>/<part>.png` of each surface with several classes."""


UNNAMED = "defect"
"""What a defect without a class is called beside those that have one."""

MOST = 16
"""Classes of one surface."""


class LayoutNote(storage.Record):
    """The layout that item folders were written from, and what they cannot hold themselves.

    Attributes:
        layout: its name in `layouts.catalog`.
        notes: what was not understood, or lacks a label, in sentences.
        sides: name of a sample -> "train" or "test", where the data set was split already.
        classes: name of a sample -> the classes of its defects, where they were named; "" for
            those without a name beside others that have one.
    """

    layout: str
    notes: tuple[str, ...] = ()
    sides: dict[str, str] = {}
    classes: dict[str, tuple[str, ...]] = {}


def read_note(root: Path) -> LayoutNote | None:
    """The note beside the items in `root`; None where they are as somebody made them."""
    return storage.read_record(root / NOTE, LayoutNote) if (root / NOTE).exists() else None


def class_names(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The classes of all defects, sorted; DataError where none is named."""
    found = {name for one in samples if one.is_defective for name in one.classes or ("",)}
    if not found - {""}:
        raise DataError(
            "The labels name no classes: leave classes at one, or name them, as labelme, COCO, a "
            "column class in labels.csv, or folders do."
        )
    return tuple(sorted({name or UNNAMED for name in found}))


def read_classes(sample: Sample, among: Sequence[str]) -> np.ndarray:
    """The annotated pixels of each class `among` all, bool (K, H, W); they may overlap."""
    masks = np.zeros((len(among), *sample.size), bool)
    if not sample.is_defective:
        return masks
    own = [name or UNNAMED for name in sample.classes or ("",)]
    if len(own) == 1:
        masks[among.index(own[0])] = read_mask(sample)
        return masks
    path = sample.class_path
    assert path is not None, sample.name
    bits = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if bits is None or bits.shape != sample.size:
        raise DataError(f"{short_path(path)} is damaged: write the data anew.")
    for number, name in enumerate(own):
        masks[among.index(name)] |= np.right_shift(bits, number) % 2 > 0
    return masks


def write_classes(path: Path, masks: np.ndarray) -> None:
    """Write the masks of a surface's own classes, bool (K, H, W), as bits of 16-bit pixels."""
    if len(masks) > MOST:
        raise DataError(f"{path.stem} has {len(masks)} classes: at most {MOST} on one surface.")
    bits = sum((mask.astype(np.uint16) << number for number, mask in enumerate(masks)), start=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.asarray(bits, np.uint16))[1].tobytes())
