"""What item folders were written from, where they are not as somebody made them.

It holds what the folders cannot: whence they come, and which defects are of which class.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, digest, read_file, read_mask
from ksdd_lib.errors import DataError

NOTE = ".layout.json"
"""Beside the items: a `LayoutNote`."""

CLASSES = ".classes"
"""Beside the items: `<item>/<part>.png` of each surface with several classes."""

UNNAMED = "defect"
"""What a defect without a class is called beside those that have one."""

GOOD = "good"
"""What an image without a defect stands under, beside the names of classes."""

BITS = 16
"""Classes that a pixel of such a file tells apart."""


class LayoutNote(storage.Record):
    """The layout that item folders were written from, and what they cannot hold themselves.

    Attributes:
        layout: its name in `layouts.catalog`.
        notes: what was not understood, or lacks a label, in sentences.
        sides: name of a sample -> "train" or "test", where the data set was split already.
        classes: name of a sample -> the classes of its defects, where they were named; "" for
            those without a name beside others that have one.
        defective: names of samples that show a defect, though no mask outlines it.
        lacks: names of pictures without a label -> why, as the layout has it.
    """

    layout: str
    notes: tuple[str, ...] = ()
    sides: dict[str, str] = {}
    classes: dict[str, tuple[str, ...]] = {}
    defective: tuple[str, ...] = ()
    lacks: dict[str, str] = {}


def read_note(root: Path) -> LayoutNote | None:
    """The note beside the items in `root`; None where they are as somebody made them."""
    return storage.read_record(root / NOTE, LayoutNote) if (root / NOTE).exists() else None


def class_names(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The classes of all defects, sorted; DataError where none is named, or one is called good."""
    defective = [one for one in samples if one.is_defective]
    if not any(name for one in defective for name in one.classes):
        raise DataError(
            "The labels name no classes: leave classes at one, or name them, as labelme, COCO, a "
            f"column class in labels.csv, or folders do. Those that convert wrote have {NOTE} and "
            f"{CLASSES}, which are hidden: copy these too.",
            see="labels#classes",
        )
    found = {name for one in defective for name in own_classes(one)}
    if GOOD in found:
        told = f"A class of defects is called {GOOD}: rename it, or leave classes at one."
        raise DataError(told, see="labels#classes")
    return tuple(sorted(found))


def own_classes(sample: Sample) -> list[str]:
    """The classes of a sample's own defects; none where it is good."""
    return [name or UNNAMED for name in sample.classes or ("",)] if sample.is_defective else []


def class_fingerprint(samples: Iterable[Sample]) -> str:
    """As `dataset.fingerprint`, and of the classes; raises as `read_classes`."""

    def row(one: Sample) -> tuple[str, ...]:
        own = own_classes(one)
        several = own[1:] and one.has_mask
        pixels = [storage.sha256(mask.tobytes()) for mask in _own_masks(one)] if several else []
        return one.name, one.image_sha256, one.mask_sha256, *own, *pixels

    return digest(map(row, samples))


def read_classes(sample: Sample, among: Sequence[str]) -> np.ndarray:
    """The annotated pixels of each class `among` all, bool (K, H, W); they may overlap.

    Raises DataError where the sample's label is no longer what was written with its classes.
    """
    masks = np.zeros((len(among), *sample.size), bool)
    own = own_classes(sample)
    for name, mask in zip(own, _own_masks(sample) if own else (), strict=True):
        masks[among.index(name)] |= mask
    return masks


def _own_masks(sample: Sample) -> np.ndarray:
    """The mask of each of the classes of a defective sample, bool (K, H, W)."""
    whole, count, path = read_mask(sample), len(sample.classes), sample.class_path
    if count < 2:
        return whole[None]
    assert path is not None, sample.name
    data = read_file(path) if path.exists() else b"?"
    bits = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    height, width = sample.size
    if bits is not None and bits.shape == (-(-count // BITS) * height, width):
        groups = bits.reshape(-1, height, width)
        masks = np.stack([groups[n // BITS] >> n % BITS & 1 for n in range(count)]) > 0
        if (masks.any(0) == whole).all():
            return masks
    raise DataError(
        f"{sample.name} has several classes, and which is where is not known: its label was changed"
        f" since it was written, or {CLASSES} beside the items is missing or damaged. Write the "
        "data anew, or leave classes at one.",
        see="labels#classes",
    )


def write_classes(path: Path, masks: np.ndarray) -> None:
    """Write the masks of a surface's own classes, bool (K, H, W), as bits of 16-bit pixels.

    Of more than 16 classes, each further 16 stand below those before.
    """
    groups = [masks[start : start + BITS] for start in range(0, len(masks), BITS)]
    bits = [sum(mask.astype(np.uint16) << n for n, mask in enumerate(group)) for group in groups]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.concatenate(bits).astype(np.uint16))[1].tobytes())
