"""From a file's bytes to gray pixels, by one rule and never more than the memory allows.

Colour is weighted to gray, transparency ignored, 16 bits scaled from their full range, and EXIF
rotation applied as every viewer does. Masks become booleans.
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ksdd_lib.errors import DataError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
MIN_SIDE = 16  # pixels; the smallest step of the networks
MAX_PIXELS = 64_000_000  # taken from the header, before any memory is given to the pixels
KINDS: dict[bytes, Callable[[io.BytesIO], ImageFile]] = {
    b"\xff\xd8": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
}
"""How a file starts -> what reads its header. Image.open refuses large ones without their size."""


def is_image(start: bytes) -> bool:
    """Whether a file that starts like this, with 16 bytes or more, is a JPEG, PNG or BMP image."""
    is_bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # text may start with BM
    return is_bmp or any(start.startswith(kind) for kind in KINDS if kind != b"BM")


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The gray image in a file's bytes, uint8 (H, W); DataError, with `name`, where it has none."""
    return _decode(data, name, cv2.IMREAD_GRAYSCALE)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """The annotated pixels in a file's bytes, bool (H, W), of levels {0, 1} or {0, 255} alone."""
    # The palette must be applied: KolektorSDD's masks hold indices {0, 1}, one of them {0, 1, 2}.
    levels = _decode(data, name, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    highest, half = int(levels.max()), np.iinfo(levels.dtype).max // 2
    if highest <= 1:
        return levels == 1
    if highest <= half:
        raise DataError(
            f"{name} is no mask of two levels: its brightest of {2 * half + 1} is {highest};"
            " store good as 0 and defective as 1 or 255"
        )
    return levels > half


def _decode(data: bytes, name: str, flags: int) -> np.ndarray:
    """Gray pixels (H, W) after a look at the header, so that no file can claim the memory."""
    kind = next((kind for start, kind in KINDS.items() if data.startswith(start)), None)
    if kind is None:
        start = f"starts with {data[:16]!r}" if data else "is empty"
        raise DataError(f"{name} is not a JPEG, PNG or BMP image: it {start}")
    damaged = DataError(f"{name} is damaged or cut off after {len(data):,} bytes")
    file = io.BytesIO(data)
    try:
        width, height = kind(file).size
    except (SyntaxError, OSError, ValueError):
        raise damaged from None
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} is {height}x{width} (height x width); allowed are sides from {MIN_SIDE} px"
            f" and at most {MAX_PIXELS // 10**6} megapixels"
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    # OpenCV fills the missing part of a JPEG with gray: its end mark must stand behind the header,
    # in which a thumbnail may have another one.
    if pixels is None or (kind is JpegImageFile and data.find(b"\xff\xd9", file.tell()) < 0):
        raise damaged
    return pixels
