"""The two networks of Tabernik et al. 2019, exactly: segmentation, then decision."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ksdd_lib.image_size import nearest_size
from ksdd_lib.models.fourier_conv import FourierConv2d, in_graph

STRIDE = 8
"""Input pixels per mask pixel, in each direction."""

FEATURES = 1024
"""Channels that the segmentation network hands to the decision network beside the mask."""


class FeatureNorm(nn.Module):
    """Normalise each channel of each image to zero mean and unit variance, then scale and shift.

    (B, C, H, W) -> (B, C, H, W). Statistics are those of the one image, in float32, in training and
    in evaluation. A batch of one goes through `batch_norm`, which is then the same function and
    keeps the channels-last layout.
    """

    epsilon = 1e-3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return F.batch_norm(x, None, None, self.scale, self.shift, True, 0.0, self.epsilon)
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=self.epsilon)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, feature normalisation, ReLU: (B, C, H, W) -> (B, out, H, W)."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        if kernel >= 15:
            convolution: nn.Conv2d = FourierConv2d(channels, out, kernel)
        else:
            convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, FeatureNorm(out), nn.ReLU(inplace=True))


class MaxPool(nn.MaxPool2d):
    """The largest of each 2x2 pixels: (B, C, H, W) -> (B, C, H/2, W/2).

    Scoring on a CPU skips the places that `nn.MaxPool2d` notes for gradients at a high cost.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or in_graph():
            return super().forward(x)
        x = x.permute(0, 2, 3, 1)
        rows = torch.maximum(x[:, 0:-1:2], x[:, 1::2])
        return torch.maximum(rows[:, :, 0:-1:2], rows[:, :, 1::2]).permute(0, 3, 1, 2)


class SegmentationNet(nn.Module):
    """First stage: where is a defect?

    (B, 1, H, W), gray in [0, 1], both sides divisible by 16 and at least 128
    -> features (B, 1024, H/8, W/8) and mask logits (B, K, H/8, W/8), one for each of K classes of
    defects. The paper has one class, and normalises the mask. Without `mask_norm` it has a bias.
    """

    def __init__(self, classes: int = 1, mask_norm: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormReLU(1, 32, 5),
            ConvNormReLU(32, 32, 5),
            MaxPool(),
            ConvNormReLU(32, 64, 5),
            ConvNormReLU(64, 64, 5),
            ConvNormReLU(64, 64, 5),
            MaxPool(),
            ConvNormReLU(64, 64, 5),
            ConvNormReLU(64, 64, 5),
            ConvNormReLU(64, 64, 5),
            ConvNormReLU(64, 64, 5),
            MaxPool(),
            ConvNormReLU(64, FEATURES, 15),
        )
        self.mask = nn.Conv2d(FEATURES, classes, 1, bias=not mask_norm)
        self.mask_norm = FeatureNorm(classes) if mask_norm else nn.Identity()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        require_size(*image.shape[-2:])
        features = self.features(image)
        return features, self.mask_norm(self.mask(features).float())


def segmentation_like(weights: Mapping[str, Tensor], prefix: str = "") -> SegmentationNet:
    """A network of the shape that weights are of; the paper's where they are of something else."""
    mask = weights.get(f"{prefix}mask.weight")
    classes = len(mask) if mask is not None and mask.ndim == 4 else 1
    return SegmentationNet(max(1, classes), f"{prefix}mask.bias" not in weights)


class DecisionNet(nn.Module):
    """Second stage: is the part defective?

    features (B, 1024, H/8, W/8), mask logits (B, K, H/8, W/8) -> score logits (B, K).
    `pool` has no weights, so that a frozen first stage needs it once an image. `judge` computes
    in float32, so that scores do not tie.
    """

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormReLU(FEATURES + classes, 8, 5),
            MaxPool(),
            ConvNormReLU(8, 16, 5),
            MaxPool(),
            ConvNormReLU(16, 32, 5),
        )
        self.score = nn.Linear(64 + 2 * classes, classes)

    def forward(self, features: Tensor, mask_logits: Tensor) -> Tensor:
        return self.judge(*self.pool(features, mask_logits))

    @staticmethod
    def pool(features: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """-> the pooled stack (B, 1024 + K, H/16, W/16) and the masks' global pools (B, 2 K)."""
        mask = F.relu(mask_logits)
        pools = torch.cat([mask.mean((2, 3)), mask.amax((2, 3))], dim=1)
        pooled = F.max_pool2d(features, 2), F.max_pool2d(mask, 2).to(features.dtype)
        return torch.cat(pooled, dim=1), pools

    def judge(self, stack: Tensor, mask_pools: Tensor) -> Tensor:
        """Pooled stack (B, 1024 + K, H/16, W/16), mask pools (B, 2 K) -> score logits (B, K)."""
        with torch.autocast(stack.device.type, enabled=False):
            x = self.features(stack.float())  # (B, 32, H/64, W/64)
            pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3)), mask_pools.float()], dim=1)
            return self.score(pooled)


class TwoStageNet(nn.Module):
    """Both stages: image (B, 1, H, W) -> mask logits (B, K, H/8, W/8), score logits (B, K).

    The gradient of the score stops here, so that it never changes the segmentation network.
    """

    def __init__(self, segmentation: SegmentationNet | None = None) -> None:
        super().__init__()
        self.segmentation = segmentation or SegmentationNet()
        self.decision = DecisionNet(self.segmentation.mask.out_channels)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, mask_logits = self.segmentation(image)
        return mask_logits, self.decision(features.detach(), mask_logits.detach())


def require_size(height: int, width: int) -> None:
    """Raise ValueError, naming the nearest valid size, unless the networks take (height, width)."""
    if (height, width) != nearest_size(height, width):
        raise ValueError(
            f"image size {height}x{width}: both sides must be divisible by 16, at least 128 and at "
            "most 4096; try {}x{}".format(*nearest_size(height, width))
        )


def initialize(model: nn.Module, method: str, seed: int) -> None:
    """Draw all convolution and linear weights anew, in place, from `seed`.

    The method "normal" is N(0, 0.01), as published in 2019. "kaiming" keeps the variance through
    ReLU, so that the epsilon of feature normalisation plays no part at the start.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if method == "normal":
                nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def expect_defects(model: SegmentationNet, share: float) -> None:
    """Let the untrained mask say "a defect is this likely" everywhere, in place.

    From a probability of one half, AdamW would lower the loss by shrinking the whole map to a
    single spike. Source: the prior of Lin et al. 2017, "Focal Loss", section 3.3.
    """
    norm = model.mask_norm
    offset = norm.shift if isinstance(norm, FeatureNorm) else model.mask.bias
    assert offset is not None
    nn.init.constant_(offset, math.log(share / (1 - share)))
