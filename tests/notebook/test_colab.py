"""A notebook has all it uses by one name, and begins and ends alike in Colab and elsewhere."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch
from fake_drive import mirror
from run_notebooks import NOTEBOOKS

import ksdd_lib as ksdd
from ksdd_lib import hardware, storage
from ksdd_lib.drive import layout, upload
from ksdd_lib.errors import RunError
from ksdd_lib.notebook import colab
from ksdd_lib.presets import resolve
from ksdd_lib.runs.open import create, home, resume
from ksdd_lib.runs.run import Run

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {name for names in ksdd.FACE.values() for name in names.split()}


def code_of(book: Path) -> str:
    cells = json.loads(book.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_each_name_is_there_and_the_notebooks_use_exactly_these():
    assert all(getattr(ksdd, name) is not None for name in NAMES)
    assert set(dir(ksdd)) >= NAMES
    code = "\n".join(map(code_of, (REPOSITORY / "notebooks").glob("*.ipynb")))
    assert set(re.findall(r"\bksdd\.(\w+)", code)) == NAMES
    wing = r"from ksdd_lib\.study\..*"  # it needs Dask, which the others do not
    found = set(re.findall(r"^(?:from|import) ksdd_lib.*", code, re.M))
    assert {line for line in found if not re.fullmatch(wing, line)} == {"import ksdd_lib as ksdd"}
    study = code_of(REPOSITORY / "notebooks" / "07_study.ipynb")
    assert len(re.findall(wing, code)) == len(re.findall(wing, study))


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ksdd.nothing
    with pytest.raises(ImportError):
        from ksdd_lib import nothing  # noqa: F401


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, ksdd_lib; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"torch", "numpy", "matplotlib", "ksdd_lib.settings"} & set(done.stdout.split())


ADDRESS = "https://github.com/someone/cracks"


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
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
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
    run = create(resolve({"preset": "demo", "seed": 3}))
    mirror(run, drive)
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new"))
    colab.begin()
    assert (tmp_path / "new" / "runs" / run.folder.name / "settings.json").exists()


def test_a_named_run_folder_is_not_filled_from_drive(
    google: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drive = tmp_path / "MyDrive"
    drive.mkdir()
    mirror(create(resolve({"preset": "demo"})), drive)
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
    wanted, last = (create(resolve({"preset": "demo", "seed": seed})) for seed in (3, 4))
    storage.write_json(wanted.folder / "metrics.json", {"ap": 0.5})
    for run in (wanted, last):
        mirror(run, drive)
    there = drive / "ksdd" / "runs" / wanted.folder.name
    before = {path.name for path in there.iterdir()}
    monkeypatch.setenv("KSDD_DRIVE", str(drive))
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("KSDD_RUN", str(there))
    colab.begin()
    run = resume({})
    assert run.folder == tmp_path / "new" / "runs" / wanted.folder.name
    assert run.settings.seed == 3 and storage.read_json(run.folder / "metrics.json") == {"ap": 0.5}
    mirror(run, drive)
    assert {path.name for path in there.iterdir()} == before
    monkeypatch.delenv("KSDD_RUN")
    colab.begin()
    assert resume({}).folder == run.folder, "it is the last run now, on other machines too"
    assert layout.read_latest(there.parent) == there.name


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
    monkeypatch.setattr(layout, "machine_name", lambda: "first")
    upload.copy(create(resolve({"seed": 7})), folder, at_work=True)
    monkeypatch.setattr(layout, "machine_name", lambda: "second")
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "another"))
    with pytest.raises(RunError, match=r"machine \(first\) works on"):
        colab.begin()
    with pytest.warns(UserWarning, match="not brought here. Another machine"):
        assert colab.begin(needs_run=False) == folder
    with pytest.raises(RunError, match="There is no run yet"):
        resume()


def test_the_last_cell_says_what_is_safe_and_what_comes_next(
    google: types.SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    folder = tmp_path / "drive" / "MyDrive"
    folder.mkdir(parents=True)
    run = create(resolve({"seed": 7}))
    storage.write_json(run.folder / "data.json", {"archive_sha256": None})
    for place, where in (
        (folder / "ksdd-main", " in Drive's folder ksdd-main/notebooks"),
        (tmp_path / "clone", ""),
    ):
        monkeypatch.setattr(colab, "CHECKOUT", place)
        colab.leave(run, folder, "02_train_segmentation.ipynb")
        safe, then = capsys.readouterr().out.splitlines()
        assert safe == f"{run.folder.name}: safe on Drive"
        assert then.endswith(f"delete runtime. Then open 02_train_segmentation.ipynb{where}.")
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


def test_one_module_knows_google_colab_and_one_ipywidgets():
    sources = {path.stem: path.read_text() for path in (REPOSITORY / "ksdd_lib").rglob("*.py")}
    assert [name for name, text in sources.items() if "from google.colab" in text] == ["colab"]
    assert [name for name, text in sources.items() if "import ipywidgets" in text] == ["outputs"]


def ready(run: Run) -> str:
    """The numbers of the notebooks that can be run."""
    return "".join(name[1] for name in NOTEBOOKS if colab.is_ready_for(run, name))


def test_a_notebook_is_ready_when_all_before_it_is_finished(tmp_path: Path):
    run = Run(tmp_path, resolve({"preset": "demo", "fold": "0"}))
    found = [ready(run)]
    parts = ("data", "fold0/segmentation.done", "fold0/decision.done", "metrics")
    for part in parts:
        storage.write_json(tmp_path / f"{part}.json", {})
        found.append(ready(run))
    assert found == ["1", "12", "123", "1234", "12345"]


def test_a_method_without_stages_is_ready_to_be_evaluated_at_once(tmp_path: Path):
    run = Run(tmp_path, resolve({"preset": "demo", "method": "darkest_pixel"}))
    storage.write_json(tmp_path / "data.json", {})
    assert ready(run) == "1234"
