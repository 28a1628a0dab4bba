"""What a worker does of a study: one task in an ordinary run folder, exactly resumable."""

import shutil
import time
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.evaluation import scoring
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.reporting.report import make_report
from ksdd_lib.runs.lock import alone, is_free
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import prepare_data
from ksdd_lib.runs.run import Run
from ksdd_lib.study.grid import JUDGING, Job, Task
from ksdd_lib.training import checkpoint

PATIENCE = 10.0  # seconds between looks at a run folder in which another process works


def perform(out: str, task: Task, *before: object) -> str:
    """Do a task in its run folder below `out`, or what is left of it -> what was done.

    `before` are the answers of the tasks that it needs: Dask does those first. A run folder that a
    lost machine has held is free after a quarter of an hour, and is waited for. Raises KsddError as
    the steps of a run do.
    """
    job, folder = task.job, Path(out) / task.job.name
    while folder.is_dir() and not is_free(folder):
        time.sleep(PATIENCE)
    run = open_run(folder, job.explicit)
    data = prepare_data(run)
    is_copied = task.source is not None and not run.has(task.stage)
    if is_copied:
        _copy_stage(run, Path(out) / str(task.source), task.stage)
    is_new = False
    for stage in job.stages:  # those before it are finished, unless they were damaged since
        is_new = train_stage(run, data, job.fold, stage)
        if stage == task.stage:
            return "trained" if is_new else "copied" if is_copied else "was already finished"
    if is_done(Path(out), job, JUDGING) and not is_new:  # a lost worker had done it
        return "was already finished"
    scoring.evaluate(run, data)
    make_report(run.folder, data.read_pair)
    return "judged"


@alone
def _copy_stage(run: Run, source: Path, stage: str) -> None:
    """Take over the finished stage of another run, which has the same identity."""
    [fold] = run.settings.fold_numbers
    theirs, ours = source / f"fold{fold}", run.fold_folder(fold)
    ours.mkdir(exist_ok=True)
    step, _ = checkpoint.newest_whole(theirs, stage)
    if step < 0:  # damaged since: then it is trained here
        return
    names = [f"{stage}-{step:06d}.pt", f"{stage}-{step:06d}.json", f"{stage}.jsonl"]
    for name in (*names, f"{stage}.restart.json", f"{stage}.done.json"):  # the mark comes last
        if (theirs / name).exists():
            storage.write_bytes(ours / name, (theirs / name).read_bytes())


def is_done(out: Path, job: Job, stage: str) -> bool:
    """Whether nothing is left of a task, by the marks in its run folder."""
    run = Run(out / job.name, job.settings)
    parts = ("data", "evaluation", "report") if stage == JUDGING else ("data", stage)
    return all(run.has(part) for part in parts)


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def room(folder: Path) -> int:
    """The free bytes where a folder is, or will be."""
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
