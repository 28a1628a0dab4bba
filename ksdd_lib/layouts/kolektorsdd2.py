"""KolektorSDD2: `train` and `test`, in each `10000.png` beside `10000_GT.png`."""

from dataclasses import replace

from ksdd_lib.layouts import masks_beside
from ksdd_lib.layouts.found import Found, Tree


def find(tree: Tree) -> Found | None:
    """The pictures with the side that they are on; None where a file lies elsewhere."""
    names = [name.split("/") for name in tree.images]
    if any(len(parts) != 2 for parts in names) or {parts[0] for parts in names} != {
        "train",
        "test",
    }:
        return None
    if not any("_GT." in name for name in tree.images):
        return None
    found = masks_beside.find(tree)
    if found is None:
        return None
    sided = [replace(one, side=one.name.partition("/")[0]) for one in found.pictures]
    return replace(found, pictures=sided)
