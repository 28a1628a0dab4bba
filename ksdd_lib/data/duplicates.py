"""Twins: items that show the same object, by equal image files or the texture of their surface."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, fingerprint, read_image
from ksdd_lib.errors import KsddError

GRID = 256  # px of the longer side at which images are compared: a fifth of KolektorSDD's
FLAT = 0.1  # gray levels of texture below which an image shows nothing and is like no other
REACH = 3  # grid px; the largest shift tried: 15 px of KolektorSDD, whose twins are up to 5 px off
TWIN_CORRELATION = 0.5  # half way between the same surface and another one
TWIN_VERSION = 1  # raise it whenever this module may answer otherwise: the cache then asks anew

_known: dict[str, list[list[str]]] = {}  # name of a cached answer -> that answer


def twin_items(samples: Sequence[Sample], kind: str = "similar") -> list[set[str]]:
    """Groups of two or more items that show the same object.

    "similar" finds them by bytes and aligned pixels, "identical" by bytes alone. What is similar is
    kept in memory and, if that is writable, in the user's cache folder.
    """
    links = [(one.item, one.image_sha256) for one in samples]
    if kind == "identical":
        return _linked(links)
    name = f"twins-v{TWIN_VERSION}-{TWIN_CORRELATION}-{fingerprint(samples)}.json"
    cache = storage.cache_folder() / name
    if name not in _known:
        try:
            _known[name] = [sorted(group) for group in storage.read_json(cache)]
        except (KsddError, OSError, TypeError):  # absent or unusable
            _known[name] = [sorted(group) for group in _linked([*links, *_similar(samples)])]
            with contextlib.suppress(OSError):
                storage.write_json(cache, _known[name])
    return [set(group) for group in _known[name]]


def reduction(sizes: Iterable[tuple[int, int]]) -> float:
    """The factor, at most 1, by which images of these (height, width) are reduced."""
    return min(1.0, GRID / float(np.median(list(sizes), axis=0).max()))


def reduced(image: np.ndarray, factor: float) -> np.ndarray:
    """A gray image (H, W) at `factor` times its size, of the same type."""
    return cv2.resize(image, _scaled(image.shape, factor)[::-1], interpolation=cv2.INTER_AREA)


def _similar(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """(item, content of an image of another item) of each pair of images that look alike."""
    compared = list({one.image_sha256: one for one in samples}.values())
    sizes = [one.size for one in compared]
    factor = reduction(sizes)

    def thumbnail(one: Sample) -> np.ndarray:
        return reduced(read_image(one), factor) if one.thumbnail is None else one.thumbnail

    with ThreadPoolExecutor() as pool:
        alike = _correlation(list(pool.map(thumbnail, compared)), sizes) > TWIN_CORRELATION
    pairs = np.argwhere(np.triu(alike, 1))
    return [(compared[first].item, compared[second].image_sha256) for first, second in pairs]


def _correlation(thumbnails: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """How alike each pair of reduced images is, that had these sizes: (N, N) float32 in [-1, 1].

    The best correlation over the shifts counts. Sizes may differ, but not the magnification. On
    KolektorSDD the same surface again scores at least 0.83, any other at most 0.12.
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
    """High-passed images of unit norm on one canvas of the median size, (N, h, w + REACH)."""
    height, width = _scaled(np.median(sizes, axis=0).tolist(), reduction(sizes))
    canvas = np.zeros((len(thumbnails), height, width + REACH), np.float32)
    for target, thumbnail in zip(canvas, thumbnails, strict=True):
        small = thumbnail.astype(np.float32)
        texture = (small - cv2.GaussianBlur(small, (0, 0), 4))[:height, :width]
        target[: texture.shape[0], : texture.shape[1]] = texture
    is_flat = canvas.std((1, 2)) < FLAT
    canvas -= canvas[~is_flat].mean(0) if not is_flat.all() else 0
    canvas[is_flat] = 0
    return canvas / np.maximum(np.linalg.norm(canvas, axis=(1, 2), keepdims=True), 1e-6)


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
