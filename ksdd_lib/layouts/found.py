"""What a reader finds in a folder: pictures, each with what is known of its defects."""

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ksdd_lib.data.dataset import natural_key, read_file, short_path
from ksdd_lib.data.layout_note import NOTE
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, decode_mask
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed

Mask = Callable[[tuple[int, int]], np.ndarray]
"""The (H, W) of a picture -> its annotated pixels, bool (H, W). Raises DataError where they are of
another size, or cannot be read."""

Draw = Callable[[np.ndarray], object]
"""Sets a defect to 1 on the pixels of its picture, uint8 (H, W). DataError where it cannot."""

SYSTEM = re.compile(r"\..*|__MACOSX|@eaDir|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Files and folders that nobody put there."""

GOOD = re.compile(
    r"good|ok|io|normal|non?[ _-]?defect\w*|(?:(?:defect|crack|fault|flaw|mt)[ _-]?)?free|fine|gut",
    re.IGNORECASE,
)
"""The name of a folder whose pictures are good surfaces."""

GENERIC = re.compile(
    r"train(?:ing)?|test(?:ing)?|val(?:id|idation)?|images?|imgs?|all|data|pictures?|photos?"
    r"|masks?|labels?|ground[ _-]?truth",
    re.IGNORECASE,
)
"""The name of a folder that is neither a part nor a class."""

SIDE = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])", re.IGNORECASE)
"""The word in a path for a side of a split."""

BOXES = "it has boxes, which outline no defect"
"""What a picture lacks whose defects are only boxed. It is defective all the same."""

OTHER_KINDS = (".tif", ".tiff", ".webp", ".gif", ".jfif", ".jp2", ".heic", ".avif")
"""Endings of pictures that are not read."""

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
        class_masks: the mask of each class, where there are several.
        is_defective: whether it is known to show a defect though no mask outlines one.
        is_named: whether a label names it: one that is no mask does not make it good by its folder.
    """

    name: str
    path: Path
    mask: Mask | None
    item: str | None = None
    side: str = ""
    classes: tuple[str, ...] = ()
    class_masks: tuple[Mask, ...] = ()
    lack: str = "it has no label"
    is_named: bool = False
    is_defective: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nothing says what it shows: no mask, no label and no class."""
        return self.mask is None and not (self.is_named or self.is_defective)


@dataclass(frozen=True)
class Found:
    """What a reader makes of a folder.

    Attributes:
        used: the files that it has read besides the pictures, by their paths below the root.
        notes: sentences on what the files say that is not taken over.
        is_copy: whether each label names a mask beside it that shows the same.
    """

    pictures: list[Picture]
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    is_copy: bool = False

    @property
    def labelled(self) -> int:
        """How many pictures have a mask."""
        return sum(picture.mask is not None for picture in self.pictures)


class Shape(NamedTuple):
    """A defect that a file of annotations outlines.

    Attributes:
        label: its class, or "".
        note: what kind of shape it is, where a user should know how such are taken.
        where: where it stands in the file.
    """

    label: str
    draw: Draw
    note: str = ""
    where: str = ""


class Labels(NamedTuple):
    """What one file says of one picture.

    Attributes:
        named: the picture, as the file names it.
        lack: why `shapes` are not all of its defects, or "".
        size: its (H, W) by the file, if that states one.
        side: "train", "val" or "test" by the file, or "" where it says none.
    """

    file: str
    named: str
    shapes: list[Shape]
    lack: str = ""
    size: tuple[int, int] | None = None
    side: str = ""


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

    def copies(self, named: str) -> list[str]:
        """The several pictures of that name, if all are one and the same."""
        same = self._tails.get((_stem(named),), [])
        is_one = len(same) > 1 and len({read_file(self.path(one)) for one in same}) == 1
        return same if is_one else []

    def text(self, name: str) -> str:
        """What a file of annotations holds; DataError where it is no text, or too large."""
        path = self.path(name)
        if path.stat().st_size > LARGEST:
            raise DataError(f"{name} has more than {LARGEST // 2**20} MB: no annotations are that.")
        try:
            return read_file(path).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(
                f"{name} is not UTF-8: save it as that, in Excel as CSV UTF-8."
            ) from None

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


def joined(tree: Tree, labels: list[Labels], masks: set[str], notes: Sequence[str]) -> Found:
    """Every picture but the `masks`, with the mask that its labels give.

    There is none where no label names the picture, or one is not understood.
    """
    named: dict[str, list[Labels]] = {}
    missing: dict[str, str] = {}
    for one in labels:
        name = tree.image(one.named, one.file, but=masks)
        names = [name] if name else tree.copies(one.named)
        for name in names:
            named.setdefault(name, []).append(one)
        if not names:
            missing[f"{one.named} ({one.file})"] = _stem(one.named)
    unread = masks - named.keys()
    sides = {name: side_of(posixpath.dirname(name)) for name in tree.images if name not in unread}
    sides |= {name: several[0].side or sides[name] for name, several in named.items()}
    held_out = "train" if "test" in sides.values() else "test"  # what was for validation
    pictures = [
        _picture(name, tree.path(name), named.get(name, []), side.replace("val", held_out))
        for name, side in sides.items()
    ]
    meant = set(missing.values())  # one of several of that name
    pictures = [
        replace(
            p, is_named=True, lack="a label names a picture called so, but not plainly this one"
        )
        if not p.is_named and PurePosixPath(p.name).name in meant
        else p
        for p in pictures
    ]
    kinds = Counter(shape.note for one in labels for shape in one.shapes if shape.note)
    notes = [*notes, *(f"{count} shapes are {kind}" for kind, count in kinds.items())]
    if missing:
        told = f"{len(missing)} named pictures are not there, or several have the name"
        notes.append(f"{told}: {listed(list(missing), 5)}")
    if unread:
        notes.append(f"{len(unread)} pictures are masks, which this layout does not read")
    return Found(pictures, {one.file for one in labels} | unread, notes)


def are_items(folders: Collection[str]) -> bool:
    """Whether folders with these names may be parts: none is for good ones, nor all for a use."""
    return not (any(map(GOOD.fullmatch, folders)) or all(map(GENERIC.fullmatch, folders)))


def side_of(path: str) -> str:
    """The side of a split that a path names last: "train", "val" or "test"; "" for none."""
    words = SIDE.findall(path)
    return words[-1].lower() if words else ""


def stated(height: Any, width: Any) -> tuple[int, int] | None:
    """The (H, W) that a file states; None where it states none."""
    try:
        size = int(height or 0), int(width or 0)
    except (OverflowError, TypeError, ValueError):
        return -1, -1
    return size if any(size) else None


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Within, what is not as its format has it becomes a DataError that begins with the place."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where} {error}") from None
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
        raise DataError(f"{where} is damaged, or of an unknown kind") from None


def is_image(name: str) -> bool:
    """Whether a file is called a picture."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def _stem(named: str) -> str:
    return PurePosixPath(named.replace("\\", "/")).stem


def without_ending(name: str) -> str:
    """A path without its ending."""
    return name.removesuffix(PurePosixPath(name).suffix)


def nothing(size: tuple[int, int]) -> np.ndarray:
    """The mask of a good surface."""
    return np.zeros(size, bool)


def from_file(path: Path, decode: Callable[[bytes, str], np.ndarray] = decode_mask) -> Mask:
    """The mask that a picture holds: white on the defect, or what else `decode` takes for one."""

    def read(size: tuple[int, int]) -> np.ndarray:
        mask = decode(read_file(path), short_path(path))
        if mask.shape != size:
            told = "the picture is {}x{} but its mask {} is {}x{} (height x width)"
            raise DataError(told.format(*size, short_path(path), *mask.shape), see="labels#sizes")
        return mask

    return read


def _picture(name: str, path: Path, labels: list[Labels], side: str) -> Picture:
    if not labels:
        return Picture(without_ending(name), path, None, side=side)
    lack = next((one.lack for one in labels if one.lack), "")
    kinds = {shape.label for one in labels for shape in one.shapes}
    classes = tuple(sorted(kinds if len(kinds) > 1 else kinds - {""}))
    mask = None if lack else _drawn(labels, path)
    masks = tuple(_drawn(labels, path, {kind}) for kind in classes) if len(classes) > 1 else ()
    stem, boxed = without_ending(name), lack == BOXES
    return Picture(stem, path, mask, None, side, classes, masks, lack, True, boxed)


def _drawn(labels: list[Labels], path: Path, kinds: Collection[str] = ()) -> Mask:
    """The defects of a picture, or those of these classes; several files may say the same."""

    def read(size: tuple[int, int]) -> np.ndarray:
        masks = []
        for one in labels:
            _check_size(one, size, path)
            canvas = np.zeros(size, np.uint8)
            for shape in (s for s in one.shapes if not kinds or s.label in kinds):
                with naming(shape.where):
                    shape.draw(canvas)
            masks.append(canvas > 0)
            if not kinds and (masks[0] != masks[-1]).any():
                told = f"{labels[0].file} and {one.file} outline other defects in it"
                raise DataError(told, see="labels#two-labels")
        return np.any(masks, axis=0)

    return read


def _check_size(labels: Labels, size: tuple[int, int], path: Path) -> None:
    if labels.size in (None, size):
        return
    said = "{} is for a picture of {}x{} pixels (height x width)".format(labels.file, *labels.size)
    with Image.open(path) as image:
        is_turned = image.getexif().get(0x0112, 1) > 1
    if is_turned and labels.size == size[::-1]:
        turned = f"{said}, before its EXIF turns it: outline it as every viewer shows it"
        raise DataError(turned, see="labels#sizes")
    raise DataError("{}, but it has {}x{}".format(said, *size), see="labels#sizes")


def _walk(root: Path) -> Iterator[str]:
    for place, folders, names in os.walk(root):
        # Where the data lies in `home`/data, what was written from it before lies below it.
        inner = [name for name in folders if not Path(place, name, NOTE).exists()]
        folders[:] = [name for name in inner if not SYSTEM.fullmatch(name)]
        for name in names:
            if not SYSTEM.fullmatch(name):
                yield (Path(place) / name).relative_to(root).as_posix()
