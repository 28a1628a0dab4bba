"""What a study will take, before it begins: tasks, minutes here and on several machines, disk."""

import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ksdd_lib import hardware
from ksdd_lib.formatting import duration
from ksdd_lib.methods import two_stage, two_stage_timing
from ksdd_lib.methods.two_stage_timing import Pace
from ksdd_lib.models.two_stage import DecisionNet
from ksdd_lib.settings import Settings
from ksdd_lib.study.grid import JUDGING, Job, Task
from ksdd_lib.study.work import is_done, room

MACHINES = (1, 2, 4, 10, 40, 120)
"""Numbers of machines that the plan tells of, as far as there are runs for them."""

RESULTS = 5 * 10**6  # bytes of a run's scores, maps and report, about


class Plan(NamedTuple):
    """What is left of a study."""

    tasks: int
    runs: int
    chains: list[float]  # minutes of each run's trainings, measured on this machine
    disk: int  # bytes that all runs take in the end, about
    free: int


def plan(jobs: Sequence[Job], tasks: Sequence[Task], out: Path) -> Plan:
    """The plan of these tasks; measures once for each size of picture that is still to train."""
    paces: dict[tuple[object, ...], Pace] = {}
    minutes: dict[str, float] = {}
    for job, stage, source, _ in tasks:
        minutes.setdefault(job.name, 0.0)
        if stage == JUDGING or source or job.settings.method != "two_stage":
            continue
        key = job.settings.size, job.settings.precision, job.settings.classes
        if key not in paces:
            paces[key] = two_stage_timing.measure(job.settings)
        minutes[job.name] += two_stage_timing.minutes(job.settings, paces[key])[stage]
    disk = sum(bytes_of(job.settings) + RESULTS for job in jobs)
    return Plan(len(tasks), len(minutes), list(minutes.values()), disk, room(out))


def left_of(tasks: Iterable[Task], out: Path) -> list[Task]:
    """The tasks that are not finished, by the marks in the run folders."""
    return [task for task in tasks if not is_done(out, task.job, task.stage)]


def makespan(chains: Iterable[float], machines: int) -> float:
    """Minutes until the last is done, where the longest run left goes to the first free machine."""
    busy = [0.0] * machines
    for chain in sorted(chains, reverse=True):
        heapq.heapreplace(busy, busy[0] + chain)
    return max(busy)


def bytes_of(settings: Settings) -> int:
    """What a run's checkpoints take: of each stage the last weights, and one whole state."""
    if settings.method != "two_stage":
        return 0
    total = 0
    for net, optimizer in (
        (two_stage.untrained_segmentation(settings), settings.segmentation_optimizer),
        (DecisionNet(), settings.decision_optimizer),
    ):
        weights = sum(4 * weight.numel() for weight in net.parameters())
        copies = 2 * (1 + settings.weight_averaging) + 2 * (optimizer == "adamw")
        total += copies * weights
    return total


def told(plan: Plan) -> str:
    """The plan as text."""
    lines = [f"{plan.tasks} tasks are left, in {plan.runs} runs."]
    if total := 60 * sum(plan.chains):
        kind = "its GPU" if hardware.device().type == "cuda" else "all its cores"
        text = f"Training takes up to about {duration(total)} on this machine with {kind}"
        lines.append(f"{text}, as measured on one picture. Scoring and reports add a little.")
        times = [
            f"{count} machines {duration(60 * makespan(plan.chains, count))}"
            for count in MACHINES
            if 1 < count <= len(plan.chains)
        ]
        if times:
            lines.append(f"On machines like this one: {', '.join(times)}.")
            lines.append("Workers of one machine share its cores, and gain less.")
    free = f"{plan.free / 1e9:.1f} GB are free"
    lines.append(f"All runs take about {plan.disk / 1e9:.1f} GB of disk in the end; {free}.")
    return "\n".join(lines)
