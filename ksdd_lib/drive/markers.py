"""Files on Google Drive that are whole, or as good as absent: content first, then its marker.

A Drive's renames are not atomic, its writes arrive late, its mount dies under a running program. So
content goes to a name that nothing vouches for yet, and then the small marker `<file>.ok` names it,
with its size and SHA-256. What no marker vouches for is not used. Until the new marker is there,
the old one vouches for the old content: a copy may be cut anywhere.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.errors import RunError

VERSION = re.compile(r"(?P<stem>.+)\.[0-9a-f]{8}(?P<suffix>\.\w+)?")
"""The name of content that came when its plain name was in use: `settings.3f2a9c1b.json`."""

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""What a write is called until it is whole; see `storage.write_bytes`."""


@dataclass(frozen=True)
class Record:
    """What a marker says.

    Attributes:
        file: the content's name in the marker's folder; markers that are older than this field
            vouch for the plain name.
    """

    file: str
    bytes: int
    sha256: str


def send(data: bytes, target: Path, drive: Path) -> bool:
    """Copy to Drive, then vouch for it; False where the same content was there already.

    Raises:
        OSError: Drive is gone, full or read-only, or took only a part.
    """
    require_mounted(drive)
    known, sha256 = _record(marker_of(target)), storage.sha256(data)
    if known and known.sha256 == sha256 and _size(target.with_name(known.file)) == len(data):
        return False
    is_free = known is None or known.file != target.name
    content = target if is_free else version_of(target, sha256)
    storage.write_bytes(content, data)
    if _size(content) != len(data):
        raise OSError(errno.EIO, "only a part arrived", str(content))
    record = {"bytes": len(data), "sha256": sha256, "file": content.name}
    storage.write_json(marker_of(target), record)
    if known and known.file != content.name:
        target.with_name(known.file).unlink(missing_ok=True)
    return True


def require_mounted(drive: Path) -> None:
    """Writing into a mount that is gone would create its folder on the local disk."""
    if not drive.is_dir():
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(drive))


def sweep(paths: Iterable[Path]) -> None:
    """Remove, among `paths` on Drive, what copies that were killed have left behind.

    That is temporary files, and content beside which the marker names another.
    """
    stale, several = [], set()
    for path in paths:
        if TEMPORARY.fullmatch(path.name):
            stale.append(path)
        elif VERSION.fullmatch(path.name):
            several |= {path, plain(path)}
    for path in several:
        record = _record(marker_of(plain(path)))
        if record and record.file != path.name:
            stale.append(path)
    for path in stale:
        with contextlib.suppress(OSError):  # the next copy tries again
            path.unlink()


def marker_of(path: Path) -> Path:
    """The marker of a file by its plain name."""
    return path.with_name(f"{path.name}.ok")


def is_there(path: Path) -> bool:
    """Whether Drive has, or had, the file whole: its marker came last."""
    return marker_of(path).exists()


def version_of(path: Path, sha256: str) -> Path:
    """Where content goes whose plain name is in use."""
    return path.with_name(f"{path.stem}.{sha256[:8]}{path.suffix}")


def plain(path: Path) -> Path:
    """The file that a path on Drive belongs to: without `.ok`, ` (1)` and its version."""
    name = re.sub(r" \(\d+\)$", "", path.name.removesuffix(".ok"))
    name = re.sub(r" \(\d+\)(?=\.\w+$)", "", name)
    return path.with_name(VERSION.sub(r"\g<stem>\g<suffix>", name))


def read_markers(paths: Iterable[Path]) -> dict[Path, list[Record]]:
    """Plain file -> what its markers among `paths` say, that of `name (1)` before the first."""
    found: dict[Path, list[Record]] = {}
    markers = sorted((path for path in paths if path.suffix == ".ok"), reverse=True)
    markers.sort(key=lambda path: " (" not in path.name)
    with ThreadPoolExecutor(16) as pool:  # Drive takes long for each small file
        records = list(pool.map(_record, markers))
    for marker, record in zip(markers, records, strict=True):
        if record:
            found.setdefault(plain(marker), []).append(record)
    return found


def read(path: Path, records: Iterable[Record] | None = None) -> bytes | None:
    """The content that a marker vouches for, under its name or, newest first, `name (1)`.

    Args:
        records: of the plain file `path`; read from Drive where they are not given.
    """
    listed = list_folder(path.parent)
    if records is None:
        records = read_markers(p for p in listed if plain(p) == path).get(path, [])
    hashes = {record.sha256 for record in records}
    for name in dict.fromkeys(Path(record.file) for record in records):
        renamed = re.compile(re.escape(name.stem) + r" \(\d+\)" + re.escape(name.suffix))
        duplicates = sorted(p for p in listed if renamed.fullmatch(p.name))[::-1]
        for candidate in [*duplicates, path.with_name(name.name)]:
            data = candidate.read_bytes() if candidate.exists() else b""
            if storage.sha256(data) in hashes:
                return data
    return None


def list_folder(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it does not exist.

    Raises:
        OSError: it cannot be listed. pathlib's `glob` would take a mount that is gone for empty.
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


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object at `path`, empty where it is absent or damaged."""
    try:
        record = storage.read_json(path)
    except RunError:
        return {}
    return record if isinstance(record, dict) else {}


def _record(marker: Path) -> Record | None:
    """What a marker says; None where it is absent or damaged."""
    found = read_object(marker)
    name = found.get("file", re.sub(r"( \(\d+\))?\.ok$", "", marker.name))
    if not isinstance(found.get("sha256"), str) or not isinstance(name, str) or "/" in name:
        return None
    return Record(name, found.get("bytes", -1), found["sha256"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
