"""What item folders were written from, where they are not as somebody made them."""

from pathlib import Path

from ksdd_lib import storage

NOTE = ".layout.json"
"""Beside the items: a `LayoutNote`."""


class LayoutNote(storage.Record):
    """The layout that item folders were written from, and what they cannot hold themselves.

    Attributes:
        layout: its name in `layouts.catalog`.
        notes: what was not understood, or lacks a label, in sentences.
        sides: name of a sample -> "train" or "test", where the data set was split already.
        classes: name of a sample -> the classes of its defects, where they were named.
    """

    layout: str
    notes: tuple[str, ...] = ()
    sides: dict[str, str] = {}
    classes: dict[str, tuple[str, ...]] = {}


def read_note(root: Path) -> LayoutNote | None:
    """The note beside the items in `root`; None where they are as somebody made them."""
    return storage.read_record(root / NOTE, LayoutNote) if (root / NOTE).exists() else None
