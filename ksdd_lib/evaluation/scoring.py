"""Score each test image once, store scores and masks; everything after reads those files.

A fold's scores are stored as soon as it is scored, so that a lost runtime scores no fold twice.
"""

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ksdd_lib import hardware, storage
from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.data.folds import Fold
from ksdd_lib.data.kolektorsdd import annotators_iou
from ksdd_lib.data.layout_note import own_classes
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import pixels, predictions
from ksdd_lib.evaluation.classes import class_scores
from ksdd_lib.evaluation.predictions import ClassScore, Prediction
from ksdd_lib.evaluation.results import made_from
from ksdd_lib.evaluation.summary import (
    AllPixelScores,
    FoldScores,
    Ranking,
    Summary,
    Taught,
    class_thresholds,
    conclude,
    ranking,
)
from ksdd_lib.formatting import listed
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import Judge
from ksdd_lib.methods.stage_training import require_trained, trained_judge, weights_sha256
from ksdd_lib.runs.lock import alone, claim
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import HELD, Run, fold_name
from ksdd_lib.settings import Settings
from ksdd_lib.training.memory import explain_memory
from ksdd_lib.view import View, view_of

Source = dict[str, str | bool]
"""What a fold's scores were made from: weights, data, and the settings of `Method.judged_by`."""


class StoredScores(storage.Record, extra="allow"):
    """scores.json of a fold: the `Source`, and the hashes of its files, which old runs lack."""

    sha256: dict[str, str] = {}


class Machine(storage.Record):
    """What is told of the machine that trained a stage."""

    cpu: str
    gpu: str
    arithmetic: str
    commit: str


class Trained(storage.Record):
    """What the results take from the done marker of a stage."""

    environment: Machine
    learned_nothing: bool = False


Scored = tuple[list[Prediction], dict[str, np.ndarray]]
"""Rows, and image name -> map of the whole picture, as of `Answer`."""

Watch = Callable[[int, int, int], None]
"""Called with (fold, images done, images in all)."""

AHEAD = 4
"""Pictures that are read at a time."""

SIGN_OF_LIFE = 30.0
"""Seconds between signs that this process is at work on the run, where scoring takes long."""


@alone
@explain_memory
def evaluate(
    run: Run,
    data: DataSet,
    watch: Watch | None = None,
    saved: Callable[[], None] | None = None,
) -> Summary:
    """Score the test part of every trained fold; write predictions.csv, masks.npz, metrics.json.

    `saved` is called after each fold, for a copy elsewhere. Raises RunError where a fold is not
    trained, naming the notebook to run first, or where another process works in the folder.
    """
    run.require("data")
    require_trained(run)
    folder, settings = run.folder, run.settings
    parts = {str(fold): data.folds[fold] for fold in settings.fold_numbers}
    rows: list[Prediction] = []
    masks: dict[str, np.ndarray] = {}
    weights: dict[str, str] = {}
    for name, part in parts.items():
        weights[name] = weights_sha256(run, data, part.number)
        part_rows, part_masks = _scores_of_fold(run, data, part, weights[name], watch)
        rows += part_rows
        masks |= part_masks
        if saved:
            saved()
    train_items = _train_items(data)
    held, rows = ([row for row in rows if (row.fold == HELD) == side] for side in (True, False))
    predictions.write_masks(folder / "masks.npz", {row.image: masks[row.image] for row in rows})
    if held:
        predictions.write_predictions(folder / predictions.HELD_OUT, held)
    share, rule = settings.false_alarms if settings.labels == "none" else None, settings.threshold
    known = settings.folds, settings.seed, train_items, True, share, rule, held
    rows, summary = conclude(rows, *known)
    predictions.write_predictions(folder / "predictions.csv", rows)
    defects = {k: [s.name for s in part.train if s.is_defective] for k, part in parts.items()}
    summary = summary.model_copy(
        update={
            "darkest_pixel": _darkest_pixel([s for part in parts.values() for s in part.test]),
            "made_from": made_from(settings, data.fingerprint, weights),
            "masks_sha256": storage.sha256(folder / "masks.npz"),
            "trained_defects": defects if settings.defective_images else None,
            "pixel_scores": _pixel_scores(data, settings, rows, held, masks, train_items),
            "taught": taught(parts[min(parts)]),
            "class_scores": rows[0].classes and class_scores(rows, train_items, rule, held) or None,
            "learned_nothing": idle_stages(run, settings.fold_numbers) or None,
        }
    )
    storage.write_record(folder / "metrics.json", summary)
    storage.write_json(folder / "environment.json", _environment(run))
    return summary


def _train_items(data: DataSet) -> dict[int, set[str]]:
    """The training items of each fold, as folds.json has them: few labels may leave one without."""
    tested = {fold.number: {sample.item for sample in fold.test} for fold in data.folds}
    held = {fold.number: {sample.item for sample in fold.held} for fold in data.folds}
    return {k: set().union(*tested.values(), held[k]) - items for k, items in tested.items()}


def taught(fold: Fold) -> Taught:
    """What a training knows of the fold's images."""
    masks = sum(one.is_defective and one.has_mask for one in fold.train)
    return Taught(masks=masks, labels=len(fold.train))


class Answer(NamedTuple):
    """What a judge says of one picture."""

    score: float  # of tiles the highest
    map: np.ndarray  # of the whole picture, float32 (about h/8, w/8)
    highest: float  # of the maps as the judge gave them
    each: tuple[float, ...] = ()  # class' score, where several are told apart; `score` is highest
    maps: tuple[np.ndarray, ...] = ()  # of each class, likewise; `map` is the highest of them


def judge_picture(judge: Judge, image: np.ndarray, view: View) -> Answer:
    """Judge a picture, gray (H, W), as the network sees it; DataError where it has no region."""
    placed = view.placed(image)
    canvas = placed.lay(image)
    tiles = [torch.from_numpy(box.cut(canvas))[None, None] for box in placed.tiles]
    scores, maps = zip(*(judge.judge(tile.to(judge.device)) for tile in tiles), strict=True)
    score = torch.stack(scores).amax(0)
    each = tuple(score.tolist()) if score.ndim else ()
    found = [one.float().cpu().numpy() for one in maps]
    highest = [one.max(0) if each else one for one in found]
    whole, *of_classes = (
        placed.back(placed.joined(part))
        for part in [highest, *([one[k] for one in found] for k in range(len(each)))]
    )
    top = max(float(one.max()) for one in found)
    return Answer(float(score.max()), whole, top, each, tuple(of_classes))


def judge_samples(
    judge: Judge,
    samples: Sequence[Sample],
    view: View,
    watch: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Judge each image once, without the maps of classes; `watch` takes (images done, in all)."""
    judged = list[Answer]()
    with ThreadPoolExecutor(AHEAD) as pool, hardware.reused_memory(judge.device):
        for first in range(0, len(samples), AHEAD):
            for image in pool.map(read_image, samples[first : first + AHEAD]):
                judged.append(judge_picture(judge, image, view)._replace(maps=()))
                if watch:
                    watch(len(judged), len(samples))
    return judged


def score_images(
    judge: Judge,
    samples: Sequence[Sample],
    view: View | tuple[int, int],
    watch: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) float64 and maps (N, H/8, W/8) float32 of pictures with maps of one size.

    The view is as of `load_surfaces`, and `watch` as of `judge_samples`.
    """
    found = judge_samples(judge, samples, view_of(view), watch)
    return np.array([one.score for one in found]), np.stack([one.map for one in found])


def _darkest_pixel(samples: Sequence[Sample]) -> Ranking:
    """What the simplest rule reaches: the darker its darkest pixel, the more suspicious."""
    labels = [sample.is_defective for sample in samples]
    return ranking(labels, [-float(read_image(sample).min()) for sample in samples])


def _pixel_scores(
    data: DataSet,
    settings: Settings,
    rows: Sequence[Prediction],
    held: Sequence[Prediction],
    masks: Mapping[str, np.ndarray],
    train_items: Mapping[int, Collection[str]],
) -> AllPixelScores:
    """How well the maps of the rows, as they are stored, show where the defects are."""
    counts, knows = pixel_counts(data, settings, masks), settings.labels != "none"
    found = pixels.pixel_scores(rows, counts, train_items, knows, held)
    agreed = annotators_iou() if data.record.is_kolektor else None
    return found.model_copy(update={"annotators_iou": agreed})


def pixel_counts(
    data: DataSet, settings: Settings, masks: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Image -> the `pixels.count` of its map, as it is stored."""
    samples, counts = {sample.name: sample for sample in data.samples}, {}
    for name, values in masks.items():
        sample, stored = samples[name], torch.from_numpy(values.astype(np.float16)).float()
        share = method_of(settings).probability(stored, settings).numpy()
        wanted = read_mask(sample) if sample.is_defective else np.zeros(sample.size, bool)
        counts[name] = pixels.count(share, wanted)
    return counts


def require_unseen(fold: Fold) -> None:
    """Raise RunError unless no image that is to be scored was trained on."""
    if seen := {s.item for s in fold.train} & {s.item for s in (*fold.test, *fold.held)}:
        raise RunError(
            f"Fold {fold.number} was trained on {listed(sorted(seen), 5)}: "
            "scores on training images say nothing."
        )


def scores_of(run: Run, fold: int) -> FoldScores:
    """What metrics.json holds of one fold; RunError where the fold is not evaluated."""
    run.require("evaluation")
    summary = storage.read_record(run.folder / "metrics.json", Summary)
    for scores in summary.folds:
        if scores.fold == fold:
            return scores
    raise RunError(f"Fold {fold} is not evaluated; trained are {summary.folds_trained}.")


def mask_threshold_of(run: Run, fold: int) -> float:
    """The probability from which the fold's maps mark a pixel; fixed where results lack it."""
    found = storage.read_record(run.folder / "metrics.json", Summary).pixel_scores
    each = {one.fold: one.threshold for one in found.folds} if found else {}
    return each.get(fold, pixels.EVEN)


def most_doubtful(run: Run, fold: int) -> str:
    """The name of the fold's test image whose score lies nearest to the threshold."""
    rows = predictions.read_predictions(run.folder / "predictions.csv")
    judged = [row for row in rows if row.fold == fold]
    return min(judged, key=lambda row: abs(row.margin)).image


def _stages(run: Run, folds: Iterable[int]) -> Iterator[tuple[str, Trained]]:
    """What each stage of the folds is called, and its done marker."""
    for fold in folds:
        for name in [plan.name for plan in method_of(run.settings).stages]:
            done = storage.read_record(run.fold_folder(fold) / f"{name}.done.json", Trained)
            yield f"{name} stage of {fold_name(fold)}", done


def idle_stages(run: Run, folds: Iterable[int]) -> tuple[str, ...]:
    """The stages of the folds whose training ended no better than guessing."""
    return tuple(name for name, done in _stages(run, folds) if done.learned_nothing)


def _environment(run: Run) -> dict[str, str | int]:
    """This machine, and that of each stage: training may have moved between machines."""
    stages = _stages(run, run.settings.fold_numbers)
    words = "{cpu}, GPU {gpu}, {arithmetic}, at {commit}"
    trained = {name: words.format_map(dict(done.environment)) for name, done in stages}
    day = datetime.now(UTC).date().isoformat()
    return {"evaluated on": day} | hardware.environment(run.settings.precision) | trained


def _scores_of_fold(
    run: Run, data: DataSet, fold: Fold, weights: str, watch: Watch | None
) -> Scored:
    """The fold's stored scores where they are of these weights, or new ones."""
    require_unseen(fold)
    folder, settings = run.fold_folder(fold.number), run.settings
    source: Source = {"weights": weights, "data": data.fingerprint}
    source |= {name: getattr(settings, name) for name in method_of(settings).judged_by}
    if stored := _stored_scores(folder, source):
        return stored
    began = last = time.monotonic()

    def scored(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > SIGN_OF_LIFE:
            claim(run.folder)
            last = time.monotonic()
        if watch:
            watch(fold.number, done, total)

    judge = trained_judge(run, data, fold.number)
    samples = [*fold.test, *fold.held]
    answers = judge_samples(judge, samples, settings.view, scored)
    rows = [
        Prediction(
            image=sample.name,
            item=sample.item,
            fold=HELD if sample in fold.held else fold.number,
            seed=settings.seed,
            is_defective=sample.is_defective,
            score=answer.score,
            map_score=answer.highest,
            classes=_classes(data.classes, answer.each, sample),
        )
        for sample, answer in zip(samples, answers, strict=True)
    ]
    predictions.write_predictions(folder / "scores.csv", rows)
    maps = {row.image: answer.map for row, answer in zip(rows, answers, strict=True)}
    predictions.write_masks(folder / "masks.npz", maps)
    hashes = {name: storage.sha256(folder / name) for name in ("scores.csv", "masks.npz")}
    storage.write_json(folder / "scores.json", source | {"sha256": hashes})
    run.note_time(f"scoring {len(rows)} images, fold {fold.number}", time.monotonic() - began)
    return rows, maps


def _classes(
    names: Sequence[str], scores: Sequence[float], sample: Sample
) -> tuple[ClassScore, ...]:
    """The score of each class, where several are told apart, and whether the sample shows it."""
    if not scores:
        return ()
    there = own_classes(sample)
    pairs = zip(names, scores, strict=True)
    return tuple(ClassScore(name, score, name in there) for name, score in pairs)


def class_thresholds_of(run: Run, fold: int) -> dict[str, float]:
    """The threshold of each class in a fold; none where one class alone is known."""
    found = storage.read_record(run.folder / "metrics.json", Summary).class_scores
    return class_thresholds(found.classes, fold) if found else {}


def _stored_scores(folder: Path, source: Source) -> Scored | None:
    """A fold's scores, where they came from this source and are as they were stored."""
    if not (folder / "scores.json").exists():
        return None
    try:
        found = storage.read_record(folder / "scores.json", StoredScores)
        # A setting that is newer than the file had its default; weights and data have none.
        record = source | {"weights": "", "data": ""} | (found.model_extra or {})
        if any(record[name] != value for name, value in source.items()):
            return None
        for name in ("scores.csv", "masks.npz") if found.sha256 else ():
            if storage.sha256(folder / name) != found.sha256.get(name):
                raise RunError(f"{name} was altered")
        rows = predictions.read_predictions(folder / "scores.csv")
        masks = predictions.read_masks(folder / "masks.npz")
        return rows, {row.image: masks[row.image] for row in rows}
    except (RunError, OSError, KeyError) as error:
        warnings.warn(
            f"The scores of {folder.name} are not as they were stored ({error}): it is scored "
            "again.",
            stacklevel=3,
        )
        return None
