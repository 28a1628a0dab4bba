"""A trained model to give away: a safetensors file in half precision, and beside it a card.

The card is JSON: licence, hash, how to use the weights (image size, threshold), and how they came
about (settings, data, scores).
"""

from functools import partial
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import torch

from ksdd_lib import machine, storage
from ksdd_lib.errors import CheckpointError, RunError
from ksdd_lib.evaluation.scoring import scores_of
from ksdd_lib.models.two_stage import TwoStageNet
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import CHECKOUT, Run, home
from ksdd_lib.settings import to_json
from ksdd_lib.training import checkpoint
from ksdd_lib.training.loop import trained_model

LICENCE = "CC BY-NC-SA 4.0: trained on KolektorSDD (Kolektor Group and ViCoS, Ljubljana)"

NEEDED = (
    "file",
    "sha256",
    "image_size",
    "average_flips",
    "segmentation_loss",
    "score",
    "threshold",
    "data",
)
"""What a card must say for its weights to be used."""

PUBLISHED = Path("assets", "weights", "ksdd.safetensors")
"""Where the repository keeps the published model; its card lies beside it."""


def publish(run: Run, data: DataSet, fold: int, path: Path) -> Path:
    """Write the evaluated model of a fold to `path` (.safetensors) -> its card (.json).

    Raises:
        RunError: the run is not evaluated yet, or not this fold.
        CheckpointError: a stage of this fold is not finished.
    """
    from safetensors.torch import save

    scores = scores_of(run, fold)
    state = trained_model(run, data, fold).state_dict()
    content = save({name: value.half().cpu().contiguous() for name, value in state.items()})
    settings, record = run.settings, data.record
    card = {
        "licence": LICENCE if record.get("is_kolektor") else "that of the data it was trained on",
        "file": path.name,
        "sha256": storage.sha256(content),
        "image_size": settings.image_size,
        "average_flips": settings.average_flips,
        "segmentation_loss": settings.segmentation_loss,
        "score": settings.score,
        "threshold": scores["threshold"],
        "threshold_rule": run.read("metrics.json")["threshold_rule"],
        "fold": fold,
        "never_trained_on": sorted({sample.item for sample in data.folds[fold].test}),
        "test_scores_of_the_unrounded_weights": scores,
        "data": {name: record.get(name) for name in ("name", "fingerprint")},
        "settings": to_json(settings),
        "environment": machine.environment(settings.precision),
    }
    storage.write_bytes(path, content)
    storage.write_json(path.with_suffix(".json"), card)
    return path.with_suffix(".json")


def published() -> Path:
    """The published model: that of this checkout, else fetched once from the repository.

    Raises:
        CheckpointError: it is not here and cannot be fetched.
    """
    for root in (CHECKOUT, home()):
        if (root / PUBLISHED).exists() and (root / PUBLISHED).with_suffix(".json").exists():
            return root / PUBLISHED
    address = _repository()
    if not address:
        raise CheckpointError(
            f"The published model ({PUBLISHED.as_posix()}) is not here: take a whole copy of the "
            "repository, or name a weights file."
        )
    path, source = home() / PUBLISHED, f"{address}/raw/main/{PUBLISHED.as_posix()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch = partial(torch.hub.download_url_to_file, progress=False)
    try:
        fetch(source.replace(path.suffix, ".json"), str(path.with_suffix(".json")))
        card = storage.read_json(path.with_suffix(".json"))
        fetch(source, str(path), hash_prefix=card["sha256"])
    except (OSError, RuntimeError, RunError) as error:
        raise CheckpointError(
            f"The published model could not be fetched from {source}: {error}."
        ) from error
    return path


def _repository() -> str:
    """The address in the installed package, https://github.com/OWNER/NAME, or ""."""
    try:
        urls = metadata("ksdd_lib").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Repository", "").rstrip("/").removesuffix(".git")


def load(path: Path) -> tuple[TwoStageNet, dict[str, Any]]:
    """The model of a published file, in float32 on this machine's device, and its card.

    Raises:
        CheckpointError: the file or its card is absent, the card lacks something or is of an
            earlier version, the file is not the card's, or its weights are not finite.
    """
    from safetensors.torch import load as read

    path = Path(path)
    if path.is_dir() or path.suffix == ".pt":
        raise CheckpointError(
            f"{path.name} is a run or a checkpoint of one: write its model as one file first, with "
            "`publish RUN model.safetensors`."
        )
    if not (path.exists() and path.with_suffix(".json").exists()):
        raise CheckpointError(f"{path.name} and its card {path.stem}.json must lie side by side.")
    card, content = _read_card(path.with_suffix(".json")), path.read_bytes()
    if storage.sha256(content) != card["sha256"]:
        raise CheckpointError(f"{path.name} is damaged or not the file of its card.")
    model = TwoStageNet()
    weights = {name: value.float() for name, value in read(content).items()}
    checkpoint.require_finite(weights, f"The weights of {path.name}")
    checkpoint.load_weights(model, weights, path.name)
    device = machine.device()
    return model.to(device, memory_format=torch.channels_last).requires_grad_(False), card


def _read_card(path: Path) -> dict[str, Any]:
    card = storage.read_json(path)
    lacks = [n for n in NEEDED if n not in card] if isinstance(card, dict) else NEEDED
    if lacks:
        raise CheckpointError(
            f"{path.name} is no card of a model, or one of an earlier version: it lacks "
            f"{', '.join(lacks)}. Write both files again with `publish`."
        )
    return card
