"""Files on Google Drive that are whole or else ignored: the content comes first, then its marker.

A rename on Drive is not atomic, a write may arrive late, and the mount may die under a running
program. So content is written under a name that is free. Then a small marker, `<file>.ok`, names it
with its size and SHA-256. Content without a marker is not used. The old marker holds until the new
one is there, so a copy may be cut at any point.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ksdd_lib import storage
from ksdd_lib.errors import RunError

VERSION = re.compile(r"(?P<stem>.+)\.[0-9a-f]{8}(?P<suffix>\.\w+)?")
"""The name of content whose plain name was taken: `settings.3f2a9c1b.json`."""

Kind = TypeVar("Kind")


class Marker(storage.FileHash):
    """What a marker says. `file` is the content's name; old markers have none, and mean the plain
    name."""

    file: str = ""


def write(data: bytes, target: Path, drive: Path) -> bool:
    """Write content to Drive, then its marker; False where the same content was there already.

    Raises OSError where Drive is gone, full or read-only, or took only a part.
    """
    require_mounted(drive)
    known, sha256 = _read_marker(marker_of(target)), storage.sha256(data)
    if known and known.sha256 == sha256 and _size(target.with_name(known.file)) == len(data):
        return False
    is_free = known is None or known.file != target.name
    version = target.with_name(f"{target.stem}.{sha256[:8]}{target.suffix}")
    content = target if is_free else version
    storage.write_bytes(content, data)
    if _size(content) != len(data):
        raise OSError(errno.EIO, "only a part arrived", str(content))
    marker = Marker(bytes=len(data), sha256=sha256, file=content.name)
    storage.write_record(marker_of(target), marker)
    if known and known.file != content.name:
        storage.remove(target.with_name(known.file))
    return True


def write_unmarked(data: bytes, target: Path, drive: Path) -> None:
    """Write a file to Drive for people to open; raises as `write`."""
    require_mounted(drive)
    if not target.exists() or target.read_bytes() != data:
        storage.write_bytes(target, data)


def require_mounted(drive: Path) -> None:
    """Raise OSError where the mount is gone: a write would create its folder on the local disk."""
    if not drive.is_dir():
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(drive))


def sweep(paths: Iterable[Path], is_ours: Callable[[Path], bool]) -> None:
    """Remove from `paths` on Drive what interrupted copies have left of plain files that are ours:
    temporary files, and content whose marker names another file."""
    paths = list(paths)
    unfinished = {path: storage.finished_name(path) for path in paths}
    stale = [path for path, name in unfinished.items() if name and is_ours(plain(path, name))]
    versions = [path for path in paths if VERSION.fullmatch(path.name) and is_ours(plain(path))]
    for path in {*versions, *map(plain, versions)}:
        marker = _read_marker(marker_of(plain(path)))
        if marker and marker.file != path.name:
            stale.append(path)
    for path in stale:
        with contextlib.suppress(OSError):  # the next copy tries again
            storage.remove(path)


def marker_of(path: Path) -> Path:
    """Where the marker of a plain file is. Once it exists, the file has been whole."""
    return path.with_name(f"{path.name}.ok")


def plain(path: Path, name: str = "") -> Path:
    """The file that a path on Drive belongs to, or `name` beside it: without `.ok`, ` (1)` and its
    version."""
    name = re.sub(r" \(\d+\)$", "", (name or path.name).removesuffix(".ok"))
    name = VERSION.sub(r"\g<stem>\g<suffix>", re.sub(r" \(\d+\)(?=\.\w+$)", "", name))
    return path.with_name(name) if name.strip(".") else path


def read_markers(paths: Iterable[Path]) -> dict[Path, list[Marker]]:
    """Plain file -> its markers among `paths`, the newest first: Drive calls it `name (1)`."""
    found: dict[Path, list[Marker]] = {}
    places = [path for path in paths if path.suffix == ".ok"]
    places.sort(key=lambda path: (" (" in path.name, path), reverse=True)
    with ThreadPoolExecutor(16) as pool:  # Drive takes long for each small file
        markers = list(pool.map(_read_marker, places))
    for place, marker in zip(places, markers, strict=True):
        if marker:
            found.setdefault(plain(place), []).append(marker)
    return found


def read(path: Path, markers: Iterable[Marker] | None = None) -> bytes | None:
    """The content of the newest marker that has any, whatever Drive has called it; else None.

    The `markers` of the plain file `path` are read from Drive where they are not given.
    """
    names = [name for name in list_folder(path.parent) if plain(name) == path]
    if markers is None:
        markers = read_markers(names).get(path, [])
    found = [content(name) for name in names if name.suffix != ".ok"] if markers else []
    for marker in markers:
        for data in found:
            if data is not None and marker.fits(data):
                return data
    return None


def content(path: Path) -> bytes | None:
    """What a file holds, whether or not it has a marker; None where it is absent."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def parsed(data: bytes | None, kind: type[Kind]) -> Kind | None:
    """The record in the content of a JSON file; None where it is absent or damaged."""
    try:
        return None if data is None else storage.parse_record(data, kind, "")
    except RunError:
        return None


def list_folder(folder: Path) -> list[Path]:
    """The paths in a folder; none where it does not exist.

    Raises OSError where it cannot be listed. `Path.glob` would take a mount that is gone for empty.
    """
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []


def walk(folder: Path) -> list[Path]:
    """The files in a folder and below; raises as `list_folder`."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    found = os.walk(folder, onerror=fail)
    return [Path(place, name) for place, _, names in found for name in names]


def _read_marker(path: Path) -> Marker | None:
    """What a marker says; None where it is absent, damaged, or names what is not its own."""
    marker = parsed(content(path), Marker)
    if marker is None:
        return None
    name = marker.file or re.sub(r"( \(\d+\))?\.ok$", "", path.name)
    is_its_own = Path(name).name == name != ".." and plain(path, name) == plain(path)
    return marker.model_copy(update={"file": name}) if is_its_own else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
