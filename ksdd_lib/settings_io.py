"""Settings as text: from the environment, from `--set`, to and from JSON.

Precedence: defaults < preset < environment (`KSDD_<FIELD>`) < `--set` < widgets that were touched.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import PurePath

from pydantic import TypeAdapter, ValidationError

from ksdd_lib.errors import SettingsError
from ksdd_lib.setting_rules import Value, Values
from ksdd_lib.settings import RULES, TYPES, Settings, unknown

RESERVED = (
    "KSDD_RUN",  # the run folder
    "KSDD_HOME",  # the folder that holds data and runs
    "KSDD_ARCHIVE",  # the archive that the tests use
    "KSDD_DRIVE",  # the folder that stands for Google Drive
    "KSDD_TAKE_OVER",  # whether to go on with a run that another machine works on
    "KSDD_COMMAND",  # the command to be recorded
)
"""Names in the environment that are not settings."""


BEFORE: dict[str, Value] = {"threshold": "best_f1"}
"""What runs had whose settings were stored before there was a choice, where it is not the default.
"""


def convert(name: str, text: str) -> Value:
    """The text of a setting as a value of its type; SettingsError where it is none."""
    if name not in RULES:
        raise unknown(name)
    try:
        return TypeAdapter(TYPES[name]).validate_python(text.strip())
    except ValidationError:
        wanted = "yes or no" if TYPES[name] is bool else f"a value {RULES[name].allowed}"
        raise SettingsError(f"{name} is {text!r}; it must be {wanted}.") from None


def explained(name: str) -> str:
    """A setting in two lines: its default, unit and allowed values, and what it is."""
    rule, default = RULES[name], getattr(Settings, name)
    return f"{name} = {default}  [{rule.unit}; {rule.allowed}]\n    {rule.reason}"


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Value]:
    """The settings given as `KSDD_<FIELD>`; raises as `convert`."""
    given = {}
    for key in environment:
        if key.startswith("KSDD_") and key not in RESERVED:
            name = key.removeprefix("KSDD_").lower()
            if name not in RULES:
                raise SettingsError(f"The environment variable {key} is no setting; unset it.")
            given[name] = convert(name, environment[key])
    return given


def from_assignments(assignments: Iterable[str]) -> dict[str, Value]:
    """The settings given as `FIELD=VALUE`, as `--set` takes them; raises as `convert`."""
    given = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign:
            raise SettingsError(f"--set takes FIELD=VALUE, not {assignment!r}.")
        given[name] = convert(name, text)
    return given


def data_name(source: str) -> str:
    """A source without its place: "KolektorSDD.zip", or "drive:<id>" of a Google Drive link."""
    if ";" in source:
        return ";".join(map(data_name, source.split(";")))
    if shared := re.search(r"drive\.google\.com/.*?(?:/d/|[?&]id=)([\w-]+)", source):
        return f"drive:{shared[1]}"
    address = source.partition("?")[0] if "://" in source else source
    return PurePath(address.rstrip("/")).name or source


def to_json(settings: Settings) -> dict[str, Value]:
    """The settings as stored beside a result: they hold no path of this machine."""
    return asdict(settings) | {"data": data_name(settings.data)}


def from_json(stored: Values) -> Settings:
    """The settings of `to_json`, newer ones as they were; raises SettingsError as `Settings`.

    A place that has come into them elsewhere, as on a shared Drive, leads nowhere.
    """
    if newer := set(stored) - set(RULES):
        raise SettingsError(
            "The stored settings are of another version of ksdd_lib, which knows "
            f"{', '.join(sorted(newer))}: use that one, or begin a new run."
        )
    source = stored.get("data")
    data = {"data": data_name(source)} if isinstance(source, str) else {}
    return Settings().with_values({**BEFORE, **stored, **data})


def differences(settings: Settings, given: Values) -> dict[str, tuple[Value, Value]]:
    """Where `given` differs from `settings`: name -> (ours, theirs).

    The data source does not count: its fingerprint is compared when it is opened.
    """
    ours = to_json(settings)
    theirs = to_json(settings.with_values(dict(given) | {"data": settings.data}))
    return {name: (ours[name], theirs[name]) for name in RULES if ours[name] != theirs[name]}
