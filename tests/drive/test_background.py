"""Copies to Drive in the background: a training never waits for them, and knows what is safe."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_drive import mirror
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.drive import background, layout, recovery, upload
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.drive.layout import LastCopy
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.runs.run import Run
from ksdd_lib.training import checkpoint

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run after step 20 of its first stage."""
    run = tiny_run(tmp_path / "run", segmentation_steps=2, checkpoint_steps=1)
    checkpoint.save(run.fold_folder(0), "segmentation", 20, {"fold": 0}, {"step": 20})
    return run


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "MyDrive"
    folder.mkdir()
    return folder


class Hanging:
    """A Drive on which opening one file hangs until `release`."""

    def __init__(self, pipe: Path) -> None:
        self.pipe = pipe
        self.pipe.parent.mkdir(parents=True, exist_ok=True)
        self.pipe.unlink(missing_ok=True)
        os.mkfifo(self.pipe)

    def release(self, content: bytes = b"{}") -> None:
        if self.pipe.is_fifo():
            handle = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK)
            self.pipe.unlink()
            os.write(handle, content)
            os.close(handle)


@pytest.fixture
def hanging(drive: Path, run: Run) -> Iterator[Hanging]:
    hanging = Hanging(drive / "ksdd" / "runs" / run.folder.name / "settings.json.ok")
    yield hanging
    hanging.release()


def is_there(drive: Path, run: Run, name: str) -> bool:
    return (drive / "ksdd" / "runs" / run.folder.name / f"{name}.ok").exists()


def test_at_the_end_all_is_on_drive_and_it_says_so(
    run: Run, drive: Path, capsys: pytest.CaptureFixture
):
    assert BackgroundCopy(run, drive).state() == "not yet on Drive"
    with BackgroundCopy(run, drive) as sent:
        pass
    assert is_there(drive, run, "fold0/segmentation-000020.pt")
    assert sent.state() == "safe on Drive: step 20 of segmentation, fold 0"
    assert capsys.readouterr().out == f"{run.folder.name}: {sent.state()}\n"


def test_while_no_checkpoint_is_on_drive_nothing_is_called_safe(run: Run, drive: Path):
    for path in run.fold_folder(0).iterdir():
        path.unlink()
    with BackgroundCopy(run, drive) as sent:
        while sent._is_at_work():
            pass
        assert is_there(drive, run, "settings.json") and sent.state() == "no step is on Drive yet"
        checkpoint.save(run.fold_folder(0), "segmentation", 30, {"fold": 0}, {"step": 30})
        sent.start_if_due()
        while sent._is_at_work():
            pass
        assert sent.state() == "safe on Drive: step 30 of segmentation, fold 0"


def test_what_was_saved_while_a_copy_was_at_work_is_sent_at_the_end(
    run: Run, drive: Path, hanging: Hanging
):
    with BackgroundCopy(run, drive) as sent:
        checkpoint.save(run.fold_folder(0), "segmentation", 30, {"fold": 0}, {"step": 30})
        sent.start_if_due()
        assert sent._is_at_work() and sent.state() == "not yet on Drive"
        hanging.release()
    assert sent.state() == "safe on Drive: step 30 of segmentation, fold 0"
    assert is_there(drive, run, "fold0/segmentation-000030.pt")


@pytest.mark.fault(25)
def test_a_training_goes_on_while_drive_hangs(
    run: Run,
    drive: Path,
    hanging: Hanging,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(background, "EVERY", 0)
    data = tiny_data(tmp_path / "data")
    for path in run.fold_folder(0).iterdir():
        path.unlink()
    sent = BackgroundCopy(run, drive)
    sent.start()
    assert train_stage(run, data, 0, "segmentation", saved=sent.start_if_due)
    with monkeypatch.context() as patch:
        patch.setattr(background, "PATIENCE", 0.1)
        sent.finish()
    assert "Drive is slow: run is still being copied" in capsys.readouterr().out
    assert sent.state() == "not yet on Drive"
    hanging.release()
    BackgroundCopy(run, drive).finish()
    assert is_there(drive, run, "fold0/segmentation.done.json")
    assert capsys.readouterr().out.endswith("safe on Drive: step 2 of segmentation, fold 0\n")


@pytest.mark.fault(25)
def test_an_archive_that_hangs_does_not_stop_the_cell(
    run: Run,
    drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    archive = tmp_path / "downloads" / "parts.zip"
    storage.write_bytes(archive, b"zip")
    storage.write_json(run.folder / "data.json", {"archive_sha256": storage.sha256(b"zip")})
    hanging = Hanging(drive / "ksdd" / "parts.zip.ok")
    sent = BackgroundCopy(run, drive, downloads=archive.parent)
    with monkeypatch.context() as patch:
        patch.setattr(background, "PATIENCE", 0.1)
        sent.finish()
    assert "Drive is slow: run is still being copied" in capsys.readouterr().out
    while sent.state() == "not yet on Drive":  # the run goes first
        assert sent._is_at_work()
    assert sent.state().startswith("safe on Drive: step 20") and sent._is_at_work()
    hanging.release()
    sent.finish()
    assert (drive / "ksdd" / "parts.zip").read_bytes() == b"zip"


@pytest.mark.fault(25)
def test_a_start_does_not_wait_for_ever_and_what_it_gave_up_is_not_written_later(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "first"))
    run = tiny_run(tmp_path / "first" / "runs" / "demo")
    mirror(run, drive)
    there = drive / "ksdd" / "runs"
    for name in ("latest.txt.ok", "demo/settings.json"):
        whole = (there / name).read_bytes()
        hanging, before = Hanging(there / name), threading.enumerate()
        with pytest.warns(UserWarning, match="has not answered for 0 minutes.*run this cell again"):
            monkeypatch.setattr(recovery, "PATIENCE", 0.2)
            assert recovery.restore(tmp_path / "second", drive) is None
        hanging.release(whole)
        for thread in set(threading.enumerate()) - set(before):
            if "ThreadPool" not in thread.name:
                thread.join()
        assert not (tmp_path / "second" / "runs").exists()
        (there / name).write_bytes(whole)
    monkeypatch.setattr(recovery, "PATIENCE", 60)
    assert recovery.restore(tmp_path / "second", drive).name == "demo"


@pytest.mark.fault(25)
def test_a_failing_drive_is_one_warning_until_it_is_back(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
):
    lost = drive.rename(drive.with_name("away"))
    monkeypatch.setattr(background, "EVERY", 0)
    sent = BackgroundCopy(run, drive)
    for _ in range(3):
        sent.finish()
        sent.start_if_due()
    gone = os.strerror(errno.ENOTCONN)
    assert [str(warning.message).split(";")[0] for warning in recwarn] == [
        f"Not all of run could be copied to Drive ({gone})"
    ]
    assert sent.state() == f"not on Drive ({gone})"
    lost.rename(drive)
    sent.finish()
    assert sent.state().startswith("safe on Drive: step 20")
    drive.rename(lost)
    sent.finish()
    assert sent.state() == f"not on Drive ({gone}), before that step 20 of segmentation, fold 0"
    assert len(recwarn) == 2


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("error", "told"), [(MemoryError(), "MemoryError"), (KeyError("x"), "KeyError: 'x'")]
)
def test_whatever_fails_in_a_copy_is_told_and_the_next_one_catches_up(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
):
    sent = BackgroundCopy(run, drive)
    sent.finish()
    checkpoint.save(run.fold_folder(0), "segmentation", 30, {"fold": 0}, {"step": 30})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(error))
        with pytest.warns(UserWarning, match=f"could be copied to Drive .{told}"):
            sent.finish()
    assert sent.state() == f"not on Drive ({told}), before that step 20 of segmentation, fold 0"
    sent.finish()
    assert sent.state() == "safe on Drive: step 30 of segmentation, fold 0"


def test_copies_of_a_training_keep_their_distance(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
):
    clock, begun = [0.0], []
    monkeypatch.setattr(background.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(background, "copy", lambda *_: begun.append(clock[0]) or upload.Copied())
    monkeypatch.setattr(background, "EVERY", 60)
    sent = BackgroundCopy(run, drive)
    for clock[0] in (30, 61, 100, 122, 161):
        sent.start_if_due()
        while sent._is_at_work():
            pass
    assert begun == [30, 100, 161], "the first checkpoint at once"


@pytest.mark.fault(27)
def test_a_machine_that_has_nothing_new_to_copy_goes_on_giving_signs_of_life(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(background, "RENEWAL", 0.01)
    sender = drive / "ksdd" / "runs" / run.folder.name / layout.LAST_COPY

    def until(is_so: Callable[[LastCopy], bool]) -> None:
        end = time.monotonic() + 20
        while not is_so(layout.read_last_copy(sender.parent)):
            assert time.monotonic() < end

    def write(**told: str | int) -> LastCopy:
        with background._at_work:  # one writer at a time, as in a copy
            whole = layout.read_last_copy(sender.parent).model_copy(update=told)
            storage.write_record(sender, whole)
        return whole

    with BackgroundCopy(run, drive) as sent:
        until(lambda told: told.at_work)
        sent._wait(time.monotonic() + 20)
        write(time=0)
        until(lambda told: told.time > 0 and told.at_work)
        taken_over = write(machine="another", time=7)
        time.sleep(0.1)
        assert layout.read_last_copy(sender.parent) == taken_over, "it is the other machine's now"
        write(machine=layout.machine_name())
        until(lambda told: told.time > 7)
    ended = layout.read_last_copy(sender.parent)
    assert not ended.at_work
    time.sleep(0.1)
    assert layout.read_last_copy(sender.parent) == ended


def test_without_drive_nothing_happens(run: Run, capsys: pytest.CaptureFixture):
    with BackgroundCopy(run, None) as sent:
        sent.start_if_due()
    assert sent.state() == "" and capsys.readouterr().out == ""
