"""Annotation types, and the soft targets of the segmentation network."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ksdd_lib.models.two_stage import STRIDE

POOL = 17
"""Side of the average pool that turns a mask into targets at 1/8, in pixels (Tabernik 2019)."""

PADDING = (4, 5, 4, 5)
"""Left, right, top and bottom border that centres each window on its block, in pixels."""


def annotate(mask: np.ndarray, annotation: str) -> np.ndarray:
    """The mask, bool (H, W) at the image's own size, as an annotator of this type draws it.

    Args:
        annotation: "fine", "dilated5" ... "dilated17" (pixels of the image; a diamond as in the
            published preparation), or "box" (each connected defect's upright rectangle, filled).
    """
    pixels = mask.astype(np.uint8)
    if annotation.startswith("dilated"):
        radius = (int(annotation.removeprefix("dilated")) - 1) // 2
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        return cv2.dilate(pixels, cross, iterations=radius).astype(bool)
    if annotation == "box":
        _, _, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
        boxes = np.zeros_like(mask)
        for x, y, width, height, _ in stats[1:]:
            boxes[y : y + height, x : x + width] = True
        return boxes
    return mask.astype(bool)


def soft_targets(masks: Tensor, binary: bool = False) -> Tensor:
    """Masks (B, K, H, W) in [0, 1] -> what the mask logits should say, (B, K, H/8, W/8) in [0, 1].

    It is the defect's share of the 17x17 window around the centre of each 8x8 block. What lies
    outside the image does not count. With `binary` it is 1 where that share is above 0.5, else 0.
    """
    total = F.avg_pool2d(F.pad(masks, PADDING), POOL, STRIDE)
    share = total / F.avg_pool2d(F.pad(torch.ones_like(masks), PADDING), POOL, STRIDE)
    return (share > 0.5).to(share.dtype) if binary else share


def segmentation_loss(mask_logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Mean loss over all mask pixels, (B, K, H/8, W/8), a scalar in float32.

    The kind is "cross_entropy" (of the sigmoid) or "mean_squared_error" (of the logits themselves,
    which have no sigmoid in this variant, as published).
    """
    if kind == "cross_entropy":
        return F.binary_cross_entropy_with_logits(mask_logits.float(), targets)
    return F.mse_loss(mask_logits.float(), targets)


def probability(mask_logits: Tensor, kind: str) -> Tensor:
    """What mask logits trained with a loss of this kind say of each pixel, in [0, 1]."""
    return mask_logits.sigmoid() if kind == "cross_entropy" else mask_logits.clamp(0, 1)


def decision_loss(score_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the scores (B, K) against the labels (B, K): a scalar in float32."""
    return F.binary_cross_entropy_with_logits(score_logits.float(), labels)
