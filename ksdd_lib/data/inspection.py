"""The report of a data set: what is in it, what is wrong with it, and how its folds leak."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ksdd_lib.data.dataset import (
    Sample,
    Survey,
    fingerprint,
    is_kolektor,
    natural_key,
    read_mask,
    survey,
    twin_items,
)
from ksdd_lib.data.folds import Fold, leaked_samples, make_folds
from ksdd_lib.data.sources import NOT_PUBLISHED, DataFolder, from_folder
from ksdd_lib.errors import FoldError
from ksdd_lib.image_size import is_squeezed, size_like
from ksdd_lib.settings import Settings

NARROW = 3.0
"""Pixels of the network's input below which a defect fades into the grain."""


def inspect_data(
    root: Path, data_folder: DataFolder | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Counts, sizes, twins, folds and faults of the data set under `root`, as JSON holds them.

    `settings` (the defaults, without) decide what are twins, and which partition the clean folds
    are; `advice` says where they do not suit the data, and `defect_widths` how wide annotations are
    at their image size: both are empty without them. No absolute path
    is in the report. `twins` and `folds` are None while a file is unreadable; a protocol that does
    not suit the data holds the reason.

    Raises:
        DataError: `root` is not a folder, or holds no image in the layout.
    """
    chosen = settings or Settings()
    origin = data_folder or from_folder(Path(root))
    found = survey(origin.root)
    samples = list(found.samples)
    report = {
        "name": origin.name,
        "origin": origin.label,
        "is_generated": origin.is_generated,
        "is_published_archive": origin.is_published_archive,
        "archive_sha256": origin.archive_sha256,
        "is_kolektor": is_kolektor(samples),
        "fingerprint": fingerprint(samples),
        "images": len(samples),
        "defective": _count_defective(samples),
        "items": len({sample.item for sample in samples}),
        "sizes": _sizes(found),
        "duplicates": [{"dropped": name, "same_as": kept} for name, kept in found.duplicates],
        "unreadable": [{"name": name, "reason": reason} for name, reason in found.unreadable],
        "ignored": [*found.ignored, *origin.ignored_members],
        "defect_widths": _defect_widths(found, settings) if settings else None,
        "advice": _advice(found, origin, settings) if settings else [],
        "twins": None,
        "folds": None,
    }
    if not found.unreadable:
        groups = twin_items(samples, chosen.twins)
        report["twins"] = [sorted(group, key=natural_key) for group in groups]
        report["folds"] = {
            "clean": _folds("clean", samples, chosen.partition, chosen.twins),
            "official": _folds("official", samples),
        }
    return report


def format_report(report: dict[str, Any]) -> str:
    """The report in lines for a terminal."""
    lines = [
        f"{report['name']} ({_origin(report)})",
        f"  images      {report['images']}, {report['defective']} of them defective"
        + ", identical pairs left out" * bool(report["duplicates"]),
        f"  items       {report['items']}",
        f"  sizes       {_format_sizes(report['sizes'])}",
        *_format_widths(report.get("defect_widths")),  # a report may be older than these
        f"  KolektorSDD {'yes' if report['is_kolektor'] else 'no'}",
        f"  fingerprint {report['fingerprint']}",
    ]
    lines += _section(
        "identical pairs dropped",
        [f"{row['dropped']} (same as {row['same_as']})" for row in report["duplicates"]],
    )
    lines += _section(
        "unreadable: training refuses this data set until they are mended or removed",
        [row["reason"] for row in report["unreadable"]],
    )
    lines += _section("ignored, not in the layout", report["ignored"])
    if report["twins"] is not None:
        lines += _section("twins, items that show one object", _format_twins(report))
        for protocol, value in report["folds"].items():
            if protocol == "clean" or "refused" not in value or report["is_kolektor"]:
                lines += _section(f"{protocol} folds", _format_folds(value))
    return "\n".join([*lines, *report.get("advice", [])])  # a report may be older than advice


def obstacles(report: dict[str, Any]) -> list[str]:
    """Why training on the clean folds is not possible with this data: a sentence each."""
    if report["unreadable"]:
        return [f"{len(report['unreadable'])} of the images cannot be used, see above."]
    clean = report["folds"]["clean"]
    if "refused" in clean:
        return [clean["refused"]]
    found = []
    for row in clean["folds"]:
        good = row["train_images"] - row["train_defective"]
        if not good or not row["train_defective"]:
            kind = "defective" if good else "good"
            found.append(f"Fold {row['fold']} has no {kind} surface to train on.")
    if report["defective"] == report["images"]:
        found.append("Every label has white in it: a good surface's is all black.")
    return found


def _origin(report: dict[str, Any]) -> str:
    """Where the data comes from; only KolektorSDD has a published file to be compared with."""
    if report["origin"] != NOT_PUBLISHED:
        return report["origin"]
    if report["is_kolektor"]:
        return "packed anew: not the published file, but its images and masks"
    return "data of your own"


def _advice(found: Survey, origin: DataFolder, settings: Settings) -> list[str]:
    """Where the settings do not suit the data: a line each."""
    lines = []
    if settings.preset == "demo" and not origin.is_generated:
        lines.append("The preset demo is made for generated surfaces: take cpu for real ones.")
    if not found.sizes:
        return lines
    ordered = sorted(found.sizes, key=lambda size: size[0] / size[1])
    (height, width), (high, wide) = ordered[len(ordered) // 2], settings.size
    if is_squeezed((height, width), settings.size):
        area = min(high * wide, height * width)  # larger than they are, they would only be blurred
        lines.append(
            f"Your pictures are {height}x{width} (height x width), the network sees {high}x{wide} "
            "and squeezes them: image_size {}x{} keeps their shape.".format(
                *size_like(height, width, area)
            )
        )
    return lines


def _defect_widths(found: Survey, settings: Settings) -> dict[str, Any] | None:
    """Of the narrowest and the widest defect, at the network's size; None without any."""
    widths = [_width_of(one, settings.size) for one in found.samples if one.is_defective]
    if not widths:
        return None
    ends = [round(min(widths), 1), round(max(widths), 1)]
    return {"image_size": settings.image_size, "pixels": ends}


def _width_of(sample: Sample, size: tuple[int, int]) -> float:
    """How wide a defect's annotation is where it is widest, in pixels of the network's input."""
    mask = np.pad(read_mask(sample).astype(np.uint8), 1)
    radius = float(cv2.distanceTransform(mask, cv2.DIST_L2, 3).max())
    return 2 * radius * min(size[0] / (mask.shape[0] - 2), size[1] / (mask.shape[1] - 2))


def _sizes(found: Survey) -> dict[str, Any]:
    """The range of heights and widths, and how many sizes there are."""
    heights, widths = zip(*found.sizes, strict=True) if found.sizes else ((), ())
    return {
        "different": len(set(found.sizes)),
        "height": [min(heights), max(heights)] if heights else None,
        "width": [min(widths), max(widths)] if widths else None,
    }


def _folds(
    protocol: str, samples: list[Sample], partition: int = 0, twins: str = "similar"
) -> dict[str, Any]:
    """The counts of a protocol's folds, or why it does not suit the data."""
    try:
        return _counts(make_folds(protocol, samples, partition, twins))
    except FoldError as error:
        return {"refused": str(error)}


def _counts(folds: list[Fold]) -> dict[str, Any]:
    """What each fold holds and leaks, and their sums."""
    rows = []
    for fold in folds:
        leaked = leaked_samples(fold)
        rows.append(
            {
                "fold": fold.number,
                "train_images": len(fold.train),
                "train_defective": _count_defective(fold.train),
                "test_items": len({sample.item for sample in fold.test}),
                "test_images": len(fold.test),
                "test_defective": _count_defective(fold.test),
                "leaked_images": len(leaked),
                "leaked_defective": _count_defective(leaked),
            }
        )
    names = ("test_items", "test_images", "test_defective", "leaked_images", "leaked_defective")
    return {"folds": rows, "total": {name: sum(row[name] for row in rows) for name in names}}


def _count_defective(samples: list[Sample] | tuple[Sample, ...]) -> int:
    return sum(sample.is_defective for sample in samples)


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {row}" for row in rows)] if rows else []


def _format_sizes(sizes: dict[str, Any]) -> str:
    if sizes["height"] is None:
        return "none"
    height, width = (
        f"{low}" if low == high else f"{low} to {high}"
        for low, high in (sizes["height"], sizes["width"])
    )
    return f"{height} x {width} (height x width), {sizes['different']} different"


def _format_widths(widths: dict[str, Any] | None) -> list[str]:
    if not widths:
        return []
    low, high = widths["pixels"]
    lost = ": the narrowest may be lost, take a larger one" if low < NARROW else ""
    return [
        f"  defects     annotated {low:.0f} to {high:.0f} pixels wide at image_size "
        f"{widths['image_size']}{lost}"
    ]


def _format_twins(report: dict[str, Any]) -> list[str]:
    if not report["twins"]:
        return ["none"]
    spare = sum(len(group) - 1 for group in report["twins"])
    return [
        *(" = ".join(group) for group in report["twins"]),
        f"{spare} of {report['items']} items {'is' if spare == 1 else 'are'} left out of the clean"
        " folds: of twins the first is kept",
    ]


def _format_folds(value: dict[str, Any]) -> list[str]:
    if "refused" in value:
        return [value["refused"]]
    rows = [
        f"fold {row['fold']}: train {row['train_images']} ({row['train_defective']} defective),"
        f" test {row['test_images']} ({row['test_defective']} defective)"
        f" of {row['test_items']} items{_leak(row)}"
        for row in value["folds"]
    ]
    total = value["total"]
    return [
        *rows,
        f"together: {total['test_items']} items, {total['test_images']} images,"
        f" {total['test_defective']} defective{_leak(total)}",
    ]


def _leak(row: dict[str, int]) -> str:
    if not row["leaked_images"]:
        return ""
    return (
        f"; LEAK: {row['leaked_images']} test images, {row['leaked_defective']} of them"
        " defective, have a twin in training"
    )
