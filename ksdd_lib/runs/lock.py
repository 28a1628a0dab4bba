"""Who works in a run folder: one process at a time, named by owner.json."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TypeVar, cast

import psutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.runs.run import Run
from ksdd_lib.storage import Record

OWNER_SILENT = 15 * 60  # seconds without a sign of life after which another may take over

Work = TypeVar("Work", bound=Callable[..., object])


class Owner(Record):
    """owner.json: which process works in a run folder, as "HOST process NUMBER"."""

    owner: str
    last_wrote: float  # seconds since the epoch
    started: float | None = None  # seconds after the machine, whatever the clock; None: unknown

    def may_be(self, other: "Owner") -> bool:
        """Whether both are the same process, as far as is known."""
        if self.owner != other.owner or self.started is None or other.started is None:
            return self.owner == other.owner
        return abs(self.started - other.started) < 5

    def has_ended(self) -> bool:
        """Whether the process has ended, or has been silent for long where that is unknown."""
        host, _, number = self.owner.rpartition(" process ")
        if host == socket.gethostname():
            now = _process(int(number))
            if not psutil.pid_exists(int(number)) or not self.may_be(now):
                return True
            if None not in (self.started, now.started):
                return False
        return time.time() - self.last_wrote > OWNER_SILENT


def claim(folder: Path) -> bool:
    """Say that this process works in a run folder; False where it had said so already.

    Long work says so again and again. The first claim removes the temporary files of a killed
    owner. RunError where another living process works there.
    """
    with _locked(folder):
        owner, me = _owner(folder), _process(os.getpid())
        is_new = owner is None or not owner.may_be(me)
        if owner and is_new and not owner.has_ended():
            silent = time.time() - owner.last_wrote
            raise RunError(
                f"{owner.owner} works on {folder.name} and last wrote {silent:.0f} s ago. "
                "Stop it first, or delete owner.json if you know that it is gone."
            )
        if is_new:
            storage.sweep(folder)
        storage.write_record(folder / "owner.json", me)
        return is_new


def release(folder: Path) -> None:
    """Give a run folder up again, unless another process has taken it over."""
    with _locked(folder):
        owner = _owner(folder)
        if owner and owner.may_be(_process(os.getpid())):
            (folder / "owner.json").unlink(missing_ok=True)


def alone(work: Work) -> Work:
    """Let a function `claim` the run, or run folder, that is its first argument, while it runs."""

    @wraps(work)
    def guarded(run: Run | Path, *others: object, **named: object) -> object:
        folder = run.folder if isinstance(run, Run) else Path(run)
        is_new = folder.is_dir() and claim(folder)
        try:
            return work(run, *others, **named)
        finally:
            if is_new:
                release(folder)

    return cast(Work, guarded)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself, so that one process at a time reads its owner and writes another."""
    if fcntl is None:  # without such a lock two processes may begin at once
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner(folder: Path) -> Owner | None:
    path = folder / "owner.json"
    return storage.read_record(path, Owner) if path.exists() else None


def _process(number: int) -> Owner:
    """A process of this machine as an owner that writes now."""
    started = None
    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        booted = psutil.boot_time()  # first, as older versions keep its last answer
        started = psutil.Process(number).create_time() - booted
    name = f"{socket.gethostname()} process {number}"
    return Owner(owner=name, last_wrote=time.time(), started=started)
