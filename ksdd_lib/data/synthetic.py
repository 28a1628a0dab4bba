"""Generated commutator surfaces in KolektorSDD's layout: a stand-in that anyone may have and share.

A surface is gray plastic: speckled texture, uneven light, faint vertical bands, bright reflections
at the side. Some of it looks like a defect by darkness alone and is none: compact specks and
straight lines along the border, as dark as a crack, and scratches. A crack is a thin, jagged,
branching dark line, and its mask holds exactly the pixels that it darkens.

All lengths are in units of min(H, W) / 128 pixels, so a surface looks the same at every size.
The figures below were fitted to KolektorSDD by eye and by its gray levels; no image of it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.errors import DataError, RunError

MARKER = "generated.json"  # stands in the folder of a complete set and says how it was made
VERSION = 2  # raise it whenever a surface comes out different from before
SMALLEST_SIDE = 128
PARTS = 8  # surfaces of an item, unless told otherwise
_ITEM, _SURFACE, _CRACK = 1, 2, 3  # independent random streams
_OVERSAMPLE = 4  # shapes are drawn this many times larger, then averaged down
_SOFTNESS = 0.4  # standard deviation of the lens blur on shapes, in units
_FAINTEST = 0.3  # of a crack's own darkness: a paler rim would be annotated by nobody
_DARKEST, _BRIGHTEST = 20, 255  # gray levels before the crack; it still has room to darken


class GeneratedSet(storage.Record):
    """How a set was made: what its `MARKER` holds."""

    version: int
    items: int
    size: tuple[int, int]
    seed: int
    parts: int
    defective_parts: int


def generate(
    root: Path,
    items: int,
    size: tuple[int, int],
    seed: int = 0,
    parts: int = PARTS,
    defective_parts: int = 2,
) -> Path:
    """Write `items` x `parts` surfaces of `size` (H, W) below `root` and return `root`.

    Layout: gen01/Part0.jpg (gray JPEG) and gen01/Part0_label.bmp (0 or 255), as in KolektorSDD. A
    half set is never seen under `root`. A complete set made earlier with the same parameters is
    used again, unless an older `VERSION` of this module made it.

    Raises:
        DataError: a parameter is out of range, or `root` holds something else.
    """
    _check(items, size, seed, parts, defective_parts)
    root = Path(root)
    record = GeneratedSet(
        version=VERSION,
        items=items,
        size=size,
        seed=seed,
        parts=parts,
        defective_parts=defective_parts,
    )
    if _is_complete(root, record):
        return root
    with storage.whole_folder(root, lambda: _is_complete(root, record)) as made:
        for item in range(1, items + 1):
            folder = made / f"gen{item:02d}"
            folder.mkdir()
            chosen = defective_part_numbers(seed, item, parts, defective_parts)
            for part in range(parts):
                image, mask = render(size, seed, item, part, part in chosen)
                _save(folder / f"Part{part}.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
                _save(folder / f"Part{part}_label.bmp", mask.astype(np.uint8) * 255)
        storage.write_record(made / MARKER, record)
    return root


def defective_part_numbers(seed: int, item: int, parts: int, count: int) -> frozenset[int]:
    """Which `count` of an item's parts (0 to parts - 1) have a crack."""
    chosen = _random(_ITEM, seed, item, parts).choice(parts, count, replace=False)
    return frozenset(int(part) for part in chosen)


def render(
    size: tuple[int, int], seed: int, item: int, part: int, is_defective: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One surface as (image uint8 (H, W), mask bool (H, W)), the same for the same arguments.

    Outside the mask the image equals that of `is_defective=False`; inside it is darker.
    """
    surface = _surface(size, Style.of(seed, item), _random(_SURFACE, seed, item, part))
    image = np.clip(surface, _DARKEST, _BRIGHTEST)
    if not is_defective:
        return np.rint(image).astype(np.uint8), np.zeros(size, bool)
    darkening = _crack(size, _random(_CRACK, seed, item, part))
    return np.rint(image * (1 - darkening)).astype(np.uint8), darkening > 0


@dataclass(frozen=True)
class Style:
    """What the parts of one item share; the texture itself is drawn anew for each surface."""

    gray: float  # mean gray level
    contrast: float  # of the grain, as a share of the gray level
    grain: float  # width of a grain, in units; its height is about 0.6 of it
    flakes: float  # strength of the dark flakes between the grains
    bands: float  # strength of the vertical bands
    light: float  # strength of the uneven light
    reflections: float  # how often a side of the part shines

    @classmethod
    def of(cls, seed: int, item: int) -> "Style":
        """The style of an item."""
        uniform = _random(_ITEM, seed, item, 0).uniform
        return cls(
            gray=uniform(172, 202),
            contrast=uniform(0.06, 0.1),
            grain=uniform(0.9, 1.35),
            flakes=uniform(0.05, 0.16),
            bands=uniform(0.01, 0.03),
            light=uniform(0.03, 0.08),
            reflections=uniform(0.0, 0.9),
        )


def _surface(size: tuple[int, int], style: Style, random: np.random.Generator) -> np.ndarray:
    """A surface without a crack: float32 (H, W), gray levels, not yet clipped."""
    texture = _grain(size, style, random) + _bands(size, style, random)
    gain = (1 + texture) * (1 + _light(size, style, random))
    gain += _scratches(size, random)
    gain *= 1 - np.maximum(_specks(size, random), _edge_lines(size, random))
    shine = _reflections(size, style, random)
    return style.gray * gain * (1 - shine) + 275 * shine


def _grain(size: tuple[int, int], style: Style, random: np.random.Generator) -> np.ndarray:
    """Fine speckle plus dark flakes, both flattened as if rolled."""
    width = style.grain * _unit(size)
    fine = _noise(size, width, 0.6 * width, random)
    coarse = _noise(size, 1.8 * width, 1.1 * width, random)
    clouds = _noise(size, 9 * width, 9 * width, random)
    flakes = np.maximum(coarse - 0.8, 0) * np.maximum(1 + 0.6 * clouds, 0)
    sparkle = np.maximum(fine - 1.3, 0)
    speckle = 0.75 * fine + 0.45 * coarse + 0.2 * clouds + 0.5 * sparkle
    return style.contrast * speckle - style.flakes * flakes


def _bands(size: tuple[int, int], style: Style, random: np.random.Generator) -> np.ndarray:
    """Faint vertical bands, some with a sharp border: (1, W)."""
    unit = _unit(size)
    row = (1, size[1])
    bands = 0.6 * _noise(row, 1.5 * unit, 0, random) + 0.6 * _noise(row, 8 * unit, 0, random)
    for start in random.uniform(0, size[1], random.integers(1, 4)):
        bands[:, int(start) :] += random.normal(0, 1)
    return style.bands * (bands - bands.mean())


def _light(size: tuple[int, int], style: Style, random: np.random.Generator) -> np.ndarray:
    """Smooth light: a ramp in a random direction and slow waves."""
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    angle = random.uniform(0, 2 * np.pi)
    waves = cv2.resize(random.normal(0, 0.6, (5, 3)), size[::-1], interpolation=cv2.INTER_CUBIC)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    return (style.light * (ramp + waves)).astype(np.float32)


def _specks(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Compact dark specks, as dark as any crack: darkness (H, W) in [0, 1)."""
    canvas = _Canvas(size)
    for _ in range(random.integers(9, 22)):
        angles = np.linspace(0, 2 * np.pi, 11)[:-1]
        radius = random.uniform(0.7, 1.9) * random.uniform(0.75, 1.25, (10, 1))
        outline = radius * np.stack([random.uniform(1, 1.5) * np.cos(angles), np.sin(angles)], 1)
        outline = random.uniform(0, size[::-1]) + canvas.unit * outline
        canvas.fill(outline, random.uniform(0.25, 0.66))
    return canvas.average()


def _edge_lines(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Straight dark lines along the border of the part: darkness (H, W) in [0, 1)."""
    canvas = _Canvas(size)
    for _ in range(random.integers(0, 3)):
        upright, far = random.uniform() < 0.8, random.uniform() < 0.5
        span, across = size if upright else size[::-1]
        length = random.uniform(0.12, 0.4) * span
        start = random.uniform(0, span - length)
        offset = random.uniform(0, 2.5) * canvas.unit
        place = across - offset if far else offset
        ends = np.linspace([place, start], [place, start + length], 24)
        strengths = random.uniform(0.35, 0.6) * random.uniform(0.8, 1.1, 23)
        widths = random.uniform(1.2, 2.8) * _taper(23, both_ends=True)
        canvas.draw(ends if upright else ends[:, ::-1], widths, strengths)
    return canvas.average()


def _scratches(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Harmless chalky scratches, bright or a shallow gray: change of gain (H, W)."""
    change = np.zeros(size, np.float32)
    for sign, weakest, strongest in ((1, 0.15, 0.35), (-1, 0.08, 0.15)):
        canvas = _Canvas(size)
        for _ in range(random.integers(0, 3)):
            heading = random.uniform(0, np.pi) + np.linspace(0, random.normal(0, 0.4), 40)
            steps = random.uniform(0.6, 2.2) * np.stack([np.cos(heading), np.sin(heading)], 1)
            path = random.uniform(0, size[::-1]) + canvas.unit * np.cumsum(steps, 0)
            strengths = random.uniform(weakest, strongest) * random.uniform(0.5, 1, 39)
            canvas.draw(path, random.uniform(0.7, 1.6) * _taper(39, both_ends=True), strengths)
        change += sign * canvas.average()
    chalk = 1 + 0.6 * _noise(size, _unit(size), _unit(size), random)
    return change * np.maximum(chalk, 0.2)


def _reflections(size: tuple[int, int], style: Style, random: np.random.Generator) -> np.ndarray:
    """Overexposed patches at the left side, where the part curves away: share of white (H, W)."""
    canvas = _Canvas(size)
    for _ in range(random.binomial(2, style.reflections)):
        length = random.uniform(8, 40) * canvas.unit
        y = np.linspace(0, length, 12) + random.uniform(0, max(size[0] - length, 1))
        x = random.uniform(1.5, 5) * canvas.unit * _taper(12, both_ends=True)
        x *= random.uniform(0.8, 1.1, 12)
        border = np.stack([x, y], 1)
        canvas.fill(np.concatenate([border, [[-9, y[-1]], [-9, y[0]]]]), 1.0)
    return canvas.average()


def _crack(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """How much a crack darkens each pixel: float32 (H, W), 0 off the crack, up to about 0.75."""
    canvas = _Canvas(size)
    depth = random.uniform(0.5, 0.8)
    for path, width in _crack_paths(size, random):
        count = len(path) - 1
        widths = width * _taper(count) * random.uniform(0.8, 1.2, count)
        waves = cv2.resize(random.uniform(0.65, 1.05, (1, 6)), (count, 1))[0]
        canvas.draw(path, widths, depth * waves)
    darkening = canvas.average()
    return np.where(darkening > _FAINTEST * depth, darkening, 0).astype(np.float32)


def _crack_paths(
    size: tuple[int, int], random: np.random.Generator
) -> Iterator[tuple[np.ndarray, float]]:
    """The crack's branches, then its main path, as points (n, 2) in x, y and a width in units.

    A crack mostly enters from the right or left side of the part; some begin inside.
    """
    height, width = size
    unit = _unit(size)
    start = random.choice([width, 0, 0.3 * width, 0.7 * width], p=[0.6, 0.2, 0.1, 0.1])
    heading = random.normal(0, 0.25) + (np.pi if start > width / 2 else 0.0)
    point = np.array([start, random.uniform(0.12, 0.88) * height])
    thickness = random.uniform(1.5, 2.6)
    main = _jagged(point, heading, random.uniform(55, 105), unit, random)
    for _ in range(random.integers(1, 4)):
        fork = main[int(random.uniform(0.1, 0.7) * len(main))]
        turn = random.choice([-1, 1]) * random.uniform(0.6, 1.1)
        branch = _jagged(fork, heading + turn, random.uniform(14, 36), unit, random)
        yield branch, 0.75 * thickness
    yield main, thickness


def _jagged(
    start: np.ndarray, heading: float, length: float, unit: float, random: np.random.Generator
) -> np.ndarray:
    """A path of `length` units that keeps its direction on the whole and none in detail: (n, 2)."""
    step = 1.6
    count = max(int(length / step), 4)
    slow = cv2.resize(random.normal(0, 0.35, (1, 4)), (count, 1), interpolation=cv2.INTER_CUBIC)[0]
    angles = heading + slow + random.normal(0, 0.5, count)
    steps = step * unit * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([start[None], start + np.cumsum(steps, 0)])


class _Canvas:
    """Antialiased shapes in image coordinates (x, y); later shapes cover earlier ones."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.unit = size, _unit(size)
        self.pixels: np.ndarray | None = None

    def draw(self, path: np.ndarray, widths: np.ndarray, strengths: np.ndarray) -> None:
        """A line through the points (n, 2), with n - 1 widths in units and strengths in [0, 1]."""
        corners = self._corners(path)
        pixels = self._touched()
        thickness = np.maximum(np.rint(widths * self.unit * _OVERSAMPLE), 1).astype(int)
        values = np.rint(np.clip(strengths, 0, 1) * 255)
        for begin, end, width, value in zip(
            corners[:-1], corners[1:], thickness.tolist(), values.tolist(), strict=True
        ):
            cv2.line(pixels, begin.tolist(), end.tolist(), value, width)

    def fill(self, outline: np.ndarray, strength: float) -> None:
        """A polygon with the corners (n, 2)."""
        cv2.fillPoly(self._touched(), [self._corners(outline)], round(strength * 255))

    def average(self) -> np.ndarray:
        """The canvas at image size: float32 (H, W) in [0, 1]."""
        if self.pixels is None:
            return np.zeros(self.size, np.float32)
        small = cv2.resize(self.pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), _SOFTNESS * self.unit)

    def _corners(self, points: np.ndarray) -> np.ndarray:
        return np.rint(points * _OVERSAMPLE).astype(np.int32)

    def _touched(self) -> np.ndarray:
        if self.pixels is None:
            self.pixels = np.zeros([side * _OVERSAMPLE for side in self.size], np.uint8)
        return self.pixels


def _noise(
    size: tuple[int, int], sigma_x: float, sigma_y: float, random: np.random.Generator
) -> np.ndarray:
    """Smooth Gaussian noise of unit variance: float32 (H, W)."""
    shrink_x, shrink_y = max(int(sigma_x / 1.5), 1), max(int(sigma_y / 1.5), 1)
    shape = (-(-size[0] // shrink_y), -(-size[1] // shrink_x))
    noise: np.ndarray = random.standard_normal(shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma_x / shrink_x, sigmaY=sigma_y / shrink_y)
    noise = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(size)
    return noise / max(float(noise.std()), 1e-6)


def _taper(count: int, both_ends: bool = False) -> np.ndarray:
    """Widths (count,) from 1 down to about a third at the far end, or at both ends."""
    place = np.linspace(-1 if both_ends else 0, 1, count)
    return 1 - 0.65 * np.abs(place) ** 3


def _unit(size: tuple[int, int]) -> float:
    """Pixels in one unit of length."""
    return min(size) / SMALLEST_SIDE


def _random(stream: int, seed: int, item: int, part: int) -> np.random.Generator:
    """A generator that depends on these four numbers alone."""
    return np.random.default_rng([seed, item, part, stream])


def _save(path: Path, image: np.ndarray, *options: int) -> None:
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


def _check(items: int, size: tuple[int, int], seed: int, parts: int, defective_parts: int) -> None:
    if len(size) != 2 or min(size) < SMALLEST_SIDE:
        raise DataError(
            f"The size of generated surfaces is {size}; it must be (height, width), each at least"
            f" {SMALLEST_SIDE} pixels."
        )
    if items < 1 or parts < 1 or seed < 0:
        raise DataError(
            f"Generated surfaces need items >= 1, parts >= 1 and seed >= 0; found items={items},"
            f" parts={parts}, seed={seed}."
        )
    if not 0 <= defective_parts <= parts:
        raise DataError(
            f"defective_parts is {defective_parts}; it must lie between 0 and parts = {parts}."
        )


def _is_complete(root: Path, record: GeneratedSet) -> bool:
    """Whether `root` holds exactly the set of `record`; False where it may be written anew."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = storage.read_record(root / MARKER, GeneratedSet)
    except (RunError, OSError):
        found = None
    if found is None or found.model_copy(update={"version": VERSION}) != record:
        what = found.model_dump_json() if found else f"no {MARKER}"
        raise DataError(
            f"{root} already holds something else than the requested surfaces ({what}); delete it"
            " or choose another folder."
        )
    images = sum(1 for _ in root.glob("gen*/Part*.jpg"))
    masks = sum(1 for _ in root.glob("gen*/Part*_label.bmp"))
    return found == record and images == masks == record.items * record.parts
