"""What the finished runs of a study say: a row for each cell, and the effect of each factor."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ksdd_lib import storage
from ksdd_lib.errors import KsddError
from ksdd_lib.evaluation.metrics import CONFIDENCE, Interval
from ksdd_lib.evaluation.results import Results, load_results
from ksdd_lib.evaluation.summary import PooledScores, conclude
from ksdd_lib.formatting import listed, words
from ksdd_lib.runs.run import Run
from ksdd_lib.setting_rules import Value
from ksdd_lib.study.grid import JUDGING, Grid, Job
from ksdd_lib.study.work import is_done

Cell = tuple[Value, ...]
"""The values of the varied settings, in the grid's order."""


@dataclass(frozen=True)
class Row:
    """A cell of the study with one seed: what its finished folds come to."""

    cell: Cell
    seed: int
    aps: Mapping[int, float]  # fold -> AP of its test surfaces, where it is defined
    pooled: PooledScores | None  # of all finished folds; None where none is finished
    minutes: float  # of training and scoring, wherever it ran
    state: str  # "finished", or what is there so far

    @property
    def ap(self) -> float | None:
        """The mean AP of the finished folds."""
        return float(np.mean(list(self.aps.values()))) if self.aps else None


class Effect(NamedTuple):
    """How far one value of a factor lies from the mean of all, all else equal; AP in points."""

    value: Value
    mean: float
    interval: Interval | None  # None for a single pair


class Factor(NamedTuple):
    """A varied setting, by the sets of runs that differ in it alone and have finished."""

    name: str
    sets: int
    effects: tuple[Effect, ...]
    best: Value = ""
    worst: Value = ""
    most: Effect | None = None  # of the best value over the worst; its interval is widened


@dataclass(frozen=True)
class Outcome:
    """All that a study says so far."""

    rows: tuple[Row, ...]
    factors: tuple[Factor, ...]
    seeds_spread: float | None  # points of AP, standard deviation; None with one seed
    machines: Mapping[str, int]  # CPU, GPU and arithmetic -> trainings
    is_generated: bool
    runs: int
    finished: int


def outcome(grid: Grid, jobs: Sequence[Job], out: Path) -> Outcome:
    """Read every finished run of a study below `out`, each checked as `load_results` does."""
    found: dict[str, Results] = {}
    damaged: dict[str, str] = {}
    for job in jobs:
        if is_done(out, job, JUDGING):
            try:
                found[job.name] = replace(load_results(out / job.name), masks=None)
            except KsddError as error:
                damaged[job.name] = str(error)
    cells: dict[tuple[Cell, int], list[Job]] = {}
    for job in jobs:
        cells.setdefault((job.cell, job.seed), []).append(job)
    rows = [_row(out, theirs, found, damaged) for theirs in cells.values()]
    trained = [
        str(how).partition(", at ")[0]
        for results in found.values()
        for what, how in results.environment.items()
        if " stage of fold " in what
    ]
    return Outcome(
        rows=tuple(rows),
        factors=tuple(_factor(grid, place, rows) for place in range(len(grid.vary))),
        seeds_spread=_seeds_spread(rows),
        machines=Counter(trained),
        is_generated=any(results.data.is_generated for results in found.values()),
        runs=len(jobs),
        finished=len(found),
    )


def _row(
    out: Path, jobs: Sequence[Job], found: Mapping[str, Results], damaged: Mapping[str, str]
) -> Row:
    """A cell's row; its folds are pooled as those of one run, with out-of-fold thresholds."""
    there = [found[job.name] for job in jobs if job.name in found]
    pooled = None
    if there:
        first = there[0]
        _, summary = conclude(
            [row for results in there for row in results.rows],
            first.summary.protocol,
            first.summary.seed,
            {fold.fold: fold.train_items for fold in first.folds.folds},
            false_alarms=first.summary.false_alarms[0].wanted
            if first.summary.false_alarms
            else None,
            rule=first.settings.threshold,
        )
        pooled = summary.pooled
    aps = {row.folds[0].fold: row.folds[0].ap for row in (one.summary for one in there)}
    return Row(
        cell=jobs[0].cell,
        seed=jobs[0].seed,
        aps={fold: ap for fold, ap in aps.items() if ap is not None},
        pooled=pooled,
        minutes=sum(line.seconds for job in jobs for line in _timing(out, job)) / 60,
        state=_state(out, jobs, found, damaged),
    )


def _timing(out: Path, job: Job) -> Iterable:
    return Run(out / job.name, job.settings).timing()


def _state(
    out: Path, jobs: Sequence[Job], found: Mapping[str, Results], damaged: Mapping[str, str]
) -> str:
    """ "finished", or what is there: folds, stages of the others, what went wrong."""
    left = [job for job in jobs if job.name not in found]
    if not left:
        return "finished"
    told = [f"{len(jobs) - len(left)} of {len(jobs)} folds"] if len(left) < len(jobs) else []
    for job in left:
        marks = [*(out / job.name / f"fold{job.fold}").glob("*.diverged.json")]
        done = [stage for stage in job.stages if is_done(out, job, stage)]
        if job.name in damaged:
            told.append(f"fold {job.fold} is damaged: {damaged[job.name]}")
        elif marks:
            told.append(f"fold {job.fold} diverged")
        elif (out / job.name / "settings.json").exists():
            told.append(f"fold {job.fold}: {listed(done) or 'no stage'} done")
    return "; ".join(told) or "not begun"


def paired(rows: Sequence[Row], place: int, values: Sequence[Value]) -> np.ndarray:
    """AP in points (sets, values): each set differs in one factor alone, and is complete.

    A set has one fold, one seed and one choice of all other factors.
    """
    known: dict[tuple[object, ...], dict[Value, float]] = {}
    for row in rows:
        others = row.cell[:place] + row.cell[place + 1 :]
        for fold, ap in row.aps.items():
            known.setdefault((others, row.seed, fold), {})[row.cell[place]] = 100 * ap
    whole = [one for one in known.values() if len(one) == len(values)]
    return np.array([[one[value] for value in values] for one in whole]).reshape(-1, len(values))


def _factor(grid: Grid, place: int, rows: Sequence[Row]) -> Factor:
    name, values = list(grid.vary.items())[place]
    table = paired(rows, place, values)
    if len(values) < 2 or not len(table):
        return Factor(name, len(table), ())
    centred = table - table.mean(1, keepdims=True)
    effects = tuple(
        Effect(value, float(column.mean()), mean_interval(column))
        for value, column in zip(values, centred.T, strict=True)
    )
    means = table.mean(0)
    best, worst = int(means.argmax()), int(means.argmin())
    difference = table[:, best] - table[:, worst]
    pairs = len(list(itertools.combinations(values, 2)))  # of which the largest is told
    most = Effect("", float(difference.mean()), mean_interval(difference, pairs))
    return Factor(name, len(table), effects, values[best], values[worst], most)


def mean_interval(values: np.ndarray, among: int = 1) -> Interval | None:
    """The t interval of a mean, 95 % for all of `among` such intervals together (Bonferroni)."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return None
    half = t.ppf(1 - (1 - CONFIDENCE) / (2 * among), count - 1) * values.std(ddof=1) / count**0.5
    return float(values.mean() - half), float(values.mean() + half)


def _seeds_spread(rows: Sequence[Row]) -> float | None:
    """The standard deviation of AP, in points, between seeds of one cell and fold."""
    known: dict[tuple[Cell, int], list[float]] = {}
    for row in rows:
        for fold, ap in row.aps.items():
            known.setdefault((row.cell, fold), []).append(100 * ap)
    spreads = [np.var(aps, ddof=1) for aps in known.values() if len(aps) > 1]
    return float(np.sqrt(np.mean(spreads))) if spreads else None


def shown(value: Value) -> str:
    """A value of a setting as text: on or off, or as it is."""
    return ("off", "on")[value] if isinstance(value, bool) else words(str(value))


def sentences(found: Outcome) -> list[str]:
    """What follows from the numbers: how much each factor changed AP, and what cannot be told."""
    told = []
    for factor in found.factors:
        name, most = words(factor.name), factor.most
        if most is None:
            continue
        text = f"The {name} changed AP by {most.mean:.1f} points at most"
        text += f" ({shown(factor.best)} over {shown(factor.worst)}, {factor.sets} pairs)"
        if most.mean == 0:
            text = f"The {name} changed no AP ({factor.sets} pairs)"
        elif most.interval is None:
            text += ". One pair says nothing of chance"
        else:
            low, high = most.interval
            text += f", with an interval of {low:.1f} to {high:.1f}"
            if low <= 0:
                text += ", so these pairs do not tell it from none"
        if found.seeds_spread is not None and 0 < most.mean <= found.seeds_spread:
            text += f". That is within the seeds' spread ({found.seeds_spread:.1f})"
        told.append(text + ".")
    if told and found.seeds_spread is None:
        told.append("There is one seed: what another seed alone changes was not measured.")
    return told


def stored_grid(out: Path) -> Grid:
    """The grid of the study in a folder; RunError where there is none."""
    return storage.read_record(out / "study.json", Grid)
