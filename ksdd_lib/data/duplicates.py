"""Which photographs show the same surface: correlation of their texture over small shifts."""

from collections.abc import Sequence

import cv2
import numpy as np

GRID = 256  # px of the longer side at which images are compared: a fifth of KolektorSDD's
FLAT = 0.1  # gray levels of texture below which an image shows nothing and is like no other
REACH = 3  # grid px; the largest shift tried: 15 px of KolektorSDD, whose twins are up to 5 px off


def aligned_correlation(images: Sequence[np.ndarray]) -> np.ndarray:
    """How alike each pair of gray images (H, W) is, (N, N) float32 in [-1, 1].

    Images are reduced and high-passed, which leaves the texture that tells one object from
    another; what all of them share is subtracted. The best correlation over the shifts counts. On
    KolektorSDD a second photograph of a surface scores at least 0.83, any other surface at most
    0.12. The top left corners are aligned, so sizes may differ, but not the magnification.
    """
    textures = _textures(images)
    width = textures.shape[2]
    flat = textures.reshape(len(images), -1)
    best = np.full((len(images), len(images)), -1, np.float32)
    # A shift is an offset in the flat pixels, where empty columns at the right keep the rows apart;
    # the shifts of opposite sign are the transposed products.
    for offset in (y * width + x for y in range(REACH + 1) for x in range(-REACH, REACH + 1)):
        if offset >= 0:
            np.maximum(best, flat[:, : flat.shape[1] - offset] @ flat[:, offset:].T, out=best)
    return np.maximum(best, best.T)


def _textures(images: Sequence[np.ndarray]) -> np.ndarray:
    """High-passed images of unit norm on one canvas of the median size, (N, h, w + REACH)."""
    height, width = np.median([image.shape for image in images], axis=0)
    factor = min(1.0, GRID / max(height, width))
    height, width = _scaled((height, width), factor)
    canvas = np.zeros((len(images), height, width + REACH), np.float32)
    for target, image in zip(canvas, images, strict=True):
        rows, columns = _scaled(image.shape, factor)
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        texture = (small - cv2.GaussianBlur(small, (0, 0), 4))[:height, :width]
        target[: texture.shape[0], : texture.shape[1]] = texture
    is_flat = canvas.std((1, 2)) < FLAT
    canvas -= canvas[~is_flat].mean(0) if not is_flat.all() else 0
    canvas[is_flat] = 0
    norms = np.linalg.norm(canvas, axis=(1, 2), keepdims=True)
    return canvas / np.maximum(norms, 1e-6)


def _scaled(shape: Sequence[float], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in shape)
    return height, width
