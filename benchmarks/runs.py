"""Train and judge many runs without notebooks, several at a time: for a GPU that one leaves idle.

    python benchmarks/runs.py DATA OUT [--workers N] RUN [RUN ...]

A RUN is a preset and what differs from it, as best,folds=clean,seed=1,fold=0. It becomes a run
folder in OUT, named as on KolektorSDD; with one fold, followed by "-fold0". Each goes on where it
stopped, and `python tools/keep_results.py` joins the folds. The first RUN begins first.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.errors import KsddError, SettingsError
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.pipeline import run_series
from ksdd_lib.presets import resolve, run_name
from ksdd_lib.runs.open import open_run
from ksdd_lib.settings_io import from_assignments


def explicit_settings(words: str, data: Path) -> dict:
    """ "best,seed=1" -> the settings that it gives explicitly."""
    preset, *assignments = words.split(",")
    return {"preset": preset, "data": str(data)} | from_assignments(assignments)


def folder_name(words: str, data: Path) -> str:
    """The name of such a run on KolektorSDD, with its fold where it has only one."""
    settings = resolve(explicit_settings(words, data) | {"data": "kolektorsdd"})
    return run_name(settings) + ("" if settings.fold == "all" else f"-fold{settings.fold}")


def train_and_judge(words: str, data: Path, out: Path, command: str) -> str:
    """One run from data to figures -> one line on it."""
    began = time.monotonic()
    os.environ["KSDD_COMMAND"] = command
    run = open_run(out / folder_name(words, data), explicit_settings(words, data))
    run_series(run)
    pooled = storage.read_record(run.folder / "metrics.json", Summary).pooled
    return (
        f"{run.folder.name}: AP {pooled.ap:.4f} of {pooled.images}, "
        f"{pooled.oracle.fp} / {pooled.oracle.fn} at the oracle, "
        f"{time.monotonic() - began:.0f} s"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Begin the runs in their order, so many at a time; a failure stops no other.

    Returns the exit status: 0, or 1 where a run failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args(words)
    data, out = chosen.data.resolve(), chosen.out.resolve()
    try:
        folders = Counter(folder_name(run, data) for run in chosen.runs)
        if twice := [name for name, count in folders.items() if count > 1]:
            raise SettingsError(f"Two runs would have the folder {', '.join(twice)}: begin one.")
    except KsddError as error:
        parser.error(str(error))
    # Its own words for each run: the others change nothing in it.
    command = f"python benchmarks/runs.py {data.name} RUNS --workers {chosen.workers}"
    failed = 0
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        started = {
            pool.submit(train_and_judge, run, data, out, f"{command} {run}"): run
            for run in chosen.runs
        }
        for done in as_completed(started):
            error = done.exception()
            print(f"{started[done]} failed: {error}" if error else done.result(), flush=True)
            failed += error is not None
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
