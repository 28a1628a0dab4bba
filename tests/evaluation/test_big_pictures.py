"""A narrow scratch on a photograph of 12 million pixels is found in tiles, in little memory.

As a program, `python tests/evaluation/test_big_pictures.py FOLDER` trains on generated pictures,
judges a photograph with a scratch and one without, and prints what it found as JSON.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SMALL, BIG = (480, 640), (3000, 4000)
WIDTH = 12
"""Of the scratch, in pixels. The harmless specks are at most 5 wide: specks as wide as the scratch
were not told from it after a training as short as this one."""


def photograph(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A textured surface with shading and dark specks, gray float32 (H, W)."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(shape, np.float32)
    image = random.uniform(140, 170) + 25 * cv2.GaussianBlur(noise, (0, 0), 1.5)
    image += 15 * np.linspace(-1, 1, shape[1], dtype=np.float32)
    for y, x in random.uniform((0, 0), shape, (image.size // 10_000, 2)).astype(int).tolist():
        cv2.circle(image, (x, y), int(random.integers(1, 3)), float(random.uniform(50, 90)), -1)
    return image


def scratched(image: np.ndarray, seed: int, width: int = WIDTH) -> np.ndarray:
    """Draws a dark line of 150 to 300 pixels at any place and angle; returns its mask, uint8."""
    random, (height, wide) = np.random.default_rng(seed), image.shape
    half = random.uniform(75, 150) * np.array([np.cos(a := random.uniform(0, np.pi)), np.sin(a)])
    middle = random.uniform((170, 170), (wide - 170, height - 170))
    mask = np.zeros(image.shape, np.uint8)
    ends = [tuple(end) for end in np.array([middle - half, middle + half]).astype(int).tolist()]
    cv2.line(mask, ends[0], ends[1], 255, width)
    image -= random.uniform(50, 80) * cv2.GaussianBlur(mask, (3, 3), 0) / 255
    return mask


def as_bytes(image: np.ndarray) -> np.ndarray:
    return image.clip(0, 255).astype(np.uint8)


def main(folder: Path) -> None:
    """The program above."""
    from ksdd_lib.deploy import detection
    from ksdd_lib.pipeline import run_series
    from ksdd_lib.runs.open import open_run
    from ksdd_lib.runs.prepare import open_data

    for number in range(24):
        item = folder / "data" / f"part{number:02}"
        item.mkdir(parents=True, exist_ok=True)
        for part in range(2):
            image = photograph(SMALL, 2 * number + part)
            width = int(np.random.default_rng(number).integers(8, 15))
            mask = scratched(image, number, width) if part else np.zeros(SMALL, np.uint8)
            cv2.imwrite(str(item / f"{part}.png"), as_bytes(image))
            cv2.imwrite(str(item / f"{part}_label.png"), mask)
    chosen = {"tile_size": "192x192", "fold": "0", "twins": "identical", "average_flips": False}
    steps = {"segmentation_steps": 150, "decision_steps": 60}
    given = {"preset": "cpu", "data": str(folder / "data"), **chosen, **steps}
    run = open_run(folder / "run", given)
    run_series(run)
    detector = detection.of_run(run, open_data(run), 0)
    told = {}
    for name in ("scratched", "good"):
        image = photograph(BIG, 1000 + len(told))
        mask = scratched(image, 1000) if name == "scratched" else np.zeros(BIG, np.uint8)
        found = detector.judge(as_bytes(image))
        boxes = [[one.left, one.top, one.width, one.height] for one in found.defects]
        told[name] = {"label": found.label, "score": found.score, "boxes": boxes}
        told[name] |= {"scratch": cv2.boundingRect(mask)}
    told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(told))


@pytest.mark.slow
@pytest.mark.fault(71)
def test_a_scratch_12_pixels_wide_is_found_on_12_million_in_under_3_gigabytes(tmp_path: Path):
    home = {"KSDD_HOME": str(tmp_path / "home")}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | home)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["good"]["label"] == "good", told
    assert told["scratched"]["label"] == "defective", told
    left, top, width, height = told["scratched"]["scratch"]
    x, y, wide, high = told["scratched"]["boxes"][0]
    assert x < left + width and left < x + wide and y < top + height and top < y + high, told
    assert told["peak"] < 3e9, told


if __name__ == "__main__":
    main(Path(sys.argv[1]))
