"""What a disturbed camera costs: a published model on its own test part, at its own threshold.

    python benchmarks/robustness.py --data KolektorSDD.zip [--weights MODEL]

Every test surface is judged as it is, then disturbed in each way. The same command goes on after a
stop. Writes JSON with every score, and prints a table.
"""

import argparse
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from markdown_report import markdown_table, short

from ksdd_lib import hardware, storage
from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.data.sources import obtain
from ksdd_lib.data.survey import find_samples
from ksdd_lib.deploy import detection, weights
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import metrics
from ksdd_lib.formatting import listed
from ksdd_lib.runs.open import home

ROOT = Path(__file__).resolve().parent.parent

Chance = np.random.Generator
Picture = np.ndarray
"""Gray levels, uint8 (H, W)."""


class Disturbance(NamedTuple):
    """One way to disturb a picture; what moves it moves its mask alike."""

    kind: str
    name: str
    change: Callable[[Picture, Chance], Picture]
    moves: bool = False


def jpeg(image: Picture, chance: Chance, quality: int) -> Picture:
    """Stored as JPEG of this quality."""
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)


def gray(values: np.ndarray) -> Picture:
    """Gray levels of numbers: rounded, and cut where there are none."""
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def brightness(image: Picture, chance: Chance, factor: float) -> Picture:
    """Every gray level times a factor."""
    return gray(image * factor)


def contrast(image: Picture, chance: Chance, factor: float) -> Picture:
    """Every distance from the mean gray level times a factor."""
    return gray((image - image.mean()) * factor + image.mean())


def blur(image: Picture, chance: Chance, sigma: float) -> Picture:
    """Out of focus: a Gaussian of so many pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion(image: Picture, chance: Chance, length: int) -> Picture:
    """Moved along its longer side by so many pixels while it was taken."""
    kernel = np.full((length, 1) if image.shape[0] > image.shape[1] else (1, length), 1 / length)
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)


def noise(image: Picture, chance: Chance, deviation: float) -> Picture:
    """Gaussian noise of so many gray levels."""
    return gray(image + chance.normal(0, deviation, image.shape))


def vignette(image: Picture, chance: Chance, corner: float) -> Picture:
    """Darker towards the edges, to this share of the light in a corner."""
    y, x = (np.linspace(-1, 1, n) ** 2 for n in image.shape)
    return gray(image * (1 - (1 - corner) * (y[:, None] + x) / 2))


def dead_line(image: Picture, chance: Chance, level: int) -> Picture:
    """One line of the sensor gives one level, along the longer side, at a place by chance."""
    image = image.copy()
    along = image if image.shape[0] > image.shape[1] else image.T
    along[:, chance.integers(along.shape[1])] = level
    return image


def dust(image: Picture, chance: Chance, grains: int) -> Picture:
    """Dark grains, 1 to 3 pixels in radius, at places by chance."""
    image = image.copy()
    for _ in range(grains):
        y, x = map(int, chance.integers(image.shape))
        cv2.circle(image, (x, y), int(chance.integers(1, 4)), int(image[y, x]) // 3, -1)
    return image


def moved(
    image: Picture, chance: Chance, turn: float = 0, scale: float = 1, shift: float = 0
) -> Picture:
    """Turned (degrees) and scaled about the middle, shifted (share of each side) to a corner.

    What comes in at the edges mirrors the picture.
    """
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, scale)
    matrix[:, 2] += (shift * width, shift * height)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(
        image, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101
    )


def half_size(image: Picture, chance: Chance) -> Picture:
    """A camera of half as many pixels a side."""
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _each(
    change: Callable[..., Picture], argument: str, values: dict[str, float], moves: bool = False
) -> list[Disturbance]:
    kind = change.__name__.replace("_", " ") if change is not moved else argument
    return [
        Disturbance(kind, f"{kind} {name}".strip(), partial(change, **{argument: value}), moves)
        for name, value in values.items()
    ]


SHARES = {"-40 %": 0.6, "-20 %": 0.8, "-10 %": 0.9, "+10 %": 1.1, "+20 %": 1.2, "+40 %": 1.4}

DISTURBANCES = [
    Disturbance("none", "as it is", lambda image, chance: image),
    *_each(jpeg, "quality", {"90": 90, "60": 60, "30": 30}),
    *_each(brightness, "factor", SHARES),
    *_each(contrast, "factor", SHARES),
    *_each(blur, "sigma", {"1 px": 1, "2 px": 2, "4 px": 4}),
    *_each(motion, "length", {"9 px": 9}),
    *_each(noise, "deviation", {"5 levels": 5, "10 levels": 10, "20 levels": 20}),
    *_each(moved, "turn", {"2 degrees": 2, "5 degrees": 5}, moves=True),
    *_each(moved, "shift", {"5 %": 0.05}, moves=True),
    *_each(moved, "scale", {"0.8": 0.8, "0.9": 0.9, "1.1": 1.1, "1.25": 1.25}, moves=True),
    Disturbance("half size", "half size", half_size),
    *_each(vignette, "corner", {"to 50 %": 0.5}),
    *_each(dead_line, "level", {"black": 0, "white": 255}),
    *_each(dust, "grains", {"20 grains": 20}),
]


def disturbed(sample: Sample, how: Disturbance) -> tuple[Picture, bool | None]:
    """A surface disturbed, and whether it shows a defect: None where that was moved out of it.

    Chance is that of the surface's name, so that every run and every model sees the same.
    """
    seed = zlib.crc32(sample.name.encode())
    image = how.change(read_image(sample), np.random.default_rng(seed))
    if not (sample.is_defective and how.moves):
        return image, sample.is_defective
    shown = np.where(read_mask(sample), 255, 0).astype(np.uint8)
    mask = how.change(shown, np.random.default_rng(seed))
    return image, True if (mask > 127).any() else None


def judged(
    detector: detection.Detector, samples: Sequence[Sample], how: Disturbance
) -> dict[str, float]:
    """Name of each surface that still shows what its label says -> its score."""
    scores = {}
    for sample in samples:
        image, label = disturbed(sample, how)
        if label is not None:
            score = detector.judge(image).score
            scores[sample.name] = float("nan") if score is None else round(score, 4)
    return scores


def summed_up(
    scores: dict[str, float], defective: Sequence[str], threshold: float
) -> dict[str, Any]:
    """AP and errors of these scores, and each surface on the wrong side, the furthest first."""
    labels = [name in defective for name in scores]
    margin = {name: score - threshold for name, score in scores.items()}
    missed = [name for name in scores if name in defective and margin[name] <= 0]
    flagged = [name for name in scores if name not in defective and margin[name] > 0]
    return {
        "surfaces": len(scores),
        "defective": sum(labels),
        "ap": metrics.average_precision(labels, list(scores.values())),
        "missed": sorted(missed, key=margin.__getitem__),
        "false_alarms": sorted(flagged, key=lambda name: -margin[name]),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Judge, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, help="default: the published model")
    parser.add_argument("--out", type=Path, default=ROOT / "assets/results/robustness.json")
    options = parser.parse_args(words)
    path = options.weights or weights.published()
    detector, card = detection.load(path), weights.load(path)[1]
    held_out = set(card.never_trained_on)
    root = obtain(options.data, home()).root
    samples = [sample for sample in find_samples(root) if sample.item in held_out]
    if not samples:
        raise RunError("None of these parts was kept from the model's training: nothing to test.")
    report: dict[str, Any] = {
        "weights": card.sha256,
        "threshold": card.threshold,
        "environment": hardware.environment() | {"command": "python benchmarks/robustness.py"},
        "defective": [sample.name for sample in samples if sample.is_defective],
        "scores": {},
    }
    if options.out.exists():
        stored = storage.read_json(options.out)
        report["scores"] = stored["scores"] if stored["weights"] == card.sha256 else {}
    report["found"] = {}
    for how in DISTURBANCES:
        if how.name not in report["scores"]:
            report["scores"][how.name] = judged(detector, samples, how)
        scores = report["scores"][how.name]
        report["found"][how.name] = summed_up(scores, report["defective"], card.threshold)
        storage.write_json(options.out, report)
    rows = [{"disturbance": name} | _short(one) for name, one in report["found"].items()]
    print(markdown_table(rows))


def _short(found: dict[str, Any]) -> dict[str, str]:
    return {
        name: listed(value, 3) if isinstance(value, list) else short(value)
        for name, value in found.items()
    }


if __name__ == "__main__":
    main()
