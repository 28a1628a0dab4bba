"""Files that are whole or absent: every write goes to a temporary name first, then is renamed."""

import csv
import errno
import glob
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ksdd_lib.errors import DiskFullError, RunError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
"""What a spreadsheet would execute, or eat, at the start of a text."""


class Record(BaseModel):
    """What a JSON file of ours holds: typed, checked when it is read, never changed in place.

    Fields that this version does not know are passed over.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


AnyRecord = TypeVar("AnyRecord", bound=Record)


class FileHash(Record):
    """A file's content by its size in bytes and its SHA-256: the one form in which files are tied
    to what was made from them."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, source: "Path | bytes") -> Self:
        """Of a file's content, or of bytes."""
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        return cls(bytes=size, sha256=sha256(source))

    def fits(self, source: "Path | bytes") -> bool:
        """Whether a file, or bytes, are this content; an absent file is not."""
        if not isinstance(source, bytes):
            if not source.is_file() or source.stat().st_size != self.bytes:
                return False
        elif len(source) != self.bytes:
            return False
        return sha256(source) == self.sha256


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the new one, never a part.

    Raises:
        DiskFullError: the disk is full; the old file is untouched, no part is left.
        OSError: it is not writable; likewise.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def append_text(path: Path, text: str) -> None:
    """Add `text` to the end of a file, as UTF-8; a kill or a full disk may leave a part of it.

    Raises:
        DiskFullError: the disk is full.
    """
    data = text.encode("utf-8")
    with _explained(path, len(data)), open(path, "ab") as file:
        file.write(data)


@contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    """A full disk becomes one sentence that names the file, and what it needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        raise DiskFullError(
            error.errno,
            f"There is no room for {path.name}: it needs {max(0.1, size / 1e6):.1f} MB, "
            f"{free / 1e6:.1f} MB are free. What was there before is intact; make room, and run "
            "this again.",
        ) from error


@contextmanager
def whole_folder(target: Path, is_whole: Callable[[], bool]) -> Iterator[Path]:
    """A new folder to fill, which is called `target` once it is left without an error.

    Another process may fill one of its own at the same time; what killed ones have left goes.

    Args:
        is_whole: whether `target` has come to be there and complete meanwhile: it then stays, and
            is never taken from under a reader.
    """
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            os.replace(temporary, target)
        except OSError:  # there is one
            if not is_whole():
                half = target.with_name(f".{target.name}.half.{os.getpid()}.tmp")
                os.replace(target, half)
                os.replace(temporary, target)
                shutil.rmtree(half, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def first_free(parent: Path, name: str, is_free: Callable[[Path], bool]) -> Path:
    """The first of the paths <name>, <name>-2, <name>-3 ... in a folder that is free."""
    path, number = parent / name, 1
    while not is_free(path):
        number += 1
        path = parent / f"{name}-{number}"
    return path


def sweep(folder: Path) -> None:
    """Remove the temporary files below `folder` that killed processes have left."""
    for path in Path(folder).rglob(".*.tmp"):
        if path.is_file() and _is_abandoned(path):
            path.unlink(missing_ok=True)


def _is_abandoned(temporary: Path) -> bool:
    """Whether no living process of this machine works on a temporary name of ours."""
    process = temporary.name.split(".")[-2]
    is_ours = process == str(os.getpid())
    return not is_ours and not (process.isdecimal() and is_running(int(process)))


def is_running(process: int) -> bool:
    """Whether another process of this machine has this number; False where nobody can tell."""
    if os.name != "posix" or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with `\\n` line ends."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as readable JSON; NaN and infinity are refused."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as readable JSON with a line end; NaN and infinity are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: None is empty, True 1, and floats keep every digit.

    A text that a spreadsheet would run as a formula gets a leading '.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "'" + value if value.startswith(FORMULA_STARTS) else value
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(int(value)) if isinstance(value, int | np.integer) else repr(float(value))


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`.

    Raises:
        RunError: the file is absent or not valid JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{Path(path).name} is missing in {Path(path).parent}.") from None
    except ValueError as error:
        raise RunError(f"{Path(path).name} is not valid JSON ({error}).") from None


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """The record in the JSON file at `path`.

    Raises:
        RunError: the file is absent, not valid JSON, or not such a record; the text names the field.
    """
    return parse_record(json.dumps(read_json(path)), kind, Path(path).name)


def parse_record(text: str | bytes, kind: type[AnyRecord], name: str) -> AnyRecord:
    """The record in a JSON text; raises as `read_record`, and calls the text `name`."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise RunError(f"{name} is not as it was written: {place}: {first['msg']}.") from None


def write_record(path: Path, record: Record) -> None:
    """Write a record to `path` atomically, as readable JSON."""
    write_json(path, record.model_dump(mode="json"))


def relative(path: Path, start: Path | str = os.curdir) -> str:
    """The path as seen from a folder; absolute where there is no way, between drives of Windows."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return str(Path(path).absolute())


def sha256(source: Path | bytes) -> str:
    """The SHA-256 of a file's content, or of bytes, as 64 hexadecimal digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where answers that can be computed again are kept: `~/.cache/ksdd`, or `$XDG_CACHE_HOME`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ksdd"
