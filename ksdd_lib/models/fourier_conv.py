"""A large convolution on a CPU, in the frequency domain: the same sums in a fraction of the work.

The 15x15 layer holds two thirds of the network's multiplications. On overlapping tiles it is a
product of spectra (Mathieu et al. 2013, "Fast Training of Convolutional Networks through FFTs";
tiled: Vasilache et al. 2015, "Fast Convolutional Nets With fbfft"). The transforms are short, so
that two matrix products are faster than a library's FFT. They also run in bfloat16.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 1024
"""Output pixels up to which the direct sum is faster: the weights' spectrum takes its time."""


class FourierConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1, odd kernel, same size and no bias: (B, C, H, W) -> (B, out, H, W).

    Weights, results and gradients are those of `nn.Conv2d`, to rounding. On a GPU, on small maps
    and in an exported or compiled graph it is `nn.Conv2d`.
    """

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)
        self._kept: tuple[tuple, Tensor] | None = None
        self._shared: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if is_direct(x.shape[0] * x.shape[2] * x.shape[3], x.device.type) or in_graph():
            return super().forward(x)
        return convolve(x, self._spectrum(x), self.kernel_size[0])

    def _spectrum(self, x: Tensor) -> Tensor:
        """The weights' spectrum in the type of `x`, kept as long as the weights stand still."""
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            self._kept = None
            if self._shared is None:
                return weight_spectrum(self.weight.to(x.dtype))
            if not self._shared:  # one with its gradient, for all forwards
                spectrum = weight_spectrum(self.weight.to(x.dtype))
                self._shared.append((spectrum, spectrum.detach().requires_grad_()))
            return self._shared[0][1]
        key = (x.dtype, self.weight.data_ptr(), self.weight._version)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, weight_spectrum(self.weight.to(x.dtype))
        return self._kept[1]


@contextmanager
def shared_spectra(model: nn.Module) -> Iterator[None]:
    """Transform the weights once for all forwards and backwards within, as a batch's images are.

    The weights must stand still within; their gradient is there once it is left.
    """
    layers = [module for module in model.modules() if isinstance(module, FourierConv2d)]
    for layer in layers:
        layer._shared = []
    try:
        yield
        for layer in layers:
            for spectrum, leaf in layer._shared or ():
                if leaf.grad is not None:
                    spectrum.backward(leaf.grad)
    finally:
        for layer in layers:
            layer._shared = None


def is_direct(pixels: int, device: str) -> bool:
    """Whether a map of so many pixels, batch included, is summed directly on this device."""
    return device != "cpu" or pixels <= SMALL


def in_graph() -> bool:
    """Whether an export or a compiler is looking, which should see the plain layers."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


class Transposed(torch.autograd.Function):
    """(m, n) -> (n, m), moved in memory at once, forth and back.

    Autograd would move the weights' gradient element by element: an eighth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.t().contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.t().contiguous()


def weight_spectrum(weight: Tensor) -> Tensor:
    """Weights (out, C, K, K) -> spectrum (frequencies, 2C, out): real parts, then imaginary."""
    out, channels, kernel, _ = weight.shape
    dft = transforms(kernel, weight.dtype)
    rows = Transposed.apply(weight.permute(0, 2, 3, 1).reshape(out, -1))
    x = torch.mm(dft.half[:, :kernel], rows.reshape(kernel, -1))
    x = x.reshape(dft.bins, 2 * kernel, channels * out)
    x = torch.matmul(dft.full[:, :, :kernel].flatten(1), x)
    return x.reshape(-1, 2 * channels, out)


def convolve(x: Tensor, spectrum: Tensor, kernel: int) -> Tensor:
    """The same-size convolution of (B, C, H, W) with weights given by `weight_spectrum`.

    Each tile of 2K x 2K input pixels gives the K+1 x K+1 outputs that its circular convolution does
    not touch the ends of (overlap-save).
    """
    batch, channels, height, width = x.shape
    out, step, pad = spectrum.shape[2], kernel + 1, kernel // 2
    down, across = -(-height // step), -(-width // step)
    tiles = batch * down * across
    dft = transforms(kernel, x.dtype)
    border = (0, 0, pad, across * step + pad - width, pad, down * step + pad - height)
    x = F.pad(x.permute(0, 2, 3, 1), border)  # (B, H, W, C)
    x = x.unfold(1, 2 * kernel, step).unfold(2, 2 * kernel, step)  # (B, down, across, C, y, x)
    x = x.permute(4, 5, 0, 1, 2, 3).reshape(2 * kernel, -1)
    x = torch.mm(dft.half, x).reshape(dft.bins, 4 * kernel, tiles * channels)
    x = torch.matmul(dft.full.flatten(1), x)
    real, imaginary = x.reshape(-1, 2, tiles, channels).unbind(1)

    # A correlation, as "convolution" means in networks: times the conjugate of the weights.
    above, below = torch.cat([real, imaginary], 2), torch.cat([imaginary, -real], 2)
    x = torch.bmm(torch.cat([above, below], 1), spectrum)  # (frequencies, 2 * tiles, out)

    x = x.reshape(dft.bins, 4 * kernel, tiles * out)
    x = torch.matmul(dft.inverse_full, x).reshape(dft.bins, step, 2, tiles * out)
    x = torch.mm(dft.inverse_half, x.transpose(1, 2).reshape(2 * dft.bins, -1))
    x = x.reshape(step, step, batch, down, across, out).permute(2, 3, 0, 4, 1, 5)
    x = x.reshape(batch, down * step, across * step, out)[:, :height, :width]
    return x.permute(0, 3, 1, 2)


class Transforms(NamedTuple):
    """The discrete Fourier transform of a T x T tile and its inverse, as real matrices.

    The rows' transform keeps `bins` = T/2 + 1 frequencies, the rest mirrors them. A 2 stands for
    (real, imaginary), n for the outputs kept.
    """

    bins: int
    half: Tensor  # (bins * 2, T): along y, real to complex
    full: Tensor  # (T * 2, 2, T): along x, complex to complex
    inverse_full: Tensor  # (n * 2, T * 2): back along x
    inverse_half: Tensor  # (n, bins * 2): back along y, complex to real


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept for training too, even where scoring asks first
def transforms(kernel: int, dtype: torch.dtype) -> Transforms:
    """The transforms of tiles twice as large as the kernel."""
    side, step, bins = 2 * kernel, kernel + 1, kernel + 1
    place = torch.arange(side, dtype=torch.float64)
    wave = torch.polar(torch.ones(()).double(), -2 * math.pi / side * (place[:, None] * place))
    mirrored = torch.full((bins, 1), 2.0, dtype=torch.float64)
    mirrored[[0, -1]] = 1.0
    forward, back = _as_real(wave), _as_real(wave.conj()[:step] / side)
    matrices = (
        forward[:bins, :, :, 0].flatten(0, 1),
        forward.flatten(0, 1).transpose(1, 2),
        back.flatten(2, 3).flatten(0, 1),
        (back[:, 0, :bins] * mirrored).flatten(1),
    )
    return Transforms(bins, *(matrix.to(dtype).contiguous() for matrix in matrices))


def _as_real(matrix: Tensor) -> Tensor:
    """A complex matrix (m, n) -> the real one of the same product: (m, 2, n, 2)."""
    real, imaginary = matrix.real, matrix.imag
    rows = torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)
    return torch.stack(rows, 1)
