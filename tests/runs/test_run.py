"""A run folder keeps its settings, its owner, and knows what comes next."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ksdd_lib import storage
from ksdd_lib.evaluation import scoring
from ksdd_lib.runs import prepare
from ksdd_lib.reporting import report
from ksdd_lib.runs import run as runs
from ksdd_lib import settings as schema
from ksdd_lib.errors import RunError
from ksdd_lib.runs.run import NOTEBOOKS, OWNER_SILENT, Run, open_folder


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_folder(tmp_path / "run", {"seed": 3, "fold": "0"})


def begin(run: Run, stage: str) -> None:
    storage.write_text(run.fold_folder(0) / f"{stage}.jsonl", "")


def test_a_run_restores_its_own_settings(run: Run) -> None:
    again = open_folder(run.folder, {})
    assert again.settings == run.settings and again.settings.seed == 3


def test_equal_explicit_values_are_welcome(run: Run) -> None:
    assert open_folder(run.folder, {"seed": 3}).settings == run.settings


@pytest.mark.fault(21)
def test_a_different_explicit_value_is_refused_with_the_difference(run: Run) -> None:
    run.write("data.json", {})
    with pytest.raises(RunError, match="seed is 3 there, 4 here; rotation is False there, True"):
        open_folder(run.folder, {"seed": 4, "rotation": True})
    assert open_folder(run.folder, {}).settings == run.settings


def test_until_the_data_is_there_another_value_replaces_the_first(tmp_path: Path) -> None:
    open_folder(tmp_path / "run", {"data": "typo.zip", "preset": "cpu", "seed": 3})
    again = open_folder(tmp_path / "run", {"data": "parts.zip", "seed": 4}).settings
    assert (again.preset, again.data, again.seed) == ("cpu", "parts.zip", 4)
    other = open_folder(tmp_path / "run", {"preset": "paper"}).settings
    assert other == schema.resolve({"preset": "paper"})
    assert open_folder(tmp_path / "run", {}).settings == other


def test_the_place_of_the_data_may_change_for_its_fingerprint_decides(tmp_path: Path) -> None:
    run = open_folder(tmp_path / "run", {"data": "/here/parts.zip"})
    run.write("data.json", {})
    assert open_folder(tmp_path / "run", {"data": "/there/copy"}).settings.data == "/there/copy"
    assert open_folder(tmp_path / "run", {}).settings.data == "parts.zip"
    assert "here" not in (tmp_path / "run" / "settings.json").read_text()


def test_settings_may_change_until_a_stage_has_used_them(run: Run) -> None:
    amended = run.amend({"segmentation_steps": 7, "decision_steps": 9})
    assert open_folder(run.folder, {}).settings == amended.settings
    assert (amended.settings.segmentation_steps, amended.settings.decision_steps) == (7, 9)


def test_settings_of_a_stage_that_has_begun_are_fixed(run: Run) -> None:
    begin(run, "segmentation")
    for name, value in {"segmentation_steps": 7, "annotation": "box", "seed": 4}.items():
        with pytest.raises(RunError, match=name):
            run.amend({name: value})
    assert run.amend({"decision_steps": 9}).settings.decision_steps == 9
    begin(run, "decision")
    with pytest.raises(RunError, match="decision_steps"):
        run.amend({"decision_steps": 8})
    assert open_folder(run.folder, {}).settings.decision_steps == 9


def test_data_settings_are_fixed_once_the_data_is_there(run: Run) -> None:
    assert run.amend({"image_size": "128x128"}).settings.size == (128, 128)
    run.write("data.json", {})
    with pytest.raises(RunError, match="image_size"):
        run.amend({"image_size": "512x256"})


def test_touching_a_fixed_setting_without_changing_it_is_welcome(run: Run) -> None:
    begin(run, "segmentation")
    assert run.amend({"seed": 3}).settings == run.settings


def test_a_missing_part_names_the_notebook_that_makes_it(run: Run) -> None:
    for part, notebook in NOTEBOOKS.items():
        assert not run.has(part)
        with pytest.raises(RunError, match=f"{notebook}.ipynb first"):
            run.require(part)


@pytest.mark.fault(20)
def test_a_stage_is_finished_when_all_its_folds_are(tmp_path: Path) -> None:
    run = open_folder(tmp_path / "run", {"fold": "all"})
    for fold in (0, 1):
        storage.write_json(run.fold_folder(fold) / "segmentation.done.json", {})
    assert run.has("segmentation", 1) and not run.has("segmentation", 2)
    assert not run.has("segmentation")
    storage.write_json(run.fold_folder(2) / "segmentation.done.json", {})
    assert run.has("segmentation") and not run.has("decision")


def test_start_finds_the_run_of_equal_settings_and_numbers_another(own_home: Path) -> None:
    first = runs.start(schema.resolve({"seed": 1}))
    other = runs.start(schema.resolve({"seed": 1, "rotation": True}))
    assert first.folder == own_home / "runs" / "demo-clean-seed1"
    assert other.folder.name == "demo-clean-seed1-2"
    assert runs.start(schema.resolve({"seed": 1})).folder == first.folder
    assert runs.start(schema.resolve({"seed": 1, "rotation": True})).folder == other.folder


def test_start_finds_its_run_among_numbers_with_gaps_and_passes_over_longer_names(
    own_home: Path,
) -> None:
    wanted = schema.resolve({"seed": 1, "rotation": True})
    runs.open_folder(own_home / "runs" / "demo-clean-seed1-3", asdict(wanted))
    storage.write_json(own_home / "runs" / "demo-clean-seed12" / "settings.json", {"new": 1})
    assert runs.start(wanted).folder.name == "demo-clean-seed1-3"
    assert runs.start(schema.resolve({"seed": 1})).folder.name == "demo-clean-seed1"


def test_start_goes_on_with_the_run_opened_last_whatever_it_is_called(own_home: Path) -> None:
    """As after `run --data /path/parts --out runs/parts`, of which settings.json keeps "parts"."""
    wanted = schema.resolve({"preset": "cpu", "data": "/path/parts"})
    named = runs.open_folder(own_home / "runs" / "parts", asdict(wanted))
    assert runs.start(runs.last_settings()).folder == named.folder
    assert runs.start(schema.resolve({"preset": "cpu", "seed": 9})).folder.name != "parts"


def test_a_new_named_folder_starts_from_the_run_opened_last(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = runs.start(schema.resolve({"preset": "cpu", "segmentation_steps": 7}))
    monkeypatch.setenv("KSDD_RUN", str(own_home / "runs" / "second"))
    assert runs.last_settings() == last.settings


def test_start_finds_a_run_that_a_later_notebook_has_amended() -> None:
    first = runs.start(schema.resolve({"seed": 1}))
    first.amend({"segmentation_steps": 50})
    again = runs.start(schema.resolve({"seed": 1}))
    assert again.folder == first.folder and again.settings.segmentation_steps == 50


def test_find_continues_the_run_opened_last() -> None:
    one, two = (schema.resolve({"seed": seed}) for seed in (1, 2))
    first, second = runs.start(one), runs.start(two)
    assert runs.find().folder == second.folder and runs.last_settings() == two
    runs.start(one)
    assert runs.find().folder == first.folder
    first.write("data.json", {})
    assert runs.find({"seed": 1}).settings == first.settings
    with pytest.raises(RunError, match="seed is 1 there, 2 here"):
        runs.find({"seed": 2})


def test_find_without_a_run_says_what_to_run_first() -> None:
    with pytest.raises(RunError, match="run 01_download_data.ipynb first"):
        runs.find()


def test_without_an_evaluated_run_there_is_none_to_look_at(capsys) -> None:
    assert runs.find_evaluated() is None
    assert "There is no run here: 01_download_data" in capsys.readouterr().out
    begun = runs.start(schema.resolve({"seed": 1}))
    assert runs.find_evaluated() is None
    assert "is not evaluated yet: 04_evaluate" in capsys.readouterr().out
    begun.write("data.json", {})
    begun.write("metrics.json", {})
    assert runs.find_evaluated().folder == begun.folder
    with pytest.raises(RunError, match="seed is 1 there, 2 here"):
        runs.find_evaluated({"seed": 2})


def test_the_environment_names_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSDD_RUN", str(run.folder))
    run.write("data.json", {})
    assert runs.find().settings == run.settings
    monkeypatch.setenv("KSDD_SEED", "9")
    with pytest.raises(RunError, match="seed is 3 there, 9 here"):
        runs.find()


def test_timing_keeps_one_line_for_each_thing(run: Run) -> None:
    run.note_time("segmentation stage, fold 0", 2.04)
    run.note_time("decision stage, fold 0", 1)
    run.note_time("segmentation stage, fold 0", 3)
    assert run.read("timing.json") == [
        {"what": "decision stage, fold 0", "seconds": 1},
        {"what": "segmentation stage, fold 0", "seconds": 3},
    ]


ROUNDS = 10


def claim_together(folder: Path, barrier: Any, claimed: Any, dead: str) -> None:
    """One of two processes: claim at the same moment, again and again, also from a dead owner."""
    run = open_folder(folder, {})
    for number in range(ROUNDS):
        if number % 2 and barrier.n_waiting == 0:
            run.write("owner.json", {"owner": dead, "last_wrote": time.time()})
        barrier.wait()
        barrier.wait()
        try:
            run.claim()
            claimed.put((number, os.getpid(), run.read("owner.json")["owner"]))
        except RunError as error:
            claimed.put((number, 0, str(error)))
        barrier.wait()
        run.release()
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
    run.claim()
    assert not left.exists()
    left.touch()
    run.claim()
    assert left.exists(), "looked for once, not at every step"
    run.release()


@pytest.fixture
def other(run: Run) -> Iterator[str]:
    """Another living process, which owns the run."""
    words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        name = f"{socket.gethostname()} process {process.pid}"
        run.write("owner.json", {"owner": name, "last_wrote": time.time() - 5})
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
        lambda run: open_folder(run.folder, {"seed": 4}),
        lambda run: runs.forget_settings(run.folder),
    ],
    ids=["data", "evaluation", "figures", "report", "other settings", "no settings"],
)
def test_what_writes_in_a_run_is_refused_while_another_process_works_there(
    run: Run, other: str, work: Callable[[Run], Any]
) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=rf"{other} works on run and last wrote \d+ s ago"):
        work(run)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    assert open_folder(run.folder, {}).settings == run.settings, "to look at it is no work"


def test_work_within_work_leaves_the_folder_to_the_outer_one(run: Run) -> None:
    @runs.alone
    def inner(run: Run) -> None:
        assert run.read("owner.json")

    @runs.alone
    def outer(run: Run) -> None:
        inner(run)
        assert run.read("owner.json")

    outer(run)
    assert not (run.folder / "owner.json").exists()
    run.claim()
    with pytest.raises(ZeroDivisionError):
        runs.alone(lambda run: 1 / 0)(run)
    assert run.read("owner.json")


@pytest.mark.fault(27)
def test_a_second_living_process_is_refused_with_the_owner_named(run: Run) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as other:
        owner = f"{socket.gethostname()} process {other.pid}"
        run.write("owner.json", {"owner": owner, "last_wrote": time.time() - 5})
        with pytest.raises(RunError, match=rf"{owner} works on run and last wrote \d+ s ago"):
            run.claim()
        run.release()
        assert run.read("owner.json")["owner"] == owner  # not ours to give up
        other.communicate()
    run.claim()  # it has ended
    assert run.read("owner.json")["owner"].endswith(f"process {os.getpid()}")
    run.claim()
    run.release()
    assert not (run.folder / "owner.json").exists()


@pytest.mark.fault(27)
def test_a_silent_owner_on_another_machine_loses_the_folder(run: Run) -> None:
    elsewhere = "colab-vm process 1"
    run.write("owner.json", {"owner": elsewhere, "last_wrote": time.time() - OWNER_SILENT / 2})
    with pytest.raises(RunError, match=elsewhere):
        run.claim()
    run.write("owner.json", {"owner": elsewhere, "last_wrote": time.time() - OWNER_SILENT - 1})
    run.claim()
    assert elsewhere not in (run.folder / "owner.json").read_text()


HAS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


@HAS_PROC
@pytest.mark.fault(27)
def test_a_process_that_was_stopped_for_long_keeps_its_folder(run: Run) -> None:
    """As with a closed laptop: it is silent, and goes on."""
    claimed = "import sys, pathlib, ksdd_lib.runs.run as r; r.claim(pathlib.Path(sys.argv[1]))"
    words = [sys.executable, "-c", f"{claimed}; print('claimed', flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*words, str(run.folder)], **pipes) as other:
        assert other.stdout.readline().strip() == b"claimed"
        owner = run.read("owner.json")
        silent = owner | {"last_wrote": time.time() - 2 * OWNER_SILENT}
        run.write("owner.json", silent)
        with pytest.raises(RunError, match=f"process {other.pid} works on run"):
            run.claim()
        run.write("owner.json", silent | {"began": "1"})
        run.claim()  # another process, long ended, had its number
        other.communicate()


@pytest.mark.parametrize("content", ['{"preset": "demo", ', '{"of_a_later_version": 1}'])
def test_a_run_that_cannot_be_read_is_passed_over_by_name(own_home: Path, content: str) -> None:
    wanted = schema.resolve({})
    first = runs.start(wanted)
    storage.write_text(first.folder / "settings.json", content)
    with pytest.warns(UserWarning, match=f"The run {first.folder.name} is passed over: "):
        assert runs.last_settings() is None
    with pytest.warns(UserWarning, match=f"The run {first.folder.name} is passed over: "):
        second = runs.start(wanted)
    assert second.folder.name == f"{wanted.name}-2"
    assert (first.folder / "settings.json").read_text() == content
    assert runs.started(wanted) == second.folder


def test_a_run_named_with_umlauts_is_found_again(own_home: Path) -> None:
    begun = open_folder(own_home / "runs" / "prüfung", {"seed": 3})
    assert runs.find({}).folder == begun.folder
