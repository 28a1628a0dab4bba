"""From a file's bytes to gray pixels, by one rule and never more than the memory allows.

Colour is weighted to gray, transparency ignored, 16 bits scaled from their full range, and EXIF
rotation applied as every viewer does. Masks become booleans.
"""

import contextlib
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ksdd_lib.errors import DataError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
MIN_SIDE = 16  # pixels; the smallest step of the networks
MAX_SIDE = 1_000_000  # what libpng reads; OpenCV reads 2**20
MAX_PIXELS = 64_000_000  # taken from the header, before any memory is given to the pixels
KINDS: dict[bytes, Callable[[io.BytesIO], ImageFile]] = {
    b"\xff\xd8": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
}
"""How a file starts -> what reads its header. Image.open refuses large ones without their size."""

WARNING = re.compile(
    rb"(?:Corrupt JPEG|Premature end of JPEG|Inconsistent progression|Invalid SOS|Unknown Adobe"
    rb"|Warning: unknown JFIF)[ -~]*\r?\n"
)
"""The warnings of libjpeg, which writes only the first one for an image."""
_ERROR_OUTPUT = threading.Lock()


def is_image(start: bytes) -> bool:
    """Whether a file that starts like this, with 16 bytes or more, is a JPEG, PNG or BMP image."""
    is_bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # text may start with BM
    return is_bmp or any(start.startswith(kind) for kind in KINDS if kind != b"BM")


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The gray image in a file's bytes, uint8 (H, W); DataError, with `name`, where it has none."""
    return _decode(data, name, cv2.IMREAD_GRAYSCALE)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """The annotated pixels in a file's bytes, bool (H, W); DataError as `decode_levels`."""
    return decode_levels(data, name)[0]


def decode_levels(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """The annotated pixels in a file's bytes, bool (H, W), and the levels that tell them: "0, 255".

    DataError, with what was found, where anything is there but black and one white, which is 1, 255
    or 65535. Only along the outlines may levels lie between, if they are smoothed.
    """
    # The palette is applied: KolektorSDD's masks hold indices {0, 1}, one of them {0, 1, 2}.
    pixels = _decode(data, name, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    _check_hidden(data, name)
    levels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])
    if pixels.ndim == 3 and (pixels != levels[..., None]).any():
        colours = Image.open(io.BytesIO(data)).convert("RGB").getcolors(5) or [(0, "many")]
        raise _no_mask(name, "colours (red, green, blue): " + ", ".join(str(c) for _, c in colours))
    end = int(levels.max()) + 1
    counts = cv2.calcHist([levels], [0], None, [end], [0, end]).ravel()
    seen, white = np.flatnonzero(counts).tolist(), end - 1
    between = [level for level in seen if 0 < level < white]
    if white not in (0, 1, 255, 65535) or (
        between and not _is_smoothed(levels, white, counts[between])
    ):
        many = f"{len(seen)} levels from {seen[0]} to {white}"
        raise _no_mask(name, many if len(seen) > 8 else f"levels {', '.join(map(str, seen))}")
    words = ", ".join(str(level) for level in seen if level not in between)
    return levels > white // 2, words + ", smoothed" * bool(between)


CUTS = (0.25, 0.5)  # of white: between them no thin part of a smoothed mask may break or vanish


def _is_smoothed(levels: np.ndarray, white: int, between: np.ndarray) -> bool:
    """Whether the levels between black and white, with these counts, only smooth an outline.

    Cut lower or higher, it has as many pieces. All such pixels lie within 16 px of an outline, as
    where a mask was stored with loss. Each that is neither nearly black nor nearly white has both
    within 3 px, but for one in a hundred. All are very few, or of several levels.
    """
    dark, light = levels <= 0.1 * white, levels >= 0.9 * white
    near, far = (_meet(dark, light, reach) for reach in (3, 16))
    if ((levels > 0) & (levels < white) & ~far).any():
        return False
    few = 0.01 * np.count_nonzero(levels == white)
    pieces = {cv2.connectedComponents((levels > cut * white).astype(np.uint8))[0] for cut in CUTS}
    if np.count_nonzero(~(dark | light | near)) > few or len(pieces) > 1:
        return False
    is_few = between.sum() <= few
    return bool(is_few or between.max() <= between.sum() / 2)


def _meet(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Where both are within so many pixels, bool (H, W)."""
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.logical_and(
        *(cv2.dilate(one.astype(np.uint8), around) > 0 for one in (first, second))
    )


def _check_hidden(data: bytes, name: str) -> None:
    """Raise DataError where a file's pixels, as they are seen, are not what they are stored as."""
    with Image.open(io.BytesIO(data)) as image:
        if image.has_transparency_data:
            is_known = image.mode in ("P", "LA", "PA", "RGBA")
            alpha = image.convert("RGBA").getchannel("A").getextrema() if is_known else (0, 255)
            if alpha != (255, 255):
                raise _no_mask(name, "transparency (alpha {} to {})".format(*alpha))
        if image.mode == "P":
            palette, used = image.getpalette() or [], np.flatnonzero(image.histogram())
            colours = {tuple(palette[3 * index : 3 * index + 3]) for index in used}
            if len(colours) < len(used):
                indices = ", ".join(map(str, used))
                raise _no_mask(name, f"palette indices {indices}, some of the same colour")


def _no_mask(name: str, found: str) -> DataError:
    return DataError(
        f"{name} is no mask of two levels, as it holds {found}: store good as 0 and defective as"
        " 255 (or 1), without colours, transparency and soft edges",
        see="labels#alpha",
    )


def orientation(data: bytes) -> int:
    """How EXIF turns the pixels of a file, which decoding has followed: from 5 on by a quarter."""
    if b"Exif\0" in data or b"eXIf" in data:
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:  # of any damage
            return int(image.getexif().get(0x0112, 1))
    return 1


def highest_of_few(data: bytes) -> int:
    """The highest level of a file of 16 bits that fills at most 14 of them; 0 for other files."""
    if not data.startswith(b"\x89PNG") or data[24] != 16:
        return 0
    highest = int(_decode(data, "", cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH).max())
    return highest if highest < 2**14 else 0


def check_size(height: int, width: int, name: str) -> None:
    """Raise DataError where an image is too small or too large to be used."""
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE or (
        width * height > MAX_PIXELS
    ):
        raise DataError(
            f"{name} is {height}x{width} (height x width); allowed are sides from {MIN_SIDE} to"
            f" {MAX_SIDE:,} px and at most {MAX_PIXELS // 10**6} megapixels"
        )


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
    check_size(height, width, name)
    is_jpeg = kind is JpegImageFile
    with _libjpeg_heard() if is_jpeg else contextlib.nullcontext(list[str]()) as repairs:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:  # of what is beyond its own limits
            pixels = None
    # OpenCV fills the missing part of a JPEG with gray: its end mark must stand behind the header,
    # in which a thumbnail may have another one.
    if pixels is None or (is_jpeg and data.find(b"\xff\xd9", file.tell()) < 0):
        raise damaged
    if repairs:
        raise DataError(
            f"{name} is damaged inside ({repairs[0]}): use a whole copy of it. If it looks whole,"
            " save it as PNG"
        )
    if sorted(pixels.shape[:2]) != sorted((height, width)):  # EXIF may have turned it
        raise DataError(f"{name} is damaged: it has another size than its header says")
    return pixels


@contextmanager
def _libjpeg_heard() -> Iterator[list[str]]:
    """What libjpeg tells of the image that is decoded within: the list is filled at the end.

    It has one way to tell of damage: it writes to the error output, of which a process has one. So
    one JPEG is decoded at a time. What else is written there meanwhile is passed on.
    """
    heard: list[str] = []
    with _ERROR_OUTPUT:
        try:
            kept = os.dup(2)
        except OSError:  # this process has none
            yield heard
            return
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield heard
            finally:
                os.dup2(kept, 2)
                os.close(kept)
            file.seek(0)
            written = file.read()
        heard += (line.decode().strip() for line in WARNING.findall(written))
        with contextlib.suppress(OSError):
            os.write(2, WARNING.sub(b"", written))
