"""How a setting is declared: its rule, and the forms in which a text may be written."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from ksdd_lib.image_size import parse_size
from ksdd_lib.view import parse_region

Value = str | int | float | bool
Values = Mapping[str, Value]
"""Setting name -> value, of some settings."""


class Rule(NamedTuple):
    """What a setting may be: one of `choices`, from `low` to `high`, or a text of a `form`."""

    group: str
    unit: str
    reason: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    form: str = "text"

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None:
            limits = (f"{x:,}" if isinstance(x, int) else f"{x:g}" for x in (self.low, self.high))
            return "from {} to {}".format(*limits)
        return self.form


def setting(
    default: Value,
    group: str,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    *,
    form: str = "text",
    reason: str | None = None,
) -> Any:
    """A field with its rule. Its reason is the text below it, unless one is given here."""
    rule: JsonDict = {"group": group, "unit": unit, "form": form}
    return Field(default, ge=low, le=high, description=reason, json_schema_extra=rule)


switch = partial(setting, unit="yes or no", form="1 or 0")


def as_pattern(text: str) -> str:
    """A regular expression as it is; ValueError where it is none, or empty."""
    try:
        re.compile(text or "(")
    except re.error as error:
        raise ValueError(str(error)) from None
    return text


def as_region(text: str) -> str:
    """A region in one way of writing; ValueError where it is none."""
    parse_region(text := re.sub(r"\s", "", text))
    return text


def as_tile(text: str) -> str:
    """A tile's size in one way of writing: "512" is 512x512."""
    size = text.strip()
    if size == "none":
        return size
    square = f"{size}x{size}" if size.isdecimal() else size
    return "{}x{}".format(*parse_size(square, "tile_size"))


Size = Annotated[str, AfterValidator(lambda text: "{}x{}".format(*parse_size(text)))]


def as_interval(lowest: float, highest: float) -> AfterValidator:
    """Two numbers within these bounds in one way of writing, "0.8 to 4"."""

    def check(text: str) -> str:
        low, high = ends(text)
        if not lowest <= low <= high <= highest:
            raise ValueError(text)
        return f"{low:g} to {high:g}"

    return AfterValidator(check)


def ends(text: str) -> tuple[float, float]:
    """The two numbers of an interval; ValueError where it is none."""
    low, high = text.split("to")
    return float(low), float(high)


def some_of(*names: str) -> AfterValidator:
    """A text of some of these names, parted by commas."""

    def check(text: str) -> str:
        found = [name.strip() for name in text.split(",")]
        if not set(found) <= set(names):
            raise ValueError(text)
        return ",".join(dict.fromkeys(found))

    return AfterValidator(check)


def count_or(*words: str) -> AfterValidator:
    """A text that is one of these words, or a number from 1 on."""

    def check(text: str) -> str:
        if text not in words and not (text.isdecimal() and 0 < int(text) < 10**6):
            raise ValueError(text)
        return text if text in words else str(int(text))

    return AfterValidator(check)
