"""Archives: nothing is believed, nothing hostile is written, half a data set is never used."""

import hashlib
import http.server
import io
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
import requests

from ksdd_lib import storage
from ksdd_lib.data import kolektorsdd, sources
from ksdd_lib.data.sources import DataFolder, unpack
from ksdd_lib.data.survey import find_samples, survey
from ksdd_lib.errors import DataError

PAGE = b"<!DOCTYPE html><html><title>Too many users\x07 have viewed this file</title>" + b" " * 9999


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def tiny_zip(tiny_root: Path, tmp_path: Path) -> Path:
    return zip_folder(tiny_root, tmp_path / "tiny.zip")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def zip_folder(folder: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                target.write(file, top + file.relative_to(folder).as_posix())
    return path


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def never(address: str, path: Path) -> None:
    raise AssertionError(f"{address} was fetched")


def obtain(source: str, home: Path, drive: Path | None = None, **changed) -> DataFolder:
    """`sources.obtain`, with another function in place of the one that downloads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_download", changed.pop("download", sources._download))
        return sources.obtain(source, home, drive, **changed)


def served(*contents: bytes):
    """A download function that answers each call with the next content, and notes the addresses."""
    addresses: list[str] = []

    def download(address: str, path: Path) -> None:
        path.write_bytes(contents[min(len(addresses), len(contents) - 1)])
        addresses.append(address)

    download.addresses = addresses
    return download


def test_an_archive_is_unpacked_below_home_and_used_again(tiny_zip: Path, home: Path):
    folder = obtain(str(tiny_zip), home)
    digest = hashlib.sha256(tiny_zip.read_bytes()).hexdigest()
    assert folder.root == home / "data" / f"tiny-{digest[:12]}"
    assert (folder.name, folder.archive_sha256) == ("tiny.zip", digest)
    assert not folder.is_published_archive and folder.label == "not the published file"
    assert len(find_samples(folder.root)) == 24

    before = folder.root.stat().st_ino
    assert obtain(str(tiny_zip), home) == folder
    assert folder.root.stat().st_ino == before, "not unpacked again"


def lose(root: Path) -> None:
    (root / "tiny02" / "Part1.jpg").unlink()
    (root / "tiny02" / "Part1_label.bmp").unlink()


CHANGES = {
    "a file lost": lose,
    "a label added": lambda root: (root / "tiny01" / "Part9_label.png").write_bytes(b"my work"),
    "a label drawn": lambda root: (root / "tiny01" / "Part0_label.bmp").write_bytes(b"my work"),
    "a note": lambda root: (root / "notes.txt").write_bytes(b"my work"),
    "the marker lost": lambda root: (root / sources.UNPACKED_MARKER).unlink(),
    "emptied": lambda root: [shutil.rmtree(path) for path in root.glob("tiny*")],
}


@pytest.mark.fault(43)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_somebody_changed_in_an_unpacked_folder_is_kept_aside(
    tiny_zip: Path, home: Path, change
):
    """Labels drawn there are hours of work."""
    root = unpack(tiny_zip, home).root
    kept = []
    for name in (f"{root.name}-changed", f"{root.name}-changed-2"):
        change(root)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        with pytest.warns(UserWarning, match=f"It is kept as {name}, and was made anew"):
            again = obtain(str(tiny_zip), home)
        assert again.root == root and len(find_samples(root)) == 24
        kept.append(root.with_name(name))
        assert all((kept[-1] / p.relative_to(root)).read_bytes() == b for p, b in before.items())
        assert tree(kept[-1]) >= {p.relative_to(root).as_posix() for p in before}
    assert sorted((home / "data").iterdir()) == [root, *kept]


def test_a_relative_source_still_stands_when_the_folder_of_work_changes(
    tiny_zip: Path, tiny_root: Path, monkeypatch
):
    monkeypatch.chdir(tiny_zip.parent)
    folders = [obtain("tiny.zip", Path("home")), obtain("tiny", Path("home"))]
    monkeypatch.chdir("/")
    assert [len(find_samples(folder.root)) for folder in folders] == [24, 24]


def test_a_copy_named_by_a_browser_unpacks(tiny_zip: Path, home: Path):
    copy = tiny_zip.rename(tiny_zip.with_name("tiny [1] (2).zip"))
    assert len(find_samples(unpack(copy, home).root)) == 24


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    "stem", ["x" * 251, "\u20ac" * 83, "pr\udcfcf", "a\rb", " a ", "\U0001f600" * 62]
)
def test_an_archive_of_any_name_is_unpacked(tiny_zip: Path, home: Path, stem: str):
    folder = obtain(str(tiny_zip.rename(tiny_zip.with_name(f"{stem}.zip"))), home)
    assert len(find_samples(folder.root)) == 24
    assert folder.name.isprintable() and folder.root.name.isprintable()


def test_one_top_folder_is_taken_off(tiny_root: Path, tmp_path: Path, home: Path):
    root = unpack(zip_folder(tiny_root, tmp_path / "a.zip", top="Kolektor SDD/"), home).root
    assert len(find_samples(root)) == 24


def test_a_folder_is_used_where_it_is_even_one_folder_deeper(tiny_root: Path, home: Path):
    assert obtain(str(tiny_root), home).root == tiny_root
    assert obtain(str(tiny_root.parent), home).root == tiny_root
    assert not home.exists()


@pytest.mark.fault(89)
@pytest.mark.parametrize(
    "name", ["annotations.xml", "labels.csv", "classes.txt", "data.yaml", "1.PNG"]
)
def test_a_folder_is_not_left_out_where_a_file_beside_it_may_tell_of_it(
    name, tmp_path: Path, home: Path
):
    root = tmp_path / "set"
    for inner in ("default", "second"):
        (root / "images" / inner).mkdir(parents=True)
        (root / "images" / inner / "1.png").write_bytes(b"x")
    for plain in ("README.txt", "LICENSE", ".DS_Store", "Thumbs.db"):
        (root / plain).write_bytes(b"x")
    assert obtain(str(root), home).root == root / "images"
    (root / name).write_bytes(b"x")
    assert obtain(str(root), home).root == root


def test_generated_data_stays_generated_through_an_archive(tiny_root: Path, tmp_path, home: Path):
    (tiny_root / "generated.json").write_text("{}")
    assert obtain(str(tiny_root), home).label == "GENERATED"
    packed = zip_folder(tiny_root, tmp_path / "KolektorSDD.zip")
    assert obtain(str(packed), home).label == "GENERATED"


def test_a_place_here_goes_before_one_of_the_name_in_drive(
    tiny_zip: Path, tiny_root: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drive = tmp_path / "MyDrive"
    shutil.copytree(tiny_root, drive / "tiny")
    assert obtain("tiny", home, drive).root == drive / "tiny"
    with pytest.raises(DataError, match="is no folder"):
        obtain(str(tmp_path / "elsewhere" / "tiny"), home, drive)  # a path means that place alone
    monkeypatch.chdir(tmp_path)
    assert obtain("tiny", home, drive).root == tiny_root


def test_the_published_archive_is_known_by_its_bytes(tiny_zip: Path, home: Path, monkeypatch):
    monkeypatch.setattr(kolektorsdd, "ARCHIVE", storage.FileHash.of(tiny_zip))
    folder = obtain(str(tiny_zip), home)
    assert folder.is_published_archive and folder.label == "the published file"


@pytest.mark.fault(1)
def test_a_web_page_saved_as_zip_is_shown_and_its_file_removed(home: Path):
    with pytest.raises(DataError, match=r"is a web page.*<!DOCTYPE html>.*Too many users\\x07"):
        obtain("https://example.org/set.zip", home, download=served(PAGE))
    assert not any(path.is_file() for path in home.rglob("*"))


@pytest.mark.fault(1)
def test_a_web_page_of_the_user_is_refused_but_left_alone(tmp_path: Path, home: Path):
    page = tmp_path / "page.zip"
    page.write_bytes(PAGE)
    with pytest.raises(DataError, match="page.zip is a web page"):
        obtain(str(page), home)
    assert page.exists() and not home.exists()


@pytest.mark.fault(1)
def test_of_a_long_page_the_first_80_characters_are_shown_escaped(home: Path):
    page = "<html>\x1b[31m\n\t\u202e'Sign in'\u0000 \u00fc" + "".join(map(chr, range(48, 123)))
    with pytest.raises(DataError) as refused:
        obtain("https://example.org/set.zip", home, download=served(page.encode()))
    assert f"it starts with {page[:80]!r}: fetch it again" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.fixture
def published(tiny_zip: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The tiny archive in the part of the published one."""
    monkeypatch.setattr(kolektorsdd, "ARCHIVE", storage.FileHash.of(tiny_zip))
    return tiny_zip.read_bytes()


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [lambda _: PAGE, lambda data: data[:-9000], flipped])
@pytest.mark.fault(2)
@pytest.mark.fault(1)
def test_a_damaged_download_is_reported_and_the_next_source_tried(published, home: Path, damage):
    lines: list[str] = []
    download = served(damage(published), published)
    folder = obtain("kolektorsdd", home, download=download, report=lines.append)
    assert folder.is_published_archive
    assert download.addresses == list(kolektorsdd.ARCHIVE_ADDRESSES)
    assert lines[0] == "KolektorSDD.zip is not here: it is downloaded (100 MB)."
    assert len(lines) == 2 and all("\n" not in line for line in lines)
    assert tree(home / "downloads") == {"KolektorSDD.zip"}


@pytest.mark.fault(1)
def test_with_no_usable_source_every_place_is_named_and_nothing_is_left(published, home, tmp_path):
    drive = tmp_path / "drive"
    (drive / "ksdd").mkdir(parents=True)
    for folder in (home, drive, drive / "ksdd"):
        folder.mkdir(exist_ok=True)
        (folder / "KolektorSDD.zip").write_bytes(published[:-9000])
    with pytest.raises(DataError, match="found nowhere") as caught:
        obtain("kolektorsdd", home, drive=drive, download=served(flipped(published)))
    for place in ("in this folder", "in Drive", "in the folder ksdd of Drive"):
        assert f"KolektorSDD.zip {place}: " in str(caught.value)
    assert "Put KolektorSDD.zip into My Drive" in str(caught.value)
    (home / "KolektorSDD.zip").unlink()
    for address in kolektorsdd.ARCHIVE_ADDRESSES:
        assert address in str(caught.value)
    assert not any(path.is_file() for path in home.rglob("*"))


@pytest.mark.fault(3)
def test_a_truncated_archive_from_an_earlier_run_is_not_trusted(published, home: Path):
    (home / "downloads").mkdir(parents=True)
    for place in (home, home / "downloads"):
        (place / "KolektorSDD.zip").write_bytes(published[:-9000])
    folder = obtain("kolektorsdd", home, download=served(published))
    assert len(find_samples(folder.root)) == 24


def test_local_copies_come_before_the_network(tiny_zip: Path, home: Path, tmp_path: Path):
    drive = tmp_path / "drive"
    (drive / "ksdd").mkdir(parents=True)
    shutil.copy(tiny_zip, drive / "ksdd" / "KolektorSDD.zip")
    first = obtain("kolektorsdd", home, drive, download=never)
    assert len(find_samples(first.root)) == 24
    shutil.rmtree(drive)
    assert obtain("kolektorsdd", home, drive, download=never) == first, "unpacked already"


@pytest.mark.fault(6)
def test_a_failing_server_is_tried_a_few_times_and_never_by_http(home: Path):
    addresses = []

    def fails(address: str, path: Path) -> None:
        addresses.append(address)
        raise ConnectionError("reset by peer")

    with pytest.raises(DataError, match="3 attempts failed .ConnectionError: reset by peer"):
        obtain("https://example.org/a.zip", home, download=fails)
    assert addresses == ["https://example.org/a.zip"] * 3


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/file/d/1a_B-c/view?usp=sharing",
        "https://drive.google.com/file/u/0/d/1a_B-c/view",
        "https://drive.google.com/open?id=1a_B-c",
        "https://drive.google.com/uc?export=download&id=1a_B-c",
        "drive:1a_B-c",
    ],
)
def test_a_drive_link_is_changed_into_the_address_of_its_file(
    tiny_zip: Path, home: Path, link: str
):
    download = served(tiny_zip.read_bytes())
    assert len(find_samples(obtain(link, home, download=download).root)) == 24
    assert download.addresses == ["https://drive.google.com/uc?id=1a_B-c"]
    [path] = (home / "downloads").iterdir()
    assert path.name.startswith("drive-") and "1a_B" not in path.name


def test_an_address_keeps_its_query_and_its_file_does_not_get_it(tiny_zip: Path, home: Path):
    address = "https://example.org/set.zip?token=secret&id=5"
    download = served(tiny_zip.read_bytes())
    folder = obtain(address, home, download=download)
    assert download.addresses == [address]
    assert folder.name.startswith("set-") and "secret" not in str(folder)
    assert not any("secret" in name for name in tree(home))


def test_several_sources_are_tried_in_turn_and_each_failure_is_one_line(
    tiny_zip: Path, home: Path, tmp_path: Path
):
    lines: list[str] = []
    source = f"{tmp_path}/absent.zip; https://example.org/a.zip?key=k ;{tiny_zip};drive:never"
    folder = obtain(source, home, download=served(PAGE), report=lines.append)
    assert folder.name == "tiny.zip"
    assert [line.split(":")[0] for line in lines] == [
        "Passed over absent.zip",
        "Passed over https",
    ]
    assert all("\n" not in line and "key=k" not in line for line in lines)

    with pytest.raises(DataError, match="The data set was found nowhere") as caught:
        obtain("absent;kolektorsdd;drive:1a", home, download=served(PAGE), report=lines.append)
    for name in ("absent: ", "vicos.si", "Put KolektorSDD.zip beside", "drive:1a: "):
        assert name in str(caught.value)


def test_a_path_with_a_semicolon_is_one_path(tiny_root: Path, home: Path):
    root = tiny_root.rename(tiny_root.with_name("tiny;other"))
    assert obtain(str(root), home, report=never).root == root


def test_what_is_reported_names_no_folder_of_this_machine(
    published, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    def full(address: str, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    (home / "data" / f"KolektorSDD-{'0' * 12}").mkdir(parents=True)
    with pytest.raises(DataError):
        obtain(f"{tmp_path}/x;kolektorsdd", home, drive=tmp_path / "drive", download=full)
    lines = capsys.readouterr().out
    assert len(lines.splitlines()) == 2 + len(kolektorsdd.ARCHIVE_ADDRESSES)
    assert str(tmp_path) not in lines and "No space left" in lines


def test_a_caller_who_listens_keeps_standard_output_clean(
    published, home: Path, capsys: pytest.CaptureFixture
):
    lines: list[str] = []
    obtain("kolektorsdd", home, download=served(published), report=lines.append)
    assert lines and capsys.readouterr().out == ""


@pytest.mark.fault(6)
@pytest.mark.parametrize("target", ["http://plain.org/a.zip", "HTTP://plain.org/a.zip"])
def test_a_redirect_from_https_to_http_is_not_followed(home: Path, monkeypatch, target: str):
    asked = []

    def answer(adapter, request, **_):
        asked.append(request.url)
        response = requests.Response()
        response.status_code, response.url, response.request = 302, request.url, request
        response.headers["Location"] = target if len(asked) % 2 == 0 else "/moved.zip"
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
    with pytest.raises(DataError, match="leads to http, which is not encrypted"):
        obtain("https://example.org/a.zip", home)
    assert asked == ["https://example.org/a.zip", "https://example.org/moved.zip"] * 3


@pytest.mark.fault(6)
def test_http_is_refused_before_anything_is_fetched(home: Path):
    with pytest.raises(DataError, match="use https"):
        obtain("http://example.org/a.zip", home, download=never)


def test_a_spelling_mistake_is_named(home: Path):
    with pytest.raises(DataError, match="'kolektorsd' is no folder, file or https address"):
        obtain("kolektorsd", home)


def test_two_addresses_of_one_file_name_are_two_archives(tiny_zip: Path, tiny_root, tmp_path, home):
    shutil.rmtree(tiny_root / "tiny06")
    other = zip_folder(tiny_root, tmp_path / "other.zip")
    one = obtain("https://a.org/x.zip", home, download=served(tiny_zip.read_bytes()))
    two = obtain("https://b.org/x.zip", home, download=served(other.read_bytes()))
    assert len(find_samples(one.root)) == 24 and len(find_samples(two.root)) == 20


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.97, 0.999])
@pytest.mark.fault(2)
def test_a_cut_archive_is_refused_wherever_it_is_cut(tiny_zip: Path, home: Path, share: float):
    tiny_zip.write_bytes(tiny_zip.read_bytes()[: int(tiny_zip.stat().st_size * share)])
    with pytest.raises(DataError, match="tiny.zip"):
        unpack(tiny_zip, home)
    assert not home.exists()


@pytest.mark.fault(2)
def test_a_flipped_byte_is_refused_by_its_checksum_and_nothing_is_left(tiny_zip: Path, home: Path):
    tiny_zip.write_bytes(flipped(tiny_zip.read_bytes()))
    with pytest.raises(DataError, match="tiny.zip, member .*, is cut off or damaged.*CRC"):
        unpack(tiny_zip, home)
    assert tree(home) == {"data"}


def hostile(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    if name.startswith("link"):
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "kos01/../../x.jpg", "/abs/x.jpg", "..\\x.jpg", "C:\\x.jpg", "link/x.jpg"],
)
@pytest.mark.fault(5)
def test_a_member_that_reaches_outside_refuses_the_archive(tiny_zip: Path, home: Path, name: str):
    with zipfile.ZipFile(tiny_zip, "a") as target:
        target.writestr(hostile(name), b"/etc/passwd")
    before = tree(tiny_zip.parent)
    with pytest.raises(DataError, match="refused: its member .*x.jpg' (points outside|is a link)"):
        unpack(tiny_zip, home)
    assert tree(tiny_zip.parent) == before


@pytest.mark.fault(5)
def test_a_bomb_is_refused_by_what_it_claims(tiny_zip: Path, home: Path):
    with zipfile.ZipFile(tiny_zip, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("tiny01/bomb.bmp", bytes(65 * 2**20))
    with pytest.raises(DataError, match="tiny01/bomb.bmp' unpacks to 68,157,440 bytes"):
        unpack(tiny_zip, home)
    assert not home.exists()


@pytest.mark.fault(5)
def test_a_member_twice_is_refused(tiny_zip: Path, home: Path):
    with zipfile.ZipFile(tiny_zip, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr("tiny01/Part0.jpg", b"another")
    with pytest.raises(DataError, match="holds 'tiny01/Part0.jpg' twice"):
        unpack(tiny_zip, home)


@pytest.mark.fault(42)
@pytest.mark.parametrize("top", ["", "Kolektor SDD\\"])
def test_backslashes_between_folders_are_read_as_folders(tiny_root, tmp_path, home: Path, top):
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(f"{top}tiny01\\", b"")
        for file in sorted(tiny_root.rglob("*.*")):
            target.writestr(top + f"{file.parent.name}\\{file.name}", file.read_bytes())
        target.writestr(f"{top}tiny01\\deep\\a.jpg", b"x")
    folder = obtain(str(path), home)
    assert len(find_samples(folder.root)) == 24
    assert not any("\\" in name for name in tree(folder.root))
    assert survey(folder.root).ignored == ("tiny01/deep/",)


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("name", "danger"),
    [
        ("tiny01\\..\\..\\x.jpg", "points outside"),
        ("\\\\server\\x.jpg", "points outside"),
        ("tiny01\\Part0.jpg", "twice"),
        ("link\\x.jpg", "is a link"),
    ],
)
def test_names_with_backslashes_are_checked_as_others_are(tiny_zip, home: Path, name, danger):
    with zipfile.ZipFile(tiny_zip, "a") as target:
        target.writestr(hostile(name), b"x")
    with pytest.raises(DataError, match=f"tiny.zip is refused: .*{danger}"):
        unpack(tiny_zip, home)
    assert not home.exists()


@pytest.mark.fault(5)
def test_harmless_other_members_are_ignored_and_reported(tiny_zip: Path, home: Path):
    others = ["readme.pdf", "tiny01/run.sh", "__MACOSX/tiny01/._a.jpg"]
    with zipfile.ZipFile(tiny_zip, "a") as target:
        for name in [*others, "tiny01/tiny02/Part0.jpg", "notes.txt"]:
            target.writestr(name, b"x")
    folder = obtain(str(tiny_zip), home)
    assert list(folder.ignored) == others
    assert set(survey(folder.root).ignored) == {"tiny01/tiny02/", "notes.txt"}
    assert len(find_samples(folder.root)) == 24
    assert not any(path.suffix in (".pdf", ".sh") for path in folder.root.rglob("*"))


@pytest.mark.parametrize("top", ["", "my parts/"])
def test_what_may_say_something_of_pictures_is_unpacked_wherever_it_lies(tmp_path, home: Path, top):
    path = tmp_path / "coco.zip"
    names = ["images/a/1.jpg", "images/b/2.jpg", "annotations/instances.json", "labels/1.txt"]
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            target.writestr(top + name, b"x")
    root = unpack(path, home).root
    found = {file.relative_to(root).as_posix() for file in root.rglob("[!.]*") if file.is_file()}
    assert found == set(names)


def test_a_lone_folder_of_pictures_stays_a_folder(tmp_path: Path, home: Path):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("kos01/Part0.jpg", b"x")
    assert (unpack(path, home).root / "kos01" / "Part0.jpg").exists()


def test_an_archive_of_something_else_is_refused(tmp_path: Path, home: Path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("readme.pdf", "x")
    with pytest.raises(DataError, match="other.zip holds no image"):
        unpack(path, home)
    assert not home.exists()


@pytest.mark.fault(24)
def test_a_full_disk_leaves_nothing_and_is_loud(tiny_zip: Path, home: Path, monkeypatch):
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "Part3.jpg":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        unpack(tiny_zip, home)
    assert tree(home) == {"data"}


KILLED = """
import os, sys
from pathlib import Path
from ksdd_lib.data import sources
write, count = Path.write_bytes, 0
def killed(path, data):
    global count
    count += 1
    if count == 20:
        os.kill(os.getpid(), 9)
    return write(path, data)
Path.write_bytes = killed
sources.unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.fault(4)
def test_killed_in_the_middle_and_run_again_gives_the_whole_set(tiny_zip: Path, home: Path):
    environment = os.environ | {"PYTHONPATH": str(Path(sources.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(tiny_zip), str(home)]
    assert subprocess.run(command, env=environment).returncode == -9
    left = list((home / "data").iterdir())
    assert len(left) == 1 and left[0].name.startswith("."), "only a temporary folder"

    root = unpack(tiny_zip, home).root
    assert len(find_samples(root)) == 24
    assert list((home / "data").iterdir()) == [root]


class Resuming(http.server.BaseHTTPRequestHandler):
    """Serves `content` from the first byte that is asked for, and notes what was asked."""

    content, asked = b"", []

    def do_GET(self) -> None:
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.asked.append(start)
        size = len(self.content)
        self.send_response(206 if start < size else 416)
        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(max(0, size - start)))
        self.end_headers()
        self.wfile.write(self.content[start:])


@pytest.mark.fault(2)
@pytest.mark.parametrize("here", [0, 1000, None], ids=["nothing", "a part", "all"])
def test_a_part_that_was_fetched_before_is_gone_on_with(
    tiny_zip: Path, home: Path, here, monkeypatch
):
    monkeypatch.setattr(Resuming, "content", tiny_zip.read_bytes())
    monkeypatch.setattr(Resuming, "asked", [])
    part = home / "downloads" / "x.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(Resuming.content[:here])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Resuming) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/x.zip"
        sources._fetch(address, "x.zip", home)
        server.shutdown()
    assert (home / "downloads" / "x.zip").read_bytes() == Resuming.content
    assert Resuming.asked == [len(Resuming.content[:here])]


class Stubborn(http.server.BaseHTTPRequestHandler):
    """Answers a request for the rest of `content` as `habit` says, and any other with the whole."""

    content, habit = b"", ""

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        size, status, place = len(self.content), 200, 0
        if start and self.habit.isdecimal():
            status, place = int(self.habit), size
        elif start and self.habit == "another part":
            status, place = 206, start // 2
        elif self.habit == "any part":
            status, place = 206, start
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {place}-{size - 1}/{size}")
        self.send_header("Content-Length", str(max(0, size - place)))
        self.end_headers()
        self.wfile.write(self.content[place:])

    def log_message(self, *_: object) -> None:
        pass


BROKEN_PARTS = {
    "all": lambda whole: whole,
    "more than all": lambda whole: whole + b"more",
    "of another file": lambda whole: b"PK" + bytes(9000),
    "damaged": lambda whole: bytes(9000) + whole[9000:20_000],
    "a member damaged": lambda whole: whole[:5000] + bytes(99) + whole[5099:20_000],
    "a web page": lambda whole: PAGE,
    "empty": lambda whole: b"",
}


@pytest.mark.fault(45)
@pytest.mark.parametrize("part", BROKEN_PARTS.values(), ids=BROKEN_PARTS)
@pytest.mark.parametrize("habit", ["", "416", "403", "501", "another part", "any part"])
def test_no_part_of_an_earlier_download_blocks_an_address(tiny_zip: Path, home, habit, part):
    whole = tiny_zip.read_bytes()
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "x.zip.part").write_bytes(part(whole))
    handler = type("Server", (Stubborn,), {"content": whole, "habit": habit})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/x.zip"
        folder = sources._fetch(address, "x.zip", home)
        server.shutdown()
    assert len(find_samples(folder.root)) == 24
    assert (home / "downloads" / "x.zip").read_bytes().startswith(whole)
    assert tree(home / "downloads") == {"x.zip"}


@pytest.mark.fault(45)
def test_a_download_that_was_damaged_later_is_fetched_again(tiny_zip: Path, home: Path):
    whole, download = tiny_zip.read_bytes(), served(tiny_zip.read_bytes())
    root = obtain("https://example.org/x.zip", home, download=download).root
    shutil.rmtree(root)
    [kept] = (home / "downloads").iterdir()
    for damage in (whole[:5000] + bytes(99) + whole[5099:], whole[:-9000], PAGE, b""):
        kept.write_bytes(damage)
        assert len(find_samples(obtain("https://example.org/x.zip", home, download=download).root))
        assert kept.read_bytes() == whole
        shutil.rmtree(root)


@pytest.mark.fault(45)
def test_without_a_network_what_was_fetched_before_is_kept(tiny_zip: Path, home: Path):
    (home / "downloads").mkdir(parents=True)
    name = sources._download_name("https://example.org/x.zip")
    part = home / "downloads" / f"{name}.part"
    part.write_bytes(tiny_zip.read_bytes()[:5000])
    for error in (requests.ConnectionError("no route"), requests.Timeout(), OSError(28, "full")):

        def fails(address: str, path: Path, error: Exception = error) -> None:
            raise error

        with pytest.raises(DataError, match="3 attempts failed"):
            obtain("https://example.org/x.zip", home, download=fails)
        assert part.stat().st_size == 5000


@pytest.mark.fault(45)
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("version", [5, 6])
def test_parts_that_gdown_cannot_go_on_with_do_not_block_a_drive_link(
    tiny_zip: Path, home: Path, monkeypatch, parts: int, version: int
):
    """It gives up where there are two, and where Drive does not give the rest of one."""

    def download(address: str, path: str, resume: bool) -> str | None:
        if list(Path(path).parent.glob("*.part????????.part")):
            if version == 5:
                return None
            raise RuntimeError("the partial file is preserved")
        shutil.copy(tiny_zip, path)
        return path

    monkeypatch.setattr("gdown.download", download)
    (home / "downloads").mkdir(parents=True)
    name = sources._download_name(f"{sources.DRIVE_ADDRESS}1a_B-c")
    for number in range(parts):
        (home / "downloads" / f"{name}.part{number:08}.part").write_bytes(b"PK" * number)
    assert len(find_samples(obtain("drive:1a_B-c", home).root)) == 24
    assert tree(home / "downloads") == {name}


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/drive/folders/1a_B-c?usp=sharing",
        "https://drive.google.com/drive/u/0/folders/1a_B-c",
        "https://drive.google.com/drive/folders/1a_B-c?resourcekey=0-x",
        "https://drive.google.com/folderview?id=1a_B-c&usp=sharing",
        "https://drive.google.com/embeddedfolderview?id=1a_B-c",
    ],
)
def test_a_link_to_a_folder_of_drive_says_so(home: Path, link: str):
    with pytest.raises(DataError, match="leads to a folder of Drive: share a zip"):
        obtain(link, home, download=never)


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/file/d/1a_B-c/view?usp=sharing&resourcekey=0-k_Y",
        "https://drive.google.com/file/d/1a_B-c/view?resourcekey=0-k_Y&usp=drive_link#x",
        "https://drive.google.com/open?id=1a_B-c&resourcekey=0-k_Y",
        "https://drive.google.com/uc?resourcekey=0-k_Y&export=download&id=1a_B-c",
    ],
)
def test_the_resource_key_of_a_drive_link_reaches_the_server(
    tiny_zip: Path, home: Path, link: str, monkeypatch
):
    asked = []

    def answer(adapter, request, **_):
        asked.append(request.url)
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.raw = io.BytesIO(tiny_zip.read_bytes())
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
    assert len(find_samples(obtain(link, home).root)) == 24
    [url] = asked
    assert url.startswith("https://drive.usercontent.google.com/download?")
    assert {"id=1a_B-c", "resourcekey=0-k_Y", "confirm=t"} <= set(url.partition("?")[2].split("&"))
    assert not any("k_Y" in name for name in tree(home))


@pytest.mark.fault(46)
def test_quotes_and_spaces_around_a_pasted_path_go(tiny_zip: Path, tiny_root: Path, home: Path):
    for left, right in [('"', '"'), ("'", "'"), (" ", "  "), ("\u201c", "\u201d"), (' "', '"\n')]:
        assert obtain(f"{left}{tiny_root}{right}", home).root == tiny_root
        assert obtain(f"{left}{tiny_zip}{right}", home).name == "tiny.zip"
        both = f"{left}{tiny_root.parent / 'absent'}{right}; {left}{tiny_root}{right}"
        assert obtain(both, home, report=lambda _: None).root == tiny_root
    download = served(tiny_zip.read_bytes())
    obtain(" <https://example.org/x.zip>\n", home, download=download)
    assert download.addresses == ["https://example.org/x.zip"]
    quoted = tiny_root.rename(tiny_root.with_name(" 'mine' "))
    assert obtain(str(quoted), home).root == quoted


def test_google_drive_is_asked_by_gdown(tiny_zip: Path, home: Path, monkeypatch):
    def download(address: str, path: str, resume: bool) -> str | None:
        assert address == "https://drive.google.com/uc?id=1a_B-c" and resume
        shutil.copy(tiny_zip, path)
        return path

    monkeypatch.setattr("gdown.download", download)
    assert len(find_samples(obtain("drive:1a_B-c", home).root)) == 24


def test_the_downloader_fetches_a_file_and_shows_a_refusal(tiny_zip: Path, tmp_path: Path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tiny_zip.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        sources._download(f"{address}/tiny.zip", tmp_path / "x.part")
        assert (tmp_path / "x.part").read_bytes() == tiny_zip.read_bytes()
        with pytest.raises(DataError, match="3 attempts failed|is a web page"):
            sources._fetch(f"{address}/none.zip", "y.zip", tmp_path / "home")
        server.shutdown()
    assert not any(path.is_file() for path in (tmp_path / "home").rglob("*"))


@pytest.mark.slow
def test_kolektor_unpacks_whole(kolektor_root: Path):
    assert len([*kolektor_root.rglob("*.jpg")]) == len([*kolektor_root.rglob("*.bmp")]) == 400
    assert not list(kolektor_root.parent.glob(".*"))


def test_of_a_path_that_is_wrong_the_first_missing_part_is_named(tmp_path: Path):
    (tmp_path / "MyDrive").mkdir()
    place = tmp_path / "MyDrive" / "prts" / "a.zip"
    with pytest.raises(DataError, match="there is no 'prts' in MyDrive"):
        obtain(str(place), tmp_path)
    assert sources.what_is_missing(str(tmp_path)) == ""
    assert sources.what_is_missing("parts") == "", "it may be in Drive"
    assert sources.what_is_missing("https://example.org/a/b.zip") == ""
