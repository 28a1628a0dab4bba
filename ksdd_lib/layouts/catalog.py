"""Which layout a folder has: each reader looks, and the one that understands most is taken."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed
from ksdd_lib.layouts import item_folders, masks_beside
from ksdd_lib.layouts.found import Found, Tree, nothing


class Layout(NamedTuple):
    """A reader, what it reads in a few words, and whether its signs are its own alone."""

    find: Callable[[Tree], Found | None]
    words: str
    is_own: bool = False


LAYOUTS = {
    "item_folders": Layout(item_folders.find, "folders of items, labels beside the pictures", True),
    "masks_beside": Layout(masks_beside.find, "pictures with masks beside them or in a folder"),
}
"""Name for `--set layout=` -> layout. Two that fit equally well are both named."""

GOOD = re.compile(r"good|ok|io|normal|non?[ _-]?defect\w*|defect[ _-]?free|fine|gut", re.IGNORECASE)
"""The name of a folder whose pictures are good surfaces."""


def recognise(tree: Tree, wanted: str = "auto") -> tuple[str, Found]:
    """The layout of a folder and what its reader found.

    A picture that no annotation mentions is good where it lies in a folder called so. Raises
    DataError where no layout fits, or two fit equally well and `wanted` names neither.
    """
    if wanted != "auto":
        found = LAYOUTS[wanted].find(tree)
        if found is None:
            raise DataError(f"{tree.root.name} is not {LAYOUTS[wanted].words}: {_seen(tree)}.")
        return wanted, _with_good(found, tree)
    fits = {name: found for name, one in LAYOUTS.items() if (found := one.find(tree))}
    own = {name: found for name, found in fits.items() if LAYOUTS[name].is_own} or fits
    most = max((found.labelled for found in own.values()), default=0)
    best = [name for name, found in own.items() if found.labelled == most]
    if not best:
        known = "; ".join(one.words for one in LAYOUTS.values())
        raise DataError(f"No known layout in {tree.root.name}: {_seen(tree)}. Known are {known}.")
    if len(best) > 1:
        which = " and as ".join(f"{LAYOUTS[name].words} (layout={name})" for name in best)
        raise DataError(f"{tree.root.name} reads as {which}: choose by --set layout=NAME.")
    return best[0], _with_good(fits[best[0]], tree)


def _with_good(found: Found, tree: Tree) -> Found:
    """What was found, with a black mask for each picture without one in a folder called good."""
    pictures = [
        replace(picture, mask=nothing)
        if picture.mask is None and any(map(GOOD.fullmatch, PurePosixPath(picture.name).parts[:-1]))
        else picture
        for picture in found.pictures
    ]
    return replace(found, pictures=pictures)


def _seen(tree: Tree) -> str:
    """What is there, in a few words."""
    others = [name for name in tree.files if name not in set(tree.images)]
    endings = sorted({PurePosixPath(name).suffix or "none" for name in others})
    return f"it holds {len(tree.images)} pictures and {len(others)} other files ({listed(endings)})"
