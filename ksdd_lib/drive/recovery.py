"""A run comes back from Google Drive: to a new machine, or to one that another has overtaken.

In Colab each notebook has a machine of its own, so every start looks whether another one has gone
further. That is judged by checkpoint steps, hashes and done markers, never by time.
"""

import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path, PurePath

from ksdd_lib import settings_io, storage
from ksdd_lib.data import sources
from ksdd_lib.drive import markers, upload
from ksdd_lib.drive.upload import FOLDER, LATEST, SEEN, SENDER, warn
from ksdd_lib.errors import DiskFullError, KsddError, RunError
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.open import is_same_start
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.training import checkpoint

STAGE_FILE = re.compile(r"(?P<fold>fold\d+)/(?P<stage>\w+)(-\d{6}\.(pt|json)|\.jsonl|\.done\.json)")

PATIENCE = 300.0
"""Seconds that a start waits for Drive. What has come until then is whole; the next goes on."""


def restore(
    home: Path,
    drive: Path | None,
    patience: float | None = None,
    named: Path | None = None,
    like: Settings | None = None,
) -> Path | None:
    """Bring here what is further on Drive; called at every start of a notebook.

    The run that another machine has named as the last one on Drive becomes the run in use here,
    unless this machine has opened another one itself since it last looked. Else the run in use
    stays; a machine without one takes the run that was copied last, with a warning. What that run
    has further on Drive is brought, see `_bring`; nothing here that is as far is replaced. The
    run's data archive is unpacked too, where Drive has it and the data is missing.

    Args:
        named: the folder on Drive of the run to bring, whichever was the last one. It is then the
            run in use here, opened by this machine itself.
        like: bring the run that notebook 1 would go on with for these settings, in the same way;
            none where Drive has no such run.

    Returns:
        The folder of the run in use, or None where Drive has nothing usable of it, or has not
        answered for `patience` seconds (`PATIENCE`), which is a warning.

    Raises:
        RunError: another machine is at work on the run, and `$KSDD_TAKE_OVER` is not set.
    """
    if drive is None:
        return None
    patience = PATIENCE if patience is None else patience
    given_up, outcome = threading.Event(), Future()

    def look() -> None:
        try:
            outcome.set_result(_restore(Path(home), Path(drive), given_up, named, like))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        return outcome.result(patience)
    except TimeoutError:
        warn(
            f"Drive has not answered for {patience / 60:.0f} minutes, and what is further there is "
            "not here: run this cell again, or go on with what this machine has."
        )
        return None
    finally:
        given_up.set()


def _restore(
    home: Path,
    drive: Path,
    given_up: threading.Event,
    named: Path | None,
    like: Settings | None,
) -> Path | None:
    """`restore`, however long it takes; once it is given up, it writes nothing more here."""
    runs, there = home / "runs", drive / FOLDER / "runs"
    try:
        here, seen = _latest_here(runs), upload.seen_there(runs)
        last = None
        if like is not None:
            named = _like(like, there)
            if named is None:
                return None
        if named is None:
            last = upload.latest_there(there) or (None if here else _newest_there(there))
        is_new = last is not None and last != seen.get("drive") and here == seen.get("here")
        if named is not None:
            folder = _adopt(named, runs, given_up)
        elif last is not None and (here is None or is_new):
            folder = _adopt(there / last, runs, given_up)
            if folder is not None:
                storage.write_json(runs / SEEN, {"here": folder.name, "drive": last})
        else:
            folder = _catch_up(runs / here, there, seen, given_up) if here else None
        if folder is not None and not given_up.is_set():
            _unpack_archive(folder, home, drive)
        return folder
    except DiskFullError:  # this machine's
        raise
    except OSError as error:
        warn(f"Drive could not be read ({upload.reason(error)}): run this cell again.")
        return None


def _latest_here(runs: Path) -> str | None:
    name = (runs / LATEST).read_text("utf-8").strip() if (runs / LATEST).exists() else ""
    return name if name and (runs / name / "settings.json").exists() else None


def _newest_there(there: Path) -> str | None:
    """The run on Drive that was copied last, where none is named: a first copy was cut."""
    folders = [path for path in markers.list_folder(there) if path.is_dir()]
    whole = list(filter(upload.open_there, folders))
    if not whole:
        return None
    times = {path: markers.read_object(path / SENDER).get("time", 0) for path in whole}
    newest = max(sorted(whole), key=times.get)
    warn(f"Drive does not say which run was in use; {newest.name} was copied last and is taken.")
    return newest.name


def _like(wanted: Settings, there: Path) -> Path | None:
    """The folder on Drive of the run with the same start; of several the one copied last."""
    folders = [path for path in markers.list_folder(there) if path.is_dir()]
    found = [run for run in map(upload.open_there, folders) if run]
    same = [run.folder for run in found if is_same_start(run.settings, wanted)]
    times = {path: markers.read_object(path / SENDER).get("time", 0) for path in same}
    return max(sorted(same), key=times.get, default=None)


def _open_here(folder: Path) -> Run | None:
    """The run in a folder here; None where its settings are damaged or of another version."""
    try:
        return Run(folder, settings_io.from_json(storage.read_json(folder / "settings.json")))
    except KsddError:
        return None


class _Copy:
    """A run's folder on Drive, read through its markers.

    Attributes:
        records: file name relative to the folder -> what its markers say.
        lost: names of the files read that were not what their markers vouch for.
        brought: how many files were written here.
    """

    def __init__(self, source: Path, given_up: threading.Event) -> None:
        self.source, self.given_up = source, given_up
        self.files = markers.walk(source)
        found = markers.read_markers(self.files)
        self.records = {path.relative_to(source).as_posix(): found[path] for path in found}
        self.lost: set[str] = set()
        self.brought = 0

    def read(self, name: str) -> bytes | None:
        """The vouched content of a file, or None."""
        data = markers.read(self.source / name, self.records.get(name, []))
        self.require_wanted()
        if data is None and name in self.records:
            self.lost.add(name)
        return data

    def require_wanted(self) -> None:
        """End this thread where nobody waits for it any more; called after each wait for Drive."""
        if self.given_up.is_set():
            raise SystemExit

    def bring(self, names: Iterable[str], folder: Path) -> None:
        """Write those files that are whole to `folder`, in this order."""
        for name in names:
            data = self.read(name)
            if data is not None:
                storage.write_bytes(folder / name, data)
                self.brought += 1

    def settings(self) -> Settings | None:
        """The run's settings; None where they are not whole or of another version."""
        data = self.read("settings.json")
        try:
            return None if data is None else settings_io.from_json(json.loads(data))
        except KsddError:
            return None

    def hashes(self, name: str) -> set[str]:
        """The SHA-256 of each content that is vouched for as `name`."""
        return {record.sha256 for record in self.records.get(name, [])}

    def unvouched(self) -> set[str]:
        """Names of files that were on their way to Drive when the machine was lost."""
        shown = [path for path in self.files if path.suffix != ".ok" and path.name[0] != "."]
        names = {markers.plain(path).relative_to(self.source).as_posix() for path in shown}
        return names - self.records.keys() - {SENDER}

    def steps(self, stage: str) -> list[int]:
        """The steps of the checkpoints of "fold0/segmentation", newest first."""
        found = re.compile(re.escape(stage) + r"-(\d{6})\.json")
        return sorted(int(m[1]) for name in self.records if (m := found.fullmatch(name)))[::-1]


def _adopt(source: Path, runs: Path, given_up: threading.Event) -> Path | None:
    """Bring the run in `source`, a folder on Drive, and make it the run in use here."""
    copy = _Copy(source, given_up)
    settings = copy.settings()
    if settings is None:
        _warn_of_lost(copy, runs / source.name)
        warn(f"Without its settings, {source.name} cannot be continued; begin a new run.")
        return None
    there = Run(source, settings)

    def is_free(folder: Path) -> bool:
        if not (folder / "settings.json").exists():
            return True
        here = _open_here(folder)
        return here is not None and not any(
            here.has_begun(group) or upload.has_begun_there(there, group)
            for group in upload.unlike(here, there)
        )

    name = PurePath(markers.read_object(source / SENDER).get("run", source.name)).name
    folder = upload.first_free(runs, name, is_free)
    _require_free(copy, folder)
    _bring(copy, there, folder)
    copy.require_wanted()
    storage.write_text(runs / LATEST, f"{folder.name}\n")
    return folder


def _catch_up(
    folder: Path, there: Path, seen: dict[str, str], given_up: threading.Event
) -> Path | None:
    """Bring to the run in use what is further on Drive; None where Drive does not have the run."""
    here = _open_here(folder)
    if here is None:
        return None
    if seen.get("here") == folder.name:
        source = there / seen["drive"]
    else:
        source = upload.find_there(here, there)
    if not markers.is_there(source / "settings.json"):
        return None
    copy = _Copy(source, given_up)
    settings = copy.settings()
    if settings is None:
        _warn_of_lost(copy, folder)
        return None
    other = Run(source, settings)
    used = [
        g
        for g in upload.unlike(here, other)
        if here.has_begun(g) and upload.has_begun_there(other, g)
    ]
    if used:
        warn(
            f"{folder.name} was continued on Drive with other settings ({', '.join(used)}), which "
            "are not brought here."
        )
        return None
    _require_free(copy, folder)
    _bring(copy, other, folder)
    return folder


def _require_free(copy: _Copy, folder: Path) -> None:
    """Refuse a run that another machine is at work on, unless `$KSDD_TAKE_OVER` is set.

    A machine that was lost at its work looks just like one that is busy, until it is silent.
    """
    sender = markers.read_object(copy.source / SENDER)
    age, machine = max(0.0, time.time() - sender.get("time", 0)), sender.get("machine")
    is_ours = machine == upload.machine_name()
    if is_ours or not sender.get("at_work") or age >= OWNER_SILENT:
        return
    told = f"Another machine ({machine}) works on {folder.name} and last wrote {age:.0f} s ago"
    if os.environ.get("KSDD_TAKE_OVER"):
        warn(f"{told}: if it still runs, stop it before you go on here.")
        return
    minutes = math.ceil((OWNER_SILENT - age) / 60)
    raise RunError(
        f"{told}: stop it first (in Colab: Runtime, Manage sessions). If it is gone, as after a "
        f"lost connection or once stopped, the run is free in {minutes} min. To go on here at "
        "once, put %env KSDD_TAKE_OVER=1 into a new cell above this one, run all, and delete it "
        "later."
    )


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
    stages = {(m["fold"], m["stage"]) for m in map(STAGE_FILE.fullmatch, copy.records) if m}
    order = sorted(stages, key=lambda pair: (pair[0], pair[1] != "segmentation"))
    if all([_bring_stage(copy, folder, fold, stage) for fold, stage in order]):
        _bring_results(copy, folder, {fold for fold, _ in stages})
    _bring_timing(copy, folder)
    _warn_of_lost(copy, folder)
    if copy.brought:
        print(f"{folder.name} is back from Drive: {copy.brought} files.")


def _bring_settings(copy: _Copy, there: Run, folder: Path) -> None:
    here = _open_here(folder)
    if here is None:
        copy.bring(["settings.json"], folder)
        return
    changed = settings_io.differences(here.settings, settings_io.to_json(there.settings))
    groups = {name: RULES[name].group for name in changed}
    taken = {
        name: theirs
        for name, (_, theirs) in changed.items()
        if upload.has_begun_there(there, groups[name]) and not here.has_begun(groups[name])
    }
    if taken:
        here.write("settings.json", settings_io.to_json(replace(here.settings, **taken)))
        copy.brought += 1


def _bring_unit(copy: _Copy, folder: Path, names: Iterable[str], key: str) -> None:
    """All of `names` where `key` is on Drive and not here, else those that are missing here."""
    is_further = key in copy.records and not (folder / key).exists()
    wanted = [n for n in names if n in copy.records and (is_further or not (folder / n).exists())]
    copy.bring(sorted(wanted, key=lambda name: (name == key, name.endswith(".json"), name)), folder)


def _bring_stage(copy: _Copy, folder: Path, fold: str, stage: str) -> bool:
    """The newest whole checkpoint on Drive with what belongs to it, if it is further.

    Returns:
        False where it goes on from other weights than are here, and stays on Drive.
    """
    prefix = f"{fold}/{stage}"
    done, history = f"{prefix}.done.json", f"{prefix}.jsonl"
    ours, _ = checkpoint.newest_whole(folder / fold, stage)
    for step in copy.steps(prefix):
        is_only_done_there = done in copy.records and not (folder / done).exists()
        if step < ours or (step == ours and not is_only_done_there):
            return True
        weights, marker = (f"{prefix}-{step:06d}.{ending}" for ending in ("pt", "json"))
        record, data = copy.read(marker), copy.read(weights)
        if record is None or data is None:
            continue
        if json.loads(record)["sha256"] != storage.sha256(data):  # of two trainings
            continue
        predecessor = json.loads(record)["identity"].get("predecessor")
        if predecessor not in (None, checkpoint.newest_whole(folder / fold, "segmentation")[1]):
            warn(f"{prefix} on Drive goes on from other weights than are here: passed over.")
            return False
        storage.write_bytes(folder / weights, data)
        copy.bring([history] if history in copy.records else [], folder)
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
        if checkpoint.newest_whole(folder / fold, "decision")[1] not in (None, theirs):
            return
    metrics = folder / "metrics.json"
    if metrics.exists() and storage.sha256(metrics) not in copy.hashes("metrics.json"):
        return
    others = {"settings.json", "timing.json", "folds.json", "data.json", SENDER}
    names = [n for n in copy.records if n not in others and not STAGE_FILE.fullmatch(n)]
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


def _warn_of_lost(copy: _Copy, folder: Path) -> None:
    missing = {name for name in copy.unvouched() if not (folder / name).exists()}
    lost = sorted(copy.lost | missing)
    if lost:
        names = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        warn(
            f"Not whole on Drive and passed over: {names} of {copy.source.name}, as where a "
            "machine is lost at a copy; a training goes on at the checkpoint before."
        )


def _unpack_archive(folder: Path, home: Path, drive: Path) -> None:
    """Unpack the run's data to the place that data.json remembers, where Drive has its archive."""
    record = markers.read_object(folder / "data.json")
    if (folder / record.get("place", "nowhere")).is_dir():
        return
    wanted = record.get("archive_sha256")
    listed = markers.list_folder(drive / FOLDER) if wanted else []
    zips = markers.read_markers(path for path in listed if path.name.endswith(".zip.ok"))
    for path, records in sorted(zips.items()):
        for record in records:
            if record.sha256 != wanted:
                continue
            try:
                sources.unpack(path.with_name(record.file), home)
            except KsddError as error:
                warn(f"The data archive on Drive is passed over: {error}")
