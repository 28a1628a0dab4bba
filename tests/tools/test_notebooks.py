"""The notebooks as they are stored, their set-up cell and address, and their execution."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import ksdd_lib as ksdd
from ksdd_lib import presets, settings_io
from ksdd_lib.deploy import weights
from ksdd_lib.errors import RunError
from ksdd_lib.notebook import outputs
from ksdd_lib.runs.run import Run
from tools import one_notebook, run_notebooks
from tools.address import (
    README_TABLE,
    SETUP_CELL,
    badges,
    check_address,
    large_badge,
    repository_address,
    write_address,
)
from tools.run_notebooks import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[2]
BOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]
FIRST = ROOT / "notebooks" / "00_see_it_work.ipynb"
STUDY = ROOT / "notebooks" / "07_study.ipynb"
ADDRESS = "https://github.com/someone/cracks"


def cells(book: Path, kind: str) -> list[list[str]]:
    """The lines of each cell of a kind."""
    stored = json.loads(book.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]).splitlines() for c in stored if c["cell_type"] == kind]


IN_ONE = ROOT / "notebooks" / "demo_in_one.ipynb"


def test_the_first_look_the_five_their_sum_and_the_study_are_there_and_no_other():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == [FIRST, *BOOKS, STUDY, IN_ONE]


class TestAllInOne:
    """The series in one runtime, made of the five."""

    def test_it_is_in_step_with_the_five(self):
        """`python tools/one_notebook.py` writes it anew."""
        assert IN_ONE.read_text(encoding="utf-8") == one_notebook.in_one(ROOT)

    def test_it_stays_in_step_where_there_is_an_address(self, tmp_path):
        shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
        set_address(tmp_path, ADDRESS)
        assert IN_ONE.name in write_address(tmp_path)
        stored = (tmp_path / "notebooks" / IN_ONE.name).read_text("utf-8")
        assert stored == one_notebook.in_one(tmp_path) and stored.count("kaggle.com/kernels") == 1

    def test_it_holds_all_of_their_work_and_begins_once(self):
        whole = ["\n".join(cell) for cell in cells(IN_ONE, "code")]
        for book in BOOKS:
            for cell in map("\n".join, cells(book, "code")):
                is_left = cell.startswith(("# @title", "import ksdd_lib")) or "leave(" in cell
                assert cell in whole or is_left, cell
        text = "\n".join(whole)
        for once in ("colab.begin(", "find_spec", 'controls.show_settings(run.settings, ("run"'):
            assert text.count(once) == 1, once
        told = "\n".join(map("\n".join, cells(IN_ONE, "markdown")))
        assert not re.search(r"Troubleshooting|\*\*Next:\*\*|%env|## Choose|## Set-up", told)
        assert len(re.findall("^# ", told, re.M)) == 1
        for number, book in enumerate(BOOKS, start=1):
            assert f"\n## {number} · " in told, book.stem

    @pytest.mark.slow
    def test_it_runs_in_one_kernel_and_writes_no_copy(self, tmp_path, monkeypatch):
        small = {"GENERATED_ITEMS": "6", "IMAGE_SIZE": "128x128", "CHECKPOINT_STEPS": "10"}
        small |= {"SEGMENTATION_STEPS": "4", "DECISION_STEPS": "4", "HOME": str(tmp_path / "home")}
        small |= {"DRIVE": str(tmp_path / "drive"), "PRESET": "paper"}
        for name, value in small.items():
            monkeypatch.setenv(f"KSDD_{name}", value)
        (tmp_path / "drive").mkdir()
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        run_notebooks.execute(IN_ONE, tmp_path / "one.ipynb", os.environ)
        assert not list((tmp_path / "drive").iterdir())
        [report] = (tmp_path / "home" / "runs").glob("demo-*/report.html")
        assert "GENERATED" in report.read_text("utf-8")


def test_nbstripout_finds_nothing_to_strip():
    command = [
        sys.executable,
        "-m",
        "nbstripout",
        "--verify",
        *map(str, [FIRST, *BOOKS, STUDY, IN_ONE]),
    ]
    assert subprocess.run(command).returncode == 0


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
class TestEachNotebook:
    def test_is_stored_without_outputs_and_asks_for_a_t4(self, book):
        stored = json.loads(book.read_text(encoding="utf-8"))
        code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
        assert stored["metadata"]["accelerator"] == "GPU"
        assert stored["metadata"]["colab"]["gpuType"] == "T4"
        assert "widgets" not in stored["metadata"]

    def test_is_thin(self, book):
        code = cells(book, "code")
        assert len(code) <= 14
        assert max(len(cell) for cell in code) <= 20
        assert sorted(len(cell) for cell in code)[len(code) // 2] <= 8
        assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell)

    def test_tells_its_reader_what_is_needed_how_long_it_takes_and_what_comes_next(self, book):
        text = "\n".join("\n".join(cell) for cell in cells(book, "markdown"))
        for part in ("**You will**", "| needs |", "| takes |", "| writes |", "## Troubleshooting"):
            assert part in text
        prose = re.sub(r"^\[!\[.*$", "", text, flags=re.M)  # without badges
        assert 300 <= len(prose.split()) <= 950
        number = int(book.stem[:2])
        for other in BOOKS[max(0, number - 2) : number + 1]:
            assert other == book or f"]({other.name})" in text


@pytest.mark.parametrize(("book", "most", "words"), [(FIRST, 6, 250), (STUDY, 7, 450)])
def test_a_notebook_beside_the_series_is_short_and_asks_for_no_gpu(book, most, words):
    code, text = cells(book, "code"), cells(book, "markdown")
    assert len(code) <= most and max(map(len, code)) <= 20
    assert len(" ".join(" ".join(cell) for cell in text).split()) <= words
    stored = json.loads(book.read_text(encoding="utf-8"))
    assert "accelerator" not in stored["metadata"]
    assert all(not cell.get("outputs") for cell in stored["cells"])


class TestTheFirstLook:
    """Notebook 0: one click, one verdict."""

    def test_it_trains_nothing_and_needs_no_drive(self):
        own = "\n".join("\n".join(cell) for cell in cells(FIRST, "code")[1:])
        assert not any(word in own.lower() for word in ("drive", "train", "begin", "run."))

    @pytest.mark.slow
    def test_it_judges_drawn_surfaces_with_the_published_model(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        run_notebooks.execute(FIRST, tmp_path / "00.ipynb", os.environ)
        stored = json.loads((tmp_path / "00.ipynb").read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in stored for output in cell.get("outputs", [])]
        text = "".join("".join(output.get("text", "")) for output in outputs)
        for line in (
            "crack: crack found",
            "another crack: crack found",
            "faint crack: crack found",
            "fainter crack: CRACK MISSED",
            "good: good, and passed",
            "good, too: good, and passed",
        ):
            assert f"\n{line} (score" in f"\n{text}", line
        assert "trained on KolektorSDD" in text and "verdicts mean nothing" in text
        data = [output.get("data", {}) for output in outputs]
        assert sum("image/png" in one for one in data) == 1
        assert any("application/vnd.jupyter.widget-view+json" in one for one in data)
        assert not (tmp_path / "home").exists(), "nothing is written"


class TestTheStudy:
    """Notebook 7: a grid on worker processes."""

    @pytest.mark.slow
    def test_it_trains_a_grid_and_shows_its_page(self, tmp_path, monkeypatch):
        pytest.importorskip("distributed")
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for name, value in {"IMAGE_SIZE": "128x128", "GENERATED_ITEMS": "6"}.items():
            monkeypatch.setenv(f"KSDD_{name}", value)
        for stage in ("SEGMENTATION", "DECISION"):
            monkeypatch.setenv(f"KSDD_{stage}_STEPS", "2")
        run_notebooks.execute(STUDY, tmp_path / "07.ipynb", os.environ)
        stored = json.loads((tmp_path / "07.ipynb").read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in stored for output in cell.get("outputs", [])]
        text = "".join("".join(output.get("text", "")) for output in outputs)
        assert "12 tasks are left, in 4 runs." in text and "12 of 12: " in text
        shown = "".join("".join(one.get("data", {}).get("text/html", "")) for one in outputs)
        assert "iframe" in shown and "4 of 4 runs finished" in shown


@pytest.mark.parametrize("book", BOOKS[:3], ids=lambda book: book.stem)
class TestTheCellAboveRunAll:
    """`#@param` in Colab, plain variables in Jupyter; empty, so that a run goes on as it was."""

    @pytest.fixture
    def fields(self, book: Path) -> dict[str, str]:
        """Each variable of the cell -> what stands behind @param."""
        first = cells(book, "code")[0]
        assert first[0] == "# @title Choose before *Run all*"
        found = [re.fullmatch(r'(\w+) = ""  # @param (.+)', line) for line in first[1:-1]]
        assert found and all(found), first
        return {one[1]: one[2] for one in found}

    def test_each_variable_is_a_setting_of_this_notebook(self, book, fields):
        groups = {"01": ("run", "data"), "02": ("segmentation",), "03": ("decision",)}[
            book.stem[:2]
        ]
        for name, form in fields.items():
            rule = ksdd.RULES[name]
            assert rule.group in groups, name
            choices = json.loads(form)[1:] if form.startswith("[") else []
            if name == "preset":
                assert set(choices) == set(rule.choices)
            else:
                assert choices == list(rule.choices), name

    def test_each_variable_goes_into_the_form(self, book, fields):
        """At once, as later cells may use its name for something else."""
        code = cells(book, "code")
        names = {name: name.upper() for name in fields}
        chosen = eval(code[0][-1].removeprefix("chosen = "), {}, names)
        assert chosen == names
        text = "\n".join("\n".join(cell) for cell in code[1:])
        assert len(re.findall(r"controls\.choose\(.*\*\*chosen\)", text)) == 1
        assert not re.search(r"^\s*chosen\b", text, re.M)

    def test_colab_shows_it_as_a_form(self, book):
        stored = json.loads(book.read_text(encoding="utf-8"))["cells"]
        first = next(cell for cell in stored if cell["cell_type"] == "code")
        assert first["metadata"]["cellView"] == "form"


# The set-up cell


def place_copy(folder: Path) -> Path:
    """A stand-in for a copy of the repository, which says where it is."""
    (folder / "ksdd_lib").mkdir(parents=True)
    (folder / "ksdd_lib" / "__init__.py").write_text("print('from', __path__[0])\n")
    (folder / "notebooks").mkdir(exist_ok=True)
    return folder


def run_setup(folder: Path, drive: Path, path: Path, address: str = "") -> tuple[str, str]:
    """Run the set-up cell and an import in a bare Python in `folder`: (what it says, its error).

    `drive` is where Drive would be mounted, `path` a folder of modules that are installed.
    """
    cell = SETUP_CELL.replace("/content/drive", str(drive))
    cell = cell.replace('ADDRESS = ""', f'ADDRESS = "{address}"')
    done = subprocess.run(
        [sys.executable, "-S", "-c", cell + "\nimport ksdd_lib"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(path)},
        check=False,
    )
    return done.stdout, done.stderr


def add_module(folder: Path, name: str, text: str) -> None:
    path = folder / Path(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of installed modules."""
    return tmp_path / "installed"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with nothing above it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_the_set_up_cell_is_short_and_plain():
    lines = SETUP_CELL.splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) <= 100
    assert lines[0] == "# @title Set-up", "Colab folds it"
    assert not any(word in SETUP_CELL for word in ("def ", "class ", " -q", "quiet"))


def test_what_is_importable_is_used(tmp_path: Path, installed: Path):
    place_copy(installed)
    notebooks = place_copy(tmp_path / "checkout") / "notebooks"
    assert run_setup(notebooks, tmp_path / "drive", installed)[0] == f"from {installed}/ksdd_lib\n"


def test_else_a_checkout_above_the_notebook(tmp_path: Path, installed: Path):
    checkout = place_copy(tmp_path / "checkout")
    place_copy(tmp_path / "drive" / "MyDrive" / "ksdd")
    said, _ = run_setup(checkout / "notebooks", tmp_path / "drive", installed, ADDRESS)
    assert said == f"from {checkout}/ksdd_lib\n"


@pytest.mark.parametrize("name", ["ksdd", "ksdd-main"])
def test_else_a_copy_in_drive_which_is_mounted_where_there_is_no_address(
    tmp_path: Path, installed: Path, elsewhere: Path, name: str
):
    copy = place_copy(tmp_path / "waiting" / name)
    mount = f"import os\ndef mount(folder): os.renames({str(copy)!r}, folder + '/MyDrive/{name}')"
    add_module(installed, "google.colab.drive", mount)
    said, _ = run_setup(elsewhere, tmp_path / "drive", installed)
    assert said == f"from {tmp_path}/drive/MyDrive/{name}/ksdd_lib\n"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A repository that git can clone; its package says where it is."""
    origin = place_copy(tmp_path / "origin")
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=origin, check=True)
    return origin


@pytest.mark.fault(77)
class TestTheAddressIsCloned:
    """Where there is an address, nobody drags a folder or grants Drive to find the package."""

    @pytest.fixture(autouse=True)
    def colab(self, installed: Path) -> None:
        add_module(installed, "google.colab.drive", "def mount(folder): print('mounted')")

    def test_once_and_without_drive(self, tmp_path, installed, elsewhere, published):
        address, drive = f"file://{published}", tmp_path / "drive"
        clone = f"from {elsewhere}/ksdd-main/ksdd_lib\n"
        assert run_setup(elsewhere, drive, installed, address)[0] == clone
        published.rename(tmp_path / "gone")
        assert run_setup(elsewhere, drive, installed, address)[0] == clone, "the clone is kept"

    @pytest.mark.parametrize("name", ["ksdd", "ksdd-main"])
    def test_not_where_drive_is_mounted_with_a_copy(
        self, tmp_path, installed, elsewhere, published, name
    ):
        copy = place_copy(tmp_path / "drive" / "MyDrive" / name)
        said, _ = run_setup(elsewhere, tmp_path / "drive", installed, f"file://{published}")
        assert said == f"from {copy}/ksdd_lib\n"
        assert not (elsewhere / "ksdd-main").exists()

    @pytest.mark.parametrize("broken", ["gone", "empty"])
    def test_a_clone_that_fails_leaves_nothing_and_may_be_tried_again(
        self, tmp_path, installed, elsewhere, published, broken
    ):
        wrong = tmp_path / broken
        if broken == "empty":
            wrong.mkdir()
        _, error = run_setup(elsewhere, tmp_path / "drive", installed, f"file://{wrong}")
        assert "git" in error and not (elsewhere / "ksdd-main").exists()
        said, _ = run_setup(elsewhere, tmp_path / "drive", installed, f"file://{published}")
        assert said.startswith(f"from {elsewhere}/ksdd-main")


def test_else_one_sentence_says_what_to_do(tmp_path: Path, installed: Path, elsewhere: Path):
    (tmp_path / "drive" / "MyDrive" / "ksdd" / "runs").mkdir(parents=True)  # results, no package
    _, error = run_setup(elsewhere, tmp_path / "drive", installed)
    assert error.splitlines()[-1] == (
        "RuntimeError: ksdd_lib is not here: allow Drive, or put it into MyDrive/ksdd-main."
    )


# The address in badges and set-up cells


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one notebook and a README, without an address."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# 1 · Größe\n", "\n", "Text.\n"]},
        {"cell_type": "code", "metadata": {"tags": ["setup"]}, "outputs": [], "source": ["old\n"]},
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": ["x = 1\n", "\n", "x"]},
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks").mkdir()
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (tmp_path / "notebooks" / "01_one.ipynb").write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "# Title\n\nText.\n\n<!-- notebooks:begin -->\n| notebook | minutes |\n|---|---|\n"
        "| [1](notebooks/01_one.ipynb) | 3 |\n| a note | |\n<!-- notebooks:end -->\n\n"
        "| [x](y.ipynb) | kept |\n"
    )
    (tmp_path / "notebooks" / "README.md").write_text(
        "## In Colab\n\n<!-- first-step:begin -->\n<!-- first-step:end -->\n2. Run it.\n"
    )
    set_address(tmp_path, "")
    write_address(tmp_path)
    return tmp_path


def set_address(root: Path, address: str) -> None:
    line = f'[project.urls]\nRepository = "{address}"\n' if address else "[project.urls]\n"
    (root / "pyproject.toml").write_text(f'[project]\nname = "x"\n{line}')


def read_cells(root: Path) -> list[str]:
    notebook = json.loads((root / "notebooks" / "01_one.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"]]


def test_without_an_address_there_are_no_badges(project: Path):
    title, setup, last = read_cells(project)
    assert title == "# 1 · Größe\n\nText.\n" and last == "x = 1\n\nx"
    assert setup == SETUP_CELL.rstrip("\n")
    readme = (project / "README.md").read_text()
    assert "badge" not in readme and "colab" not in readme.lower()
    assert badges("01_one", "") == large_badge("") == ""
    assert "Download this repository as a ZIP" in (project / "notebooks/README.md").read_text()


@pytest.mark.parametrize("root", ["project", "this repository"])
def test_without_an_address_no_column_is_empty(root: str, project: Path):
    if root != "project":
        project = ROOT
        if repository_address(ROOT):
            pytest.skip("it has an address")
    table = README_TABLE.search((project / "README.md").read_text("utf-8"))[0].splitlines()
    columns = list(zip(*(line.strip("|").split("|") for line in table), strict=True))
    assert len(columns) >= 2 and all(any(c.strip() for c in column[2:]) for column in columns)
    assert all(column[0].strip() for column in columns)


@pytest.mark.parametrize("written", [ADDRESS, ADDRESS + ".git", ADDRESS + "/"])
def test_an_address_goes_into_badges_and_set_up_cells_once(project: Path, written: str):
    set_address(project, written)
    files = ["01_one.ipynb", "README.md", "README.md"]
    assert check_address(project) == files
    assert write_address(project) == files
    assert check_address(project) == write_address(project) == []
    title, setup, last = read_cells(project)
    line = badges("01_one", ADDRESS)
    assert title == f"# 1 · Größe\n\n{line}\n\nText.\n" and last == "x = 1\n\nx"
    assert f'ADDRESS = "{ADDRESS}"  #' in setup
    readme = (project / "README.md").read_text()
    assert readme.startswith(f"# Title\n\n{large_badge(ADDRESS)}\n\nText.\n\n")
    assert "| notebook | minutes | open |\n|---|---|---|\n" in readme
    assert f"| [1](notebooks/01_one.ipynb) | 3 | {line} |\n| a note | |  |\n" in readme
    assert readme.endswith("| [x](y.ipynb) | kept |\n")
    guide = (project / "notebooks" / "README.md").read_text()
    assert "ZIP" not in guide and "Click its badge" in guide and guide.endswith("2. Run it.\n")
    path = "someone/cracks/blob/main/notebooks/01_one.ipynb"
    assert f"(https://colab.research.google.com/github/{path})" in line
    assert f"(https://kaggle.com/kernels/welcome?src=https://github.com/{path})" in line
    first = path.replace("01_one", FIRST.stem)
    assert f'href="https://colab.research.google.com/github/{first}"' in large_badge(ADDRESS)


def test_the_set_up_cell_is_folded_and_keeps_its_tag(project: Path):
    notebook = json.loads((project / "notebooks" / "01_one.ipynb").read_text("utf-8"))
    _, setup, last = (cell["metadata"] for cell in notebook["cells"])
    assert setup["cellView"] == "form" and setup["jupyter"]["source_hidden"] is True
    assert setup["tags"] == ["setup"] and last == {}


def test_another_address_replaces_the_first_and_none_removes_it(project: Path):
    before = {path: path.read_bytes() for path in project.rglob("*.*") if path.suffix != ".toml"}
    set_address(project, ADDRESS)
    write_address(project)
    set_address(project, "https://github.com/else/where")
    write_address(project)
    pages = [path.read_text() for path in project.rglob("*.md")]
    assert "someone" not in "".join([*read_cells(project), *pages])
    set_address(project, "")
    write_address(project)
    assert {path: path.read_bytes() for path in before} == before


def test_an_address_that_colab_cannot_open_is_refused(project: Path):
    set_address(project, "https://example.org/someone/cracks")
    with pytest.raises(ValueError, match=r"example\.org.*https://github\.com/OWNER/NAME"):
        write_address(project)


def test_this_repository_s_notebooks_hold_the_cell_and_the_address():
    assert check_address(ROOT) == []
    for name in (FIRST.stem, IN_ONE.stem, *NOTEBOOKS, STUDY.stem):
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        is_setup = ["setup" in cell["metadata"].get("tags", []) for cell in code]
        assert sum(is_setup) == 1 and is_setup.index(True) == (name[:2] in ("01", "02", "03")), name


# Their execution


def test_a_kernel_s_lines_are_printed_and_its_progress_renewed(capsys, monkeypatch):
    said = {"msg_type": "stream", "content": {"text": "fold 0: trained\n"}}
    renewed = {"msg_type": "update_display_data", "content": {"data": {"text/plain": "step 1"}}}
    widget = {"msg_type": "update_display_data", "content": {"data": {"text/plain": "<VBox>"}}}
    shown = {"text/plain": "the loss", "image/png": "iVBOR"}  # its words stand in the bar already
    picture = {"msg_type": "update_display_data", "content": {"data": shown}}
    line = outputs.ProgressLine(0.0)
    for message in (renewed, widget, picture, said):
        run_notebooks.echo(message, line)
    assert capsys.readouterr().out == "step 1\nfold 0: trained\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for message in (renewed, said):
        line._due = 0.0
        run_notebooks.echo(message, line)
    assert capsys.readouterr().out == "\r\x1b[Kstep 1\nfold 0: trained\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MissingError", "04: no run"),
        ("DataError", "04: no run"),
        ("ValueError", "04: ValueError: no run"),
    ],
)
def test_an_error_of_ours_is_told_without_its_class(name, told):
    error = run_notebooks._explained(CellExecutionError("", name, "no run"), "04")
    assert isinstance(error, RunError) and str(error) == told


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "given",
    [{"preset": "demo"}, {"preset": "best", "seed": 3, "rotation": True, "data": "/x/my parts"}],
)
def test_the_command_s_own_settings_stand_above_a_notebook_s_cell(tmp_path, monkeypatch, given):
    environments = []
    monkeypatch.setenv("KSDD_SEED", "99")
    monkeypatch.setattr(run_notebooks, "execute", lambda *words: environments.append(words[2]))
    run = Run(tmp_path, presets.resolve(given))
    run_notebooks.run_notebooks(run)
    assert len(environments) == len(NOTEBOOKS)
    for environment in environments:
        assert presets.resolve(settings_io.from_environment(environment)) == run.settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "cell"),
    [
        pytest.param(signal.SIGINT, "", id="it ends with an error"),
        pytest.param(signal.SIGTERM, "", id="it is told to end"),
        pytest.param(
            signal.SIGINT,
            "signal.signal(signal.SIGINT, lambda *_: os._exit(1))",
            id="its process dies at once",
        ),
        pytest.param(
            signal.SIGINT,
            "signal.signal(signal.SIGINT, lambda *_: (time.sleep(1.5), os._exit(1)))",
            id="its process dies late",
        ),
    ],
)
def test_a_stop_is_a_stop_however_the_notebook_ends(told, cell, tmp_path, monkeypatch):
    book = tmp_path / "book.ipynb"
    first = f"import os, signal, time\n{cell}\nprint('begun', flush=True)\ntime.sleep(60)"
    cells = [nbformat.v4.new_code_cell(text) for text in (first, "print('second')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), book)
    heard = []

    def hear(message: dict, line: object) -> None:
        if "begun" in message["content"].get("text", ""):
            os.kill(os.getpid(), told)
        heard.append(message)

    monkeypatch.setattr(run_notebooks, "echo", hear)
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)  # a shell in the background ignores it
    with pytest.raises(KeyboardInterrupt):
        run_notebooks.execute(book, tmp_path / "done.ipynb", os.environ)
    assert signal.getsignal(signal.SIGINT) == before
    assert not (tmp_path / "done.ipynb").exists()
    assert not any("second" in str(message["content"]) for message in heard)


@pytest.mark.slow
def test_the_last_notebook_alone_judges_with_the_published_model(tmp_path, monkeypatch):
    assert weights.published() == ROOT / weights.PUBLISHED
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_notebooks.execute(BOOKS[4], tmp_path / "05.ipynb", os.environ)
    stored = json.loads((tmp_path / "05.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in stored for output in cell.get("outputs", [])]
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert "There is no run yet" in text
    assert re.search(r"generated: (defective|good), score -?[0-9.]+, threshold", text)
    shown = sum("image/png" in output.get("data", {}) for output in outputs)
    assert shown == 2, "the verdict, and what the network saw"


@pytest.mark.parametrize("name", (FIRST.stem, IN_ONE.stem, *NOTEBOOKS))
def test_every_name_that_a_notebook_takes_from_the_package_is_there(name: str):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    chains = set(re.findall(r"\bksdd((?:\.\w+)+)", code))
    assert len(chains) > 3
    for chain in chains:
        found = ksdd
        for part in chain[1:].split("."):
            found = getattr(found, part, None)
            if found is None or not inspect.ismodule(found):
                break
        assert found is not None, f"ksdd{chain} is not there"
