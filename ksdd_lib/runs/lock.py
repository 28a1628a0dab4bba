"""Who works in a run folder: one process at a time, named by owner.json."""

import contextlib
import functools
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.storage import Record

OWNER_SILENT = 15 * 60  # seconds without a sign of life after which another may take over

FILE = re.compile(
    r"(settings|data|folds|timing|metrics|environment|owner)\.json|predictions\.csv|masks\.npz"
    r"|(fold\d|final)/(\w+-\d{6,}\.(pt|json)|\w+\.(jsonl|(done|diverged|restart)\.json)"
    r"|scores\.(csv|json))"
    r"|(fold\d|final)/(masks|examples)\.npz|report\.html|figures/\w+\.png|notebooks/\w+\.ipynb"
)
"""The names in a run folder of all that this package writes there."""

Work = TypeVar("Work", bound=Callable[..., object])


TOKEN = secrets.token_hex(8)
"""What names this process, and those that it forks, among all of all machines."""


class Owner(Record):
    """owner.json: which process works in a run folder, as "HOST process NUMBER"."""

    owner: str
    last_wrote: float  # seconds since the epoch, by the clock of its machine
    started: float | None = None  # seconds after the machine, whatever the clock; None: unknown
    system: str | None = None  # where its number means this process; as `token` not in old files
    token: str | None = None

    @property
    def number(self) -> int:
        """The number of the process; 0 where it is not told."""
        host, _, number = self.owner.rpartition(" process ")
        return int(number) if host and re.fullmatch(r"\d{1,9}", number) else 0

    def is_this_process(self) -> bool:
        """Whether it is the process that asks."""
        mine = TOKEN, os.getpid(), _own_start(os.getpid())
        return (self.token, self.number, self.started) == mine

    def has_ended(self, note: Path) -> bool:
        """Whether the process of the owner.json at `note` has ended, as far as is known here; else
        whether it has been silent for long."""
        host = self.owner.rpartition(" process ")[0]
        is_here = self.system == system() if self.system else host == socket.gethostname()
        if is_here and self.number:
            if not psutil.pid_exists(self.number):
                return True
            started = _started(self.number)
            if self.started is not None and started is not None:
                return abs(self.started - started) >= 5  # then its number is another's now
        return storage.seconds_since(self.last_wrote, note) > OWNER_SILENT


def claim(folder: Path) -> bool:
    """Say that this process works in a run folder; False where it had said so already.

    Long work says so again and again. From the first claim until `release`, nothing is written or
    removed in the folder once it is another's. The first claim also removes the temporary files of
    a killed owner. RunError where another living process works there, or has done so meanwhile.
    """
    with _locked(folder):
        owner, note = _owner(folder), folder / "owner.json"
        is_new = folder.resolve() not in _held
        if not is_new:
            _require_ours(folder)
        elif owner and not owner.is_this_process() and not owner.has_ended(note):
            silent = storage.seconds_since(owner.last_wrote, note)
            raise RunError(
                f"{owner.owner} works on {folder.name} and last wrote {silent:.0f} s ago. "
                "Stop it first, or delete owner.json if you know that it is gone.",
                see="runs#one-worker",
            )
        name, number = socket.gethostname(), os.getpid()
        me = Owner(
            owner=f"{name} process {number}",
            last_wrote=time.time(),
            started=_own_start(number),
            system=system(),
            token=TOKEN,
        )
        if is_new:
            storage.sweep(folder, lambda file: FILE.fullmatch(file) is not None)
        storage.write_record(note, me)
        if is_new:
            _held.add(folder.resolve())
            storage.guard(folder, functools.partial(_require_ours, folder))
        return is_new


def release(folder: Path) -> None:
    """Give a run folder up again, unless another process has taken it over."""
    _held.discard(folder.resolve())
    storage.guard(folder, None)
    with contextlib.suppress(RunError), _locked(folder):
        owner = _owner(folder)
        if owner and owner.is_this_process():
            (folder / "owner.json").unlink(missing_ok=True)


def is_free(folder: Path) -> bool:
    """Whether no other process is at work in a run folder, as far as is known here."""
    owner = _owner(folder)
    return owner is None or owner.is_this_process() or owner.has_ended(folder / "owner.json")


_held: set[Path] = set()
"""The folders that this process has claimed and not released."""


def _require_ours(folder: Path) -> None:
    """Raise RunError where a claimed folder is not this process's any more."""
    owner = _owner(folder)
    if owner is None or not owner.is_this_process():
        who = f"{owner.owner} has taken it over" if owner else "it was deleted, moved or taken over"
        raise RunError(
            f"This process worked on {folder.name}, but meanwhile {who}: nothing more of it is "
            "saved there. Run it again to go on from what is there now."
        )


def alone(work: Work) -> Work:
    """Let a function `claim` the run, or run folder, that is its first argument, while it runs."""

    @functools.wraps(work)
    def guarded(run: Any, *others: object, **named: object) -> object:
        is_run = hasattr(run, "folder")
        folder: Path = run.folder if is_run else Path(run)
        if is_run and not (folder / "settings.json").exists():
            raise RunError(
                f"The run folder {folder} is gone, or its settings.json: open or begin a run again."
            )
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
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise RunError(f"The run folder {folder} is gone: it was deleted or moved.") from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner(folder: Path) -> Owner | None:
    path = folder / "owner.json"
    return storage.read_record(path, Owner) if path.exists() else None


def system() -> str:
    """Within what a number names one process: this host, since its start, or a container of it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(number: int) -> float | None:
    """When a process of this machine began, in seconds after the machine; None: unknown."""
    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        booted = psutil.boot_time()  # first, as older versions keep its last answer
        return psutil.Process(number).create_time() - booted
    return None


_own_start = functools.cache(_started)
"""`_started` of this process, asked once: some systems answer otherwise after a sleep."""
