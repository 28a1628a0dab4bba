"""A study from grid to page: the one function that the command and the notebook call."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.setting_rules import Value, Values
from ksdd_lib.settings_io import from_environment
from ksdd_lib.storage import relative
from ksdd_lib.study.grid import Grid, Job, Task, jobs_of, read_grid, tasks_of
from ksdd_lib.study.page import write_page
from ksdd_lib.study.planner import left_of, plan, told
from ksdd_lib.study.results import stored_grid

EVERY = 60.0  # seconds between two pages while the study runs, at least
SHARE = 20  # of its time that the driver may draw pages: one part in so many

Tell = Callable[[str], object]


def study(
    data: str,
    out: Path | str,
    grid: Grid | str = "paper",
    given: Values | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    slurm: Path | None = None,
    plan_only: bool = False,
    tell: Tell = print,
) -> Path:
    """Train, judge and compare all cells of a grid, or what is left of them -> the page.

    Args:
        data: as for `run`; a path must lead to the same data for every worker.
        out: the folder of the study: a run folder for each cell, seed and fold, and the page.
        grid: "paper", a JSON file, or a `Grid`.
        given: settings for all cells; of a varied one this value alone is left.
        workers: processes on this machine, or jobs' workers with `slurm`; None chooses.
        cluster: the address of a Dask scheduler, instead of workers on this machine.
        slurm: a JSON file with the arguments of dask_jobqueue.SLURMCluster, instead.

    Raises SettingsError: the grid, or a cell of it, is not allowed.
    Raises RunError: no workers can be had, or some tasks have failed; the others are done.
    """
    if cluster and slurm or workers is not None and workers < 1:
        raise RunError("Give one of --cluster and --slurm, and at least one of --workers.")
    out = Path(out).expanduser().resolve()
    chosen, jobs = _chosen(data, grid, given or {})
    left = left_of(tasks_of(jobs), out)
    plans = told(plan(jobs, left, out)) if left else "All are finished: nothing was trained."
    tell(f"{chosen.name}: {len(jobs)} runs. {plans}")
    if plan_only:
        return out / "study.html"
    out.mkdir(parents=True, exist_ok=True)
    storage.write_record(out / "study.json", chosen)
    try:
        where = workers, cluster, slurm
        failed = _carry_out(left, jobs, chosen, out, where, tell) if left else []
    except ModuleNotFoundError as error:
        raise RunError(
            f"A study needs Dask ({error.name} is not installed): pip install -e '.[study]'."
        ) from None
    page = write_page(chosen, jobs, out)
    if failed:
        raise RunError(
            f"{len(failed)} tasks failed, the first one: {failed[0]} {relative(page)} shows what "
            "is finished; the same command tries the others again."
        )
    return page


def _chosen(data: str, grid: Grid | str, given: Values) -> tuple[Grid, list[Job]]:
    """The grid with what is given, and its runs; raises as `study`."""
    whole = read_grid(grid) if isinstance(grid, str) else grid
    chosen = whole.narrowed(from_environment() | dict(given))
    usual: Value = "demo" if data == "generated" else "cpu"
    chosen = chosen.model_copy(update={"fixed": {"preset": usual} | chosen.fixed})
    source = Path(data).expanduser()
    return chosen, jobs_of(chosen, str(source.resolve()) if source.exists() else data)


def _carry_out(
    left: Sequence[Task],
    jobs: list[Job],
    grid: Grid,
    out: Path,
    where: tuple[int | None, str | None, Path | None],
    tell: Tell,
) -> list[str]:
    """Do the tasks, and write the page now and then -> what failed, in words."""
    from ksdd_lib.study import engine

    failed, due = [], time.monotonic() + EVERY
    with engine.connected(*where) as client:
        tell(f"Dask's dashboard: {client.dashboard_link}")
        for number, done in enumerate(engine.carry_out(client, out, left), start=1):
            name = f"{done.task.job.name}, {done.task.stage}"
            line = f"{name}: {_in_words(done.error) if done.error else done.answer}"
            failed += [line] if done.error else []
            tell(f"{number} of {len(left)}: {line}")
            if (began := time.monotonic()) > due:
                write_page(grid, jobs, out)
                due = time.monotonic() + max(EVERY, SHARE * (time.monotonic() - began))
    return failed


def page_of(out: Path | str, data: str = "generated") -> Path:
    """Write the page of a study anew from its folder, as after other machines worked there."""
    out = Path(out).expanduser().resolve()
    grid = stored_grid(out)
    return write_page(grid, jobs_of(grid, data), out)


def _in_words(error: BaseException) -> str:
    """An error of a worker: our own sentence, or its kind and text."""
    return str(error) if isinstance(error, KsddError) else f"{type(error).__name__}: {error}"
