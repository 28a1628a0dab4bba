"""Copy-paste augmentation: a defect taken off its surface and laid upon another, good one.

After Ghiasi et al. 2021, who paste cut objects. What is pasted here is a difference in gray, so
that the new ground shows through.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

AROUND = 1 / 200
"""What belongs to a defect around its mask, as a share of the image's height."""


@dataclass(frozen=True)
class Defect:
    """What a defect adds to the surface that it lies on."""

    top: int  # where it lies, in pixels
    left: int
    contrast: Tensor  # float32 (h, w), gray levels; of one sign, 0 outside the defect
    mask: Tensor  # uint8 (h, w), as the surface's own

    def to(self, device: torch.device) -> "Defect":
        """The same defect in the memory of `device`."""
        return Defect(self.top, self.left, self.contrast.to(device), self.mask.to(device))


def lift(image: np.ndarray, mask: np.ndarray) -> Defect:
    """Take the defect off its surface; both uint8 (H, W). A mask of zeros gives one of no pixels.

    The surface under the defect is inpainted from its surroundings. The contrast is what is
    darker than that (or brighter, where the defect is brighter as a whole).
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


def turned(defect: Defect, degrees: float) -> Defect:
    """The defect turned to the left about its middle, even beyond the surface it came from."""
    rows, columns = defect.contrast.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    tall = math.ceil(abs(cos) * rows + abs(sin) * columns)
    wide = math.ceil(abs(cos) * columns + abs(sin) * rows)
    # Where each pixel comes from, in halves of the old size and of the new one.
    x_from = [cos * wide / columns, -sin * tall / columns, 0]
    y_from = [sin * wide / rows, cos * tall / rows, 0]
    both = torch.stack([defect.contrast, defect.mask.float()])[None]
    theta = torch.tensor([[x_from, y_from]], dtype=both.dtype, device=both.device)
    grid = functional.affine_grid(theta, [1, 2, tall, wide], align_corners=False)
    contrast, mask = functional.grid_sample(both, grid, align_corners=False)[0]
    top = round(defect.top + (rows - tall) / 2)
    left = round(defect.left + (columns - wide) / 2)
    return Defect(top, left, contrast, mask.round().to(torch.uint8))


def paste(defect: Defect, surface: Tensor, height: float, strength: float) -> tuple[Tensor, Tensor]:
    """Image and mask of a surface with the defect on it, as far from the left edge as on its own.

    What would lie beyond the surface's edges is left out.

    Args:
        surface: uint8 (1, 1, H, W), of the size of the defect's own and on its device; not changed.
        height: from 0, at the upper edge, to 1, at the lower.
        strength: what the contrast is multiplied by.
    """
    high, broad = surface.shape[2:]
    rows, columns = defect.contrast.shape
    top, left = round(height * (high - rows)), defect.left
    there = ..., slice(max(top, 0), top + rows), slice(max(left, 0), left + columns)
    part = slice(max(-top, 0), high - top), slice(max(-left, 0), broad - left)
    image, mask = surface.clone(), torch.zeros_like(surface)
    darker = image[there].float() + strength * defect.contrast[part]
    image[there] = darker.round().clamp(0, 255).to(torch.uint8)
    mask[there] = defect.mask[part]
    return image, mask
