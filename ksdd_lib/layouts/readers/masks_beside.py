"""Pictures with masks: beside them under a name that says so, or in a folder of masks.

`a.jpg` with `a_label.png`, `a_mask.png`, `a_gt.bmp` or `a.png`; `images/a.jpg` with `masks/a.png`.
"""

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path, PurePosixPath

from ksdd_lib.data.dataset import read_file
from ksdd_lib.data.pixels import decode_mask
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed
from ksdd_lib.layouts.found import Found, Picture, Tree, are_items, from_file, without_ending
from ksdd_lib.layouts.readers.class_folders import MASKS
from ksdd_lib.layouts.readers.voc import OF_CLASSES, OF_OBJECTS, read_names, with_classes

MASK_WORD = re.compile(r"(?P<stem>.+?)[ _.-](?:label|mask|gt|seg|annotation)s?", re.IGNORECASE)
MASK_FOLDER = re.compile(f"(?:{MASKS})(?P<of>.*)", re.IGNORECASE)
PICTURE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "data", "JPEGImages")
MASK_ENDINGS = (".png", ".bmp")


def find(tree: Tree) -> Found | None:
    """The pictures and their masks; None where no file is a mask by its name or folder."""
    masks: dict[str, list[str]] = {}  # where its picture is, by path without ending -> masks
    for name in tree.images:
        for place in _pictures_of(name):
            masks.setdefault(place.casefold(), []).append(name)
    same: dict[str, list[str]] = {}
    for name in tree.images:
        same.setdefault(without_ending(name).casefold(), []).append(name)
    for place, names in same.items():  # a.jpg beside a.png
        if len(names) == 2 and len(mine := _masks_among(tree, names)) == 1:
            masks.setdefault(place, []).extend(mine)
    paired = {place: names for place, names in masks.items() if place in same}
    used = {name for names in paired.values() for name in names}
    if not used:
        return None
    notes, missing = list[str](), Picture.lack
    if any(map(OF_CLASSES.fullmatch, used)):
        missing = "it has no mask in SegmentationClass"
        objects = list(filter(OF_OBJECTS.fullmatch, tree.images))
        used |= set(objects)
        said = f"{len(objects)} masks of single objects are not read: {listed(objects, 2)}"
        notes += [said] * bool(objects)
    pictures, names_in = [], cache(partial(read_names, tree))
    for name in tree.images:
        if name in used:
            continue
        mine = sorted(set(paired.get(without_ending(name).casefold(), ())))
        lack = f"it has two masks, {' and '.join(mine)}" if mine else missing
        mask = from_file(tree.path(mine[0])) if len(mine) == 1 else None
        one = Picture(without_ending(name), tree.path(name), mask, lack=lack, is_named=bool(mine))
        if mask and (voc := OF_CLASSES.fullmatch(mine[0])):
            known = names_in(voc["root"])
            one, used = with_classes(one, tree, mine[0], known), used | known.files
        pictures.append(one)
    return Found(pictures, used, notes)


def find_items(tree: Tree) -> Found | None:
    """Item folders, which the package itself reads: `<item>/a.jpg` beside `<item>/a_label.png`.

    None where a picture lies elsewhere than in folders side by side, or no folder is an item.
    """
    folders = {PurePosixPath(name).parent for name in tree.images}
    names = [folder.name for folder in folders]
    if len({folder.parent for folder in folders}) > 1 or "" in names or not are_items(names):
        return None
    if not any(PurePosixPath(name).stem.endswith("_label") for name in tree.images):
        return None
    if found := find(tree):
        items = [replace(one, item=one.name.split("/")[-2]) for one in found.pictures]
        return replace(found, pictures=items)
    return None


def find_kolektorsdd2(tree: Tree) -> Found | None:
    """KolektorSDD2: `train` and `test`, in each `10000.png` beside `10000_GT.png`."""
    places = [tuple(name.split("/")[:-1]) for name in tree.images]
    if set(places) != {("train",), ("test",)} or not any("_GT." in name for name in tree.images):
        return None
    if found := find(tree):
        sided = [replace(one, side=one.name.partition("/")[0]) for one in found.pictures]
        return replace(found, pictures=sided)
    return None


def _masks_among(tree: Tree, names: list[str]) -> list[str]:
    """Which of two files of one name may be masks: by their endings, and if need be by pixels."""
    may = [name for name in names if name.lower().endswith(MASK_ENDINGS)]
    return may if len(may) < 2 else [name for name in may if _is_mask(tree.path(name))]


def _is_mask(path: Path) -> bool:
    try:
        return bool(decode_mask(read_file(path), path.name).size)
    except DataError:
        return False


def _pictures_of(name: str) -> list[str]:
    """Where the picture of a mask may be, by its path without ending; none of other files."""
    path, places = PurePosixPath(name), list[str]()
    if path.suffix.lower() not in MASK_ENDINGS:
        return []
    worded = MASK_WORD.fullmatch(path.stem)
    stems = [path.stem, worded["stem"]] if worded else [path.stem]
    if worded:
        places.append(str(path.with_name(worded["stem"])))
    for depth, folder in enumerate(path.parts[:-1]):
        if found := MASK_FOLDER.fullmatch(folder):
            before, after = path.parts[:depth], path.parts[depth + 1 : -1]
            for instead in ("", *(f"{word}{found['of']}" for word in PICTURE_FOLDERS)):
                parts = [*before, *([instead] if instead else []), *after]
                places += ["/".join([*parts, stem]) for stem in stems]
    return places
