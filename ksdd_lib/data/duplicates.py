"""Twins: items that show the same object, by equal image files or the texture of their surface."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, fingerprint, natural_key, read_image
from ksdd_lib.errors import KsddError

GRID = 256  # px of the longer side at which images are compared: a fifth of KolektorSDD's
FLAT = 0.1  # gray levels of texture below which an image shows nothing and is like no other
REACH = 3  # grid px; the largest shift tried: 15 px of KolektorSDD, whose twins are up to 5 px off
TWIN_CORRELATION = 0.5  # half way between the same surface and another one
TWIN_VERSION = 2  # raise it whenever this module may answer otherwise: the cache then asks anew

CLOSEST = 3  # pairs that are shown though they are no twins


class ClosePair(storage.Record):
    """Two surfaces of items that are no twins, and how alike they are."""

    surfaces: tuple[str, str]
    correlation: float


class _Answer(storage.Record):
    """The twins of a data set, and what comes closest to being twins: the most alike first."""

    groups: tuple[tuple[str, ...], ...]
    closest: tuple[ClosePair, ...]


_known: dict[str, _Answer] = {}  # name of a cached answer -> that answer


def twin_items(samples: Sequence[Sample], kind: str = "similar") -> list[set[str]]:
    """Groups of two or more items that show the same object.

    "similar" finds them by bytes and aligned pixels, "identical" by bytes alone. What is similar is
    kept in memory and, if that is writable, in the user's cache folder.
    """
    if kind == "identical":
        return _linked((one.item, one.image_sha256) for one in samples)
    return [set(group) for group in _compared(samples, kind).groups]


def closest_pairs(samples: Sequence[Sample], kind: str = "similar") -> tuple[ClosePair, ...]:
    """The most alike surfaces of items that `twin_items` does not join, one for two items."""
    return _compared(samples, kind).closest


def _compared(samples: Sequence[Sample], kind: str) -> _Answer:
    """What comparing all images gives, also from memory or the cache."""
    name = f"twins-v{TWIN_VERSION}-{kind}-{TWIN_CORRELATION}-{fingerprint(samples)}.json"
    cache = storage.cache_folder() / name
    if name not in _known:
        try:
            _known[name] = storage.read_record(cache, _Answer)
        except (KsddError, OSError):  # absent or unusable
            _known[name] = _compare(samples, kind)
            with contextlib.suppress(OSError):
                storage.write_record(cache, _known[name])
    return _known[name]


def _compare(samples: Sequence[Sample], kind: str) -> _Answer:
    """The answer itself, from every image at most once."""
    compared = list({one.image_sha256: one for one in samples}.values())
    if len(compared) < 2:
        return _Answer(groups=tuple(map(_sorted, twin_items(samples, "identical"))), closest=())
    sizes = [one.size for one in compared]
    factor = reduction(sizes)

    def thumbnail(one: Sample) -> np.ndarray:
        return reduced(read_image(one), factor) if one.thumbnail is None else one.thumbnail

    with ThreadPoolExecutor() as pool:
        alike = _correlation(list(pool.map(thumbnail, compared)), sizes)
    links = [(one.item, one.image_sha256) for one in samples]
    if kind == "similar":
        pairs = np.argwhere(np.triu(alike > TWIN_CORRELATION, 1))
        links += [(compared[first].item, compared[second].image_sha256) for first, second in pairs]
    groups = tuple(map(_sorted, _linked(links)))
    return _Answer(groups=groups, closest=tuple(_closest(compared, alike, groups)))


def _closest(
    compared: Sequence[Sample], alike: np.ndarray, groups: Sequence[Sequence[str]]
) -> Iterator[ClosePair]:
    """The most alike of the samples that are in different groups, one for two groups."""
    first_of = {item: group[0] for group in groups for item in group}
    parts = np.array([first_of.get(one.item, one.item) for one in compared])
    apart = np.where(parts[:, None] == parts, 0, alike)
    for _ in range(CLOSEST):
        one, other = map(int, np.unravel_index(apart.argmax(), apart.shape))
        if (correlation := float(apart[one, other])) <= 0:
            break
        surfaces = compared[one].name, compared[other].name
        yield ClosePair(surfaces=surfaces, correlation=round(correlation, 3))
        for row, column in ((one, other), (other, one)):
            apart[np.ix_(parts == parts[row], parts == parts[column])] = 0


def _sorted(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(items, key=natural_key))


def reduction(sizes: Iterable[tuple[int, int]]) -> float:
    """The factor, at most 1, by which images of these (height, width) are reduced."""
    return min(1.0, GRID / float(np.median(list(sizes), axis=0).max()))


def reduced(image: np.ndarray, factor: float) -> np.ndarray:
    """A gray image (H, W) at `factor` times its size, of the same type."""
    return cv2.resize(image, _scaled(image.shape, factor)[::-1], interpolation=cv2.INTER_AREA)


def _correlation(thumbnails: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """How alike each pair of reduced images is, that had these sizes: (N, N) float32 in [-1, 1].

    The best correlation over the shifts counts. Sizes may differ, but not the magnification. On
    KolektorSDD the same surface again scores at least 0.90, any other at most 0.17.
    """
    textures = _textures(thumbnails, sizes)
    width, flat = textures.shape[2], textures.reshape(len(textures), -1)
    best = np.full((len(flat), len(flat)), -1, np.float32)
    # A shift is an offset in the flat pixels, where empty columns at the right keep the rows apart;
    # the shifts of opposite sign are the transposed products.
    for offset in (y * width + x for y in range(REACH + 1) for x in range(-REACH, REACH + 1)):
        if offset >= 0:
            np.maximum(best, flat[:, : flat.shape[1] - offset] @ flat[:, offset:].T, out=best)
    return np.maximum(best, best.T)


def _textures(thumbnails: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Band-passed images of unit norm on one canvas of the median size, (N, h, w + REACH).

    Brightness and contrast are taken out around each pixel, so that neither exposure nor a defect,
    which is darker than any texture, outweighs the rest. What all images share is taken out, too.
    """
    height, width = _scaled(np.median(sizes, axis=0).tolist(), reduction(sizes))
    canvas = np.zeros((len(thumbnails), height, width + REACH), np.float32)
    for target, thumbnail in zip(canvas, thumbnails, strict=True):
        small = thumbnail.astype(np.float32)
        texture = cv2.GaussianBlur(small, (0, 0), 0.7) - cv2.GaussianBlur(small, (0, 0), 4)
        contrast = np.sqrt(cv2.GaussianBlur(texture * texture, (0, 0), 8) + 1)  # at least 1 level
        texture = (texture / contrast)[:height, :width]
        target[: texture.shape[0], : texture.shape[1]] = texture
    is_flat = canvas.std((1, 2)) < FLAT
    canvas = _normed(canvas)
    canvas -= canvas[~is_flat].mean(0) if not is_flat.all() else 0
    canvas[is_flat] = 0
    return _normed(canvas)


def _normed(images: np.ndarray) -> np.ndarray:
    return images / np.maximum(np.linalg.norm(images, axis=(1, 2), keepdims=True), 1e-6)


def _scaled(shape: Sequence[float], factor: float) -> tuple[int, int]:
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _linked(links: Iterable[tuple[str, str]]) -> list[set[str]]:
    """The items of (item, content) pairs that share a content, transitively; no group of one."""
    items_of = defaultdict(set)
    for item, content in links:
        items_of[content].add(item)
    groups: list[set[str]] = []
    for group in items_of.values():
        apart = [other for other in groups if not other & group]
        groups = [*apart, group.union(*(other for other in groups if other & group))]
    return sorted((group for group in groups if len(group) > 1), key=sorted)
