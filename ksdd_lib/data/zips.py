"""What is in a zip archive: listed whole, harmless, and read no further than it claims."""

import copy
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ksdd_lib.data.layout_note import CLASSES, NOTE
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS
from ksdd_lib.data.synthetic import MARKER
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import printable

ANNOTATION_EXTENSIONS = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
PLAIN = re.compile(
    r"(.*/)?((read.?me|licen[cs]e|copying|citation)[^/]*|[^/]*\.(md|pdf|py|html?))", re.I
)
"""A file that is no label."""

MAX_MEMBER = 64 * 2**20  # bytes, unpacked
MAX_TOTAL = 8 * 2**30
OUTSIDE = re.compile(r"^([/\\]|[A-Za-z]:)|(^|[/\\])\.\.($|[/\\])")  # of the folder to unpack to
OURS = re.compile(rf"{re.escape(NOTE)}|{re.escape(CLASSES)}/[^/]+/[^/]+\.png")
"""Hidden files that `convert` writes beside the items."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others zipfile cannot read a part

# What `zipfile` raises where bytes are altered, the last three where they are the directory's own.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError)


@dataclass(frozen=True)
class Archive:
    """An open archive."""

    name: str
    file: zipfile.ZipFile
    wanted: dict[zipfile.ZipInfo, str]  # the members to unpack -> their path in the data folder
    ignored: tuple[str, ...]  # the names of the other files

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """(path in the data folder, bytes) of each member to unpack; DataError at a damaged one."""
        # The others are read and checked too: a name that was altered may have made one of them.
        for member in self.file.infolist():
            what, size = f"{self.name}, member {member.filename!r},", member.file_size
            # zipfile hides what lies beyond the claimed size, and checks the CRC of what it shows.
            boundless = copy.copy(member)
            boundless.file_size = sys.maxsize
            with _damage_named(what), self.file.open(boundless) as file:
                data = file.read(size + 1)
            if len(data) != size:
                raise DataError(
                    f"{what} holds {'more' if len(data) > size else 'less'} than the {size:,} bytes"
                    " it claims: the archive is refused; fetch it again, or use another copy."
                )
            if member in self.wanted:
                yield self.wanted[member], data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """An archive of pictures; DataError where it is not whole, or hostile."""
    try:
        with open(path, "rb") as opened:
            start = opened.read(1024)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from None
    if not start.startswith(b"PK"):
        is_page = re.search(rb"<(html|!doctype html)", start.lower())
        raise DataError(
            f"{path.name} is {'a web page' if is_page else 'no zip archive'}, it starts with"
            f" {start.decode('utf-8', 'replace')[:80]!r}: fetch it again, in a browser if its"
            " server asks for something, and give the path of the file.",
            see="data#where-it-may-lie",
        )
    with _damage_named(f"{path.name} ({path.stat().st_size:,} bytes)"):
        file = zipfile.ZipFile(path)
        listed, promised = len(file.infolist()), _promised(path)
        if listed != promised:
            file.close()
            raise zipfile.BadZipFile(f"it lists {listed} members, its end says {promised}")
    with file:
        yield Archive(printable(path.name), file, *_allowed(file.infolist(), path.name))


def _promised(path: Path) -> int:
    """How many members the end of an archive promises, which zipfile passes over."""
    # The last record has 22 bytes and up to 65,535 of comment. Where its 16 bits are too few for
    # the count, a record of 56 bytes before it has 64, and one of 20 between (APPNOTE 4.3.14-16).
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - (56 + 20 + 22 + 65_535)))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    end64 = end - 20 - 56
    if count == 0xFFFF and end64 >= 0 and tail.startswith(b"PK\x06\x06", end64):
        count = int.from_bytes(tail[end64 + 32 : end64 + 40], "little")
    return count


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{what} is cut off or damaged ({error}): fetch it again.") from None


def _allowed(
    members: list[zipfile.ZipInfo], archive_name: str
) -> tuple[dict[zipfile.ZipInfo, str], tuple[str, ...]]:
    """What `Archive` has as wanted and ignored."""
    refused = f"{archive_name} is refused:"
    if members and (before := min(one.header_offset for one in members)) > 0:
        raise DataError(
            f"{refused} {before:,} bytes stand before its first member, as where several archives"
            " were joined into one file. Unpack each of them into one folder, and use that."
        )
    for one in members:
        if danger := _danger(one):
            what = f"its member {one.filename!r} {danger}"
            raise DataError(f"{refused} {what}. Nothing was unpacked; use another copy.")
    total = sum(one.file_size for one in members)
    if total > MAX_TOTAL:
        largest = max(members, key=lambda one: one.file_size)
        raise DataError(
            f"{refused} it unpacks to {total:,} bytes, more than {MAX_TOTAL:,}; its largest member"
            f" is {largest.filename!r} with {largest.file_size:,}."
        )
    # Some programs of Windows write a backslash between folders.
    names = {one: one.filename.replace("\\", "/") for one in members}
    files = {one: name for one, name in names.items() if not name.endswith("/")}
    kept = {one: name for one, name in files.items() if _is_kept(name)}
    images = [name for name in kept.values() if name.lower().endswith(IMAGE_EXTENSIONS)]
    if not images:
        raise DataError(f"{archive_name} holds no image ({', '.join(IMAGE_EXTENSIONS)}).")
    # A lone folder around all is left out, where folders are inside it. A text may stand beside it.
    top = f"{images[0].partition('/')[0]}/"
    outside = [name for name in kept.values() if not name.startswith(top)]
    is_around = all("/" in name.removeprefix(top) for name in images)
    if not is_around or any("/" in name or not name.endswith(".txt") for name in outside):
        top = ""
    inner = {one: name for one, name in files.items() if name.startswith(top)}
    kept |= {one: name for one, name in inner.items() if OURS.fullmatch(name.removeprefix(top))}
    wanted: dict[str, zipfile.ZipInfo] = {}
    for one, name in kept.items():
        if (inside := name.removeprefix(top)) in wanted:
            raise DataError(f"{refused} it holds {one.filename!r} twice.")
        if name.startswith(top):
            wanted[inside] = one
    chosen = {one: name for name, one in wanted.items()}
    return chosen, tuple(one.filename for one in files if one not in chosen)


def _danger(member: zipfile.ZipInfo) -> str | None:
    """Why a member must not be trusted, and with it the whole archive."""
    name, size = member.filename, member.file_size
    dangers = {
        "has no name": not name,
        "begins before the file does": member.header_offset < 0,
        "points outside of the data folder": OUTSIDE.search(name),
        "is a link": stat.S_ISLNK(member.external_attr >> 16),
        "is encrypted": member.flag_bits & 1,
        f"is packed by method {member.compress_type}, neither stored nor deflated": (
            member.compress_type not in METHODS
        ),
        f"unpacks to {size:,} bytes, more than {MAX_MEMBER:,}": size > MAX_MEMBER,
    }
    return next((danger for danger, is_so in dangers.items() if is_so), None)


def _is_kept(name: str) -> bool:
    """Whether a file is a picture or may say what is on pictures, and nobody has hidden it."""
    parts = name.split("/")
    if any(not part or part.startswith(".") or part == "__MACOSX" for part in parts):
        return parts[-1] == MARKER
    return name.lower().endswith((*IMAGE_EXTENSIONS, *ANNOTATION_EXTENSIONS))
