"""Which layout a folder has: each reader looks, and the one that understands most is taken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed
from ksdd_lib.layouts.found import GOOD, OTHER_KINDS, Found, Mask, Picture, Tree, nothing
from ksdd_lib.layouts.readers import (
    class_folders,
    coco,
    cvat,
    labelme,
    masks_beside,
    table,
    via,
    yolo,
)


class Layout(NamedTuple):
    """A reader, what it reads in a few words, and whether its signs are its own alone.

    What a picture lacks that no label names is told by `lack`.
    """

    find: Callable[[Tree], Found | None]
    words: str
    is_own: bool = False
    lack: str = Picture.lack


LAYOUTS = {
    "item_folders": Layout(
        masks_beside.find_items,
        "folders of items, with labels",
        True,
        "no mask NAME_label.png or .bmp lies beside it",
    ),
    "kolektorsdd2": Layout(
        masks_beside.find_kolektorsdd2, "KolektorSDD2", True, "no mask NAME_GT.png lies beside it"
    ),
    "mvtec": Layout(class_folders.find_mvtec, "MVTec AD", True),
    "table": Layout(table.find, "a table labels.csv", True),
    "masks_beside": Layout(
        masks_beside.find,
        "pictures with masks beside them or in a folder",
        lack="no mask has its name, as NAME_label.png beside it or NAME.png in a folder of masks",
    ),
    "labelme": Layout(
        labelme.find, "labelme's JSON for each picture", lack="no JSON file of labelme names it"
    ),
    "coco": Layout(coco.find, "COCO's JSON of instances", lack="no JSON file of COCO lists it"),
    "cvat": Layout(cvat.find, "XML of CVAT for images", lack="no XML of CVAT lists it"),
    "via": Layout(via.find, "JSON of the VGG Image Annotator", lack="no JSON file of VIA lists it"),
    "yolo": Layout(
        yolo.find,
        "YOLO's text with segments for each picture",
        lack="no text file of YOLO has its name, beside it or in labels",
    ),
    "class_folders": Layout(class_folders.find, "folders called good and by defects, no masks"),
    "pictures": Layout(class_folders.find_pictures, "pictures alone, all good: incomplete=good"),
}
"""Name for `--set layout=` -> layout. Two that fit equally well are both named."""


def recognise(tree: Tree, wanted: str = "auto", rest_is_good: bool = False) -> tuple[str, Found]:
    """The layout of a folder and what its reader found.

    A picture that no annotation mentions is good where it lies in a folder called so. Pictures
    alone are a data set only where the rest, which is all, is good. Raises
    DataError where no layout fits, or two fit equally well and `wanted` names neither.
    """
    chosen = LAYOUTS if wanted == "auto" else {wanted: LAYOUTS[wanted]}
    found = {name: with_good(it) for name, one in chosen.items() if (it := one.find(tree))}
    if alone := found.pop("pictures", None):
        found = found or {"pictures": alone} if rest_is_good else found
    copy = found.pop("labelme") if _has_copy(found) else None
    kinds = found.pop("class_folders") if len(found) > 1 and "class_folders" in found else None
    found = {name: it for name, it in found.items() if LAYOUTS[name].is_own} or found
    most = max((it.labelled for it in found.values()), default=0)
    best = [name for name, it in found.items() if it.labelled == most]
    if not best:
        known = "; ".join(f"{one.words} ({name})" for name, one in chosen.items())
        no_labels = bool(tree.images) and len(tree.images) == len(tree.files)
        hint = " Masks are PNG or BMP." * no_labels
        hint += " If all are good: --set incomplete=good --set labels=none." * no_labels
        hint += " Save pictures as PNG or JPEG." * bool(tree.ending(*OTHER_KINDS))
        raise DataError(
            f"{tree.root.name} {_seen(tree)}, in no known layout.{hint} Known: {known}.",
            see="data#layout",
        )
    if len(best) > 1:
        which = " and as ".join(f"{LAYOUTS[name].words} (layout={name})" for name in best)
        told = f"{tree.root.name} reads as {which}: choose by --set layout=NAME."
        raise DataError(told, see="data#layout")
    taken = _compared(found[best[0]], copy) if copy else found[best[0]]
    return best[0], _of_folders(taken, kinds) if kinds else taken


def _of_folders(found: Found, kinds: Found) -> Found:
    """What was found, where folders name the defects that no label names."""
    named = {one.name: one.classes for one in kinds.pictures if one.classes}
    pictures = [
        replace(one, classes=one.classes or named[one.name], is_defective=not one.mask)
        if one.name in named
        else one
        for one in found.pictures
    ]
    return replace(found, pictures=pictures)


def _has_copy(found: dict[str, Found]) -> bool:
    """Whether outlines are there only beside masks that show the same."""
    return "masks_beside" in found and "labelme" in found and found["labelme"].is_copy


def _compared(found: Found, copy: Found) -> Found:
    """What was found, where outlines of the same must agree with the masks."""
    outlined = {one.name: one for one in copy.pictures if one.mask and one.is_named}

    def compared(one: Picture, mask: Mask, other: Picture) -> Picture:
        def read(size: tuple[int, int]) -> np.ndarray:
            pixels = mask(size)
            if other.mask and (pixels != other.mask(size)).any():
                told = "its mask and its outlines differ: one was changed, save both anew"
                raise DataError(told, see="labels#two-labels")
            return pixels

        return replace(one, mask=read, classes=other.classes, class_masks=other.class_masks)

    pictures = [
        compared(one, one.mask, outlined[one.name]) if one.mask and one.name in outlined else one
        for one in found.pictures
    ]
    return replace(found, pictures=pictures, used=found.used | copy.used)


def with_good(found: Found) -> Found:
    """What was found, with a black mask for each picture without one in a folder called good."""
    pictures = [
        replace(picture, mask=nothing)
        if picture.is_open
        and not class_folders.is_among_masks(picture.name)
        and any(map(GOOD.fullmatch, PurePosixPath(picture.name).parts[:-1]))
        else picture
        for picture in found.pictures
    ]
    return replace(found, pictures=pictures)


def _seen(tree: Tree) -> str:
    """What is there, in a few words."""
    others = [name for name in tree.files if name not in set(tree.images)]
    endings = sorted({PurePosixPath(name).suffix or "none" for name in others})
    files = f"{len(others)} other files ({listed(endings)})" if others else "nothing else"
    seen = f"holds {len(tree.images)} pictures and {files}"
    return seen + (f", of which {tree.listed(list(tree.damaged))}" if tree.damaged else "")
