"""Where things lie on Drive, and the notes there by which machines find each other's runs."""

import math
import os
import socket
import time
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.drive import markers
from ksdd_lib.errors import DiskFullError, KsddError, RunError
from ksdd_lib.runs.lock import OWNER_SILENT, system
from ksdd_lib.runs.open import last_name
from ksdd_lib.runs.run import Run

FOLDER = "ksdd"
"""Our folder on Drive, with the data archives."""

RUNS = f"{FOLDER}/runs"
"""The folders of runs on Drive."""

REPORTS = f"{FOLDER}/reports"
"""The newest report of each run, under the run's name, for people."""

LATEST = "latest.txt"
"""In the folder of runs, here and on Drive: the name of the run begun or opened last."""

LAST_COPY = "sender.json"
"""In a run's folder on Drive: the `LastCopy`."""

AGREEMENT = "drive.json"
"""In the folder of runs here: the `Agreement`."""


class LastCopy(storage.Record):
    """Which machine copied a run to Drive last, and when, in seconds since 1970.

    The run may have another name there; `at_work` says whether the machine was to go on with it.
    """

    run: str = ""
    machine: str = ""
    system: str = ""  # where the machine's name means this one; not in old files
    time: float = 0
    at_work: bool = False

    def is_ours(self) -> bool:
        """Whether this machine wrote it."""
        return self.machine == machine_name() and self.system in ("", system())

    def busy_for(self, folder: Path) -> float | None:
        """How long ago another machine, which was to go on with the run in `folder`, has written
        there, in seconds; None where none works there, as far as is known."""
        if not self.machine or self.is_ours() or not self.at_work:
            return None
        age = storage.seconds_since(self.time, folder / LAST_COPY)
        return age if age < OWNER_SILENT else None


class Agreement(storage.Record):
    """What `LATEST` named here and on Drive when both last meant the same run."""

    here: str
    drive: str


def folder_of(runs: Path, name: str) -> Path | None:
    """The folder of a name from elsewhere in a folder of runs; None where it would lead out of it,
    here or on another system."""
    is_plain = name.isprintable() and name.strip(". ") == name != ""
    if not is_plain or set('/\\:*?"<>|') & set(name) or len(name.encode()) > 200:
        return None
    return runs / name if (runs / name).resolve() == runs.resolve() / name else None


def is_on(drive: Path, folder: Path) -> bool:
    """Whether a folder lies on Drive, where no run is worked on."""
    return folder.resolve().is_relative_to(drive.resolve())


def machine_name() -> str:
    """What this machine is called in `LastCopy`."""
    return socket.gethostname()


def read_last_copy(folder: Path) -> LastCopy:
    """The `LastCopy` in a run's folder on Drive; an empty one where it is absent or damaged."""
    return markers.parsed(markers.content(folder / LAST_COPY), LastCopy) or LastCopy()


def age_of_copy(folder: Path) -> float:
    """How long ago a run's folder on Drive was copied to, in seconds; infinite where unknown."""
    last = read_last_copy(folder)
    return storage.seconds_since(last.time, folder / LAST_COPY) if last.time else math.inf


def write_last_copy(run: Run, folder: Path, at_work: bool) -> None:
    """Note in a run's folder on Drive that this machine has just written there."""
    name, now = run.folder.name, int(time.time())
    note = LastCopy(run=name, machine=machine_name(), system=system(), time=now, at_work=at_work)
    storage.write_record(folder / LAST_COPY, note)
    _ours.add((machine_name(), folder))


_ours: set[tuple[str, Path]] = set()
"""The folders of runs on Drive in which this machine, in this process, was the last to write."""


def give_up(folder: Path) -> None:
    """Forget that this process was the last to write there, as what others have is here now."""
    _ours.discard((machine_name(), folder))


def require_free(folder: Path) -> None:
    """Raise RunError where another machine works on the run in a folder on Drive, unless
    `$KSDD_TAKE_OVER` is set, or has taken it over from this process."""
    last = read_last_copy(folder)
    if last.machine and not last.is_ours() and (machine_name(), folder) in _ours:
        raise RunError(
            f"another machine, {last.machine}, has gone on with it: run the notebook's first cell"
        )
    age = last.busy_for(folder)
    if age is not None and not os.environ.get("KSDD_TAKE_OVER"):
        raise RunError(f"another machine, {last.machine}, works on it and wrote {age:.0f} s ago")


def read_latest(runs: Path) -> str | None:
    """The run that `LATEST` names on Drive; None where it names none."""
    name = (markers.read(runs / LATEST) or b"").decode(errors="replace").strip()
    return name if folder_of(runs, name) else None


def name_latest(run: Run, folder: Path, drive: Path) -> None:
    """Name a run as the last on Drive, once, if it is the last one here.

    A training that goes on does not name it again. Else two machines at work would take turns, and
    neither could hand over.
    """
    here = run.folder.parent / LATEST
    if here.exists() and last_name(here.parent) != run.folder.name:
        return
    agreed = Agreement(here=run.folder.name, drive=folder.name)
    if read_agreement(here.parent) == agreed and read_latest(folder.parent):
        return
    markers.write(f"{folder.name}\n".encode(), folder.parent / LATEST, drive)
    if here.exists():  # else the run is not in the folder of runs
        storage.write_record(here.with_name(AGREEMENT), agreed)


def read_agreement(runs: Path) -> Agreement | None:
    """The `Agreement` in the folder of runs here; None where it is absent or damaged."""
    return markers.parsed(markers.content(runs / AGREEMENT), Agreement)


def reason(error: Exception) -> str:
    """Why Drive could not be read or written, in a few words."""
    if isinstance(error, DiskFullError):
        return os.strerror(error.errno or 0)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KsddError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
