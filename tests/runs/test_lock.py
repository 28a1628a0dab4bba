"""One process at a time works in a run folder."""

import json
import multiprocessing
import os
import shutil
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
from ksdd_lib.settings import Settings
from ksdd_lib.training import checkpoint


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


# Who is meant: numbers and names of processes are the same in many containers


CONTAINER = """
import os, pathlib, sys
from ksdd_lib.runs import lock
number, start, kind = int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
if kind != "of this system":
    lock.system = lambda: kind
os.getpid, lock._own_start = lambda: number, lambda number: start
lock.claim(pathlib.Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault(56)
@pytest.mark.parametrize("kind", ["another container", "another boot"])
def test_a_process_of_our_name_number_and_start_elsewhere_is_another(run: Run, kind: str) -> None:
    """As in two containers of one image, where both have the number 7."""
    claim(run.folder)
    ours = read_owner(run)
    release(run.folder)
    words = [sys.executable, "-c", CONTAINER, str(run.folder), str(os.getpid())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*words, str(ours["started"]), kind], **pipes) as other:
        assert other.stdout.readline().strip() == b"claimed"
        theirs = read_owner(run)
        assert (theirs["owner"], theirs["started"]) == (ours["owner"], ours["started"])
        with pytest.raises(RunError, match="works on run and last wrote"):
            claim(run.folder)
        release(run.folder)
        assert read_owner(run) == theirs, "not ours to give up"
        other.communicate()
    write_owner(run, theirs | {"last_wrote": time.time() - OWNER_SILENT - 1})
    assert claim(run.folder), "it was silent for long"


@pytest.mark.fault(56)
def test_of_two_containers_with_one_host_name_and_number_one_works(run: Run) -> None:
    """In process namespaces of their own, where both have the number 1."""
    code = """
import os, pathlib, sys, time
from ksdd_lib.runs import lock
try:
    lock.claim(pathlib.Path(sys.argv[1]))
    print("claimed by", os.getpid(), flush=True)
except Exception as error:
    print("refused:", error, flush=True)
sys.stdin.read()
"""
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    if subprocess.run([*words[:4], "true"], capture_output=True).returncode:
        pytest.skip("a process namespace needs more rights than this user has")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    said = []
    pair = [subprocess.Popen([*words, str(run.folder)], **pipes) for _ in range(2)]
    for process in pair:
        said.append(process.stdout.readline().decode())
    for process in pair:
        process.communicate()
    assert sorted(line.split()[0] for line in said) == ["claimed", "refused:"], said
    assert "claimed by 1\n" in said


# Clocks


@pytest.mark.fault(56)
@pytest.mark.parametrize("ahead", [30.0, 86_400.0, 1e9, 1e300])
@pytest.mark.parametrize("file_too", [False, True], ids=["record", "record and file"])
def test_a_time_in_the_future_is_unknown_and_locks_no_longer_than_silence(
    run: Run, monkeypatch: pytest.MonkeyPatch, ahead: float, file_too: bool
) -> None:
    """The owner's clock was ahead of ours, or ours is behind."""
    write_owner(run, {"owner": "colab-vm process 7", "last_wrote": time.time() + ahead})
    if file_too:
        late = time.time() + min(ahead, 86_400)
        os.utime(run.folder / "owner.json", (late, late))
    for _ in range(2):
        with pytest.raises(RunError, match=r"process 7 works on run and last wrote [0-9] s ago"):
            claim(run.folder)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + OWNER_SILENT + 60)
    assert claim(run.folder)


# Taken over while this process slept


OTHER = {"owner": "colab-vm process 7", "last_wrote": 0.0}


def taken(run: Run) -> None:
    write_plainly(run, OTHER | {"last_wrote": time.time()})


def taken_long_ago(run: Run) -> None:
    write_plainly(run, OTHER)


def taken_and_given_up(run: Run) -> None:
    (run.folder / "owner.json").unlink()


def write_plainly(run: Run, owner: dict[str, Any]) -> None:
    """As another process does."""
    (run.folder / "owner.json").write_text(json.dumps(owner))


WRITES: dict[str, Callable[[Path], Any]] = {
    "text": lambda folder: storage.write_text(folder / "report.html", "ours"),
    "bytes": lambda folder: storage.write_bytes(folder / "fold0" / "new" / "a.pt", b"ours"),
    "settings": lambda folder: storage.write_json(folder / "settings.json", {}),
    "history": lambda folder: storage.append_text(folder / "fold0" / "first.jsonl", "ours"),
    "timing": lambda folder: Run(folder, Settings()).note_time("first stage", 1),
    "removal": lambda folder: storage.remove(folder / "fold0" / "first.jsonl"),
    "checkpoint": lambda folder: checkpoint.save(folder / "fold0", "first", 9, {}, {"a": 1}),
    "sign of life": claim,
}


@pytest.mark.fault(56)
@pytest.mark.parametrize("how", [taken, taken_long_ago, taken_and_given_up])
@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_the_folder_writes_and_removes_nothing_there(
    run: Run, how: Callable[[Run], None], write: str
) -> None:
    storage.write_text(run.fold_folder(0) / "first.jsonl", "theirs\n")
    checkpoint.save(run.fold_folder(0), "first", 20, {}, {"a": 2})
    claim(run.folder)
    how(run)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(RunError, match="but meanwhile .* nothing more of it is saved there"):
            WRITES[write](run.folder)
    release(run.folder)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.fault(56)
def test_it_is_asked_again_after_a_sleep_within_a_write(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = run.folder / "report.html", os.fsync
    storage.write_text(path, "theirs")
    claim(run.folder)

    def sleep(handle: int) -> None:
        fsync(handle)
        taken(run)

    monkeypatch.setattr(os, "fsync", sleep)
    with pytest.raises(RunError, match="colab-vm process 7 has taken it over"):
        storage.write_text(path, "ours")
    release(run.folder)
    assert path.read_text() == "theirs" and not list(run.folder.glob(".*"))


@pytest.mark.fault(56)
def test_after_it_was_told_a_process_may_begin_again(run: Run) -> None:
    @alone
    def work(run: Run, lose: bool) -> None:
        if lose:
            taken_and_given_up(run)
        storage.write_text(run.folder / "report.html", "ours")

    with pytest.raises(RunError, match="deleted, moved or taken over"):
        work(run, lose=True)
    work(run, lose=False)
    assert not (run.folder / "owner.json").exists()


@pytest.mark.fault(58)
@pytest.mark.parametrize("write", WRITES)
def test_a_folder_that_was_deleted_at_work_does_not_come_back(run: Run, write: str) -> None:
    claim(run.folder)
    shutil.rmtree(run.folder)
    with pytest.raises(RunError, match="deleted|gone|no run"):
        WRITES[write](run.folder)
    release(run.folder)
    assert not run.folder.exists()


@pytest.mark.fault(58)
@pytest.mark.parametrize("lost", ["folder", "settings"])
def test_a_run_whose_folder_or_settings_are_gone_is_not_gone_on_with(run: Run, lost: str) -> None:
    shutil.rmtree(run.folder) if lost == "folder" else (run.folder / "settings.json").unlink()
    with pytest.raises(RunError, match="is gone, or its settings.json"):
        prepare.prepare_data(run)
    assert not run.folder.exists() or not list(run.folder.iterdir())


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    "name",
    [
        ".notes.tmp",
        ".draft.txt.999999999.tmp",
        ".settings.json.tmp",
        ".settings.json.old.tmp",
        ".my.settings.json.999999999.tmp",
        "fold0/.mine.999999999.tmp",
        "mine/.settings.json.999999999.tmp",
        ".settings.json.999999999.tmp.bak",
        ".owner.json.99999999999999999999.tmp",
    ],
)
def test_hidden_files_of_the_user_stay(run: Run, name: str) -> None:
    theirs = run.folder / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine")
    claim(run.folder)
    release(run.folder)
    assert theirs.read_text() == "mine"
