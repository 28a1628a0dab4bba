"""Copy-paste augmentation: a defect taken off its surface and laid upon another, good one.

A few dozen cracks on a few dozen grounds teach a network these very pictures; the same cracks on
hundreds of grounds, some of them faint, teach it cracks (after Ghiasi et al. 2021, who paste cut
objects; what is pasted here is a difference in gray, so that the new ground shows through).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

AROUND = 1 / 200
"""What belongs to a defect around its mask, as a share of the image's height."""


@dataclass(frozen=True)
class Defect:
    """What a defect adds to the surface that it lies on.

    Attributes:
        top, left: where it lies, in pixels.
        contrast: float32 (h, w), gray levels; of one sign, 0 outside the defect.
        mask: uint8 (h, w), as the surface's own.
    """

    top: int
    left: int
    contrast: Tensor
    mask: Tensor


def lift(image: np.ndarray, mask: np.ndarray) -> Defect:
    """Take the defect off its surface.

    The surface under the defect is inpainted from its surroundings; the contrast is what is
    darker than that (or brighter, where the defect is brighter as a whole).

    Args:
        image: gray uint8 (H, W).
        mask: uint8 (H, W), 0 where there is no defect; all 0 gives a defect of no pixels.
    """
    side = 2 * max(1, round(AROUND * len(image) / 2)) + 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    region = cv2.dilate((mask > 0).astype(np.uint8), ellipse)
    ground = cv2.inpaint(image, region, 3, cv2.INPAINT_TELEA)
    contrast = image.astype(np.float32) - ground
    sign = 1 if contrast[mask > 0].sum() > 0 else -1
    soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), side / 3)
    contrast = sign * np.maximum(sign * contrast, 0) * np.minimum(1.5 * soft, 1) * region
    left, top, width, height = cv2.boundingRect(region)
    box = slice(top, top + height), slice(left, left + width)
    return Defect(top, left, torch.from_numpy(contrast[box]), torch.from_numpy(mask[box].copy()))


def paste(defect: Defect, surface: Tensor, height: float, strength: float) -> tuple[Tensor, Tensor]:
    """Lay the defect upon a surface, as far from its left edge as it was on its own.

    Args:
        surface: uint8 (1, 1, H, W), of the size of the defect's own and on its device; not changed.
        height: from 0, at the upper edge, to 1, at the lower.
        strength: what the contrast is multiplied by.

    Returns:
        Image and mask, uint8 (1, 1, H, W).
    """
    rows, columns = defect.contrast.shape
    top = round(height * (surface.shape[2] - rows))
    box = ..., slice(top, top + rows), slice(defect.left, defect.left + columns)
    image, mask = surface.clone(), torch.zeros_like(surface)
    darker = image[box].float() + strength * defect.contrast
    image[box] = darker.round().clamp(0, 255).to(torch.uint8)
    mask[box] = defect.mask
    return image, mask
