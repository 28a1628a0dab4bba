"""One photographed surface with its annotation, and what names a whole set of them."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ksdd_lib.data.pixels import decode_image, decode_mask
from ksdd_lib.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One photographed surface with its annotation."""

    name: str  # `<item>/<part>`, for example "kos01/Part5"
    item: str  # the physical object
    image_path: Path
    mask_path: Path
    size: tuple[int, int]  # (height, width) in pixels
    is_defective: bool
    defect_width: float  # where the annotation is widest, in pixels; 0 if there is none
    image_sha256: str
    mask_file_sha256: str
    mask_sha256: str  # of the decoded boolean pixels and their shape
    defect_share: float = 0.0  # of its pixels that are annotated
    classes: tuple[str, ...] = ()  # of its defects, where they are named
    class_path: Path | None = None  # what tells several of them apart
    has_mask: bool = True  # else it is known to be defective, but not where
    mask_levels: str = ""  # as `pixels.decode_levels` names them
    region_size: tuple[int, int] | None = None  # of the setting `region`, where there is one
    # What `duplicates` compares; None if nothing was decoded.
    thumbnail: np.ndarray | None = field(default=None, compare=False, repr=False)
    # What a person should look at. Of an earlier survey it is not known.
    highest_of_few: int = field(default=0, compare=False)  # as `pixels.highest_of_few`
    may_be_turned: bool = field(default=False, compare=False)  # EXIF turned it; its mask fits both

    @property
    def seen_size(self) -> tuple[int, int]:
        """(height, width) of what is looked at."""
        return self.region_size or self.size


def read_image(source: Sample | Path | str) -> np.ndarray:
    """The gray image of a sample or file, uint8 (H, W); DataError where there is none."""
    path = source.image_path if isinstance(source, Sample) else Path(source)
    return decode_image(read_file(path), short_path(path))


def read_mask(sample: Sample) -> np.ndarray:
    """The annotated pixels of a sample, bool (H, W); DataError where its mask cannot be read.

    None is marked where no mask says where the defect is.
    """
    if not sample.has_mask:
        return np.zeros(sample.size, bool)
    return decode_mask(read_file(sample.mask_path), short_path(sample.mask_path))


def read_file(path: Path) -> bytes:
    """The bytes of a file; DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # as of a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{short_path(path)} cannot be read: {reason}") from None


def short_path(path: Path) -> str:
    """`<item>/<file>`: what an error names, without the way to the data folder."""
    return f"{path.parent.name}/{path.name}"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `Part2` before `Part10`, whatever the order of a directory listing."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def fingerprint(samples: Iterable[Sample]) -> str:
    """64 hexadecimal digits that name the data: sample names, image bytes and mask pixels."""
    return digest((one.name, one.image_sha256, one.mask_sha256) for one in samples)


def digest(rows: Iterable[tuple[str, ...]]) -> str:
    """The SHA-256 of rows of text in any order."""
    return hashlib.sha256("\n".join("\t".join(row) for row in sorted(rows)).encode()).hexdigest()
