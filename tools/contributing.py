"""Writes the map of the package into CONTRIBUTING.md: `python tools/contributing.py`."""

import ast
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kept import ROOT
from pages import table, write_page

SPINE = ("data", "layouts", "models", "runs", "training", "methods", "evaluation")
"""The rooms that a learner reads, in the order of an image's way; the others are wings."""

WINGS = ("reporting", "drive", "deploy", "study", "notebook")


def rooms_table(root: Path) -> str:
    """Each room with what it is for, its modules and its lines."""
    package = root / "ksdd_lib"
    rows = [_row("top level", "What every room uses", sorted(package.glob("*.py")))]
    rooms = [name for room in SPINE for name in (room, *_inner(package / room))]
    for room in (*rooms, *WINGS):
        init = (package / room / "__init__.py").read_text(encoding="utf-8")
        purpose = ast.get_docstring(ast.parse(init)) or ""
        name = f"`{room}`" + (" (wing)" if room in WINGS else "")
        rows.append(_row(name, purpose.rstrip("."), sorted((package / room).glob("*.py"))))
    return table(("room", "what it is for", "modules", "lines, about"), rows)


def _inner(room: Path) -> list[str]:
    """The rooms within a room, as "layouts/readers"."""
    inits = sorted(room.glob("*/__init__.py"))
    return [f"{room.name}/{path.parent.name}" for path in inits]


def _row(name: str, purpose: str, files: list[Path]) -> list[str]:
    modules = [path.stem for path in files if path.stem != "__init__"]
    return [name, purpose, " ".join(f"`{module}`" for module in modules), _about(files)]


def _about(files: list[Path]) -> str:
    """The lines of all files, to the next 50: the page need not change with each line."""
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    return f"{50 * round(lines / 50):,}"


def spine_text(root: Path) -> str:
    """How long the spine and the whole package are."""
    package = root / "ksdd_lib"
    whole = list(package.rglob("*.py"))
    wings = {package / wing for wing in WINGS} | {package / "__main__.py"}
    spine = [path for path in whole if not {path, path.parent} & wings]
    return f"The spine has about {_about(spine)} lines, the whole package {_about(whole)}.\n"


def import_rule(root: Path) -> str:
    """The layers of the first contract in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return "```\n" + "\n".join(layers) + "\n```\n"


def pipeline(root: Path) -> str:
    """pipeline.py whole."""
    return "```python\n" + (root / "ksdd_lib" / "pipeline.py").read_text(encoding="utf-8") + "```\n"


TEXTS: dict[str, Callable[[Path], str]] = {
    "rooms": rooms_table,
    "spine": spine_text,
    "import-rule": import_rule,
    "pipeline": pipeline,
}
"""The name that marks a place in CONTRIBUTING.md -> what makes its text."""


if __name__ == "__main__":
    texts = {name: partial(make, ROOT) for name, make in TEXTS.items()}
    print("written" if write_page(ROOT / "CONTRIBUTING.md", texts) else "nothing to write")
