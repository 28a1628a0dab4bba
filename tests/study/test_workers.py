"""A study on real worker processes: they and the driver are killed, and no number changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ksdd_lib import storage
from ksdd_lib.__main__ import main
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.models import two_stage
from ksdd_lib.runs.lock import Owner
from ksdd_lib.study import run as studies
from ksdd_lib.study import work
from ksdd_lib.study.grid import JUDGING, Grid, jobs_of, tasks_of

pytest.importorskip("distributed")

FIXED = {
    "preset": "demo",
    "image_size": "128x128",
    "generated_items": 6,
    "segmentation_steps": 12,
    "decision_steps": 12,
    "segmentation_batch_size": 1,
    "decision_batch_size": 2,
    "average_flips": False,
    "checkpoint_steps": 2,
    "precision": "bfloat16",
}
GRID = Grid(
    name="demo",
    vary={"annotation": ("fine", "dilated9"), "score": ("decision", "mask")},
    fixed=FIXED,
)
ROOT = Path(__file__).resolve().parents[2]


class Study:
    """A study's folder, and its command in processes of their own."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        self.home, self.out = folder / "home", folder / "out"
        self.home.mkdir()
        (folder / "grid.json").write_text(grid.model_dump_json())
        self.jobs = jobs_of(grid, "generated")
        self.line = [sys.executable, "-m", "ksdd_lib", "study", "--data", "generated"]
        self.line += ["--out", str(self.out), "--grid", str(folder / "grid.json")]
        preload = str(Path(__file__).with_name("narrow_preload.py"))
        self.environment = os.environ | {
            "KSDD_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([preload]),
        }

    def start(self, *words: str, line: list[str] | None = None, **more) -> subprocess.Popen:
        return subprocess.Popen(
            [*(line or self.line), *words],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *words: str, **more: str) -> str:
        process = self.start(*words, **more)
        told, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, told
        return told

    def begun(self, process: subprocess.Popen, but: str = "") -> tuple[Path, int]:
        """The first run folder that is in the middle of a stage, and its process."""
        while process.poll() is None:
            for path in self.out.glob("*/fold?/*-00000[2468].json"):
                run = path.parents[1]
                is_done = (path.parent / f"{path.name.partition('-')[0]}.done.json").exists()
                if run.name != but and not is_done and (run / "owner.json").exists():
                    return run, storage.read_record(run / "owner.json", Owner).number
            time.sleep(0.01)
        raise AssertionError(process.communicate()[0])

    def weights(self) -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in self.out.rglob("*.pt")}


def kill(process: subprocess.Popen) -> None:
    """Kill -9 a driver, and wait until the workers that it started are gone too."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive


@pytest.fixture
def undisturbed(tmp_path, monkeypatch, narrow):
    """A function: what the runs of a grid come to in this process, without any worker."""

    def results(grid: Grid) -> dict[str, list[bytes]]:
        assert two_stage.FEATURES == 64
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(work, "make_report", lambda *_: None)
        jobs, out = jobs_of(grid, "generated"), tmp_path / "alone"
        for task in tasks_of(jobs):
            work.perform(str(out), task)
        monkeypatch.undo()
        return {job.name: content(out / job.name) for job in jobs}

    return results


def content(run: Path) -> list[bytes]:
    """A run's predictions and last weights."""
    last = [max(run.glob(f"fold?/{stage}-*.pt")) for stage in ("segmentation", "decision")]
    return [path.read_bytes() for path in (run / "predictions.csv", *last)]


@pytest.mark.slow
@pytest.mark.fault(80)
def test_a_worker_and_the_driver_are_killed_and_no_number_changes(tmp_path, undisturbed):
    study = Study(tmp_path, GRID)
    expected = undisturbed(GRID)
    driver = study.start("--workers", "2")
    lost, number = study.begun(driver)
    assert number != driver.pid
    os.kill(number, signal.SIGKILL)
    study.begun(driver, but=lost.name)
    time.sleep(3)  # the study goes on with the other worker
    assert driver.poll() is None
    kill(driver)
    told = study.finish("--workers", "2")
    assert "Dask's dashboard: http" in told and "copied" in told
    assert {job.name: content(study.out / job.name) for job in study.jobs} == expected
    before = study.weights()
    assert "All are finished: nothing was trained." in study.finish("--workers", "2")
    assert study.weights() == before
    page = (study.out / "study.html").read_text("utf-8")
    assert "12 of 12 runs finished" in page and "GENERATED" in page


ONE = GRID.narrowed({"annotation": "fine", "score": "decision", "fold": "0"})


class Cluster:
    """A Dask scheduler and its workers, each a process of its own, as one starts them by hand."""

    def __init__(self, study: Study, workers: int, port: int = 0) -> None:
        note = study.out.with_name("scheduler.json")
        note.unlink(missing_ok=True)
        self.scheduler = self._dask(
            study, "scheduler", note, f"--port={port}", "--host=127.0.0.1", "--dashboard-address=:0"
        )
        self.workers = [
            self._dask(study, "worker", note, "--nthreads=1", "--no-dashboard")
            for _ in range(workers)
        ]
        while not note.exists():
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        self.address = json.loads(note.read_text())["address"]

    def _dask(self, study: Study, kind: str, note: Path, *words: str) -> subprocess.Popen:
        module = [sys.executable, "-m", f"distributed.cli.dask_{kind}"]
        return study.start(f"--scheduler-file={note}", *words, line=module)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            if process.poll() is None:
                kill(process)


@pytest.mark.slow
@pytest.mark.fault(80)
def test_a_cluster_goes_on_without_the_driver(tmp_path):
    study = Study(tmp_path, ONE)
    with Cluster(study, workers=1) as cluster:
        driver = study.start("--cluster", cluster.address)
        folder, _ = study.begun(driver)
        driver.kill()
        driver.communicate()
        while not (folder / "report.html").exists():
            assert cluster.workers[0].poll() is None
            time.sleep(0.1)
    assert "nothing was trained" in study.finish("--cluster", cluster.address)


@pytest.mark.slow
@pytest.mark.fault(80)
def test_a_scheduler_is_killed_and_started_again_and_no_number_changes(tmp_path, undisturbed):
    grid = GRID.narrowed({"score": "decision", "fold": "0"})
    study, expected = Study(tmp_path, grid), undisturbed(grid)
    with Cluster(study, workers=2) as cluster:
        address = cluster.address
        driver = study.start("--cluster", address)
        study.begun(driver)
        kill(cluster.scheduler)
        told, _ = driver.communicate(timeout=300)
        assert driver.returncode == 2
        assert "error: The scheduler is gone: run the same command again, it goes on." in told
        assert "Traceback" not in told
    port = int(address.rpartition(":")[2])
    with Cluster(study, workers=2, port=port):
        study.finish("--cluster", address)
    assert {job.name: content(study.out / job.name) for job in study.jobs} == expected


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_are_done(tmp_path):
    """The official folds belong to KolektorSDD alone."""
    fixed = {"preset": "demo", "image_size": "128x128", "method": "darkest_pixel"}
    grid = Grid(name="two", vary={"folds": ("official", "clean")}, fixed=fixed, folds=(0,))
    study = Study(tmp_path, grid)
    process = study.start("--workers", "1")
    told, _ = process.communicate(timeout=1200)
    assert process.returncode == 2, told
    assert "error: 1 tasks failed, the first one: official-seed0-fold0, judging: The" in told
    assert "clean-seed0-fold0, judging: judged" in told
    page = (study.out / "study.html").read_text("utf-8")
    assert "1 of 2 runs finished" in page and "fold 0: no stage done" in page


SBATCH = """#!/bin/sh
script=$(cat "$1")
grep -q "^#SBATCH" "$1" && grep "^#SBATCH\\|nthreads" "$1" > {log}
cp "$1" {log}.sh
sh {log}.sh > {log}.out 2>&1 &
echo $! > {log}.pid
echo "Submitted batch job 1"
"""


@pytest.mark.slow
def test_slurm_is_asked_for_workers(tmp_path):
    study, log = Study(tmp_path, ONE), tmp_path / "log"
    tools = tmp_path / "bin"
    for name, text in {"sbatch": SBATCH.format(log=log), "scancel": "#!/bin/sh\n"}.items():
        storage.write_text(tools / name, text)
        (tools / name).chmod(0o755)
    keywords = {"cores": 1, "memory": "4GB", "account": "parts", "walltime": "00:30:00"}
    (tmp_path / "slurm.json").write_text(json.dumps(keywords))
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    told = study.finish("--slurm", str(tmp_path / "slurm.json"), PATH=path)
    assert "3 of 3: " in told
    asked = log.read_text()
    assert "-A parts" in asked and "-t 00:30:00" in asked and "--nthreads 1" in asked
    page = (study.out / "study.html").read_text("utf-8")
    assert "1 of 1 runs finished" in page


@pytest.fixture(scope="module")
def done(tmp_path_factory, narrow):
    """The folder of a study of two runs that share both stages, and its tasks."""
    out = tmp_path_factory.mktemp("study")
    grid = GRID.narrowed({"annotation": "fine", "fold": "1"})
    tasks = tasks_of(jobs_of(grid, "generated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSDD_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(work, "make_report", lambda *_: None)
        answers = [work.perform(str(out), task) for task in tasks]
        yield out, tasks, answers


class TestTasks:
    """In this process, without Dask."""

    def test_equal_stages_are_copied_and_finished_ones_are_left(self, done):
        out, tasks, answers = done
        assert answers == ["trained", "trained", "judged", "copied", "copied", "judged"]
        for job in {task.job.name for task in tasks}:
            (out / job / "report.html").write_text("as `make_report` leaves it")
        assert {work.perform(str(out), task) for task in tasks} == {"was already finished"}

    def test_a_copied_stage_is_the_same_one(self, done):
        out, tasks, _ = done
        first, second = (content(out / job) for job in dict.fromkeys(t.job.name for t in tasks))
        assert first[1:] == second[1:] and first[0] != second[0]
        rows = [read_predictions(out / task.job.name / "predictions.csv") for task in tasks[2::3]]
        assert [row.map_score for row in rows[0]] == [row.map_score for row in rows[1]]
        assert [row.score for row in rows[1]] == [row.map_score for row in rows[1]]

    def test_a_stage_whose_source_is_damaged_is_trained(self, done, tmp_path):
        out, tasks, _ = done
        copy = next(task for task in tasks if task.source)
        shutil.copytree(out / copy.source, tmp_path / copy.source)
        for path in (tmp_path / copy.source).glob("fold1/segmentation-*.pt"):
            path.write_bytes(b"cut")
        assert work.perform(str(tmp_path), copy) == "trained"
        [ours] = (tmp_path / copy.job.name).glob("fold1/segmentation-000012.pt")
        assert ours.read_bytes() == content(out / copy.job.name)[1]

    @pytest.mark.parametrize("stage", ["decision", JUDGING])
    def test_an_earlier_stage_that_was_damaged_since_is_trained_again(self, done, tmp_path, stage):
        out, tasks, _ = done
        task = next(task for task in tasks if task.stage == stage)
        ours = tmp_path / task.job.name
        shutil.copytree(out / task.job.name, ours)
        for path in ours.glob("fold1/segmentation-*.pt"):
            path.write_bytes(b"cut")
        work.perform(str(tmp_path), task)
        assert content(ours) == content(out / task.job.name)

    def test_a_folder_that_another_holds_is_waited_for(self, done, monkeypatch):
        out, tasks, _ = done
        note, waited = out / tasks[0].job.name / "owner.json", []
        other = Owner(owner="elsewhere process 7", last_wrote=time.time(), system="s", token="t")
        storage.write_record(note, other)

        def sleep(seconds):
            waited.append(seconds)
            note.unlink()

        monkeypatch.setattr(work.time, "sleep", sleep)
        assert work.perform(str(out), tasks[0]) == "was already finished" and len(waited) == 1


class TestWhatIsRefused:
    def test_an_address_where_nothing_answers(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KSDD_HOME", str(tmp_path))
        monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
        import dask

        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
            with pytest.raises(studies.RunError, match="No Dask scheduler answers at tcp://127"):
                from ksdd_lib.study import engine

                with engine.connected(cluster="tcp://127.0.0.1:9"):
                    pass

    @pytest.mark.parametrize(
        "words", [["--workers=0"], ["--workers=-2"], ["--cluster=tcp://h:1", "--slurm=file"]]
    )
    def test_workers_that_cannot_be(self, tmp_path, capsys, words):
        line = ["study", "--data=generated", f"--out={tmp_path / 'out'}", *words]
        assert main(line) == 2 and not (tmp_path / "out").exists()
        assert "Give one of --cluster and --slurm" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "text", ["{}", '{"cores": 2}', '{"cores": "many", "memory": "1GB"}', "[]", "{"]
    )
    def test_a_file_that_does_not_suit_slurm(self, tmp_path, text):
        from ksdd_lib.study import engine

        (tmp_path / "slurm.json").write_text(text)
        with pytest.raises(studies.RunError, match="slurm.json"):
            with engine.connected(slurm=tmp_path / "slurm.json"):
                pass

    def test_without_dask_one_sentence_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KSDD_HOME", str(tmp_path))
        monkeypatch.setitem(sys.modules, "distributed", None)
        monkeypatch.delitem(sys.modules, "ksdd_lib.study.engine", raising=False)
        monkeypatch.delattr("ksdd_lib.study.engine", raising=False)
        monkeypatch.setattr(studies, "plan", lambda *_: None)
        monkeypatch.setattr(studies, "told", lambda *_: "")
        with pytest.raises(studies.RunError, match=r"needs Dask .*'\.\[study\]'"):
            studies.study("generated", tmp_path / "out", ONE)
