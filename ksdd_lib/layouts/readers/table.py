"""A table `labels.csv` beside the pictures: the columns image, item, class and mask.

Only the image is needed. The class is `good` or the name of a defect.
"""

import csv
import io

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import GOOD, Found, Picture, Tree, from_file, nothing, without_ending

NAME = "labels.csv"
COLUMNS = ("image", "item", "class", "mask")


def find(tree: Tree) -> Found | None:
    """The pictures that the table names; None where there is no such table, or no column image."""
    if NAME not in tree.files:
        return None
    text = tree.text(NAME)
    head = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text), delimiter=";" if ";" in head else ","))
    if not rows or "image" not in rows[0]:
        return None
    unknown = [str(name) for name in rows[0] if name not in COLUMNS]
    notes = [f"{NAME} has the column {name!r}, which says nothing here" for name in unknown]
    pictures, used, twice = dict[str, Picture](), {NAME}, set[str]()
    masks = {row.get("mask"): tree.image(row["mask"]) for row in rows if row.get("mask")}
    no_pictures = {where for where in masks.values() if where}
    for row in rows:
        cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
        name, mask = tree.image(cells["image"], but=no_pictures), cells["mask"]
        if name is None:
            notes.append(f"{NAME} names {cells['image']!r}, which is not there")
            continue
        twice |= {name} & pictures.keys()
        where = masks.get(row.get("mask"))
        used |= {where} if where else set()
        is_good = bool(GOOD.fullmatch(cells["class"]))
        lack = f"its mask {mask!r} is not there" if mask else f"{NAME} names no mask for it"
        pictures[name] = Picture(
            without_ending(name),
            tree.path(name),
            from_file(tree.path(where)) if where else nothing if is_good and not mask else None,
            item=cells["item"] or None,
            classes=() if is_good or not cells["class"] else (cells["class"],),
            lack=lack,
            is_named=bool(mask),
            is_defective=bool(cells["class"]) and not is_good and not mask,
        )
    if twice:
        raise DataError(f"{NAME} names {min(twice)} twice: leave one row for each picture.")
    return Found(list(pictures.values()), used, notes)
