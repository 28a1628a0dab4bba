"""Whatever is killed, and on a disk that is really full, what was there stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluated_run import make_run
from kills import harness, plan
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.errors import DiskFullError, KsddError
from ksdd_lib.methods.stage_training import load_stage, train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.reporting import report
from ksdd_lib.runs.run import Run


def test_a_plan_follows_from_its_seed_and_begins_with_each_kind():
    assert plan(50, 3) == plan(50, 3) != plan(50, 4)
    assert [kill.kind for kill in plan(6, 9)[:3]] == ["anywhere", "checkpoint", "drive"]
    assert plan(6, 9)[2].disk_is_lost


@pytest.mark.slow
@pytest.mark.fault(19)
def test_a_killed_training_ends_as_one_left_alone(tmp_path: Path):
    found = harness(6, 0, tmp_path)
    assert found["equal"] and not found["leftovers"], found
    assert found["kills"] == 6 and found["lost_disks"] >= 1
    kinds = {name.partition(":")[0] for name in found["where"]}
    assert kinds == {"anywhere", "checkpoint", "drive"}


MEGABYTES = 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs more rights than this user has")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk but for `leave` bytes; the file that does so."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(b"x" * max(0, room.f_bavail * room.f_frsize - leave))
    return filler


def files(folder: Path) -> dict[str, int]:
    """Name -> size of all files, hidden ones too."""
    return {
        p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.fault(24)
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before_and_goes_on_later(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    data, settings = tiny_data(tmp_path / "data"), {"segmentation_steps": 4, "checkpoint_steps": 1}
    run, other = (tiny_run(folder / "run", **settings) for folder in (disk, tmp_path))
    fillers = []

    def fill_after_the_second() -> None:
        if len(list(run.fold_folder(0).glob("*.pt"))) == 2 and not fillers:
            fillers.append(fill(disk, leave=2**20))

    with pytest.raises(DiskFullError, match="no room for segmentation-000003.pt: it needs") as full:
        train_stage(run, data, 0, "segmentation", saved=fill_after_the_second)
    assert isinstance(full.value, KsddError) and isinstance(full.value, OSError)
    left = files(run.folder)
    assert all(left.values()) and not any(name.endswith(".tmp") for name in left), left
    assert {"fold0/segmentation-000002.pt", "fold0/segmentation-000002.json"} <= left.keys()
    fillers[0].unlink()
    train_stage(run, data, 0, "segmentation")
    train_stage(other, data, 0, "segmentation")
    assert sha256(run, data) == sha256(other, data)


def sha256(run: Run, data) -> str:
    return load_stage(run, data, 0, "segmentation").sha256


@pytest.mark.fault(24)
def test_figures_and_report_that_find_no_room_leave_the_old_ones(disk: Path):
    folder = make_run(disk / "run")
    report.make_report(folder)
    before = {name: storage.sha256(folder / name) for name in files(folder)}
    (folder / "predictions.csv").touch()
    fill(disk, leave=4096)
    for make in (report.make_figures, report.make_report):
        with pytest.raises(DiskFullError, match="no room for"):
            make(folder)
        left = {name: storage.sha256(folder / name) for name in files(folder)}
        assert left == before, "the figures are whole, or their old ones, and no part is left"


@pytest.mark.fault(24)
def test_a_history_that_finds_no_room_says_so(disk: Path):
    path = disk / "segmentation.jsonl"
    storage.append_text(path, "a\n")
    fill(disk, leave=0)
    with pytest.raises(DiskFullError, match="no room for segmentation.jsonl"):
        storage.append_text(path, "b" * 2**20)
    assert path.read_text().startswith("a\n")
