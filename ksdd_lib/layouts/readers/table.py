"""A table `labels.csv` beside the pictures: the columns image, item, class and mask.

Only the image is needed. The class is `good` or the name of a defect.
"""

import csv
import io

from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed
from ksdd_lib.layouts.found import GOOD, Found, Picture, Tree, from_file, nothing, without_ending

NAME = "labels.csv"
COLUMNS = ("image", "item", "class", "mask")


def find(tree: Tree) -> Found | None:
    """The pictures that the table names; None where there is no such table, or no column image."""
    file = next((name for name in tree.files if name.lower() == NAME), "")
    rows = _rows(file, tree.text(file)) if file else []
    if not rows or "image" not in rows[0]:
        return None
    unknown = [name for name in rows[0] if name and name not in COLUMNS]
    notes = [f"{file} has the column {name!r}, which says nothing here" for name in unknown]
    pictures, used, twice, missing = dict[str, Picture](), {file}, set[str](), list[str]()
    masks = {row["mask"]: tree.image(row["mask"]) for row in rows if row.get("mask")}
    no_pictures = {where for where in masks.values() if where}
    for row in rows:
        cells = {name: row.get(name, "") for name in COLUMNS}
        name, mask = tree.image(cells["image"], but=no_pictures), cells["mask"]
        if name is None:
            missing.append(cells["image"])
            continue
        twice |= {name} & pictures.keys()
        where = masks.get(mask) if masks.get(mask) != name else None  # of the same name elsewhere
        used |= {where} if where else set()
        is_good = bool(GOOD.fullmatch(cells["class"]))
        lack = f"its mask {mask!r} is not there" if mask else f"{file} names no mask for it"
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
    if missing:
        told = (
            f"{file} names {len(missing)} pictures that are not there, or whose name several have"
        )
        notes.append(f"{told}: {listed(missing, 5)}")
    if twice:
        raise DataError(f"{file} names {min(twice)} twice: leave one row for each picture.")
    return Found(list(pictures.values()), used, notes)


def _rows(file: str, text: str) -> list[dict[str, str]]:
    """The rows by column, in small letters; cells are split as the first line is.

    Raises DataError where a row has more cells than there are columns.
    """
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    names, *rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    if long := [number for number, row in enumerate(rows, 2) if any(row[len(names) :])]:
        raise DataError(
            f"Row {long[0]} of {file} has more cells than columns: put quotes around {separator!r}."
        )
    names = [name.strip().lower() for name in names]
    return [dict(zip(names, map(str.strip, row), strict=False)) for row in rows if any(row)]
