"""What a reader finds in a folder: pictures, each with what is known of its defects."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ksdd_lib.data.dataset import natural_key, read_file, short_path
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, decode_mask
from ksdd_lib.errors import DataError

Mask = Callable[[tuple[int, int]], np.ndarray]
"""The (H, W) of a picture -> its annotated pixels, bool (H, W). Raises DataError where they are of
another size, or cannot be read."""

SYSTEM = re.compile(r"\..*|__MACOSX|@eaDir|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Files and folders that nobody put there."""

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
    """

    name: str
    path: Path
    mask: Mask | None
    item: str | None = None
    side: str = ""
    classes: tuple[str, ...] = ()
    lack: str = "it has no label"


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

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.root / name

    def ending(self, *endings: str) -> list[str]:
        """The files with one of these endings, as ".json"."""
        return [name for name in self.files if name.lower().endswith(endings)]

    def by_stem(self, names: Iterable[str]) -> dict[str, str]:
        """The last part of each name without its ending -> the name, where only one has it."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(PurePosixPath(name).stem, []).append(name)
        return {stem: same[0] for stem, same in found.items() if len(same) == 1}

    def image(self, named: str, beside: str = "") -> str | None:
        """The picture that an annotation names: a path from its own folder or the root, or a name
        that only one picture has. Its ending may differ."""
        clean = named.replace("\\", "/")
        folder = PurePosixPath(beside).parent
        for place in (folder / clean, PurePosixPath(clean)):
            if (whole := os.path.normpath(place)) in self._images:
                return whole
        return self._stems.get(PurePosixPath(clean).stem)

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
        """The value in a JSON file; None where it is none."""
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError, DataError):
            return None

    @cached_property
    def _images(self) -> set[str]:
        return set(self.images)

    @cached_property
    def _stems(self) -> dict[str, str]:
        return self.by_stem(self.images)


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
        folders[:] = [name for name in folders if not SYSTEM.fullmatch(name)]
        for name in names:
            if not SYSTEM.fullmatch(name):
                yield (Path(place) / name).relative_to(root).as_posix()
