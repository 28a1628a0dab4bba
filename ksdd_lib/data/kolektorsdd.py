"""What is true of KolektorSDD alone: its archive, contents, folds, twins, doubtful labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, digest

ARCHIVE_NAME = "KolektorSDD.zip"
ARCHIVE = storage.FileHash(
    bytes=101_831_129,
    sha256="65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
)
ARCHIVE_ADDRESSES = (
    "https://go.vicos.si/kolektorsdd",
    "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip",
)

# Digest of (item, mask pixels) of the 399 samples. Images may have been stored again.
DIGEST = "07ee01a0337be98d1fbad22e0ed57a54be22d8e5d3085150ddd9c7577be37ea2"
FOLDS = Path(__file__).with_name("kolektor_folds.json")  # holds a `folds.KolektorFolds`

PAPER = (
    "D. Tabernik, S. Šela, J. Skvarč, D. Skočaj: Segmentation-Based Deep-Learning Approach for "
    "Surface-Defect Detection. Journal of Intelligent Manufacturing, 2019. "
    "doi:10.1007/s10845-019-01476-x"
)
"""The paper of the data set, and of the two-stage network."""

# Surfaces that are labelled good and show a fine dark line, and a dark blob.
DOUBTFUL = ("kos19/Part2", "kos46/Part6")


class TwinSurfaces(storage.Record):
    """The two names of a surface that the data set holds twice, and how alike both are."""

    surfaces: tuple[str, str]
    correlation: float  # of the aligned photographs
    mask_iou: float | None  # of the annotations; None where the surface is good


class _TwinFile(storage.Record):
    pairs: tuple[TwinSurfaces, ...]


@dataclass(frozen=True)
class Published:
    """A result on the official folds as its paper states it: AP in percent, None if not stated."""

    name: str
    pooled: float | None = None  # AP of all scores on one list
    errors: tuple[int, int] | None = None  # (false alarms, misses) at its best threshold
    fold_mean: float | None = None  # mean of the folds' APs


PUBLISHED = (
    Published("Tabernik 2019, 1408x512", 99.9, (0, 1)),
    Published("Cognex ViDi 2.1", 99.0, (0, 5)),
    Published("U-Net", 96.1),
    Published("Božič 2021, fully supervised", fold_mean=100.0),
)
"""The first three by Tabernik 2019, the last by Božič 2021 (Computers in Industry)."""


def is_kolektor(samples: Iterable[Sample]) -> bool:
    """Whether this is all of KolektorSDD by items and mask pixels; images may be re-encoded."""
    return digest((one.item, one.mask_sha256) for one in samples) == DIGEST


def kolektor_twins() -> tuple[TwinSurfaces, ...]:
    """The 24 surfaces that the data set holds twice."""
    return storage.read_record(FOLDS.with_name("kolektor_twins.json"), _TwinFile).pairs


def annotators_iou() -> tuple[float, float]:
    """The least and the greatest IoU of two masks of one defect: four were annotated twice."""
    agreed = [pair.mask_iou for pair in kolektor_twins() if pair.mask_iou is not None]
    return min(agreed), max(agreed)
