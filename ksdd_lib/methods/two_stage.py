"""The two-stage network as a method: the segmentation network, then the decision network on it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ksdd_lib import hardware
from ksdd_lib.data.kolektorsdd import PAPER
from ksdd_lib.methods.protocol import Judge, Method, StagePlan
from ksdd_lib.models import two_stage as networks
from ksdd_lib.models.two_stage import (
    DecisionNet,
    SegmentationNet,
    TwoStageNet,
    segmentation_like,
)
from ksdd_lib.settings import Settings
from ksdd_lib.training import targets
from ksdd_lib.training.batches import Shown, Surfaces, mirror_images, network_input, turn
from ksdd_lib.training.checkpoint import Checkpoint, load_weights
from ksdd_lib.training.loop import Recipe, Trainable
from ksdd_lib.training.memory import free_megabytes

Network = TypeVar("Network", bound=nn.Module)

ANEW = 2**31
"""What is added to the seed of first weights where those of the seed learn nothing."""

FEATURE_BYTES = 3 * 2**30
"""The most memory for the frozen first stage's pooled features; what does not fit is computed
again."""


@dataclass(frozen=True)
class TwoStageJudge:
    """Both networks with the weights to judge by, on one device."""

    model: TwoStageNet
    settings: Settings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Score logit () and mask logits (H/8, W/8), averaged over the views of the settings.

        Of K > 1 classes they are (K,) and (K, H/8, W/8).
        """
        precision = mixed_precision(self.settings, pixels.device)
        scores, masks = [], []
        for view in mirror_images(self.settings.average_flips):
            with precision:
                mask_logits, score = self.model(network_input(pixels, view))
            scores.append(score[0].squeeze(0))
            masks.append(turn(mask_logits[0].squeeze(0).float(), view))
        mask = torch.stack(masks).mean(0)
        return deciding_score(torch.stack(scores).mean(0), mask, self.settings.score), mask

    def tensors(self) -> dict[str, Tensor]:
        """The weights of both networks."""
        return self.model.state_dict()


def placed(model: Network, where: torch.device | None = None) -> Network:
    """The network in the layout that is fast for it, on a device or on this machine's own."""
    target = where or hardware.device()
    return model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]


def mixed_precision(settings: Settings, where: torch.device) -> torch.autocast:
    """A context in which convolutions compute as the setting `precision` says; enter it often."""
    dtype = hardware.arithmetic(settings.precision, where)
    return torch.autocast(where.type, dtype, enabled=dtype != torch.float32)


def deciding_score(decision: Tensor, mask_logits: Tensor, kind: str) -> Tensor:
    """The score () by which an image is judged, or of each class (K,).

    It is the logit () of the decision network, the highest mask logit, or for "both" their sum.
    """
    highest = mask_logits.amax((-2, -1))
    return {"decision": decision, "mask": highest, "both": decision + highest}[kind]


def untrained_segmentation(settings: Settings, classes: int = 1) -> SegmentationNet:
    """The first stage as its training starts, on the CPU."""
    model = SegmentationNet(classes, settings.mask_norm)
    networks.initialize(model, settings.initialization, settings.seed)
    if settings.segmentation_loss == "cross_entropy":
        networks.expect_defects(model, settings.expected_defect_share)
    return model


def trained_segmentation(finished: Checkpoint) -> SegmentationNet:
    """The first stage alone with the weights to judge by, on this machine's device."""
    model = segmentation_like(finished.judging_weights)
    load_weights(model, finished.judging_weights, "segmentation")
    return placed(model).requires_grad_(False)


def build_segmentation(
    settings: Settings, surfaces: Surfaces, before: Sequence[Checkpoint]
) -> Trainable:
    """The first stage, ready to train."""
    where = surfaces.images.device
    precision = mixed_precision(settings, where)
    in_float16 = hardware.arithmetic(settings.precision, where) == torch.float16
    model = placed(untrained_segmentation(settings, surfaces.classes), where)

    @torch.no_grad()
    def look(image: Tensor) -> Tensor:
        with precision:
            mask = model(image.to(where))[1].float()
        return targets.probability(mask, settings.segmentation_loss)[0].amax(0).cpu()

    loss_of = segmentation_loss_of(model, surfaces, settings)
    return Trainable(model, loss_of, look, scale_gradients=in_float16)


def segmentation_loss_of(
    model: SegmentationNet, surfaces: Surfaces, settings: Settings
) -> Callable[[Shown], Tensor]:
    """The first stage's loss of one sample, as a function of how it is shown."""
    precision = mixed_precision(settings, surfaces.images.device)
    binary = settings.segmentation_loss == "mean_squared_error"

    def loss_of(shown: Shown) -> Tensor:
        image, mask = surfaces.show(shown)
        with precision:
            _, mask_logits = model(image)
        wanted = targets.soft_targets(mask, binary)
        return targets.segmentation_loss(mask_logits, wanted, settings.segmentation_loss)

    return loss_of


def build_decision(
    settings: Settings, surfaces: Surfaces, before: Sequence[Checkpoint]
) -> Trainable:
    """The second stage on the frozen first one, ready to train.

    It starts from the last weights of the first stage, not from their average, as published.
    """
    segmentation = segmentation_like(before[0].state["weights"])
    load_weights(segmentation, before[0].state["weights"], "segmentation")
    features = FrozenFeatures(segmentation, surfaces, settings)
    model = DecisionNet(surfaces.classes)
    networks.initialize(model, settings.initialization, settings.seed)
    placed(model, surfaces.images.device)

    seen: list[tuple[Tensor | float, Tensor | bool]] = []

    def loss_of(shown: Shown) -> Tensor:
        score, label = model.judge(*features(shown)), surfaces.label_of(shown)
        seen.append((score.detach().amax(), label.any()))
        return targets.decision_loss(score, label)

    def restart() -> None:
        fresh = DecisionNet(surfaces.classes)
        networks.initialize(fresh, settings.initialization, settings.seed + ANEW)
        model.load_state_dict(fresh.state_dict())

    return Trainable(model, loss_of, guess=math.log(2), restart=restart, seen=seen)


class FrozenFeatures:
    """What a frozen first stage hands on, computed once per sample and view and kept in memory.

    A pasted or drawn defect or a tile comes only once, and is not kept.
    """

    def __init__(
        self, segmentation: SegmentationNet, surfaces: Surfaces, settings: Settings
    ) -> None:
        where = surfaces.images.device
        self.segmentation = placed(segmentation, where).requires_grad_(False)
        self.surfaces = surfaces
        self.precision = mixed_precision(settings, where)
        self.kept: dict[Shown, tuple[Tensor, Tensor]] = {}
        self.free = min(FEATURE_BYTES, free_megabytes(where) / 2 * 1e6)

    @torch.no_grad()
    def __call__(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """The decision network's pooled stack and mask pools of one sample, as `judge` takes it."""
        if shown in self.kept:
            return self.kept[shown]
        image, _ = self.surfaces.show(shown)
        with self.precision:
            stack, pools = DecisionNet.pool(*self.segmentation(image))
        comes_again = shown == Shown(shown.row, shown.view)
        if comes_again and stack.nbytes < self.free:
            self.free -= stack.nbytes
            self.kept[shown] = stack, pools
        return stack, pools


class TwoStage(Method):
    """Segmentation, then decision (Tabernik 2019)."""

    judged_by: tuple[str, ...] = ("average_flips", "segmentation_loss", "score")
    score_names: Mapping[str, str] = {
        "decision": "the decision network alone",
        "mask": "the highest value of the mask alone",
        "both": "both: the sum of their logits",
    }
    citation = PAPER

    stages = (
        StagePlan(
            "segmentation",
            "02_train_segmentation",
            lambda s: Recipe(
                s.segmentation_steps,
                s.segmentation_batch_size,
                s.segmentation_optimizer,
                s.segmentation_learning_rate,
                s.segmentation_schedule,
                pastes=True,
            ),
            build_segmentation,
            needs_masks=True,
        ),
        StagePlan(
            "decision",
            "03_train_decision",
            lambda s: Recipe(
                s.decision_steps,
                s.decision_batch_size,
                s.decision_optimizer,
                s.decision_learning_rate,
                s.decision_schedule,
                s.decision_copy_paste,
            ),
            build_decision,
        ),
    )

    def trained(self, settings: Settings, stages: Sequence[Checkpoint]) -> Judge:
        """Both networks; the first keeps the weights that the second was trained on."""
        first, second = stages
        model = TwoStageNet(segmentation_like(first.state["weights"]))
        load_weights(model.segmentation, first.state["weights"], "segmentation")
        load_weights(model.decision, second.judging_weights, "decision")
        return TwoStageJudge(placed(model).requires_grad_(False), settings)

    def loaded(self, settings: Settings, tensors: Mapping[str, Tensor], name: str) -> Judge:
        """Both networks with the weights of a file."""
        model = TwoStageNet(segmentation_like(tensors, "segmentation."))
        load_weights(model, tensors, name)
        return TwoStageJudge(placed(model).requires_grad_(False), settings)

    def probability(self, values: Tensor, settings: Settings) -> Tensor:
        """Mask logits as probabilities, as the loss that they were trained with reads them."""
        return targets.probability(values, settings.segmentation_loss)

    def map_caption(self, settings: Settings) -> str:
        """The map is the mask of the first network."""
        linear = settings.segmentation_loss == "mean_squared_error"
        return (
            f"It is the mask alone{'' if linear else ' as probability of a defect'}. The verdict "
            "comes from the score. A straight dark line near the edge is no fault of "
            "the surface. There the network sees that the picture ends, and is more certain."
        )

    def every_score(
        self, settings: Settings, scores: Sequence[float], highest: Sequence[float]
    ) -> dict[str, list[float]]:
        """The kinds that the stored values give.

        Only a mask trained with "cross_entropy" has logits to add. Where the mask alone judges, the
        decision network was not stored.
        """
        known, mask = list(scores), list(highest)
        if settings.score == "mask":
            return {"mask": mask}
        if (
            settings.view.tiled
            or settings.classes == "each"
            or settings.segmentation_loss != "cross_entropy"
        ):  # the highest of each may be of two tiles or classes
            return {settings.score: known, "mask": mask}
        pairs = list(zip(known, mask, strict=True))
        if settings.score == "both":
            return {"decision": [both - peak for both, peak in pairs], "mask": mask, "both": known}
        return {"decision": known, "mask": mask, "both": [score + peak for score, peak in pairs]}
