"""How long the two-stage network takes on this machine, from a measurement on one image."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ksdd_lib import hardware
from ksdd_lib.data.synthetic import PARTS
from ksdd_lib.methods import two_stage as method
from ksdd_lib.methods.two_stage import placed
from ksdd_lib.models.two_stage import FEATURES, DecisionNet
from ksdd_lib.settings import Settings
from ksdd_lib.storage import Record
from ksdd_lib.training.batches import Shown, Surfaces, mirror_images
from ksdd_lib.training.targets import decision_loss


class Pace(Record):
    """Seconds that this machine takes for one image."""

    training: float  # forward and backward of the segmentation network
    scoring: float  # forward alone
    deciding: float  # forward and backward of the decision network on what the first hands on


def measure(settings: Settings) -> Pace:
    """Measure each once, after one to warm up: seconds on a GPU, up to a minute on an old CPU."""
    where = hardware.device()
    first, second = placed(method.untrained_segmentation(settings)), placed(DecisionNet())
    pixels = torch.randint(0, 256, (1, 1, *settings.size), dtype=torch.uint8)
    surfaces = Surfaces(samples=(), images=pixels, masks=pixels, mask_row=(0,)).to(where)
    loss_of = method.segmentation_loss_of(first, surfaces, settings)

    def forward() -> tuple[Tensor, Tensor]:
        with method.mixed_precision(settings, where):
            return first(surfaces.image(0))

    def train() -> None:
        loss_of(Shown(0)).backward()
        first.zero_grad(set_to_none=True)

    def score() -> None:
        with torch.inference_mode():
            forward()

    with torch.no_grad():
        frozen = DecisionNet.pool(*forward())

    def decide() -> None:
        decision_loss(second.judge(*frozen), torch.ones(1, 1, device=where)).backward()
        second.zero_grad(set_to_none=True)

    with hardware.reused_memory(where):
        training, scoring, deciding = (seconds(work, where) for work in (train, score, decide))
    return Pace(training=training, scoring=scoring, deciding=deciding)


def seconds(work: Callable[[], None], where: torch.device) -> float:
    """How long `work` takes the second time."""
    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        work()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
    return time.perf_counter() - began


def minutes(settings: Settings, pace: Pace) -> dict[str, float]:
    """Minutes of each stage for all chosen folds.

    The decision stage asks the frozen network for an image and view only once, unless a defect is
    pasted. Its number is the most that it can take.
    """
    folds = len(settings.fold_numbers)
    first = settings.segmentation_steps * settings.segmentation_batch_size * pace.training
    shown = asked = settings.decision_steps * settings.decision_batch_size
    images = {"kolektorsdd": 399, "generated": PARTS * settings.generated_items}.get(settings.data)
    pasted = settings.copy_paste and settings.decision_copy_paste
    if images and not pasted and not settings.rotation and not settings.view.tiled:
        once = images * len(mirror_images(settings.flips))
        height, width = settings.size
        dtype = hardware.arithmetic(settings.precision, hardware.device())
        kept = once * (FEATURES + 1) * (height // 16) * (width // 16) * dtype.itemsize
        if kept <= method.FEATURE_BYTES:
            asked = min(asked, once)  # what does not fit is asked again
    second = shown * pace.deciding + asked * pace.scoring
    return {"segmentation": folds * first / 60, "decision": folds * second / 60}
