"""Score each test image once, store scores and masks; everything after reads those files.

A fold's scores are stored as soon as it is scored, so that a lost runtime scores no fold twice.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from ksdd_lib import machine, storage
from ksdd_lib.data.dataset import Sample, read_image
from ksdd_lib.data.folds import Fold
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import (
    Prediction,
    read_masks,
    read_predictions,
    write_masks,
    write_predictions,
)
from ksdd_lib.evaluation.results import made_from
from ksdd_lib.evaluation.summary import FoldScores, Ranking, Summary, conclude, ranking
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import Judge
from ksdd_lib.methods.stages import require_trained, trained_judge, weights_sha256
from ksdd_lib.runs.lock import alone, claim
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.training.batches import load_surfaces
from ksdd_lib.training.memory import explain_memory

Source = dict[str, str | bool]
"""What a fold's scores were made from: weights, data, and the settings of `Method.judged_by`."""

SIGN_OF_LIFE = 30.0
"""Seconds between signs that this process is at work on the run, where scoring takes long."""


@alone
@explain_memory
def evaluate(
    run: Run,
    data: DataSet,
    watch: Callable[[int, int, int], None] | None = None,
    saved: Callable[[], None] | None = None,
) -> Summary:
    """Score the test part of every trained fold; write predictions.csv, masks.npz, metrics.json.

    Args:
        watch: called with (fold, images done, images in all).
        saved: called after each fold, for a copy elsewhere.

    Raises:
        RunError: a fold is not trained yet, and the text names the notebook to run first. Or
            another process works in the folder.
    """
    run.require("data")
    require_trained(run)
    rows: list[Prediction] = []
    masks: list[np.ndarray] = []
    for fold in run.settings.fold_numbers:
        fold_rows, fold_masks = _scores_of_fold(run, data, fold, watch)
        rows += fold_rows
        masks.append(fold_masks)
        if saved:
            saved()
    # By the items, as folds.json has them: few defective images may leave one without any.
    tested = {f.number: {s.item for s in f.test} for f in data.folds}
    train_items = {k: set().union(*tested.values()) - items for k, items in tested.items()}
    write_masks(run.folder / "masks.npz", [row.image for row in rows], np.concatenate(masks))
    rows, summary = conclude(rows, run.settings.folds, run.settings.seed, train_items)
    write_predictions(run.folder / "predictions.csv", rows)
    folds = run.settings.fold_numbers
    tested_samples = [sample for fold in folds for sample in data.folds[fold].test]
    scores = {str(fold): run.fold_folder(fold) / "scores.json" for fold in folds}
    weights = {fold: storage.read_json(path)["weights"] for fold, path in scores.items()}
    defects = {str(fold): _defects(data.folds[fold]) for fold in folds}
    summary = summary.model_copy(
        update={
            "darkest_pixel": darkest_pixel(tested_samples),
            "made_from": made_from(run.settings, data.fingerprint, weights),
            "masks_sha256": storage.sha256(run.folder / "masks.npz"),
            "trained_defects": defects if run.settings.defective_images else None,
        }
    )
    storage.write_record(run.folder / "metrics.json", summary)
    storage.write_json(run.folder / "environment.json", _environment(run))
    return summary


def _defects(fold: Fold) -> list[str]:
    """The names of the defective images that a fold is trained on."""
    return [sample.name for sample in fold.train if sample.is_defective]


def score_images(
    judge: Judge,
    samples: Sequence[Sample],
    size: tuple[int, int],
    watch: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Judge each image once.

    Args:
        size: of the images as they are judged, (H, W) in pixels.
        watch: called with (images done, images in all).

    Returns:
        Scores (N,) float64 and maps (N, H/8, W/8) float32.
    """
    where = judge.device
    surfaces = load_surfaces(samples, size, "fine").to(where)
    scores, maps = [], []
    with machine.reused_memory(where):
        for row in range(len(samples)):
            score, values = judge.judge(surfaces.images[row : row + 1])
            scores.append(score)
            maps.append(values)
            if watch:
                watch(row + 1, len(samples))
    return (
        torch.stack(scores).double().cpu().numpy(),
        torch.stack(maps).float().cpu().numpy(),
    )


def darkest_pixel(samples: Sequence[Sample]) -> Ranking:
    """AP and ROC AUC of the simplest rule, "the darker its darkest pixel, the more suspicious".

    It needs no training; what a network gains is what it scores above this.
    """
    labels = [sample.is_defective for sample in samples]
    return ranking(labels, [-float(read_image(sample).min()) for sample in samples])


def require_unseen(fold: Fold) -> None:
    """Raise RunError unless no test image of the fold was trained on."""
    seen = {s.item for s in fold.train} & {s.item for s in fold.test}
    if seen:
        raise RunError(
            f"Fold {fold.number} was trained on {', '.join(sorted(seen)[:5])}: "
            "scores on training images say nothing."
        )


def scores_of(run: Run, fold: int) -> FoldScores:
    """What metrics.json holds of one fold, its operating threshold among it.

    Raises:
        RunError: the run is not evaluated yet, or not this fold.
    """
    run.require("evaluation")
    summary = storage.read_record(run.folder / "metrics.json", Summary)
    for scores in summary.folds:
        if scores.fold == fold:
            return scores
    raise RunError(f"Fold {fold} is not evaluated; trained are {summary.folds_trained}.")


def most_doubtful(run: Run, fold: int) -> str:
    """The name of the fold's test image whose score lies nearest to the threshold."""
    rows = read_predictions(run.folder / "predictions.csv")
    judged = [row for row in rows if row.fold == fold]
    return min(judged, key=lambda row: abs(row.margin)).image


def _environment(run: Run) -> dict[str, str | int]:
    """This machine, and that of each stage: training may have moved between machines."""
    trained = {}
    for fold in run.settings.fold_numbers:
        for name in [plan.name for plan in method_of(run.settings).stages]:
            made = storage.read_json(run.fold_folder(fold) / f"{name}.done.json")["environment"]
            words = [made["cpu"], f"GPU {made['gpu']}", made["arithmetic"], f"at {made['commit']}"]
            trained[f"{name} stage of fold {fold}"] = ", ".join(words)
    day = datetime.now(UTC).date().isoformat()
    return {"evaluated on": day} | machine.environment(run.settings.precision) | trained


def _scores_of_fold(
    run: Run, data: DataSet, fold: int, watch: Callable[[int, int, int], None] | None
) -> tuple[list[Prediction], np.ndarray]:
    """The fold's rows and masks (N, H/8, W/8): stored ones of the same weights, or new ones."""
    folder, part = run.fold_folder(fold), data.folds[fold]
    require_unseen(part)
    source: Source = {"weights": weights_sha256(run, data, fold), "data": data.fingerprint}
    source |= {name: getattr(run.settings, name) for name in method_of(run.settings).judged_by}
    if stored := _stored_scores(folder, source):
        return stored
    began = last = time.monotonic()
    judge = trained_judge(run, data, fold)

    def scored(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > SIGN_OF_LIFE:
            claim(run.folder)
            last = time.monotonic()
        if watch:
            watch(fold, done, total)

    scores, masks = score_images(judge, part.test, run.settings.size, scored)
    rows = _rows(part, run.settings.seed, scores, masks)
    write_predictions(folder / "scores.csv", rows)
    write_masks(folder / "masks.npz", [row.image for row in rows], masks)
    hashes = {name: storage.sha256(folder / name) for name in ("scores.csv", "masks.npz")}
    storage.write_json(folder / "scores.json", source | {"sha256": hashes})
    run.note_time(f"scoring {len(rows)} images, fold {fold}", time.monotonic() - began)
    return rows, masks.astype(np.float16)


def _stored_scores(folder: Path, source: Source) -> tuple[list[Prediction], np.ndarray] | None:
    """A fold's rows and masks, where they came from this source and are as they were stored."""
    if not (folder / "scores.json").exists():
        return None
    record = storage.read_json(folder / "scores.json")
    hashes = record.pop("sha256", {})  # runs of earlier versions have none
    if not {"weights", "data"} <= record.keys():
        return None
    if any(record.get(name, value) != value for name, value in source.items()):
        return None  # a setting that is newer than the file had its default
    try:
        for name, sha256 in hashes.items():
            if storage.sha256(folder / name) != sha256:
                raise RunError(f"{name} was altered")
        rows = read_predictions(folder / "scores.csv")
        masks = read_masks(folder / "masks.npz")
        return rows, np.stack([masks[row.image] for row in rows])
    except (RunError, OSError, KeyError) as error:
        warnings.warn(
            f"The scores of {folder.name} are not as they were stored ({error}): it is scored "
            "again.",
            stacklevel=3,
        )
        return None


def _rows(fold: Fold, seed: int, scores: np.ndarray, masks: np.ndarray) -> list[Prediction]:
    return [
        Prediction(
            image=sample.name,
            item=sample.item,
            fold=fold.number,
            seed=seed,
            is_defective=sample.is_defective,
            score=float(score),
            map_score=float(mask.max()),
        )
        for sample, score, mask in zip(fold.test, scores, masks, strict=True)
    ]
