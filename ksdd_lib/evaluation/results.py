"""What a run folder stores about its results, read as a whole and checked to belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import provenance
from ksdd_lib.evaluation.predictions import Prediction, read_predictions
from ksdd_lib.evaluation.scoring import read_masks
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import from_json


@dataclass(frozen=True)
class Results:
    """What a run folder stores about its results, checked to belong together."""

    folder: Path
    rows: list[Prediction]
    masks: Mapping[str, np.ndarray] | None
    metrics: Summary
    settings: Settings
    data: Mapping[str, Any]
    folds: Mapping[str, Any]
    environment: Mapping[str, Any]
    timing: Sequence[Mapping[str, Any]]


def load_results(run_folder: Path) -> Results:
    """Read the stored results of a run.

    Raises:
        RunError: a file is missing or damaged, metrics.json or masks.npz is not of this
            predictions.csv, or they are of other data, settings or weights than the run's.
    """
    folder = Path(run_folder)
    rows = read_predictions(folder / "predictions.csv")
    summary = storage.read_record(folder / "metrics.json", Summary)
    if storage.sha256(folder / "predictions.csv") != summary.predictions_sha256:
        raise RunError(
            "metrics.json was not made from this predictions.csv: one of them was edited, or comes "
            "from another run. Evaluate again."
        )
    folds = storage.read_json(folder / "folds.json")
    if summary.made_from is None:
        raise RunError("metrics.json does not say what it was made from. Evaluate again.")
    provenance.require_own(folder, summary.made_from)
    train_items = {fold["fold"]: fold["train_items"] for fold in folds["folds"]}
    provenance.require_true(summary, rows, train_items)
    masks = read_masks(folder / "masks.npz") if (folder / "masks.npz").exists() else None
    if masks is not None and list(masks) != [row.image for row in rows]:
        raise RunError("masks.npz holds other images than predictions.csv. Evaluate again.")
    if masks is not None and summary.masks_sha256 != storage.sha256(folder / "masks.npz"):
        raise RunError("masks.npz was edited, or is of another run. Evaluate again.")

    def stored(name: str, default: Any) -> Any:
        return storage.read_json(folder / name) if (folder / name).exists() else default

    return Results(
        folder=folder,
        rows=rows,
        masks=masks,
        metrics=summary,
        settings=from_json(storage.read_json(folder / "settings.json")),
        data=storage.read_json(folder / "data.json"),
        folds=folds,
        environment=stored("environment.json", {}),
        timing=stored("timing.json", []),
    )
