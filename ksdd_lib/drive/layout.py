"""Where things lie on Drive, and the notes there by which machines find each other's runs."""

import os
import socket
import time
from pathlib import Path, PurePath

from ksdd_lib import storage
from ksdd_lib.drive import markers
from ksdd_lib.errors import DiskFullError
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
    time: int | float = 0
    at_work: bool = False


class Agreement(storage.Record):
    """What `LATEST` named here and on Drive when both last meant the same run."""

    here: str
    drive: str


def is_on(drive: Path, folder: Path) -> bool:
    """Whether a folder lies on Drive, where no run is worked on."""
    return folder.resolve().is_relative_to(drive.resolve())


def machine_name() -> str:
    """What this machine is called in `LastCopy`."""
    return socket.gethostname()


def read_last_copy(folder: Path) -> LastCopy:
    """The `LastCopy` in a run's folder on Drive; an empty one where it is absent or damaged."""
    return markers.parsed(markers.content(folder / LAST_COPY), LastCopy) or LastCopy()


def write_last_copy(run: Run, folder: Path, at_work: bool) -> None:
    """Note in a run's folder on Drive that this machine has just written there."""
    name, now = run.folder.name, int(time.time())
    note = LastCopy(run=name, machine=machine_name(), time=now, at_work=at_work)
    storage.write_record(folder / LAST_COPY, note)


def read_latest(runs: Path) -> str | None:
    """The run that `LATEST` names on Drive; None where it is absent or damaged."""
    data = markers.read(runs / LATEST)
    return PurePath(data.decode().strip()).name if data else None


def name_latest(run: Run, folder: Path, drive: Path) -> None:
    """Name a run as the last on Drive, once, if it is the last one here.

    A training that goes on does not name it again. Else two machines at work would take turns, and
    neither could hand over.
    """
    here = run.folder.parent / LATEST
    if here.exists() and here.read_text("utf-8").strip() != run.folder.name:
        return
    agreed = Agreement(here=run.folder.name, drive=folder.name)
    if read_agreement(here.parent) == agreed and read_latest(folder.parent):
        return
    markers.write(f"{folder.name}\n".encode(), folder.parent / LATEST, drive)
    if here.exists():  # else the run is not in the folder of runs
        storage.write_record(here.with_name(AGREEMENT), agreed)


def read_agreement(runs: Path) -> Agreement | None:
    """The `Agreement` in the folder of runs here; None where it is absent or damaged."""
    found = markers.parsed(markers.content(runs / AGREEMENT), Agreement)
    return found and Agreement(here=PurePath(found.here).name, drive=PurePath(found.drive).name)


def reason(error: Exception) -> str:
    """Why Drive could not be read or written, in a few words."""
    if isinstance(error, DiskFullError):
        return os.strerror(error.errno or 0)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
