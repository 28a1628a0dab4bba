"""How many minutes and how much memory a choice of settings takes on this machine.

Minutes come from one measurement a size and arithmetic: of one image, a training step of each stage
and a scoring, after one of each to warm up. It is kept in the cache folder. Memory is that of
`memory`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ksdd_lib import machine, storage
from ksdd_lib.data.synthetic import PARTS
from ksdd_lib.errors import RunError
from ksdd_lib.methods.two_stage import FEATURE_BYTES, frozen_bytes, untrained_segmentation
from ksdd_lib.models.two_stage import DecisionNet
from ksdd_lib.settings import Settings
from ksdd_lib.text import duration
from ksdd_lib.training import memory
from ksdd_lib.training.batches import mirror_images, network_input
from ksdd_lib.training.targets import decision_loss, segmentation_loss, soft_targets


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes for one image.

    Attributes:
        training: forward and backward of the segmentation network.
        scoring: forward alone.
        deciding: forward and backward of the decision network on what the first hands on.
    """

    training: float
    scoring: float
    deciding: float


def known_pace(settings: Settings) -> Pace | None:
    """What was measured here before for this size and precision; None where nothing was."""
    try:
        return Pace(**storage.read_json(_file())[_key(settings)])
    except (RunError, KeyError, TypeError):  # none, damaged, or of an earlier version
        return None


def measure_pace(settings: Settings) -> Pace:
    """Measure, and keep it for `known_pace`; seconds on a GPU, up to a minute on an old CPU."""
    where = machine.device()
    network = untrained_segmentation(settings).to(where, memory_format=torch.channels_last)
    dtype = machine.arithmetic(settings.precision, where)
    pixels = torch.randint(0, 256, (1, 1, *settings.size), dtype=torch.uint8)
    image, mask = network_input(pixels, 0).to(where), torch.zeros(1, 1, *settings.size)
    second = DecisionNet().to(where, memory_format=torch.channels_last)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
            return network(image)

    def train() -> None:
        targets = soft_targets(mask.to(where), settings.segmentation_loss == "mean_squared_error")
        segmentation_loss(forward()[1], targets, settings.segmentation_loss).backward()
        network.zero_grad(set_to_none=True)

    def score() -> None:
        with torch.inference_mode():
            forward()

    with torch.no_grad():
        frozen = DecisionNet.pool(*forward())

    def decide() -> None:
        decision_loss(second.judge(*frozen), torch.ones(1, 1, device=where)).backward()
        second.zero_grad(set_to_none=True)

    with machine.reused_memory(where):
        pace = Pace(*(_seconds(work, where) for work in (train, score, decide)))
    try:
        kept = storage.read_json(_file())
    except RunError:
        kept = {}
    storage.write_json(_file(), kept | {_key(settings): vars(pace)})
    return pace


def minutes(settings: Settings, pace: Pace) -> dict[str, float]:
    """Minutes of each stage for all chosen folds; how long scoring takes depends on the data.

    The decision stage asks the frozen network for an image and view only once, unless a defect is
    pasted, so that its number is the most it can take.
    """
    folds = len(settings.fold_numbers)
    first = settings.segmentation_steps * settings.segmentation_batch_size * pace.training
    shown = asked = settings.decision_steps * settings.decision_batch_size
    images = {"kolektorsdd": 399, "generated": PARTS * settings.generated_items}.get(settings.data)
    pasted = settings.copy_paste and settings.decision_copy_paste
    if images and not pasted and not settings.rotation:
        once = images * len(mirror_images(settings.flips))
        if once * frozen_bytes(settings) <= FEATURE_BYTES:  # what does not fit is asked again
            asked = min(asked, once)
    second = shown * pace.deciding + asked * pace.scoring
    return {"segmentation": folds * first / 60, "decision": folds * second / 60}


def describe(settings: Settings) -> str:
    """One or two sentences: what it will take here, as far as it is known."""
    where = machine.device()
    arithmetic = machine.arithmetic_name(settings.precision)
    needed = memory.step_megabytes(settings.size, arithmetic, where) / 1000
    free = memory.free_megabytes(where)
    text = f"A training step takes about {needed:.1f} GB of memory"
    text += f" ({free / 1000:.1f} GB are free)." if free is not None else "."
    pace = known_pace(settings)
    if pace is None:
        return text
    folds, taken = len(settings.fold_numbers), minutes(settings, pace)
    views = len(mirror_images(settings.average_flips))
    return (
        f"{'One fold' if folds == 1 else f'{folds} folds'}: about "
        f"{duration(60 * taken['segmentation'])} for the segmentation network, at most "
        f"{duration(60 * taken['decision'])} for the decision network, and "
        f"{pace.scoring * views:.2g} s for each image that is scored. {text}"
    )


def _seconds(work: Callable[[], None], where: torch.device) -> float:
    work()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    began = time.perf_counter()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter() - began


def _file() -> Path:
    return storage.cache_folder() / "pace.json"


def _key(settings: Settings) -> str:
    arithmetic = machine.arithmetic_name(settings.precision)
    return f"{machine.slug()}, {settings.image_size}, {arithmetic}"
