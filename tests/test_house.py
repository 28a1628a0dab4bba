"""The pages tell the truth about the house: its files, the order of its modules, its links."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ksdd_lib"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("assets/*/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def modules_in_readme() -> list[str]:
    tree = re.search(r"```\nnotebooks/.*?```", (ROOT / "README.md").read_text("utf-8"), re.S)[0]
    return re.findall(r"^  (\w+)\.py[ ,]", tree, re.M)


def imported(path: Path) -> set[str]:
    """The modules of ksdd_lib that a module imports, at its top or within."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ksdd_lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ksdd_lib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "ksdd_lib" and len(name) > 1}
    return found - {"__version__"}


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def anchors(path: Path) -> set[str]:
    """What a link to a page may name behind "#", as GitHub makes it of headings."""
    text = text_of(path)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


def test_the_readme_names_every_module_once():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert sorted(modules_in_readme()) == sorted(modules)


def test_a_module_imports_only_those_above_it_in_the_readme():
    order = modules_in_readme()
    for place, name in enumerate(order):
        below = imported(PACKAGE / f"{name}.py") - set(order[:place])
        assert not below, f"{name} imports {below}"


def test_the_map_of_the_package_names_every_module():
    text = (PACKAGE / "__init__.py").read_text("utf-8")
    for name in modules_in_readme():
        assert name == "__init__" or re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
