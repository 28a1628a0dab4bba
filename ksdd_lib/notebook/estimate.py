"""How many minutes and how much memory a choice of settings takes on this machine.

Minutes follow from one measurement for each method, size and arithmetic. It stays in the cache
folder.
"""

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


class Measured(storage.Record):
    """What the cache holds: a pace for each method, size and arithmetic on this machine."""

    paces: dict[str, Pace] = {}


def known_pace(settings: Settings) -> Pace | None:
    """What was measured here before for these settings; None where nothing was."""
    return _measured().paces.get(_key(settings))


def measure_pace(settings: Settings) -> None:
    """Measure, and store it for `known_pace`; seconds on a GPU, up to a minute on an old CPU."""
    if settings.method in PACES:
        pace = PACES[settings.method].measure(settings)
        paces = _measured().paces | {_key(settings): pace}
        storage.write_record(_file(), Measured(paces=paces))


def describe(settings: Settings) -> str:
    """One or two sentences: what it will take here, as far as it is known."""
    if not method_of(settings).stages:
        return "This method needs no training."
    where = machine.device()
    arithmetic = machine.arithmetic_name(settings.precision)
    needed = memory.step_megabytes(settings.size, arithmetic, where) / 1000
    free = memory.free_megabytes(where)
    text = f"A training step takes about {needed:.1f} GB of memory"
    text += f" ({free / 1000:.1f} GB are free)." if free is not None else "."
    pace = known_pace(settings)
    if pace is None:
        return text
    folds = len(settings.fold_numbers)
    stages = [
        f"about {duration(60 * minutes)} for the {name} stage, "
        for name, minutes in PACES[settings.method].minutes(settings, pace).items()
    ]
    scoring = pace.scoring * len(mirror_images(settings.average_flips))
    return (
        f"{'One fold' if folds == 1 else f'{folds} folds'}: {''.join(stages)}"
        f"and {scoring:.2g} s for each image that is scored. {text}"
    )


def _measured() -> Measured:
    """The cache; empty where it is missing, damaged, or of an earlier version."""
    try:
        return storage.read_record(_file(), Measured)
    except RunError:
        return Measured()


def _file() -> Path:
    return storage.cache_folder() / "pace.json"


def _key(settings: Settings) -> str:
    arithmetic = machine.arithmetic_name(settings.precision)
    return f"{settings.method}, {machine.slug()}, {settings.image_size}, {arithmetic}"
