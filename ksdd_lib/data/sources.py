"""Where the data set comes from: a folder, a zip archive, an https address or a Google Drive link.

An archive is checked, then unpacked into a temporary folder that is renamed when it is complete:
half a data set is never used. Nothing is believed because of its name or because it is there.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlparse

from ksdd_lib import storage
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS
from ksdd_lib.data.zips import GENERATED_MARKER, Archive, check_archive, open_archive
from ksdd_lib.errors import DataError, RunError

PUBLISHED_NAME = "KolektorSDD.zip"
PUBLISHED_SIZE = 101_831_129  # bytes
PUBLISHED_SHA256 = "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"
PUBLISHED_ADDRESSES = (
    "https://go.vicos.si/kolektorsdd",
    "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip",
)
UNPACKED_MARKER = ".unpacked.json"  # what a folder was unpacked from, and how much it must hold

DRIVE_LINK = re.compile(
    r"drive:(?P<name>[\w-]+)"
    r"|https://(?:drive|docs)\.google\.com/(?:.*/d/|.*[?&]id=)(?P<id>[\w-]+)(?:[/?&#].*)?"
)
DRIVE_ADDRESS = "https://drive.google.com/uc?id="

ATTEMPTS = 3

Download = Callable[[str, Path], object]
"""Fetches an address into a file; a part fetched earlier may be used."""


Attempt = tuple[str, Callable[[], "DataFolder"]]
"""A place to look for the data, as a text names it, and what looks there."""


NOT_PUBLISHED = "not the published file"


@dataclass(frozen=True)
class DataFolder:
    """A data set on this machine, and where it comes from.

    Attributes:
        root: the folder of the items.
        name: for people, for example "KolektorSDD.zip".
        archive_sha256: of the archive it was unpacked from; None for a folder.
        is_published_archive: whether that archive is byte for byte the published KolektorSDD.
        is_generated: whether the surfaces are generated.
        ignored_members: what the archive held besides.
    """

    root: Path
    name: str
    archive_sha256: str | None
    is_published_archive: bool
    is_generated: bool
    ignored_members: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """One phrase on its origin, for every report."""
        if self.is_generated:
            return "GENERATED"
        return "the published file" if self.is_published_archive else NOT_PUBLISHED


def obtain(
    source: str,
    home: Path,
    drive: Path | None = None,
    download: Download | None = None,
    report: Callable[[str], None] = print,
) -> DataFolder:
    """The data set of `source`, unpacked below `home`/data unless it is a folder already.

    `source` is a folder, a zip archive, an https address, a Google Drive link (or "drive:" and its
    id, as settings.json keeps it), or "kolektorsdd", which is looked for in `home`, then in
    `drive`, then downloaded. A bare name that is not here, all that settings.json keeps of a path,
    is looked for in `drive` too. Several with ";" between them are tried in turn. `report` hears in
    one line why a place was passed over; it names no folder of this machine.

    Raises:
        DataError: nothing usable is there; the text names each place and what was wrong.
    """
    home = Path(home).resolve()
    download = download or _download_with_gdown
    sources = [source]
    if ";" in source and not os.path.exists(os.path.expanduser(source)):
        sources = [part.strip() for part in source.split(";") if part.strip()]
    attempts: list[Attempt] = []
    for one in sources:
        if one == "kolektorsdd":
            here = _kolektor_here(home, drive)
            if not here:
                where = "neither here nor in Drive" if drive else "not here"
                report(f"{PUBLISHED_NAME} is {where}: it is downloaded (100 MB).")
            published = [
                (url, partial(_published, url, home, download)) for url in PUBLISHED_ADDRESSES
            ]
            attempts += here + published
        else:
            place = _in_drive(one, drive) or one
            attempts.append((_public(one), partial(_obtain_one, place, home, download)))
    if len(attempts) == 1:
        return attempts[0][1]()
    return _first(attempts, sources, drive, report)


def _first(
    attempts: list[Attempt],
    sources: list[str],
    drive: Path | None,
    report: Callable[[str], None],
) -> DataFolder:
    """The answer of the first attempt that succeeds; each failure is reported in one line."""
    failures = []
    for place, attempt in attempts:
        try:
            return attempt()
        except DataError as error:
            failures.append(f"{place}: {' '.join(str(error).split())}")
            report(f"Passed over {failures[-1]}")
    if "kolektorsdd" in sources:
        place = "into My Drive" if drive else "beside the folder runs"
        failures.append(f"Put {PUBLISHED_NAME} {place}, or give its path.")
    what = "KolektorSDD" if sources == ["kolektorsdd"] else "The data set"
    raise DataError(f"{what} was found nowhere. {' '.join(failures)}")


def _obtain_one(source: str, home: Path, download: Download) -> DataFolder:
    if source.startswith("http://"):
        raise DataError(
            f"{_public(source)} is not encrypted, so anyone could alter the data: use https."
        )
    if source.startswith("https://") or DRIVE_LINK.fullmatch(source):
        return _from_archive(_fetch_address(source, home, download), home)
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return from_folder(path)
    if path.is_file():
        return _from_archive(path, home)
    raise DataError(
        f"The data source {_public(source)!r} is no folder, file or https address: check the"
        ' spelling, or give "kolektorsdd".'
    )


def from_folder(folder: Path) -> DataFolder:
    """The data in a folder; the items may stand one folder deeper.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"The data folder {folder} does not exist: give the folder of the items.")
    below = [path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
    if len(below) == 1:
        inside = list(below[0].iterdir())
        has_images = any(path.suffix.lower() in IMAGE_EXTENSIONS for path in inside)
        if not has_images and any(path.is_dir() for path in inside):
            return from_folder(below[0])
    with contextlib.suppress(DataError):
        return _described(folder)
    generated = (folder / GENERATED_MARKER).is_file()
    return DataFolder(folder, folder.resolve().name, None, False, generated)


def unpack(archive: Path, home: Path) -> Path:
    """The data folder `home`/data/<stem>-<sha256>, unpacked from `archive` unless it is complete.

    Members are accepted by an allow-list: `<item>/<part>.<extension>`, all under one top folder or
    none; others are ignored and listed.

    Raises:
        DataError: the archive is damaged, holds no image in the layout, or holds members that
            reach outside, are links or are too large. Nothing is left behind.
    """
    return _from_archive(Path(archive), Path(home).resolve()).root


def _kolektor_here(home: Path, drive: Path | None) -> list[Attempt]:
    """What there is without the network: unpacked here, archive here, archive in Drive."""
    unpacked = sorted((home / "data").glob(f"{Path(PUBLISHED_NAME).stem}-{'[0-9a-f]' * 12}"))
    return [
        *((f"{path.name} in this folder", partial(_described, path)) for path in unpacked),
        *(
            (f"{PUBLISHED_NAME} {where}", partial(_from_archive, folder / PUBLISHED_NAME, home))
            for folder, where in [(home, "in this folder"), *_drive_places(drive)]
            if os.path.exists(folder / PUBLISHED_NAME)
        ),
    ]


def _drive_places(drive: Path | None) -> list[tuple[Path, str]]:
    if drive is None:
        return []
    return [(Path(drive), "in Drive"), (Path(drive) / "ksdd", "in the folder ksdd of Drive")]


def _in_drive(name: str, drive: Path | None) -> str | None:
    """The place in Drive of a folder or file that is not here, where `name` is no path."""
    if Path(name).name != name or os.path.exists(os.path.expanduser(name)):
        return None
    places = [str(folder / name) for folder, _ in _drive_places(drive)]
    return next(filter(os.path.exists, places), None)


def _published(address: str, home: Path, download: Download) -> DataFolder:
    path = _fetch(address, PUBLISHED_NAME, home, download, PUBLISHED_SIZE, PUBLISHED_SHA256)
    return _from_archive(path, home)


def _fetch_address(source: str, home: Path, download: Download) -> Path:
    """The archive at an address. A Drive link leads to a page: it is changed into the file's."""
    if link := DRIVE_LINK.fullmatch(source):
        source = DRIVE_ADDRESS + (link["name"] or link["id"])
    return _fetch(source, _download_name(source), home, download)


def _public(source: str) -> str:
    """A source as a text may name it: an address without its query, a file without its folder."""
    if link := DRIVE_LINK.fullmatch(source):
        return f"drive:{link['name'] or link['id']}"
    if "://" in source:
        return source.partition("?")[0]
    return Path(source).name or source


def _fetch(
    address: str,
    name: str,
    home: Path,
    download: Download,
    size: int | None = None,
    sha256: str | None = None,
) -> Path:
    """`home`/downloads/`name`, checked even where it is there already; a wrong file is removed."""
    path = home / "downloads" / name
    part = path.with_name(name + ".part")
    if path.exists():
        with contextlib.suppress(DataError):  # damaged since, and removed: fetched again
            return _check_download(path, size, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            download(address, part)
            break
        except Exception as error:  # of the download library, the network or the disk
            text = str(error).strip().replace(f"{part.parent}/", "")
            reason = f"{type(error).__name__}: {text[:200]}"
            if attempt + 1 == ATTEMPTS:
                raise DataError(f"{ATTEMPTS} attempts failed ({reason}).") from None
            time.sleep(2**attempt)
    os.replace(_check_download(part, size, sha256), path)
    return path


def _check_download(path: Path, size: int | None, sha256: str | None) -> Path:
    """The same path, if it holds what is expected; else it is removed."""
    try:
        check_archive(path)
        found = path.stat().st_size
        if size is not None and found != size:
            raise DataError(f"{path.name} has {found:,} bytes, published are {size:,}.")
        if sha256 is not None and storage.sha256(path) != sha256:
            raise DataError(f"{path.name} is altered: its sha256 is not {sha256[:12]}...")
    except DataError:
        path.unlink(missing_ok=True)
        raise
    return path


def _download_name(address: str) -> str:
    """A file name for an address, without its query: two addresses never share one."""
    if address.startswith(DRIVE_ADDRESS):
        stem = "drive"
    else:
        stem = re.sub(r"[^\w.-]+", "_", Path(urlparse(address).path).stem) or "data"
    return f"{stem}-{hashlib.sha256(address.encode()).hexdigest()[:8]}.zip"


def _download_with_gdown(address: str, path: Path) -> None:
    import gdown

    with _https_stays_https():
        if gdown.download(address, str(path), resume=True) is None:
            raise OSError("the server refused the file")


@contextlib.contextmanager
def _https_stays_https() -> Iterator[None]:
    """Refuse a redirect to http, which gdown leaves to requests, and requests follows."""
    import requests

    real = requests.Session.get_redirect_target

    def target(session: requests.Session, response: requests.Response) -> str | None:
        place = real(session, response)
        schemes = [urlparse(url).scheme for url in (response.url, urljoin(response.url, place))]
        if schemes == ["https", "http"]:
            raise OSError(f"{_public(response.url)} leads to http, which is not encrypted")
        return place

    requests.Session.get_redirect_target = target
    try:
        yield
    finally:
        requests.Session.get_redirect_target = real


def _described(folder: Path) -> DataFolder:
    """An unpacked folder, if it still holds all that it was unpacked with."""
    try:
        marker = storage.read_json(folder / UNPACKED_MARKER)
        if marker["contents"] != _contents(folder):
            raise DataError(f"{folder.name} has changed since it was unpacked: unpack it again.")
        return DataFolder(
            folder,
            marker["archive"],
            marker["sha256"],
            marker["sha256"] == PUBLISHED_SHA256,
            (folder / GENERATED_MARKER).is_file(),
            tuple(marker["ignored"]),
        )
    except (RunError, KeyError, TypeError):
        raise DataError(f"{folder.name} is not a complete unpacked data set.") from None


def _contents(folder: Path) -> dict[str, int]:
    """How many files a folder holds and their bytes, without the marker."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != UNPACKED_MARKER
    ]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _from_archive(path: Path, home: Path) -> DataFolder:
    check_archive(path)
    try:
        sha256 = storage.sha256(path)
        target = home / "data" / f"{path.stem}-{sha256[:12]}"
        if not _is_whole(target):
            with open_archive(path) as archive:
                _extract(archive, {"archive": path.name, "sha256": sha256}, target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path.name} cannot be unpacked: {reason}.") from None
    return _described(target)


def _extract(archive: Archive, marker: dict[str, Any], target: Path) -> None:
    """Write each member as a plain file, then the marker, then give the folder its name."""
    with storage.whole_folder(target, lambda: _is_whole(target)) as made:
        for name, data in archive.contents():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        marker |= {"ignored": list(archive.ignored), "contents": _contents(made)}
        storage.write_json(made / UNPACKED_MARKER, marker)


def _is_whole(folder: Path) -> bool:
    try:
        _described(folder)
    except DataError:
        return False
    return True
