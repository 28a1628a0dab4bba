"""Where the data set comes from: a folder, a zip archive, an https address or a Google Drive link.

An archive is checked, then unpacked into a temporary folder that is renamed when it is complete.
Nothing is believed because of its name or because it is there.
"""

import contextlib
import glob
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlparse

import requests
from tqdm import tqdm

from ksdd_lib import storage
from ksdd_lib.data import kolektorsdd
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS
from ksdd_lib.data.synthetic import MARKER as GENERATED_MARKER
from ksdd_lib.data.zips import ANNOTATION_EXTENSIONS, PLAIN, Archive, open_archive
from ksdd_lib.errors import DataError, KsddError, RunError
from ksdd_lib.formatting import printable, unquoted
from ksdd_lib.storage import FileHash

UNPACKED_MARKER = ".unpacked.json"  # holds an `Unpacked`
NOT_PUBLISHED = "not the published file"

DRIVE_LINK = re.compile(
    r"drive:(?P<name>[\w-]+)"
    r"|https://(?:drive|docs)\.google\.com/(?:.*/d/|.*[?&]id=)(?P<id>[\w-]+)(?:[/?&#].*)?"
)
DRIVE_FOLDER = re.compile(r"https://drive\.google\.com/(drive/|embedded)?(.*/)?folder(s/|view\?).*")
DRIVE_ADDRESS = "https://drive.google.com/uc?id="
DRIVE_KEY_ADDRESS = "https://drive.usercontent.google.com/download?confirm=t&id="
KEY = "&resourcekey="  # some older links have one, without which Drive refuses the file

ATTEMPTS = 3
TIMEOUT = 60  # seconds without a byte

Attempt = tuple[str, Callable[[], "DataFolder"]]  # a place as a text names it, what looks there


@dataclass(frozen=True)
class DataFolder:
    """A data set on this machine: the folder of its items, and where it comes from."""

    root: Path
    name: str  # for people, as "KolektorSDD.zip"
    archive_sha256: str | None = None  # None if it was not unpacked from one
    ignored: tuple[str, ...] = ()  # what the archive held besides
    layout: str = ""  # from which the items were written, if they were
    notes: tuple[str, ...] = ()  # what was not understood then, in sentences

    @property
    def is_published_archive(self) -> bool:
        """Whether its archive is byte for byte the published KolektorSDD."""
        return self.archive_sha256 == kolektorsdd.ARCHIVE.sha256

    @property
    def is_generated(self) -> bool:
        """Whether the surfaces are generated."""
        return (self.root / GENERATED_MARKER).is_file()

    @property
    def label(self) -> str:
        """Where the data comes from, as one phrase for every report."""
        if self.is_generated:
            return "GENERATED"
        return "the published file" if self.is_published_archive else NOT_PUBLISHED


class Unpacked(storage.Record):
    """What a folder was unpacked from, and how many files and bytes it must hold."""

    archive: str
    sha256: str
    ignored: tuple[str, ...]
    contents: dict[str, int]


def obtain(
    source: str, home: Path, drive: Path | None = None, report: Callable[[str], None] = print
) -> DataFolder:
    """The data set of `source`, unpacked below `home`/data unless it is a folder already.

    `source` is a folder, a zip archive, an https address, a Google Drive link (or "drive:" and its
    id), "kolektorsdd", or several of them with ";" between, which are tried in turn. In `drive` a
    bare name is looked for too, and "kolektorsdd" before it is downloaded. `report` is told why a
    place was passed over. DataError where nothing usable is there; it names each place.
    """
    home, sources = Path(home).resolve(), [unquoted(source)]
    if ";" in sources[0] and not os.path.exists(os.path.expanduser(sources[0])):
        sources = [one for one in map(unquoted, sources[0].split(";")) if one]
    attempts: list[Attempt] = []
    for one in sources:
        if one == "kolektorsdd":
            attempts += _kolektorsdd(home, drive, report)
        else:
            attempts.append((_public(one), partial(_obtain_one, _in_drive(one, drive), home)))
    if len(attempts) == 1:
        return attempts[0][1]()
    failures = []
    for place, attempt in attempts:
        try:
            return attempt()
        except DataError as error:
            failures.append(f"{place}: {' '.join(str(error).split())}")
            report(f"Passed over {failures[-1]}")
    if "kolektorsdd" in sources:
        place = "into My Drive" if drive else "beside the folder runs"
        failures.append(f"Put {kolektorsdd.ARCHIVE_NAME} {place}, or give its path.")
    what = "KolektorSDD" if sources == ["kolektorsdd"] else "The data set"
    raise DataError(f"{what} was found nowhere. {' '.join(failures)}", see="data#data")


def from_folder(folder: Path) -> DataFolder:
    """The data in a folder; the items may stand deeper, where nothing beside tells of them."""
    known = (*IMAGE_EXTENSIONS, *ANNOTATION_EXTENSIONS)
    inside = [path for path in folder.iterdir() if path.name[0] not in "._"]
    below = [path for path in inside if path.is_dir()]
    beside = [path.name for path in inside if path.suffix.lower() in known and path not in below]
    if len(below) == 1 and all(map(PLAIN.fullmatch, beside)):
        inside = list(below[0].iterdir())
        has_images = any(path.suffix.lower() in IMAGE_EXTENSIONS for path in inside)
        if not has_images and any(path.is_dir() for path in inside):
            return from_folder(below[0])
    with contextlib.suppress(DataError):
        return _described(folder)
    return DataFolder(folder, folder.resolve().name)


def unpack(archive: Path, home: Path) -> DataFolder:
    """The data in `home`/data/<stem>-<sha256>, unpacked if need be; DataError where it cannot."""
    try:
        with open_archive(archive) as opened:
            sha256 = storage.sha256(archive)
            name = f"{printable(archive.stem)[:50]}-{sha256[:12]}"
            target = Path(home).resolve() / "data" / name
            if not _is_whole(target):
                _extract(opened, sha256, target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{archive.name} cannot be unpacked: {reason}.") from None
    return _described(target)


def _kolektorsdd(home: Path, drive: Path | None, report: Callable[[str], None]) -> list[Attempt]:
    """Unpacked here, as an archive here or in Drive, then by its published addresses."""
    name, attempts = kolektorsdd.ARCHIVE_NAME, list[Attempt]()
    for path in sorted((home / "data").glob(f"{Path(name).stem}-{'[0-9a-f]' * 12}")):
        attempts.append((f"{path.name} in this folder", partial(_described, path)))
    for folder, where in [(home, "in this folder"), *_drive_places(drive)]:
        if os.path.exists(folder / name):
            attempts.append((f"{name} {where}", partial(unpack, folder / name, home)))
    if not attempts:
        where = "neither here nor in Drive" if drive else "not here"
        report(f"{name} is {where}: it is downloaded (100 MB).")
    for address in kolektorsdd.ARCHIVE_ADDRESSES:
        attempts.append((address, partial(_fetch, address, name, home, kolektorsdd.ARCHIVE)))
    return attempts


def _obtain_one(source: str, home: Path) -> DataFolder:
    """The data set of a source other than "kolektorsdd"."""
    if source.startswith("http://"):
        raise DataError(f"{_public(source)} is not encrypted, anyone could alter it: use https.")
    if DRIVE_FOLDER.fullmatch(source):
        raise DataError(
            "The link leads to a folder of Drive: share a zip archive of the folder, and give the"
            " link of that.",
            see="data#data",
        )
    if link := DRIVE_LINK.fullmatch(source):  # it leads to a page: changed into the file's address
        key = re.search(r"[?&]resourcekey=([\w-]+)", source)
        source = DRIVE_ADDRESS + (link["name"] or link["id"]) + (KEY + key[1] if key else "")
    if source.startswith("https://"):
        return _fetch(source, _download_name(source), home)
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return from_folder(path)
    if path.is_file():
        return unpack(path, home)
    missing = what_is_missing(source)
    what = f"The data source {_public(source)!r} is no folder, file or https address"
    told = f'{what}: {missing or "check the spelling"}, or give "kolektorsdd".'
    raise DataError(told, see="data#data")


def what_is_missing(source: str) -> str:
    """ "there is no 'prts' in MyDrive": the first part of a path that is not there.

    It is "" where all of it is there, and of an address, of several sources, and of a bare name.
    """
    path = Path(source).expanduser()
    if "://" in source or ";" in source or len(path.parts) < 2 or path.exists():
        return ""
    path = path.absolute()
    there = next(place for place in path.parents if place.exists())
    return f"there is no {path.parts[len(there.parts)]!r} in {there.name or there}"


def _drive_places(drive: Path | None) -> list[tuple[Path, str]]:
    return [(drive, "in Drive"), (drive / "ksdd", "in the folder ksdd of Drive")] if drive else []


def _in_drive(name: str, drive: Path | None) -> str:
    """The place in Drive of a folder or file that is not here; other sources as they are."""
    if Path(name).name != name or os.path.exists(os.path.expanduser(name)):
        return name
    places = [str(folder / name) for folder, _ in _drive_places(drive)]
    return next(filter(os.path.exists, places), name)


def _public(source: str) -> str:
    """A source as a text may name it: an address without its query, a file without its folder."""
    if link := DRIVE_LINK.fullmatch(source):
        return f"drive:{link['name'] or link['id']}"
    if "://" in source:
        return source.partition("?")[0]
    return Path(source).name or source


def _fetch(address: str, name: str, home: Path, expected: FileHash | None = None) -> DataFolder:
    """The data of an archive in `home`/downloads, checked even where it is there already."""
    path, check = home / "downloads" / name, partial(_check, expected=expected)
    if path.exists() and (expected is None or expected.fits(path)):
        try:
            return unpack(path, home)
        except DataError:
            try:
                check(path)
            except DataError:
                pass  # damaged since: fetched again
            else:
                raise
    fetch(address, path, check)
    return unpack(path, home)


def _check(path: Path, expected: FileHash | None) -> None:
    """Raise DataError unless a file is an archive, and what is expected or whole."""
    with open_archive(path) as archive:
        if expected is None:
            for _ in archive.contents():
                pass
        elif not expected.fits(path):
            raise DataError(
                f"{path.name} is cut off or altered: it has {path.stat().st_size:,} bytes, and the"
                f" published file {expected.bytes:,} with the sha256 {expected.sha256[:12]}."
            )


def fetch(address: str, path: Path, check: Callable[[Path], object]) -> None:
    """Fetch an address to a file that is whole, by what `check` says, or absent.

    What was fetched when an attempt ended stays beside it, and is gone on with. If that does not
    lead to a whole file, everything is fetched once more.

    Raises DataError: nothing could be fetched; or what `check` raises.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for is_continued in (bool(_parts(part)), False):
        _download_patiently(address, part)
        try:
            check(part)
            return os.replace(part, path)
        except KsddError:
            part.unlink(missing_ok=True)
            if not is_continued:
                raise


def _parts(path: Path) -> dict[Path, int]:
    """A part of a file, and parts of it by gdown, which adds to the name; with their bytes."""
    return {p: p.stat().st_size for p in path.parent.glob(f"{glob.escape(path.name)}*")}


def _download_name(address: str) -> str:
    """A file name for an address, without its query: two addresses never share one."""
    path = "drive" if address.startswith(DRIVE_ADDRESS) else urlparse(address).path
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem)[:60] or "data"
    return f"{stem}-{hashlib.sha256(address.encode()).hexdigest()[:8]}.zip"


def _download_patiently(address: str, path: Path) -> None:
    """Fetch an address in a few attempts; what one has fetched stays for the next."""
    for attempt in range(ATTEMPTS):
        before = _parts(path)
        try:
            return _download(address, path)
        except Exception as error:  # of the download library, the network or the disk
            text = str(error).strip().replace(f"{path.parent}/", "")
            reason = f"{type(error).__name__}: {text[:200]}"
            is_network = isinstance(error, requests.ConnectionError | requests.Timeout)
            if not is_network and getattr(error, "errno", None) is None:
                for part, _ in before.items() & _parts(path).items():  # those that did not grow
                    part.unlink()  # it may be why nothing could be added
        if attempt + 1 < ATTEMPTS:
            time.sleep(2**attempt)
    raise DataError(f"{ATTEMPTS} attempts failed ({reason}).")


def _download(address: str, path: Path) -> None:
    """Fetch an address, or what is missing behind the part of it that `path` holds."""
    if address.startswith(DRIVE_ADDRESS):
        if KEY not in address:  # behind a page of Google, which gdown confirms
            import gdown

            if gdown.download(address, str(path), resume=True) is None:
                raise OSError("the server refused the file")
            return
        address = address.replace(DRIVE_ADDRESS, DRIVE_KEY_ADDRESS)  # gdown would drop the key
    start = path.stat().st_size if path.exists() else 0
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    call = partial(requests.get, hooks={"response": _refuse_http}, timeout=TIMEOUT)
    with call(address, stream=True, headers=headers) as answer:
        sent = answer.headers.get("Content-Range", "")
        if start and answer.status_code == 416 and sent.endswith(f"/{start}"):
            return  # nothing is missing
        answer.raise_for_status()
        is_rest = sent.startswith(f"bytes {start}-")
        if answer.status_code == requests.codes.partial_content and not is_rest:
            raise OSError("the server sent another part than was asked for")
        total = int(answer.headers.get("Content-Length", 0)) or None
        bar = tqdm(desc=path.stem, total=total, unit="B", unit_scale=True)
        with open(path, "ab" if is_rest else "wb") as file, bar:
            for block in answer.iter_content(2**20):
                file.write(block)
                bar.update(len(block))


def _refuse_http(answer: requests.Response, **_: object) -> None:
    """Refuse a redirect from https to http, which requests would follow."""
    place = urljoin(answer.url, answer.headers.get("Location"))
    if [urlparse(url).scheme for url in (answer.url, place)] == ["https", "http"]:
        raise OSError(f"{_public(answer.url)} leads to http, which is not encrypted")


def _described(folder: Path) -> DataFolder:
    """An unpacked folder; DataError unless it still holds all that it was unpacked with."""
    try:
        marker = storage.read_record(folder / UNPACKED_MARKER, Unpacked)
    except RunError:
        raise DataError(f"{folder.name} is not a complete unpacked data set.") from None
    if marker.contents != _contents(folder):
        raise DataError(f"{folder.name} has changed since it was unpacked: unpack it again.")
    return DataFolder(folder, marker.archive, marker.sha256, marker.ignored)


def _contents(folder: Path) -> dict[str, int]:
    """How many files a folder holds besides the marker, and their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != UNPACKED_MARKER]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def _extract(archive: Archive, sha256: str, target: Path) -> None:
    """Write each member as a plain file, then the marker, then give the folder its name."""
    with storage.whole_folder(target, lambda: _is_whole(target)) as made:
        for name, data in archive.contents():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        marker = Unpacked(
            archive=archive.name, sha256=sha256, ignored=archive.ignored, contents=_contents(made)
        )
        storage.write_record(made / UNPACKED_MARKER, marker)


def _is_whole(folder: Path) -> bool:
    with contextlib.suppress(DataError):
        return bool(_described(folder))
    return False
