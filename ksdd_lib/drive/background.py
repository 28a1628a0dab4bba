"""A run goes to Drive behind its training's back: copies in a thread, which nothing waits for long.

Drive may hang for minutes, or for good. A training that waited for it would hang too.
"""

import threading
import time
import warnings
from pathlib import Path

from ksdd_lib.drive.upload import Copied, copy, copy_archive, renew_last_copy
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.run import Run

EVERY = 600.0
"""Seconds between the beginnings of two copies while a stage trains."""

RENEWAL = OWNER_SILENT / 3
"""Seconds between two signs that this machine is at work, whether or not there is what to copy."""

PATIENCE = 120.0
"""Seconds that the end of a cell waits for its copy; it then goes on in the background."""

_at_work = threading.Lock()
"""One copy at a time, also where two cells have sent one."""


class BackgroundCopy:
    """Copies one run to Drive; without a Drive it does nothing.

    with BackgroundCopy(run, drive) as copies:
        train_segmentation(run, data, 0, saved=copies.start_if_due)

    Until the end of the block Drive tells other machines that this one is at work on the run. There
    it copies what is new and says what is on Drive. A failure of Drive is one warning, and the next
    copy catches up.

    Args:
        downloads: where the run's data archive may be, which then goes to Drive after the run.
    """

    def __init__(
        self,
        run: Run,
        drive: Path | None,
        every: float | None = None,
        patience: float = PATIENCE,
        downloads: Path | None = None,
    ) -> None:
        self.run, self.drive, self.patience = run, drive, patience
        self.downloads = downloads
        self.every = EVERY if every is None else every
        self._copied: Copied | None = None
        self._thread: threading.Thread | None = None
        self._due = time.monotonic() + self.every
        self._goes_on = self._has_begun = False
        self._ended = threading.Event()
        self._without_archive = ""
        self._warned = ""

    def __enter__(self) -> "BackgroundCopy":
        self._goes_on = True
        self.start()
        if self.drive is not None:
            threading.Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def start_if_due(self) -> None:
        """For `saved` of the training stages: begin a copy at the first checkpoint, then at most
        one in `every` seconds."""
        self._warn()
        if not self._has_begun or time.monotonic() >= self._due:
            self._has_begun = True
            self.start()

    def start(self) -> None:
        """Begin a copy and return at once; where one is at work, leave it to the next."""
        if self.drive is None or self._is_at_work():
            return
        self._due = time.monotonic() + self.every
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Copy what is new, wait for it, but not for long, say what is on Drive, and return whether
        all is there: without a Drive nothing is."""
        if self.drive is None:
            return False
        self._goes_on = False
        self._ended.set()
        end = time.monotonic() + self.patience
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
        newest = self._copied.newest
        if self._copied.failure:
            before = f", before that {newest}" if newest else ""
            return f"not on Drive ({self._copied.failure}){before}"
        if self._goes_on and not newest:
            return "no step is on Drive yet"
        return f"safe on Drive: {newest}" if newest else "safe on Drive"

    def _copy(self) -> None:
        with _at_work:
            copied = copy(self.run, self.drive, self._goes_on)
            if copied.failure and self._copied is not None:
                copied = Copied(self._copied.newest, copied.failure)
            self._copied = copied
            if self.downloads and not copied.failure:
                self._without_archive = copy_archive(self.run, self.downloads, self.drive)

    def _live(self) -> None:
        while not self._ended.wait(RENEWAL):
            with _at_work:
                if self._goes_on:  # else the last copy has said that nothing more comes
                    renew_last_copy(self.run, self.drive)

    def _is_at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self, end: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, end - time.monotonic()))

    def _warn(self) -> None:
        """Warn of a failure, in the training's thread and once until it has passed."""
        failure = self._copied.failure if self._copied else ""
        if failure and failure != self._warned:
            warnings.warn(self._copied.explain(self.run), stacklevel=3)
        self._warned = failure
        if self._without_archive and not self._is_at_work():
            warnings.warn(self._without_archive, stacklevel=3)
            self._without_archive = ""
