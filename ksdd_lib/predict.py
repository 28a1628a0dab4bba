"""One image in; score, verdict and mask out: what a trained model is for.

detector = predict.load("cpu-clean.safetensors")
detector.judge("part.jpg").label
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ksdd_lib import evaluate, targets, weights
from ksdd_lib.batches import FLIPS
from ksdd_lib.dataset import read_image
from ksdd_lib.errors import DataError
from ksdd_lib.model import TwoStageNet
from ksdd_lib.settings import parse_size

LEAST_CONTRAST = 1.0
"""Standard deviation of a surface's gray levels, of 255; KolektorSDD's lie above 14. Below it there
is nothing to see, and feature normalisation would amplify the noise into a verdict."""


@dataclass(frozen=True)
class Verdict:
    """What the model says about one image.

    Attributes:
        label: "defective", "good", or "not a surface" for a frame without contrast.
        score: logit of the decision network; None for no surface.
        mask: probability of a defect at each pixel of the image, float32 (H, W); None likewise.
    """

    label: str
    score: float | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Detector:
    """A trained model and how to use it.

    Attributes:
        size: the network's input, (H, W) in pixels; every image is resized to it.
        threshold: a surface is defective where its score is strictly greater.
        views: of `batches.FLIPS`, over which scores and masks are averaged.
        segmentation_loss: what the mask was trained with, which decides how to read it.
    """

    model: TwoStageNet
    size: tuple[int, int]
    threshold: float
    views: tuple[int, ...] = (0,)
    segmentation_loss: str = "cross_entropy"
    precision: str = "auto"

    def judge(self, image: np.ndarray | Path | str) -> Verdict:
        """Judge one image.

        Args:
            image: gray uint8 (H, W), or the path of a JPEG, PNG or BMP file.

        Raises:
            DataError: the file cannot be read, or the array is no gray uint8 image.
        """
        if not isinstance(image, np.ndarray):
            image = read_image(image)
        if image.ndim != 2 or image.dtype != np.uint8:
            raise DataError(
                f"The image is {image.dtype} of shape {image.shape}: it must be uint8 (H, W), gray."
            )
        if image.std() < LEAST_CONTRAST:
            return Verdict("not a surface")
        height, width = self.size
        pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        where = next(self.model.parameters()).device
        tensor = torch.from_numpy(pixels)[None, None].to(where)
        score, mask = evaluate.judge(self.model, tensor, self.precision, self.views)
        share = targets.probability(mask, self.segmentation_loss).cpu().numpy()
        full = cv2.resize(share, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        label = "defective" if float(score) > self.threshold else "good"
        return Verdict(label, float(score), full)


def load(path: Path | str) -> Detector:
    """The detector of a published weights file; see `weights.load` for what it raises."""
    model, card = weights.load(Path(path))
    return Detector(
        model,
        parse_size(card["image_size"]),
        card["threshold"],
        FLIPS if card["average_flips"] else (0,),
        card["segmentation_loss"],
    )
