"""The three ways to a run: `create` one, `open_run` in a folder, `resume` the last one."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from ksdd_lib import hardware, presets, settings_io, storage
from ksdd_lib.errors import KsddError, MissingError, RunError
from ksdd_lib.formatting import printable
from ksdd_lib.presets import run_name
from ksdd_lib.runs.lock import alone
from ksdd_lib.runs.run import NOTEBOOKS, Run, refusal, stored_settings
from ksdd_lib.setting_rules import Values
from ksdd_lib.settings import RULES, Settings

CHECKOUT = Path(__file__).resolve().parents[2]  # unless this is an installed package


def home() -> Path:
    """The folder of data and runs: `$KSDD_HOME`, /content/ksdd in Colab, else the checkout."""
    if os.environ.get("KSDD_HOME"):
        return Path(os.environ["KSDD_HOME"]).expanduser().resolve()
    if hardware.in_colab():
        return Path("/content/ksdd")
    return CHECKOUT if (CHECKOUT / "notebooks").is_dir() else Path.cwd() / "ksdd"


def runs_folder() -> Path:
    """The folder of runs under `home()`, which may be a link: the place that it leads to."""
    return (home() / "runs").resolve()


def last_name(runs: Path) -> str:
    """The run opened last in a folder of runs, by its latest.txt; "" where that names none."""
    try:
        name = (runs / "latest.txt").read_text("utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return name if Path(name).name == name != ".." and len(name.encode()) < 256 else ""


def create(
    settings: Settings,
    folder: Path | None = None,
    bring: Callable[[Settings], Path | None] | None = None,
) -> Run:
    """The run of these settings: found again, or made new; raises as `open_run`.

    It lies in `folder`, else in `$KSDD_RUN`, else in `runs_folder()`. There a run is found again
    by the settings of notebook 1, whatever later notebooks have changed. Before a new one is made
    there, `bring` may fetch it from elsewhere, as from Drive, and return its folder here.
    """
    if folder is None and os.environ.get("KSDD_RUN"):
        folder = Path(os.environ["KSDD_RUN"]).expanduser()
    if folder is not None:
        given = asdict(settings)
        stored = stored_settings(folder) if (folder / "data.json").exists() else None
        if stored:  # how it is evaluated is no part of the start
            late = [name for name, rule in RULES.items() if rule.group == "evaluation"]
            given |= {name: getattr(stored, name) for name in late}
        return open_run(folder, given)
    if begun := _begun(settings) or (bring(settings) if bring else None):
        return open_run(begun, {"data": settings.data})
    new = storage.first_free(
        runs_folder(), run_name(settings), lambda place: not (place / "settings.json").exists()
    )
    return open_run(new, asdict(settings))


def open_run(folder: Path, explicit: Values = MappingProxyType({})) -> Run:
    """The run in `folder` with its own settings, or a new run made from `explicit`.

    Explicit values replace those of a run whose data is not prepared. Of a later one RunError lists
    those that differ. It is also raised where another process works in the folder.
    """
    named = Path(os.path.abspath(folder))
    if (shown := printable(named.name)) != named.name:
        raise RunError(f"{shown} holds letters that are not text: give the run another name.")
    folder = named.resolve()
    settings, is_new = _chosen(folder, explicit)
    if is_new:
        folder.mkdir(parents=True, exist_ok=True)
        settings = _store_chosen(folder, explicit)
    if named.parent.resolve() == runs_folder():  # whether it, or `runs`, is a link or not
        storage.write_text(runs_folder() / "latest.txt", named.name + "\n")
    return Run(folder, settings)


def _chosen(folder: Path, explicit: Values) -> tuple[Settings, bool]:
    """The settings of the run in `folder` as `open_run` has them, and whether to store them."""
    stored = stored_settings(folder)
    different = settings_io.differences(stored, explicit) if stored else {}
    is_fixed = stored is not None and (folder / "data.json").exists()
    if is_fixed and different:
        raise RunError(refusal(folder, different))
    if stored is None or "preset" in different:
        settings = presets.resolve(explicit)
    else:
        settings = stored.with_values(explicit)
    is_new = stored is None or settings_io.to_json(stored) != settings_io.to_json(settings)
    return settings, is_new and not is_fixed


@alone
def _store_chosen(folder: Path, explicit: Values) -> Settings:
    """`_chosen` once more, as another process may have changed them meanwhile, and stored."""
    settings, is_new = _chosen(folder, explicit)
    if is_new:
        storage.write_json(folder / "settings.json", settings_io.to_json(settings))
    return settings


def resume(explicit: Values | None = None) -> Run:
    """The run that a notebook continues: `$KSDD_RUN`, else the one opened last.

    It must have the `explicit` settings, by default the environment's. MissingError where none is.
    """
    explicit = settings_io.from_environment() if explicit is None else explicit
    for folder in _last_folders()[:1]:
        if stored_settings(folder):
            return open_run(folder, explicit)
        if named := os.environ.get("KSDD_RUN"):
            missing = f"KSDD_RUN is {named}, and no run is in {folder.resolve()}"
            told = f"{missing}: a path counts from the folder of the notebooks."
            raise MissingError(told, see="runs#run-folders")
    told = f"There is no run yet: run {NOTEBOOKS['data']}.ipynb first."
    raise MissingError(told, see="runs#run-folders")


def last_settings() -> Settings | None:
    """The settings of `$KSDD_RUN` if that is a run, else of the run opened last, else None."""
    return next(filter(None, map(_settings_if_whole, _last_folders())), None)


def is_same_start(stored: Settings, wanted: Settings) -> bool:
    """Whether two runs agree in all settings that notebook 1 decides."""
    ours, theirs = settings_io.to_json(stored), settings_io.to_json(wanted)
    decided = [name for name, rule in RULES.items() if rule.group in ("data", "run")]
    return all(ours[name] == theirs[name] for name in decided)


def _begun(wanted: Settings) -> Path | None:
    """The run with the same start as `wanted`: the one opened last, else one of its name."""
    named = re.compile(re.escape(run_name(wanted)) + r"(-\d+)?")
    folders = [path.parent for path in runs_folder().glob("*/settings.json")]
    named_so = [folder for folder in folders if named.fullmatch(folder.name)]
    named_so.sort(key=lambda folder: (len(folder.name), folder.name))
    for folder in [*_last_folders(), *named_so]:
        if (stored := _settings_if_whole(folder)) and is_same_start(stored, wanted):
            return folder
    return None


def _last_folders() -> list[Path]:
    """`$KSDD_RUN`, then the run opened last in `runs_folder()`, as far as there are such."""
    named, last = os.environ.get("KSDD_RUN"), last_name(runs_folder())
    folders = [Path(named).expanduser()] if named else []
    return [*folders, runs_folder() / last] if last else folders


def _settings_if_whole(folder: Path) -> Settings | None:
    """`stored_settings`; None, with a warning, of a run that is damaged or of another version."""
    try:
        return stored_settings(folder)
    except KsddError as error:
        warnings.warn(f"Passed over: {error}", stacklevel=3)
        return None
