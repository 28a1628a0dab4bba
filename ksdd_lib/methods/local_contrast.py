"""A classical rule: what differs most from its surroundings is suspicious. Nothing is learned.

The difference is measured in spreads of the picture's own texture, so that noise is no defect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ksdd_lib.methods.protocol import Judge, Method
from ksdd_lib.models.two_stage import STRIDE
from ksdd_lib.settings import Settings
from ksdd_lib.training.checkpoint import Checkpoint
from ksdd_lib.view import Box

SMOOTH = 1.5
"""The spread of the Gaussian that says how bright a small neighbourhood is, in pixels."""

AROUND = 65
"""The side of the square whose median is the surroundings: half of the smallest input. Wider
defects, from about half of it on, count as surroundings themselves."""

LEAST = 0.5
"""The least spread, in gray levels: what rounding alone may give."""

EVEN = 5.0
"""The contrast at which a place is as likely a defect as not, for the map alone."""


def local_contrast(image: np.ndarray) -> np.ndarray:
    """How far each pixel's neighbourhood lies from its surroundings, in spreads: float32 (H, W)."""
    smooth = cv2.GaussianBlur(
        image.astype(np.float32), (0, 0), SMOOTH, borderType=cv2.BORDER_REFLECT
    )
    difference = smooth - cv2.medianBlur(image, AROUND)
    spread = 1.4826 * np.median(abs(difference - np.median(difference)))
    return abs(difference) / max(float(spread), LEAST)


@dataclass(frozen=True)
class ContrastJudge:
    """Scores by the highest local contrast of a picture, or of a tile."""

    device: torch.device = torch.device("cpu")

    def judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The score () and, at 1/8, the highest contrast of each block (H/8, W/8).

        An even border, as of `fit` pad, is left out: the step to it is no contrast.
        """
        image = pixels[0, 0].numpy()
        left, top, *sides = cv2.boundingRect((image != image[0, 0]).astype(np.uint8))
        inner = Box(top, left, *reversed(sides))
        contrast = np.zeros(image.shape, np.float32)
        if inner.height:
            inner.cut(contrast)[:] = local_contrast(np.ascontiguousarray(inner.cut(image)))
        values = functional.max_pool2d(torch.from_numpy(contrast)[None], STRIDE)[0]
        return values.max(), values

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: there are no weights."""
        return {}


class LocalContrast(Method):
    """The rule as a method without a stage."""

    def trained(self, settings: Settings, stages: Sequence[Checkpoint]) -> Judge:
        """The rule; there is nothing to train."""
        return ContrastJudge()

    def loaded(self, settings: Settings, tensors: Mapping[str, Tensor], name: str) -> Judge:
        """The rule; a file of it holds no tensor."""
        return ContrastJudge()

    def probability(self, values: Tensor, settings: Settings) -> Tensor:
        """Contrast as a share: 0 for none, one half for `EVEN` spreads, to 1."""
        return values / (values + EVEN)

    def map_caption(self, settings: Settings) -> str:
        """The map is the contrast."""
        return (
            "It is how far the gray of each block lies from its surroundings, darker or brighter, "
            f"measured by the picture's own texture: one half is {EVEN:g} times its usual spread."
        )
