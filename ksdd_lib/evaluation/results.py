"""What a run folder stores about its results, read as a whole and checked to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.folds import FoldsRecord
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import provenance
from ksdd_lib.evaluation.predictions import Prediction, read_predictions
from ksdd_lib.evaluation.scoring import read_masks
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.runs.prepare import DataRecord
from ksdd_lib.runs.run import Run, Timing
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import from_json


@dataclass(frozen=True)
class Results:
    """The results of a run, checked to belong together.

    Attributes:
        rows: of predictions.csv.
        masks: image -> its map (H/8, W/8); None where they are not stored.
        metrics: of metrics.json; settings, data, folds, environment and timing likewise.
    """

    folder: Path
    rows: list[Prediction]
    masks: Mapping[str, np.ndarray] | None
    metrics: Summary
    settings: Settings
    data: DataRecord
    folds: FoldsRecord
    environment: Mapping[str, str | int]
    timing: list[Timing]


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
    if summary.made_from is None:
        raise RunError("metrics.json does not say what it was made from. Evaluate again.")
    provenance.require_own(folder, summary.made_from)
    folds = storage.read_record(folder / "folds.json", FoldsRecord)
    train_items = {fold.fold: fold.train_items for fold in folds.folds}
    provenance.require_true(summary, rows, train_items)
    environment = folder / "environment.json"
    settings = from_json(storage.read_json(folder / "settings.json"))
    return Results(
        folder=folder,
        rows=rows,
        masks=_masks(folder / "masks.npz", rows, summary),
        metrics=summary,
        settings=settings,
        data=storage.read_record(folder / "data.json", DataRecord),
        folds=folds,
        environment=storage.read_json(environment) if environment.exists() else {},
        timing=Run(folder, settings).timing(),
    )


def _masks(path: Path, rows: list[Prediction], summary: Summary) -> dict[str, np.ndarray] | None:
    """The maps of these rows; None where the file is absent."""
    if not path.exists():
        return None
    masks = read_masks(path)
    if list(masks) != [row.image for row in rows]:
        raise RunError("masks.npz holds other images than predictions.csv. Evaluate again.")
    if summary.masks_sha256 != storage.sha256(path):
        raise RunError("masks.npz was edited, or is of another run. Evaluate again.")
    return masks
