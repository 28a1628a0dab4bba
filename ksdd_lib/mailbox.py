"""Google Drive as a mailbox: finished files of a run are copied there, and back to a new machine.

Work never happens on Drive: its renames are not atomic, its writes arrive late, its mount dies
under a running program. So each copied file is followed by a small marker `<file>.ok` with its size
and SHA-256, and what no marker vouches for is not used. No failure of Drive stops a training: it is
one warning, and the next copy catches up.

In Colab each notebook has a machine of its own, so every start looks whether another one has gone
further. That is judged by checkpoint steps, hashes and done markers, never by time.
"""

import errno
import json
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ksdd_lib import archive, storage
from ksdd_lib import settings as schema
from ksdd_lib.errors import DiskFullError, KsddError, RunError
from ksdd_lib.run import OWNER_SILENT, Run

FOLDER = "ksdd"
"""Our folder on Drive: the runs below `runs`, the data archives beside them."""

SENDER = "sender.json"
"""Which run and machine a folder on Drive comes from, and when it was last written."""

LATEST = "latest.txt"
"""The name of the run begun or opened last, as in the folder of runs on this machine."""

SEEN = "drive.json"
"""In the folder of runs here: what `LATEST` named here and on Drive when they last agreed."""

CHECKPOINT = re.compile(r"(?P<stage>\w+)-(?P<step>\d{6})\.(pt|json)")

STAGE_FILE = re.compile(r"(?P<fold>fold\d+)/(?P<stage>\w+)(-\d{6}\.(pt|json)|\.jsonl|\.done\.json)")

PATIENCE = 3
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


def mirror(run: Run, drive: Path | None) -> None:
    """`copy`; nothing without a Drive. Where Drive fails, a warning says so."""
    copied = Copied() if drive is None else copy(run, drive)
    if copied.failure:
        _warn(copied.explain(run))


def copy(run: Run, drive: Path) -> Copied:
    """Copy what is new in a run folder to `<drive>/ksdd/runs/<its name>`; never raises.

    Of each stage's checkpoints only the newest is copied. The one before leaves Drive one copy
    later, when the newer has had time to arrive. A run of other settings that has the name on
    Drive is left alone: ours then gets a number behind its name.
    """
    drive = Path(drive)
    try:
        _require_mounted(drive)
        target, files = _target(run, drive), _worth_copying(run.folder)
        failures = _send_files(files, run.folder, target, drive)
        _name_latest(run, target, drive)
        sender = {"run": run.folder.name, "machine": _machine(), "time": int(time.time())}
        storage.write_json(target / SENDER, sender)
    except OSError as error:
        failures = [error]
    return Copied(failure=_reason(failures[0])) if failures else Copied(_newest(files))


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
    """Bring here what is further on Drive; called at every start of a notebook.

    The run that another machine has named as the last one on Drive becomes the run in use here,
    unless this machine has opened another one itself since it last looked. Else the run in use
    stays. What that run has further on Drive is brought, see `_bring`; nothing here that is as far
    is replaced. The run's data archive is unpacked too, where Drive has it and the data is missing.

    Returns:
        The folder of the run in use, or None where Drive has nothing usable of it.
    """
    if drive is None:
        return None
    runs, there = Path(home) / "runs", Path(drive) / FOLDER / "runs"
    try:
        here, seen = _latest_here(runs), _read_json(runs / SEEN)
        last = _latest_there(there)
        is_new = last is not None and last != seen.get("drive") and here == seen.get("here")
        if last is not None and (here is None or is_new):
            folder = _adopt(there / last, runs)
        else:
            folder = _catch_up(runs / here, there, seen) if here else None
        if folder is not None:
            _unpack_archive(folder, Path(home), Path(drive))
        return folder
    except OSError as error:
        _warn(f"Drive could not be read ({_reason(error)}): run this cell again.")
        return None


def _name_latest(run: Run, target: Path, drive: Path) -> None:
    """Name the run as the last on Drive, once: a training that goes on does not name it again.

    Else two machines at work would take turns, and neither could hand over.
    """
    here = run.folder.parent / LATEST
    if here.exists() and here.read_text().strip() != run.folder.name:
        return
    agreed = {"here": run.folder.name, "drive": target.name}
    if _read_json(here.with_name(SEEN)) == agreed and _latest_there(target.parent):
        return
    _send(f"{target.name}\n".encode(), target.parent / LATEST, drive)
    if here.exists():  # else the run is not in the folder of runs
        storage.write_json(here.with_name(SEEN), agreed)


def _latest_here(runs: Path) -> str | None:
    name = (runs / LATEST).read_text().strip() if (runs / LATEST).exists() else ""
    return name if name and (runs / name / "settings.json").exists() else None


def _latest_there(there: Path) -> str | None:
    markers = [path for path in _listed(there) if path.name.startswith("latest")]
    data = _content(there / LATEST, _vouched(there, markers).get(LATEST, set()))
    return PurePath(data.decode().strip()).name if data else None


def _target(run: Run, drive: Path) -> Path:
    """The run's folder on Drive: the one known, else the first free of <name>, <name>-2 ...

    Settings that no stage there has used may differ: they were changed in time.
    """

    def is_ours(folder: Path) -> bool:
        there = _open(folder)
        return there is not None and not any(map(there.has_begun, _unlike(run, there)))

    runs, seen = drive / FOLDER / "runs", _read_json(run.folder.parent / SEEN)
    if seen.get("here") == run.folder.name and is_ours(runs / seen["drive"]):
        return runs / seen["drive"]
    return _first_free(runs, run.folder.name, is_ours)


def _first_free(runs: Path, name: str, is_ours: Callable[[Path], bool]) -> Path:
    """The first of <name>, <name>-2 ... in `runs` that is ours or holds no run."""
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        if not (folder / "settings.json").exists() or is_ours(folder):
            return folder
        number += 1


def _open(folder: Path) -> Run | None:
    """The run in a folder; None where its settings are damaged or of another version."""
    try:
        return Run(folder, schema.from_json(storage.read_json(folder / "settings.json")))
    except KsddError:
        return None


def _unlike(one: Run, other: Run) -> set[str]:
    """The groups of settings in which two runs differ; "data" too where their data differs."""
    changed = schema.differences(one.settings, schema.to_json(other.settings))
    groups = {schema.RULES[name].group for name in changed}
    data = {_read_json(run.folder / "data.json").get("fingerprint") for run in (one, other)}
    return groups | ({"data"} if len(data - {None}) > 1 else set())


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


def _newest(files: Iterable[Path]) -> str:
    """The checkpoint saved last among `files`, as `Copied` names it."""
    markers = [path for path in files if CHECKPOINT.fullmatch(path.name) and path.exists()]
    if not markers:
        return ""
    last = max(markers, key=lambda path: path.stat().st_mtime)
    stage, _, step = last.stem.rpartition("-")
    return f"step {int(step)} of {stage}, fold {last.parent.name.removeprefix('fold')}"


def _send_files(files: Iterable[Path], folder: Path, target: Path, drive: Path) -> list[OSError]:
    """Copy what is new of `files` in `folder`; the failures, after a few of which it gives up."""
    failures: list[OSError] = []
    for path in files:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # training has gone on, and removed an older checkpoint
            continue
        there = target / path.relative_to(folder)
        try:
            is_new = _send(data, there, drive)
            _remove_superseded(there, kept=1 if is_new else 0)
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
    if _read_json(marker) == record and _size(target) == len(data):
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


def _remove_superseded(copy: Path, kept: int) -> None:
    """Where a checkpoint is whole on Drive, remove our older ones of the stage but the newest."""
    match = CHECKPOINT.fullmatch(copy.name)
    parts = [copy.with_suffix(".pt.ok"), copy.with_suffix(".json.ok")]
    if match is None or not all(part.exists() for part in parts):
        return
    older: dict[str, list[Path]] = {}
    for path in _listed(copy.parent):
        found = CHECKPOINT.fullmatch(path.name.removesuffix(".ok"))
        if found and found["stage"] == match["stage"] and found["step"] < match["step"]:
            older.setdefault(found["step"], []).append(path)
    for step in sorted(older, reverse=True)[kept:]:
        for path in older[step]:
            path.unlink(missing_ok=True)


class _Copy:
    """A run's folder on Drive, read through its markers.

    Attributes:
        vouched: file name relative to the folder -> the SHA-256 of its markers.
        lost: names of the files read that were not what their markers vouch for.
        brought: how many files were written here.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.vouched = _vouched(source, _walk(source))
        self.lost: set[str] = set()
        self.brought = 0

    def read(self, name: str) -> bytes | None:
        """The vouched content of a file, or None."""
        data = _content(self.source / name, self.vouched.get(name, set()))
        if data is None and name in self.vouched:
            self.lost.add(name)
        return data

    def bring(self, names: Iterable[str], folder: Path) -> None:
        """Write those files that are whole to `folder`, in this order."""
        for name in names:
            data = self.read(name)
            if data is not None:
                storage.write_bytes(folder / name, data)
                self.brought += 1

    def settings(self) -> schema.Settings | None:
        """The run's settings; None where they are not whole or of another version."""
        data = self.read("settings.json")
        try:
            return None if data is None else schema.from_json(json.loads(data))
        except KsddError:
            return None

    def steps(self, stage: str) -> list[int]:
        """The steps of the checkpoints of "fold0/segmentation", newest first."""
        found = re.compile(re.escape(stage) + r"-(\d{6})\.json")
        return sorted(int(m[1]) for name in self.vouched if (m := found.fullmatch(name)))[::-1]


def _adopt(source: Path, runs: Path) -> Path | None:
    """Bring the run that another machine named last, and make it the run in use here."""
    copy = _Copy(source)
    settings = copy.settings()
    if settings is None:
        _warn_of_lost(copy, runs / source.name)
        _warn(f"Without its settings, {source.name} cannot be continued; begin a new run.")
        return None
    there = Run(source, settings)

    def is_ours(folder: Path) -> bool:
        here = _open(folder)
        return here is not None and not any(
            here.has_begun(group) or there.has_begun(group) for group in _unlike(here, there)
        )

    name = PurePath(_read_json(source / SENDER).get("run", source.name)).name
    folder = _first_free(runs, name, is_ours)
    _bring(copy, there, folder)
    storage.write_text(runs / LATEST, f"{folder.name}\n")
    storage.write_json(runs / SEEN, {"here": folder.name, "drive": source.name})
    return folder


def _catch_up(folder: Path, there: Path, seen: dict[str, Any]) -> Path | None:
    """Bring to the run in use what is further on Drive; None where Drive does not have the run."""
    here = _open(folder)
    if here is None:
        return None
    if seen.get("here") == folder.name:
        source = there / seen["drive"]
    else:
        source = _target(here, there.parent.parent)
    if not (source / "settings.json").exists():
        return None
    copy = _Copy(source)
    settings = copy.settings()
    if settings is None:
        _warn_of_lost(copy, folder)
        return None
    other = Run(source, settings)
    used = [g for g in _unlike(here, other) if here.has_begun(g) and other.has_begun(g)]
    if used:
        _warn(
            f"{folder.name} was continued on Drive with other settings ({', '.join(used)}), which "
            "are not brought here."
        )
        return None
    _bring(copy, other, folder)
    return folder


def _bring(copy: _Copy, there: Run, folder: Path) -> None:
    """Write to `folder` what the same run has further on Drive.

    - Of each stage the newest checkpoint with its history and done marker, where its step is
      higher than here, or as high and only there done.
    - Settings that a stage on Drive has used and none here.
    - data.json and folds.json, or the results of evaluation, where only Drive has them whole.
    - Any other file, and lines of timing.json, that are missing here.
    """
    _bring_settings(copy, there, folder)
    _bring_unit(copy, folder, ["folds.json", "data.json"], key="data.json")
    stages = {(m["fold"], m["stage"]) for m in map(STAGE_FILE.fullmatch, copy.vouched) if m}
    order = sorted(stages, key=lambda pair: (pair[0], pair[1] != "segmentation"))
    if all([_bring_stage(copy, folder, fold, stage) for fold, stage in order]):
        _bring_results(copy, folder, {fold for fold, _ in stages})
    _bring_timing(copy, folder)
    _warn_of_lost(copy, folder)
    if copy.brought:
        print(f"{folder.name} is back from Drive: {copy.brought} files.")
    sender = _read_json(copy.source / SENDER)
    age, machine = time.time() - sender.get("time", 0), sender.get("machine")
    if age < OWNER_SILENT and machine != _machine():
        _warn(
            f"{machine} wrote to {folder.name} {age:.0f} s ago: "
            "if it still runs, stop it before you go on here."
        )


def _bring_settings(copy: _Copy, there: Run, folder: Path) -> None:
    here = _open(folder)
    if here is None:
        copy.bring(["settings.json"], folder)
        return
    changed = schema.differences(here.settings, schema.to_json(there.settings))
    groups = {name: schema.RULES[name].group for name in changed}
    taken = {
        name: theirs
        for name, (_, theirs) in changed.items()
        if there.has_begun(groups[name]) and not here.has_begun(groups[name])
    }
    if taken:
        here.write("settings.json", schema.to_json(replace(here.settings, **taken)))
        copy.brought += 1


def _bring_unit(copy: _Copy, folder: Path, names: Iterable[str], key: str) -> None:
    """All of `names` where `key` is on Drive and not here, else those that are missing here."""
    is_further = key in copy.vouched and not (folder / key).exists()
    wanted = [n for n in names if n in copy.vouched and (is_further or not (folder / n).exists())]
    copy.bring(sorted(wanted, key=lambda name: (name == key, name.endswith(".json"), name)), folder)


def _bring_stage(copy: _Copy, folder: Path, fold: str, stage: str) -> bool:
    """The newest whole checkpoint on Drive with what belongs to it, if it is further.

    Returns:
        False where it goes on from other weights than are here, and stays on Drive.
    """
    prefix = f"{fold}/{stage}"
    done, history = f"{prefix}.done.json", f"{prefix}.jsonl"
    ours, _ = _checkpoint_here(folder / fold, stage)
    for step in copy.steps(prefix):
        is_only_done_there = done in copy.vouched and not (folder / done).exists()
        if step < ours or (step == ours and not is_only_done_there):
            return True
        weights, marker = (f"{prefix}-{step:06d}.{ending}" for ending in ("pt", "json"))
        record, data = copy.read(marker), copy.read(weights)
        if record is None or data is None:
            continue
        predecessor = json.loads(record)["identity"].get("predecessor")
        if predecessor not in (None, _checkpoint_here(folder / fold, "segmentation")[1]):
            _warn(f"{prefix} on Drive goes on from other weights than are here: passed over.")
            return False
        storage.write_bytes(folder / weights, data)
        copy.bring([history] if history in copy.vouched else [], folder)
        storage.write_bytes(folder / marker, record)
        copy.brought += 2
        finished = copy.read(done)
        if finished is not None and json.loads(finished)["steps"] <= step:
            storage.write_bytes(folder / done, finished)
            copy.brought += 1
        return True
    return True


def _bring_results(copy: _Copy, folder: Path, folds: Iterable[str]) -> None:
    """Scores, figures and so on, but for those of other weights or another evaluation than ours."""
    for fold in folds:
        steps = copy.steps(f"{fold}/decision")
        record = copy.read(f"{fold}/decision-{steps[0]:06d}.json") if steps else None
        theirs = json.loads(record)["sha256"] if record else None
        if _checkpoint_here(folder / fold, "decision")[1] not in (None, theirs):
            return
    metrics = folder / "metrics.json"
    if metrics.exists() and storage.sha256(metrics) not in copy.vouched.get("metrics.json", ()):
        return
    others = {"settings.json", "timing.json", "folds.json", "data.json", SENDER}
    names = [n for n in copy.vouched if n not in others and not STAGE_FILE.fullmatch(n)]
    _bring_unit(copy, folder, names, key="metrics.json")


def _bring_timing(copy: _Copy, folder: Path) -> None:
    """Add the lines of timing.json that are missing here."""
    path = folder / "timing.json"
    rows = storage.read_json(path) if path.exists() else []
    here = {row["what"] for row in rows}
    more = [row for row in json.loads(copy.read("timing.json") or "[]") if row["what"] not in here]
    if more:
        storage.write_json(path, [*rows, *more])
        copy.brought += 1


def _checkpoint_here(folder: Path, stage: str) -> tuple[int, str | None]:
    """Step and SHA-256 of the newest whole checkpoint on this machine; (-1, None) without any."""
    for marker in sorted(folder.glob(f"{stage}-??????.json"), reverse=True):
        weights, sha256 = marker.with_suffix(".pt"), _read_json(marker).get("sha256")
        if weights.exists() and storage.sha256(weights) == sha256:
            return int(marker.stem.rpartition("-")[2]), sha256
    return -1, None


def _warn_of_lost(copy: _Copy, folder: Path) -> None:
    missing = {n for n in _unvouched(copy.source, copy.vouched) if not (folder / n).exists()}
    lost = sorted(copy.lost | missing)
    if lost:
        names = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        _warn(f"Not whole on Drive and passed over: {names} of {copy.source.name}.")


def _vouched(source: Path, files: Iterable[Path]) -> dict[str, set[str]]:
    """File name relative to `source` -> the SHA-256 of its markers, also of `name (1)`."""
    found: dict[str, set[str]] = {}
    markers = [path for path in files if path.suffix == ".ok"]
    with ThreadPoolExecutor(16) as pool:  # Drive takes long for each small file
        records = list(pool.map(_read_json, markers))
    for marker, record in zip(markers, records, strict=True):
        name = re.sub(r" \(\d+\)$", "", marker.name.removesuffix(".ok"))
        relative = marker.with_name(name).relative_to(source).as_posix()
        if "sha256" in record:
            found.setdefault(relative, set()).add(record["sha256"])
    return found


def _unvouched(source: Path, vouched: dict[str, set[str]]) -> set[str]:
    """Files that were on their way to Drive when the machine was lost."""
    found = set()
    for path in _walk(source):
        name = re.sub(r" \(\d+\)(?=\.\w+$)", "", path.name)
        relative = path.with_name(name).relative_to(source).as_posix()
        if name != SENDER and path.suffix != ".ok" and name[0] != ".":
            found |= {relative} - vouched.keys()
    return found


def _content(path: Path, hashes: set[str]) -> bytes | None:
    """The content that a marker vouches for, under the file's name or, newest first, `name (1)`."""
    renamed = re.compile(re.escape(path.stem) + r" \(\d+\)" + re.escape(path.suffix))
    duplicates = sorted(p for p in _listed(path.parent) if renamed.fullmatch(p.name))[::-1]
    for candidate in [*duplicates, path]:
        data = candidate.read_bytes() if candidate.exists() else b""
        if storage.sha256(data) in hashes:
            return data
    return None


def _unpack_archive(folder: Path, home: Path, drive: Path) -> None:
    """Unpack the run's data to the place that data.json remembers, where Drive has its archive."""
    record = _read_json(folder / "data.json")
    if (folder / record.get("place", "nowhere")).is_dir():
        return
    wanted = record.get("archive_sha256")
    zips = [path for path in _listed(drive / FOLDER) if path.suffix == ".zip"]
    for path in sorted(zips) if wanted else ():
        if _read_json(path.with_name(f"{path.name}.ok")).get("sha256") != wanted:
            continue
        try:
            archive.unpack(path, home)
        except KsddError as error:
            _warn(f"The data archive on Drive is passed over: {error}")


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it does not exist.

    Raises:
        OSError: it cannot be listed. pathlib's `glob` would take a mount that is gone for empty.
    """
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []


def _walk(folder: Path) -> list[Path]:
    """The files in a folder and below; raises as `_listed`."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    walk = os.walk(folder, onerror=fail)
    return [Path(place, name) for place, _, names in walk for name in names]


def _read_json(path: Path) -> dict[str, Any]:
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
    if isinstance(error, DiskFullError):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
