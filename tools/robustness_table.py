"""The table of what `benchmarks/robustness.py` measured."""

from kept import Kept
from pages import in_percent, table

from ksdd_lib import storage
from ksdd_lib.formatting import listed
from ksdd_lib.storage import Record

COLUMNS = ("disturbed by", "AP", "missed", "false alarms", "which, the worst first")


class Found(Record):
    """What a model made of surfaces that were disturbed in one way."""

    surfaces: int
    defective: int
    ap: float | None
    missed: list[str]
    false_alarms: list[str]


class Report(Record):
    """robustness.json."""

    found: dict[str, Found]


def robustness_table(kept: Kept) -> str:
    """A row for each way to disturb the test surfaces; "" while it is not measured."""
    path = kept.folder / "robustness.json"
    if not path.exists():
        return ""
    rows = [
        [
            name,
            in_percent(one.ap),
            f"{len(one.missed)} of {one.defective}",
            f"{len(one.false_alarms)} of {one.surfaces - one.defective}",
            listed([*one.missed, *one.false_alarms], 4),
        ]
        for name, one in storage.read_record(path, Report).found.items()
    ]
    return table(COLUMNS, rows)
