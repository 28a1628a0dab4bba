"""What the speed of ksdd_lib is compared with: the plain formulation, and its bare convolutions.

Plain is the network as the literature writes it: float32, the contiguous layout, textbook modules,
a data loader that reads files, the whole batch at once. Its parameters have the names of
ksdd_lib.models.two_stage's, so the same weights load into both and must give the same results.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.methods.two_stage import untrained_segmentation
from ksdd_lib.models.fourier_conv import FourierConv2d
from ksdd_lib.models.two_stage import FEATURES, TwoStageNet, initialize
from ksdd_lib.settings import Settings
from ksdd_lib.training.batches import Order
from ksdd_lib.training.targets import annotate, segmentation_loss, soft_targets


class PlainNorm(nn.Module):
    """Normalise each channel of each image, then scale and shift: (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        variance = x.var((2, 3), unbiased=False, keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + 1e-3)
        return normal * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)


def block(channels: int, out: int, kernel: int) -> nn.Sequential:
    """Convolution, normalisation, ReLU: (B, channels, H, W) -> (B, out, H, W)."""
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, PlainNorm(out), nn.ReLU())


class PlainSegmentation(nn.Module):
    """(B, 1, H, W) -> features (B, 1024, H/8, W/8) and mask logits (B, 1, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(1, 32, 5),
            block(32, 32, 5),
            nn.MaxPool2d(2),
            *[block(channels, 64, 5) for channels in (32, 64, 64)],
            nn.MaxPool2d(2),
            *[block(64, 64, 5) for _ in range(4)],
            nn.MaxPool2d(2),
            block(64, FEATURES, 15),
        )
        self.mask = nn.Conv2d(FEATURES, 1, 1, bias=False)
        self.mask_norm = PlainNorm(1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(image)
        return features, self.mask_norm(self.mask(features))


class PlainDecision(nn.Module):
    """Features (B, 1024, H/8, W/8), mask logits (B, 1, H/8, W/8) -> score logits (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.features = nn.Sequential(
            block(FEATURES + 1, 8, 5),
            nn.MaxPool2d(2),
            block(8, 16, 5),
            nn.MaxPool2d(2),
            block(16, 32, 5),
        )
        self.score = nn.Linear(66, 1)

    def forward(self, features: Tensor, mask_logits: Tensor) -> Tensor:
        mask = torch.relu(mask_logits)
        x = self.features(self.pool(torch.cat([features, mask], dim=1)))
        pools = [x.mean((2, 3)), x.amax((2, 3)), mask.mean((2, 3)), mask.amax((2, 3))]
        return self.score(torch.cat(pools, dim=1))


class PlainTwoStage(nn.Module):
    """Image (B, 1, H, W) -> mask logits (B, 1, H/8, W/8), score logits (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.segmentation = PlainSegmentation()
        self.decision = PlainDecision()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, mask_logits = self.segmentation(image)
        return mask_logits, self.decision(features, mask_logits)


class Files(Dataset):
    """Image and mask of a sample, read anew each time: two (1, H, W) float32 in [0, 1]."""

    def __init__(self, samples: Sequence[Sample], settings: Settings) -> None:
        self.samples, self.settings = samples, settings

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[row]
        mask = annotate(read_mask(sample), self.settings.annotation).astype(np.uint8) * 255
        return self._tensor(read_image(sample)), self._tensor(mask)

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        height, width = self.settings.size
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(resized)[None].float() / 255


def first_weights(settings: Settings) -> TwoStageNet:
    """Both networks of ksdd_lib as their training starts, on the CPU."""
    model = TwoStageNet(untrained_segmentation(settings))
    initialize(model.decision, settings.initialization, settings.seed)
    return model


def load(
    samples: Sequence[Sample],
    rows: Iterable[int],
    batch: int,
    settings: Settings,
    workers: int,
    where: torch.device,
) -> DataLoader:
    """Batches of the samples with the numbers `rows`, which may never end."""
    pin = where.type == "cuda"
    files = Files(samples, settings)
    return DataLoader(files, batch, sampler=rows, num_workers=workers, pin_memory=pin)


def trainer(
    samples: Sequence[Sample], order: Order, settings: Settings, workers: int, where: torch.device
) -> Callable[[], float]:
    """A function that takes the next training step of the first stage and returns its loss."""
    model = PlainSegmentation()
    model.load_state_dict(untrained_segmentation(settings).state_dict())
    model.to(where)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[settings.segmentation_optimizer]
    optimizer = kind(model.parameters(), lr=settings.segmentation_learning_rate)
    rows = (shown.row for step in itertools.count() for shown in order.shown(step))
    batches = iter(load(samples, rows, order.batch_size, settings, workers, where))
    kind_of_loss = settings.segmentation_loss

    def step() -> float:
        images, masks = (pixels.to(where, non_blocking=True) for pixels in next(batches))
        _, mask_logits = model(images)
        targets = soft_targets(masks, kind_of_loss == "mean_squared_error")
        loss = segmentation_loss(mask_logits, targets, kind_of_loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def scorer(
    samples: Sequence[Sample], batch: int, settings: Settings, workers: int, where: torch.device
) -> Callable[[], list[float]]:
    """A function that scores the next `batch` samples, over and over: score logits."""
    model = PlainTwoStage()
    model.load_state_dict(first_weights(settings).state_dict())
    model.to(where).eval()
    rows = itertools.cycle(range(len(samples)))
    batches = iter(load(samples, rows, batch, settings, workers, where))

    @torch.no_grad()
    def score() -> list[float]:
        images, _ = next(batches)
        _, scores = model(images.to(where, non_blocking=True))
        return scores[:, 0].tolist()

    return score


class Shape(NamedTuple):
    """A convolution as an image meets it: its kernel, and the size of its maps in pixels."""

    channels: int
    out: int
    kernel: int
    height: int
    width: int


def convolutions(height: int, width: int) -> tuple[list[Shape], list[Shape]]:
    """The convolutions of the segmentation and of the decision network, for one input size."""
    model = PlainTwoStage()
    segmentation = [*model.segmentation.features, [model.segmentation.mask]]
    decision = [nn.MaxPool2d(2), *model.decision.features]
    found: list[Shape] = []
    for part in [*segmentation, *decision]:
        if isinstance(part, nn.MaxPool2d):
            height, width = height // 2, width // 2
        else:
            layer = part[0]
            kernel = layer.kernel_size[0]
            found.append(Shape(layer.in_channels, layer.out_channels, kernel, height, width))
    count = len(found) - 3
    return found[:count], found[count:]


def bare_convolutions(
    size: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
    where: torch.device,
    training: bool,
    fourier: bool = False,
) -> Callable[[], None]:
    """A function that does the convolutions of a whole batch and nothing else, channels last.

    Args:
        size: (H, W) of the input, in pixels.
        dtype: of the first network; the second computes in float32, as ksdd_lib's does.
        training: the first network, and all gradients but the image's; else both networks forward.
        fourier: with the 15x15 layer in the frequency domain.
    """
    first, second = convolutions(*size)
    kinds = [(shape, dtype) for shape in first]
    kinds += [] if training else [(shape, torch.float32) for shape in second]
    work = [_layer(shape, batch, kind, where, fourier) for shape, kind in kinds]

    def forward() -> None:
        with torch.inference_mode():
            for layer, x, _ in work:
                layer(x)

    def both_ways() -> None:
        for layer, x, gradient in work:
            wanted = [x, layer.weight] if layer.in_channels > 1 else [layer.weight]
            torch.autograd.grad(layer(x), wanted, gradient)

    return both_ways if training else forward


def _layer(
    shape: Shape, batch: int, dtype: torch.dtype, where: torch.device, fourier: bool
) -> tuple[nn.Conv2d, Tensor, Tensor]:
    """A convolution, an input (B, channels, H, W) and a gradient of its output (B, out, H, W)."""
    channels, out, kernel, height, width = shape
    if fourier and kernel >= 15:
        layer: nn.Conv2d = FourierConv2d(channels, out, kernel)
    else:
        layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    how = {"device": where, "dtype": dtype, "memory_format": torch.channels_last}
    x = torch.rand(batch, channels, height, width).to(**how).requires_grad_(channels > 1)
    return layer.to(**how), x, torch.rand(batch, out, height, width).to(**how)
