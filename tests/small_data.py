"""Small data sets and files, and what data.json holds of them."""

import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ksdd_lib.data import duplicates
from ksdd_lib.data.data_report import DataReport, Sizes
from ksdd_lib.runs.prepare import DataRecord


def data_record(**fields: Any) -> DataRecord:
    """The record of a data set of nothing, with these fields changed."""
    common: dict[str, Any] = {
        "name": "tiny",
        "fingerprint": "",
        "is_generated": False,
        "is_kolektor": False,
        "is_published_archive": False,
        "archive_sha256": None,
    }
    report = DataReport(
        **common,
        origin="not the published file",
        images=0,
        defective=0,
        items=0,
        sizes=Sizes(different=0, height=None, width=None),
        duplicates=(),
        unreadable=(),
        ignored=(),
    )
    return DataRecord(**{**common, "place": ".", "report": report, **fields})


def huge_png(side: int) -> bytes:
    """A PNG of 16x16 pixels whose header, with a checksum that fits, claims `side` x `side`."""
    data = cv2.imencode(".png", np.zeros((16, 16), np.uint8))[1].tobytes()
    header = data[12:16] + 2 * side.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def aligned_correlation(images: Sequence[np.ndarray]) -> np.ndarray:
    """How alike each pair of gray images (H, W) is, by which twins are found: (N, N)."""
    sizes = [image.shape for image in images]
    factor = duplicates.reduction(sizes)
    return duplicates._correlation([duplicates.reduced(i, factor) for i in images], sizes)
