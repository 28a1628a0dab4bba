"""Writes notebooks/demo_in_one.ipynb: the series in one runtime, for a lesson.

`python tools/one_notebook.py` makes it from the five; it is not edited by hand.
"""

import json
from pathlib import Path
from typing import Any

from address import badges, repository_address, under_title
from run_notebooks import NOTEBOOKS

from ksdd_lib import storage

ROOT = Path(__file__).resolve().parents[1]

NAME = "demo_in_one"
TITLE = """\
# The series in one

**You will** run all five notebooks in one go, on generated surfaces: get data, train both \
networks, evaluate, look. It takes about 5 minutes on two fast CPU cores. Nothing goes to Drive, \
and what is here ends with this machine.

Choose *Run all*. The [notebooks one by one](README.md) keep their results, and take your own \
parts."""

ALONE = """\
import os

import ksdd_lib as ksdd

os.environ |= {"KSDD_DRIVE": "", "KSDD_PRESET": "demo"}  # no copies, generated surfaces
os.environ["KSDD_RUN"] = str(ksdd.home() / "runs" / "demo-in-one")  # no other run goes on here
chosen = {}  # all as in the preset, unless a form below is changed"""

Cell = dict[str, Any]


def in_one(root: Path) -> str:
    """The text of the notebook, from the five that lie in `root`."""
    books = [_read(root, name) for name in NOTEBOOKS]
    setup = next(cell for cell in books[0]["cells"] if _is_setup(cell))
    title = under_title(TITLE, badges(NAME, repository_address(root)))
    cells = [_cell("markdown", title), setup, _cell("code", ALONE)]
    for number, book in enumerate(books):
        cells += [kept for cell in book["cells"] if (kept := _kept(cell, is_first=number == 0))]
    numbered = [cell | {"id": str(number)} for number, cell in enumerate(cells)]
    return json.dumps(books[0] | {"cells": numbered}, indent=1, ensure_ascii=False) + "\n"


def _kept(cell: Cell, is_first: bool) -> Cell | None:
    """What of a cell belongs into one run: no choice of data, nothing that ends a notebook."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "code":
        begins = text.startswith("import ksdd_lib") and not is_first
        return None if text.startswith("# @title") or begins or "leave(" in text else cell
    if text.startswith("# "):  # a title; what its notebook needs and leads to is left out
        parts = [part for part in text.split("\n\n") if not part.startswith("[![")]
        text = "\n\n".join(["#" + parts[0], parts[1]])
    parts = [part for part in text.split("\n\n") if "%env" not in part]
    text = "\n\n".join(parts)
    for end in ("## Choose", "## Set-up", "## Before you leave", "## Troubleshooting"):
        text = text.partition(end)[0]
    return _cell("markdown", text.strip()) if text.strip() else None


def _is_setup(cell: Cell) -> bool:
    return "setup" in cell["metadata"].get("tags", [])


def _cell(kind: str, text: str) -> Cell:
    source = text.splitlines(keepends=True)
    made: Cell = {"cell_type": kind, "id": "", "metadata": {}, "source": source}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _read(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


if __name__ == "__main__":
    storage.write_text(ROOT / "notebooks" / f"{NAME}.ipynb", in_one(ROOT))
