"""A folder for each item, in it `a.jpg` beside `a_label.png`: what the package itself reads."""

from dataclasses import replace
from pathlib import PurePosixPath

from ksdd_lib.layouts import masks_beside
from ksdd_lib.layouts.found import GENERIC, Found, Tree


def find(tree: Tree) -> Found | None:
    """The pictures with their items; None where one lies elsewhere, or no folder is a part."""
    folders = {PurePosixPath(name).parent.as_posix() for name in tree.images}
    if any("/" in folder or folder == "." for folder in folders):
        return None
    if all(map(GENERIC.fullmatch, folders)):
        return None
    if not any(PurePosixPath(name).stem.endswith("_label") for name in tree.images):
        return None
    found = masks_beside.find(tree)
    if found is None:
        return None
    items = [replace(one, item=one.name.partition("/")[0]) for one in found.pictures]
    return replace(found, pictures=items)
