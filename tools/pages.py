"""Tables and other generated text of a Markdown page, between comments that name it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.formatting import number


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; each row has a cell for each column."""
    return "".join(map(_line, [columns, ["---"] * len(columns), *rows]))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def in_percent(share: float | None) -> str:
    """A share in percent as the tables show it, without the sign: "99.1"."""
    return number(None if share is None else 100 * share, 1)


def interval_in_percent(ends: Sequence[float] | None) -> str:
    """ "[97.7, 99.9]"; "" where there is no interval."""
    return "[{}, {}]".format(*map(in_percent, ends)) if ends else ""


def mean_and_range(shares: Sequence[float]) -> str:
    """ "99.1 (98.9 to 99.3)" in percent; of one value alone that value."""
    mean = in_percent(sum(shares) / len(shares))
    if len(shares) == 1:
        return mean
    return f"{mean} ({in_percent(min(shares))} to {in_percent(max(shares))})"


def place_of(name: str) -> re.Pattern[str]:
    """Where a generated text stands in its page."""
    return re.compile(f"(?<=<!-- {name}:begin -->\n).*?(?=<!-- {name}:end -->)", re.S)


def write_page(page: Path, texts: Mapping[str, Callable[[], str]]) -> bool:
    """Write each generated text into its place in a page; returns whether that changed it.

    Args:
        texts: the name of each place -> what makes its text.
    """
    before = after = page.read_text(encoding="utf-8")
    for name, make in texts.items():
        head, tail = place_of(name).split(after)
        after = head + make() + tail
    if after != before:
        storage.write_text(page, after)
    return after != before
