"""Defects drawn on good surfaces: masks that nobody had to draw, of defects that nobody has seen.

A drawn defect changes the gray of its pixels by a share of what they were, so that the surface's
texture stays. Lengths are in pixels of the network's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from ksdd_lib.drawing import Canvas, Random, jagged, noise_field, taper
from ksdd_lib.setting_rules import ends
from ksdd_lib.settings import Settings
from ksdd_lib.view import Box

VISIBLE = 20.0
"""Gray levels by which a defect changes its pixels on average at least; else it lies elsewhere."""

TRIES = 12
"""Places that are tried before a defect is taken as it is."""

RIM = 0.3
"""A pixel is annotated where it is changed by more than this share of the defect's own contrast."""

MOST = 12
"""Harmless things on one surface at most."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """What is drawn: the kinds, of `KINDS`, and from where each size of theirs is taken.

    Attributes:
        length: from end to end, in pixels.
        width: of lines; a pit is twice as wide.
        contrast: the share of its gray that a pixel loses, or gains where it is below 0.
        harmless: kinds that are drawn on all surfaces, and are no defect.
    """

    kinds: tuple[str, ...]
    length: Interval
    width: Interval
    contrast: Interval
    harmless: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        kinds, others = (names.split(",") for names in (settings.drawn_kinds, settings.harmless))
        return cls(
            tuple(kinds),
            ends(settings.drawn_length),
            ends(settings.drawn_width),
            ends(settings.drawn_contrast),
            tuple(kind for kind in others if kind in KINDS and kind not in kinds),
        )


def draw(
    surface: np.ndarray, ranges: Ranges, random: Random, inner: Box | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """A defect drawn on a surface -> image and mask, uint8 (H, W), and its kind.

    Args:
        surface: a good one, uint8 (H, W); not changed.
        random: all that is drawn follows from it.
        inner: what the picture fills, where it has a border; the defect lies in it.
    """
    kind = str(random.choice(ranges.kinds))
    box = inner or Box(0, 0, *surface.shape)
    ground = box.cut(surface).astype(np.float32)
    for _ in range(TRIES):
        depth = random.uniform(*ranges.contrast)
        share = KINDS[kind](ground.shape, ranges, random)
        changed = np.clip(ground * (1 - depth * share), 0, 255)
        marked = share > RIM
        if marked.any() and abs(changed - ground)[marked].mean() >= VISIBLE:
            break
    image, mask = surface.copy(), np.zeros_like(surface)
    box.cut(image)[:] = np.rint(changed).astype(np.uint8)
    box.cut(mask)[:] = cv2.dilate(marked.astype(np.uint8) * 255, AROUND)
    return image, mask, kind


def add_harmless(
    surface: np.ndarray, ranges: Ranges, random: Random, inner: Box | None = None
) -> np.ndarray:
    """A surface, uint8 (H, W), with up to a dozen things that are no defect, most of them dark."""
    box, image = inner or Box(0, 0, *surface.shape), surface.copy()
    ground = box.cut(image).astype(np.float32)
    for _ in range(random.integers(1, MOST + 1)):
        depth = random.uniform(*ranges.contrast) * random.choice([1, 1, -1])
        kind = str(random.choice(ranges.harmless))
        ground *= 1 - depth * KINDS[kind](ground.shape, ranges, random)
    box.cut(image)[:] = np.rint(ground.clip(0, 255)).astype(np.uint8)
    return image


AROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
"""What is annotated around a drawn defect: 3 pixels, about as people do on KolektorSDD."""


def _crack(size: Sequence[int], ranges: Ranges, random: Random) -> np.ndarray:
    """A jagged dark line with up to two branches; every second one begins at the border."""
    canvas = Canvas((size[0], size[1]))
    start, heading = _place(size, random, at_border=random.random() < 0.5)
    length, width = _logarithmic(ranges.length, random), random.uniform(*ranges.width)
    detail = random.uniform(0.1, 0.4)
    main = jagged(start, heading, length, 1, random, detail)
    for _ in range(random.integers(0, 3)):
        fork = main[int(random.uniform(0.1, 0.8) * len(main))]
        turn = random.choice([-1, 1]) * random.uniform(0.5, 1.2)
        branch = jagged(fork, heading + turn, length * random.uniform(0.15, 0.4), 1, random, detail)
        _line(canvas, branch, 0.75 * width, random)
    _line(canvas, main, width, random, both_ends=random.random() < 0.5)
    return _blurred(canvas, random.uniform(0.3, 0.9))


def _scratch(size: Sequence[int], ranges: Ranges, random: Random) -> np.ndarray:
    """A smooth line, straight or in one bow."""
    canvas = Canvas((size[0], size[1]))
    start, heading = _place(size, random)
    length = _logarithmic(ranges.length, random)
    count = max(int(length / 2), 4)
    angles = heading + np.linspace(0, random.normal(0, 0.5), count)
    steps = length / count * np.stack([np.cos(angles), np.sin(angles)], 1)
    path = np.concatenate([start[None], start + np.cumsum(steps, 0)])
    _line(canvas, path, random.uniform(*ranges.width), random, both_ends=True)
    return _blurred(canvas, random.uniform(0.3, 0.9))


def _pit(size: Sequence[int], ranges: Ranges, random: Random) -> np.ndarray:
    """One to three small blobs near each other."""
    canvas = Canvas((size[0], size[1]))
    place, _ = _place(size, random)
    for _ in range(random.integers(1, 4)):
        canvas.fill(place + _outline(random.uniform(*ranges.width), random, 0.3), 1.0)
        place = place + random.normal(0, 3 * ranges.width[1], 2)
    return _blurred(canvas, random.uniform(0.3, 0.9))


def _spot(size: Sequence[int], ranges: Ranges, random: Random) -> np.ndarray:
    """An uneven blob with a sharp outline."""
    canvas = Canvas((size[0], size[1]))
    radius = max(ranges.width[0], _logarithmic(ranges.length, random) / 6)
    canvas.fill(_place(size, random)[0] + _outline(radius, random, 0.35), 1.0)
    return _blurred(canvas, random.uniform(0.4, 1.5))


def _stain(size: Sequence[int], ranges: Ranges, random: Random) -> np.ndarray:
    """A wide soft blob of uneven strength."""
    canvas = Canvas((size[0], size[1]))
    radius = max(2.0, _logarithmic(ranges.length, random) / 3)
    canvas.fill(_place(size, random)[0] + _outline(radius, random, 0.35), 0.6)
    clouds = noise_field((size[0], size[1]), radius / 2, radius / 2, random)
    return _blurred(canvas, radius / 5) * (1 + 0.3 * clouds).clip(0.3, 1.6)


Shape = Callable[[Sequence[int], Ranges, Random], np.ndarray]

KINDS: dict[str, Shape] = {
    "crack": _crack,
    "scratch": _scratch,
    "pit": _pit,
    "spot": _spot,
    "stain": _stain,
}
"""The kinds by name. Each gives the share of the full contrast at each pixel, float32 (H, W)."""


def _place(
    size: Sequence[int], random: Random, at_border: bool = False
) -> tuple[np.ndarray, float]:
    """A point (x, y) and a direction in radians; from the border it leads inward."""
    high, wide = size[:2]
    point, heading = random.uniform(0, (wide, high)), random.uniform(0, 2 * np.pi)
    if at_border:
        side = random.integers(4)
        point = np.array([(0, point[1]), (point[0], 0), (wide, point[1]), (point[0], high)][side])
        heading = side * np.pi / 2 + random.uniform(-1, 1)
    return point, heading


def _line(
    canvas: Canvas, path: np.ndarray, width: float, random: Random, both_ends: bool = False
) -> None:
    count = len(path) - 1
    widths = width * taper(count, both_ends) * random.uniform(0.8, 1.2, count)
    waves = cv2.resize(random.uniform(0.6, 1.1, (1, 6)), (count, 1))[0]
    canvas.draw(path, widths, waves)


def _outline(radius: float, random: Random, uneven: float) -> np.ndarray:
    """The corners (n, 2) of an uneven ellipse around 0."""
    angles = np.linspace(0, 2 * np.pi, 13)[:-1]
    radii = radius * random.uniform(1 - uneven, 1 + uneven, 12)
    turn, flat = random.uniform(0, np.pi), random.uniform(0.5, 1)
    points = np.stack([radii * np.cos(angles), flat * radii * np.sin(angles)], 1)
    return points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _blurred(canvas: Canvas, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(canvas.average(), (0, 0), sigma)


def _logarithmic(interval: Interval, random: Random) -> float:
    """A length from an interval, short ones as likely as long ones."""
    return float(np.exp(random.uniform(*np.log(interval))))
