"""The samples of a data set: pairs of image and mask, found by exact name and decoded by one rule.

Layout: `<item>/<part>.jpg` (or .jpeg, .png, .bmp) beside `<item>/<part>_label.bmp` (or .png). An
item is one physical object, photographed from several sides (its parts); any names work,
KolektorSDD's are `kos01/Part5`. How a file becomes pixels stands in `pixels.py`.
"""

import contextlib
import functools
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.duplicates import aligned_correlation
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, decode_image, decode_mask
from ksdd_lib.data.sources import GENERATED_MARKER
from ksdd_lib.errors import DataError, KsddError

MASK_EXTENSIONS = (".bmp", ".png")
LIKE_A_LABEL = re.compile(r"(.+)[ ._-](?:labels?|masks?)", re.IGNORECASE)
"""Stems of files that somebody meant as a label, though only `<part>_label` is read."""

LAYOUT = "a folder for each item, in it <name>.jpg beside <name>_label.png"

# Digest of (item, mask pixels) of KolektorSDD's 399 samples. Images may have been stored again.
KOLEKTOR_DIGEST = "07ee01a0337be98d1fbad22e0ed57a54be22d8e5d3085150ddd9c7577be37ea2"

TWIN_CORRELATION = 0.5  # half way between the same surface and another one
TWIN_VERSION = 1  # raise it whenever twins.py may answer otherwise: the cache then asks anew


@dataclass(frozen=True)
class Sample:
    """One photographed surface with its annotation.

    Attributes:
        name: `<item>/<part>`, for example "kos01/Part5".
        item: the physical object it shows, for example "kos01".
        is_defective: whether the full-size mask holds any pixel.
        image_sha256: of the image file's bytes.
        mask_sha256: of the decoded boolean pixels and their shape.
    """

    name: str
    item: str
    image_path: Path
    mask_path: Path
    is_defective: bool
    image_sha256: str
    mask_sha256: str


@dataclass(frozen=True)
class Survey:
    """Everything found under a root, usable or not.

    Attributes:
        samples: the usable pairs, in natural order of their names.
        sizes: (height, width) of each sample, in the same order.
        duplicates: (dropped, kept) names of pairs identical inside one item.
        unreadable: (name, reason) of each image that has no usable pair; the reason names the file.
        ignored: files and folders outside the layout.
    """

    samples: tuple[Sample, ...]
    sizes: tuple[tuple[int, int], ...]
    duplicates: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]


def find_samples(root: Path) -> list[Sample]:
    """The samples under `root` in natural order; an identical pair inside an item is dropped.

    Raises:
        DataError: no sample is there, or any image lacks a readable image or mask.
    """
    found = survey(root)
    if found.unreadable:
        listed = " ".join(f"{reason}." for _, reason in found.unreadable[:5])
        more = f" And {len(found.unreadable) - 5} more." if len(found.unreadable) > 5 else ""
        raise DataError(
            f"{len(found.unreadable)} of the images cannot be used. {listed}{more} Mend or remove"
            f" them; `python -m ksdd_lib inspect --data PATH` lists all."
        )
    return list(found.samples)


def survey(root: Path) -> Survey:
    """Everything under `root`; a file that cannot be used is listed, not raised.

    Raises:
        DataError: `root` is not a folder, or holds no image in the layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist: give the folder of the items.")
    files = _list_files(root)
    images, ignored = files.images, files.ignored
    if not images:
        raise DataError(f"No image in {root}: expected {LAYOUT}.")
    names = sorted(images, key=natural_key)
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda name: _read_pair(name, files), names)
        found = dict(zip(names, results, strict=True))
    unreadable = tuple((name, value) for name, value in found.items() if isinstance(value, str))
    usable = [value for value in found.values() if not isinstance(value, str)]
    kept, duplicates = _drop_duplicates(usable)
    return Survey(
        samples=tuple(sample for sample, _ in kept),
        sizes=tuple(size for _, size in kept),
        duplicates=duplicates,
        unreadable=unreadable,
        ignored=tuple(sorted(ignored, key=natural_key)),
    )


def label_good(root: Path) -> list[Path]:
    """Write a black label beside every image that has none, and return the new files.

    Nothing is written where any image is unreadable or beside something that looks like its label.

    Raises:
        DataError: as of `survey`, or an image is not to be labelled so; the text names the file.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root.name} is no folder: give the folder of the items.")
    files = _list_files(root)
    if not files.images:
        raise DataError(f"No image in {root.name}: expected {LAYOUT}.")
    wanted = {}
    for name in sorted(files.images.keys() - files.masks.keys(), key=natural_key):
        image = files.images[name][0]
        if meant := files.like_labels.get(name):
            raise DataError(f"{_meant(meant[0], name)}. Nothing was written.")
        wanted[image.with_name(f"{image.stem}_label.png")] = read_image(image).shape
    for path, shape in wanted.items():
        storage.write_bytes(path, cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes())
    return list(wanted)


def read_image(source: Sample | Path | str) -> np.ndarray:
    """The gray image of a sample or file, uint8 (H, W).

    Raises:
        DataError: the file is absent, damaged, not an image, too small or too large.
    """
    path = source.image_path if isinstance(source, Sample) else Path(source)
    return decode_image(_read_file(path), _short(path))


def read_mask(sample: Sample) -> np.ndarray:
    """The annotated pixels of a sample, bool (H, W).

    Raises:
        DataError: the file is absent, damaged, or its gray levels mean neither {0, 1} nor {0, 255}.
    """
    return decode_mask(_read_file(sample.mask_path), _short(sample.mask_path))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `Part2` before `Part10`, whatever the order of a directory listing."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def fingerprint(samples: Iterable[Sample]) -> str:
    """64 hexadecimal digits that name the data: sample names, image bytes and mask pixels."""
    rows = sorted((one.name, one.image_sha256, one.mask_sha256) for one in samples)
    return _digest(rows)


def is_kolektor(samples: Iterable[Sample]) -> bool:
    """Whether this is all of KolektorSDD, by items and mask pixels (images may be re-encoded)."""
    return _digest(sorted((one.item, one.mask_sha256) for one in samples)) == KOLEKTOR_DIGEST


def twin_items(samples: Sequence[Sample], kind: str = "similar") -> list[set[str]]:
    """Groups of two or more items that show the same object.

    Args:
        kind: "similar" finds them by bytes and by aligned pixels, "identical" by bytes alone.

    What is similar is kept in memory and, where that is writable, in the user's cache folder.
    """
    if kind == "identical":
        return _linked(_by_bytes(samples))
    return [set(group) for group in _twin_groups(tuple(samples))]


def _by_bytes(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """(item, content of one of its image files) of each sample."""
    return [(one.item, one.image_sha256) for one in samples]


@functools.cache
def _twin_groups(samples: tuple[Sample, ...]) -> tuple[frozenset[str], ...]:
    name = f"twins-v{TWIN_VERSION}-{TWIN_CORRELATION}-{fingerprint(samples)}.json"
    cache = storage.cache_folder() / name
    try:
        return tuple(frozenset(group) for group in storage.read_json(cache))
    except (KsddError, OSError, TypeError):
        pass  # absent or unusable: found out anew
    links = _by_bytes(samples)
    # One image of each content is compared: the others are linked by their bytes already.
    distinct = list({one.image_sha256: one for one in samples}.values())
    with ThreadPoolExecutor() as pool:
        alike = aligned_correlation(list(pool.map(read_image, distinct))) > TWIN_CORRELATION
    for first, second in np.argwhere(np.triu(alike, 1)):
        links.append((distinct[first].item, distinct[second].image_sha256))
    groups = tuple(frozenset(group) for group in _linked(links))
    with contextlib.suppress(OSError):
        storage.write_json(cache, [sorted(group) for group in groups])
    return groups


@dataclass(frozen=True)
class _Files:
    """Files by sample name, and whatever else is there; hidden files are skipped.

    Attributes:
        like_labels: files that are not read, but were probably meant as a label of that sample.
    """

    images: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]
    like_labels: Mapping[str, list[Path]]
    ignored: list[str]


def _list_files(root: Path) -> _Files:
    images, masks, others, ignored = defaultdict(list), defaultdict(list), [], []
    for item in _visible(root):
        if not item.is_dir():
            if item.name != GENERATED_MARKER:
                ignored.append(item.name)
            continue
        for path in _visible(item):
            stem, extension = os.path.splitext(path.name)
            part = stem.removesuffix("_label")
            if path.is_dir():
                ignored.append(f"{item.name}/{path.name}/")
            elif part == stem and extension.lower() in IMAGE_EXTENSIONS:
                images[f"{item.name}/{part}"].append(path)
            elif part != stem and extension.lower() in MASK_EXTENSIONS:
                masks[f"{item.name}/{part}"].append(path)
            else:
                others.append(path)
    like_labels = defaultdict(list)
    suspects = [path for paths in images.values() for path in paths] + others
    for path in suspects:
        meant = LIKE_A_LABEL.fullmatch(path.stem)
        if meant and (name := f"{path.parent.name}/{meant[1]}") in images:
            like_labels[name].append(path)
            if images.pop(f"{path.parent.name}/{path.stem}", None):
                others.append(path)
    ignored += [_short(path) for path in others]
    ignored += [_short(path) for name in masks.keys() - images.keys() for path in masks[name]]
    return _Files(images, masks, like_labels, ignored)


def _meant(path: Path, name: str) -> str:
    """What is wrong with a file that was probably meant as the label of a sample."""
    return (
        f"{_short(path)} looks like the label of {name}, but only {name}_label.png or .bmp is "
        "read: save it as that, or take it away"
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_pair(name: str, files: _Files) -> tuple[Sample, tuple[int, int]] | str:
    """The sample and its (height, width), or the reason why there is none."""
    images, masks = files.images[name], files.masks.get(name, [])
    meant = files.like_labels.get(name)
    for kind, paths in (("images", images), ("masks", masks)):
        if len(paths) > 1:
            return f"two {kind} of one name, {' and '.join(_short(path) for path in paths)}"
    if not masks and meant:
        return _meant(meant[0], name)
    if not masks:
        return f"{_short(images[0])} has no mask {name}_label.bmp or .png beside it"
    image_path, mask_path = images[0], masks[0]
    try:
        data = _read_file(image_path)
        image = decode_image(data, _short(image_path))
        mask = decode_mask(_read_file(mask_path), _short(mask_path))
    except DataError as error:
        return str(error)
    if image.shape != mask.shape:
        sizes = [
            f"{path} is {array.shape[0]}x{array.shape[1]}"
            for path, array in ((_short(image_path), image), (_short(mask_path), mask))
        ]
        return f"{sizes[0]} but its mask {sizes[1]} (height x width)"
    if meant and not mask.any():  # called good by the one, and perhaps not by the other
        return f"{_meant(meant[0], name)}; {_short(mask_path)} is all black"
    mask_sha256 = storage.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes())
    item = name.split("/")[0]
    sample = Sample(
        name, item, image_path, mask_path, bool(mask.any()), storage.sha256(data), mask_sha256
    )
    return sample, image.shape


def _drop_duplicates(
    found: list[tuple[Sample, tuple[int, int]]],
) -> tuple[list[tuple[Sample, tuple[int, int]]], tuple[tuple[str, str], ...]]:
    """The pairs without repetitions inside an item, and (dropped, kept) names."""
    first: dict[tuple[str, str, str], str] = {}
    kept, duplicates = [], []
    for sample, size in found:
        original = first.setdefault(
            (sample.item, sample.image_sha256, sample.mask_sha256), sample.name
        )
        if original == sample.name:
            kept.append((sample, size))
        else:
            duplicates.append((sample.name, original))
    return kept, tuple(duplicates)


def _linked(pairs: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Items linked by a shared mark, transitively; groups of one are left out."""
    groups: list[tuple[set[str], set[str]]] = []
    for item, mark in pairs:
        items, marks = {item}, {mark}
        apart = []
        for group in groups:
            if group[0] & items or group[1] & marks:
                items, marks = items | group[0], marks | group[1]
            else:
                apart.append(group)
        groups = [*apart, (items, marks)]
    return sorted((items for items, _ in groups if len(items) > 1), key=sorted)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{_short(path)} cannot be read: {error.strerror}") from None


def _short(path: Path) -> str:
    """`<item>/<file>`: what an error names, without the way to the data folder."""
    return f"{path.parent.name}/{path.name}"


def _digest(rows: list[tuple[str, ...]]) -> str:
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()
