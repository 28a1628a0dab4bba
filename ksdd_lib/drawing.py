"""Shapes and noise that generated surfaces and drawn defects are made of.

A path is an array (n, 2) of x and y in pixels.
"""

from itertools import pairwise

import cv2
import numpy as np

Size = tuple[int, int]  # (height, width) in pixels
Random = np.random.Generator

SMALLEST_SIDE = 128
_OVERSAMPLE = 4  # shapes are drawn this many times larger, then averaged down
_SOFTNESS = 0.4  # standard deviation of the lens blur on shapes, in units


class Canvas:
    """Antialiased shapes in image coordinates (x, y); later shapes cover earlier ones.

    Widths are in units, which are pixels unless `unit_of` gives them from the size.
    """

    def __init__(self, size: Size, unit: float = 1) -> None:
        self.size, self.unit = size, unit
        self.pixels = np.zeros([side * _OVERSAMPLE for side in size], np.uint8)

    def draw(self, path: np.ndarray, widths: np.ndarray, strengths: np.ndarray) -> None:
        """A line through the points (n, 2), with n - 1 widths in units and strengths in [0, 1]."""
        thickness = np.maximum(np.rint(widths * self.unit * _OVERSAMPLE), 1).astype(int).tolist()
        grays = np.rint(np.clip(strengths, 0, 1) * 255).tolist()
        pieces = zip(pairwise(_corners(path).tolist()), thickness, grays, strict=True)
        for (begin, end), width, gray in pieces:
            cv2.line(self.pixels, begin, end, gray, width)

    def fill(self, outline: np.ndarray, strength: float) -> None:
        """A polygon with the corners (n, 2)."""
        cv2.fillPoly(self.pixels, [_corners(outline)], round(strength * 255))

    def average(self) -> np.ndarray:
        """The canvas at image size: float32 (H, W) in [0, 1]."""
        small = cv2.resize(self.pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), _SOFTNESS * self.unit)


def jagged(
    start: np.ndarray,
    heading: float,
    length: float,
    unit: float,
    random: Random,
    detail: float = 0.5,
) -> np.ndarray:
    """A path of `length` units that keeps its direction on the whole, less in `detail`: (n, 2)."""
    step = 1.6
    count = max(int(length / step), 4)
    slow = cv2.resize(random.normal(0, 0.35, (1, 4)), (count, 1), interpolation=cv2.INTER_CUBIC)[0]
    angles = heading + slow + random.normal(0, detail, count)
    steps = step * unit * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([start[None], start + np.cumsum(steps, 0)])


def taper(count: int, both_ends: bool = False) -> np.ndarray:
    """Widths (count,) from 1 down to about a third at the far end, or at both ends."""
    place = np.linspace(-1 if both_ends else 0, 1, count)
    return 1 - 0.65 * np.abs(place) ** 3


def noise_field(size: Size, sigma_x: float, sigma_y: float, random: Random) -> np.ndarray:
    """Smooth Gaussian noise of unit variance: float32 (H, W)."""
    shrink_x, shrink_y = max(int(sigma_x / 1.5), 1), max(int(sigma_y / 1.5), 1)
    shape = (-(-size[0] // shrink_y), -(-size[1] // shrink_x))
    noise: np.ndarray = random.standard_normal(shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma_x / shrink_x, sigmaY=sigma_y / shrink_y)
    noise = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(size)
    return noise / max(float(noise.std()), 1e-6)


def unit_of(size: Size) -> float:
    """Pixels in one unit of length."""
    return min(size) / SMALLEST_SIDE


def _corners(points: np.ndarray) -> np.ndarray:
    return np.rint(points * _OVERSAMPLE).astype(np.int32)
