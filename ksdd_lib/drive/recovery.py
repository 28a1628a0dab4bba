"""A run comes back from Google Drive: to a new machine, or to one that another has overtaken.

In Colab each notebook has a machine of its own. So every notebook begins by looking whether another
machine has gone further.
"""

import math
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePath

from ksdd_lib import storage
from ksdd_lib.data import sources
from ksdd_lib.drive import compare, layout, markers
from ksdd_lib.drive.compare import DataRecord, DriveCopy, folder_on_drive
from ksdd_lib.drive.layout import Agreement
from ksdd_lib.errors import DiskFullError, KsddError, RunError
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.open import home, is_same_start
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.text import listed

PATIENCE = 300.0
"""Seconds that a start waits for Drive. What came until then is whole."""


def bring_from(drive: Path | None) -> Callable[[Settings], Path | None]:
    """What `runs.open.create` asks for a run of these settings that only Drive has."""
    return lambda settings: restore(home(), drive, like=settings)


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
    stays. A machine without one takes the run that was copied last, with a warning. Nothing here is
    replaced that is as far as on Drive. The run's data archive is unpacked too, where Drive has it
    and the data is missing.

    Args:
        patience: seconds to wait for Drive; by default `PATIENCE`.
        named: the folder on Drive of the run to bring, whichever was the last one. It is then the
            run in use here, as if this machine had opened it.
        like: bring the run with the same start as these settings, as notebook 1 decides it, and
            nothing where Drive has none.

    Returns:
        The folder of the run in use. None, where Drive has nothing usable of it, or has not
        answered in time, which is a warning.

    Raises:
        RunError: another machine is at work on the run, and `$KSDD_TAKE_OVER` is not set.
    """
    if drive is None:
        return None
    patience = PATIENCE if patience is None else patience
    attempt = _Attempt(Path(home), Path(drive))
    outcome: Future[Path | None] = Future()

    def look() -> None:
        try:
            outcome.set_result(attempt.restore(named, like))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        return outcome.result(patience)
    except TimeoutError:
        warnings.warn(
            f"Drive has not answered for {patience / 60:.0f} minutes, and what is further there is "
            "not here: run this cell again, or go on with what this machine has.",
            stacklevel=2,
        )
        return None
    finally:
        attempt.given_up.set()


class _Attempt:
    """One attempt to bring a run here. Once it is given up, it ends without another word or write.

    Attributes:
        runs, there: the folders of runs here and on Drive.
    """

    def __init__(self, home: Path, drive: Path) -> None:
        self.home, self.drive = home, drive
        self.runs, self.there = home / "runs", layout.runs_on(drive)
        self.given_up = threading.Event()

    def restore(self, named: Path | None, like: Settings | None) -> Path | None:
        """`restore`, however long Drive takes."""
        try:
            source = named if like is None else _copied_last(self.there, like)
            if source is not None:
                folder = self._adopt(source)
            else:
                folder = self._follow() if like is None else None
            if folder is not None:
                self._unpack_archive(folder)
            return folder
        except DiskFullError:  # this machine's
            raise
        except OSError as error:
            self._warn(f"Drive could not be read ({layout.reason(error)}): run this cell again.")
            return None

    def _require_wanted(self) -> None:
        """End this thread where nobody waits for it any more."""
        if self.given_up.is_set():
            raise SystemExit

    def _warn(self, text: str) -> None:
        self._require_wanted()
        warnings.warn(text, stacklevel=3)

    def _write(self, path: Path, data: bytes) -> None:
        self._require_wanted()
        storage.write_bytes(path, data)

    def _follow(self) -> Path | None:
        """Go to the last run on Drive, or stay with the run in use here."""
        here, agreed = self._latest_here(), layout.read_agreement(self.runs)
        last = layout.read_latest(self.there)
        if last is None and here is None and (newest := _copied_last(self.there)):
            last = newest.name
            self._warn(
                f"Drive does not say which run was in use; {last} was copied last and is taken."
            )
        is_new = here == (agreed and agreed.here) and last != (agreed and agreed.drive)
        if last is None or (here is not None and not is_new):
            return self._catch_up(self.runs / here, agreed) if here else None
        folder = self._adopt(self.there / last)
        if folder is not None:
            self._require_wanted()
            agreed = Agreement(here=folder.name, drive=last)
            storage.write_record(self.runs / layout.AGREEMENT, agreed)
        return folder

    def _latest_here(self) -> str | None:
        name = (markers.content(self.runs / layout.LATEST) or b"").decode().strip()
        return name if name and (self.runs / name / "settings.json").exists() else None

    def _adopt(self, source: Path) -> Path | None:
        """Bring the run in `source`, a folder on Drive, and make it the run in use here."""
        copy = DriveCopy(source)
        there = compare.opened(source, copy.read("settings.json"))
        if there is None:
            self._warn_of_damage(copy, self.runs / source.name)
            self._warn(f"Without its settings, {source.name} cannot be continued; begin a new run.")
            return None

        def is_free(folder: Path) -> bool:
            if not (folder / "settings.json").exists():
                return True
            here = compare.open_here(folder)
            found = here and compare.difference(here, there)
            return found is not None and not (found.begun_here | found.begun_there)

        name = PurePath(layout.read_last_copy(source).run or source.name).name
        folder = storage.first_free(self.runs, name, is_free)
        self._bring(copy, there, folder)
        self._write(self.runs / layout.LATEST, f"{folder.name}\n".encode())
        return folder

    def _catch_up(self, folder: Path, agreed: Agreement | None) -> Path | None:
        """Bring to the run in use what is further on Drive; None where Drive does not have it."""
        here = compare.open_here(folder)
        if here is None:
            return None
        is_known = agreed is not None and agreed.here == folder.name
        source = self.there / agreed.drive if is_known else folder_on_drive(here, self.there)
        if not markers.has_marker(source / "settings.json"):
            return None
        copy = DriveCopy(source)
        there = compare.opened(source, copy.read("settings.json"))
        if there is None:
            self._warn_of_damage(copy, folder)
            return None
        found = compare.difference(here, there)
        if both := found.begun_here & found.begun_there:
            self._warn(
                f"{folder.name} was continued on Drive with other settings ({', '.join(both)}), "
                "which are not brought here."
            )
            return None
        self._bring(copy, there, folder)
        return folder

    def _bring(self, copy: DriveCopy, there: Run, folder: Path) -> None:
        """Write to `folder` what the same run has further on Drive.

        Raises:
            RunError: another machine is at work on the run.
        """
        self._refuse_if_at_work(copy.folder, folder.name)
        brought = 0
        for name, data in compare.further_files(copy, there, folder):
            self._write(folder / name, data)
            brought += 1
        self._warn_of_damage(copy, folder)
        if brought:
            print(f"{folder.name} is back from Drive: {brought} files.")

    def _refuse_if_at_work(self, source: Path, name: str) -> None:
        """Refuse a run that another machine is at work on, unless `$KSDD_TAKE_OVER` is set.

        A machine that was lost at its work looks just like one that is busy, until it is silent.
        """
        last = layout.read_last_copy(source)
        age = max(0.0, time.time() - last.time)
        is_ours = last.machine == layout.machine_name()
        if is_ours or not last.at_work or age >= OWNER_SILENT:
            return
        told = f"Another machine ({last.machine}) works on {name} and last wrote {age:.0f} s ago"
        if os.environ.get("KSDD_TAKE_OVER"):
            self._warn(f"{told}: if it still runs, stop it before you go on here.")
            return
        minutes = math.ceil((OWNER_SILENT - age) / 60)
        raise RunError(
            f"{told}: stop it first (in Colab: Runtime, Manage sessions). If it is gone, as after "
            f"a lost connection or once stopped, the run is free in {minutes} min. To go on here "
            "at once, put %env KSDD_TAKE_OVER=1 into a new cell above this one, run all, and "
            "delete it later."
        )

    def _warn_of_damage(self, copy: DriveCopy, folder: Path) -> None:
        if names := copy.not_whole(folder):
            self._warn(
                f"Not whole on Drive and passed over: {listed(names, 5)} of {copy.folder.name}, as "
                "where a machine is lost at a copy; a training goes on at the checkpoint before."
            )

    def _unpack_archive(self, folder: Path) -> None:
        """Unpack the run's data to the place in data.json, where Drive has its archive."""
        data = markers.parsed(markers.content(folder / "data.json"), DataRecord) or DataRecord()
        if (folder / data.place).is_dir() or not data.archive_sha256:
            return
        there = markers.list_folder(self.drive / layout.FOLDER)
        zips = markers.read_markers(path for path in there if path.name.endswith(".zip.ok"))
        for path, found in sorted(zips.items()):
            for marker in found:
                if marker.sha256 == data.archive_sha256:
                    self._require_wanted()
                    try:
                        sources.unpack(path.with_name(marker.file), self.home)
                    except KsddError as error:
                        self._warn(f"The data archive on Drive is passed over: {error}")


def _copied_last(runs: Path, like: Settings | None = None) -> Path | None:
    """Of the runs on Drive, or of those with the same start, the folder that was copied last."""
    folders = [path for path in markers.list_folder(runs) if path.is_dir()]
    found = [run for run in map(compare.open_there, folders) if run]
    same = [run.folder for run in found if like is None or is_same_start(run.settings, like)]
    times = {folder: layout.read_last_copy(folder).time for folder in sorted(same)}
    return max(times, key=lambda folder: times[folder], default=None)
