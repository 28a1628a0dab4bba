"""The input size of the networks: which sizes they take, and which distort a picture."""

import math
import re

from ksdd_lib.errors import SettingsError


def parse_size(text: str, name: str = "image_size") -> tuple[int, int]:
    """ "1408x512" -> (1408, 512); SettingsError where the networks cannot take such a size.

    The name is that of the setting, for the error.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*[x×]\s*(\d{1,6})\s*", str(text))
    if not match:
        raise SettingsError(f"{name} is {text!r}; write HEIGHTxWIDTH, for example 704x256.")
    size = int(match[1]), int(match[2])
    if size != nearest_size(*size):
        raise SettingsError(
            f"{name} is {text}; both sides must be divisible by 16, at least 128 and at most "
            "4096. Try {}x{}.".format(*nearest_size(*size))
        )
    return size


def nearest_size(height: float, width: float) -> tuple[int, int]:
    """The size nearest to (height, width) that the networks take, in pixels."""
    height, width = (min(4096, max(128, 16 * round(side / 16))) for side in (height, width))
    return height, width


def is_squeezed(shape: tuple[int, int], size: tuple[float, float]) -> bool:
    """Whether a picture of `shape` (H, W) is distorted at `size` by a factor of more than 1.3."""
    ratio = (shape[0] / shape[1]) / (size[0] / size[1])
    return max(ratio, 1 / ratio) > 1.3


def size_like(height: int, width: int, area: int) -> tuple[int, int]:
    """A size that the networks take, like (height, width), of about `area` pixels or the least."""
    scale = max(math.sqrt(area / (height * width)), 128 / min(height, width))
    return nearest_size(scale * height, scale * width)
