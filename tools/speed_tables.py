"""The tables of what `benchmarks/speed.py` measured, of every machine."""

from collections.abc import Iterator

from kept import Environment, Kept
from pages import table
from run_tables import machine_name

from ksdd_lib import storage
from ksdd_lib.formatting import number
from ksdd_lib.storage import Record

SPEED_COLUMNS = (
    "machine",
    "what",
    "plain, s an image",
    "ours, s an image",
    "plain / ours",
    "ours / bare convolutions",
    "memory, plain / ours, GiB",
)


class Case(Record):
    """What was timed: seconds an image, the median of each variant."""

    what: str
    size: str
    batch: int
    arithmetic: str
    medians: dict[str, float]


class Memory(Record):
    """What training steps of one variant add to a process."""

    variant: str
    size: str
    batch: int
    arithmetic: str
    growth_bytes: int


class SpeedReport(Record):
    """What the tables need of a speed-*.json."""

    environment: Environment
    memory: list[Memory]
    cases: list[Case]


def speed_table(kept: Kept) -> str:
    """All that was timed, machine by machine."""
    return table(SPEED_COLUMNS, _rows(kept))


def _rows(kept: Kept) -> Iterator[list[str]]:
    """A row for each case; the first cell links to the file that it comes from."""
    for path in sorted(kept.folder.glob("speed-*.json")):
        report = storage.read_record(path, SpeedReport)
        link = f"[{machine_name(report.environment)}](../assets/results/{path.name})"
        for case in report.cases:
            yield [f"{link}, {case.arithmetic}", *_cells(report, case)]


def _cells(report: SpeedReport, case: Case) -> list[str]:
    """One case; a training step also with the memory that it adds to the process."""
    medians = case.medians
    added = {
        one.variant: number(one.growth_bytes / 2**30, 1)
        for one in report.memory
        if case.what == "training step"
        and (one.size, one.batch) == (case.size, case.batch)
        and one.arithmetic in ("float32", case.arithmetic)
    }
    return [
        f"{case.what}, {case.size}, batch {case.batch}",
        number(medians["plain"], 2),
        number(medians["ours"], 2),
        number(medians["plain"] / medians["ours"], 1),
        number(medians["ours"] / medians["floor"], 2),
        f"{added['plain']} / {added['ours']}" if added else "",
    ]
