"""Files that are whole or absent: every write goes to a temporary name first, then is renamed."""

import errno
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ksdd_lib.errors import DiskFullError, RunError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d{1,9})\.tmp")
"""The name of what this package has not finished, and the number of the process that writes it."""

Content = Path | bytes
"""A file by its path, or what a file holds."""


class Record(BaseModel):
    """What a JSON file holds: typed, and checked when it is read; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


Kind = TypeVar("Kind")


class FileHash(Record):
    """A file's content by its size in bytes and its SHA-256."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, content: Content) -> Self:
        """The size and hash of a file's content, or of bytes."""
        return cls(bytes=_size(content), sha256=sha256(content))

    def fits(self, content: Content) -> bool:
        """Whether a file, or bytes, are this content; an absent file is not."""
        if isinstance(content, Path) and not content.is_file():
            return False
        return _size(content) == self.bytes and sha256(content) == self.sha256


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


_guards: dict[Path, Callable[[], None]] = {}


def guard(folder: Path, check: Callable[[], None] | None) -> None:
    """From now on `check` is asked before each write and removal below a folder; None ends that.

    It raises where the folder is another's by now, as after a night in which this machine slept.
    """
    _guards.pop(folder.resolve(), None)
    if check:
        _guards[folder.resolve()] = check


def _ask(path: Path) -> None:
    place = path.resolve() if _guards else path
    for folder in (place, *place.parents):
        if check := _guards.get(folder):
            check()


def remove(path: Path) -> None:
    """Remove a file, if it is there and its folder is still ours."""
    _ask(path)
    path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the new one, never a part.

    Raises OSError where it cannot be written, DiskFullError where the disk is full.
    """
    _ask(path)
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")  # a name may be 255 bytes
    with _explained(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _ask(path)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with `\\n` line ends."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` atomically, as readable JSON; NaN and infinity are refused."""
    write_text(path, json_text(value))


def write_record(path: Path, record: Record) -> None:
    """Write a record to `path` atomically, as readable JSON."""
    write_json(path, record.model_dump(mode="json"))


def json_text(value: object) -> str:
    """`value` as readable JSON with a line end; NaN and infinity are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def append_text(path: Path, text: str) -> None:
    """Add `text` to the end of a file, as UTF-8; a kill or a full disk may leave a part of it."""
    _ask(path)
    data = text.encode("utf-8")
    with _explained(path, len(data)), open(path, "ab") as file:
        file.write(data)


@contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    """Within, a full disk becomes one sentence that names the file and what it needs."""
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
    """A new folder to fill; it becomes `target` when the block ends without an error.

    Another process may do the same: a `target` that `is_whole` by then stays, as others may read
    it. Any other is kept under a name of its own, with a warning: somebody has changed it. What
    killed processes have left is removed.
    """
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if finished_name(leftover) == target.name and _is_abandoned(leftover):
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
                name = f"{target.name}-changed"
                aside = first_free(target.parent, name, lambda path: not os.path.lexists(path))
                os.replace(target, aside)
                os.replace(temporary, target)
                warnings.warn(
                    f"{target.name} has changed, or is of an earlier version. It is kept as "
                    f"{aside.name}, and was made anew. To use your changes, give that folder as "
                    "data.",
                    stacklevel=3,
                )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def first_free(parent: Path, name: str, is_free: Callable[[Path], bool]) -> Path:
    """The first of the paths <name>, <name>-2, <name>-3 ... in a folder that is free."""
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(path for path in map(parent.joinpath, names) if is_free(path))


def sweep(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove what killed processes have left below `folder` of files whose names are ours."""
    for path in folder.rglob(".*.tmp"):
        name = finished_name(path)
        is_known = is_ours(path.with_name(name).relative_to(folder).as_posix()) if name else False
        if is_known and path.is_file() and _is_abandoned(path):
            remove(path)


def finished_name(temporary: Path) -> str:
    """The name that a file or folder which is being written will have; "" where it is not."""
    found = _TEMPORARY.fullmatch(temporary.name)
    return found["name"] if found else ""


def _is_abandoned(temporary: Path) -> bool:
    """Whether no living process of this machine works on a temporary file or folder."""
    found = _TEMPORARY.fullmatch(temporary.name)
    return found is not None and not psutil.pid_exists(int(found["process"]))


def seconds_since(written: float, note: Path) -> float:
    """How long ago a note was written, by the time in it; never less than 0.

    A time in the future, of a clock that differs from ours, says nothing: then the file's own time
    counts. Where that lies in the future too, the seconds count from now on.
    """
    now = time.time()
    for moment in (written, note.stat().st_mtime):
        if moment <= now:
            return now - moment
    with suppress(OSError):
        os.utime(note)
    return 0.0


FORMULA = re.compile(r"(^|[;\t\r\n])(?='|[ \xa0]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a cell begins with what a spreadsheet would run, or cut."""


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: None is empty, True is 1, and floats keep every digit.

    Spreadsheets of some countries begin a cell after ";" too, quoted or not. What one would run as
    a formula at such a place gets an apostrophe, which `csv_value` takes away.
    """
    return "".join(",".join(map(_cell, row)) + "\n" for row in [columns, *rows])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        safe = FORMULA.sub(r"\1'", value)
        is_plain = safe == value and not re.search(r'[,;"\t\r\n]', value)
        return value if is_plain else '"' + safe.replace('"', '""') + '"'
    is_whole = isinstance(value, int | np.integer | np.bool_)
    return str(int(value)) if is_whole else repr(float(value))


def csv_value(cell: str) -> str:
    """The text that `csv_text` has written as this cell."""
    return re.sub(r"(^|[;\t\r\n])'", r"\1", cell)


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`; RunError where it is absent or not valid JSON."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(_content(path), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path.name} is not valid JSON ({error}).") from None


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """The record in the JSON file at `path`, or a dict or list of a type.

    Raises RunError: it is absent or damaged; the text names the field that is not as it should be.
    """
    return parse_record(_content(path), kind, path.name)


def parse_record(text: str | bytes, kind: type[Kind], name: str) -> Kind:
    """The record in a JSON text; raises as `read_record`, and calls the text `name`."""
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
    if error["type"] == "json_invalid":
        raise RunError(f"{name} is not valid JSON ({error['msg']}).")
    place = ".".join(map(str, error["loc"])) or "the whole"
    raise RunError(f"{name} is not as it was written: {place}: {error['msg']}.")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path.name} is missing in {path.parent}.") from None


def relative(path: Path, start: Path | str = os.curdir) -> str:
    """The path as seen from a folder; absolute where it lies on another drive of Windows."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return str(Path(path).absolute())


def sha256(content: Content) -> str:
    """The SHA-256 of a file's content, or of bytes, as 64 hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where results that can be computed again are kept: in `$XDG_CACHE_HOME`, else `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ksdd"
