"""A tiny data set and run for tests that train.

As a program, `python tests/tiny_training.py RUN_FOLDER DATA_FOLDER LOG [STAGE STEP SIGNAL]` trains
both stages of fold 0, or goes on with them: what a test starts in a new process. It writes what
each step shows to the log, and after a step of a stage sends itself a signal.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from small_data import data_record

from ksdd_lib.data.dataset import fingerprint
from ksdd_lib.data.folds import Fold
from ksdd_lib.data.survey import find_samples
from ksdd_lib.data.synthetic import generate
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.training.batches import Order
from ksdd_lib.training.loop import Progress

TINY = {
    "preset": "demo",
    "image_size": "128x128",
    "fold": "0",
    "segmentation_batch_size": 1,
    "decision_batch_size": 2,
    "flips": False,
    "average_flips": False,
}
"""Settings under which a step takes less than a second."""


def tiny_data(root: Path) -> DataSet:
    """Three items of a good and a defective surface each; fold k tests item k."""
    samples = find_samples(generate(root, items=3, size=(128, 128), parts=2, defective_parts=1))
    folds = []
    for number, tested in enumerate(sorted({sample.item for sample in samples})):
        train = tuple(sample for sample in samples if sample.item != tested)
        test = tuple(sample for sample in samples if sample.item == tested)
        folds.append(Fold(number, train, test, "clean", twins=()))
    return DataSet(
        root, tuple(samples), tuple(folds), data_record(fingerprint=fingerprint(samples))
    )


def tiny_run(folder: Path, **settings: Any) -> Run:
    """A run folder with the settings of `TINY`, changed by `settings`."""
    return open_run(folder, TINY | settings)


def main(folder: str, data_folder: str, log: str, *stop: str) -> None:
    """The program above."""
    two_stage.FEATURES = 16  # instead of 1024
    torch.set_num_threads(1)  # the threads decide the order of sums, and so the last bits
    plain = Order.shown

    def shown(order: Order, step: int) -> list:
        with open(log, "a") as file:
            file.write(f"{order.stage} {step} {plain(order, step)}\n")
        return plain(order, step)

    def watch(progress: Progress) -> None:
        if stop and (progress.stage, progress.step) == (stop[0], int(stop[1])):
            os.kill(os.getpid(), signal.Signals[stop[2]])

    Order.shown = shown
    data, run = tiny_data(Path(data_folder)), open_run(Path(folder), {})
    train_stage(run, data, 0, "segmentation", watch)
    train_stage(run, data, 0, "decision", watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
