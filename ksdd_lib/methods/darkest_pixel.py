"""The simplest rule: the darker a surface's darkest pixel, the more suspicious. Nothing is learned.

What a network gains is what it scores above this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ksdd_lib import hardware
from ksdd_lib.methods.protocol import Judge, Method
from ksdd_lib.models.two_stage import STRIDE
from ksdd_lib.settings import Settings
from ksdd_lib.training.checkpoint import Checkpoint

MIDDLE = 127.5
"""The gray level whose score is 0."""


@dataclass(frozen=True)
class DarknessJudge:
    """Scores by how far the darkest pixel lies below the middle of the gray levels."""

    device: torch.device

    def judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The score () and, at 1/8, the darkness of each block's darkest pixel (H/8, W/8)."""
        darkness = functional.max_pool2d(MIDDLE - pixels.float(), STRIDE)[0, 0]
        return darkness.max(), darkness

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: there are no weights."""
        return {}


class DarkestPixel(Method):
    """The rule as a method without a stage."""

    def trained(self, settings: Settings, stages: Sequence[Checkpoint]) -> Judge:
        """The rule; there is nothing to train."""
        return DarknessJudge(hardware.device())

    def loaded(self, settings: Settings, tensors: Mapping[str, Tensor], name: str) -> Judge:
        """The rule; a file of it holds no tensor."""
        return DarknessJudge(hardware.device())

    def probability(self, values: Tensor, settings: Settings) -> Tensor:
        """Darkness as a share: 0 for white, 1 for black."""
        return (0.5 + values / (2 * MIDDLE)).clamp(0, 1)

    def map_caption(self, settings: Settings) -> str:
        """The map is the darkness."""
        return "It is how dark the darkest pixel of each block is, from white to black."
