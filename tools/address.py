"""Writes the repository's address from pyproject.toml into the notebooks and the README.

`python tools/address.py` renews every notebook's set-up cell and the badges, and names the files
that it changed.
"""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SETUP_CELL = """\
import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ADDRESS = ""  # written by `python tools/address.py`
if importlib.util.find_spec("ksdd_lib") is None:
    with contextlib.suppress(Exception):  # not in Colab, or Drive was refused
        importlib.import_module("google.colab.drive").mount("/content/drive")
    places = [Path.cwd(), *Path.cwd().parents]
    places += [Path("/content/drive/MyDrive", name) for name in ("ksdd-main", "ksdd")]
    found = [str(place) for place in places if (place / "ksdd_lib" / "__init__.py").is_file()]
    sys.path[:0] = found[:1]
    if not found and not ADDRESS:
        raise RuntimeError("ksdd_lib is not here: allow Drive, or put it into MyDrive/ksdd-main.")
    if not found:
        install = [sys.executable, "-m", "pip", "install", "--no-deps", f"git+{ADDRESS}"]
        subprocess.run(install, check=True)
"""
"""The first code cell of every notebook. It finds ksdd_lib where it is installed, in a checkout
above the notebook, in a copy in Drive, or at the repository's address. pip is not quiet, because
Colab reads its last line."""

BADGE_START = "[![Open in Colab]"
README_TABLE = re.compile(r"(?<=<!-- notebooks:begin -->\n).*?(?=<!-- notebooks:end -->)", re.S)


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
    """One line of Markdown that opens a notebook in Colab and on GitHub; "" without an address.

    Args:
        notebook: its file name without the ending.
        address: https://github.com/OWNER/NAME, or "".
    """
    if not address:
        return ""
    place = address.removeprefix("https://github.com/") + f"/blob/main/notebooks/{notebook}.ipynb"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    github = "https://img.shields.io/badge/view_on-GitHub-555?logo=github"
    return (
        f"{BADGE_START[:-1]}]({picture})](https://colab.research.google.com/github/{place}) "
        f"[![View on GitHub]({github})](https://github.com/{place})"
    )


def _with_address(root: Path) -> dict[Path, str]:
    """File -> new text, where that differs from what is there."""
    address = repository_address(root)
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    texts = {path: _notebook_text(path, address) for path in notebooks}
    readme = root / "README.md"
    if readme.exists():
        texts[readme] = README_TABLE.sub(
            lambda table: _table_with_badges(table[0], address), readme.read_text(encoding="utf-8")
        )
    return {path: new for path, new in texts.items() if path.read_text(encoding="utf-8") != new}


def _notebook_text(path: Path, address: str) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    title = next(cell for cell in cells if cell["cell_type"] == "markdown")
    title["source"] = _with_badges("".join(title["source"]), badges(path.stem, address))
    setup = SETUP_CELL.rstrip("\n").replace('ADDRESS = ""', f'ADDRESS = "{address}"')
    for cell in cells:
        if "setup" in cell["metadata"].get("tags", []):
            cell["source"] = setup
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _with_badges(text: str, line: str) -> str:
    """A title cell with this badge line under its title, instead of the one there may be."""
    parts = [part for part in text.split("\n\n") if not part.startswith(BADGE_START)]
    return "\n\n".join([parts[0], line, *parts[1:]] if line else parts)


def _table_with_badges(table: str, address: str) -> str:
    """The README's table with badges in the last column of each notebook's row."""
    lines = []
    for line in table.splitlines(keepends=True):
        link = re.search(r"\(notebooks/(\w+)\.ipynb\)", line)
        if link:
            kept = line.rstrip().removesuffix("|").rpartition("|")[0]
            line = f"{kept}| {badges(link[1], address)} |\n"
        lines.append(line)
    return "".join(lines)


if __name__ == "__main__":
    print("\n".join(write_address(ROOT)) or "nothing to write: all is as in pyproject.toml")
