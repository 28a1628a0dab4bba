"""The run folder: one experiment's settings, checkpoints and results, and what comes next."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ksdd_lib import settings_io, storage
from ksdd_lib.errors import KsddError, MissingError, RunError, with_link
from ksdd_lib.runs.lock import alone
from ksdd_lib.setting_rules import Value, Values
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.storage import Record

# Part of a run that belongs to no fold -> its file once it is finished, the notebook that makes it.
FILES = {"data": "data.json", "evaluation": "metrics.json", "report": "report.html"}
NOTEBOOKS = {"data": "01_download_data", "evaluation": "04_evaluate", "report": "05_visualize"}


FINAL = 3
"""In place of a fold's number: the model that is trained on all items. No fold has this number."""

HELD = -1
"""In place of a fold's number, of a row: its part was held out of the only fold's training."""


def fold_name(fold: int) -> str:
    """ "fold 0", or "the final model"."""
    return "the final model" if fold == FINAL else f"fold {fold}"


class Timing(Record):
    """A line of timing.json: how many seconds a piece of work took."""

    what: str
    seconds: float


class Divergence(Record):
    """`<stage>.diverged.json` of a fold: the step at which training diverged, and its images."""

    stage: str
    fold: int
    step: int
    images: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """An open run folder and its settings."""

    folder: Path
    settings: Settings

    def fold_folder(self, fold: int) -> Path:
        """Where the histories, checkpoints and scores of a fold are, or of the final model."""
        return self.folder / ("final" if fold == FINAL else f"fold{fold}")

    def has(self, part: str, fold: int | None = None) -> bool:
        """Whether a part of `FILES`, or else a stage, is finished: of a fold, or of all."""
        if part in FILES:
            return (self.folder / FILES[part]).exists()
        folds = self.settings.fold_numbers if fold is None else (fold,)
        return all((self.fold_folder(k) / f"{part}.done.json").exists() for k in folds)

    def require(self, part: str, notebook: str | None = None) -> None:
        """Raise MissingError unless a part of `FILES`, or a stage of this notebook, is finished."""
        if self.has(part):
            return
        missing = f"The run {self.folder.name} has no finished {part}"
        for fold in self.settings.fold_numbers:
            mark = self.fold_folder(fold) / f"{part}.diverged.json"
            if mark.exists() and not self.has(part, fold):
                found = storage.read_record(mark, Divergence)
                where = f"fold {fold} diverged at step {found.step} ({', '.join(found.images)})"
                advice = f"Take a smaller {part}_learning_rate in a new run."
                raise MissingError(f"{missing}: {where}. {advice}", see="training#diverged")
        notebook = notebook or NOTEBOOKS.get(part)
        first = f"run {notebook}.ipynb first, or the command run" if notebook else "train it first"
        raise MissingError(f"{missing} yet: {first}.", see="runs#run-folders")

    def has_begun(self, group: str) -> bool:
        """Whether settings of this group are fixed: those of "run" once any stage has begun."""
        if group == "data":
            return self.has("data")
        files = self.folder.glob("fold*/*" if group == "run" else f"fold*/{group}*")
        return any(not path.name.startswith(".") for path in files)

    def require_stored(self) -> None:
        """Raise RunError where settings.json has been changed since this run was opened."""
        if stored := stored_settings(self.folder):
            ours = settings_io.to_json(self.settings)
            if different := settings_io.differences(stored, ours):
                raise RunError(refusal(self.folder, different))

    @alone
    def amend(self, touched: Values) -> "Run":
        """The run with changed settings; RunError where a stage has already used one of them."""
        self.require_stored()
        changed = settings_io.differences(self.settings, touched)
        fixed = {k: v for k, v in changed.items() if self.has_begun(RULES[k].group)}
        if fixed:
            raise RunError(refusal(self.folder, fixed))
        amended = Run(self.folder, self.settings.with_values(touched))
        storage.write_json(self.folder / "settings.json", settings_io.to_json(amended.settings))
        return amended

    def timing(self) -> list[Timing]:
        """The lines of timing.json; none where there is no such file."""
        path = self.folder / "timing.json"
        return storage.read_record(path, list[Timing]) if path.exists() else []

    def note_time(self, what: str, seconds: float) -> None:
        """Add or replace one line of timing.json."""
        new = Timing(what=what, seconds=round(seconds, 1))
        lines = [*(line for line in self.timing() if line.what != what), new]
        storage.write_json(self.folder / "timing.json", [line.model_dump() for line in lines])


def stored_settings(folder: Path) -> Settings | None:
    """The settings in a run folder; None without any, RunError where they cannot be read."""
    path = folder / "settings.json"
    try:
        if not path.exists():
            return None
        return settings_io.from_json(storage.read_record(path, dict[str, Value]))
    except KsddError as error:
        what = f"The settings.json in {folder.name} is not that of a run"
        raise RunError(f"{what}: {error}") from None


def refusal(folder: Path, different: Mapping[str, tuple[Value, Value]]) -> str:
    """The sentence that refuses other settings than those of the run in `folder`."""
    listed = "; ".join(f"{name} is {a!r} there, {b!r} here" for name, (a, b) in different.items())
    told = f"The run {folder.name} was begun with other settings: {listed}. Use another run folder."
    return with_link(told, "runs#other-settings")
