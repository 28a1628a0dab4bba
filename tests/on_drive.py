"""A folder that stands for Drive, and runs to copy there and bring back."""

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ksdd_lib import storage
from ksdd_lib.drive import layout, recovery, upload
from ksdd_lib.runs.lock import claim
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.run import Run
from ksdd_lib.training import checkpoint

NO_SPACE, GONE, BROKEN, READ_ONLY = errno.ENOSPC, errno.ENOTCONN, errno.EIO, errno.EROFS


class Drive:
    """A folder that stands for Drive. `fault(n)` is the error number of its n-th write, or None."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.written = root, []
        self.fault: Callable[[int], int | None] = lambda n: None
        root.mkdir()
        monkeypatch.setattr(storage, "open", self._open, raising=False)

    def _open(self, path: Path, mode: str = "r"):
        if "w" in mode and Path(path).is_relative_to(self.root):
            number = self.fault(len(self.written) + 1)
            self.written.append(Path(path).name.split(".")[1])
            if number:
                raise OSError(number, os.strerror(number), str(path))
        return open(path, mode)

    def files(self, name: str) -> set[str]:
        """What stands on Drive of a run, without markers."""
        folder = self.root / "ksdd" / "runs" / name
        paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".ok"]
        return {path.relative_to(folder).as_posix() for path in paths} - {layout.LAST_COPY}


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    return Drive(tmp_path / "MyDrive", monkeypatch)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data and runs of the first machine."""
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "first"))
    return tmp_path / "first"


@pytest.fixture
def new_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Work goes on at another home, which at first has no run and no data."""

    def move(name: str = "second") -> Path:
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / name))
        monkeypatch.setattr(layout, "machine_name", lambda: name)
        return tmp_path / name

    return move


def begin(name: str = "demo-clean-seed0", **explicit) -> Run:
    """Open a run among the runs of the machine at work."""
    return open_run(Path(os.environ["KSDD_HOME"]) / "runs" / name, {"preset": "demo"} | explicit)


def save_checkpoint(run: Run, step: int, stage: str = "segmentation", **identity) -> None:
    checkpoint.save(run.fold_folder(0), stage, step, {"fold": 0} | identity, {"step": step})


def finish(run: Run, step: int, stage: str, **identity) -> None:
    """The last checkpoint of a stage, its history and its done marker."""
    save_checkpoint(run, step, stage, **identity)
    (run.fold_folder(0) / f"{stage}.jsonl").write_text(f'{{"step": {step}}}\n')
    run.write(f"fold0/{stage}.done.json", {"steps": step})
    run.note_time(f"{stage} stage, fold 0", step)


def weights(run: Run, stage: str = "segmentation") -> str:
    return checkpoint.load(run.fold_folder(0), stage, {"fold": 0}).sha256


def restore(home: Path, drive: Drive) -> Path | None:
    """`restore`, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return recovery.restore(home, drive.root)


@pytest.fixture
def run(home: Path) -> Run:
    """A run in the middle of its first stage."""
    run = begin()
    run.write("folds.json", {"protocol": "clean"})
    claim(run.folder)
    save_checkpoint(run, 10)
    save_checkpoint(run, 20)
    (run.fold_folder(0) / "segmentation.jsonl").write_text('{"step": 20}\n')
    return run


WHOLE = {
    "settings.json",
    "folds.json",
    "fold0/segmentation.jsonl",
    "fold0/segmentation-000020.pt",
    "fold0/segmentation-000020.json",
}


def mirror(run: Run, drive: Path) -> None:
    """Copy a run to Drive; where Drive fails, a warning says so."""
    copied = upload.copy(run, drive)
    if copied.failure:
        warnings.warn(copied.explain(run), stacklevel=2)


def mirror_whole(run: Run, drive: Path) -> None:
    """`mirror`, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mirror(run, drive)


def same(one: Path, other: Path, names: set[str]) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "owner.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def die_at_write(monkeypatch: pytest.MonkeyPatch, drive: Drive, number: int) -> list[str]:
    """The process ends before its n-th write to Drive -> the names of its writes."""
    plain, names = storage.write_bytes, []

    def write(path: Path, data: bytes) -> None:
        if path.is_relative_to(drive.root):
            names.append(path.name)
            if len(names) == number:
                raise SystemExit
        plain(path, data)

    monkeypatch.setattr(storage, "write_bytes", write)
    return names
