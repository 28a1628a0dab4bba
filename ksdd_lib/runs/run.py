"""The run folder: one experiment's settings, checkpoints and results, and what comes next."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ksdd_lib import settings_io, storage
from ksdd_lib.errors import RunError
from ksdd_lib.runs import lock
from ksdd_lib.settings import RULES, Settings

NOTEBOOKS = {
    "data": "01_download_data",
    "segmentation": "02_train_segmentation",
    "decision": "03_train_decision",
    "evaluation": "04_evaluate",
    "report": "05_visualize",
}
"""What a run holds, in order -> the notebook that makes it."""


@dataclass(frozen=True)
class Run:
    """An open run folder and its settings."""

    folder: Path
    settings: Settings

    def fold_folder(self, fold: int) -> Path:
        """Where the histories, checkpoints and scores of a fold are."""
        return self.folder / f"fold{fold}"

    def read(self, name: str) -> Any:
        """The JSON file `name` of the run folder."""
        return storage.read_json(self.folder / name)

    def write(self, name: str, value: Any) -> None:
        """Store `value` as the JSON file `name` of the run folder."""
        storage.write_json(self.folder / name, value)

    def has(self, part: str, fold: int | None = None) -> bool:
        """Whether a part of `NOTEBOOKS` is finished (for one fold, or for all that are trained)."""
        if part == "data":
            return (self.folder / "data.json").exists()
        if part == "evaluation":
            return (self.folder / "metrics.json").exists()
        if part == "report":
            return (self.folder / "report.html").exists()
        folds = self.settings.fold_numbers if fold is None else (fold,)
        return all((self.fold_folder(k) / f"{part}.done.json").exists() for k in folds)

    def is_ready_for(self, notebook: str) -> bool:
        """Whether all is finished that comes before the notebook of this file name."""
        files = [f"{stem}.ipynb" for stem in NOTEBOOKS.values()]
        return all(self.has(part) for part in list(NOTEBOOKS)[: files.index(notebook)])

    def require(self, part: str) -> None:
        """Raise RunError, naming the notebook to run first, unless `part` is finished.

        Of a stage that diverged the text says where.
        """
        if self.has(part):
            return
        for fold in self.settings.fold_numbers:
            mark = self.fold_folder(fold) / f"{part}.diverged.json"
            if mark.exists() and not self.has(part, fold):
                found = storage.read_json(mark)
                raise RunError(
                    f"The run {self.folder.name} has no finished {part}: fold {fold} "
                    f"diverged at step {found['step']} ({', '.join(found['images'])}). "
                    f"Take a smaller {part}_learning_rate in a new run."
                )
        raise RunError(
            f"The run {self.folder.name} has no finished {part} yet: "
            f"run {NOTEBOOKS[part]}.ipynb first."
        )

    def has_begun(self, group: str) -> bool:
        """Whether a stage has begun with the settings of this group, which are then fixed."""
        if group == "data":
            return self.has("data")
        stage = "decision" if group == "decision" else "segmentation"
        return any(self.folder.glob(f"fold*/{stage}*"))

    def amend(self, touched: Mapping[str, Any]) -> "Run":
        """The run with settings changed that no stage has used yet.

        Raises:
            RunError: a stage has already used one of them; the text lists the differences.
        """
        changed = settings_io.differences(self.settings, touched)
        fixed = {k: v for k, v in changed.items() if self.has_begun(RULES[k].group)}
        if fixed:
            raise RunError(refusal(self.folder, fixed))
        amended = Run(self.folder, replace(self.settings, **touched))
        self.write("settings.json", settings_io.to_json(amended.settings))
        return amended

    def note_time(self, what: str, seconds: float) -> None:
        """Add or replace one line of timing.json."""
        path = self.folder / "timing.json"
        rows = storage.read_json(path) if path.exists() else []
        rows = [row for row in rows if row["what"] != what]
        storage.write_json(path, [*rows, {"what": what, "seconds": round(seconds, 1)}])

    def claim(self) -> None:
        """Say that this process works in the folder; again and again, where that takes long.

        Raises:
            RunError: another living one does; the text names it and when it last wrote.
        """
        lock.claim(self.folder)

    def release(self) -> None:
        """Give the folder up again, unless another process has taken it over."""
        lock.release(self.folder)


def refusal(folder: Path, different: Mapping[str, tuple[Any, Any]]) -> str:
    listed = "; ".join(f"{name} is {a!r} there, {b!r} here" for name, (a, b) in different.items())
    return f"The run {folder.name} was begun with other settings: {listed}. Use another run folder."
