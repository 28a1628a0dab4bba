"""Rows of predictions.csv for tests, as three folds of a run would score them."""

import numpy as np

from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.thresholds import apply_thresholds, operating_thresholds


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
