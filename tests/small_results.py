"""Six judged surfaces of two folds, and a judge that needs no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ksdd_lib.deploy.detection import Verdict, as_pixels
from ksdd_lib.evaluation.predictions import Prediction


def row(name: str, fold: int, defective: bool, score: float, threshold: float) -> Prediction:
    item = name.partition("/")[0]
    flagged = score > threshold
    return Prediction(name, item, fold, 0, defective, score, score, threshold, flagged)


ROWS = [
    row("a/1", 0, True, 3.0, 1.0),
    row("a/2", 0, True, 0.5, 1.0),  # missed by half a logit
    row("a/3", 0, False, 1.5, 1.0),  # a false alarm by half a logit
    row("b/1", 1, False, -4.0, -2.0),
    row("b/2", 1, True, -1.0, -2.0),
    row("b/3", 1, False, -2.4, -2.0),
]


@dataclass(frozen=True)
class Judge:
    """Judges by the mean gray level, for want of a network."""

    threshold: float = 100.0

    def judge(self, image: np.ndarray | Path) -> Verdict:
        pixels = as_pixels(image)
        if pixels.std() == 0:
            return Verdict("not a surface")
        label = "defective" if pixels.mean() > self.threshold else "good"
        return Verdict(label, float(pixels.mean()), np.zeros(pixels.shape, np.float32))

    def doubt(self, shape: tuple[int, int]) -> str:
        return "it is wide" if shape[1] > shape[0] else ""
