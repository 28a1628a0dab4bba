"""Drive may fail, vanish or be killed at: work here goes on, and what is there stays whole."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_drive import (
    BROKEN,
    GONE,
    NO_SPACE,
    READ_ONLY,
    WHOLE,
    Drive,
    begin,
    contents,
    die_at_write,
    finish,
    mirror,
    mirror_whole,
    restore,
    same,
    save_checkpoint,
    weights,
)

from ksdd_lib import storage
from ksdd_lib.drive import background, layout, markers, recovery, upload
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.evaluation.scoring import evaluate
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import colab
from ksdd_lib.reporting.report import make_report
from ksdd_lib.runs import prepare
from ksdd_lib.runs.lock import release
from ksdd_lib.runs.open import open_run, resume
from ksdd_lib.runs.run import Run
from ksdd_lib.training import checkpoint
from ksdd_lib.training.loop import read_history


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


@pytest.mark.parametrize(
    ("superseded_at", "said"),
    [
        ("segmentation-000020.pt", ""),
        ("segmentation-000020.json", "step 20 of segmentation, fold 0"),
    ],
)
def test_only_a_checkpoint_that_was_sent_whole_is_called_safe(
    run: Run, drive: Drive, monkeypatch: pytest.MonkeyPatch, superseded_at: str, said: str
):
    """Training goes on meanwhile, and removes what it has superseded at any moment."""
    marker, write = run.fold_folder(0) / "segmentation-000020.json", markers.write

    def superseded(data: bytes, target: Path, *others: Path) -> bool:
        if target.name == superseded_at:
            marker.unlink()
        return write(data, target, *others)

    monkeypatch.setattr(markers, "write", superseded)
    assert upload.copy(run, drive.root) == upload.Copied(said)


def test_the_weights_are_whole_on_drive_before_their_own_marker_comes(run: Run, drive: Drive):
    mirror(run, drive.root)
    names = [name for name in drive.written if name.startswith("segmentation-000020")]
    assert len(names) == 4
    written = sorted((drive.root / "ksdd" / "runs" / run.folder.name / "fold0").glob("*20*"))
    times = {path.name.partition("20")[2]: path.stat().st_mtime_ns for path in written}
    assert times[".pt"] <= times[".pt.ok"] <= times[".json"] <= times[".json.ok"]


def test_what_is_there_already_is_not_copied_again(run: Run, drive: Drive):
    mirror(run, drive.root)
    drive.written.clear()
    storage.write_json(run.folder / "folds.json", {"protocol": "official"})
    mirror_whole(run, drive.root)
    assert sorted(drive.written) == ["folds", "folds", "sender"]


def test_an_older_checkpoint_leaves_drive_one_copy_after_the_newer_one_came(run: Run, drive: Drive):
    mirror(run, drive.root)
    killed = drive.root / "ksdd/runs" / run.folder.name / "fold0/segmentation-000001.pt"
    killed.write_bytes(b"half of a copy that was killed")
    save_checkpoint(run, 30)
    drive.fault = lambda n: NO_SPACE
    with pytest.warns(UserWarning, match="No space left"):
        mirror(run, drive.root)
    assert drive.files(run.folder.name) >= WHOLE
    drive.fault = lambda n: None
    newer = {"fold0/segmentation-000030.pt", "fold0/segmentation-000030.json"}
    mirror(run, drive.root)
    assert drive.files(run.folder.name) >= WHOLE | newer
    mirror(run, drive.root)
    left = {name for name in drive.files(run.folder.name) if name.startswith("fold0/segmentation-")}
    assert left == newer


def test_while_a_stage_trains_drive_holds_two_of_its_checkpoints(run: Run, drive: Drive):
    for step in (30, 40, 50, 60):
        save_checkpoint(run, step)
        mirror(run, drive.root)
        names = drive.files(run.folder.name)
        held = {
            name[-9:-3]
            for name in names
            if name.startswith("fold0/segmentation-") and name.endswith(".pt")
        }
        assert len(held) <= 2 and f"{step:06d}" in held


def test_a_run_that_lies_on_drive_is_not_copied_onto_itself(run: Run, drive: Drive):
    mirror(run, drive.root)
    there = open_run(drive.root / "ksdd" / "runs" / run.folder.name, {})
    storage.write_json(there.folder / "metrics.json", {"ap": 0.5})
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
        mirror(run, drive.root)
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
    mirror(run, drive.root)
    new_machine()
    other = begin(segmentation_steps=7)
    assert other.folder.name == run.folder.name
    mirror(other, drive.root)
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)
    assert drive.files(f"{run.folder.name}-2") == {"settings.json"}
    shutil.rmtree(other.folder.parent)
    home = other.folder.parent.parent
    assert recovery.restore(home, drive.root) == other.folder, "under its own name again"


def test_settings_changed_before_their_stage_stay_with_their_run(run: Run, drive: Drive):
    mirror(run, drive.root)
    mirror(run.amend({"decision_steps": 9}), drive.root)
    assert [path.name for path in (drive.root / "ksdd" / "runs").iterdir() if path.is_dir()] == [
        run.folder.name
    ]


# Killed inside a copy: content goes to a new name, and the old one stays until the marker is there


def two_states(run: Run, drive: Drive) -> tuple[Run, dict[str, bytes], dict[str, bytes]]:
    """A run on Drive that has gone on since -> it, its files on Drive, its files here."""
    finish(run, 30, "segmentation")
    storage.write_json(
        run.folder / "data.json", {"fingerprint": "a", "archive_sha256": None, "report": "short"}
    )
    storage.write_json(run.folder / "metrics.json", {"ap": 0.5})
    mirror_whole(run, drive.root)
    before = contents(run.folder)
    for ending in ("pt", "json"):  # the older checkpoint, which is not copied
        (run.fold_folder(0) / f"segmentation-000020.{ending}").unlink()
        del before[f"fold0/segmentation-000020.{ending}"]
    later = run.amend({"decision_steps": 9})
    save_checkpoint(later, 9, "decision", predecessor=weights(run))
    for name in ("data.json", "folds.json", "metrics.json", "fold0/segmentation.done.json"):
        path = later.folder / name
        storage.write_json(path, storage.read_json(path) | {"later": True})
    later.note_time("segmentation stage, fold 0", 31)
    with (run.fold_folder(0) / "segmentation.jsonl").open("a") as file:
        file.write('{"step": 31}\n')
    begin("demo-clean-seed5", seed=5)
    begin()  # so that latest.txt is written anew
    (run.folder.parent / layout.AGREEMENT).unlink()
    return later, before, contents(run.folder)


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
        (run.folder.parent / layout.AGREEMENT).unlink(missing_ok=True)
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
                assert resume({}).settings.decision_steps == 9
            assert checkpoint.load(folder / "fold0", "segmentation", {"fold": 0}).step == 30
    assert came == after
    overwritten = {name for name in before if before[name] != after[name]}
    assert len(overwritten) == 7 and number > 2 * len(overwritten)


@pytest.mark.fault(26)
def test_content_that_is_replaced_leaves_drive_when_the_new_one_has_its_marker(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    folder = drive.root / "ksdd" / "runs" / run.folder.name
    for protocol in ("clean", "official", "known", "clean"):
        storage.write_json(run.folder / "folds.json", {"protocol": protocol})
        mirror_whole(run, drive.root)
        [held] = [path for path in folder.glob("folds*.json")]
        assert json.loads(held.read_bytes()) == {"protocol": protocol}
    assert restore(new_machine(), drive)
    assert storage.read_json(resume({}).folder / "folds.json") == {"protocol": "clean"}


@pytest.mark.fault(19)
@pytest.mark.fault(24)
def test_the_next_copy_removes_what_killed_copies_have_left(run: Run, drive: Drive):
    mirror_whole(run, drive.root)
    whole = sorted(drive.root.rglob("*"))
    code = """
import os, signal, sys
from pathlib import Path
from ksdd_lib.drive import upload
from ksdd_lib.runs.open import open_run

replace, left = os.replace, [int(sys.argv[3])]
def die(source, target):
    left[0] -= Path(target).is_relative_to(sys.argv[2])
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = die
upload.copy(open_run(Path(sys.argv[1])), Path(sys.argv[2]))
"""
    left = {}
    for number in (1, 2):  # before the content has its name, and before the marker has
        storage.write_json(run.folder / "folds.json", {"protocol": f"killed {number}"})
        words = [sys.executable, "-c", code, run.folder, drive.root, number]
        repository = Path(__file__).resolve().parents[2]
        subprocess.run(list(map(str, words)), cwd=repository, check=False)
        left[number] = [path.suffix for path in set(drive.root.rglob("*")) - set(whole)]
    assert left[1] == [".tmp"] and sorted(left[2]) == [".json", ".tmp"]
    storage.write_json(run.folder / "folds.json", {"protocol": "clean"})
    mirror_whole(run, drive.root)
    assert sorted(drive.root.rglob("*")) == whole


# Fault 25: Drive gone, broken, full or read-only in the middle of a run


@pytest.mark.fault(25)
@pytest.mark.parametrize("number", [GONE, BROKEN, NO_SPACE, READ_ONLY])
def test_whichever_write_fails_it_is_one_warning_and_the_next_copy_catches_up(
    run: Run, drive: Drive, number: int
):
    mirror(run, drive.root)
    for failing in range(1, len(drive.written) + 1):
        shutil.rmtree(drive.root / "ksdd", ignore_errors=True)
        drive.written.clear()
        drive.fault = lambda n, failing=failing: number if n == failing else None
        with pytest.warns(UserWarning, match="the next copy tries again") as caught:
            mirror(run, drive.root)
        assert len(caught) == 1 and os.strerror(number) in str(caught[0].message)
        drive.fault = lambda n: None
        mirror_whole(run, drive.root)
        folder = drive.root / "ksdd" / "runs" / run.folder.name
        assert drive.files(run.folder.name) == WHOLE and same(run.folder, folder, WHOLE)


@pytest.mark.fault(25)
def test_a_dead_drive_is_given_up_soon_and_nothing_is_written_in_its_place(run: Run, drive: Drive):
    drive.root.rmdir()
    with pytest.warns(UserWarning, match="not connected"):
        mirror(run, drive.root)
    assert not drive.root.exists()
    drive.root.mkdir()
    drive.fault = lambda n: BROKEN
    with pytest.warns(UserWarning, match="Input/output error"):
        mirror(run, drive.root)
    assert len(drive.written) == upload.FAILURES + 1
    drive.fault = lambda n: None
    mirror_whole(run, drive.root)


@pytest.mark.fault(26)
def test_a_file_that_arrives_in_part_gets_no_marker(
    run: Run, drive: Drive, monkeypatch: pytest.MonkeyPatch
):
    plain = storage.write_bytes

    def cut(path: Path, data: bytes) -> None:
        plain(path, data[:-1] if path.suffix == ".pt" else data)

    monkeypatch.setattr(storage, "write_bytes", cut)
    with pytest.warns(UserWarning, match="only a part arrived"):
        mirror(run, drive.root)
    assert not list(drive.root.rglob("*.pt.ok"))
    monkeypatch.setattr(storage, "write_bytes", plain)
    mirror_whole(run, drive.root)
    assert same(run.folder, drive.root / "ksdd" / "runs" / run.folder.name, WHOLE)


TRAINED = {"image_size": "128x128", "segmentation_steps": 2, "checkpoint_steps": 1, "fold": "0"}


TRAINED |= {"segmentation_optimizer": "sgd", "segmentation_batch_size": 1, "decision_steps": 2}


@pytest.mark.slow
@pytest.mark.fault(25)
@pytest.mark.parametrize("number", [GONE, BROKEN, NO_SPACE, READ_ONLY, errno.EDQUOT])
def test_training_goes_on_without_drive_and_copies_when_it_is_back(
    home: Path, drive: Drive, tiny_root: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr(two_stage, "FEATURES", 16)
    monkeypatch.setattr(background, "EVERY", 0)
    run = begin(data=str(tiny_root), **TRAINED)
    data = prepare.prepare_data(run)
    drive.fault = lambda n: number
    with pytest.warns(UserWarning, match=re.escape(os.strerror(number))):
        with BackgroundCopy(run, drive.root) as sent:
            assert train_stage(run, data, 0, "segmentation", saved=sent.start_if_due)
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
    monkeypatch.setattr(two_stage, "FEATURES", 16)
    monkeypatch.setattr(background, "EVERY", 0)
    monkeypatch.setenv("KSDD_DRIVE", "" if kind == "none" else str(drive.root))
    drive.fault = lambda n: READ_ONLY
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = colab.begin()
        run = begin(data=str(tiny_root), **TRAINED)
        data = prepare.prepare_data(run, there)
        with BackgroundCopy(run, there) as sent:
            train_stage(run, data, 0, "segmentation", saved=sent.start_if_due)
            train_stage(run, data, 0, "decision", saved=sent.start_if_due)
        with BackgroundCopy(run, there) as sent:
            evaluate(run, data, saved=sent.start_if_due)
        path = make_report(run.folder, data.read_pair)
        BackgroundCopy(run, there).finish()
        colab.share(path)
    told = [str(w.message) for w in caught if "Drive" in str(w.message)]
    assert (there is None) == (kind == "none")
    assert len(told) == (0 if kind == "none" else 3), "once a cell"
    assert all(os.strerror(READ_ONLY) in text for text in told)
    said = capsys.readouterr().out
    assert "safe on Drive" not in said and said.endswith(f"is in {run.folder.name} (in runs)\n")
    assert path.stat().st_size > 100_000 and not list(drive.root.rglob("*.*"))


@pytest.mark.fault(27)
def test_a_copy_says_when_its_machine_is_at_work(run: Run, drive: Drive):
    def is_told() -> bool:
        sender = drive.root / "ksdd" / "runs" / run.folder.name / layout.LAST_COPY
        return json.loads(sender.read_text())["at_work"]

    with BackgroundCopy(run, drive.root) as sent:
        sent._thread.join()
        assert is_told(), "before its first checkpoint, too"
    assert not is_told()


@pytest.mark.fault(27)
def test_a_second_process_on_one_folder_is_refused(run: Run):
    code = (
        "from pathlib import Path; from ksdd_lib.runs.lock import claim; "
        f"claim(Path({str(run.folder)!r}))"
    )
    here = Path(__file__).resolve().parents[2]
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=False
    )
    assert second.returncode == 1
    assert f"process {os.getpid()} works on {run.folder.name} and last wrote" in second.stderr
    release(run.folder)
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True)


# Fault 28: no Drive at all, or read-only


@pytest.mark.fault(28)
def test_without_drive_nothing_happens(
    run: Run, home: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture
):
    storage.write_json(run.folder / "data.json", {"archive_sha256": "0" * 64})
    assert recovery.restore(home, None) is None
    assert not list(recwarn) and capsys.readouterr().out == ""


@pytest.mark.fault(28)
def test_a_read_only_drive_is_a_warning_and_can_still_be_read(
    run: Run, drive: Drive, new_machine: Callable[[], Path]
):
    mirror(run, drive.root)
    drive.fault = lambda n: READ_ONLY
    save_checkpoint(run, 30)
    with pytest.warns(UserWarning, match="Read-only file system"):
        mirror(run, drive.root)
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
    assert not upload.copy_archive(downloaded, home / "downloads", drive.root)
    assert [path.name for path in drive.root.rglob("*.zip")] == ["tiny-12345678.zip"]
    drive.written.clear()
    assert not upload.copy_archive(downloaded, home / "downloads", drive.root)
    assert not drive.written
    mirror(downloaded, drive.root)
    second = new_machine()
    shutil.rmtree(home)
    restore(second, drive)
    again = prepare.open_data(resume({}))
    assert again.root.is_relative_to(second) and len(again.samples) == 24


@pytest.mark.fault(26)
def test_an_archive_damaged_on_drive_is_not_used(
    downloaded: Run, home: Path, drive: Drive, new_machine: Callable[[], Path]
):
    assert not upload.copy_archive(downloaded, home / "downloads", drive.root)
    mirror(downloaded, drive.root)
    path = drive.root / "ksdd" / "tiny-12345678.zip"
    path.write_bytes(path.read_bytes()[:-100])
    second = new_machine()
    with pytest.warns(UserWarning, match="archive on Drive is passed over"):
        assert recovery.restore(second, drive.root)
    assert not (second / "data").exists()


@pytest.mark.fault(24)
def test_a_full_drive_keeps_no_half_archive(downloaded: Run, home: Path, drive: Drive):
    mirror(downloaded, drive.root)
    drive.fault = lambda n: NO_SPACE if drive.written[-1:] == ["sender"] else None
    sent = BackgroundCopy(downloaded, drive.root, downloads=home / "downloads")
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
    assert not upload.copy_archive(downloaded, home / "downloads", drive.root)
    assert not left.exists() and len(list(drive.root.rglob("*.zip"))) == 1


def test_an_archive_of_one_s_own_is_not_copied(home: Path, drive: Drive, tiny_root: Path):
    run = open_run(home / "runs" / "own", {"data": str(tiny_root)})
    prepare.prepare_data(run)
    assert not upload.copy_archive(run, home / "downloads", drive.root)
    assert not list(drive.root.iterdir())
