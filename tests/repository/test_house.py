"""The house keeps its rules, and its pages tell the truth about it."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import contributing
import pytest
from packaging.requirements import Requirement
from pages import place_of

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
PACKAGE = ROOT / "ksdd_lib"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted(ROOT.glob("tools/*.py"))
ROOMS = sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("[an]*/*/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


class TestSize:
    """The package stays thin, and no part of it is long."""

    def test_no_file_is_long(self):
        sizes = {str(path.relative_to(ROOT)): len(lines_of(path)) for path in MODULES}
        assert {name: size for name, size in sizes.items() if size > 400} == {}
        layouts = {name: size for name, size in sizes.items() if "/layouts/" in name}
        assert sum(layouts.values()) <= 1_750, "the readers of other layouts"
        assert sum(sizes.values()) - sum(layouts.values()) <= 17_110

    def test_no_function_is_long(self):
        sizes = {
            f"{path.name}::{node.name}": node.end_lineno - node.lineno + 1
            for path in MODULES
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert {name: size for name, size in sizes.items() if size > 50} == {}

    @pytest.mark.parametrize("folder", [PACKAGE, *ROOMS], ids=lambda folder: folder.name)
    def test_no_folder_holds_many_modules(self, folder):
        modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
        assert len(modules) <= 12, modules

    def test_records_are_typed(self):
        untyped = re.compile(r"\b(dict|Mapping)\[str, Any\]")
        found = [line for path in MODULES for line in lines_of(path) if untyped.search(line)]
        assert len(found) <= 20, found

    def test_the_pipeline_is_read_at_a_glance(self):
        assert len(lines_of(PACKAGE / "pipeline.py")) <= 80


class TestRooms:
    def test_imports_run_downward(self):
        """The contracts stand in pyproject.toml."""
        program = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_room_says_in_one_line_what_it_is_for(self):
        for room in ROOMS:
            [line] = lines_of(room / "__init__.py")
            assert ast.get_docstring(ast.parse(line)), room.name

    def test_the_face_and_the_rooms_are_light(self):
        """Importing them loads nothing heavy: a runtime at the edge has no torch."""
        names = ["ksdd_lib", *(".".join(room.relative_to(ROOT).parts) for room in ROOMS)]
        program = f"import sys, {', '.join(names)}; print(*sys.modules)"
        loaded = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
        assert not {"torch", "numpy", "matplotlib", "ipywidgets"} & set(loaded.split())

    def test_nothing_that_a_user_imports_knows_the_upkeep(self):
        text = "".join(path.read_text("utf-8") for path in MODULES)
        assert not re.search(r"assets/results|README|badge|pyproject\.toml", text)


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


class TestPages:
    @pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
    def test_links_lead_somewhere(self, page):
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
            if "://" in link:
                continue
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link

    def test_the_map_shows_the_package_as_it_is(self):
        """`python tools/contributing.py` writes it anew."""
        page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
        for name, make in contributing.TEXTS.items():
            assert place_of(name).search(page)[0] == make(ROOT), name


TABLE = (TESTS / "faults.md").read_text("utf-8")
FAULTS = [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.M)]


def marks(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(fault, test) for each `@pytest.mark.fault(number)`, of functions and their classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for call in node.decorator_list:
                if ast.unparse(call).startswith("pytest.mark.fault("):
                    yield ast.literal_eval(call.args[0]), node.name


@pytest.fixture(scope="module")
def proofs() -> dict[int, list[str]]:
    """The tests of each fault."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for number, name in marks(ast.parse(path.read_text("utf-8"))):
            found.setdefault(number, []).append(f"{path.name}::{name}")
    return found


class TestFaults:
    """Every line of faults.md has a test, and every mark a line."""

    def test_each_line_has_a_number_of_its_own(self):
        assert len(FAULTS) == len(set(FAULTS))

    @pytest.mark.parametrize("number", FAULTS)
    def test_each_line_has_a_test(self, proofs: dict[int, list[str]], number: int):
        names = [name.partition("::")[2].lower() for name in proofs.get(number, [])]
        assert names and all(name.startswith("test") for name in names)

    def test_each_mark_has_a_line(self, proofs: dict[int, list[str]]):
        assert set(proofs) <= set(FAULTS)


PACKAGES = (TESTS / "colab_packages.txt").read_text("utf-8").splitlines()
COLAB = dict(line.split("==") for line in PACKAGES if "==" in line)
NEEDED = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
OLDER = (
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "opencv-python",
    "ipywidgets",
    "joblib",
    "pillow",
    "psutil",
    "pydantic",
    "pydantic_core",
    "ipython",
    "ipython-genutils",
    "backcall",
    "decorator",
    "pickleshare",
)
"""What is taken in Colab's version; the last four are what its IPython needs."""

TOUCHED = (
    "base",
    "data",
    "deploy",
    "evaluation",
    "notebook",
    "reporting",
    "training/test_batches.py",
)
"""The tests of the rooms that work with those packages."""


class TestColab:
    """The package works with what Colab holds, so installing it there replaces nothing."""

    @pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
    def test_colab_already_has_what_is_needed(self, needed: Requirement):
        held = {name.lower(): version for name, version in COLAB.items()}
        assert needed.specifier.contains(held[needed.name].split("+")[0]), needed

    def test_what_is_imported_is_asked_for(self):
        """By the name of its distribution, where that is another one."""
        names = {"cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn"}
        names |= {"IPython": "ipython", "google": None}  # Colab's own: there it is, or it is not
        names |= {"pycocotools": None}  # an error asks for it, where a file needs it
        names |= dict.fromkeys(("dask", "dask_jobqueue", "distributed"))  # so for a study
        ours = {path.stem for path in [*MODULES, *TOOLS]} | {"ksdd_lib"}
        nodes = [
            node
            for path in [*MODULES, *TOOLS]
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
        ]
        found = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        others = {name.partition(".")[0] for name in found} - ours - sys.stdlib_module_names
        asked = {needed.name for needed in NEEDED}
        assert {names.get(name, name) for name in others} - {None} <= asked

    def test_only_lower_bounds_are_asked_for(self):
        assert all(spec.operator == ">=" for needed in NEEDED for spec in needed.specifier)
        dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        assert "dependencies" in dynamic["project"].get("dynamic", []), "they come from that file"

    @pytest.mark.slow
    def test_the_fast_tests_pass_with_colab_s_versions(self, tmp_path: Path):
        """Every control is constructed and driven with ipywidgets 7.7.1 too."""
        wanted = [f"{name}=={COLAB[name]}" for name in OLDER]
        install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path)]
        done = subprocess.run([*install, *wanted], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        files = [f"tests/{place}" for place in TOUCHED]
        program = (
            "import ipywidgets, IPython, numpy; print(ipywidgets.__version__, numpy.__version__)"
        )
        seen = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
        assert seen.split() == [COLAB["ipywidgets"], COLAB["numpy"]]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *files], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-5000:]
        assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 200
