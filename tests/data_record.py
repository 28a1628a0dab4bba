"""What data.json holds of a data set that a test makes itself."""

from typing import Any

from ksdd_lib.data.inspection import DataReport, Sizes
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
