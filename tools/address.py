"""Writes the repository's address from pyproject.toml into the notebooks and the README.

`python tools/address.py` renews every notebook's set-up cell, the badges and the guide's first step
in Colab, and names the files that it changed.
"""

import json
import re
import tomllib
from pathlib import Path

import pages

ROOT = Path(__file__).resolve().parents[1]

SETUP_CELL = """\
# @title Set-up
import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ADDRESS = ""  # written by `python tools/address.py`
if importlib.util.find_spec("ksdd_lib") is None:
    with contextlib.suppress(Exception):  # not in Colab, or Drive was refused
        ADDRESS or importlib.import_module("google.colab.drive").mount("/content/drive")
    places = [Path.cwd(), *Path.cwd().parents, Path.cwd() / "ksdd-main"]
    places += [Path("/content/drive/MyDrive", name) for name in ("ksdd-main", "ksdd")]
    found = [place for place in places if (place / "ksdd_lib" / "__init__.py").is_file()]
    if not found and not ADDRESS:
        raise RuntimeError("ksdd_lib is not here: allow Drive, or put it into MyDrive/ksdd-main.")
    if not found:
        subprocess.run(["git", "clone", "--depth=1", ADDRESS, "ksdd-main"], check=True)
    sys.path[:0] = [str(place) for place in found[:1] or [Path.cwd() / "ksdd-main"]]
"""
"""The first code cell of every notebook. It finds ksdd_lib where it is installed, in a checkout
above the notebook, in an earlier clone, or in a copy in Drive; else git clones the repository's
address. Drive is mounted here only where there is no address. Colab folds the code away."""

FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}
"""Metadata by which Colab and Jupyter fold a cell's code away."""

BADGES = {
    "Colab": (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/{}",
    ),
    "Kaggle": (
        "https://kaggle.com/static/images/open-in-kaggle.svg",
        "https://kaggle.com/kernels/welcome?src=https://github.com/{}",
    ),
}
"""What a badge says -> its picture, and what it opens; {} is the place of the notebook."""

FIRST = "00_see_it_work"
BADGE_STARTS = "[![Colab]", '<a href="https://colab.research.google.com'
COLUMN = "open"  # the head of the README's column of badges

FIRST_STEP = {
    False: """\
1. **Open the first notebook.** Download this repository as a ZIP (*Code, Download ZIP*, 31 MB) \
and unpack it. Call the folder `ksdd-main` and drag it into *My Drive*. \
`MyDrive/ksdd-main/ksdd_lib` must exist, without a second `ksdd-main` in between. Wait until Drive \
says that the upload is complete. In Drive, open `ksdd-main/notebooks/01_download_data.ipynb` with \
Google Colaboratory.
   - To update, rename the old `ksdd-main` first. It holds the notebooks that you have executed.
   - Links between notebooks on Drive may not work: open the next from Drive's folder.
""",
    True: """\
1. **Open the first notebook.** Click its badge in the [README](../README.md#the-notebooks). The \
first cell clones the repository, so you copy nothing. To keep what you executed, choose *File, \
Save a copy in Drive*.
   - To work with a changed copy of the package in `MyDrive/ksdd-main`, mount Drive above *Set-up*.
""",
}
"""Whether there is an address -> the guide's first step in Colab."""

README_TABLE, GUIDE_STEP = pages.place_of("notebooks"), pages.place_of("first-step")


def write_address(root: Path) -> list[str]:
    """Write the repository's address into every notebook and the README.

    Returns:
        The names of the files that changed; none the second time.

    Raises:
        ValueError: as `repository_address`.
    """
    wanted = _with_address(root)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return [path.name for path in wanted]


def check_address(root: Path) -> list[str]:
    """The names of the files that `write_address` would change."""
    return [path.name for path in _with_address(root)]


def repository_address(root: Path) -> str:
    """The address in pyproject.toml's [project.urls], "" while it is unset.

    Raises:
        ValueError: Colab cannot open it.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            f"Repository in pyproject.toml is {address!r}; "
            "Colab opens notebooks from https://github.com/OWNER/NAME."
        )
    return address


def badges(notebook: str, address: str) -> str:
    """One line of Markdown that opens a notebook in Colab and in Kaggle; "" without an address.

    Args:
        notebook: its file name without the ending.
        address: https://github.com/OWNER/NAME, or "".
    """
    place = _place(notebook, address)
    made = (
        f"[![{says}]({picture})]({opens.format(place)})"
        for says, (picture, opens) in BADGES.items()
    )
    return " ".join(made) if address else ""


def large_badge(address: str) -> str:
    """One line of HTML that opens the first notebook in Colab; "" without an address."""
    picture, opens = BADGES["Colab"]
    link = opens.format(_place(FIRST, address))
    image = f'<img src="{picture}" alt="Open in Colab" height="40">'
    return f'<a href="{link}">{image}</a>' if address else ""


def _place(notebook: str, address: str) -> str:
    return address.removeprefix("https://github.com/") + f"/blob/main/notebooks/{notebook}.ipynb"


def _with_address(root: Path) -> dict[Path, str]:
    """File -> new text, where that differs from what is there."""
    address = repository_address(root)
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    texts = {path: _notebook_text(path, address) for path in notebooks}
    readme, guide = root / "README.md", root / "notebooks" / "README.md"
    if readme.exists():
        text = under_title(readme.read_text(encoding="utf-8"), large_badge(address))
        texts[readme] = README_TABLE.sub(lambda table: _table_with_badges(table[0], address), text)
    if guide.exists():
        step = FIRST_STEP[bool(address)]
        texts[guide] = GUIDE_STEP.sub(lambda _: step, guide.read_text(encoding="utf-8"))
    return {path: new for path, new in texts.items() if path.read_text(encoding="utf-8") != new}


def _notebook_text(path: Path, address: str) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    title = next(cell for cell in cells if cell["cell_type"] == "markdown")
    title["source"] = under_title("".join(title["source"]), badges(path.stem, address))
    setup = SETUP_CELL.rstrip("\n").replace('ADDRESS = ""', f'ADDRESS = "{address}"')
    for cell in cells:
        if "setup" in cell["metadata"].get("tags", []):
            cell["source"] = setup
            cell["metadata"] |= FOLDED
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def under_title(text: str, line: str) -> str:
    """A page with this line of badges under its title, instead of the one there may be."""
    parts = [part for part in text.split("\n\n") if not part.startswith(BADGE_STARTS)]
    return "\n\n".join([parts[0], line, *parts[1:]] if line else parts)


def _table_with_badges(table: str, address: str) -> str:
    """The README's table with a last column of badges; without an address there is none."""
    rows = [line.strip().strip("|").split("|") for line in table.splitlines()]
    if rows[0][-1].strip() == COLUMN:
        rows = [cells[:-1] for cells in rows]
    if address:
        links = [re.search(r"\(notebooks/(\w+)\.ipynb\)", cells[0]) for cells in rows[2:]]
        made = [f" {badges(link[1], address) if link else ''} " for link in links]
        column = [f" {COLUMN} ", "---", *made]
        rows = [[*cells, last] for cells, last in zip(rows, column, strict=True)]
    return "".join(f"|{'|'.join(cells)}|\n" for cells in rows)


if __name__ == "__main__":
    print("\n".join(write_address(ROOT)) or "nothing to write: all is as in pyproject.toml")
