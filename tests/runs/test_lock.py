"""One process at a time works in a run folder."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import scoring
from ksdd_lib.presets import resolve
from ksdd_lib.reporting import report
from ksdd_lib.runs import prepare
from ksdd_lib.runs.lock import OWNER_SILENT, alone, claim, release
from ksdd_lib.runs.open import create, open_run
from ksdd_lib.runs.run import Run


def read_owner(run: Run) -> dict[str, Any]:
    return storage.read_json(run.folder / "owner.json")


def write_owner(run: Run, owner: dict[str, Any]) -> None:
    storage.write_json(run.folder / "owner.json", owner)


ROUNDS = 10


def claim_together(folder: Path, barrier: Any, claimed: Any, dead: str) -> None:
    """One of two processes: claim at the same moment, again and again, also from a dead owner."""
    run = open_run(folder, {})
    for number in range(ROUNDS):
        if number % 2 and barrier.n_waiting == 0:
            write_owner(run, {"owner": dead, "last_wrote": time.time()})
        barrier.wait()
        barrier.wait()
        try:
            claim(run.folder)
            claimed.put((number, os.getpid(), read_owner(run)["owner"]))
        except RunError as error:
            claimed.put((number, 0, str(error)))
        barrier.wait()
        release(run.folder)
        barrier.wait()


@pytest.mark.fault(27)
def test_of_two_processes_that_claim_together_exactly_one_does(run: Run) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        dead = f"{socket.gethostname()} process {gone.pid}"
    context = multiprocessing.get_context("spawn")
    barrier, claimed = context.Barrier(2, timeout=60), context.Queue()
    given = (run.folder, barrier, claimed, dead)
    pair = [context.Process(target=claim_together, args=given) for _ in range(2)]
    for process in pair:
        process.start()
    told = [claimed.get(timeout=60) for _ in range(2 * ROUNDS)]
    for process in pair:
        process.join()
    for number in range(ROUNDS):
        [owner] = [(pid, name) for at, pid, name in told if at == number and pid]
        assert owner[1].endswith(f"process {owner[0]}")
        [refusal] = [text for at, pid, text in told if at == number and not pid]
        assert f"process {owner[0]} works on run and last wrote" in refusal


def test_what_a_killed_owner_left_half_written_goes_with_the_next_claim(run: Run) -> None:
    left = run.folder / ".owner.json.999999999.tmp"
    left.touch()
    claim(run.folder)
    assert not left.exists()
    left.touch()
    claim(run.folder)
    assert left.exists(), "looked for once, not at every step"
    release(run.folder)


@pytest.fixture
def other(run: Run) -> Iterator[str]:
    """Another living process, which owns the run."""
    words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        name = f"{socket.gethostname()} process {process.pid}"
        write_owner(run, {"owner": name, "last_wrote": time.time() - 5})
        yield name
        process.communicate()


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    "work",
    [
        lambda run: prepare.prepare_data(run),
        lambda run: scoring.evaluate(run, None),
        lambda run: report.make_figures(run.folder),
        lambda run: report.make_report(run.folder),
        lambda run: open_run(run.folder, {"seed": 4}),
        lambda run: create(resolve({}), run.folder),
    ],
    ids=["data", "evaluation", "figures", "report", "other settings", "all settings"],
)
def test_what_writes_in_a_run_is_refused_while_another_process_works_there(
    run: Run, other: str, work: Callable[[Run], Any]
) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=rf"{other} works on run and last wrote \d+ s ago"):
        work(run)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    assert open_run(run.folder, {}).settings == run.settings, "to look at it is no work"


def test_work_within_work_leaves_the_folder_to_the_outer_one(run: Run) -> None:
    @alone
    def inner(run: Run) -> None:
        assert read_owner(run)

    @alone
    def outer(run: Run) -> None:
        inner(run)
        assert read_owner(run)

    outer(run)
    assert not (run.folder / "owner.json").exists()
    claim(run.folder)
    with pytest.raises(ZeroDivisionError):
        alone(lambda run: 1 / 0)(run)
    assert read_owner(run)


@pytest.mark.fault(27)
def test_a_second_living_process_is_refused_with_the_owner_named(run: Run) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as other:
        owner = f"{socket.gethostname()} process {other.pid}"
        write_owner(run, {"owner": owner, "last_wrote": time.time() - 5})
        with pytest.raises(RunError, match=rf"{owner} works on run and last wrote \d+ s ago"):
            claim(run.folder)
        release(run.folder)
        assert read_owner(run)["owner"] == owner  # not ours to give up
        other.communicate()
    claim(run.folder)  # it has ended
    assert read_owner(run)["owner"].endswith(f"process {os.getpid()}")
    claim(run.folder)
    release(run.folder)
    assert not (run.folder / "owner.json").exists()


@pytest.mark.fault(27)
def test_a_silent_owner_on_another_machine_loses_the_folder(run: Run) -> None:
    elsewhere = "colab-vm process 1"
    write_owner(run, {"owner": elsewhere, "last_wrote": time.time() - OWNER_SILENT / 2})
    with pytest.raises(RunError, match=elsewhere):
        claim(run.folder)
    write_owner(run, {"owner": elsewhere, "last_wrote": time.time() - OWNER_SILENT - 1})
    claim(run.folder)
    assert elsewhere not in (run.folder / "owner.json").read_text()


@pytest.mark.fault(27)
def test_an_owner_of_an_earlier_version_counts(run: Run, other: str) -> None:
    """It said when it began in another form, and is judged by its silence alone."""
    owner = {"owner": other, "began": "123", "last_wrote": time.time() - 5}
    write_owner(run, owner)
    with pytest.raises(RunError, match=f"{other} works on run"):
        claim(run.folder)
    write_owner(run, owner | {"last_wrote": time.time() - OWNER_SILENT - 1})
    assert claim(run.folder)


def test_an_earlier_process_of_our_number_is_not_we(run: Run) -> None:
    assert claim(run.folder)
    owner = read_owner(run)
    write_owner(run, owner | {"started": owner["started"] - 60})
    release(run.folder)
    assert read_owner(run)
    assert claim(run.folder) and not claim(run.folder)


@pytest.mark.fault(27)
def test_a_process_that_was_stopped_for_long_keeps_its_folder(run: Run) -> None:
    """As with a closed laptop: it is silent, and goes on."""
    claimed = "import sys, pathlib, ksdd_lib.runs.lock as r; r.claim(pathlib.Path(sys.argv[1]))"
    words = [sys.executable, "-c", f"{claimed}; print('claimed', flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*words, str(run.folder)], **pipes) as other:
        assert other.stdout.readline().strip() == b"claimed"
        owner = read_owner(run)
        silent = owner | {"last_wrote": time.time() - 2 * OWNER_SILENT}
        write_owner(run, silent)
        with pytest.raises(RunError, match=f"process {other.pid} works on run"):
            claim(run.folder)
        write_owner(run, silent | {"started": owner["started"] - 60})
        claim(run.folder)  # an earlier process, which has ended, had its number
        other.communicate()
