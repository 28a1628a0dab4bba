"""The run folder: one experiment's settings, checkpoints and results, and what comes next."""

import contextlib
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from ksdd_lib import machine, storage
from ksdd_lib import settings as schema
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the repository's files lie, if this is a checkout of it and not an installed package."""

NOTEBOOKS = {
    "data": "01_download_data",
    "segmentation": "02_train_segmentation",
    "decision": "03_train_decision",
    "evaluation": "04_evaluate",
    "report": "05_visualize",
}
"""What a run holds, in order -> the notebook that makes it."""

OWNER_SILENT = 15 * 60
"""Seconds without a sign of life after which another runtime may take over a run folder."""

Work = TypeVar("Work", bound=Callable[..., Any])


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
        changed = schema.differences(self.settings, touched)
        fixed = {k: v for k, v in changed.items() if self.has_begun(schema.RULES[k].group)}
        if fixed:
            raise RunError(_refusal(self.folder, fixed))
        amended = Run(self.folder, replace(self.settings, **touched))
        self.write("settings.json", schema.to_json(amended.settings))
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
        claim(self.folder)

    def release(self) -> None:
        """Give the folder up again, unless another process has taken it over."""
        release(self.folder)


def claim(folder: Path) -> bool:
    """`Run.claim` of the run in `folder`; False where this process had claimed it already.

    What a killed owner left half written goes.
    """
    with _locked(folder):
        owner = _owner(folder)
        if owner and owner["owner"] != _me() and not _is_dead(owner):
            silent = time.time() - owner["last_wrote"]
            raise RunError(
                f"{owner['owner']} works on {folder.name} and last wrote {silent:.0f} s ago. "
                "Stop it first, or delete owner.json if you know that it is gone."
            )
        is_new = not owner or owner["owner"] != _me()
        if is_new:
            storage.sweep(folder)
        mine = {"owner": _me(), "began": _began(os.getpid()), "last_wrote": time.time()}
        storage.write_json(folder / "owner.json", mine)
        return is_new


def release(folder: Path) -> None:
    """`Run.release` of the run in `folder`."""
    with _locked(folder):
        owner = _owner(folder)
        if owner and owner["owner"] == _me():
            (folder / "owner.json").unlink(missing_ok=True)


def alone(work: Work) -> Work:
    """Decorate a function whose first argument is a run, or its folder, and which writes there.

    It is refused, as `Run.claim`, where another living process works in the folder.
    """

    @wraps(work)
    def guarded(run: Run | Path, *others: Any, **named: Any) -> Any:
        folder = run.folder if isinstance(run, Run) else Path(run)
        is_new = folder.is_dir() and claim(folder)
        try:
            return work(run, *others, **named)
        finally:
            if is_new:
                release(folder)

    return guarded


def home() -> Path:
    """The folder of data and runs: `$KSDD_HOME`, /content/ksdd in Colab, else the checkout."""
    if os.environ.get("KSDD_HOME"):
        return Path(os.environ["KSDD_HOME"]).expanduser().resolve()
    if machine.in_colab():
        return Path("/content/ksdd")
    return CHECKOUT if (CHECKOUT / "notebooks").is_dir() else Path.cwd() / "ksdd"


def start(wanted: Settings) -> Run:
    """The run of these settings: `$KSDD_RUN` where that is set, else one under `home()/runs`.

    There it is found again by all that notebook 1 decides, whatever later notebooks have chosen
    since, or begun. It is called by its settings' name, with a number behind it where that name is
    taken by another run. One that only Drive has is not seen, see `recovery.start`.
    """
    if os.environ.get("KSDD_RUN"):
        return open_folder(Path(os.environ["KSDD_RUN"]).expanduser(), asdict(wanted))
    if begun := started(wanted):
        return open_folder(begun, {"data": wanted.data})
    folder, number = home() / "runs" / wanted.name, 1
    while (folder / "settings.json").exists():
        number += 1
        folder = folder.with_name(f"{wanted.name}-{number}")
    return open_folder(folder, asdict(wanted))


def started(wanted: Settings) -> Path | None:
    """The folder under `home()/runs` of the run that `start` would go on with, if any: the one
    opened last, whatever it is called, else one that is called by these settings."""
    last = _latest()
    if last and (stored := _settings_if_whole(last)) and is_same_start(stored, wanted):
        return last
    named = re.compile(re.escape(wanted.name) + r"(-\d+)?")
    folders = [path.parent for path in (home() / "runs").glob("*/settings.json")]
    found = [
        folder
        for folder in folders
        if named.fullmatch(folder.name)
        and (stored := _settings_if_whole(folder))
        and is_same_start(stored, wanted)
    ]
    return min(found, key=lambda folder: (len(folder.name), folder.name), default=None)


def last_settings() -> Settings | None:
    """The settings of `$KSDD_RUN`, where that is a run, else of the one opened last; or None."""
    folders = [folder for folder in (_last_folder(), _latest()) if folder]
    return next(filter(None, map(_settings_if_whole, folders)), None)


def is_same_start(stored: Settings, wanted: Settings) -> bool:
    """Whether two runs agree in all that notebook 1 decides."""
    ours, theirs = schema.to_json(stored), schema.to_json(wanted)
    decided = [n for n, rule in schema.RULES.items() if rule.group in ("data", "run")]
    return all(ours[name] == theirs[name] for name in decided)


def _last_folder() -> Path | None:
    if os.environ.get("KSDD_RUN"):
        return Path(os.environ["KSDD_RUN"]).expanduser()
    return _latest()


def _latest() -> Path | None:
    """The folder of the run opened last under `home()/runs`."""
    latest = home() / "runs" / "latest.txt"
    return latest.parent / latest.read_text("utf-8").strip() if latest.exists() else None


def find(explicit: Mapping[str, Any] | None = None) -> Run:
    """The run that this notebook continues: `$KSDD_RUN`, else the one opened last.

    Raises:
        RunError: there is none; the text says which notebook to run first.
    """
    explicit = schema.from_environment() if explicit is None else explicit
    folder = _last_folder()
    if folder is None or _stored_settings(folder) is None:
        if named := os.environ.get("KSDD_RUN"):
            raise RunError(
                f"KSDD_RUN is {named}, and no run is in {folder.resolve()}: a path counts from the "
                "folder of the notebooks."
            )
        raise RunError(f"There is no run yet: run {NOTEBOOKS['data']}.ipynb first.")
    return open_folder(folder, explicit)


def find_evaluated(explicit: Mapping[str, Any] | None = None) -> Run | None:
    """As `find`, if there is a run and it is evaluated; else None, and one line that says why.

    Raises:
        RunError: an explicit value differs from the run's.
    """
    folder = _last_folder()
    if folder is None or _stored_settings(folder) is None:
        print(f"There is no run here: {NOTEBOOKS['data']}.ipynb begins one.")
        return None
    run = find(explicit)
    if run.has("evaluation"):
        return run
    print(f"The run {run.folder.name} is not evaluated yet: {NOTEBOOKS['evaluation']}.ipynb does.")
    return None


def open_folder(folder: Path, explicit: Mapping[str, Any]) -> Run:
    """The run in `folder`, with its own settings, or a new one made from `explicit`.

    Until its data is prepared nothing has begun, and explicit values replace the stored ones.

    Raises:
        RunError: an explicit value differs from the run's; the text lists the differences. Or the
            settings would be written, and another living process works in the folder.
    """
    folder = Path(folder).resolve()
    stored, settings = _stored_settings(folder), None
    if stored is None or "preset" in schema.differences(stored, explicit):
        settings = schema.resolve(explicit)
    else:
        settings = replace(stored, **explicit)
    if stored is not None and (folder / "data.json").exists():
        different = schema.differences(stored, explicit)
        if different:
            raise RunError(_refusal(folder, different))
        settings = replace(stored, data=explicit.get("data", stored.data))
    elif stored is None or schema.to_json(stored) != schema.to_json(settings):
        _store_settings(folder, settings)
    if folder.parent == home() / "runs":
        storage.write_text(folder.parent / "latest.txt", folder.name + "\n")
    return Run(folder, settings)


@alone
def forget_settings(folder: Path) -> None:
    """Remove the settings of a run for which no data was found; a new attempt may choose others.

    Raises:
        RunError: the folder's settings.json is no run's, or another process works there.
    """
    try:
        if _stored_settings(folder) is not None:
            (folder / "settings.json").unlink()
    except KsddError as error:
        raise RunError(
            f"{folder.name} holds a settings.json that is no run's ({error}): name another folder."
        ) from None


def _stored_settings(folder: Path) -> Settings | None:
    path = folder / "settings.json"
    return schema.from_json(storage.read_json(path)) if path.exists() else None


def _settings_if_whole(folder: Path) -> Settings | None:
    """`_stored_settings`; None, with a warning, of a run that is damaged or of another version."""
    try:
        return _stored_settings(folder)
    except KsddError as error:
        warnings.warn(f"The run {folder.name} is passed over: {error}", stacklevel=3)
        return None


@alone
def _store_settings(folder: Path, settings: Settings) -> None:
    storage.write_json(folder / "settings.json", schema.to_json(settings))


def _refusal(folder: Path, different: Mapping[str, tuple[Any, Any]]) -> str:
    listed = "; ".join(f"{name} is {a!r} there, {b!r} here" for name, (a, b) in different.items())
    return f"The run {folder.name} was begun with other settings: {listed}. Use another run folder."


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time reads the owner of a folder and writes another.

    The system ends the lock with its process. Where it has none, two may begin at once.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner(folder: Path) -> dict[str, Any] | None:
    path = folder / "owner.json"
    return storage.read_json(path) if path.exists() else None


def _me() -> str:
    return f"{socket.gethostname()} process {os.getpid()}"


def _began(process: int) -> str:
    """When a process of this machine began, to tell it from a later one of its number; "" where
    nobody can tell."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return words[19]  # field 22 of proc(5): starttime, in clock ticks since boot


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the owner is a process of this machine that has ended, or, where that cannot be told,
    is silent for long."""
    host, _, process = owner["owner"].rpartition(" process ")
    if host == socket.gethostname() and os.name == "posix":
        if not storage.is_running(int(process)):
            return True
        if began := owner.get("began"):
            return began != _began(int(process))
    return time.time() - owner["last_wrote"] > OWNER_SILENT
