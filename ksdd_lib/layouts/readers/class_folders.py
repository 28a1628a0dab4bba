"""Pictures in folders that are called by what they show: `good` or `ok` beside other names.

MVTec AD is one of them, with masks in a tree of their own: `train/good/000.png`,
`test/scratch/000.png` with `ground_truth/scratch/000_mask.png`.
"""

import re
from dataclasses import replace
from pathlib import PurePosixPath

from ksdd_lib.layouts.found import GENERIC, GOOD, Found, Picture, Tree, from_file, without_ending

MASKS = r"masks?|labels?|ground[ _-]?truth|gt|annotations?|segmentation(?:s|class)?"
"""The name of a folder of masks."""


def find(tree: Tree) -> Found | None:
    """The pictures with the class of their folder; None unless some are good, and some are not.

    No mask says where a defect is.
    """
    folders = {name: PurePosixPath(name).parts[:-1] for name in tree.images}
    depths = {d for parts in folders.values() for d, one in enumerate(parts) if GOOD.fullmatch(one)}
    if not depths:
        return None
    at = {name: parts[min(depths)] for name, parts in folders.items() if parts[min(depths) :]}
    at = {name: kind for name, kind in at.items() if not is_among_masks(name)}
    kinds = {name: kind for name, kind in at.items() if not GENERIC.fullmatch(kind)}
    if all(map(GOOD.fullmatch, kinds.values())):
        return None
    pictures = []
    for name in tree.images:
        kind = kinds.get(name, "")
        lack = f"its folder {kind!r} names a defect, and no mask outlines it"
        lack = lack if kind else Picture.lack
        one = Picture(without_ending(name), tree.path(name), None, lack=lack)
        pictures.append(named(one, kind))
    return Found(pictures)


def find_pictures(tree: Tree) -> Found | None:
    """All pictures, without a label; None of a folder without pictures."""
    pictures = [Picture(without_ending(name), tree.path(name), None) for name in tree.images]
    return Found(pictures) if pictures else None


def find_mvtec(tree: Tree) -> Found | None:
    """MVTec AD, one category of it or several; None where a folder of ground truth is missing."""
    masks: dict[str, str] = {}
    pictures = []
    for name in tree.images:
        before, truth, after = name.rpartition("ground_truth/")
        if truth and after.count("/") == 1:
            masks[f"{before}test/{without_ending(after).removesuffix('_mask')}"] = name
    for name in [name for name in tree.images if name not in set(masks.values())]:
        side, kind, _ = ("", "", *name.split("/"))[-3:]
        if side not in ("train", "test"):
            return None
        mask = masks.get(without_ending(name))
        one = Picture(
            without_ending(name),
            tree.path(name),
            from_file(tree.path(mask)) if mask else None,
            side=side,
            lack="it has no mask in ground_truth",
        )
        pictures.append(named(one, kind))
    return Found(pictures, set(masks.values())) if masks and pictures else None


def named(picture: Picture, kind: str) -> Picture:
    """The picture with the class of its defects, unless its folder says that it is good."""
    if not kind or GOOD.fullmatch(kind):
        return picture
    return replace(picture, classes=(kind,), is_defective=picture.mask is None)


def is_among_masks(name: str) -> bool:
    """Whether a picture lies in a folder of masks, by its path."""
    return any(re.fullmatch(MASKS, one, re.IGNORECASE) for one in PurePosixPath(name).parts[:-1])
