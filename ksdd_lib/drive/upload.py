"""Finished files of a run go to Google Drive, from where `recovery` brings them back.

No run is worked on there. What is on Drive is whole by its marker, see `markers`, or not used. A
failure of Drive stops no training: it is one warning, and the next copy catches up.
"""

import contextlib
import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.drive import compare, layout, markers
from ksdd_lib.drive.compare import DataFacts
from ksdd_lib.runs.lock import FILE
from ksdd_lib.runs.run import FINAL, Run, fold_name

CHECKPOINT = re.compile(r"(?P<stage>\w+)-(?P<step>\d{6})\.(pt|json)")

FIRST = ("settings.json", "folds.json", "data.json")
"""What is copied before all else: a checkpoint of settings that are not there could not be used."""

FAILURES = 3
"""Failures after which a copy gives up until the next one."""


@dataclass(frozen=True)
class Copied:
    """What a copy to Drive came to."""

    newest: str = ""
    """The checkpoint saved last that is whole on Drive, as "step 150 of segmentation, fold 0"."""
    failure: str = ""
    """Why not all of the run is there; "" where it is."""

    def explain(self, run: Run) -> str:
        """One sentence on a failure."""
        return (
            f"Not all of {run.folder.name} could be copied to Drive ({self.failure}); it is safe "
            f"in {run.folder}, and the next copy tries again."
        )


def copy(run: Run, drive: Path, at_work: bool = False) -> Copied:
    """Copy what is new in a run folder to `<drive>/ksdd/runs/<its name>`; never raises.

    Of each stage's checkpoints only the newest is copied. The one before leaves Drive one copy
    later, when the newer one has had time to arrive. A run of other settings that has the name on
    Drive is left alone, and ours gets a number after its name. Remains of interrupted copies are
    removed. The report also goes to `layout.REPORTS`. A run folder on Drive is not copied. While
    this machine is `at_work`, no other one should go on with the run. Nothing is written or removed
    where another machine is at work on it, or has gone on with it since.
    """
    if layout.is_on(drive, run.folder):
        return Copied()
    try:
        markers.require_mounted(drive)
        target = compare.folder_on_drive(run, drive / layout.RUNS)
        layout.require_free(target)
        storage.guard(target, lambda: layout.require_free(target))
        try:
            return _copy(run, target, drive, at_work)
        finally:
            storage.guard(target, None)
    except Exception as error:  # in a thread, an error would end it without a word
        return Copied(failure=layout.reason(error))


def _copy(run: Run, target: Path, drive: Path, at_work: bool) -> Copied:
    """`copy` to the folder on Drive."""
    reports, files = drive / layout.REPORTS, _worth_copying(run.folder)
    report = reports / f"{target.name}.html"
    ours = {report, target.parent / layout.LATEST, target / layout.LAST_COPY}
    ours |= {target / path.relative_to(run.folder) for path in files}

    def is_ours(path: Path) -> bool:
        name = path.as_posix().removeprefix(f"{target.as_posix()}/")
        return path in ours or FILE.fullmatch(name) is not None

    listed = [*markers.list_folder(target.parent), *markers.list_folder(reports)]
    markers.sweep([*listed, *markers.walk(target)], is_ours)
    if layout.read_last_copy(target).machine and not layout.read_last_copy(target).is_ours():
        layout.write_last_copy(run, target, at_work)
    copied = _send(files, run.folder, target, drive)
    layout.write_last_copy(run, target, at_work)
    layout.name_latest(run, target, drive)
    if run.has("report"):
        markers.write_unmarked((run.folder / "report.html").read_bytes(), report, drive)
    return copied


def renew_last_copy(run: Run, drive: Path) -> None:
    """Say on Drive that this machine is still at work on a run that has been copied; never raises.

    Where checkpoints are far apart, other machines would else take this one for lost.
    """
    with contextlib.suppress(Exception):  # the next copy tells of a Drive that fails
        markers.require_mounted(drive)
        target = compare.folder_on_drive(run, drive / layout.RUNS)
        if layout.read_last_copy(target).is_ours() and not layout.is_on(drive, run.folder):
            layout.write_last_copy(run, target, at_work=True)


def copy_archive(run: Run, downloads: Path, drive: Path) -> str:
    """Copy the run's data archive to Drive where it was downloaded, for the next machine -> one
    sentence on a failure, or ""; never raises."""
    try:
        wanted = storage.read_record(run.folder / "data.json", DataFacts).archive_sha256
        for path in sorted(downloads.glob("*.zip")) if wanted else ():
            if storage.sha256(path) == wanted:
                target = drive / layout.FOLDER / path.name
                markers.write(path.read_bytes(), target, drive)
                markers.sweep(markers.list_folder(target.parent), target.__eq__)
    except Exception as error:
        return (
            f"The data archive could not be copied to Drive ({layout.reason(error)}); "
            "a new machine will download it again."
        )
    return ""


def _worth_copying(folder: Path) -> list[Path]:
    """The files of a run folder without older checkpoints, in the order of copying.

    Each comes after what it needs: checkpoints after the settings, markers after the weights.
    """
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    found = {path: CHECKPOINT.fullmatch(path.name) for path in files if path.name != "owner.json"}
    newest = {
        (path.parent, match["stage"]): match["step"]
        for path, match in found.items()
        if match and path.suffix == ".json"
    }
    wanted = [
        path
        for path, match in found.items()
        if match is None or newest.get((path.parent, match["stage"])) == match["step"]
    ]

    def place(path: Path) -> tuple[int, bool, Path]:
        name = path.relative_to(folder).as_posix()
        return FIRST.index(name) if name in FIRST else len(FIRST), path.suffix == ".json", path

    return sorted(wanted, key=place)


def _send(files: Iterable[Path], folder: Path, target: Path, drive: Path) -> Copied:
    """Copy what is new of `files` in `folder`; after `FAILURES` failures give up."""
    newest, failures = (0.0, ""), []
    for path in files:
        try:
            data, written = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:  # training has gone on, and removed an older checkpoint
            continue
        there, match = target / path.relative_to(folder), CHECKPOINT.fullmatch(path.name)
        try:
            if there.parent.is_symlink():
                raise OSError(errno.ELOOP, f"{there.parent.name} there is a link to elsewhere")
            is_new = markers.write(data, there, drive)
            if match:
                _remove_superseded(there, match, kept=1 if is_new else 0)
        except OSError as error:
            failures.append(layout.reason(error))
            if len(failures) == FAILURES:
                break
        else:
            if match and path.suffix == ".json":
                told = f"step {int(match['step'])} of {match['stage']}, {_part(path.parent.name)}"
                newest = max(newest, (written, told))
    return Copied(failure=failures[0]) if failures else Copied(newest[1])


def _part(folder: str) -> str:
    """What the folder of a training is called: "fold 0" of "fold0"."""
    return fold_name(FINAL) if folder == "final" else folder.replace("fold", "fold ")


def _remove_superseded(there: Path, match: re.Match[str], kept: int) -> None:
    """Where a checkpoint is whole on Drive, remove all older ones of its stage but `kept`."""
    both = [there.with_suffix(ending) for ending in (".pt", ".json")]
    if not all(markers.marker_of(path).exists() for path in both):
        return
    older: dict[str, list[Path]] = {}
    for path in markers.list_folder(there.parent):
        found = CHECKPOINT.fullmatch(markers.plain(path).name)
        if found and found["stage"] == match["stage"] and found["step"] < match["step"]:
            older.setdefault(found["step"], []).append(path)
    for step in sorted(older, reverse=True)[kept:]:
        for path in older[step]:
            storage.remove(path)
