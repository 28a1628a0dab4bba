"""YOLO's segments: a text file for each picture, a line for each defect.

A line is the number of its class, then x and y of each corner as shares of the width and height.
`images/a.jpg` has its file in `labels/a.txt`; or they lie side by side. An empty file is a good
surface, none is no label. A line of five numbers is a box, which outlines nothing.
"""

import re
from dataclasses import replace
from functools import partial

import numpy as np

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import BOXES, Found, Labels, Shape, Tree, without_ending
from ksdd_lib.layouts.readers import polygons

LISTS = ("classes.txt", "obj.names")
NAMES = re.compile(
    r"^names:[ \t]*(?:\[([^]]*)\]|\{([^}]*)\}|((?:\n(?:[ \t]*-|[ \t]+\d+:)[^\n]*)+))", re.MULTILINE
)
NAME = re.compile(r"""\s*-?\s*(?:(\d+)\s*:)?\s*["']?(.*?)["']?\s*(?:#.*)?""")


def find(tree: Tree) -> Found | None:
    """The pictures with their segments; None where no text that belongs to a picture is YOLO's."""
    files, (used, names) = set(tree.ending(".txt")), _class_names(tree)
    labels = []
    for picture in tree.images:
        if file := next((place for place in _places(picture) if place in files), ""):
            try:
                lines = [line.split() for line in tree.text(file).splitlines() if line.strip()]
                shapes, lack = polygons.shapes_of(file, lines, partial(_shape, names))
            except DataError as error:
                shapes, lack = [], str(error)
            labels.append(Labels(file, picture, shapes, lack))
    if not any(one.lack in ("", BOXES) for one in labels):
        return None
    found = polygons.found(tree, labels)
    return found and replace(found, used=found.used | used)


def _places(picture: str) -> list[str]:
    """Where the text of a picture may be."""
    stem = without_ending(picture)
    before, folder, after = f"/{stem}".rpartition("/images/")
    there = [f"{before}/labels/{after}.txt".removeprefix("/")] if folder else []
    return [*there, f"{stem}.txt"]


def _shape(names: dict[int, str], fields: list[str]) -> Shape | str:
    numbers = np.array(fields, float)
    if len(numbers) == 5:
        return BOXES
    kind, points = numbers[0], numbers[1:].reshape(-1, 2)
    if kind % 1 or not 0 <= kind < 10_000:
        raise DataError("does not begin with the number of a class")
    if np.abs(points).max() > 2:
        raise DataError("has corners that are no shares of width and height")
    label = names.get(int(kind), str(int(kind)))
    return Shape(label, polygons.outline(points, is_share=True))


def _class_names(tree: Tree) -> tuple[set[str], dict[int, str]]:
    """The file that names the classes, and their names by number; nothing where none does."""
    for file in tree.ending(".yaml", ".yml", *LISTS):
        try:
            text = tree.text(file)
        except DataError:
            continue
        lines = text.splitlines() if file.endswith(LISTS) else []
        if not lines and (found := NAMES.search(text)):
            lines = (
                found[3].split("\n")[1:] if found[3] else (found[1] or found[2] or "").split(",")
            )
        entries = enumerate(map(NAME.fullmatch, lines))
        names = {int(one[1] or number): one[2] for number, one in entries if one and one[2]}
        if names:
            return {file}, names
    return set(), {}
