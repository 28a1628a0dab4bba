"""A trained model to give away: a safetensors file in half precision, and its card beside it."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import Field

from ksdd_lib import hardware, storage
from ksdd_lib.data.data_report import Sizes
from ksdd_lib.data.sources import fetch
from ksdd_lib.errors import CheckpointError, KsddError, RunError, SettingsError, repository
from ksdd_lib.evaluation.final import NO_TEST, FoldsShowed, final_model
from ksdd_lib.evaluation.pixels import EVEN, RULE
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.evaluation.promises import words
from ksdd_lib.evaluation.scoring import (
    class_thresholds_of,
    idle_stages,
    mask_threshold_of,
    scores_of,
)
from ksdd_lib.evaluation.summary import FoldScores, Summary
from ksdd_lib.evaluation.thresholds import Size
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import Judge
from ksdd_lib.methods.stage_training import trained_judge, usual_fold
from ksdd_lib.presets import resolve
from ksdd_lib.runs.lock import FILE
from ksdd_lib.runs.open import CHECKOUT, home
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import FINAL, Run
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import to_json
from ksdd_lib.storage import Record
from ksdd_lib.training import checkpoint

LICENCE = "CC BY-NC-SA 4.0: trained on KolektorSDD (Kolektor Group and ViCoS, Ljubljana)"

NUMBERS = (torch.float16, torch.bfloat16, torch.float32)
"""What weights may be stored as."""

SEEN = ("image_size", "fit", "region", "tile_size")
"""The settings of how a model sees a picture, which stand in its card."""

PUBLISHED = Path("assets", "weights", "ksdd.safetensors")
"""Where a checkout keeps the published model; its card lies beside it."""


class TrainedOn(Record):
    """The data that a model was trained on."""

    name: str
    fingerprint: str
    sizes: Sizes | None = None  # of its pictures


class Named(Record):
    """What the card of any version has, and no other file."""

    file: str
    sha256: str


class Card(Record):
    """How to use a file of weights, and how they came about; the JSON file beside it.

    The settings in `Method.judged_by` stand by their own names.
    """

    licence: str = "unknown"
    file: str
    sha256: str
    method: str = "two_stage"
    image_size: str
    fit: str = "stretch"
    region: str = "none"
    tile_size: str = "none"
    average_flips: bool | None = None
    segmentation_loss: str | None = None
    score: str | None = None
    threshold: float = Field(ge=-1e6, le=1e6)
    threshold_rule: str = ""
    promise: str = ""
    class_thresholds: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    mask_threshold: float = Field(EVEN, ge=0, le=1)
    mask_threshold_rule: str = f"{EVEN}, fixed in advance"
    fold: int | None = Field(None, ge=0, le=2)  # None of the final model
    test: str = ""
    learned_nothing: tuple[str, ...] = ()  # its stages that ended no better than guessing
    never_trained_on: list[str] = []
    test_scores_of_the_unrounded_weights: FoldScores | None = None
    threshold_from: Size | None = None
    the_folds_showed: FoldsShowed | None = None
    data: TrainedOn
    settings: dict[str, bool | int | float | str] = {}
    environment: dict[str, str | int] = {}

    def judging_settings(self) -> Settings:
        """The settings to judge by.

        Raises SettingsError: one is missing, or not allowed; the text names it.
        """
        chosen = resolve({name: getattr(self, name) for name in ("method", *SEEN)})
        return replace(chosen, **{n: getattr(self, n) for n in method_of(chosen).judged_by})


def publish(run: Run, data: DataSet, fold: int | None, path: Path) -> Path:
    """Write the model of a fold, or `FINAL`, to `path` (.safetensors) -> its card (.json).

    Without a fold it is that of `usual_fold`. Its run must be evaluated.

    Raises RunError: the run is not evaluated yet, or not this fold, or a file would be replaced
    that is no published one.
    Raises CheckpointError: a stage of this fold is not finished.
    """
    settings, record = run.settings, data.record
    fold = usual_fold(run) if fold is None else fold
    judging = _of_final(run, data) if fold == FINAL else _of_fold(run, data, fold)
    exact = trained_judge(run, data, fold).tensors()
    tensors = {name: value.half().cpu().contiguous() for name, value in exact.items()}
    content = safetensors.torch.save(tensors)
    card = Card(
        licence=LICENCE if record.is_kolektor else "that of the data it was trained on",
        file=path.name,
        sha256=storage.sha256(content),
        method=settings.method,
        learned_nothing=idle_stages(run, [fold]),
        data=TrainedOn(name=record.name, fingerprint=record.fingerprint, sizes=record.report.sizes),
        settings=to_json(settings),
        environment=hardware.environment(settings.precision),
        **judging,
        **{name: getattr(settings, name) for name in (*SEEN, *method_of(settings).judged_by)},
    )
    beside = path.with_suffix(".json")
    _require_free(run, path, beside, content)
    storage.write_bytes(path, content)
    storage.write_record(beside, card)
    return beside


def _of_fold(run: Run, data: DataSet, fold: int) -> dict[str, Any]:
    """What the card says of a fold's model: its thresholds, and its test."""
    scores = scores_of(run, fold)
    rows = read_predictions(run.folder / "predictions.csv")
    return {
        "promise": words([row for row in rows if row.fold == fold]),
        "threshold": scores.threshold,
        "threshold_rule": storage.read_record(run.folder / "metrics.json", Summary).threshold_rule,
        "class_thresholds": class_thresholds_of(run, fold),
        "mask_threshold": mask_threshold_of(run, fold),
        "mask_threshold_rule": RULE,
        "fold": fold,
        "never_trained_on": sorted({sample.item for sample in data.folds[fold].test}),
        "test_scores_of_the_unrounded_weights": scores,
    }


def _of_final(run: Run, data: DataSet) -> dict[str, Any]:
    """What the card says of the model of all items."""
    return dict(final_model(run, data)) | {"test": NO_TEST}


def _require_free(run: Run, path: Path, card: Path, content: bytes) -> None:
    """Raise RunError where a file of the run, or one that `publish` has not written, is there."""
    for place in (path, card):
        name = place.resolve().as_posix().removeprefix(f"{run.folder.resolve().as_posix()}/")
        if FILE.fullmatch(name):
            raise RunError(f"{place.name} is a file of the run: name another place for the model.")
    with suppress(RunError):
        if card.exists() and storage.read_record(card, Named):
            return
    if card.exists() or (path.exists() and path.read_bytes() != content):  # equal after a kill
        raise RunError(
            f"{path.name} or {card.name} is there already and is no published model: name another "
            "file.",
            see="line#publish",
        )


def published() -> Path:
    """The published model: that of this checkout, else fetched once from the repository.

    Raises CheckpointError: it is not here and cannot be fetched.
    """
    path = home() / PUBLISHED
    for kept in (CHECKOUT / PUBLISHED, path):
        if _is_whole(kept):
            return kept
    if not (address := repository()).startswith("https://"):
        raise CheckpointError(
            f"The published model ({PUBLISHED.as_posix()}) is not here: take a whole copy of the "
            "repository, or name a weights file."
        )
    source, card = f"{address}/raw/main/{PUBLISHED.as_posix()}", path.with_suffix(".json")

    def is_of_card(part: Path) -> None:
        if storage.sha256(part) != _read_card(card).sha256:
            raise CheckpointError("it is not the file of its card, by its hash")

    try:
        fetch(source.replace(path.suffix, card.suffix), card, _read_card)
        fetch(source, path, is_of_card)
    except KsddError as error:
        text = f"The published model could not be fetched from {source}: {error}"
        raise CheckpointError(text) from error
    return path


def _is_whole(path: Path) -> bool:
    """Whether a file of weights and its card are there."""
    return path.exists() and path.with_suffix(".json").exists()


def load(path: Path) -> tuple[Judge, Card]:
    """What judges by a published file, in float32 on this machine's device, and the file's card.

    Raises CheckpointError: the file or its card is absent, damaged, or not of the other.
    """
    if path.is_dir() or path.suffix == ".pt":
        raise CheckpointError(
            f"{path.name} is a run or a checkpoint of one: write its model as one file first, with "
            "`publish RUN model.safetensors`.",
            see="line#publish",
        )
    if not _is_whole(path):
        told = f"{path.name} and its card {path.stem}.json must lie side by side."
        told = told if path.exists() else f"There is no file {path.name}."
        raise CheckpointError(told, see="line#publish")
    card, content = _read_card(path.with_suffix(".json")), path.read_bytes()
    if storage.sha256(content) != card.sha256:
        raise CheckpointError(f"{path.name} is damaged or not the file of its card.")
    tensors = _tensors(content, path.name)
    checkpoint.require_finite(tensors, f"The weights of {path.name}")
    settings = card.judging_settings()
    return method_of(settings).loaded(settings, tensors, path.name), card


def _tensors(content: bytes, name: str) -> dict[str, torch.Tensor]:
    """The weights in the content of a safetensors file, in float32."""
    try:
        found = safetensors.torch.load(content)
    except Exception as error:  # of many kinds, as the file may hold anything
        raise CheckpointError(f"{name} is not a file of weights: {error}.") from None
    if other := [key for key, value in found.items() if value.dtype not in NUMBERS]:
        told = f"{other[0]} is {found[other[0]].dtype}"
        raise CheckpointError(f"{name} holds numbers that no weights have: {told}.")
    return {key: value.float() for key, value in found.items()}


def _read_card(path: Path) -> Card:
    """The card in a JSON file, with all that is needed to judge."""
    try:
        card = storage.read_record(path, Card)
        card.judging_settings()
        return card
    except (RunError, SettingsError) as error:
        raise CheckpointError(
            f"{path.name} is not the card of a model, or of an earlier version: {error} Write both "
            "files again with `publish`."
        ) from None
