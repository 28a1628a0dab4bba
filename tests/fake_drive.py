"""A folder that stands for Drive, what may go wrong there, and runs that go there and come back."""

import builtins
import errno
import io
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    storage.write_json(run.folder / f"fold0/{stage}.done.json", {"steps": step})
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
    storage.write_json(run.folder / "folds.json", {"protocol": "clean"})
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


WRITES = (
    "EIO",
    "ENOTCONN",
    "EDQUOT",
    "ENOSPC",
    "EROFS",
    "delay",
    "half written",
    "name (1)",
    "late",
    "vanished",
)
"""What may happen to a write; the five in capitals are the system's own errors."""

READS = ("EIO", "ENOTCONN", "delay")


class UnreliableDrive:
    """The Drive mounted at `place`: files there fail, or arrive in part, late or renamed.

    One in about five operations goes wrong. What happens is drawn with a seed, each kind in turn.
    `install` patches the whole process, as a notebook's kernel.

    Args:
        log: a file off the machine. Each fault adds a line, as "write EIO", and their number says
            which comes next.
    """

    def __init__(self, place: str, log: str, seed: int) -> None:
        self.place, self.log = os.path.abspath(place) + os.sep, Path(log)
        self.log.touch()
        self.draw = random.Random(f"{seed} {len(self.log.read_text())}")
        self.left = {"write": self.draw.randint(2, 8), "read": self.draw.randint(30, 60)}
        self.fate: dict[str, str] = {}
        self.back = 0.0
        self.lock = threading.Lock()
        self.plain = {name: getattr(os, name) for name in ("stat", "replace", "listdir", "scandir")}
        self.plain_open = io.open

    def install(self) -> None:
        """From now on this process has this Drive."""
        builtins.open = io.open = self.open
        os.stat, os.replace = self.stat, self.replace
        os.listdir, os.scandir = self.listdir, self.scandir

    def next(self, what: str, kinds: tuple[str, ...], pause: tuple[int, int]) -> str:
        """What goes wrong with this operation; "" for nothing."""
        with self.lock:
            self.left[what] -= 1
            if self.left[what] > 0:
                return ""
            self.left[what] = self.draw.randint(*pause)
            with self.plain_open(self.log) as file:
                done = sum(line.startswith(what) for line in file)
            kind = kinds[done % len(kinds)]
            with self.plain_open(self.log, "a") as file:
                file.write(f"{what} {kind}\n")
            return kind

    def is_ours(self, path: Any) -> bool:
        """Whether a path lies on Drive; there, an error where the mount has vanished."""
        if not isinstance(path, str | os.PathLike):
            return False
        ours = os.path.abspath(path).startswith(self.place)
        if ours and time.monotonic() < self.back:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return ours

    def suffer(self, kind: str, path: Any) -> None:
        """A system's error, a delay, or the mount's end for a while."""
        if kind == "delay":
            time.sleep(0.3)
        elif kind == "vanished":
            self.back = time.monotonic() + 1
            self.is_ours(path)
        elif kind.startswith("E"):
            number = getattr(errno, kind)
            raise OSError(number, os.strerror(number), str(path))

    def open(self, path: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
        if self.is_ours(path):
            if "r" in mode:
                kind = self.next("read", READS, (30, 60))
            else:
                kind = self.next("write", WRITES, (2, 8))
                self.fate[os.path.abspath(path)] = kind
            self.suffer(kind, path)
        return self.plain_open(path, mode, *others, **named)

    def replace(self, source: Any, target: Any) -> None:
        ours = self.is_ours(target)
        kind, target = self.fate.pop(os.path.abspath(source), ""), Path(target)
        if ours and kind == "name (1)":
            target = target.with_name(f"{target.stem} (1){target.suffix}")
        if ours and kind == "late":
            threading.Thread(target=self.arrive, args=(source, target), daemon=True).start()
            return
        self.plain["replace"](source, target)
        if ours and kind == "half written":
            os.truncate(target, self.plain["stat"](target).st_size // 2)

    def arrive(self, source: Any, target: Path) -> None:
        """What the machine believes to have written appears a second later."""
        time.sleep(1)
        try:
            self.plain["replace"](source, target)
        except FileNotFoundError:  # it was cleared away meanwhile
            pass

    def stat(self, path: Any, *others: Any, **named: Any) -> os.stat_result:
        self.is_ours(path)
        return self.plain["stat"](path, *others, **named)

    def listdir(self, path: Any = ".") -> list[str]:
        self.is_ours(path)
        return self.plain["listdir"](path)

    def scandir(self, path: Any = ".") -> Any:
        self.is_ours(path)
        return self.plain["scandir"](path)
