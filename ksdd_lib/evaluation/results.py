"""The results that a run folder stores, read as a whole and checked to belong together.

metrics.json names its data, settings and weights. They are compared with those of the run folder,
so that a file of another run or an edited number is found.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from ksdd_lib import storage
from ksdd_lib.data.folds import FoldsRecord
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.classes import class_scores
from ksdd_lib.evaluation.predictions import HELD_OUT, Prediction, read_masks, read_predictions
from ksdd_lib.evaluation.summary import FLAG_RULE, MadeFrom, Summary, conclude
from ksdd_lib.formatting import listed
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.runs.prepare import DataRecord
from ksdd_lib.runs.run import Run, Timing
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import BEFORE, from_json, to_json
from ksdd_lib.training import checkpoint

FREE = ("fold", "data", "checkpoint_steps")
"""Settings that may differ between results of one recipe. Folds are trained one by one, the data is
known by its fingerprint, and the steps between checkpoints change no weight."""

Environment = dict[str, str | int]
"""What environment.json holds: a fact's name -> the fact."""


@dataclass(frozen=True)
class Results:
    """The results of a run, checked to belong together."""

    folder: Path
    rows: list[Prediction]  # of predictions.csv
    masks: Mapping[str, np.ndarray] | None  # image -> map (H/8, W/8); None where not stored
    summary: Summary  # of metrics.json; what follows is of files that are named as it is
    settings: Settings
    data: DataRecord
    folds: FoldsRecord
    environment: Environment
    timing: list[Timing]


def load_results(folder: Path) -> Results:
    """Read the stored results of a run.

    Raises RunError where a file is missing or damaged, where metrics.json or masks.npz is not of
    this predictions.csv, or where they are of other data, settings or weights than the run's.
    """
    rows = read_predictions(folder / "predictions.csv")
    summary = storage.read_record(folder / "metrics.json", Summary)
    if storage.sha256(folder / "predictions.csv") != summary.predictions_sha256:
        raise RunError(
            "metrics.json was not made from this predictions.csv: one of them was edited, or comes "
            "from another run. Evaluate again."
        )
    if summary.made_from is None:
        raise RunError("metrics.json does not say what it was made from. Evaluate again.")
    data = storage.read_record(folder / "data.json", DataRecord)
    settings = from_json(storage.read_record(folder / "settings.json", dict[str, Value]))
    weights = {
        fold: sha256
        for stage in method_of(settings).stages[-1:]
        for fold in summary.made_from.weights
        if (sha256 := checkpoint.newest_sha256(folder / f"fold{fold}", stage.name))
    }
    if lines := _differences(summary.made_from, made_from(settings, data.fingerprint, weights)):
        raise RunError(f"metrics.json is not of this run: {lines}. Evaluate again.")
    folds = storage.read_record(folder / "folds.json", FoldsRecord)
    held = read_predictions(folder / HELD_OUT) if summary.held_sha256 else []
    require_true(summary, rows, {fold.fold: fold.train_items for fold in folds.folds}, held)
    environment = folder / "environment.json"
    return Results(
        folder=folder,
        rows=rows,
        masks=_masks(folder / "masks.npz", rows, summary),
        summary=summary,
        settings=settings,
        data=data,
        folds=folds,
        environment=storage.read_record(environment, Environment) if environment.exists() else {},
        timing=Run(folder, settings).timing(),
    )


def made_from(settings: Settings, fingerprint: str, weights: Mapping[str, str]) -> MadeFrom:
    """What results are made from, with the data by its fingerprint."""
    kept: dict[str, JsonValue] = {k: v for k, v in to_json(settings).items() if k not in FREE}
    return MadeFrom(data=fingerprint, settings=kept, weights=dict(weights))


def rule_of(summary: Summary) -> str:
    """Which of `BEST` the thresholds come from: that of all runs from before there was a choice."""
    stored = summary.made_from.settings if summary.made_from else {}
    return str((BEFORE | stored)["threshold"])


def require_true(
    summary: Summary,
    rows: Sequence[Prediction],
    train_items: Mapping[int, Collection[str]],
    held: Sequence[Prediction] = (),
) -> None:
    """Raise RunError where a number, threshold or verdict is not as `conclude` has it."""
    by_class = summary.flag_rule != FLAG_RULE
    share = summary.false_alarms[0].wanted if summary.false_alarms else None
    rule = rule_of(summary)
    chosen = summary.protocol, summary.seed, train_items, by_class, share, rule
    judged, again = conclude(rows, *chosen, held)
    if judged != list(rows):
        raise RunError(
            "A threshold or verdict does not follow from the scores: predictions.csv was edited "
            "or mixed from several runs. Evaluate again."
        )
    if rows[0].classes:
        again = again.model_copy(
            update={"class_scores": class_scores(judged, train_items, rule, held)}
        )
    if lines := _differences(summary, again):
        raise RunError(
            f"metrics.json was not made from this predictions.csv: {lines}. Evaluate again."
        )


def _differences(stored: storage.Record, here: storage.Record) -> str:
    """ "pooled fn: stored 1, here 2" for each value that both have and that differs, or "".

    Intervals of AP are not compared: another numpy may draw otherwise. Nor are sentences that say
    where thresholds come from: another version may say it otherwise.
    """
    lines = _compared(stored.model_dump(mode="json"), here.model_dump(mode="json"))
    return listed([line for line in lines if "intervals ap" not in line], 5, "; ")


def _compared(stored: JsonValue, here: JsonValue, name: str = "") -> Iterator[str]:
    """A line for each value that differs, by the keys that lead to it."""
    if isinstance(stored, dict) and isinstance(here, dict):
        for key in [key for key in stored if key in here and key != "threshold_rule"]:
            yield from _compared(stored[key], here[key], f"{name} {key}".strip())
    elif isinstance(stored, list) and isinstance(here, list) and len(stored) == len(here):
        for number, pair in enumerate(zip(stored, here, strict=True)):
            yield from _compared(*pair, f"{name} {number}")
    elif stored != here and not (
        isinstance(stored, float)
        and isinstance(here, float)
        and math.isclose(stored, here, rel_tol=1e-9, abs_tol=1e-12)  # of another scipy
    ):
        yield f"{name}: stored {stored!r}, here {here!r}"


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
