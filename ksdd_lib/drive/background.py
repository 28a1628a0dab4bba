"""Copies to Drive in a thread, so that a training never waits for a Drive that hangs."""

import threading
import time
import warnings
from pathlib import Path

from ksdd_lib.drive.upload import Copied, copy, copy_archive, renew_last_copy
from ksdd_lib.errors import with_link
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.run import Run

EVERY = 600.0
"""Seconds from the start of one copy to the next while a stage trains."""

RENEWAL = OWNER_SILENT / 3
"""Seconds between two notes that this machine is at work, whether or not anything is new."""

PATIENCE = 120.0
"""Seconds that the end of a cell waits for its copy, which then goes on in the background."""

_at_work = threading.Lock()
"""One copy at a time, also where two cells have started one."""


class BackgroundCopy:
    """Copies one run to Drive; without a Drive it does nothing.

    with BackgroundCopy(run, drive) as copies:
        train_stage(run, data, 0, "segmentation", saved=copies.start_if_due)

    Inside the block other machines see on Drive that this one is at work on the run. At its end
    what is new is copied. A failure of Drive is one warning, and the next copy catches up.

    Args:
        downloads: where the run's data archive may be, which goes to Drive after the run.
    """

    def __init__(self, run: Run, drive: Path | None, downloads: Path | None = None) -> None:
        self.run, self.drive, self.downloads = run, drive, downloads
        self._copied: Copied | None = None
        self._thread: threading.Thread | None = None
        self._due = time.monotonic() + EVERY
        self._goes_on = self._has_begun = False
        self._ended = threading.Event()
        self._without_archive = self._warned = ""

    def __enter__(self) -> "BackgroundCopy":
        self._goes_on = True
        self.start()
        if self.drive is not None:
            threading.Thread(target=self._renew, args=(self.drive,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def start_if_due(self) -> None:
        """Start a copy at the first checkpoint, then at most one in `EVERY` seconds."""
        self._warn()
        if not self._has_begun or time.monotonic() >= self._due:
            self._has_begun = True
            self.start()

    def start(self) -> None:
        """Start a copy and return at once; where one is at work, leave it to the next."""
        if self.drive is None or self._is_at_work():
            return
        self._due = time.monotonic() + EVERY
        self._thread = threading.Thread(target=self._copy, args=(self.drive,), daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Copy what is new, wait `PATIENCE` seconds for it, and say what is on Drive -> whether
        all of it is; without a Drive nothing is."""
        if self.drive is None:
            return False
        self._goes_on = False
        self._ended.set()
        end = time.monotonic() + PATIENCE
        self._wait(end)  # it may have begun before the newest files were there
        self.start()
        self._wait(end)
        if self._is_at_work():
            print(
                f"Drive is slow: {self.run.folder.name} is still being copied, while the next "
                "cells run. Keep this runtime until this cell, run again, says that it is safe."
            )
        self._warn()
        if self._copied is None or self._copied.failure or self._is_at_work():
            return False
        print(f"{self.run.folder.name}: {self.state()}")
        return True

    def state(self) -> str:
        """What is on Drive, in a few words; "" without a Drive."""
        if self.drive is None:
            return ""
        if self._copied is None:
            return "not yet on Drive"
        newest, failure = self._copied.newest, self._copied.failure
        if failure:
            return f"not on Drive ({failure})" + (f", before that {newest}" if newest else "")
        if self._goes_on and not newest:
            return "no step is on Drive yet"
        return f"safe on Drive: {newest}" if newest else "safe on Drive"

    def _copy(self, drive: Path) -> None:
        with _at_work:
            copied = copy(self.run, drive, self._goes_on)
            if copied.failure and self._copied is not None:
                copied = Copied(self._copied.newest, copied.failure)
            self._copied = copied
            if self.downloads and not copied.failure:
                self._without_archive = copy_archive(self.run, self.downloads, drive)

    def _renew(self, drive: Path) -> None:
        while not self._ended.wait(RENEWAL):
            with _at_work:
                if self._goes_on:  # else the last copy has said that nothing more comes
                    renew_last_copy(self.run, drive)

    def _is_at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self, end: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, end - time.monotonic()))

    def _warn(self) -> None:
        """Warn of a failure once until it has passed, in the thread of the training."""
        failure = self._copied.failure if self._copied else ""
        if self._copied and failure and failure != self._warned:
            told = with_link(self._copied.explain(self.run), "runs#drive")
            warnings.warn(told, stacklevel=3)
        self._warned = failure
        if self._without_archive and not self._is_at_work():
            warnings.warn(self._without_archive, stacklevel=3)
            self._without_archive = ""
