"""Google Drive as a mailbox: finished files of a run are copied there, for `recovery`.

Work never happens on Drive. What is there is whole by its marker, see `vouched`, or not used. No
failure of Drive stops a training: it is one warning, and the next copy catches up.
"""

import contextlib
import json
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from ksdd_lib import settings_io, storage
from ksdd_lib.drive import markers
from ksdd_lib.errors import DiskFullError, KsddError
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES

FOLDER = "ksdd"
"""Our folder on Drive: the runs below `runs`, the data archives beside them."""

SENDER = "sender.json"
"""Which run and machine a folder on Drive comes from, when it was last written, and whether the
machine was still at work on it then."""

REPORTS = "reports"
"""Below `FOLDER`: the newest report of each run, under the run's name, for people."""

LATEST = "latest.txt"
"""The name of the run begun or opened last, as in the folder of runs on this machine."""

SEEN = "drive.json"
"""In the folder of runs here: what `LATEST` named here and on Drive when they last agreed."""

CHECKPOINT = re.compile(r"(?P<stage>\w+)-(?P<step>\d{6})\.(pt|json)")

PARTS = (".pt", ".json")
"""The two files of a checkpoint."""

FIRST = ("settings.json", "folds.json", "data.json")
"""What is copied before all else: a checkpoint of settings that are not there could not be used."""

FAILURES = 3
"""Failures after which a copy gives up until the next one."""


@dataclass(frozen=True)
class Copied:
    """What a copy to Drive came to.

    Attributes:
        newest: the checkpoint that was saved last and is whole on Drive, as "step 150 of
            segmentation, fold 0"; "" without any.
        failure: why not all of the run is there; "" where it is.
    """

    newest: str = ""
    failure: str = ""

    def explain(self, run: Run) -> str:
        """One sentence on a failure."""
        return (
            f"Not all of {run.folder.name} could be copied to Drive ({self.failure}); it is safe "
            f"in {run.folder}, and the next copy tries again."
        )


def copy(run: Run, drive: Path, at_work: bool = False) -> Copied:
    """Copy what is new in a run folder to `<drive>/ksdd/runs/<its name>`; never raises.

    Of each stage's checkpoints only the newest is copied. The one before leaves Drive one copy
    later, when the newer has had time to arrive. A run of other settings that has the name on
    Drive is left alone: ours then gets a number behind its name. What copies that were killed have
    left in its folder is removed. The report is also put into `REPORTS`. A run that lies on Drive
    itself is not copied onto itself.

    Args:
        at_work: whether more is to come soon, so that another machine should not go on meanwhile.
    """
    drive = Path(drive)
    if is_on(drive, run.folder):
        return Copied()
    try:
        markers.require_mounted(drive)
        target, files = _target(run, drive), _worth_copying(run.folder)
        reports = drive / FOLDER / REPORTS
        listed = [*markers.list_folder(target.parent), *markers.list_folder(reports)]
        markers.sweep([*listed, *markers.walk(target)])
        sent, failures = _send_files(files, run.folder, target, drive)
        newest = _newest(sent)
        _sign(run, target, at_work)
        _name_latest(run, target, drive)
        if run.has("report"):
            report = (run.folder / "report.html").read_bytes()
            put(report, reports / f"{target.name}.html", drive)
    except Exception as error:  # in a thread, an error would end it without a word
        failures = [error]
    return Copied(failure=reason(failures[0])) if failures else Copied(newest)


def sign_of_life(run: Run, drive: Path) -> None:
    """Say on Drive that this machine is still at work on a run that has been copied; never raises.

    Else other machines would take it for lost where checkpoints are far apart, see `recovery`.
    """
    drive = Path(drive)
    with contextlib.suppress(Exception):  # a Drive that fails is the next copy's to tell
        if not is_on(drive, run.folder):
            markers.require_mounted(drive)
            target = _target(run, drive)
            if markers.read_object(target / SENDER).get("machine") == machine_name():
                _sign(run, target, at_work=True)


def put(data: bytes, target: Path, drive: Path) -> None:
    """Write a file to Drive for people to open: under its own name, and without a marker.

    Raises:
        OSError: Drive is gone, full or read-only.
    """
    markers.require_mounted(drive)
    if not target.exists() or target.read_bytes() != data:
        storage.write_bytes(target, data)


def copy_archive(run: Run, downloads: Path, drive: Path) -> str:
    """Copy the run's data archive to Drive where it was downloaded, for the next machine.

    Returns:
        One sentence on a failure, or ""; never raises.
    """
    try:
        wanted = run.read("data.json")["archive_sha256"]
        for path in sorted(Path(downloads).glob("*.zip")) if wanted else ():
            if storage.sha256(path) == wanted:
                target = Path(drive) / FOLDER / path.name
                markers.send(path.read_bytes(), target, Path(drive))
                markers.sweep(p for p in markers.list_folder(target.parent) if path.name in p.name)
    except Exception as error:
        return (
            f"The data archive could not be copied to Drive ({reason(error)}); "
            "a new machine will download it again."
        )
    return ""


def latest_there(there: Path) -> str | None:
    """The run that `LATEST` names on Drive; None where no marker vouches for it."""
    data = markers.read(there / LATEST)
    return PurePath(data.decode().strip()).name if data else None


def seen_there(runs: Path) -> dict[str, str]:
    """`SEEN` in the folder of runs here; empty where it is absent or damaged."""
    seen = markers.read_object(runs / SEEN)
    is_whole = all(isinstance(seen.get(key), str) for key in ("here", "drive"))
    return {key: PurePath(seen[key]).name for key in ("here", "drive")} if is_whole else {}


def find_there(run: Run, runs: Path) -> Path:
    """The run's folder on Drive: the one known, else the first free of <name>, <name>-2 ...

    Settings that no stage there has used may differ: they were changed in time.

    Args:
        runs: the folder of runs on Drive.
    """

    def is_ours(folder: Path) -> bool:
        there = open_there(folder)
        return there is not None and not any(
            has_begun_there(there, group) for group in unlike(run, there)
        )

    seen = seen_there(run.folder.parent)
    if seen.get("here") == run.folder.name and is_ours(runs / seen["drive"]):
        return runs / seen["drive"]
    return first_free(
        runs,
        run.folder.name,
        lambda folder: is_ours(folder) or not markers.is_there(folder / "settings.json"),
    )


def first_free(runs: Path, name: str, is_free: Callable[[Path], bool]) -> Path:
    """The first of the folders <name>, <name>-2 ... in `runs` that is free to us."""
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        if is_free(folder):
            return folder
        number += 1


def open_there(folder: Path) -> Run | None:
    """The run in a folder on Drive; None where its settings are not whole or of another version."""
    data = markers.read(folder / "settings.json")
    try:
        return None if data is None else Run(folder, settings_io.from_json(json.loads(data)))
    except KsddError:
        return None


def has_begun_there(there: Run, group: str) -> bool:
    """`Run.has_begun` of a run on Drive, where data.json may have another name."""
    if group == "data":
        return markers.is_there(there.folder / "data.json")
    return there.has_begun(group)


def unlike(here: Run, there: Run) -> set[str]:
    """The groups of settings in which a run differs from one on Drive; "data" for other data."""
    changed = settings_io.differences(here.settings, settings_io.to_json(there.settings))
    groups = {RULES[name].group for name in changed}
    ours = markers.read_object(here.folder / "data.json").get("fingerprint")
    theirs = json.loads(markers.read(there.folder / "data.json") or "{}").get("fingerprint")
    return groups | ({"data"} if None not in (ours, theirs) and ours != theirs else set())


def is_on(drive: Path, folder: Path) -> bool:
    """Whether a folder lies on Drive, where no run is worked on."""
    return folder.resolve().is_relative_to(drive.resolve())


def machine_name() -> str:
    """What this machine is called in `SENDER`."""
    return socket.gethostname()


def reason(error: Exception) -> str:
    """Why a copy failed, in a few words."""
    if isinstance(error, DiskFullError):
        return os.strerror(error.errno)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def warn(text: str) -> None:
    """One warning that names no line of ours."""
    warnings.warn(text, stacklevel=3)


def _sign(run: Run, target: Path, at_work: bool) -> None:
    sender = {"run": run.folder.name, "machine": machine_name(), "time": int(time.time())}
    storage.write_json(target / SENDER, sender | {"at_work": at_work})


def _target(run: Run, drive: Path) -> Path:
    return find_there(run, drive / FOLDER / "runs")


def _name_latest(run: Run, target: Path, drive: Path) -> None:
    """Name the run as the last on Drive, once: a training that goes on does not name it again.

    Else two machines at work would take turns, and neither could hand over.
    """
    here = run.folder.parent / LATEST
    if here.exists() and here.read_text("utf-8").strip() != run.folder.name:
        return
    agreed = {"here": run.folder.name, "drive": target.name}
    if seen_there(here.parent) == agreed and latest_there(target.parent):
        return
    markers.send(f"{target.name}\n".encode(), target.parent / LATEST, drive)
    if here.exists():  # else the run is not in the folder of runs
        storage.write_json(here.with_name(SEEN), agreed)


def _worth_copying(folder: Path) -> list[Path]:
    """The files of a run folder without older checkpoints, in the order in which they go.

    Each comes after what it needs: checkpoints after the settings, markers after the weights.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    newest: dict[tuple[Path, str], str] = {}
    for path in files:
        match = CHECKPOINT.fullmatch(path.name)
        if match and path.suffix == ".json":
            key = path.parent, match["stage"]
            newest[key] = max(newest.get(key, ""), match["step"])

    def is_wanted(path: Path) -> bool:
        match = CHECKPOINT.fullmatch(path.name)
        if match:
            return newest.get((path.parent, match["stage"])) == match["step"]
        return path.name != "owner.json"

    def place(path: Path) -> tuple[int, bool, Path]:
        name = path.relative_to(folder).as_posix()
        return FIRST.index(name) if name in FIRST else len(FIRST), path.suffix == ".json", path

    return sorted(filter(is_wanted, files), key=place)


def _newest(sent: Mapping[Path, float]) -> str:
    """The checkpoint saved last among files with their times, as `Copied` names it."""
    markers = [path for path in sent if CHECKPOINT.fullmatch(path.name) and path.suffix == ".json"]
    if not markers:
        return ""
    last = max(markers, key=lambda path: sent[path])
    stage, _, step = last.stem.rpartition("-")
    return f"step {int(step)} of {stage}, fold {last.parent.name.removeprefix('fold')}"


def _send_files(
    files: Iterable[Path], folder: Path, target: Path, drive: Path
) -> tuple[dict[Path, float], list[OSError]]:
    """Copy what is new of `files` in `folder`.

    Returns:
        What is there now -> when it was written here, and the failures: after a few it gives up.
    """
    sent: dict[Path, float] = {}
    failures: list[OSError] = []
    for path in files:
        try:
            data, written = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:  # training has gone on, and removed an older checkpoint
            continue
        there = target / path.relative_to(folder)
        try:
            is_new = markers.send(data, there, drive)
            sent[path] = written
            _remove_superseded(there, kept=1 if is_new else 0)
        except OSError as error:
            failures.append(error)
            if len(failures) == FAILURES:
                break
    return sent, failures


def _remove_superseded(copy: Path, kept: int) -> None:
    """Where a checkpoint is whole on Drive, remove our older ones of the stage but the newest."""
    match = CHECKPOINT.fullmatch(copy.name)
    if match is None or not all(map(markers.is_there, (copy.with_suffix(s) for s in PARTS))):
        return
    older: dict[str, list[Path]] = {}
    for path in markers.list_folder(copy.parent):
        found = CHECKPOINT.fullmatch(markers.plain(path).name)
        if found and found["stage"] == match["stage"] and found["step"] < match["step"]:
            older.setdefault(found["step"], []).append(path)
    for step in sorted(older, reverse=True)[kept:]:
        for path in older[step]:
            path.unlink(missing_ok=True)
