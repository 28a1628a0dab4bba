"""Who works in a run folder: one process at a time, held by owner.json."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from ksdd_lib import storage
from ksdd_lib.errors import RunError

OWNER_SILENT = 15 * 60
"""Seconds without a sign of life after which another runtime may take over a run folder."""

Work = TypeVar("Work", bound=Callable[..., Any])


def claim(folder: Path) -> bool:
    """`Run.claim` of the run in `folder`; False where this process had claimed it already.

    What a killed owner left half written goes.
    """
    with _locked(folder):
        owner = _owner(folder)
        if owner and owner["owner"] != _me() and not _is_dead(owner):
            silent = time.time() - owner["last_wrote"]
            raise RunError(
                f"{owner['owner']} works on {folder.name} and last wrote {silent:.0f} s ago. "
                "Stop it first, or delete owner.json if you know that it is gone."
            )
        is_new = not owner or owner["owner"] != _me()
        if is_new:
            storage.sweep(folder)
        mine = {"owner": _me(), "began": _began(os.getpid()), "last_wrote": time.time()}
        storage.write_json(folder / "owner.json", mine)
        return is_new


def release(folder: Path) -> None:
    """`Run.release` of the run in `folder`."""
    with _locked(folder):
        owner = _owner(folder)
        if owner and owner["owner"] == _me():
            (folder / "owner.json").unlink(missing_ok=True)


def alone(work: Work) -> Work:
    """Decorate a function whose first argument is a run, or its folder, and which writes there.

    It is refused, as `Run.claim`, where another living process works in the folder.
    """

    @wraps(work)
    def guarded(run: Any, *others: Any, **named: Any) -> Any:
        folder = Path(getattr(run, "folder", run))
        is_new = folder.is_dir() and claim(folder)
        try:
            return work(run, *others, **named)
        finally:
            if is_new:
                release(folder)

    return guarded


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time reads the owner of a folder and writes another.

    The system ends the lock with its process. Where it has none, two may begin at once.
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


def _owner(folder: Path) -> dict[str, Any] | None:
    path = folder / "owner.json"
    return storage.read_json(path) if path.exists() else None


def _me() -> str:
    return f"{socket.gethostname()} process {os.getpid()}"


def _began(process: int) -> str:
    """When a process of this machine began, to tell it from a later one of its number; "" where
    nobody can tell."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return words[19]  # field 22 of proc(5): starttime, in clock ticks since boot


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the owner is a process of this machine that has ended, or, where that cannot be told,
    is silent for long."""
    host, _, process = owner["owner"].rpartition(" process ")
    if host == socket.gethostname() and os.name == "posix":
        if not storage.is_running(int(process)):
            return True
        if began := owner.get("began"):
            return began != _began(int(process))
    return time.time() - owner["last_wrote"] > OWNER_SILENT
