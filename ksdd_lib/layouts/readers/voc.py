"""Pascal VOC's masks: `JPEGImages/a.jpg` with `SegmentationClass/a.png`, one colour a class."""

import io
import re
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from ksdd_lib.data.dataset import read_file, short_path
from ksdd_lib.data.pixels import decode_image
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import Picture, Tree, from_file

OF_CLASSES = re.compile(r"(?P<root>(?:.*/)?)SegmentationClass/[^/]+", re.IGNORECASE)
OF_OBJECTS = re.compile(r"(?:.*/)?SegmentationObject/[^/]+", re.IGNORECASE)
NAMES = ("labelmap.txt", "classes.txt", "class_names.txt")
"""Beside VOC's folders: `name:red,green,blue` in each line, as of CVAT, or the name alone."""

NAMED_COLOUR = re.compile(r"(.+?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?")
NO_CLASS = re.compile(r"_*(?:background|void|ignored?)_*", re.IGNORECASE)
RGB = 1 << 16, 1 << 8, 1
"""What makes one number of a colour."""


class Names(NamedTuple):
    """The classes of VOC's masks by colour, as `RGB` makes a number of it, or else by index."""

    files: frozenset[str] = frozenset()
    of_colours: dict[int, str] = {}
    of_indices: dict[int, str] = {}


def read_names(tree: Tree, root: str) -> Names:
    """The list of names in the folder of VOC's folders; without one the indices are the names."""
    here = [root + name for name in NAMES if root + name in set(tree.files)]
    lines = [line.strip() for line in tree.text(here[0]).splitlines()] if here else []
    lines = [line for line in lines if line and not line.startswith("#")]
    parsed = [NAMED_COLOUR.fullmatch(line) for line in lines]
    colours = {
        int(np.dot([int(level) for level in one.groups()[1:]], RGB)): one[1].strip()
        for one in parsed
        if one
    }
    if any(NO_CLASS.fullmatch(line) for line in lines[:1]):
        lines = lines[1:]
    indices = {number: f"class {number}" for number in range(256)}
    if not colours:
        indices |= dict(enumerate(lines, start=1))
    colours = {_colour(255): "void"} | colours if colours else {}
    no_class = {0: "background", 255: "void"}  # VOC has 255 along borders that nobody decides
    return Names(frozenset(here[:1]), colours, indices | no_class)


def with_classes(one: Picture, tree: Tree, mask: str, names: Names) -> Picture:
    """The picture with the classes that a mask of VOC's has, if it has colours."""
    path = tree.path(mask)
    try:
        kinds = _kinds(read_file(path), short_path(path), names)
    except DataError as error:
        return replace(one, mask=None, lack=str(error))
    if kinds is None:
        return one

    def marked(data: bytes, name: str, wanted: tuple[str, ...]) -> np.ndarray:
        return np.any([(_kinds(data, name, names) or {})[kind] for kind in wanted], axis=0)

    classes = tuple(sorted(kinds))
    masks = [from_file(path, partial(marked, wanted=(kind,))) for kind in classes]
    whole = from_file(path, partial(marked, wanted=classes))
    several = tuple(masks) if len(masks) > 1 else ()
    return replace(one, mask=whole, classes=classes, class_masks=several)


def _kinds(data: bytes, name: str, names: Names) -> dict[str, np.ndarray] | None:
    """The pixels of each class in a mask, bool (H, W); None where it is black and white, or black.

    Raises DataError for a colour that has no name, and where no class is marked but void is.
    """
    decode_image(data, name)  # whole, and of an allowed size
    with Image.open(io.BytesIO(data)) as image:
        keys = np.asarray(image.convert("RGB")).astype(np.int64) @ RGB
        palette = np.reshape(image.getpalette() or (0, 0, 0), (-1, 3))
        of = names.of_colours
        if not of and image.mode == "P" and (palette != palette[:, :1]).any():
            keys, of = np.asarray(image), names.of_indices
        elif not of and image.mode == "RGB":
            of = {_colour(index): kind for index, kind in names.of_indices.items()}
        hides = image.has_transparency_data
    found = np.unique(keys).tolist()
    unknown = [key for key in found if key and key not in of]
    is_gray = bool(unknown) and all(key % sum(RGB) == 0 for key in unknown)
    if hides or not of or not any(found) or is_gray:
        return None  # `decode_mask` reads it, or says what is wrong
    if unknown:
        colour = ", ".join(str(byte) for byte in unknown[0].to_bytes(3, "big"))
        raise DataError(
            f"{name} has the colour {colour} (red, green, blue), which is no class's",
            see="labels#alpha",
        )
    kinds = {of[key] for key in found if key in of and not NO_CLASS.fullmatch(of[key])}
    if not kinds:
        raise DataError(f"{name} marks nothing but void")
    return {kind: np.isin(keys, [k for k in found if of.get(k) == kind]) for kind in kinds}


def _colour(index: int) -> int:
    """The colour of an index in VOC's palette, whose bits are dealt out to red, green and blue."""
    levels = [sum((index >> 3 * j + k & 1) << 7 - j for j in range(3)) for k in range(3)]
    return int(np.dot(levels, RGB))
