"""The three ways to a run: `create` one, `open_run` in a folder, `resume` the last one."""

import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

from ksdd_lib import machine, presets, settings_io, storage
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.run_names import run_name
from ksdd_lib.runs.lock import alone
from ksdd_lib.runs.run import NOTEBOOKS, Run, refusal
from ksdd_lib.settings import RULES, Settings

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the repository's files lie, if this is a checkout of it and not an installed package."""


def home() -> Path:
    """The folder of data and runs: `$KSDD_HOME`, /content/ksdd in Colab, else the checkout."""
    if os.environ.get("KSDD_HOME"):
        return Path(os.environ["KSDD_HOME"]).expanduser().resolve()
    if machine.in_colab():
        return Path("/content/ksdd")
    return CHECKOUT if (CHECKOUT / "notebooks").is_dir() else Path.cwd() / "ksdd"


def create(
    settings: Settings,
    folder: Path | None = None,
    bring: Callable[[Settings], Path | None] | None = None,
) -> Run:
    """The run of these settings: found again, or made new.

    It lies in `folder`, else in `$KSDD_RUN`, else under `home()/runs`. There a run is found again
    by the settings of notebook 1, whatever later notebooks have changed. A new run is called by
    its settings' name, followed by a number where another run has that name.

    Args:
        bring: fetches a run of these settings from elsewhere, as from Drive, and returns its folder
            here, or None. It is asked before a new run is made under `home()/runs`.

    Raises:
        RunError: the folder holds a run with other settings; the text lists the differences.
    """
    if folder is None and os.environ.get("KSDD_RUN"):
        folder = Path(os.environ["KSDD_RUN"]).expanduser()
    if folder is not None:
        return open_run(folder, asdict(settings))
    begun = _begun(settings) or (bring(settings) if bring else None)
    if begun:
        return open_run(begun, {"data": settings.data})
    folder, number = home() / "runs" / run_name(settings), 1
    while (folder / "settings.json").exists():
        number += 1
        folder = folder.with_name(f"{run_name(settings)}-{number}")
    return open_run(folder, asdict(settings))


def _begun(wanted: Settings) -> Path | None:
    """The folder under `home()/runs` of the run with the same start as `wanted`, or None.

    The run opened last comes first, whatever it is called, then those named by these settings.
    """
    last = _latest()
    if last and (stored := _settings_if_whole(last)) and is_same_start(stored, wanted):
        return last
    named = re.compile(re.escape(run_name(wanted)) + r"(-\d+)?")
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
    ours, theirs = settings_io.to_json(stored), settings_io.to_json(wanted)
    decided = [n for n, rule in RULES.items() if rule.group in ("data", "run")]
    return all(ours[name] == theirs[name] for name in decided)


def _last_folder() -> Path | None:
    if os.environ.get("KSDD_RUN"):
        return Path(os.environ["KSDD_RUN"]).expanduser()
    return _latest()


def _latest() -> Path | None:
    """The folder of the run opened last under `home()/runs`."""
    latest = home() / "runs" / "latest.txt"
    return latest.parent / latest.read_text("utf-8").strip() if latest.exists() else None


@overload
def resume(explicit: Mapping[str, Any] | None = None) -> Run: ...
@overload
def resume(explicit: Mapping[str, Any] | None = None, *, required: bool) -> Run | None: ...
def resume(explicit: Mapping[str, Any] | None = None, *, required: bool = True) -> Run | None:
    """The run that this notebook continues: `$KSDD_RUN`, else the one opened last.

    Args:
        explicit: settings that the run must have; by default those of the environment.
        required: False: None where there is no run.

    Raises:
        RunError: there is no run; the text says which notebook to run first. Or a value of
            `explicit` differs from the run's.
    """
    explicit = settings_io.from_environment() if explicit is None else explicit
    folder = _last_folder()
    if folder is not None and _stored_settings(folder) is not None:
        return open_run(folder, explicit)
    if not required:
        return None
    if folder is not None and (named := os.environ.get("KSDD_RUN")):
        raise RunError(
            f"KSDD_RUN is {named}, and no run is in {folder.resolve()}: a path counts from the "
            "folder of the notebooks."
        )
    raise RunError(f"There is no run yet: run {NOTEBOOKS['data']}.ipynb first.")


def open_run(folder: Path, explicit: Mapping[str, Any] = MappingProxyType({})) -> Run:
    """The run in `folder`, with its own settings, or a new one made from `explicit`.

    Until its data is prepared nothing has begun, and explicit values replace the stored ones.

    Raises:
        RunError: an explicit value differs from the run's; the text lists the differences. Or the
            settings would be written, and another living process works in the folder.
    """
    folder = Path(folder).resolve()
    stored, settings = _stored_settings(folder), None
    if stored is None or "preset" in settings_io.differences(stored, explicit):
        settings = presets.resolve(explicit)
    else:
        settings = replace(stored, **explicit)
    if stored is not None and (folder / "data.json").exists():
        different = settings_io.differences(stored, explicit)
        if different:
            raise RunError(refusal(folder, different))
        settings = replace(stored, data=explicit.get("data", stored.data))
    elif stored is None or settings_io.to_json(stored) != settings_io.to_json(settings):
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
    return settings_io.from_json(storage.read_json(path)) if path.exists() else None


def _settings_if_whole(folder: Path) -> Settings | None:
    """`_stored_settings`; None, with a warning, of a run that is damaged or of another version."""
    try:
        return _stored_settings(folder)
    except KsddError as error:
        warnings.warn(f"The run {folder.name} is passed over: {error}", stacklevel=3)
        return None


@alone
def _store_settings(folder: Path, settings: Settings) -> None:
    storage.write_json(folder / "settings.json", settings_io.to_json(settings))
