"""What a reader finds in a folder: pictures, each with what is known of its defects."""

import json
import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ksdd_lib.data.dataset import natural_key, read_file, short_path
from ksdd_lib.data.layout_note import NOTE
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, decode_mask
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed

Mask = Callable[[tuple[int, int]], np.ndarray]
"""The (H, W) of a picture -> its annotated pixels, bool (H, W). Raises DataError where they are of
another size, or cannot be read."""

SYSTEM = re.compile(r"\..*|__MACOSX|@eaDir|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Files and folders that nobody put there."""

GOOD = re.compile(r"good|ok|io|normal|non?[ _-]?defect\w*|defect[ _-]?free|fine|gut", re.IGNORECASE)
"""The name of a folder whose pictures are good surfaces."""

GENERIC = re.compile(
    r"train(?:ing)?|test(?:ing)?|val(?:id|idation)?|images?|imgs?|all|data|pictures?|photos?"
    r"|masks?|labels?|ground[ _-]?truth",
    re.IGNORECASE,
)
"""The name of a folder that is neither a part nor a class."""

LARGEST = 256 * 2**20
"""Bytes of the largest file of annotations that is read."""


@dataclass(frozen=True)
class Picture:
    """A picture as a reader found it.

    Attributes:
        name: its path below the root without its ending, "test/scratch/000".
        mask: None where its defects are not outlined; `lack` says why, in a few words.
        item: the part that it shows; None where the layout does not say.
        side: "train" or "test" where the data set is split already, else "".
        classes: the names of its defects.
        is_named: whether a label names it: one that is no mask does not make it good by its folder.
    """

    name: str
    path: Path
    mask: Mask | None
    item: str | None = None
    side: str = ""
    classes: tuple[str, ...] = ()
    lack: str = "it has no label"
    is_named: bool = False


@dataclass(frozen=True)
class Found:
    """What a reader makes of a folder.

    Attributes:
        used: the files that it has read besides the pictures, by their paths below the root.
        notes: sentences on what the files say that is not taken over.
    """

    pictures: list[Picture]
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> int:
        """How many pictures have a mask."""
        return sum(picture.mask is not None for picture in self.pictures)


class Tree:
    """The files below a folder, by their paths with "/" below it, in natural order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = sorted(_walk(root), key=natural_key)
        self.images = [name for name in self.files if is_image(name)]
        self.damaged: dict[str, str] = {}  # what cannot be read, and why
        self._values: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.root / name

    def ending(self, *endings: str) -> list[str]:
        """The files with one of these endings, as ".json"."""
        return [name for name in self.files if name.lower().endswith(endings)]

    def image(self, named: str, beside: str = "", but: Collection[str] = ()) -> str | None:
        """The picture that an annotation names; None where there is none, or more than one may be.

        It is named by a path from the annotation's own folder or the root, or by the end of its
        path. Its ending may differ. None of `but` is meant.
        """
        path = PurePosixPath(named.replace("\\", "/"))
        for place in (PurePosixPath(beside).parent / path, path):
            if (whole := posixpath.normpath(place)) in self._images:
                return whole
        for stem in dict.fromkeys((path.name, path.stem)):
            parts = (*path.parts[:-1], stem)
            for start in range(len(parts)):  # folders of another machine are left out
                same = [one for one in self._tails.get(parts[start:], ()) if one not in but]
                same = [one for one in same if one.endswith(path.name)] or same
                if same:
                    return same[0] if len(same) == 1 else None
                if parts[start:-1] in self._folders:
                    break  # it would lie there
        return None

    def text(self, name: str) -> str:
        """What a file of annotations holds; DataError where it is no text, or too large."""
        path = self.path(name)
        if path.stat().st_size > LARGEST:
            raise DataError(f"{name} has more than {LARGEST // 2**20} MB: no annotations are that.")
        try:
            return read_file(path).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{name} is not UTF-8.") from None

    def json(self, name: str) -> Any:
        """The value in a JSON file; None where it is none. The picture in a labelme file is cut."""
        if name not in self._values:
            try:
                value = json.loads(self.text(name))
            except (ValueError, RecursionError, DataError):
                value, self.damaged[name] = None, "no valid JSON"
            if isinstance(value, dict):
                value.pop("imageData", None)
            self._values[name] = value
        return self._values[name]

    def listed(self, names: Sequence[str]) -> str:
        """The first of these files, the damaged ones before all, with what is wrong with them."""
        damaged = [f"{name} ({self.damaged[name]})" for name in names if name in self.damaged]
        return listed(damaged + [name for name in names if name not in self.damaged], 5)

    @cached_property
    def _images(self) -> set[str]:
        return set(self.images)

    @cached_property
    def _tails(self) -> dict[tuple[str, ...], list[str]]:
        """The ends of the pictures' paths without ending -> the pictures."""
        found: dict[tuple[str, ...], list[str]] = {}
        for name in self.images:
            parts = PurePosixPath(without_ending(name)).parts
            for start in range(len(parts)):
                found.setdefault(parts[start:], []).append(name)
        return found

    @cached_property
    def _folders(self) -> set[tuple[str, ...]]:
        """The ends of the paths of the folders with pictures."""
        return {tail[:-1] for tail in self._tails if tail[:-1]}


def is_image(name: str) -> bool:
    """Whether a file is called a picture."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def without_ending(name: str) -> str:
    """A path without its ending."""
    return name.removesuffix(PurePosixPath(name).suffix)


def nothing(size: tuple[int, int]) -> np.ndarray:
    """The mask of a good surface."""
    return np.zeros(size, bool)


def from_file(path: Path) -> Mask:
    """The mask that a picture holds, white on the defect."""

    def read(size: tuple[int, int]) -> np.ndarray:
        mask = decode_mask(read_file(path), short_path(path))
        if mask.shape != size:
            raise DataError(
                "the picture is {}x{} but its mask {} is {}x{} (height x width)".format(
                    *size, short_path(path), *mask.shape
                )
            )
        return mask

    return read


def _walk(root: Path) -> Iterator[str]:
    for place, folders, names in os.walk(root):
        # Where the data lies in `home`/data, what was written from it before lies below it.
        inner = [name for name in folders if not Path(place, name, NOTE).exists()]
        folders[:] = [name for name in inner if not SYSTEM.fullmatch(name)]
        for name in names:
            if not SYSTEM.fullmatch(name):
                yield (Path(place) / name).relative_to(root).as_posix()
