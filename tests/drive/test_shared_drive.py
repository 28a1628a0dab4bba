"""A Drive folder that others can write to leads nowhere else, and takes nothing away."""

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_drive import WHOLE, Drive, begin, contents, finish, mirror_whole, same, save_checkpoint
from fake_drive import restore as restore_quietly

from ksdd_lib import storage
from ksdd_lib.drive import layout, markers, recovery, upload
from ksdd_lib.errors import RunError
from ksdd_lib.formatting import listed
from ksdd_lib.runs.lock import OWNER_SILENT
from ksdd_lib.runs.open import open_run, resume
from ksdd_lib.runs.run import Run

NAMES = [
    "..",
    ".",
    "",
    " ",
    "../..",
    "../ksdd_lib",
    "runs/../..",
    "/etc",
    "/",
    "..\\..",
    "a\\..\\..\\b",
    "C:",
    "C:\\Windows",
    "C:evil",
    "\\\\server\\share",
    "a\0b",
    "a\nb",
    ".. ",
    "...",
    ".hidden",
    "trailing.",
    "x" * 300,
    "\ud800",
    "fold0/../../..",
]
"""What is no name of a run folder, here or on another system."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def there(drive: Drive, run: Run) -> Path:
    return drive.root / "ksdd" / "runs" / run.folder.name


def put(path: Path, data: bytes, **marker: object) -> None:
    """A file on Drive with its marker, as anyone who shares the folder may write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    record = {"bytes": len(data), "sha256": storage.sha256(data)} | marker
    path.with_name(f"{path.name}.ok").write_text(json.dumps(record))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def outside(home: Path) -> dict[str, bytes]:
    """All files of the test but those in the folder of runs and on Drive."""
    here, drive = (home / "runs").resolve(), home.parent / "MyDrive"
    files = [path for path in home.parent.rglob("*") if path.is_file()]
    files = [path for path in files if not path.is_relative_to(drive)]
    return {str(path): path.read_bytes() for path in files if not path.is_relative_to(here)}


def restore(home: Path, drive: Drive) -> Path | None:
    """`restore`, whose warnings are not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return recovery.restore(home, drive.root)


@pytest.fixture
def checkout(new_machine: Callable[[], Path]) -> Path:
    """A new machine whose home is a checkout, with a module and notes."""
    home = new_machine()
    for name in ("ksdd_lib/drive/layout.py", "settings.json", "fold0/notes.txt", "runs/mine.txt"):
        storage.write_text(home / name, "mine\n")
    return home


@pytest.mark.fault(53)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_s_name_on_drive_leads_nowhere_else(
    run: Run, drive: Drive, checkout: Path, name: str
) -> None:
    mirror_whole(run, drive.root)
    change(there(drive, run) / layout.LAST_COPY, run=name)
    before = outside(checkout)
    folder = restore_quietly(checkout, drive)
    assert folder == checkout / "runs" / run.folder.name and same(run.folder, folder, WHOLE)
    assert outside(checkout) == before
    assert (checkout / "runs" / "mine.txt").read_text() == "mine\n"


@pytest.mark.fault(53)
@pytest.mark.parametrize("name", NAMES[::3])
def test_a_last_run_s_name_on_drive_leads_nowhere_else(
    run: Run, drive: Drive, checkout: Path, name: str
) -> None:
    mirror_whole(run, drive.root)
    put(drive.root / "ksdd" / "runs" / layout.LATEST, name.encode(errors="replace"))
    for place in (drive.root, drive.root / "ksdd"):  # where it might lead
        shutil.copytree(there(drive, run), place, dirs_exist_ok=True)
    before = outside(checkout)
    assert restore(checkout, drive) == checkout / "runs" / run.folder.name
    assert outside(checkout) == before


@pytest.mark.fault(53)
@pytest.mark.parametrize("name", NAMES[1::3])
def test_names_agreed_on_lead_nowhere_else(
    run: Run, drive: Drive, checkout: Path, name: str
) -> None:
    mirror_whole(run, drive.root)
    restore_quietly(checkout, drive)
    agreement = checkout / "runs" / layout.AGREEMENT
    agreement.write_text(json.dumps({"here": run.folder.name, "drive": name}))
    for place in (drive.root, drive.root / "ksdd"):
        shutil.copytree(there(drive, run), place, dirs_exist_ok=True)
    before = contents(drive.root / "ksdd"), outside(checkout)
    mine = resume({})
    save_checkpoint(mine, 30)
    mirror_whole(mine, drive.root)
    after = contents(drive.root / "ksdd")
    assert all(after[path] == before[0][path] for path in before[0] if "runs/" not in path)
    assert not [path for path in after.keys() - before[0].keys() if "runs/" not in path]
    assert (there(drive, run) / "fold0" / "segmentation-000030.pt").exists()
    assert restore(checkout, drive) == checkout / "runs" / run.folder.name
    assert outside(checkout) == before[1]


OTHERS = [
    "__init__.py",
    "sitecustomize.py",
    "conftest.py",
    "ksdd_lib/settings.py",
    "fold0/evil.py",
    "fold0/segmentation-000020.py",
    "fold99/segmentation-000020.pt",
    "figures/run.sh",
    "figures/deeper/roc.png",
    "notebooks/evil.py",
    "owner.json",
    "latest.txt",
    "drive.json",
    ".bashrc",
    "settings.json.bak",
    "notes.txt",
    "a\\b.json",
]


@pytest.mark.fault(53)
def test_only_files_that_a_run_has_come_back(
    run: Run, drive: Drive, checkout: Path, capsys: pytest.CaptureFixture
) -> None:
    mirror_whole(run, drive.root)
    for name in OTHERS:
        put(there(drive, run) / name, b"theirs")
    folder = restore_quietly(checkout, drive)
    assert set(contents(folder)) == WHOLE and not (folder / "owner.json").exists()
    told = f"Left there, as no run has such: {listed(sorted(OTHERS), 5)}."
    assert told in capsys.readouterr().out


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "name",
    ["..", ".", "../latest.txt", "../../precious", "/precious", "fold0", "sender.json", "a\\b"]
    + ["settings.json", "data.json (1)", "folds.txt", "folds.3f2a9c1b.json.ok", "folds.json\0"],
)
def test_a_marker_names_its_own_content_alone(run: Run, drive: Drive, name: str) -> None:
    mirror_whole(run, drive.root)
    folder = there(drive, run)
    (drive.root / "precious").write_text("theirs")
    change(folder / "folds.json.ok", file=name)
    before = contents(drive.root)
    storage.write_json(run.folder / "folds.json", {"protocol": "official"})
    mirror_whole(run, drive.root)
    after = contents(drive.root)
    assert before.keys() <= after.keys()
    changed = {path for path in before if after[path] != before[path]}
    assert {Path(path).name for path in changed} <= {"folds.json", "folds.json.ok", "sender.json"}


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/etc",
        "../../../..",
        "../../../MyDriveway",
        "\\\\server\\share",
        "C:\\data",
        "a\0b",
        "",
    ],
)
def test_a_place_of_data_that_comes_from_drive_lies_in_home_or_on_drive(
    run: Run, drive: Drive, checkout: Path, place: str
) -> None:
    record = {"fingerprint": "a", "place": place, "report": "kept"}
    storage.write_json(run.folder / "data.json", record)
    mirror_whole(run, drive.root)
    folder = restore_quietly(checkout, drive)
    found = storage.read_json(folder / "data.json")
    root = os.path.normpath(folder / found["place"])
    assert Path(root).is_relative_to(checkout) and found == record | {"place": found["place"]}


def test_a_place_of_data_in_home_or_on_drive_is_kept(
    run: Run, drive: Drive, checkout: Path
) -> None:
    for place in ("../../data/parts", "../../../MyDrive/parts", str(drive.root / "parts")):
        storage.write_json(run.folder / "data.json", {"fingerprint": "a", "place": place})
        mirror_whole(run, drive.root)
        folder = restore_quietly(checkout, drive)
        assert storage.read_json(folder / "data.json")["place"] == place
        shutil.rmtree(folder)


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "source", ["/etc/parts.zip", "../../parts.zip", "https://example.org/a/parts.zip?x=1"]
)
def test_a_source_of_data_that_comes_from_drive_is_a_name_alone(
    run: Run, drive: Drive, checkout: Path, source: str
) -> None:
    settings = storage.read_json(run.folder / "settings.json") | {"data": source}
    mirror_whole(run, drive.root)
    put(there(drive, run) / "settings.json", json.dumps(settings).encode())
    assert restore_quietly(checkout, drive) and resume({}).settings.data == "parts.zip"


@pytest.mark.fault(53)
def test_a_link_of_the_name_here_is_not_followed(run: Run, drive: Drive, checkout: Path) -> None:
    mirror_whole(run, drive.root)
    (checkout / "runs" / run.folder.name).symlink_to(checkout / "ksdd_lib")
    before = outside(checkout)
    folder = restore_quietly(checkout, drive)
    assert folder == checkout / "runs" / f"{run.folder.name}-2"
    assert outside(checkout) == before


@pytest.mark.fault(53)
def test_a_link_to_elsewhere_among_the_runs_on_drive_is_not_followed(
    run: Run, drive: Drive, checkout: Path
) -> None:
    (drive.root / "ksdd" / "runs").mkdir(parents=True)
    there(drive, run).symlink_to(checkout / "ksdd_lib")
    before = contents(checkout)
    mirror_whole(run, drive.root)
    assert contents(checkout) == before
    assert drive.files(f"{run.folder.name}-2") == WHOLE


@pytest.mark.fault(53)
def test_a_link_in_a_run_s_folder_on_drive_is_not_followed(
    run: Run, drive: Drive, checkout: Path
) -> None:
    there(drive, run).mkdir(parents=True)
    (there(drive, run) / "fold0").symlink_to(checkout / "ksdd_lib")
    before = contents(checkout)
    copied = upload.copy(run, drive.root)
    assert "fold0 there is a link to elsewhere" in copied.failure
    assert contents(checkout) == before
    (there(drive, run) / "fold0").unlink()
    mirror_whole(run, drive.root)


@pytest.mark.fault(54)
def test_a_folder_of_runs_that_is_a_link_gets_the_run(
    run: Run, drive: Drive, new_machine: Callable[[], Path], tmp_path: Path
) -> None:
    mirror_whole(run, drive.root)
    home, far = new_machine(), tmp_path / "far"
    far.mkdir()
    home.mkdir()
    (home / "runs").symlink_to(far)
    assert restore_quietly(home, drive) == far / run.folder.name == resume({}).folder
    assert same(run.folder, far / run.folder.name, WHOLE)


@pytest.mark.fault(53)
def test_odd_names_on_drive_stop_neither_copy_nor_return(
    run: Run, drive: Drive, checkout: Path
) -> None:
    mirror_whole(run, drive.root)
    for name in ("..ok", ".ok", " (1)", " (1).ok", "(1).ok", "...ok", ".(1)"):
        for folder in (there(drive, run), there(drive, run) / "fold0", there(drive, run).parent):
            (folder / name).write_text("{}")
    save_checkpoint(run, 30)
    mirror_whole(run, drive.root)
    folder = restore(checkout, drive)
    assert (folder / "fold0" / "segmentation-000030.pt").exists()


# Records there of another kind


CONTENTS = [
    b"[]",
    b'"x"',
    b"3",
    b"null",
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b"1" * 5000,
    b'{"time": NaN, "seconds": Infinity, "bytes": -Infinity, "steps": NaN}',
    b'{"time": ' + b"1" * 400 + b', "machine": "first", "at_work": true}',
    b"\xff\xfe\x00",
    b"",
    b"{",
    b"[[1], null]",
]
FEW = CONTENTS[::4]


def each(name: str, contents: list[bytes]) -> list[tuple[str, bytes]]:
    return [(name, content) for content in contents]


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("name", "content"),
    each("sender.json", CONTENTS)
    + each("settings.json.ok", CONTENTS)
    + each("fold0/segmentation-000020.pt.ok", FEW)
    + each("../latest.txt", FEW)
    + each("../latest.txt.ok", FEW),
)
def test_a_record_on_drive_of_another_kind_is_passed_over(
    run: Run, drive: Drive, checkout: Path, name: str, content: bytes
) -> None:
    mirror_whole(run, drive.root)
    (there(drive, run) / name).write_bytes(content)
    restore(checkout, drive)
    mirror_whole(run, drive.root)
    assert same(run.folder, restore(checkout, drive), WHOLE), "the next copy mends it"


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("name", "content"),
    each("settings.json", CONTENTS)
    + each("timing.json", CONTENTS)
    + each("data.json", FEW)
    + each("metrics.json", FEW)
    + each("fold0/segmentation-000020.json", FEW)
    + each("fold0/segmentation.done.json", FEW),
)
def test_content_of_another_kind_that_its_marker_names_is_no_traceback(
    run: Run, drive: Drive, checkout: Path, name: str, content: bytes
) -> None:
    finish(run, 20, "segmentation")
    mirror_whole(run, drive.root)
    put(there(drive, run) / name, content)
    folder = restore(checkout, drive)
    assert (folder is None) == (name == "settings.json")
    mirror_whole(run, drive.root)


@pytest.mark.fault(52)
@pytest.mark.parametrize(("name", "content"), each("drive.json", FEW) + each("latest.txt", FEW))
def test_a_note_here_of_another_kind_is_passed_over(
    run: Run, drive: Drive, checkout: Path, name: str, content: bytes
) -> None:
    mirror_whole(run, drive.root)
    restore_quietly(checkout, drive)
    (checkout / "runs" / name).write_bytes(content)
    folder = restore(checkout, drive)
    assert folder == checkout / "runs" / run.folder.name
    mirror_whole(Run(folder, run.settings), drive.root)


# Who works there


@pytest.mark.fault(56)
def test_a_machine_of_our_name_on_another_system_is_another(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two containers of one image."""
    assert not upload.copy(run, drive.root, at_work=True).failure
    home, ours = new_machine(), layout.machine_name
    monkeypatch.undo()
    monkeypatch.setenv("KSDD_HOME", str(home))
    assert ours is not layout.machine_name, "it has the first machine's name again"
    monkeypatch.setattr(layout, "system", lambda: "another container")
    with pytest.raises(RunError, match="works on demo-clean-seed0 and last wrote [0-9] s ago"):
        recovery.restore(home, drive.root)
    change(there(drive, run) / layout.LAST_COPY, time=time.time() - OWNER_SILENT - 1)
    assert restore_quietly(home, drive)


@pytest.mark.fault(56)
@pytest.mark.parametrize("ahead", [60.0, 86_400.0, 1e9])
@pytest.mark.parametrize("file_too", [False, True], ids=["record", "record and file"])
def test_a_machine_whose_clock_is_ahead_holds_nobody_up_for_longer(
    run: Run,
    drive: Drive,
    new_machine: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    ahead: float,
    file_too: bool,
) -> None:
    new_machine("first")
    upload.copy(run, drive.root, at_work=True)
    note, now = there(drive, run) / layout.LAST_COPY, time.time()
    change(note, time=now + ahead)
    if file_too:
        os.utime(note, (now + 3600, now + 3600))
    home = new_machine()
    with pytest.raises(RunError, match="last wrote [0-9] s ago.* free in 15 min"):
        recovery.restore(home, drive.root)
    monkeypatch.setattr(time, "time", lambda: now + OWNER_SILENT + 100)
    assert restore_quietly(home, drive)


@pytest.mark.fault(56)
def test_a_run_that_was_copied_in_the_future_is_not_for_ever_the_last_one(
    run: Run, drive: Drive, checkout: Path
) -> None:
    mirror_whole(run, drive.root)
    note = there(drive, run) / layout.LAST_COPY
    change(note, time=time.time() + 86_400)
    os.utime(note, (time.time() - 3600,) * 2)
    mirror_whole(open_run(run.folder.with_name("demo-clean-seed9"), {"seed": 9}), drive.root)
    for path in note.parent.parent.glob("latest*"):
        path.unlink()
    with pytest.warns(UserWarning, match="demo-clean-seed9 was copied last"):
        recovery.restore(checkout, drive.root)


@pytest.mark.fault(56)
def test_nothing_is_copied_where_another_machine_is_at_work(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never looked there, as `run` on two machines."""
    new_machine("first")
    upload.copy(run, drive.root, at_work=True)
    new_machine()
    mine = begin()
    save_checkpoint(mine, 70)
    before = contents(drive.root)
    for at_work in (True, False):
        copied = upload.copy(mine, drive.root, at_work)
        assert "another machine, first, works on it and wrote" in copied.failure
        upload.renew_last_copy(mine, drive.root)
    assert contents(drive.root) == before
    monkeypatch.setenv("KSDD_TAKE_OVER", "1")
    assert not upload.copy(mine, drive.root, at_work=True).failure


@pytest.mark.fault(56)
@pytest.mark.parametrize("has_finished", [False, True])
def test_a_machine_that_slept_while_another_went_on_leaves_drive_alone(
    run: Run, drive: Drive, new_machine: Callable[[], Path], has_finished: bool
) -> None:
    new_machine("first")
    home = run.folder.parent.parent
    upload.copy(run, drive.root, at_work=True)
    change(there(drive, run) / layout.LAST_COPY, time=time.time() - OWNER_SILENT - 1)
    second = new_machine()
    restore_quietly(second, drive)
    finish(resume({}), 90, "segmentation")
    upload.copy(resume({}), drive.root, at_work=not has_finished)

    new_machine("first")
    save_checkpoint(run, 30)
    before = contents(drive.root)
    for at_work in (True, False):
        assert "second, has gone on with it" in upload.copy(run, drive.root, at_work).failure
        upload.renew_last_copy(run, drive.root)
    assert contents(drive.root) == before
    if has_finished:
        restore_quietly(home, drive)
        assert not upload.copy(run, drive.root).failure, "what is further there is here now"


@pytest.mark.fault(56)
def test_a_copy_in_which_a_machine_slept_goes_no_further(
    run: Run, drive: Drive, new_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_machine("first")
    upload.copy(run, drive.root, at_work=True)
    save_checkpoint(run, 30)
    (run.folder / "folds.json").write_text("{}")
    plain, left = markers.write, []

    def sleep(data: bytes, target: Path, root: Path) -> bool:
        if target.name == "segmentation-000030.pt":
            change(there(drive, run) / layout.LAST_COPY, machine="second", time=time.time())
            left.append(contents(drive.root))
        return plain(data, target, root)

    monkeypatch.setattr(markers, "write", sleep)
    assert "second, has gone on with it" in upload.copy(run, drive.root, at_work=True).failure
    assert [contents(drive.root)] == left


# What is removed there


MINE = [".notes.tmp", ".draft.txt.77.tmp", "list.3f2a9c1b.txt", "segmentation-best.pt"]


@pytest.mark.fault(57)
def test_files_of_the_user_on_drive_stay(run: Run, drive: Drive) -> None:
    (run.folder / "report.html").write_text("first")
    mirror_whole(run, drive.root)
    folder = there(drive, run)
    places = [folder, folder / "fold0", folder.parent, folder.parent.parent]
    mine = [place / name for place in [*places, drive.root / "ksdd" / "reports"] for name in MINE]
    for path in mine:
        path.write_text("mine")
    for step in (30, 40):
        save_checkpoint(run, step)
        mirror_whole(run, drive.root)
    assert [path for path in mine if path.read_text() != "mine"] == []


@pytest.mark.fault(57)
def test_files_of_the_user_beside_the_data_archive_stay(run: Run, drive: Drive) -> None:
    downloads = run.folder.parent.parent / "downloads"
    storage.write_bytes(downloads / "parts.zip", b"archive")
    wanted = storage.sha256(downloads / "parts.zip")
    storage.write_json(run.folder / "data.json", {"archive_sha256": wanted})
    names = [".my parts.zip.77.tmp", ".parts.zip.tmp", "parts.zip.mine", ".old-parts.zip.5.tmp"]
    for name in names:
        storage.write_text(drive.root / "ksdd" / name, "mine")
    left = drive.root / "ksdd" / ".parts.zip.77.tmp"
    left.write_text("half of a copy that was killed")
    assert upload.copy_archive(run, downloads, drive.root) == ""
    assert all((drive.root / "ksdd" / name).read_text() == "mine" for name in names)
    assert not left.exists()
