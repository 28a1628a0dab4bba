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

OWNER_SILENT = 15 * 60
"""Seconds without a sign of life after which another runtime may take over a run folder."""

Work = TypeVar("Work", bound=Callable[..., object])


class Owner(Record):
    """owner.json: which process works in a run folder, as "HOST process NUMBER".

    `last_wrote` are seconds since the epoch. `started` are seconds from the start of the machine to
    that of the process, which no setting of the clock changes. They tell it from a later one of its
    number. None: unknown.
    """

    owner: str
    last_wrote: float
    started: float | None = None

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

    Work that takes long says so again and again. The first claim removes temporary files that a
    killed owner has left. RunError where another living process works there.
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
    """Decorate a function that writes in a run folder: a run, or its folder, is its first argument.

    The call is refused, as by `claim`, where another living process works in the folder.
    """

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
    """Let one process at a time read the owner of a folder and write another.

    The folder itself is locked, so no lock file is left in it, and the lock ends with its process.
    Where the system has no such lock, two processes may begin at once.
    """
    if fcntl is None:
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
