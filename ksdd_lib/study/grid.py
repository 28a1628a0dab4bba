"""A grid: which settings vary, and the run folders and tasks that it comes to."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ksdd_lib import presets, storage
from ksdd_lib.errors import RunError, SettingsError
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.stage_training import deciding
from ksdd_lib.presets import changes
from ksdd_lib.setting_rules import Value, Values
from ksdd_lib.settings import RULES, Settings, unknown
from ksdd_lib.storage import Record

JUDGING = "judging"
"""The last task of a run: its scores and its report."""


class Along(Record):
    """Settings that go along with others, as the learning rate with the loss."""

    where: dict[str, Value]
    take: dict[str, Value]


class Grid(Record):
    """What is varied, and what is the same in all cells; `fixed` wins over `along`."""

    name: str
    vary: dict[str, tuple[Value, ...]]
    fixed: dict[str, Value] = {}
    along: tuple[Along, ...] = ()
    folds: tuple[int, ...] = (0, 1, 2)
    seeds: tuple[int, ...] = (0,)

    def narrowed(self, given: Values) -> "Grid":
        """With values given: of a varied setting only that one stays, others hold in all cells."""
        rest = dict(given)
        vary = {name: (rest.pop(name),) if name in rest else self.vary[name] for name in self.vary}
        changed: dict[str, object] = {}
        fold, seed = rest.pop("fold", "all"), rest.pop("seed", None)
        if fold != "all":
            changed["folds"] = (int(fold),)
        if seed is not None:
            changed["seeds"] = (seed,)
        return self.model_copy(update=changed | {"vary": vary, "fixed": self.fixed | rest})


PAPER = Grid(
    name="paper",
    vary={
        "annotation": ("fine", "dilated5", "dilated9", "dilated13", "dilated17"),
        "segmentation_loss": ("cross_entropy", "mean_squared_error"),
        "image_size": ("1408x512", "704x256"),
        "rotation": (False, True),
    },
    fixed={"preset": "paper", "folds": "official"},
    along=(
        Along(
            where={"segmentation_loss": "mean_squared_error", "segmentation_optimizer": "sgd"},
            take={"segmentation_learning_rate": 0.005},
        ),
    ),
)
"""The study of the paper of 2019: 40 cells."""


@dataclass(frozen=True)
class Job:
    """One run of a grid: a cell with a seed and a fold, which has a run folder of its own."""

    name: str  # of its folder
    cell: tuple[Value, ...]  # in the order of `Grid.vary`
    seed: int
    fold: int
    explicit: Mapping[str, Value]
    settings: Settings

    @property
    def stages(self) -> list[str]:
        """The names of its trainings, in order."""
        return [plan.name for plan in method_of(self.settings).stages]


class Task(NamedTuple):
    """A stage of a run, or its judging: what one worker does at a time."""

    job: Job
    stage: str
    source: str | None  # the run that trains the same stage, which is copied
    after: tuple[tuple[str, str], ...]  # run and stage of the tasks before it

    @property
    def key(self) -> tuple[str, str]:
        """What names it among the tasks of its study."""
        return self.job.name, self.stage


def read_grid(name: str) -> Grid:
    """The grid `paper`, or that of a JSON file; RunError or SettingsError where it is none."""
    if name == PAPER.name:
        return PAPER
    path = Path(name).expanduser()
    if not path.is_file():
        raise RunError(f"There is no grid {name}: take paper, or a JSON file.", see="study#grid")
    grid = storage.parse_record(path.read_bytes(), Grid, path.name)
    for setting in (*grid.vary, *grid.fixed):
        if setting not in RULES:
            raise unknown(setting)
    if own := {"fold", "seed", "data"} & {*grid.vary, *grid.fixed}:
        listed = ", ".join(sorted(own))
        told = f"{listed}: a grid has folds and seeds, and the data is given beside."
        raise SettingsError(told, see="study#grid")
    if not (all(grid.vary.values()) and grid.folds and grid.seeds):
        raise SettingsError(f"{path.name}: every list needs a value.", see="study#grid")
    return grid


def jobs_of(grid: Grid, data: str) -> list[Job]:
    """The runs of a grid, fold by fold, so that each fold is whole before the next one begins.

    Raises SettingsError, naming the cell: its values do not go together, or two cells are one run.
    """
    jobs = []
    for seed, fold, cell in itertools.product(
        grid.seeds, grid.folds, itertools.product(*grid.vary.values())
    ):
        values = dict(zip(grid.vary, cell, strict=True))
        named = "-".join(_word(name, value) for name, value in values.items())
        name = f"{named}-seed{seed}-fold{fold}".lstrip("-")
        try:
            common = grid.fixed | values | {"data": data, "seed": seed, "fold": str(fold)}
            chosen = presets.resolve(common)
            extra: dict[str, Value] = {}
            for along in grid.along:
                if all(getattr(chosen, key, None) == value for key, value in along.where.items()):
                    extra |= along.take
            explicit = extra | common
            jobs.append(Job(name, cell, seed, fold, explicit, presets.resolve(explicit)))
        except SettingsError as error:
            raise SettingsError(f"The cell {named}: {error}") from None
    if len({job.name for job in jobs}) < len(jobs):
        raise SettingsError(f"Two cells of {grid.name} are the same: a value stands there twice.")
    return jobs


def _word(name: str, value: Value) -> str:
    """A value as part of a folder's name: "704x256" of a text, "rotation1" of a number."""
    if isinstance(value, str):
        return re.sub(r"[^\w.]+", "_", value)
    return f"{name}{int(value) if isinstance(value, bool) else value}"


def tasks_of(jobs: Iterable[Job]) -> list[Task]:
    """The tasks of all runs, each after those that it needs; equal stages are trained once."""
    tasks, owners = [], dict[tuple[object, ...], str]()
    for job in jobs:
        before: tuple[tuple[str, str], ...] = ()
        for stage in job.stages:
            owner = owners.setdefault(_weights_key(job, stage), job.name)
            source = None if owner == job.name else owner
            shared = ((owner, stage),) if source else ()
            tasks.append(Task(job, stage, source, (*before, *shared)))
            before = ((job.name, stage),)
        tasks.append(Task(job, JUDGING, None, before))
    return tasks


def _weights_key(job: Job, stage: str) -> tuple[object, ...]:
    """All that decides the weights of a stage, before the data is looked at."""
    settings = job.settings
    of_data = [name for name, rule in RULES.items() if rule.group == "data"]
    names = sorted({*deciding(settings, stage), *of_data, "method", "precision"})
    return stage, job.fold, *((name, getattr(settings, name)) for name in names)


def described(grid: Grid, job: Job) -> str:
    """The settings of a grid that are not its preset's and do not vary, as a line of text."""
    changed = changes(job.settings)
    told = [f"{name}={value}" for name, value in changed.items() if name not in grid.vary]
    kept = [word for word in told if not word.startswith(("seed=", "fold=", "data="))]
    return " ".join([f"preset {job.settings.preset}", *kept])
