"""From a file's bytes to gray pixels, by one rule and never more than the memory allows.

One gray channel of 8 bits: colour is weighted to gray, transparency ignored, 16 bits scaled from
their full range, EXIF rotation applied as every viewer does. Masks become booleans.
"""

import cv2
import numpy as np

from ksdd_lib.errors import DataError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
OTHER_EXTENSIONS = (".tif", ".tiff", ".heic", ".heif", ".gif", ".webp", ".avif", ".jp2", ".dng")
"""Pictures, too, but of kinds that are not read."""
MIN_SIDE = 16  # pixels; the smallest step of the networks
MAX_PIXELS = 64_000_000  # taken from the header, before any memory is given to the pixels


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The gray image in a file's bytes, uint8 (H, W); `name` stands in the errors.

    Raises:
        DataError: the bytes are damaged, not an image, too small or too large.
    """
    return _decode(data, name, cv2.IMREAD_GRAYSCALE)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """The annotated pixels in a file's bytes, bool (H, W): {0, 1} or {0, 255}, palette or not.

    Raises:
        DataError: as `decode_image`, or the gray levels mean neither {0, 1} nor {0, 255}.
    """
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
    size = _header_size(data)
    if size is None:
        start = f"starts with {data[:16]!r}" if data else "is empty"
        raise DataError(f"{name} is not a JPEG, PNG or BMP image: it {start}")
    width, height = size
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} is {height}x{width} (height x width); allowed are sides from {MIN_SIDE} px"
            f" and at most {MAX_PIXELS // 10**6} megapixels"
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or _is_cut_jpeg(data):
        raise DataError(f"{name} is damaged or cut off after {len(data):,} bytes")
    return pixels


def _header_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as a file's header claims, or None where it is no JPEG, PNG or BMP."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data[:2] == b"BM" and len(data) >= 26:  # a negative height stores the rows top down
        width, height = (
            int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22)
        )
        return width, abs(height)
    if data[:2] == b"\xff\xd8":
        start = _jpeg_frame(data)
        if start is not None:
            return int.from_bytes(data[start + 7 : start + 9]), int.from_bytes(
                data[start + 5 : start + 7]
            )
    return None


def _jpeg_frame(data: bytes) -> int | None:
    """Where a JPEG's start-of-frame segment begins, which holds its size."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return position
        is_fill = marker == 0xFF
        position += 1 if is_fill else 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG's end mark is absent: OpenCV 4 fills the missing part with gray, unasked."""
    start = _jpeg_frame(data) if data[:2] == b"\xff\xd8" else None
    return start is not None and data.find(b"\xff\xd9", start) < 0
