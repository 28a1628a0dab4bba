"""What the engine of studies costs: empty tasks, the demo study on 1 and 2 workers, and a model.

    python benchmarks/study_scale.py [--tasks 1000] [--study] [--out FILE]

The empty tasks go through the engine as those of a study do. `--study` also times the demo study,
2x2 cells and 3 folds, on 1 and on 2 workers: give it a machine that does nothing else. Writes JSON
and prints what a model makes of it.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markdown_report import markdown_table

from ksdd_lib import hardware, storage
from ksdd_lib.study import engine
from ksdd_lib.study.grid import Grid, Job, Task, jobs_of
from ksdd_lib.study.run import study

ROOT = Path(__file__).resolve().parent.parent
DEMO = Grid(
    name="demo",
    vary={"annotation": ("fine", "dilated9"), "rotation": (False, True)},
    fixed={"preset": "demo"},
)
MINUTES = 8.0  # of a run of the preset cpu on two cores


def nothing(out: str, task: Task, *before: object) -> str:
    """An empty task, in place of `perform`."""
    return "nothing"


def empty_tasks(count: int, workers: int) -> dict[str, float]:
    """Seconds until the workers are there, and those that each of `count` empty tasks takes.

    `busy` are the processor's seconds of the scheduler and the driver, which are this process: what
    counts where other programs share the machine.
    """
    [job, *_] = jobs_of(DEMO, "generated")
    names = [Job(f"run{k}", job.cell, 0, 0, job.explicit, job.settings) for k in range(count)]
    tasks = [Task(job, "empty", None, ()) for job in names]
    began = time.perf_counter()
    with engine.connected(workers) as client:
        client.wait_for_workers(workers)
        started = time.perf_counter()
        busy = time.process_time()
        real, engine.perform = engine.perform, nothing
        try:
            done = sum(one.error is None for one in engine.carry_out(client, Path("/"), tasks))
        finally:
            engine.perform = real
        ended, busy = time.perf_counter(), time.process_time() - busy
    assert done == count
    return {
        "start": started - began,
        "task": (ended - started) / count,
        "busy": busy / count,
    }


def whole_minutes(workers: int, grid: Grid = DEMO) -> float:
    """Minutes of the demo study in an empty folder, on so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        study("generated", Path(folder) / "out", grid, workers=workers)
        return (time.perf_counter() - began) / 60


def modelled(runs: int, workers: int, minutes: float, start: float, task: float) -> float:
    """Minutes of a study of equal runs of three tasks each, one run a worker at a time.

    start + max(3 runs x task, ceil(runs / workers) x minutes): the scheduler does one task after
    another, and a worker one run after another. All workers are alike, have their own machine, and
    data that they have.
    """
    return start / 60 + max(3 * runs * task / 60, math.ceil(runs / workers) * minutes)


def model_rows(start: float, task: float) -> list[dict[str, str]]:
    """What the model says of 120 runs, and of a sweep of 10,000 tasks on the most workers."""
    rows = []
    for runs, workers in ((120, 10), (120, 40), (120, 120), (3333, 120)):
        took = modelled(runs, workers, MINUTES, start, task)
        rows.append(
            {
                "tasks": f"{3 * runs:,}",
                "runs": f"{runs:,}",
                "workers": str(workers),
                "minutes": f"{took:.1f}",
                "efficiency": f"{runs * MINUTES / (workers * took):.3f}",
                "scheduler busy": f"{3 * runs * task / 60 / took:.2%}",
            }
        )
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--study", action="store_true", help="also time the demo study")
    parser.add_argument("--out", type=Path, help="default: assets/results/study-<machine>.json")
    chosen = parser.parse_args(words)
    load = round(os.getloadavg()[0], 1)
    measured = empty_tasks(chosen.tasks, 2)
    report: dict[str, Any] = {
        "environment": hardware.environment() | {"command": "python benchmarks/study_scale.py"},
        "load": load,  # processes that wanted a core beside
        "tasks": chosen.tasks,
        "seconds_to_start": round(measured["start"], 2),
        "seconds_a_task": round(measured["task"], 6),
        "scheduler_seconds_a_task": round(measured["busy"], 6),
    }
    if chosen.study:
        one, two = whole_minutes(1), whole_minutes(2)
        report["demo_minutes"] = {"1": round(one, 2), "2": round(two, 2)}
        report["efficiency_of_2"] = round(one / two / 2, 3)
    report["model"] = model_rows(measured["start"], measured["busy"])
    storage.write_json(chosen.out or ROOT / f"assets/results/study-{hardware.slug()}.json", report)
    print(
        f"{1000 * measured['task']:.2f} ms a task, {1000 * measured['busy']:.2f} ms of them in the "
        f"scheduler and driver; {measured['start']:.1f} s to start 2 workers"
    )
    print(markdown_table(report["model"]))


if __name__ == "__main__":
    main()
