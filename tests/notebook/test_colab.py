"""The same notebook starts anywhere; the repository's address stands in one place."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch
from on_drive import mirror

from ksdd_lib import machine
from ksdd_lib.drive import upload
from ksdd_lib.errors import RunError, SettingsError
from ksdd_lib.notebook import colab
from ksdd_lib.runs.run import NOTEBOOKS, find, home, start
from ksdd_lib.settings import resolve

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS = "https://github.com/someone/cracks"

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
    cell = colab.SETUP_CELL.replace("/content/drive", str(drive))
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
    """A folder of installed modules, in which pip only says what it was asked for."""
    add_module(tmp_path / "installed", "pip.__init__", "")
    add_module(tmp_path / "installed", "pip.__main__", "import sys; print('pip', *sys.argv[1:])")
    return tmp_path / "installed"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with nothing above it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_the_set_up_cell_is_short_and_plain():
    lines = colab.SETUP_CELL.splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) <= 100
    assert not any(word in colab.SETUP_CELL for word in ("def ", "class ", " -q", "quiet"))


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
def test_else_a_copy_in_drive_which_is_mounted_first(
    tmp_path: Path, installed: Path, elsewhere: Path, name: str
):
    copy = place_copy(tmp_path / "waiting" / name)
    mount = f"import os\ndef mount(folder): os.renames({str(copy)!r}, folder + '/MyDrive/{name}')"
    add_module(installed, "google.colab.drive", mount)
    said, _ = run_setup(elsewhere, tmp_path / "drive", installed, ADDRESS)
    assert said == f"from {tmp_path}/drive/MyDrive/{name}/ksdd_lib\n"


def test_else_the_repository_s_address_also_where_drive_is_refused(
    tmp_path: Path, installed: Path, elsewhere: Path
):
    refuse = "def mount(folder): raise ValueError('mount failed')"
    add_module(installed, "google.colab.drive", refuse)
    said, _ = run_setup(elsewhere, tmp_path / "drive", installed, ADDRESS)
    assert said == f"pip install --no-deps git+{ADDRESS}\n"


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
        "# Title\n\n<!-- notebooks:begin -->\n| notebook | minutes | open |\n|---|---|---|\n"
        "| [1](notebooks/01_one.ipynb) | 3 | |\n<!-- notebooks:end -->\n\n| [x](y.ipynb) | kept |\n"
    )
    set_address(tmp_path, "")
    colab.write_address(tmp_path)
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
    assert setup == colab.SETUP_CELL.rstrip("\n")
    assert "badge" not in (project / "README.md").read_text()
    assert colab.badges("01_one", "") == ""


@pytest.mark.parametrize("written", [ADDRESS, ADDRESS + ".git", ADDRESS + "/"])
def test_an_address_goes_into_badges_and_set_up_cells_once(project: Path, written: str):
    set_address(project, written)
    assert colab.check_address(project) == ["01_one.ipynb", "README.md"]
    assert colab.write_address(project) == ["01_one.ipynb", "README.md"]
    assert colab.check_address(project) == colab.write_address(project) == []
    title, setup, last = read_cells(project)
    badges = colab.badges("01_one", ADDRESS)
    assert title == f"# 1 · Größe\n\n{badges}\n\nText.\n" and last == "x = 1\n\nx"
    assert f'ADDRESS = "{ADDRESS}"  #' in setup
    readme = (project / "README.md").read_text()
    assert f"| [1](notebooks/01_one.ipynb) | 3 | {badges} |\n" in readme
    assert readme.endswith("| [x](y.ipynb) | kept |\n")
    path = "github.com/someone/cracks/blob/main/notebooks/01_one.ipynb"
    assert f"(https://{path})" in badges
    assert f"(https://colab.research.google.com/{path.replace('.com', '', 1)})" in badges


def test_another_address_replaces_the_first_and_none_removes_it(project: Path):
    before = {path: path.read_bytes() for path in project.rglob("*.*") if path.suffix != ".toml"}
    set_address(project, ADDRESS)
    colab.write_address(project)
    set_address(project, "https://github.com/else/where")
    colab.write_address(project)
    assert "someone" not in "".join(read_cells(project)) + (project / "README.md").read_text()
    set_address(project, "")
    colab.write_address(project)
    assert {path: path.read_bytes() for path in before} == before


def test_an_address_that_colab_cannot_open_is_refused(project: Path):
    set_address(project, "https://example.org/someone/cracks")
    with pytest.raises(SettingsError, match=r"example\.org.*https://github\.com/OWNER/NAME"):
        colab.write_address(project)


def test_this_repository_s_notebooks_hold_the_cell_and_the_address():
    assert colab.check_address(REPOSITORY) == []
    for name in NOTEBOOKS.values():
        notebook = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert ["setup" in cell["metadata"].get("tags", []) for cell in code] == [
            True,
            *[False] * (len(code) - 1),
        ], name


# The start of a notebook


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    """Colab: `mount` and `download` can be set; `calls` is what was asked of it."""
    fake = types.SimpleNamespace(calls=[], mount=lambda: None, download=lambda: None)
    module = types.ModuleType("google.colab")
    module.drive = types.SimpleNamespace(mount=lambda p: (fake.calls.append(p), fake.mount()))
    module.files = types.SimpleNamespace(download=lambda p: (fake.calls.append(p), fake.download()))
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(colab, "MOUNT", tmp_path / "drive")
    return fake


def fail() -> None:
    raise ValueError("mount failed")


def test_in_colab_drive_is_mounted_once(
    google: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "drive" / "MyDrive"
    google.mount = lambda: folder.mkdir(parents=True)
    assert colab.begin() == folder
    said = capsys.readouterr().out
    assert "Drive is mounted" in said and said.endswith(
        f"{home() / 'runs'}, and are copied to MyDrive/ksdd/runs.\n"
    )
    assert colab.begin() == folder
    assert google.calls == [str(tmp_path / "drive")]


@pytest.mark.fault(28)
@pytest.mark.parametrize("mount", [fail, lambda: None], ids=["refused", "empty"])
def test_without_drive_colab_goes_on_with_a_warning(
    google: types.SimpleNamespace, mount, capsys: pytest.CaptureFixture
):
    google.mount = mount
    with pytest.warns(UserWarning, match="Drive is not mounted.*may be lost with it"):
        assert colab.begin() is None
    said = capsys.readouterr().out
    assert "copied to Drive" not in said and ", no Drive, " in said


def test_drive_may_be_another_folder_or_none(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KSDD_DRIVE", "")
    assert colab.begin() is None
    monkeypatch.setenv("KSDD_DRIVE", str(tmp_path))
    assert colab.begin() == tmp_path
    monkeypatch.setenv("KSDD_DRIVE", str(tmp_path / "absent"))
    with pytest.warns(UserWarning, match="Drive is not mounted"):
        assert colab.begin() is None
    assert google.calls == []


def test_outside_colab_nothing_is_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not colab.in_colab() and colab.begin() is None
    machine_line, place_line = capsys.readouterr().out.splitlines()
    assert machine_line.startswith("Python 3.") and str(tmp_path) not in machine_line
    assert place_line == f"Results go to runs (in {tmp_path.name})."


def test_without_a_gpu_colab_is_told_what_to_click(
    google: types.SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(machine, "device", lambda: torch.device("cpu"))
    google.mount = (tmp_path / "drive" / "MyDrive").mkdir
    (tmp_path / "drive").mkdir()
    colab.begin()
    assert "Change runtime type, T4 GPU" in capsys.readouterr().out


def test_a_package_replaced_under_the_kernel_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    monkeypatch.setattr(numpy, "__version__", "1.0.0")
    colab.begin()
    assert "numpy 1.0.0 is loaded, " in (said := capsys.readouterr().out)
    assert "restart the kernel" in said


def test_a_new_machine_finds_its_run_again(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drive = tmp_path / "MyDrive"
    drive.mkdir()
    monkeypatch.setenv("KSDD_DRIVE", str(drive))
    run = start(resolve({"preset": "demo", "seed": 3}))
    mirror(run, drive)
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new"))
    colab.begin()
    assert (tmp_path / "new" / "runs" / run.folder.name / "settings.json").exists()


def test_a_named_run_folder_is_not_filled_from_drive(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drive = tmp_path / "MyDrive"
    drive.mkdir()
    mirror(start(resolve({"preset": "demo"})), drive)
    monkeypatch.setenv("KSDD_DRIVE", str(drive))
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("KSDD_RUN", str(tmp_path / "named"))
    colab.begin()
    assert not (tmp_path / "new").exists()


def test_a_run_named_in_drive_is_brought_here_and_worked_on_here(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drive = tmp_path / "MyDrive"
    drive.mkdir()
    wanted, last = (start(resolve({"preset": "demo", "seed": seed})) for seed in (3, 4))
    wanted.write("metrics.json", {"ap": 0.5})
    for run in (wanted, last):
        mirror(run, drive)
    there = drive / "ksdd" / "runs" / wanted.folder.name
    before = {path.name for path in there.iterdir()}
    monkeypatch.setenv("KSDD_DRIVE", str(drive))
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("KSDD_RUN", str(there))
    colab.begin()
    run = find({})
    assert run.folder == tmp_path / "new" / "runs" / wanted.folder.name
    assert run.settings.seed == 3 and run.read("metrics.json") == {"ap": 0.5}
    mirror(run, drive)
    assert {path.name for path in there.iterdir()} == before
    monkeypatch.delenv("KSDD_RUN")
    colab.begin()
    assert find({}).folder == run.folder, "it is the last run now, on other machines too"
    assert upload.latest_there(there.parent) == there.name


def test_a_folder_in_drive_that_is_no_copy_of_a_run_is_refused_as_run_folder(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KSDD_DRIVE", str(tmp_path / "MyDrive"))
    monkeypatch.setenv("KSDD_RUN", str(tmp_path / "MyDrive" / "mine"))
    (tmp_path / "MyDrive").mkdir()
    said = f"%env KSDD_RUN={tmp_path}/home/runs/mine in a cell"
    with pytest.raises(RunError, match=said), pytest.warns(UserWarning, match="settings"):
        colab.begin()
    assert not list((tmp_path / "MyDrive").iterdir())


def test_a_notebook_that_only_judges_goes_on_while_another_machine_trains(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "drive" / "MyDrive"
    folder.mkdir(parents=True)
    monkeypatch.setattr(upload, "machine_name", lambda: "first")
    upload.copy(start(resolve({"seed": 7})), folder, at_work=True)
    monkeypatch.setattr(upload, "machine_name", lambda: "second")
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "another"))
    with pytest.raises(RunError, match=r"machine \(first\) works on"):
        colab.begin()
    with pytest.warns(UserWarning, match="not brought here. Another machine"):
        assert colab.begin(needs_run=False) == folder
    with pytest.raises(RunError, match="There is no run yet"):
        find()


def test_the_last_cell_says_what_is_safe_and_what_comes_next(
    google: types.SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    folder = tmp_path / "drive" / "MyDrive"
    folder.mkdir(parents=True)
    run = start(resolve({"seed": 7}))
    run.write("data.json", {"archive_sha256": None})
    colab.leave(run, folder, "02_train_segmentation.ipynb")
    safe, then = capsys.readouterr().out.splitlines()
    assert safe == f"{run.folder.name}: safe on Drive"
    assert "delete runtime. Then open 02_train_segmentation.ipynb in Drive's folder" in then
    colab.leave(run, folder, "03_train_decision.ipynb")
    assert "not finished: open it again and Run all" in capsys.readouterr().out.splitlines()[-1]
    colab.leave(None, folder)
    assert capsys.readouterr().out.endswith("delete runtime.\n")
    colab.leave(run, None)
    assert "what is here ends with this machine" in capsys.readouterr().out
    monkeypatch.setattr(colab.BackgroundCopy, "finish", lambda copies: False)
    colab.leave(run, folder, "02_train_segmentation.ipynb")
    [said] = capsys.readouterr().out.splitlines()
    assert said.startswith("Not all is safe on Drive yet: run this cell again")
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    colab.leave(run, None, "02_train_segmentation.ipynb")
    assert capsys.readouterr().out == "Next: 02_train_segmentation.ipynb\n"


@pytest.mark.fault(28)
def test_a_file_is_offered_for_download_in_colab(
    google: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = tmp_path / "report.html"
    colab.share(path)
    assert google.calls == [str(path)] and capsys.readouterr().out == ""
    path.write_text("whole")
    colab.share(path, "cpu-clean-seed0.html")
    offered = Path(google.calls[-1])
    assert (offered.name, offered.read_text()) == ("cpu-clean-seed0.html", "whole")


@pytest.mark.fault(28)
def test_where_no_download_works_the_local_file_is_named(
    google: types.SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    google.download = fail
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="could not be offered"):
        colab.share(tmp_path / "run" / "report.html")
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    assert capsys.readouterr().out == f"report.html is in {tmp_path / 'run'}\n"
    colab.share(Path("run") / "report.html")
    assert capsys.readouterr().out == f"report.html is in run (in {tmp_path.name})\n"


def test_one_module_knows_google_colab_and_three_ipywidgets():
    sources = {path.stem: path.read_text() for path in (REPOSITORY / "ksdd_lib").rglob("*.py")}
    assert {name for name, text in sources.items() if "from google.colab" in text} == {"colab"}
    assert {name for name, text in sources.items() if "import ipywidgets" in text} == {
        "browse",
        "controls",
        "explore",
    }
