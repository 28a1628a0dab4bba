"""Numbers, times and lists as text, the same everywhere."""

import math
import os
import re
from collections.abc import Sequence


def number(value: float | None, digits: int = 4) -> str:
    """A rate as text; "undefined" where the data do not define it."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A rate in percent; "undefined" where the data do not define it."""
    return "undefined" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def percent_up_to(value: float) -> str:
    """A rate in percent, rounded up to one digit: the upper end of an interval."""
    return f"{math.ceil(1000 * value - 1e-6) / 10:.1f}\N{NO-BREAK SPACE}%"


def of_ten(share: float) -> str:
    """A share as "about 9 of 10", where few counts leave no digit certain."""
    tenths = round(10 * share)
    return {0: "hardly any", 10: "nearly all"}.get(tenths, f"about {tenths} of 10")


def interval(value: Sequence[float] | None, digits: int = 3) -> str:
    """A confidence interval as text; "none" where there is none."""
    return "none" if value is None else f"{value[0]:.{digits}f} to {value[1]:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds in a readable unit: "40 s", "4.2 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def words(name: str) -> str:
    """The name of a setting or a file as words: "image size" of "image_size"."""
    return name.replace("_", " ")


def printable(text: str) -> str:
    """A file name as one line of text: control characters and bytes that are not UTF-8 escaped."""
    odd = r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
    return re.sub(odd, lambda found: ascii(found[0])[1:-1].replace("udc", "x"), text)


def unquoted(pasted: str) -> str:
    """A path or address without the spaces and quotes around it, unless a file is called so."""
    if os.path.lexists(os.path.expanduser(pasted)):
        return pasted
    return pasted.strip().strip("\"'`<>\u201c\u201d\u201e\u2018\u2019").strip()


def listed(values: Sequence[object], limit: int = 12, separator: str = ", ") -> str:
    """The first `limit` values, and how many more there are: "a, b and 3 more"."""
    text = separator.join(str(value) for value in values[:limit])
    return text + (f" and {len(values) - limit} more" if len(values) > limit else "")


def plain(value: object) -> str:
    """A setting or a fact of the environment as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return listed(value) if isinstance(value, list) else str(value)
