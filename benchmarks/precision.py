"""What reduced precision changes: a trained run's test images in float32 and in other arithmetic.

    python benchmarks/precision.py RUN_FOLDER [--precision bfloat16 ...] [--out FILE]

Every image is scored once in each, as the run itself judges. Writes JSON and prints the same as a
Markdown table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_report import markdown_table, short

from ksdd_lib import hardware, storage
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.scoring import score_images
from ksdd_lib.methods.stage_training import trained_judge
from ksdd_lib.runs import prepare
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run

ROOT = Path(__file__).resolve().parent.parent


def relative_error(masks: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Mask logits (N, h, w) twice -> each image's relative L2 error (N,)."""
    difference = np.sqrt(((masks - exact) ** 2).sum((1, 2)))
    return difference / np.sqrt((exact**2).sum((1, 2)))


def scored(run: Run, data: DataSet, fold: int, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and maps of a fold's test images in this precision, judged as the run judges."""
    judge = trained_judge(Run(run.folder, replace(run.settings, precision=precision)), data, fold)
    return score_images(judge, data.folds[fold].test, run.settings.size)


def compare(run: Run, data: DataSet, fold: int, precisions: Sequence[str]) -> list[dict]:
    """A fold's test images in each precision beside float32, a row each."""
    samples = data.folds[fold].test
    labels = [sample.is_defective for sample in samples]
    exact_scores, exact = scored(run, data, fold, "float32")
    exact_ap = metrics.average_precision(labels, exact_scores)
    rows = []
    for precision in precisions:
        scores, masks = scored(run, data, fold, precision)
        errors = relative_error(masks, exact)
        rows.append(
            {
                "fold": fold,
                "images": len(samples),
                "arithmetic": precision,
                "mask error, mean": float(errors.mean()),
                "mask error, worst image": float(errors.max()),
                "AP in float32": exact_ap,
                "AP": metrics.average_precision(labels, scores),
                "score, largest difference": float(np.abs(scores - exact_scores).max()),
            }
        )
    return rows


def reduced() -> list[str]:
    """The reduced precisions that this machine computes in."""
    if not torch.cuda.is_available():
        return ["bfloat16"]
    return ["float16", "bfloat16"] if torch.cuda.is_bf16_supported(False) else ["float16"]


def main(words: Sequence[str] | None = None) -> None:
    """Compare, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", nargs="+", default=reduced())
    parser.add_argument("--out", type=Path, help="default: assets/results/precision-<machine>.json")
    options = parser.parse_args(words)
    run = open_run(options.run, {})
    data = prepare.open_data(run)
    rows: list[dict[str, Any]] = []
    for fold in run.settings.fold_numbers:
        rows += compare(run, data, fold, options.precision)
    settings = run.settings
    report = {
        "environment": hardware.environment() | {"command": "python benchmarks/precision.py RUN"},
        "run": f"{settings.preset}, {settings.folds}, seed {settings.seed}, {settings.image_size}",
        "cases": rows,
    }
    out = options.out or ROOT / f"assets/results/precision-{hardware.slug()}.json"
    storage.write_json(out, report)
    cells = [{name: short(value) for name, value in row.items()} for row in rows]
    print(markdown_table(cells))


if __name__ == "__main__":
    main()
