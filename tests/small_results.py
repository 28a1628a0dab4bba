"""Small results, a judge that needs no network, and what a drawn figure shows."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksdd_lib.deploy.detection import Verdict, as_pixels
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.thresholds import apply_thresholds, operating_thresholds
from ksdd_lib.reporting import plots


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
        mask = np.full(pixels.shape, float(label == "defective"), np.float32)
        return Verdict(label, float(pixels.mean()), mask, threshold=self.threshold)

    def doubt(self, shape: tuple[int, int]) -> str:
        return "it is wide" if shape[1] > shape[0] else ""


def make_rows(count=60, folds=3, seed=0, separation=2.0, with_defects=True, rename=str):
    """Rows of `count` surfaces, 4 an item, every item's last one defective.

    `rename` turns a name as "gen03/Part2" into another.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        item, part = divmod(index, 4)
        is_defective = with_defects and part == 3
        score = float(generator.normal(separation if is_defective else -separation, 1.5))
        image = rename(f"gen{item:02}/Part{part}")
        rows.append(
            Prediction(
                image=image,
                item=image.partition("/")[0],
                fold=item % folds,
                seed=seed,
                is_defective=is_defective,
                score=score,
                map_score=score + float(generator.normal()),
            )
        )
    return rows


def train_items(rows, folds=3):
    return {k: {row.item for row in rows if row.fold != k} for k in range(folds)}


def judged(rows, items):
    return apply_thresholds(rows, operating_thresholds(rows, items))


def pixels(figure: Figure) -> np.ndarray:
    """The figure as it is stored: uint8 (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(plots.png(figure), np.uint8), cv2.IMREAD_COLOR)


def texts(ax: Axes) -> str:
    """The texts in the axes and in their legend, in one line."""
    legend = ax.get_legend()
    shown = [*ax.texts, *(legend.get_texts() if legend else [])]
    return " | ".join(text.get_text() for text in shown)
