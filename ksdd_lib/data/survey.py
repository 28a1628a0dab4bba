"""A survey of a data set: each image and mask is decoded once, and what is needed of it is kept."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ksdd_lib import formatting, storage
from ksdd_lib.data.dataset import Sample, natural_key, read_file, short_path
from ksdd_lib.data.duplicates import reduced, reduction
from ksdd_lib.data.item_folders import Files, Pair, list_files
from ksdd_lib.data.layout_note import CLASSES, read_note
from ksdd_lib.data.pixels import decode_image, decode_levels, highest_of_few, orientation
from ksdd_lib.errors import DataError, with_link
from ksdd_lib.view import region_box


class PairContent(storage.Record):
    """What decoding an image and its mask has shown; its fields are those of `Sample`."""

    image_sha256: str
    mask_file_sha256: str
    mask_sha256: str
    size: tuple[int, int]
    is_defective: bool
    defect_width: float
    defect_share: float = 0.0  # unknown in runs made before it was kept, as the levels
    mask_levels: str = ""
    has_mask: bool = True
    region_size: tuple[int, int] | None = None


class Duplicate(storage.Record):
    """The name of a pair that is left out, and of the identical one of its item that is kept."""

    dropped: str
    same_as: str


class Unreadable(storage.Record):
    """The name of an image that has no usable pair, and the reason, which names the file."""

    name: str
    reason: str


Known = Mapping[tuple[str, str], PairContent]  # by the SHA-256 of the image and mask file


@dataclass(frozen=True)
class Survey:
    """Everything found under a root: the samples in natural order, and what is no sample."""

    samples: tuple[Sample, ...]
    duplicates: tuple[Duplicate, ...]
    unreadable: tuple[Unreadable, ...]
    ignored: tuple[str, ...]
    defective: tuple[str, ...]  # of the unreadable: known to be so, though no mask outlines it
    contents: tuple[PairContent, ...]  # of every usable pair: what a later survey has as `known`

    @property
    def lacks_labels_alone(self) -> bool:
        """Whether some are unreadable, and all of them as they have no label, not a wrong one."""
        reasons = [one.reason for one in self.unreadable]
        return bool(reasons) and all(
            " has no mask " in one or " has no label: " in one for one in reasons
        )

    def usable(self, incomplete: str = "refuse") -> tuple[Sample, ...]:
        """The samples; DataError where an image or its mask is unusable, unless it is left out."""
        if self.unreadable and incomplete != "leave_out":
            reasons = formatting.listed([one.reason for one in self.unreadable], 5, "; ")
            labelled = (
                f" {len(self.defective)} of them are called defective: masks=given learns from that"
                " without their masks."
            )
            raise DataError(
                f"{len(self.unreadable)} of the images cannot be used: {reasons}. Mend or remove"
                " them, or set incomplete to leave_out, or to good where all that no label names"
                " are good; `python -m ksdd_lib inspect --data PATH` lists all."
                + labelled
                * bool(self.defective),
                see="labels#incomplete",
            )
        return self.samples


def find_samples(root: Path) -> list[Sample]:
    """The samples under `root`; DataError where none is there, or any image is unusable."""
    return list(survey(root).usable())


def survey(
    root: Path,
    known: Iterable[PairContent] = (),
    region: str = "none",
    needs_masks: bool = True,
) -> Survey:
    """Everything under `root`; a file that cannot be used is listed, not raised.

    Pictures that are called defective are samples without a mask, unless they need one.
    With a region, as the setting, a defect that lies outside of it makes a picture unusable.

    Of the `known` contents of an earlier survey no file is decoded again, and their samples have no
    thumbnail. DataError where `root` is no folder, or holds no image in the layout.
    """
    files = list_files(root)
    names = sorted(files.images, key=natural_key)
    lacks = note.lacks if (note := read_note(root)) else {}
    pairs = [_misnamed(name) or _pair(files, name, lacks.get(name)) for name in names]
    labelled = _labelled(root, files, dict(zip(names, pairs, strict=True)))
    if not needs_masks:
        pairs = [labelled.get(name, pair) for name, pair in zip(names, pairs, strict=True)]
    before = {(one.image_sha256, one.mask_file_sha256): one for one in known}
    with ThreadPoolExecutor() as pool:
        # Masks come first: their sizes give the factor by which the images are reduced.
        masks = list(pool.map(partial(_read_mask, known=before, region=region), pairs))
        sizes = {one.image_sha256: one.size for one in masks if isinstance(one, PairContent)}
        factor = reduction(sizes.values()) if sizes else 1.0
        read = partial(_read_image, factor=factor, known=before)
        found = dict(zip(names, pool.map(read, names, pairs, masks), strict=True))
    usable = _with_classes(root, [one for one in found.values() if isinstance(one, Sample)])
    kept: dict[tuple[str, str, str], Sample] = {}
    first = [kept.setdefault((s.item, s.image_sha256, s.mask_sha256), s) for s in usable]
    return Survey(
        samples=tuple(kept.values()),
        duplicates=tuple(
            Duplicate(dropped=one.name, same_as=same.name)
            for one, same in zip(usable, first, strict=True)
            if one is not same
        ),
        unreadable=tuple(
            Unreadable(name=formatting.printable(name), reason=one)
            for name, one in found.items()
            if isinstance(one, str)
        ),
        ignored=tuple(map(formatting.printable, files.ignored)),
        defective=tuple(name for name in labelled if isinstance(found[name], str)),
        contents=tuple(PairContent.model_validate(one, from_attributes=True) for one in usable),
    )


def _pair(files: Files, name: str, lack: str | None) -> Pair | str:
    """As `Files.pair`; what lacks is told as the layout has it that the data was written from."""
    if not lack or name in files.masks or name in files.doubts:
        return files.pair(name)
    told = f"{short_path(files.images[name][0])} has no label: {lack}"
    return with_link(told, "labels#incomplete")


def _labelled(root: Path, files: Files, pairs: Mapping[str, Pair | str]) -> dict[str, Pair]:
    """The pictures that are called defective and have no mask, as pairs without one."""
    note = read_note(root)
    names = set(note.defective) - files.doubts.keys() if note else set()
    return {
        name: Pair(files.images[name][0], None)
        for name, pair in pairs.items()
        if name in names and isinstance(pair, str)
    }


def _with_classes(root: Path, samples: Iterable[Sample]) -> list[Sample]:
    """The samples with the classes of their defects, where a note names them."""
    note = read_note(root)
    classes = note.classes if note else {}
    return [
        replace(
            one, classes=classes.get(one.name, ()), class_path=root / CLASSES / f"{one.name}.png"
        )
        for one in samples
    ]


def _misnamed(name: str) -> str | None:
    """Why a sample's name cannot be stored with results, or None."""
    shown = formatting.printable(name)
    return f"{shown} holds letters that are not text: rename it" if shown != name else None


def _read_mask(pair: Pair | str, known: Known, region: str) -> PairContent | str:
    """What the mask of a pair shows, or the reason why it cannot be used."""
    if isinstance(pair, str):
        return pair
    try:
        picture = read_file(pair.image)
        data = read_file(pair.mask) if pair.mask else b""
        image_sha256 = storage.sha256(picture)
        mask_file_sha256 = storage.sha256(data)
        if content := known.get((image_sha256, mask_file_sha256)):
            return content
        if pair.mask:
            mask, levels = decode_levels(data, short_path(pair.mask))
        else:
            mask = np.zeros(decode_image(picture, short_path(pair.image)).shape, bool)
            levels = ""
        region_size = _region_size(pair, picture, mask, region)
    except DataError as error:
        return str(error)
    height, width = mask.shape
    padded = np.pad(mask.astype(np.uint8), 1)
    return PairContent(
        image_sha256=image_sha256,
        mask_file_sha256=mask_file_sha256,
        mask_sha256=storage.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes())
        if pair.mask
        else storage.sha256(b"defective, no mask"),
        size=(height, width),
        is_defective=bool(mask.any()) or not pair.mask,
        has_mask=bool(pair.mask),
        defect_width=2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max()),
        defect_share=float(mask.mean()),
        mask_levels=levels,
        region_size=region_size,
    )


def _region_size(
    pair: Pair, picture: bytes, mask: np.ndarray, region: str
) -> tuple[int, int] | None:
    """The size of the region; DataError where there is none, or the defect lies outside of it."""
    if region == "none":
        return None
    name = short_path(pair.image)
    image = decode_image(picture, name)
    if image.shape != mask.shape:  # which is told later
        return None
    try:
        box = region_box(region, image)
    except DataError as error:
        raise DataError(f"{name}: {str(error).rstrip('.')}") from None
    if mask.any() and not box.cut(mask).any():
        place = "{1},{0},{3},{2}".format(*box)
        raise DataError(
            f"{name} has its defect outside of the region, here {place}: widen it",
            see="data#region",
        )
    return box.height, box.width


def _read_image(
    name: str, pair: Pair | str, mask: PairContent | str, factor: float, known: Known
) -> Sample | str:
    """The sample of a pair with its thumbnail, or the reason why there is none."""
    if isinstance(pair, str) or isinstance(mask, str):
        return str(mask)
    seen: dict[str, Any] = {}
    if (mask.image_sha256, mask.mask_file_sha256) not in known:
        try:
            data = read_file(pair.image)
            image = decode_image(data, short_path(pair.image))
        except DataError as error:
            return str(error)
        turned = orientation(data)
        if pair.mask and image.shape != mask.size:
            by_exif = turned > 4 and image.shape == mask.size[::-1]
            return with_link(
                "{} is {}x{} but its mask {} is {}x{} (height x width)".format(
                    short_path(pair.image), *image.shape, short_path(pair.mask), *mask.size
                )
                + ": EXIF turns the picture, turn the mask that was drawn before likewise"
                * by_exif,
                "labels#sizes",
            )
        seen = {
            "thumbnail": reduced(image, factor),
            "highest_of_few": highest_of_few(data),
            "may_be_turned": turned > 1 and (turned < 5 or image.shape == image.shape[::-1]),
        }
    path = pair.mask or pair.image.with_name(f"{pair.image.stem}_label.png")
    if pair.doubt and not mask.is_defective:
        return f"{pair.doubt}; {short_path(path)} is all black"
    item = name.partition("/")[0]
    return Sample(name, item, pair.image, path, **vars(mask), **seen)
