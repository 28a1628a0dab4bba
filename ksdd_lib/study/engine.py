"""Dask's workers for a study: on this machine, behind an address, or as jobs of SLURM."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dask.system import CPU_COUNT
from distributed import (
    Client,
    Future,
    LocalCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    fire_and_forget,
)
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.study.grid import Task
from ksdd_lib.study.work import perform

RETRIES = 2  # of a task that failed; each goes on at its last checkpoint

MEMORY_OF_A_TRAINING = 4 * 2**30


class Done(NamedTuple):
    """A task that has ended: what was done, or the error that ended it."""

    task: Task
    answer: str
    error: BaseException | None


class Share(WorkerPlugin):
    """What one of several workers of a machine uses: so many threads, and one of the GPUs."""

    def __init__(self, threads: int, gpus: Sequence[str] = ()) -> None:
        self.threads, self.gpus = threads, gpus

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each new worker process, before its first task."""
        torch.set_num_threads(self.threads)
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker.name) % len(self.gpus)]


def gpus_here() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    numbers = map(str, range(torch.cuda.device_count()))
    return named.split(",") if named and torch.cuda.is_available() else list(numbers)


def usual_workers() -> int:
    """How many workers this machine gets: one a GPU, else one for two cores and their memory."""
    return len(gpus_here()) or max(1, min(CPU_COUNT // 2, MEMORY_LIMIT // MEMORY_OF_A_TRAINING))


@contextmanager
def connected(
    workers: int | None = None, cluster: str | None = None, slurm: Path | None = None
) -> Iterator[Client]:
    """A client of the chosen workers; those that it has started end with it.

    Raises RunError: nothing answers at the address, its workers do several tasks at a time, or the
    file for SLURM is not as it should be.
    """
    if cluster:
        # A lost scheduler is told in one sentence, by `carry_out`.
        with silence_logging_cmgr(logging.CRITICAL), _client_of(cluster) as client:
            if busy := [name for name, count in client.nthreads().items() if count > 1]:
                raise RunError(
                    f"{busy[0]} does several tasks at a time: start it with --nthreads 1."
                )
            yield client
    elif slurm:
        made, threads = _slurm(slurm)
        with made, Client(made) as client:
            client.register_plugin(Share(threads))
            made.scale(n=workers or 1)
            yield client
    else:
        count = workers or usual_workers()
        share: dict[str, Any] = {"threads_per_worker": 1, "memory_limit": MEMORY_LIMIT // count}
        local = LocalCluster(n_workers=0, dashboard_address="127.0.0.1:8787", **share)
        with local, Client(local) as client:
            client.register_plugin(Share(max(1, CPU_COUNT // count), gpus_here()))
            local.scale(count)
            yield client
            with silence_logging_cmgr(logging.ERROR):  # of workers that are slow to end
                local.close()


def _client_of(address: str) -> Client:
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise RunError(f"No Dask scheduler answers at {address}: {error}") from None


def _slurm(path: Path) -> tuple[Any, int]:
    """Dask's SLURM cluster by the keyword arguments in a JSON file, and a worker's threads."""
    from dask_jobqueue import SLURMCluster

    given = {"processes": 1} | storage.parse_record(path.read_bytes(), dict[str, Any], path.name)
    given["worker_extra_args"] = [*given.get("worker_extra_args", ()), "--nthreads", "1"]
    try:
        return SLURMCluster(**given), max(1, given["cores"] // given["processes"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path.name} does not suit dask_jobqueue.SLURMCluster: {error}") from None


def carry_out(client: Client, out: Path, tasks: Sequence[Task]) -> Iterator[Done]:
    """Let the workers do tasks, each after those before it that are named too, as they end.

    They go on where this process ends; the same tasks asked again join those that still run.
    """
    futures: dict[tuple[str, str], Future] = {}
    for task in tasks:
        before = [futures[key] for key in task.after if key in futures]
        name = (task.stage, str(out / task.job.name))
        futures[task.key] = client.submit(
            perform, str(out), task, *before, key=name, retries=RETRIES, pure=False
        )
    fire_and_forget(list(futures.values()))
    known = {future.key: task for task, future in zip(tasks, futures.values(), strict=True)}
    for future in as_completed(list(futures.values())):
        if future.cancelled():
            raise RunError("The scheduler is gone: run the same command again, it goes on.")
        failed, task = future.exception(), known[future.key]
        answer = "" if failed else future.result()
        del futures[task.key]  # Dask forgets it, and does not do it again for a lost worker
        yield Done(task, answer, failed)
