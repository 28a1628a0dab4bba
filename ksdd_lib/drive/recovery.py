"""A run comes back from Google Drive: to a new machine, or to one that another has overtaken.

In Colab each notebook has a machine of its own. So every notebook begins by looking whether another
machine has gone further.
"""

import json
import math
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.data import sources
from ksdd_lib.drive import compare, layout, markers
from ksdd_lib.drive.compare import DataFacts, DriveCopy
from ksdd_lib.drive.layout import Agreement
from ksdd_lib.errors import DiskFullError, KsddError, RunError, with_link
from ksdd_lib.formatting import listed
from ksdd_lib.presets import run_name
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.open import home, is_same_start, last_name
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings

PATIENCE = 300.0
"""Seconds that a start waits for Drive. What came until then is whole."""


def bring_from(drive: Path | None) -> Callable[[Settings], Path | None]:
    """What brings to `runs.open.create` a run of its settings that only Drive has."""
    return lambda settings: restore(home(), drive, like=settings)


def restore(
    home: Path, drive: Path | None, named: Path | None = None, like: Settings | None = None
) -> Path | None:
    """Bring here what is further on Drive; called at every start of a notebook.

    The run that another machine has named as the last one on Drive becomes the run in use here,
    unless this machine has opened another one itself since it last looked. Else the run in use
    stays. A machine without one takes the run that was copied last, with a warning. Files here are
    replaced only where Drive is further, see `compare.further_files`. The data archive of the run
    is unpacked too, where Drive has it and the data is missing.

    Args:
        named: the folder on Drive of the run to bring and use, whichever was the last one.
        like: bring and use the run with the same start as these settings, if Drive has one.

    Returns the folder of the run in use. None, where Drive has nothing usable of it, or does not
    answer for `PATIENCE` seconds, which is a warning. Raises RunError where another machine is at
    work on the run, and `$KSDD_TAKE_OVER` is not set.
    """
    if drive is None:
        return None
    attempt, outcome = _Attempt(home, drive), Future[Path | None]()

    def look() -> None:
        try:
            outcome.set_result(attempt.restore(named, like))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        return outcome.result(PATIENCE)
    except TimeoutError:
        warnings.warn(
            f"Drive has not answered for {PATIENCE / 60:.0f} minutes, and what is further there is "
            "not here: run this cell again, or go on with what this machine has.",
            stacklevel=2,
        )
        return None
    finally:
        attempt.given_up.set()


class _Attempt:
    """One attempt to bring a run here. Once it is given up, it says and writes nothing more."""

    def __init__(self, home: Path, drive: Path) -> None:
        self.home, self.drive = home, drive
        self.runs, self.there = (home / "runs").resolve(), drive / layout.RUNS
        self.given_up = threading.Event()

    def restore(self, named: Path | None, like: Settings | None) -> Path | None:
        """`restore`, however long Drive takes."""
        try:
            source = _copied_last(self.there, like) if like else named
            if source is not None:
                folder = self._adopt(source)
            else:
                folder = None if like else self._follow()
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
        warnings.warn(with_link(text, "runs#drive"), stacklevel=3)

    def _write(self, path: Path, data: bytes) -> None:
        self._require_wanted()
        storage.write_bytes(path, data)

    def _follow(self) -> Path | None:
        """Go to the last run on Drive, or stay with the run in use here."""
        latest = last_name(self.runs)
        here = latest if latest and (self.runs / latest / "settings.json").exists() else None
        agreed, last = layout.read_agreement(self.runs), layout.read_latest(self.there)
        if last is None and here is None and (newest := _copied_last(self.there)):
            last = newest.name
            self._warn(
                f"Drive does not say which run was in use; {last} was copied last and is taken."
            )
        is_new = here == (agreed and agreed.here) and last != (agreed and agreed.drive)
        if last is not None and (here is None or is_new):
            folder = self._adopt(self.there / last)
            if folder is not None:
                self._require_wanted()
                agreed = Agreement(here=folder.name, drive=last)
                storage.write_record(self.runs / layout.AGREEMENT, agreed)
            return folder
        run = compare.opened(self.runs / here) if here else None
        if run is None:
            return None
        known = agreed and agreed.here == here and layout.folder_of(self.there, agreed.drive)
        source = known or compare.folder_on_drive(run, self.there)
        is_there = markers.marker_of(source / "settings.json").exists()
        return self._bring(source, run.folder) if is_there else None

    def _adopt(self, source: Path) -> Path | None:
        """Bring the run in `source`, a folder on Drive, and make it the run in use here."""
        folder = self._bring(source)
        if folder is None:
            self._warn(f"Without its settings, {source.name} cannot be continued; begin a new run.")
        else:
            self._write(self.runs / layout.LATEST, f"{folder.name}\n".encode())
        return folder

    def _bring(self, source: Path, folder: Path | None = None) -> Path | None:
        """Bring what the run in `source`, a folder on Drive, has further there -> its folder here.

        That is `folder`, or else the first that is free or has this run. None, with a warning,
        where its settings are damaged or conflict.
        """
        copy = DriveCopy(source)
        there = compare.opened(source, lambda path: copy.read(path.name))
        if there is None:
            self._warn_of_damage(copy, folder or self.runs / source.name)
            return None
        folder = folder or self._free_folder(there)
        if here := compare.opened(folder):
            used_here, used_there = compare.fixed_differences(here, there)
            if both := used_here & used_there:
                self._warn(
                    f"{folder.name} was continued on Drive with other settings "
                    f"({', '.join(sorted(both))}), which are not brought here."
                )
                return None
        self._refuse_if_at_work(source, folder.name)
        brought = 0
        for name, data in compare.further_files(copy, there, folder):
            self._write(folder / name, self._without_place(folder, data, name))
            brought += 1
        self._warn_of_damage(copy, folder)
        layout.give_up(source)
        if brought:
            left = f" Left there, as no run has such: {listed(copy.others, 5)}."
            print(f"{folder.name} is back from Drive: {brought} files." + left * bool(copy.others))
        return folder

    def _without_place(self, folder: Path, data: bytes, name: str) -> bytes:
        """A file's content; of data.json without a place outside our home and Drive."""
        facts = markers.parsed(data, DataFacts) if name == "data.json" else None
        if facts is None:
            return data
        place = Path(os.path.normpath(folder / facts.place))
        roots = (self.home, self.home.resolve(), self.drive)
        if "\0" not in facts.place and any(place.is_relative_to(root) for root in roots):
            return data
        return storage.json_text(json.loads(data) | {"place": DataFacts().place}).encode()

    def _free_folder(self, there: Run) -> Path:
        """The first of the folders <name>, <name>-2 ... here that is free, or has this run."""

        def is_free(folder: Path) -> bool:
            if layout.folder_of(self.runs, folder.name) is None:  # a link of ours to elsewhere
                return False
            if not (folder / "settings.json").exists():
                return True
            here = compare.opened(folder)
            return here is not None and not any(compare.fixed_differences(here, there))

        names = layout.read_last_copy(there.folder).run, there.folder.name
        fit = [name for name in names if layout.folder_of(self.runs, name)]
        return storage.first_free(self.runs, (fit or [run_name(there.settings)])[0], is_free)

    def _refuse_if_at_work(self, source: Path, name: str) -> None:
        """Refuse a run that another machine is at work on, unless `$KSDD_TAKE_OVER` is set.

        A machine that was lost at its work looks just like one that is busy, until it is silent.
        """
        last = layout.read_last_copy(source)
        age = last.busy_for(source)
        if age is None:
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
            "delete it later.",
            see="runs#one-worker",
        )

    def _warn_of_damage(self, copy: DriveCopy, folder: Path) -> None:
        if names := copy.not_whole(folder):
            self._warn(
                f"Not whole on Drive and passed over: {listed(names, 5)} of {copy.folder.name}, as "
                "where a machine is lost at a copy; a training goes on at the checkpoint before."
            )

    def _unpack_archive(self, folder: Path) -> None:
        """Unpack the run's data to the place in data.json, where Drive has its archive."""
        data = markers.parsed(markers.content(folder / "data.json"), DataFacts) or DataFacts()
        if (folder / data.place).is_dir() or not data.archive_sha256:
            return
        there = markers.list_folder(self.drive / layout.FOLDER)
        zips = markers.read_markers(path for path in there if path.name.endswith(".zip.ok"))
        wanted = [(path, m) for path in sorted(zips) for m in zips[path]]
        for path in [p.with_name(m.file) for p, m in wanted if m.sha256 == data.archive_sha256]:
            self._require_wanted()
            try:
                sources.unpack(path, self.home)
            except KsddError as error:
                self._warn(f"The data archive on Drive is passed over: {error}")


def _copied_last(runs: Path, like: Settings | None = None) -> Path | None:
    """Of the runs on Drive, or of those with the same start, the folder that was copied last."""
    listed = [layout.folder_of(runs, path.name) for path in markers.list_folder(runs)]
    folders = [path for path in listed if path and path.is_dir()]
    found = [run for folder in folders if (run := compare.opened(folder, markers.read))]
    same = [run.folder for run in found if like is None or is_same_start(run.settings, like)]
    return min(sorted(same), key=layout.age_of_copy, default=None)
