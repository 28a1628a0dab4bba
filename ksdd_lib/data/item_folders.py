"""The layout of item folders: `<item>/<part>.jpg` beside `<item>/<part>_label.png`.

An item is one physical object, photographed from several sides: its parts. Any names work;
KolektorSDD's are `kos01/Part5`. Images end in .jpg, .jpeg, .png or .bmp, labels in .bmp or .png.
"""

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import natural_key, read_image, short_path
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS
from ksdd_lib.data.synthetic import MARKER
from ksdd_lib.errors import DataError

MASK_EXTENSIONS = (".bmp", ".png")
LIKE_A_LABEL = re.compile(r"(.+)[ ._-](?:labels?|masks?)", re.IGNORECASE)  # though not read as one
LAYOUT = "a folder for each item, in it <name>.jpg beside <name>_label.png"


class Pair(NamedTuple):
    """The two files of a sample, and why a black mask must not be taken for a good surface."""

    image: Path
    mask: Path
    doubt: str | None


class Files(NamedTuple):
    """What lies below a root by sample name, and what is outside the layout; no hidden files."""

    images: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]
    doubts: Mapping[str, str]  # what is wrong with a file probably meant as the label
    ignored: list[str]

    def pair(self, name: str) -> Pair | str:
        """The files of a sample, or why there is not one image with one mask."""
        images, masks, doubt = self.images[name], self.masks.get(name, []), self.doubts.get(name)
        for kind, paths in (("images", images), ("masks", masks)):
            if len(paths) > 1:
                return f"two {kind} of one name, {' and '.join(map(short_path, paths))}"
        if masks:
            return Pair(images[0], masks[0], doubt)
        return doubt or f"{short_path(images[0])} has no mask {name}_label.bmp or .png beside it"


def list_files(root: Path) -> Files:
    """What lies below `root`, of which no file is opened; DataError where no image is there."""
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist: give the folder of the items.")
    images, masks, others, ignored = defaultdict(list), defaultdict(list), [], []
    for item in _visible(root):
        if not item.is_dir():
            ignored += [item.name] * (item.name != MARKER)
            continue
        for path in _visible(item):
            stem, extension = os.path.splitext(path.name)
            part = stem.removesuffix("_label")
            if path.is_dir():
                ignored.append(f"{item.name}/{path.name}/")
            elif part == stem and extension.lower() in IMAGE_EXTENSIONS:
                images[f"{item.name}/{part}"].append(path)
            elif part != stem and extension.lower() in MASK_EXTENSIONS:
                masks[f"{item.name}/{part}"].append(path)
            else:
                others.append(path)
    doubts: dict[str, str] = {}
    for path in [*itertools.chain(*images.values()), *others]:
        meant = LIKE_A_LABEL.fullmatch(path.stem)
        if meant and (name := f"{path.parent.name}/{meant[1]}") in images:
            found = f"{short_path(path)} looks like the label of {name}"
            read = f"but only {name}_label.png or .bmp is read: save it as that, or take it away"
            doubts.setdefault(name, f"{found}, {read}")
            if images.pop(f"{path.parent.name}/{path.stem}", None):
                others.append(path)
    if not images:
        raise DataError(f"No image in {root}: expected {LAYOUT}.")
    others += [path for name in masks.keys() - images.keys() for path in masks[name]]
    ignored += map(short_path, others)
    return Files(images, masks, doubts, sorted(ignored, key=natural_key))


def label_good(root: Path) -> list[Path]:
    """Write a black label beside every image that has none, and return the new files.

    DataError, before any is written, where an image is unreadable or beside what may be its label.
    """
    files = list_files(root)
    wanted = {}
    for name in sorted(files.images.keys() - files.masks.keys(), key=natural_key):
        image = files.images[name][0]
        if name in files.doubts:
            raise DataError(f"{files.doubts[name]}. Nothing was written.")
        wanted[image.with_name(f"{image.stem}_label.png")] = read_image(image).shape
    for path, shape in wanted.items():
        storage.write_bytes(path, cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes())
    return list(wanted)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
