"""Google Drive as a mailbox: finished files of a run are copied there, and back to a new machine.

Work never happens on Drive: its renames are not atomic, its writes arrive late, its mount dies
under a running program. So each copied file is followed by a small marker `<file>.ok` with its size
and SHA-256, and what no marker vouches for is not used. No failure of Drive stops a training: it is
one warning, and the next copy catches up.
"""

import errno
import os
import re
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from ksdd_lib import archive, storage
from ksdd_lib import settings as schema
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.run import OWNER_SILENT, Run

FOLDER = "ksdd"
"""Our folder on Drive: the runs below `runs`, the data archives beside them."""

SENDER = "sender.json"
"""Which run and machine a folder on Drive comes from, and when it was last written."""

LATEST = "latest.txt"
"""The name of the run used last, as in the folder of runs on this machine."""

CHECKPOINT = re.compile(r"(?P<stage>\w+)-(?P<step>\d{6})\.(pt|json)")

PATIENCE = 3
"""Failures after which a copy gives up until the next one."""


def mirror(run: Run, drive: Path | None) -> None:
    """Copy what is new in a run folder to `<drive>/ksdd/runs/<its name>`; nothing without a Drive.

    Of each stage's checkpoints only the newest is copied. An older one leaves Drive one copy later,
    when the newer has had time to arrive. A run of other settings that has the name on Drive is
    left alone: ours then gets a number behind its name.

    Where Drive fails, a warning says so and the next call goes on.
    """
    if drive is None:
        return
    drive = Path(drive)
    try:
        _require_mounted(drive)
        target = _target(run, drive)
        failures = _send_files(run.folder, target, drive)
        _send(f"{target.name}\n".encode(), target.parent / LATEST, drive)
        sender = {"run": run.folder.name, "machine": _machine(), "time": int(time.time())}
        storage.write_json(target / SENDER, sender)
    except OSError as error:
        failures = [error]
    if failures:
        _warn(
            f"Not all of {run.folder.name} could be copied to Drive ({_reason(failures[0])}); it "
            f"is safe in {run.folder}, and the next copy tries again."
        )


def keeper(run: Run, drive: Path | None, every: float = 600) -> Callable[[], None]:
    """A function for `saved` of the training stages: `mirror`, at most once in `every` seconds."""
    last = time.monotonic()

    def keep() -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            mirror(run, drive)
            last = time.monotonic()

    return keep


def mirror_archive(run: Run, home: Path, drive: Path | None) -> None:
    """Copy the run's data archive to Drive where it was downloaded, for the next machine."""
    wanted = run.read("data.json")["archive_sha256"]
    if drive is None or wanted is None:
        return
    try:
        for path in sorted((Path(home) / "downloads").glob("*.zip")):
            if storage.sha256(path) == wanted:
                _send(path.read_bytes(), Path(drive) / FOLDER / path.name, Path(drive))
    except OSError as error:
        _warn(
            f"The data archive could not be copied to Drive ({_reason(error)}); "
            "a new machine will download it again."
        )


def restore(home: Path, drive: Path | None) -> Path | None:
    """Bring the run used last back from Drive, where this machine has no run yet.

    A file that no marker vouches for is passed over with a warning. The run's data archive is
    unpacked too, where Drive has it.

    Returns:
        The run's folder here, or None where there was nothing to do or nothing usable.
    """
    latest = Path(home) / "runs" / LATEST
    if drive is None or latest.exists():
        return None
    runs = Path(drive) / FOLDER / "runs"
    try:
        name = _content(runs / LATEST, _vouched(runs, "latest*.ok").get(LATEST, set()))
        if name is None:
            return None
        folder = _bring_back(runs / PurePath(name.decode().strip()).name, latest.parent)
        if folder is not None:
            _unpack_archive(folder, Path(home), Path(drive))
            storage.write_text(latest, folder.name + "\n")
        return folder
    except OSError as error:
        _warn(f"Drive could not be read ({_reason(error)}): run this cell again.")
        return None


def _target(run: Run, drive: Path) -> Path:
    """The run's folder on Drive: the first of <name>, <name>-2 ... that holds no other run."""
    number = 1
    while True:
        name = run.folder.name if number == 1 else f"{run.folder.name}-{number}"
        folder = drive / FOLDER / "runs" / name
        if not (folder / "settings.json").exists() or _is_same(run, folder):
            return folder
        number += 1


def _is_same(run: Run, folder: Path) -> bool:
    """Whether the run on Drive has our settings, but for those that no stage there has used."""
    try:
        there = Run(folder, schema.from_json(storage.read_json(folder / "settings.json")))
    except KsddError:
        return False
    changed = schema.differences(there.settings, schema.to_json(run.settings))
    return not any(there.has_begun(schema.RULES[name].group) for name in changed)


def _worth_copying(folder: Path) -> list[Path]:
    """The files of a run folder without older checkpoints; weights before their markers."""
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

    return sorted(filter(is_wanted, files), key=lambda path: (path.suffix == ".json", path))


def _send_files(folder: Path, target: Path, drive: Path) -> list[OSError]:
    """Copy what is new in `folder`; the failures, after a few of which it gives up."""
    failures: list[OSError] = []
    for path in _worth_copying(folder):
        copy = target / path.relative_to(folder)
        try:
            if not _send(path.read_bytes(), copy, drive):
                _remove_superseded(copy)
        except OSError as error:
            failures.append(error)
            if len(failures) == PATIENCE:
                break
    return failures


def _send(data: bytes, target: Path, drive: Path) -> bool:
    """Copy to Drive, then vouch for it; False where the same content was there already.

    Raises:
        OSError: Drive is gone, full or read-only, or took only a part.
    """
    _require_mounted(drive)
    record = {"bytes": len(data), "sha256": storage.sha256(data)}
    marker = target.with_name(f"{target.name}.ok")
    if _read_marker(marker) == record and _size(target) == len(data):
        return False
    storage.write_bytes(target, data)
    if _size(target) != len(data):
        raise OSError(errno.EIO, "only a part arrived", str(target))
    storage.write_json(marker, record)
    return True


def _require_mounted(drive: Path) -> None:
    """Writing into a mount that is gone would create its folder on the local disk."""
    if not drive.is_dir():
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(drive))


def _remove_superseded(copy: Path) -> None:
    """Where a checkpoint is whole on Drive, remove our older ones of the same stage."""
    match = CHECKPOINT.fullmatch(copy.name)
    parts = [copy.with_suffix(".pt.ok"), copy.with_suffix(".json.ok")]
    if match is None or not all(part.exists() for part in parts):
        return
    for marker in copy.parent.glob(f"{match['stage']}-??????.*.ok"):
        older = CHECKPOINT.fullmatch(marker.name.removesuffix(".ok"))
        if older and older["step"] < match["step"]:
            marker.with_suffix("").unlink(missing_ok=True)
            marker.unlink(missing_ok=True)


def _bring_back(source: Path, runs: Path) -> Path | None:
    """Copy what markers vouch for to the run's folder below `runs`; None without settings."""
    sender = _read_marker(source / SENDER)
    folder = runs / PurePath(sender.get("run", source.name)).name
    vouched = _vouched(source, "**/*.ok")
    lost, brought = sorted(_unvouched(source, vouched)), 0
    for relative in sorted(vouched, key=lambda name: (name.endswith(".json"), name)):
        data = _content(source / relative, vouched[relative])
        if data is None:
            lost.append(relative)
        else:
            storage.write_bytes(folder / relative, data)
            brought += 1
    if lost:
        names = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        _warn(f"Not whole on Drive and passed over: {names} of {source.name}.")
    if not (folder / "settings.json").exists():
        _warn(f"Without its settings, {source.name} cannot be continued; begin a new run.")
        return None
    print(f"{folder.name} is back from Drive: {brought} files.")
    age, machine = time.time() - sender.get("time", 0), sender.get("machine")
    if age < OWNER_SILENT and machine != _machine():
        _warn(
            f"{machine} wrote to {folder.name} {age:.0f} s ago: "
            "if it still runs, stop it before you go on here."
        )
    return folder


def _vouched(source: Path, pattern: str) -> dict[str, set[str]]:
    """File name relative to `source` -> the SHA-256 of its markers, also of `name (1)`."""
    found: dict[str, set[str]] = {}
    for marker in source.glob(pattern):
        name = re.sub(r" \(\d+\)$", "", marker.name.removesuffix(".ok"))
        record = _read_marker(marker)
        relative = marker.with_name(name).relative_to(source).as_posix()
        if "sha256" in record:
            found.setdefault(relative, set()).add(record["sha256"])
    return found


def _unvouched(source: Path, vouched: dict[str, set[str]]) -> set[str]:
    """Files that were on their way to Drive when the machine was lost."""
    found = set()
    for path in source.rglob("*"):
        name = re.sub(r" \(\d+\)(?=\.\w+$)", "", path.name)
        relative = path.with_name(name).relative_to(source).as_posix()
        if path.is_file() and name != SENDER and path.suffix != ".ok" and name[0] != ".":
            found |= {relative} - vouched.keys()
    return found


def _content(path: Path, hashes: set[str]) -> bytes | None:
    """The content that a marker vouches for, under the file's name or, newest first, `name (1)`."""
    duplicates = sorted(path.parent.glob(f"{path.stem} ([0-9]*){path.suffix}"), reverse=True)
    for candidate in [*duplicates, path]:
        data = candidate.read_bytes() if candidate.exists() else b""
        if storage.sha256(data) in hashes:
            return data
    return None


def _unpack_archive(folder: Path, home: Path, drive: Path) -> None:
    """Unpack the run's data to the place that data.json remembers, where Drive has its archive."""
    if not (folder / "data.json").exists():
        return
    wanted = storage.read_json(folder / "data.json")["archive_sha256"]
    for path in sorted((drive / FOLDER).glob("*.zip")) if wanted else ():
        if _read_marker(path.with_name(f"{path.name}.ok")).get("sha256") != wanted:
            continue
        try:
            archive.unpack(path, home)
        except KsddError as error:
            _warn(f"The data archive on Drive is passed over: {error}")


def _read_marker(path: Path) -> dict[str, Any]:
    """The JSON object at `path`, empty where it is absent or damaged."""
    try:
        record = storage.read_json(path)
    except RunError:
        return {}
    return record if isinstance(record, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _machine() -> str:
    return socket.gethostname()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
