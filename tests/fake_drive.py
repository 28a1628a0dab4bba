"""A Drive that lies: below the mounted folder, files fail, or arrive in part, late or renamed.

`install` patches this process, a notebook's kernel; what happens is drawn with a seed, each kind in
turn, and noted in a log that the machine does not take with it.
"""

import builtins
import errno
import io
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

WRITES = (
    "EIO",
    "ENOTCONN",
    "EDQUOT",
    "ENOSPC",
    "EROFS",
    "delay",
    "half written",
    "name (1)",
    "late",
    "vanished",
)
"""What may happen to a write; the five in capitals are the system's own errors."""

READS = ("EIO", "ENOTCONN", "delay")


class Liar:
    """The Drive mounted at `place`. One in about five operations goes wrong.

    Args:
        log: a line "write EIO" is added for each fault; how many there are says which comes next.
    """

    def __init__(self, place: str, log: str, seed: int) -> None:
        self.place, self.log = os.path.abspath(place) + os.sep, Path(log)
        self.log.touch()
        self.draw = random.Random(f"{seed} {len(self.log.read_text())}")
        self.left = {"write": self.draw.randint(2, 8), "read": self.draw.randint(30, 60)}
        self.fate: dict[str, str] = {}
        self.back = 0.0
        self.lock = threading.Lock()
        self.plain = {name: getattr(os, name) for name in ("stat", "replace", "listdir", "scandir")}
        self.plain_open = io.open

    def install(self) -> None:
        """From now on this process has this Drive."""
        builtins.open = io.open = self.open
        os.stat, os.replace = self.stat, self.replace
        os.listdir, os.scandir = self.listdir, self.scandir

    def next(self, what: str, kinds: tuple[str, ...], pause: tuple[int, int]) -> str:
        """What goes wrong with this operation; "" for nothing."""
        with self.lock:
            self.left[what] -= 1
            if self.left[what] > 0:
                return ""
            self.left[what] = self.draw.randint(*pause)
            with self.plain_open(self.log) as file:
                done = sum(line.startswith(what) for line in file)
            kind = kinds[done % len(kinds)]
            with self.plain_open(self.log, "a") as file:
                file.write(f"{what} {kind}\n")
            return kind

    def is_ours(self, path: Any) -> bool:
        """Whether a path lies on Drive; there, an error where the mount has vanished."""
        if not isinstance(path, str | os.PathLike):
            return False
        ours = os.path.abspath(path).startswith(self.place)
        if ours and time.monotonic() < self.back:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return ours

    def suffer(self, kind: str, path: Any) -> None:
        """A system's error, a delay, or the mount's end for a while."""
        if kind == "delay":
            time.sleep(0.3)
        elif kind == "vanished":
            self.back = time.monotonic() + 1
            self.is_ours(path)
        elif kind.startswith("E"):
            number = getattr(errno, kind)
            raise OSError(number, os.strerror(number), str(path))

    def open(self, path: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
        if self.is_ours(path):
            if "r" in mode:
                kind = self.next("read", READS, (30, 60))
            else:
                kind = self.next("write", WRITES, (2, 8))
                self.fate[os.path.abspath(path)] = kind
            self.suffer(kind, path)
        return self.plain_open(path, mode, *others, **named)

    def replace(self, source: Any, target: Any) -> None:
        ours = self.is_ours(target)
        kind, target = self.fate.pop(os.path.abspath(source), ""), Path(target)
        if ours and kind == "name (1)":
            target = target.with_name(f"{target.stem} (1){target.suffix}")
        if ours and kind == "late":
            threading.Thread(target=self.arrive, args=(source, target), daemon=True).start()
            return
        self.plain["replace"](source, target)
        if ours and kind == "half written":
            os.truncate(target, self.plain["stat"](target).st_size // 2)

    def arrive(self, source: Any, target: Path) -> None:
        """What the machine believes to have written appears a second later."""
        time.sleep(1)
        try:
            self.plain["replace"](source, target)
        except FileNotFoundError:  # it was cleared away meanwhile
            pass

    def stat(self, path: Any, *others: Any, **named: Any) -> os.stat_result:
        self.is_ours(path)
        return self.plain["stat"](path, *others, **named)

    def listdir(self, path: Any = ".") -> list[str]:
        self.is_ours(path)
        return self.plain["listdir"](path)

    def scandir(self, path: Any = ".") -> Any:
        self.is_ours(path)
        return self.plain["scandir"](path)
