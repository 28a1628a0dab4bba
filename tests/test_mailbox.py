"""Drive may fail, vanish or mix up names: work here goes on, and nothing wrong comes back."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ksdd_lib import checkpoint, colab, mailbox, model, prepare, recovery, storage, vouched
from ksdd_lib.courier import Courier
from ksdd_lib.errors import RunError
from ksdd_lib.evaluate import evaluate
from ksdd_lib.report import make_report
from ksdd_lib.run import OWNER_SILENT, Run, find, open_folder
from ksdd_lib.train import read_history, train_decision, train_segmentation

NO_SPACE, GONE, BROKEN, READ_ONLY = errno.ENOSPC, errno.ENOTCONN, errno.EIO, errno.EROFS


class Drive:
    """A folder that stands for Drive. `fault(n)` is the error number of its n-th write, or None."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.written = root, []
        self.fault: Callable[[int], int | None] = lambda n: None
        root.mkdir()
        monkeypatch.setattr(storage, "open", self._open, raising=False)

    def _open(self, path: Path, mode: str = "r"):
        if "w" in mode and Path(path).is_relative_to(self.root):
            number = self.fault(len(self.written) + 1)
            self.written.append(Path(path).name.split(".")[1])
            if number:
                raise OSError(number, os.strerror(number), str(path))
        return open(path, mode)

    def files(self, name: str) -> set[str]:
        """What stands on Drive of a run, without markers."""
        folder = self.root / "ksdd" / "runs" / name
        paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".ok"]
        return {path.relative_to(folder).as_posix() for path in paths} - {mailbox.SENDER}


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    return Drive(tmp_path / "MyDrive", monkeypatch)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data and runs of the first machine."""
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "first"))
    return tmp_path / "first"


@pytest.fixture
def new_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Work goes on at another home, which at first has no run and no data."""

    def move(name: str = "second") -> Path:
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / name))
        monkeypatch.setattr(mailbox, "machine_name", lambda: name)
        return tmp_path / name

    return move


def begin(name: str = "demo-clean-seed0", **explicit) -> Run:
    """Open a run among the runs of the machine at work."""
    return open_folder(Path(os.environ["KSDD_HOME"]) / "runs" / name, {"preset": "demo"} | explicit)


def save_checkpoint(run: Run, step: int, stage: str = "segmentation", **identity) -> None:
    checkpoint.save(run.fold_folder(0), stage, step, {"fold": 0} | identity, {"step": step})


def finish(run: Run, step: int, stage: str, **identity) -> None:
    """The last checkpoint of a stage, its history and its done marker."""
    save_checkpoint(run, step, stage, **identity)
    (run.fold_folder(0) / f"{stage}.jsonl").write_text(f'{{"step": {step}}}\n')
    run.write(f"fold0/{stage}.done.json", {"steps": step})
    run.note_time(f"{stage} stage, fold 0", step)


def weights(run: Run, stage: str = "segmentation") -> str:
    return checkpoint.load(run.fold_folder(0), stage, {"fold": 0}).sha256


def restore(home: Path, drive: Drive) -> Path | None:
    """`restore`, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return recovery.restore(home, drive.root)


@pytest.fixture
def run(home: Path) -> Run:
    """A run in the middle of its first stage."""
    run = begin()
    run.write("folds.json", {"protocol": "clean"})
    run.claim()
    save_checkpoint(run, 10)
    save_checkpoint(run, 20)
    (run.fold_folder(0) / "segmentation.jsonl").write_text('{"step": 20}\n')
    return run


WHOLE = {
    "settings.json",
    "folds.json",
    "fold0/segmentation.jsonl",
    "fold0/segmentation-000020.pt",
    "fold0/segmentation-000020.json",
}


def mirror_whole(run: Run, drive: Path) -> None:
    """`mirror`, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mailbox.mirror(run, drive)


def same(one: Path, other: Path, names: set[str]) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_drive_gets_the_results_and_the_newest_checkpoint_and_nothing_else(run: Run, drive: Drive):
    mirror_whole(run, drive.root)
    assert drive.files(run.folder.name) == WHOLE
    folder = drive.root / "ksdd" / "runs" / run.folder.name
    assert same(run.folder, folder, WHOLE)
    for name in WHOLE:
        marker = json.loads((folder / f"{name}.ok").read_text())
        data = (folder / name).read_bytes()
        record = {"bytes": len(data), "sha256": storage.sha256(data)}
        assert marker == record | {"file": Path(name).name}
    assert (folder.parent / "latest.txt").read_text() == run.folder.name + "\n"


def test_the_weights_are_whole_on_drive_before_their_own_marker_comes(run: Run, drive: Drive):
    mailbox.mirror(run, drive.root)
    names = [name for name in drive.written if name.startswith("segmentation-000020")]
    assert len(names) == 4
    written = sorted((drive.root / "ksdd" / "runs" / run.folder.name / "fold0").glob("*20*"))
    times = {path.name.partition("20")[2]: path.stat().st_mtime_ns for path in written}
    assert times[".pt"] <= times[".pt.ok"] <= times[".json"] <= times[".json.ok"]


def test_what_is_there_already_is_not_copied_again(run: Run, drive: Drive):
    mailbox.mirror(run, drive.root)
    drive.written.clear()
    run.write("folds.json", {"protocol": "official"})
    mirror_whole(run, drive.root)
    assert sorted(drive.written) == ["folds", "folds", "sender"]


def test_an_older_checkpoint_leaves_drive_one_copy_after_the_newer_one_came(run: Run, drive: Drive):
    mailbox.mirror(run, drive.root)
    killed = drive.root / "ksdd/runs" / run.folder.name / "fold0/segmentation-000001.pt"
    killed.write_bytes(b"half of a copy that was killed")
    save_checkpoint(run, 30)
    drive.fault = lambda n: NO_SPACE
    with pytest.warns(UserWarning, match="No space left"):
        mailbox.mirror(run, drive.root)
    assert drive.files(run.folder.name) >= WHOLE
    drive.fault = lambda n: None
    newer = {"fold0/segmentation-000030.pt", "fold0/segmentation-000030.json"}
    mailbox.mirror(run, drive.root)
    assert drive.files(run.folder.name) >= WHOLE | newer
    mailbox.mirror(run, drive.root)
    left = {name for name in drive.files(run.folder.name) if name.startswith("fold0/segmentation-")}
    assert left == newer


def test_while_a_stage_trains_drive_holds_two_of_its_checkpoints(run: Run, drive: Drive):
    for step in (30, 40, 50, 60):
        save_checkpoint(run, step)
        mailbox.mirror(run, drive.root)
        names = drive.files(run.folder.name)
        held = {
            name[-9:-3]
            for name in names
            if name.startswith("fold0/segmentation-") and name.endswith(".pt")
        }
        assert len(held) <= 2 and f"{step:06d}" in held


def test_a_run_that_lies_on_drive_is_not_copied_onto_itself(run: Run, drive: Drive):
    mailbox.mirror(run, drive.root)
    there = open_folder(drive.root / "ksdd" / "runs" / run.folder.name, {})
    there.write("metrics.json", {"ap": 0.5})
    before = contents(there.folder)
    mirror_whole(there, drive.root)
    mirror_whole(there, drive.root)
    assert contents(there.folder) == before


def test_the_newest_report_has_one_name_on_drive_where_people_find_it(run: Run, drive: Drive):
    reports = drive.root / "ksdd" / "reports"
    mirror_whole(run, drive.root)
    assert not reports.exists()
    for text in ("first", "second", "third"):
        (run.folder / "report.html").write_text(text)
        mirror_whole(run, drive.root)
        assert {p.name: p.read_text() for p in reports.iterdir()} == {"demo-clean-seed0.html": text}
    drive.written.clear()
    mirror_whole(run, drive.root)
    assert drive.written == ["sender"]


@pytest.mark.fault(25)
@pytest.mark.fault(26)
def test_a_report_that_does_not_reach_drive_is_one_warning_and_the_old_one_stays(
    run: Run, drive: Drive
):
    there = drive.root / "ksdd" / "reports" / "demo-clean-seed0.html"
    (run.folder / "report.html").write_text("first")
    mirror_whole(run, drive.root)
    (run.folder / "report.html").write_text("second")
    drive.fault = lambda n: NO_SPACE if drive.written[-1:] == ["sender"] else None
    with pytest.warns(UserWarning, match="Not all .*No space left.* next copy") as caught:
        mailbox.mirror(run, drive.root)
    assert len(caught) == 1 and there.read_text() == "first"
    assert [path.name for path in there.parent.iterdir()] == [there.name]
    drive.fault = lambda n: None
    left = there.with_name(f".{there.name}.77.tmp")
    left.write_text("half of a copy that was killed")
    mirror_whole(run, drive.root)
    assert there.read_text() == "second" and not left.exists()
    there.write_text("sec")  # only a part arrived
    mirror_whole(run, drive.root)
    assert there.read_text() == "second"


def test_a_run_of_other_settings_on_drive_is_left_alone(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mailbox.mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    assert other.folder.name == run.folder.name
    mailbox.mirror(other, drive.root)
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)
    assert drive.files(f"{run.folder.name}-2") == {"settings.json"}
    shutil.rmtree(other.folder.parent)
    home = other.folder.parent.parent
    assert recovery.restore(home, drive.root) == other.folder, "under its own name again"


def test_settings_changed_before_their_stage_stay_with_their_run(run: Run, drive: Drive):
    mailbox.mirror(run, drive.root)
    mailbox.mirror(run.amend({"decision_steps": 9}), drive.root)
    assert [path.name for path in (drive.root / "ksdd" / "runs").iterdir() if path.is_dir()] == [
        run.folder.name
    ]


def test_a_new_machine_goes_on_with_the_run_used_last(
    run: Run, drive: Drive, new_machine: Callable[[], Path], capsys: pytest.CaptureFixture
):
    mailbox.mirror(run, drive.root)
    home = new_machine()
    with pytest.raises(RunError, match="01_download_data"):
        find({})
    folder = restore(home, drive)
    assert folder == home / "runs" / run.folder.name
    assert same(run.folder, folder, WHOLE)
    assert find({}).settings == run.settings
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 20
    assert "back from Drive: 5 files" in capsys.readouterr().out


# Killed inside a copy: content goes to a new name, and the old one stays until the marker is there


def two_states(run: Run, drive: Drive) -> tuple[Run, dict[str, bytes], dict[str, bytes]]:
    """A run on Drive that has gone on since -> it, its files on Drive, its files here."""
    finish(run, 30, "segmentation")
    run.write("data.json", {"fingerprint": "a", "archive_sha256": None, "report": "short"})
    run.write("metrics.json", {"ap": 0.5})
    mirror_whole(run, drive.root)
    before = contents(run.folder)
    for ending in ("pt", "json"):  # the older checkpoint, which is not copied
        (run.fold_folder(0) / f"segmentation-000020.{ending}").unlink()
        del before[f"fold0/segmentation-000020.{ending}"]
    later = run.amend({"decision_steps": 9})
    save_checkpoint(later, 9, "decision", predecessor=weights(run))
    for name in ("data.json", "folds.json", "metrics.json", "fold0/segmentation.done.json"):
        later.write(name, later.read(name) | {"later": True})
    later.note_time("segmentation stage, fold 0", 31)
    with (run.fold_folder(0) / "segmentation.jsonl").open("a") as file:
        file.write('{"step": 31}\n')
    begin("demo-clean-seed5", seed=5)
    begin()  # so that latest.txt is written anew
    (run.folder.parent / mailbox.SEEN).unlink()
    return later, before, contents(run.folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "owner.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def die_at_write(monkeypatch: pytest.MonkeyPatch, drive: Drive, number: int) -> list[str]:
    """The process ends before its n-th write to Drive -> the names of its writes."""
    plain, names = storage.write_bytes, []

    def write(path: Path, data: bytes) -> None:
        if path.is_relative_to(drive.root):
            names.append(path.name)
            if len(names) == number:
                raise SystemExit
        plain(path, data)

    monkeypatch.setattr(storage, "write_bytes", write)
    return names


@pytest.mark.fault(19)
@pytest.mark.fault(26)
def test_a_second_copy_that_is_killed_leaves_each_file_old_or_new(
    run: Run, drive: Drive, new_machine: Callable[[], Path], tmp_path: Path
):
    later, before, after = two_states(run, drive)
    first = shutil.copytree(drive.root, tmp_path / "first copy")
    number, done = 0, False
    while not done:
        number += 1
        shutil.rmtree(drive.root)
        shutil.copytree(first, drive.root)
        (run.folder.parent / mailbox.SEEN).unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            names = die_at_write(patch, drive, number)
            try:
                mirror_whole(later, drive.root)
                done = True
            except SystemExit:
                pass
        shutil.rmtree(tmp_path / "second", ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was on its way for the first time
            patch.setenv("KSDD_HOME", str(tmp_path / "second"))
            folder = recovery.restore(tmp_path / "second", drive.root)
            came = contents(folder)
            assert before.keys() <= came.keys(), f"killed before {names[-1]}"
            assert all(came[name] in (before.get(name), after[name]) for name in came), names[-1]
            if "fold0/decision-000009.json" in came:
                assert find({}).settings.decision_steps == 9
            assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 30
    assert came == after
    overwritten = {name for name in before if before[name] != after[name]}
    assert len(overwritten) == 7 and number > 2 * len(overwritten)


@pytest.mark.fault(22)
@pytest.mark.fault(26)
def test_weights_and_marker_of_two_trainings_are_passed_over(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    save_checkpoint(run, 30)
    mirror_whole(run, drive.root)
    checkpoint.save(run.fold_folder(0), "segmentation", 40, {"fold": 0}, {"step": 40})
    mirror_whole(run, drive.root)
    checkpoint.save(run.fold_folder(0), "segmentation", 40, {"fold": 0}, {"step": 40, "by": 2})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        die_at_write(patch, drive, 3)  # the new weights are vouched for
        mailbox.mirror(run, drive.root)
    folder = restore(new_machine(), drive)
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 30


@pytest.mark.fault(26)
def test_content_that_is_replaced_leaves_drive_when_the_new_one_is_vouched_for(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    folder = drive.root / "ksdd" / "runs" / run.folder.name
    for protocol in ("clean", "official", "known", "clean"):
        run.write("folds.json", {"protocol": protocol})
        mirror_whole(run, drive.root)
        [held] = [path for path in folder.glob("folds*.json")]
        assert json.loads(held.read_bytes()) == {"protocol": protocol}
    assert restore(new_machine(), drive)
    assert find({}).read("folds.json") == {"protocol": "clean"}


@pytest.mark.fault(26)
def test_a_folder_from_before_markers_named_their_content_is_read_and_gone_on_with(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mirror_whole(run, drive.root)
    for marker in drive.root.rglob("*.ok"):
        record = json.loads(marker.read_text())
        del record["file"]
        marker.write_text(json.dumps(record))
    drive.written.clear()
    mirror_whole(run, drive.root)
    assert drive.written == ["sender"], "nothing is copied again"
    run.write("folds.json", {"protocol": "official"})
    mirror_whole(run, drive.root)
    assert same(run.folder, restore(new_machine(), drive), WHOLE)


@pytest.mark.fault(19)
@pytest.mark.fault(26)
@pytest.mark.parametrize("killed_at", ["latest.txt", "latest.txt.ok"])
def test_killed_before_the_run_is_named_the_run_copied_last_is_taken(
    run: Run, drive: Drive, new_machine: Callable[[], Path], killed_at: str
):
    other = begin("demo-clean-seed5", seed=5)
    mirror_whole(other, drive.root)
    sender = drive.root / "ksdd" / "runs" / other.folder.name / mailbox.SENDER
    sender.write_text(json.dumps(vouched.read_object(sender) | {"time": time.time() - 60}))
    for path in sender.parent.parent.glob("latest*"):
        path.unlink()
    plain = storage.write_bytes

    def write(path: Path, data: bytes) -> None:
        if path.name == killed_at and path.is_relative_to(drive.root):
            raise SystemExit
        plain(path, data)

    begin()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(storage, "write_bytes", write)
        mailbox.mirror(run, drive.root)
    second = new_machine()
    with pytest.warns(UserWarning, match="seed0 was copied last and is taken"):
        folder = recovery.restore(second, drive.root)
    assert folder == second / "runs" / run.folder.name and find({}).folder == folder
    assert same(run.folder, folder, WHOLE)


@pytest.mark.fault(19)
@pytest.mark.fault(24)
def test_the_next_copy_removes_what_killed_copies_have_left(run: Run, drive: Drive):
    mirror_whole(run, drive.root)
    whole = sorted(drive.root.rglob("*"))
    code = """
import os, signal, sys
from pathlib import Path
from ksdd_lib import mailbox
from ksdd_lib.run import open_folder

replace, left = os.replace, [int(sys.argv[3])]
def die(source, target):
    left[0] -= Path(target).is_relative_to(sys.argv[2])
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = die
mailbox.copy(open_folder(sys.argv[1], {}), Path(sys.argv[2]))
"""
    left = {}
    for number in (1, 2):  # before the content has its name, and before the marker has
        run.write("folds.json", {"protocol": f"killed {number}"})
        words = [sys.executable, "-c", code, run.folder, drive.root, number]
        repository = Path(__file__).resolve().parent.parent
        subprocess.run(list(map(str, words)), cwd=repository, check=False)
        left[number] = [path.suffix for path in set(drive.root.rglob("*")) - set(whole)]
    assert left[1] == [".tmp"] and sorted(left[2]) == [".json", ".tmp"]
    run.write("folds.json", {"protocol": "clean"})
    mirror_whole(run, drive.root)
    assert sorted(drive.root.rglob("*")) == whole


# Several machines, as in Colab, where each notebook has its own


def test_a_notebook_opened_too_early_gets_the_rest_when_it_is_there(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    save_checkpoint(run, 10, "decision", predecessor=weights(run))
    mailbox.mirror(run, drive.root)
    second = new_machine()
    early = restore(second, drive)
    assert find({}).has("segmentation", 0) and not find({}).has("decision", 0)

    new_machine("first")
    finish(run, 40, "decision", predecessor=weights(run))
    mailbox.mirror(run, drive.root)
    new_machine()
    assert restore(second, drive) == early
    assert find({}).has("decision", 0)
    assert checkpoint.newest_step(early / "fold0", "decision") == 40
    names = {"timing.json", "fold0/decision.jsonl", "fold0/decision-000040.pt"}
    assert same(
        run.folder,
        early,
        WHOLE - {"fold0/segmentation-000020.pt"} - {"fold0/segmentation-000020.json"} | names,
    )

    new_machine("first")
    run.write("metrics.json", {"ap": 1.0})
    (run.folder / "predictions.csv").write_text("image\n")
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "roc.png").write_bytes(b"png")
    mailbox.mirror(run, drive.root)
    new_machine()
    restore(second, drive)
    assert same(run.folder, early, {"metrics.json", "predictions.csv", "figures/roc.png"})


def test_a_second_look_brings_nothing_twice(
    run: Run, drive: Drive, new_machine: Callable[[], Path], capsys: pytest.CaptureFixture
):
    mailbox.mirror(run, drive.root)
    second = new_machine()
    folder = restore(second, drive)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert restore(second, drive) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert capsys.readouterr().out == ""


def test_a_run_begun_in_another_tab_is_come_to(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    newer = begin("demo-clean-seed5", seed=5)
    mailbox.mirror(newer, drive.root)

    new_machine("first")
    mailbox.mirror(run, drive.root)  # its training goes on meanwhile
    assert restore(home, drive) == home / "runs" / "demo-clean-seed5"
    assert find({}).settings.seed == 5
    mailbox.mirror(find({}), drive.root)

    new_machine()
    assert restore(second, drive) == newer.folder
    begin()  # the user goes back to the older run, on purpose
    mailbox.mirror(find({}), drive.root)
    new_machine("first")
    assert restore(home, drive) == run.folder


def test_a_run_begun_here_since_is_not_displaced(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    mine = begin("demo-clean-seed7", seed=7)
    second = new_machine()
    restore(second, drive)
    mailbox.mirror(begin("demo-clean-seed5", seed=5), drive.root)

    new_machine("first")
    restore(home, drive)
    assert find({}).folder == mine.folder
    mailbox.mirror(mine, drive.root)
    new_machine()
    assert restore(second, drive) == second / "runs" / mine.folder.name


def test_a_run_begun_without_drive_is_kept_when_drive_comes(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    new_machine()
    mailbox.mirror(begin("demo-clean-seed5", seed=5), drive.root)
    new_machine("first")
    assert restore(home, drive) is None and find({}).folder == run.folder


def test_what_is_further_here_is_kept_stage_by_stage(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mailbox.mirror(run, drive.root)
    new_machine()
    restore(home.with_name("second"), drive)
    other = find({})
    save_checkpoint(other, 20, "decision", predecessor=weights(other))
    mailbox.mirror(other, drive.root)

    new_machine("first")
    finish(run, 40, "decision", predecessor=weights(run))
    run.write("metrics.json", {"ap": 1.0})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    restore(home, drive)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_as_many_steps_and_the_same_content_is_not_further(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    checkpoint.save(run.fold_folder(0), "segmentation", 20, {"fold": 0}, {"step": 20, "other": 1})
    run.write("folds.json", {"protocol": "official"})
    mine = weights(run)
    restore(home, drive)
    assert weights(run) == mine and run.read("folds.json") == {"protocol": "official"}


def test_a_checkpoint_damaged_here_is_replaced(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    path = run.fold_folder(0) / "segmentation-000020.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    restore(home, drive)
    assert path.read_bytes() == whole


@pytest.mark.fault(22)
def test_where_the_newest_on_drive_is_damaged_the_one_before_comes(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mailbox.mirror(run, drive.root)
    finish(run, 30, "segmentation")
    mailbox.mirror(run, drive.root)
    bad = drive.root / "ksdd" / "runs" / run.folder.name / "fold0" / "segmentation-000030.pt"
    bad.write_bytes(b"")
    second = new_machine()
    with pytest.warns(UserWarning, match="passed over: fold0/segmentation-000030.pt"):
        folder = recovery.restore(second, drive.root)
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 20
    assert not find({}).has("segmentation", 0), "a done marker comes with its weights only"


def test_a_stage_that_goes_on_from_other_weights_is_passed_over(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    other = find({})
    finish(other, 30, "segmentation", by="second")
    finish(other, 40, "decision", predecessor="0" * 64)
    other.write("metrics.json", {"ap": 0.5})
    mailbox.mirror(other, drive.root)

    new_machine("first")
    finish(run, 30, "segmentation")
    with pytest.warns(UserWarning, match="fold0/decision on Drive goes on from other weights"):
        recovery.restore(home, drive.root)
    assert not find({}).has("decision", 0) and not find({}).has("evaluation")


def test_results_of_other_weights_do_not_come(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mailbox.mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    other = find({})
    checkpoint.save(other.fold_folder(0), "decision", 40, {"fold": 0}, {"by": "second"})
    other.write("fold0/decision.done.json", {"steps": 40})
    other.write("metrics.json", {"ap": 0.5})
    mailbox.mirror(other, drive.root)

    new_machine("first")
    finish(run, 40, "decision")
    restore(home, drive)
    assert not find({}).has("evaluation")


def test_settings_that_a_stage_elsewhere_began_with_come_with_it(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mailbox.mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)

    new_machine("first")
    amended = run.amend({"decision_steps": 9})
    finish(amended, 9, "decision", predecessor=weights(run))
    mailbox.mirror(amended, drive.root)
    new_machine()
    restore(second, drive)
    assert find({}).settings == amended.settings and find({}).has("decision", 0)


def test_a_run_continued_with_other_settings_on_both_sides_stays_as_it_is(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mailbox.mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    save_checkpoint(find({}), 1, "decision", predecessor=weights(find({})))
    amended = run.amend({"decision_steps": 9})
    finish(amended, 9, "decision", predecessor=weights(run))
    mailbox.mirror(amended, drive.root)
    with pytest.warns(UserWarning, match="with other settings .decision.*not brought"):
        assert recovery.restore(second, drive.root) is None
    assert checkpoint.newest_step(find({}).fold_folder(0), "decision") == 1


def test_another_run_of_the_name_gets_a_number_here(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mailbox.mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    save_checkpoint(other, 5)
    mailbox.mirror(other, drive.root)
    new_machine("first")
    assert restore(home, drive) == home / "runs" / "demo-clean-seed0-2"
    assert find({}).settings.segmentation_steps == 7
    assert checkpoint.newest_step(run.fold_folder(0), "segmentation") == 20
    assert checkpoint.newest_step(find({}).fold_folder(0), "segmentation") == 5


def test_a_run_keeps_its_name_on_drive_whatever_it_is_called_here(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mailbox.mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    save_checkpoint(other, 5)
    mailbox.mirror(other, drive.root)
    third = new_machine("third")
    assert restore(third, drive).name == run.folder.name
    new_machine("first")
    begin("demo-clean-seed0-9", seed=9)  # so that this machine names its old run once more
    mailbox.mirror(find({}), drive.root)
    begin()
    mailbox.mirror(find({}), drive.root)
    new_machine("third")
    assert restore(third, drive).name == f"{run.folder.name}-2"
    mailbox.mirror(find({}), drive.root)
    assert not (drive.root / "ksdd" / "runs" / f"{run.folder.name}-2-2").exists()
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)


def test_a_run_of_other_data_on_drive_is_left_alone(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    run.write("data.json", {"fingerprint": "a", "archive_sha256": None})
    mailbox.mirror(run, drive.root)
    new_machine()
    other = begin()
    other.write("data.json", {"fingerprint": "b", "archive_sha256": None})
    mailbox.mirror(other, drive.root)
    assert {"data.json"} <= drive.files(f"{run.folder.name}-2")
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE | {"data.json"})


@pytest.mark.fault(19)
def test_killed_while_bringing_back_the_next_call_finishes(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mailbox.mirror(run, drive.root)
    home = new_machine()
    plain = storage.write_bytes
    for killed_at in range(1, 8):
        shutil.rmtree(home, ignore_errors=True)
        count = iter(range(1, 100))

        def write(path: Path, data: bytes, count=count, killed_at=killed_at) -> None:
            if next(count) == killed_at:
                raise SystemExit
            plain(path, data)

        monkeypatch.setattr(storage, "write_bytes", write)
        with pytest.raises(SystemExit), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recovery.restore(home, drive.root)
        half = home / "runs" / run.folder.name / "fold0"
        if (half / "segmentation-000020.json").exists():
            assert checkpoint.load(half, "segmentation", {"fold": 0}).step == 20
        monkeypatch.setattr(storage, "write_bytes", plain)
        assert same(run.folder, restore(home, drive), WHOLE)


# Fault 25: Drive gone, broken, full or read-only in the middle of a run


@pytest.mark.fault(25)
@pytest.mark.parametrize("number", [GONE, BROKEN, NO_SPACE, READ_ONLY])
def test_whichever_write_fails_it_is_one_warning_and_the_next_copy_catches_up(
    run: Run, drive: Drive, number: int
):
    mailbox.mirror(run, drive.root)
    for failing in range(1, len(drive.written) + 1):
        shutil.rmtree(drive.root / "ksdd", ignore_errors=True)
        drive.written.clear()
        drive.fault = lambda n, failing=failing: number if n == failing else None
        with pytest.warns(UserWarning, match="the next copy tries again") as caught:
            mailbox.mirror(run, drive.root)
        assert len(caught) == 1 and os.strerror(number) in str(caught[0].message)
        drive.fault = lambda n: None
        mirror_whole(run, drive.root)
        folder = drive.root / "ksdd" / "runs" / run.folder.name
        assert drive.files(run.folder.name) == WHOLE and same(run.folder, folder, WHOLE)


@pytest.mark.fault(25)
def test_a_dead_drive_is_given_up_soon_and_nothing_is_written_in_its_place(run: Run, drive: Drive):
    drive.root.rmdir()
    with pytest.warns(UserWarning, match="not connected"):
        mailbox.mirror(run, drive.root)
    assert not drive.root.exists()
    drive.root.mkdir()
    drive.fault = lambda n: BROKEN
    with pytest.warns(UserWarning, match="Input/output error"):
        mailbox.mirror(run, drive.root)
    assert len(drive.written) == mailbox.PATIENCE + 1
    drive.fault = lambda n: None
    mirror_whole(run, drive.root)


@pytest.mark.fault(26)
def test_a_file_that_arrives_in_part_is_not_vouched_for(
    run: Run, drive: Drive, monkeypatch: pytest.MonkeyPatch
):
    plain = storage.write_bytes

    def cut(path: Path, data: bytes) -> None:
        plain(path, data[:-1] if path.suffix == ".pt" else data)

    monkeypatch.setattr(storage, "write_bytes", cut)
    with pytest.warns(UserWarning, match="only a part arrived"):
        mailbox.mirror(run, drive.root)
    assert not list(drive.root.rglob("*.pt.ok"))
    monkeypatch.setattr(storage, "write_bytes", plain)
    mirror_whole(run, drive.root)
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)


@pytest.mark.fault(25)
def test_a_damaged_note_on_what_was_seen_is_written_anew(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror_whole(run, drive.root)
    note = run.folder.parent / mailbox.SEEN
    for damage in ('{"here": "demo-clean-seed0"}', '{"here": ["x"], "drive": 3}', "[", '{"a'):
        note.write_text(damage)
        assert restore(home, drive) == run.folder
        mirror_whole(run, drive.root)
        assert json.loads(note.read_text()) == {"here": run.folder.name, "drive": run.folder.name}


TRAINED = {"image_size": "128x128", "segmentation_steps": 2, "checkpoint_steps": 1, "fold": "0"}
TRAINED |= {"segmentation_optimizer": "sgd", "segmentation_batch_size": 1, "decision_steps": 2}


@pytest.mark.slow
@pytest.mark.fault(25)
@pytest.mark.parametrize("number", [GONE, BROKEN, NO_SPACE, READ_ONLY, errno.EDQUOT])
def test_training_goes_on_without_drive_and_copies_when_it_is_back(
    home: Path, drive: Drive, tiny_root: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr(model, "FEATURES", 16)
    run = begin(data=str(tiny_root), **TRAINED)
    data = prepare.prepare_data(run)
    drive.fault = lambda n: number
    with pytest.warns(UserWarning, match=re.escape(os.strerror(number))):
        with Courier(run, drive.root, every=0) as sent:
            assert train_segmentation(run, data, 0, saved=sent.keep)
    assert read_history(run.fold_folder(0) / "segmentation.jsonl")[-1]["step"] == 2
    drive.fault = lambda n: None
    mirror_whole(run, drive.root)
    assert {"fold0/segmentation-000002.pt", "fold0/segmentation.done.json"} <= drive.files(
        run.folder.name
    )


@pytest.mark.slow
@pytest.mark.fault(28)
@pytest.mark.parametrize("kind", ["none", "read-only"])
def test_without_a_drive_that_takes_files_the_series_ends_and_the_report_is_offered_here(
    home: Path,
    drive: Drive,
    tiny_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    kind: str,
):
    monkeypatch.setattr(model, "FEATURES", 16)
    monkeypatch.setenv("KSDD_DRIVE", "" if kind == "none" else str(drive.root))
    drive.fault = lambda n: READ_ONLY
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = colab.begin()
        run = begin(data=str(tiny_root), **TRAINED)
        data = prepare.prepare_data(run, there)
        with Courier(run, there, every=0) as sent:
            train_segmentation(run, data, 0, saved=sent.keep)
            train_decision(run, data, 0, saved=sent.keep)
        evaluate(run, data)
        path = make_report(run.folder, data.read_pair)
        Courier(run, there).finish()
        colab.share(path)
    told = [str(w.message) for w in caught if "Drive" in str(w.message)]
    assert (there is None) == (kind == "none")
    assert len(told) == (0 if kind == "none" else 2), "once a cell"
    assert all(os.strerror(READ_ONLY) in text for text in told)
    said = capsys.readouterr().out
    assert "safe on Drive" not in said and said.endswith(f"is in {run.folder.name} (in runs)\n")
    assert path.stat().st_size > 100_000 and not list(drive.root.rglob("*.*"))


@pytest.mark.fault(25)
@pytest.mark.parametrize("fault", [GONE, BROKEN])
def test_a_mount_that_cannot_be_listed_is_not_taken_for_empty(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch, fault: int
):
    """Else a new machine would believe that there is no run, and begin another."""
    mailbox.mirror(run, drive.root)
    home = new_machine()
    scandir, listdir = os.scandir, os.listdir

    def gone(list_: Callable, path: Path):
        if Path(path).is_relative_to(drive.root):
            raise OSError(fault, os.strerror(fault), str(path))
        return list_(path)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="could not be read"):
        patch.setattr(os, "scandir", lambda path=".": gone(scandir, path))
        patch.setattr(os, "listdir", lambda path=".": gone(listdir, path))
        assert recovery.restore(home, drive.root) is None
    assert restore(home, drive).name == run.folder.name


@pytest.mark.fault(25)
def test_drive_dies_while_a_run_is_brought_back(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mailbox.mirror(run, drive.root)
    home = new_machine()
    plain = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.suffix == ".pt":
            raise OSError(GONE, os.strerror(GONE), str(path))
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.warns(UserWarning, match="run this cell again"):
        assert recovery.restore(home, drive.root) is None
    with pytest.raises(RunError):
        find({})
    monkeypatch.setattr(Path, "read_bytes", plain)
    assert same(run.folder, restore(home, drive), WHOLE)


# Fault 26: a file on Drive is missing, partial or renamed


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "damage", ["missing", "partial", "altered", "no marker", "cut marker", "odd"]
)
def test_a_damaged_file_is_named_and_passed_over(
    run: Run, drive: Drive, new_machine: Callable[[], Path], damage: str
):
    mailbox.mirror(run, drive.root)
    bad = drive.root / "ksdd" / "runs" / run.folder.name / "fold0" / "segmentation-000020.pt"
    marker = bad.with_name(bad.name + ".ok")
    data = bad.read_bytes()
    if damage == "missing":
        bad.unlink()
    elif damage == "partial":
        bad.write_bytes(data[:-1])
    elif damage == "altered":
        bad.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "no marker":
        marker.unlink()
    else:
        marker.write_text('{"bytes": ' if damage == "cut marker" else "[]")
    home = new_machine()
    with pytest.warns(UserWarning, match="passed over: fold0/segmentation-000020.pt of demo"):
        folder = recovery.restore(home, drive.root)
    assert not (folder / "fold0" / "segmentation-000020.pt").exists()
    assert same(run.folder, folder, {"settings.json", "folds.json"})
    assert not (folder / "fold0").exists(), "no step without its weights"
    bad.write_bytes(data)
    marker.write_text(json.dumps({"bytes": len(data), "sha256": storage.sha256(data)}))
    assert same(run.folder, restore(home, drive), WHOLE)


@pytest.mark.fault(26)
@pytest.mark.parametrize("original", ["gone", "partial", "older"])
def test_a_file_that_drive_renamed_is_recognised(
    run: Run, drive: Drive, new_machine: Callable[[], Path], original: str
):
    mailbox.mirror(run, drive.root)
    folder = drive.root / "ksdd" / "runs" / run.folder.name
    for name in ("settings", "fold0/segmentation-000020"):
        for path in folder.glob(f"{name}.*"):
            if path.suffix == ".ok":
                continue
            renamed = path.with_name(f"{path.stem} (1){path.suffix}")
            shutil.copy(path, renamed)
            if original == "gone":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-2] if original == "partial" else b"older")
            if original == "older":
                marker = path.with_name(path.name + ".ok")
                shutil.copy(marker, marker.with_name(f"{path.name} (1).ok"))
                marker.write_text(json.dumps({"bytes": 5, "sha256": storage.sha256(b"older")}))
    home = new_machine()
    restored = restore(home, drive)
    assert same(run.folder, restored, WHOLE)
    assert not list(restored.rglob("*(1)*"))


def test_without_its_settings_a_run_does_not_come_back(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mailbox.mirror(run, drive.root)
    (drive.root / "ksdd" / "runs" / run.folder.name / "settings.json").write_text("{")
    home = new_machine()
    with (
        pytest.warns(UserWarning, match="passed over: settings.json"),
        pytest.warns(UserWarning, match="begin a new run"),
    ):
        assert recovery.restore(home, drive.root) is None
    assert not (home / "runs").exists()


# Fault 27: two runtimes on one run folder


def at_work(run: Run, drive: Drive, seconds_ago: float) -> None:
    """The run's machine has written to Drive so long ago, in the middle of its work."""
    mailbox.copy(run, drive.root, at_work=True)
    sender = drive.root / "ksdd" / "runs" / run.folder.name / mailbox.SENDER
    record = json.loads(sender.read_text())
    sender.write_text(json.dumps(record | {"time": time.time() - seconds_ago}))


@pytest.mark.fault(27)
@pytest.mark.parametrize("is_known_here", [False, True])
def test_a_second_machine_is_refused_while_the_first_is_at_work(
    run: Run,
    drive: Drive,
    new_machine: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    is_known_here: bool,
):
    new_machine("first")
    mirror_whole(run, drive.root)
    home = new_machine()
    if is_known_here:
        restore(home, drive)
    new_machine("first")
    save_checkpoint(run, 30)
    at_work(run, drive, seconds_ago=65)
    new_machine()
    before = sorted(home.rglob("*"))
    for _ in range(2):
        with pytest.raises(RunError) as refused:
            recovery.restore(home, drive.root)
    text = str(refused.value)
    assert "first works on demo-clean-seed0 and last wrote 65 s ago: stop it first" in text
    assert "free in 14 min" in text and "%env KSDD_TAKE_OVER=1" in text
    assert sorted(home.rglob("*")) == before, "nothing has come"

    monkeypatch.setenv("KSDD_TAKE_OVER", "1")
    with pytest.warns(UserWarning, match="first works on .* 65 s ago: if it still runs, stop it"):
        assert recovery.restore(home, drive.root)
    assert checkpoint.newest_step(find({}).fold_folder(0), "segmentation") == 30
    mirror_whole(find({}), drive.root)
    monkeypatch.delenv("KSDD_TAKE_OVER")
    assert restore(home, drive), "it is this machine's now"


@pytest.mark.fault(27)
@pytest.mark.parametrize("sign", ["silent", "same machine", "finished", "of an older version"])
def test_a_machine_that_is_not_at_work_holds_nobody_up(
    run: Run, drive: Drive, new_machine: Callable[[], Path], sign: str
):
    new_machine("first")
    at_work(run, drive, seconds_ago=OWNER_SILENT + 1 if sign == "silent" else 0)
    if sign == "finished":
        mirror_whole(run, drive.root)
    sender = drive.root / "ksdd" / "runs" / run.folder.name / mailbox.SENDER
    if sign == "of an older version":
        record = json.loads(sender.read_text())
        del record["at_work"]
        sender.write_text(json.dumps(record))
    home = new_machine()
    if sign == "same machine":
        new_machine("first")
    assert restore(home, drive)


@pytest.mark.fault(27)
def test_a_courier_says_when_its_machine_is_at_work(run: Run, drive: Drive):
    def is_told() -> bool:
        sender = drive.root / "ksdd" / "runs" / run.folder.name / mailbox.SENDER
        return json.loads(sender.read_text())["at_work"]

    with Courier(run, drive.root) as sent:
        sent._thread.join()
        assert is_told(), "before its first checkpoint, too"
    assert not is_told()


@pytest.mark.fault(27)
def test_a_second_process_on_one_folder_is_refused(run: Run):
    code = f"from ksdd_lib.run import open_folder; open_folder({str(run.folder)!r}, {{}}).claim()"
    here = Path(__file__).resolve().parent.parent
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=False
    )
    assert second.returncode == 1
    assert f"process {os.getpid()} works on {run.folder.name} and last wrote" in second.stderr
    run.release()
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True)


# Fault 28: no Drive at all, or read-only


@pytest.mark.fault(28)
def test_without_drive_nothing_happens(
    run: Run, home: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture
):
    run.write("data.json", {"archive_sha256": "0" * 64})
    mailbox.mirror(run, None)
    assert recovery.restore(home, None) is None
    assert not list(recwarn) and capsys.readouterr().out == ""


@pytest.mark.fault(28)
def test_a_read_only_drive_is_a_warning_and_can_still_be_read(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mailbox.mirror(run, drive.root)
    drive.fault = lambda n: READ_ONLY
    save_checkpoint(run, 30)
    with pytest.warns(UserWarning, match="Read-only file system"):
        mailbox.mirror(run, drive.root)
    assert same(run.folder, restore(new_machine(), drive), WHOLE)


# The data archive


@pytest.fixture
def downloaded(home: Path, tiny_root: Path) -> Run:
    """A run on data whose archive was downloaded."""
    path = home / "downloads" / "tiny-12345678.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(tiny_root.rglob("*.*")):
            file.write(image, image.relative_to(tiny_root))
    run = begin(data=str(path))
    prepare.prepare_data(run)
    return run


def test_a_downloaded_archive_goes_to_drive_once_and_comes_back_unpacked(
    downloaded: Run, home: Path, drive: Drive, new_machine: Callable[[], Path]
):
    (home / "downloads" / "other.zip").write_bytes(b"of another run")
    assert not mailbox.copy_archive(downloaded, home / "downloads", drive.root)
    assert [path.name for path in drive.root.rglob("*.zip")] == ["tiny-12345678.zip"]
    drive.written.clear()
    assert not mailbox.copy_archive(downloaded, home / "downloads", drive.root)
    assert not drive.written
    mailbox.mirror(downloaded, drive.root)
    second = new_machine()
    shutil.rmtree(home)
    restore(second, drive)
    again = prepare.open_data(find({}))
    assert again.root.is_relative_to(second) and len(again.samples) == 24


@pytest.mark.fault(26)
def test_an_archive_damaged_on_drive_is_not_used(
    downloaded: Run, home: Path, drive: Drive, new_machine: Callable[[], Path]
):
    assert not mailbox.copy_archive(downloaded, home / "downloads", drive.root)
    mailbox.mirror(downloaded, drive.root)
    path = drive.root / "ksdd" / "tiny-12345678.zip"
    path.write_bytes(path.read_bytes()[:-100])
    second = new_machine()
    with pytest.warns(UserWarning, match="archive on Drive is passed over"):
        assert recovery.restore(second, drive.root)
    assert not (second / "data").exists()


@pytest.mark.fault(24)
def test_a_full_drive_keeps_no_half_archive(downloaded: Run, home: Path, drive: Drive):
    mailbox.mirror(downloaded, drive.root)
    drive.fault = lambda n: NO_SPACE if drive.written[-1:] == ["sender"] else None
    sent = Courier(downloaded, drive.root, downloads=home / "downloads")
    with pytest.warns(UserWarning, match="archive could not .* download it again") as caught:
        sent.finish()
    assert len(caught) == 1 and not list(drive.root.rglob("*.zip*"))
    drive.fault = lambda n: None
    sent.finish()
    assert [path.name for path in drive.root.rglob("*.zip")] == ["tiny-12345678.zip"]


@pytest.mark.fault(24)
def test_what_a_killed_copy_has_left_of_an_archive_is_removed(
    downloaded: Run, home: Path, drive: Drive
):
    left = drive.root / "ksdd" / ".tiny-12345678.zip.77.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert not mailbox.copy_archive(downloaded, home / "downloads", drive.root)
    assert not left.exists() and len(list(drive.root.rglob("*.zip"))) == 1


def test_an_archive_of_one_s_own_is_not_copied(home: Path, drive: Drive, tiny_root: Path):
    run = open_folder(home / "runs" / "own", {"data": str(tiny_root)})
    prepare.prepare_data(run)
    assert not mailbox.copy_archive(run, home / "downloads", drive.root)
    assert not list(drive.root.iterdir())
