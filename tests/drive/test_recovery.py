"""A run comes back from Drive: whole, the right one, and only to one machine at a time."""

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_drive import (
    BROKEN,
    GONE,
    NO_SPACE,
    WHOLE,
    Drive,
    begin,
    die_at_write,
    finish,
    mirror,
    mirror_whole,
    restore,
    same,
    save_checkpoint,
    weights,
)

from ksdd_lib import presets, storage
from ksdd_lib.drive import layout, markers, recovery, upload
from ksdd_lib.errors import DiskFullError, RunError
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.open import create, resume
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.training import checkpoint


def test_a_new_machine_goes_on_with_the_run_used_last(
    run: Run, drive: Drive, new_machine: Callable[[], Path], capsys: pytest.CaptureFixture
):
    mirror(run, drive.root)
    home = new_machine()
    with pytest.raises(RunError, match="01_download_data"):
        resume({})
    folder = restore(home, drive)
    assert folder == home / "runs" / run.folder.name
    assert same(run.folder, folder, WHOLE)
    assert resume({}).settings == run.settings
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 20
    assert "back from Drive: 5 files" in capsys.readouterr().out


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
        die_at_write(patch, drive, 3)  # the new weights have their marker
        mirror(run, drive.root)
    folder = restore(new_machine(), drive)
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 30


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
    storage.write_json(run.folder / "folds.json", {"protocol": "official"})
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
    sender = drive.root / "ksdd" / "runs" / other.folder.name / layout.LAST_COPY
    sender.write_text(json.dumps(json.loads(sender.read_text()) | {"time": time.time() - 60}))
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
        mirror(run, drive.root)
    second = new_machine()
    with pytest.warns(UserWarning, match="seed0 was copied last and is taken"):
        folder = recovery.restore(second, drive.root)
    assert folder == second / "runs" / run.folder.name and resume({}).folder == folder
    assert same(run.folder, folder, WHOLE)


# Several machines, as in Colab, where each notebook has its own


def test_a_notebook_opened_too_early_gets_the_rest_when_it_is_there(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    save_checkpoint(run, 10, "decision", predecessor=weights(run))
    mirror(run, drive.root)
    second = new_machine()
    early = restore(second, drive)
    assert resume({}).has("segmentation", 0) and not resume({}).has("decision", 0)

    new_machine("first")
    finish(run, 40, "decision", predecessor=weights(run))
    mirror(run, drive.root)
    new_machine()
    assert restore(second, drive) == early
    assert resume({}).has("decision", 0)
    assert checkpoint.newest_whole(early / "fold0", "decision")[0] == 40
    names = {"timing.json", "fold0/decision.jsonl", "fold0/decision-000040.pt"}
    assert same(
        run.folder,
        early,
        WHOLE - {"fold0/segmentation-000020.pt"} - {"fold0/segmentation-000020.json"} | names,
    )

    new_machine("first")
    storage.write_json(run.folder / "metrics.json", {"ap": 1.0})
    (run.folder / "predictions.csv").write_text("image\n")
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "roc.png").write_bytes(b"png")
    mirror(run, drive.root)
    new_machine()
    restore(second, drive)
    assert same(run.folder, early, {"metrics.json", "predictions.csv", "figures/roc.png"})


def test_a_second_look_brings_nothing_twice(
    run: Run, drive: Drive, new_machine: Callable[[], Path], capsys: pytest.CaptureFixture
):
    mirror(run, drive.root)
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
    mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    newer = begin("demo-clean-seed5", seed=5)
    mirror(newer, drive.root)

    new_machine("first")
    mirror(run, drive.root)  # its training goes on meanwhile
    assert restore(home, drive) == home / "runs" / "demo-clean-seed5"
    assert resume({}).settings.seed == 5
    mirror(resume({}), drive.root)

    new_machine()
    assert restore(second, drive) == newer.folder
    begin()  # the user goes back to the older run, on purpose
    mirror(resume({}), drive.root)
    new_machine("first")
    assert restore(home, drive) == run.folder


def test_a_run_begun_here_since_is_not_displaced(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror(run, drive.root)
    mine = begin("demo-clean-seed7", seed=7)
    second = new_machine()
    restore(second, drive)
    mirror(begin("demo-clean-seed5", seed=5), drive.root)

    new_machine("first")
    restore(home, drive)
    assert resume({}).folder == mine.folder
    mirror(mine, drive.root)
    new_machine()
    assert restore(second, drive) == second / "runs" / mine.folder.name


def test_a_run_begun_without_drive_is_kept_when_drive_comes(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    new_machine()
    mirror(begin("demo-clean-seed5", seed=5), drive.root)
    new_machine("first")
    assert restore(home, drive) is None and resume({}).folder == run.folder


def test_what_is_further_here_is_kept_stage_by_stage(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mirror(run, drive.root)
    new_machine()
    restore(home.with_name("second"), drive)
    other = resume({})
    save_checkpoint(other, 20, "decision", predecessor=weights(other))
    mirror(other, drive.root)

    new_machine("first")
    finish(run, 40, "decision", predecessor=weights(run))
    storage.write_json(run.folder / "metrics.json", {"ap": 1.0})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    restore(home, drive)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_as_many_steps_and_the_same_content_is_not_further(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror(run, drive.root)
    checkpoint.save(run.fold_folder(0), "segmentation", 20, {"fold": 0}, {"step": 20, "other": 1})
    storage.write_json(run.folder / "folds.json", {"protocol": "official"})
    mine = weights(run)
    restore(home, drive)
    assert weights(run) == mine and storage.read_json(run.folder / "folds.json") == {
        "protocol": "official"
    }


def test_a_checkpoint_damaged_here_is_replaced(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror(run, drive.root)
    path = run.fold_folder(0) / "segmentation-000020.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    restore(home, drive)
    assert path.read_bytes() == whole


@pytest.mark.fault(22)
def test_where_the_newest_on_drive_is_damaged_the_one_before_comes(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mirror(run, drive.root)
    finish(run, 30, "segmentation")
    mirror(run, drive.root)
    bad = drive.root / "ksdd" / "runs" / run.folder.name / "fold0" / "segmentation-000030.pt"
    bad.write_bytes(b"")
    second = new_machine()
    with pytest.warns(UserWarning, match="passed over: fold0/segmentation-000030.pt"):
        folder = recovery.restore(second, drive.root)
    assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 20
    assert not resume({}).has("segmentation", 0), "a done marker comes with its weights only"


def test_a_stage_that_goes_on_from_other_weights_is_passed_over(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    other = resume({})
    finish(other, 30, "segmentation", by="second")
    finish(other, 40, "decision", predecessor="0" * 64)
    storage.write_json(other.folder / "metrics.json", {"ap": 0.5})
    mirror(other, drive.root)

    new_machine("first")
    finish(run, 30, "segmentation")
    with pytest.warns(UserWarning, match="fold0/decision on Drive goes on from other weights"):
        recovery.restore(home, drive.root)
    assert not resume({}).has("decision", 0) and not resume({}).has("evaluation")


def test_results_of_other_weights_do_not_come(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    other = resume({})
    checkpoint.save(other.fold_folder(0), "decision", 40, {"fold": 0}, {"by": "second"})
    storage.write_json(other.folder / "fold0/decision.done.json", {"steps": 40})
    storage.write_json(other.folder / "metrics.json", {"ap": 0.5})
    mirror(other, drive.root)

    new_machine("first")
    finish(run, 40, "decision")
    restore(home, drive)
    assert not resume({}).has("evaluation")


def test_settings_that_a_stage_elsewhere_began_with_come_with_it(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)

    new_machine("first")
    amended = run.amend({"decision_steps": 9})
    finish(amended, 9, "decision", predecessor=weights(run))
    mirror(amended, drive.root)
    new_machine()
    restore(second, drive)
    assert resume({}).settings == amended.settings and resume({}).has("decision", 0)


def test_a_run_continued_with_other_settings_on_both_sides_stays_as_it_is(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    finish(run, 30, "segmentation")
    mirror(run, drive.root)
    second = new_machine()
    restore(second, drive)
    save_checkpoint(resume({}), 1, "decision", predecessor=weights(resume({})))
    amended = run.amend({"decision_steps": 9})
    finish(amended, 9, "decision", predecessor=weights(run))
    mirror(amended, drive.root)
    with pytest.warns(UserWarning, match="with other settings .decision.*not brought"):
        assert recovery.restore(second, drive.root) is None
    assert checkpoint.newest_whole(resume({}).fold_folder(0), "decision")[0] == 1


def test_another_run_of_the_name_gets_a_number_here(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    save_checkpoint(other, 5)
    mirror(other, drive.root)
    new_machine("first")
    assert restore(home, drive) == home / "runs" / "demo-clean-seed0-2"
    assert resume({}).settings.segmentation_steps == 7
    assert checkpoint.newest_whole(run.fold_folder(0), "segmentation")[0] == 20
    assert checkpoint.newest_whole(resume({}).fold_folder(0), "segmentation")[0] == 5


def test_a_run_keeps_its_name_on_drive_whatever_it_is_called_here(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    save_checkpoint(other, 5)
    mirror(other, drive.root)
    third = new_machine("third")
    assert restore(third, drive).name == run.folder.name
    new_machine("first")
    begin("demo-clean-seed0-9", seed=9)  # so that this machine names its old run once more
    mirror(resume({}), drive.root)
    begin()
    mirror(resume({}), drive.root)
    new_machine("third")
    assert restore(third, drive).name == f"{run.folder.name}-2"
    mirror(resume({}), drive.root)
    assert not (drive.root / "ksdd" / "runs" / f"{run.folder.name}-2-2").exists()
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)


def test_a_run_of_other_data_on_drive_is_left_alone(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    storage.write_json(run.folder / "data.json", {"fingerprint": "a", "archive_sha256": None})
    mirror(run, drive.root)
    new_machine()
    other = begin()
    storage.write_json(other.folder / "data.json", {"fingerprint": "b", "archive_sha256": None})
    mirror(other, drive.root)
    assert {"data.json"} <= drive.files(f"{run.folder.name}-2")
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE | {"data.json"})


@pytest.mark.fault(19)
def test_killed_while_bringing_back_the_next_call_finishes(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mirror(run, drive.root)
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


@pytest.mark.fault(25)
def test_a_damaged_note_on_what_was_seen_is_written_anew(
    run: Run, drive: Drive, new_machine: Callable[[], Path], home: Path
):
    mirror_whole(run, drive.root)
    note = run.folder.parent / layout.AGREEMENT
    for damage in ('{"here": "demo-clean-seed0"}', '{"here": ["x"], "drive": 3}', "[", '{"a'):
        note.write_text(damage)
        assert restore(home, drive) == run.folder
        mirror_whole(run, drive.root)
        assert json.loads(note.read_text()) == {"here": run.folder.name, "drive": run.folder.name}


@pytest.mark.fault(25)
@pytest.mark.parametrize("fault", [GONE, BROKEN])
def test_a_mount_that_cannot_be_listed_is_not_taken_for_empty(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch, fault: int
):
    """Else a new machine would believe that there is no run, and begin another."""
    mirror(run, drive.root)
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


@pytest.mark.fault(24)
def test_a_full_disk_here_is_not_taken_for_drive_s_fault(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mirror(run, drive.root)
    home = new_machine()
    plain = storage.open

    def full(path: Path, mode: str = "r"):
        if "w" in mode and Path(path).is_relative_to(home):
            raise OSError(NO_SPACE, os.strerror(NO_SPACE), str(path))
        return plain(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open", full)
        with pytest.raises(DiskFullError, match=r"no room for .*MB are free"):
            recovery.restore(home, drive.root)
    assert same(run.folder, restore(home, drive), WHOLE)


@pytest.mark.fault(25)
def test_drive_dies_while_a_run_is_brought_back(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mirror(run, drive.root)
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
        resume({})
    monkeypatch.setattr(Path, "read_bytes", plain)
    assert same(run.folder, restore(home, drive), WHOLE)


def start(wanted: Settings, drive: Path | None) -> Run:
    """`create` as notebook 1 calls it."""
    here = Path(os.environ["KSDD_HOME"])
    return create(wanted, bring=lambda like: recovery.restore(here, drive, like=like))


def test_an_earlier_run_that_only_drive_has_is_gone_on_with(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    finish(run, 30, "segmentation")
    mirror_whole(run, drive.root)
    later = begin("demo-clean-seed1", seed=1)
    mirror_whole(later, drive.root)
    home = new_machine()
    assert restore(home, drive).name == later.folder.name, "the last one"
    amended = replace(run.settings, segmentation_steps=77)  # of the next notebook
    again = start(amended, drive.root)
    assert again.folder == home / "runs" / run.folder.name
    assert again.settings == run.settings and again.has("segmentation", 0)
    assert resume({}).folder == again.folder, "the next notebook goes on with it"
    mirror_whole(again, drive.root)
    names = {path.name for path in (drive.root / "ksdd" / "runs").iterdir() if path.is_dir()}
    assert names == {run.folder.name, later.folder.name}, "no second copy"


def test_a_run_that_nobody_has_begun_is_begun(run: Run, drive: Drive, home: Path):
    mirror_whole(run, drive.root)
    other = start(presets.resolve({"seed": 5}), drive.root)
    assert other.folder == home / "runs" / "demo-clean-seed5"
    assert start(run.settings, drive.root).folder == run.folder
    assert start(presets.resolve({"seed": 6}), None).folder.name == "demo-clean-seed6"


@pytest.mark.fault(25)
def test_where_drive_cannot_be_asked_for_an_earlier_run_a_new_one_begins(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    mirror_whole(run, drive.root)
    home = new_machine()

    def broken(folder: Path):
        raise OSError(BROKEN, os.strerror(BROKEN))

    monkeypatch.setattr(markers, "list_folder", broken)
    with pytest.warns(UserWarning, match="Drive could not be read"):
        assert start(run.settings, drive.root).folder.parent == home / "runs"


# Fault 26: a file on Drive is missing, partial or renamed


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "damage", ["missing", "partial", "altered", "no marker", "cut marker", "odd"]
)
def test_a_damaged_file_is_named_and_passed_over(
    run: Run, drive: Drive, new_machine: Callable[[], Path], damage: str
):
    mirror(run, drive.root)
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
    mirror(run, drive.root)
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
    mirror(run, drive.root)
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
    upload.copy(run, drive.root, at_work=True)
    sender = drive.root / "ksdd" / "runs" / run.folder.name / layout.LAST_COPY
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
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    at_work(run, drive, seconds_ago=65)
    new_machine()
    before = sorted(home.rglob("*"))
    for _ in range(2):
        with pytest.raises(RunError) as refused:
            recovery.restore(home, drive.root)
    text = str(refused.value)
    assert (
        "machine (first) works on demo-clean-seed0 and last wrote 65 s ago: stop it first" in text
    )
    assert "free in 14 min" in text and "%env KSDD_TAKE_OVER=1" in text
    assert sorted(home.rglob("*")) == before, "nothing has come"

    monkeypatch.setenv("KSDD_TAKE_OVER", "1")
    with pytest.warns(UserWarning, match="works on .* 65 s ago: if it still runs, stop it"):
        assert recovery.restore(home, drive.root)
    assert checkpoint.newest_whole(resume({}).fold_folder(0), "segmentation")[0] == 30
    mirror_whole(resume({}), drive.root)
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
    sender = drive.root / "ksdd" / "runs" / run.folder.name / layout.LAST_COPY
    if sign == "of an older version":
        record = json.loads(sender.read_text())
        del record["at_work"]
        sender.write_text(json.dumps(record))
    home = new_machine()
    if sign == "same machine":
        new_machine("first")
    assert restore(home, drive)
