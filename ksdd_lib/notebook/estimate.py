"""How many minutes and how much memory settings take here, from one measurement that is kept."""

from pathlib import Path

from ksdd_lib import machine, storage
from ksdd_lib.errors import RunError
from ksdd_lib.methods import two_stage_pace
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.two_stage_pace import Pace
from ksdd_lib.settings import Settings
from ksdd_lib.text import duration
from ksdd_lib.training import memory
from ksdd_lib.training.batches import mirror_images

PACES = {"two_stage": two_stage_pace}
"""Method -> what measures it. Of another method only the memory is told."""


def known_pace(settings: Settings) -> Pace | None:
    """What was measured here before for these settings; None where nothing was."""
    try:
        return storage.read_record(_file(settings), Pace)
    except RunError:  # none, a damaged one, or one of an earlier version
        return None


def measure_pace(settings: Settings) -> None:
    """Measure, and store it for `known_pace`; seconds on a GPU, up to a minute on an old CPU."""
    if settings.method in PACES:
        storage.write_record(_file(settings), PACES[settings.method].measure(settings))


def describe(settings: Settings) -> str:
    """One or two sentences: what it will take here, as far as it is known."""
    if not method_of(settings).stages:
        return "This method needs no training."
    where = machine.device()
    arithmetic = machine.arithmetic_name(settings.precision)
    needed = memory.step_megabytes(settings.size, arithmetic, where) / 1000
    free = memory.free_megabytes(where)
    room = f" ({free / 1000:.1f} GB are free)" if free is not None else ""
    text = f"A training step takes about {needed:.1f} GB of memory{room}."
    pace = known_pace(settings)
    if pace is None:
        return text
    folds = len(settings.fold_numbers)
    minutes = PACES[settings.method].minutes(settings, pace)
    stages = [f"about {duration(60 * m)} for the {name} stage, " for name, m in minutes.items()]
    scoring = pace.scoring * len(mirror_images(settings.average_flips))
    return (
        f"{'One fold' if folds == 1 else f'{folds} folds'}: {''.join(stages)}"
        f"and {scoring:.2g} s for each image that is scored. {text}"
    )


def _file(settings: Settings) -> Path:
    """Where the measurement of a method, size and arithmetic on this machine is stored."""
    arithmetic = machine.arithmetic_name(settings.precision)
    name = f"{settings.method}-{machine.slug()}-{settings.image_size}-{arithmetic}"
    return storage.cache_folder() / f"pace-{name}.json"
