"""The report of a data set: what is in it, what is wrong with it, and how its folds leak."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ksdd_lib.data.dataset import Sample, fingerprint, natural_key
from ksdd_lib.data.duplicates import ClosePair, closest_pairs, twin_items
from ksdd_lib.data.folds import leaked_samples, make_folds
from ksdd_lib.data.kolektorsdd import is_kolektor
from ksdd_lib.data.layout_note import UNNAMED, class_fingerprint, own_classes
from ksdd_lib.data.sources import NOT_PUBLISHED, DataFolder
from ksdd_lib.data.survey import Duplicate, Survey, Unreadable
from ksdd_lib.errors import FoldError, with_link, without_link
from ksdd_lib.formatting import listed, percent
from ksdd_lib.image_size import is_squeezed, size_like
from ksdd_lib.settings import Settings
from ksdd_lib.storage import Record

TILE = 512  # pixels; the least side of tiles that are joined exactly
THIN = 4.0  # pixels of the network's input below which tiles are advised
NARROW = 3.0  # pixels of the network's input below which a defect fades into the grain


class Sizes(Record):
    """How many sizes there are, and the lowest and highest side; None if there is no sample."""

    different: int
    height: tuple[int, int] | None
    width: tuple[int, int] | None


class DefectWidths(Record):
    """The width of the narrowest and the widest defect, in pixels at `image_size` or in tiles."""

    image_size: str
    pixels: tuple[float, float]
    share: float = 0.0  # of a picture that its defects cover; a tenth of them cover more


class HeldOutCounts(Record):
    """What test sides hold, and how many of their images have a twin in training."""

    test_items: int
    test_images: int
    test_defective: int
    leaked_images: int
    leaked_defective: int


class FoldCounts(HeldOutCounts):
    """What both sides of a fold hold."""

    fold: int
    train_images: int
    train_defective: int


class SplitCounts(Record):
    """The folds of a protocol, and the sum of their test sides."""

    folds: tuple[FoldCounts, ...]
    total: HeldOutCounts


class Refusal(Record):
    """Why a protocol does not suit the data."""

    refused: str


class DataIdentity(Record):
    """What tells a data set from others, wherever it lies."""

    name: str
    fingerprint: str
    is_generated: bool
    is_kolektor: bool
    is_published_archive: bool
    archive_sha256: str | None


class DataReport(DataIdentity):
    """What is in a data set; no twins and folds (by protocol) while an image is unreadable."""

    origin: str
    images: int
    defective: int
    without_mask: int = 0  # of the defective
    items: int
    sizes: Sizes
    duplicates: tuple[Duplicate, ...]
    unreadable: tuple[Unreadable, ...]
    ignored: tuple[str, ...]
    defect_widths: DefectWidths | None = None
    tile_advice: str = ""  # where the narrowest defect is shrunk too far
    mask_levels: dict[str, int] = {}  # in how many masks; the most frequent first
    classes: dict[str, int] = {}  # of defects, where they are named: on how many pictures
    layout: str = ""  # from which the items were written, if they were
    notes: tuple[str, ...] = ()  # what was not understood then
    advice: tuple[str, ...] = ()  # where the settings do not suit the data
    twins: tuple[tuple[str, ...], ...] | None = None
    closest: tuple[ClosePair, ...] = ()  # that are no twins
    folds: dict[str, SplitCounts | Refusal] | None = None


def inspect_data(found: Survey, folder: DataFolder, settings: Settings) -> DataReport:
    """Counts, sizes, twins, folds and faults of a data set, for a run of these settings."""
    samples, twins, folds = found.samples, None, None
    closest: tuple[ClosePair, ...] = ()
    if not found.unreadable or settings.incomplete == "leave_out":
        groups = twin_items(samples, settings.twins)
        closest = closest_pairs(samples, settings.twins)
        twins = tuple(tuple(sorted(group, key=natural_key)) for group in groups)
        protocols = ["clean", "official", *["published"] * (settings.folds == "published")]
        folds = {name: _folds(name, samples, settings) for name in protocols}
    return DataReport(
        name=folder.name,
        fingerprint=(class_fingerprint if settings.classes == "each" else fingerprint)(samples),
        is_generated=folder.is_generated,
        is_kolektor=is_kolektor(samples),
        is_published_archive=folder.is_published_archive,
        archive_sha256=folder.archive_sha256,
        origin=folder.label,
        images=len(samples),
        defective=_count_defective(samples),
        without_mask=sum(not sample.has_mask for sample in samples),
        items=len({sample.item for sample in samples}),
        sizes=_sizes(samples),
        duplicates=found.duplicates,
        unreadable=found.unreadable,
        ignored=(*found.ignored, *folder.ignored),
        defect_widths=_defect_widths(samples, settings),
        tile_advice=_tile_advice(samples, settings),
        mask_levels=dict(Counter(s.mask_levels for s in samples if s.mask_levels).most_common()),
        classes=_classes(samples),
        layout=folder.layout,
        notes=folder.notes,
        advice=(*_advice(found, folder, settings), *_chained(samples, twins or ())),
        twins=twins,
        closest=closest,
        folds=folds,
    )


def format_report(report: DataReport) -> str:
    """The report in lines for a terminal."""
    dropped = [f"{one.dropped} (same as {one.same_as})" for one in report.duplicates]
    classes = [f"{name} on {count}" for name, count in report.classes.items()]
    alike = [
        f"{' and '.join(one.surfaces)}: correlation {one.correlation:.2f}" for one in report.closest
    ]
    fate = "left out" if report.folds else "training refuses them"
    lines = [
        f"{report.name} ({_origin(report)})",
        f"  images      {report.images}, {report.defective} of them defective"
        + f", {report.without_mask} of these without a mask" * bool(report.without_mask)
        + ", identical pairs left out" * bool(dropped),
        f"  items       {report.items}",
        *([f"  classes     {listed(classes)}"] if classes else []),
        *([f"  layout      {report.layout}"] if report.layout else []),
        f"  sizes       {_format_sizes(report.sizes)}",
        *_format_widths(report.defect_widths),
        *([f"  tiles       {report.tile_advice}"] if report.tile_advice else []),
        *_format_levels(report.mask_levels),
        *(["  KolektorSDD yes"] if report.is_kolektor else []),
        f"  fingerprint {report.fingerprint}",
        *_section("identical pairs dropped", dropped),
        *_section(
            f"unreadable: {fate}", [without_link(one.reason) for one in report.unreadable], 5
        ),
        *_section("ignored, not in the layout", report.ignored, 5),
        *_section("notes on the files", report.notes),
        *_section("twins, items that show one object", _format_twins(report)),
        *_section("not taken for twins, though the most alike", alike),
    ]
    for protocol, split in (report.folds or {}).items():
        if protocol != "official" or isinstance(split, SplitCounts) or report.is_kolektor:
            lines += _section(f"{protocol} folds", _format_folds(split))
    return "\n".join([*lines, *report.advice])


def obstacles(report: DataReport, needs_defects: bool = True, protocol: str = "clean") -> list[str]:
    """Why training on these folds is not possible with this data: a sentence each."""
    if report.folds is None:
        told = f"{len(report.unreadable)} of the images cannot be used, see above."
        return [with_link(told, "labels#incomplete", *(one.reason for one in report.unreadable))]
    if isinstance(split := report.folds[protocol], Refusal):
        return [split.refused]
    found = [
        f"Fold {row.fold} has no {kind} surface to train on."
        for row in split.folds
        for kind, missing in (("defective", 0), ("good", row.train_images))
        if row.train_defective == missing and (needs_defects or kind == "good")
    ]
    if report.defective == report.images:
        found.append("Every label has white in it: a good surface's is all black.")
    return found


def _origin(report: DataReport) -> str:
    """Where the data comes from; only KolektorSDD has a published file to be compared with."""
    anew = "packed anew: not the published file, but its images and masks"
    unpublished = anew if report.is_kolektor else "data of your own"
    return unpublished if report.origin == NOT_PUBLISHED else report.origin


def _advice(found: Survey, folder: DataFolder, settings: Settings) -> list[str]:
    samples, lines = found.samples, []
    if count := len(found.defective):
        lines.append(f"{count} pictures are called defective: masks=given learns from that alone.")
    elif found.lacks_labels_alone and settings.incomplete == "refuse":
        lines.append("If all that no label names are good, set incomplete=good.")
    if settings.preset == "demo" and not folder.is_generated:
        lines.append("The preset demo is made for generated surfaces: take cpu for real ones.")
    if not samples:
        return lines
    lines += _advice_on_shapes(samples, settings)
    if covered := [one.name for one in samples if one.defect_share > 0.5]:
        lines.append(
            f"More than half of the picture is marked as a defect in {listed(covered, 5)}: good is"
            " black, so look whether the label is the wrong way round."
        )
    if dark := [one for one in samples if one.highest_of_few]:
        highest = max(one.highest_of_few for one in dark)
        lines.append(
            f"Of 16 bits at most {percent(highest / 65535)} are used (up to {highest} of 65535) in "
            f"{listed([one.name for one in dark], 5)}: the network sees them that dark. Scale them "
            "to the full range first."
        )
    if turned := [one.name for one in samples if one.may_be_turned]:
        lines.append(
            f"EXIF turns {listed(turned, 5)}, and the label fits both ways: look whether it was "
            "drawn on the turned picture."
        )
    return lines


def _classes(samples: Sequence[Sample]) -> dict[str, int]:
    found = Counter(name for one in samples for name in own_classes(one))
    return dict(sorted(found.items())) if found.keys() - {UNNAMED} else {}


def _chained(samples: Sequence[Sample], twins: Sequence[Sequence[str]]) -> Iterator[str]:
    """What to say where likeness joins more than a third of all items to one."""
    items, largest = {sample.item for sample in samples}, max(map(len, twins), default=0)
    if largest > max(3, len(items) / 3):
        yield (
            f"{largest} of {len(items)} items are joined to one, as each looks like another of"
            " them: different parts in one fixture may. Where the folder or --set item tells the"
            " parts, set twins to identical."
        )


def _advice_on_shapes(samples: Sequence[Sample], settings: Settings) -> list[str]:
    sizes = sorted((one.seen_size for one in samples), key=lambda size: size[0] / size[1])
    lines, (height, width), (high, wide) = [], sizes[len(sizes) // 2], settings.size
    if settings.region == "part" and (missed := [s.name for s in samples if s.seen_size == s.size]):
        lines.append(
            f"No part stands out in {listed(missed, 5)}: there the whole picture is taken."
        )
    if settings.fit == "pad" or settings.view.tiled:
        return lines
    if is_squeezed((height, width), settings.size):
        area = min(high * wide, height * width)  # larger than they are, they would only be blurred
        rows, columns = size_like(height, width, area)
        lines.append(
            f"Your pictures are {height}x{width} (height x width), the network sees {high}x{wide} "
            f"and squeezes them: image_size {rows}x{columns} keeps their shape."
        )
    few = len(sizes) // 20
    if is_squeezed(sizes[few], sizes[-1 - few]):
        shapes = "{}x{} to {}x{}".format(*sizes[few], *sizes[-1 - few])
        lines.append(f"Your pictures have several shapes, from {shapes}: fit pad keeps each.")
    return lines


def _defect_widths(samples: Sequence[Sample], settings: Settings) -> DefectWidths | None:
    """Of the narrowest and the widest defect at the network's size; None without any."""
    scale = settings.view.scale
    found = [one for one in samples if one.defect_width]
    widths = sorted(round(one.defect_width * scale(one.seen_size), 1) for one in found)
    shares = sorted(round(one.defect_share, 4) for one in found)
    if not widths:
        return None
    size = f"tiles of {settings.tile_size}" if settings.view.tiled else settings.image_size
    ends, share = (widths[0], widths[-1]), shares[len(shares) * 9 // 10]
    return DefectWidths(image_size=size, pixels=ends, share=share)


def _tile_advice(samples: Sequence[Sample], settings: Settings) -> str:
    """Where tiles would show the narrowest defect better than the resized picture; "" elsewhere."""
    scale = settings.view.scale
    widths = [(one.defect_width * scale(one.seen_size), one) for one in samples if one.defect_width]
    low, least = min(widths, key=lambda pair: pair[0], default=(THIN, None))
    if least is None or low >= THIN or scale(least.seen_size) >= 1:
        return ""
    width, (rows, columns) = least.defect_width, least.seen_size
    side = min(TILE, max(128, min(rows, columns) // 16 * 16))
    return (
        f"the narrowest defect is {width:.1f} pixels wide in {least.name} of {rows}x{columns}, and"
        f" {low:.1f} at image_size {settings.image_size}: tile_size {side}x{side} keeps its"
        f" {width:.1f}"
    )


def _sizes(samples: Sequence[Sample]) -> Sizes:
    sizes = {sample.size for sample in samples}
    if not sizes:
        return Sizes(different=0, height=None, width=None)
    height, width = ((min(sides), max(sides)) for sides in zip(*sizes, strict=True))
    return Sizes(different=len(sizes), height=height, width=width)


def _folds(protocol: str, samples: Sequence[Sample], settings: Settings) -> SplitCounts | Refusal:
    """The counts of a protocol's folds, or why it does not suit the data."""
    try:
        chosen = settings.partition, settings.twins, settings.labels != "none"
        folds = make_folds(
            protocol, samples, *(chosen if protocol in ("clean", settings.folds) else ())
        )
    except FoldError as error:
        return Refusal(refused=str(error))
    rows = tuple(
        FoldCounts(
            fold=fold.number,
            train_images=len(fold.train),
            train_defective=_count_defective(fold.train),
            test_items=len({sample.item for sample in fold.test}),
            test_images=len(fold.test),
            test_defective=_count_defective(fold.test),
            leaked_images=len(leaked := leaked_samples(fold)),
            leaked_defective=_count_defective(leaked),
        )
        for fold in folds
    )
    totals = {name: sum(getattr(row, name) for row in rows) for name in HeldOutCounts.model_fields}
    return SplitCounts(folds=rows, total=HeldOutCounts(**totals))


def _count_defective(samples: Iterable[Sample]) -> int:
    return sum(sample.is_defective for sample in samples)


def _section(title: str, rows: Sequence[str], most: int = 1_000_000) -> list[str]:
    return [f"{title}:", listed([f"  {row}" for row in rows], most, "\n")] if rows else []


def _format_sizes(sizes: Sizes) -> str:
    ends = [side for side in (sizes.height, sizes.width) if side]
    sides = " x ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in ends)
    count = "all alike" if sizes.different == 1 else f"{sizes.different} different"
    return f"{sides} (height x width), {count}" if sides else "none"


def _format_widths(widths: DefectWidths | None) -> list[str]:
    if not widths:
        return []
    low, high = widths.pixels
    where = "in" if "tiles" in widths.image_size else "at image_size"
    place = f"{low:.0f} to {high:.0f} pixels wide {where} {widths.image_size}"
    lost = ": the narrowest may be lost, take a larger one" if low < NARROW else ""
    return [f"  defects     annotated {place}{lost}"]


def _format_levels(masks: dict[str, int]) -> list[str]:
    counted = "; ".join(f"{levels} in {count}" for levels, count in masks.items())
    return [f"  masks       levels {counted}"] if masks else []


def _format_twins(report: DataReport) -> list[str]:
    if not report.twins:
        return [] if report.twins is None else ["none"]
    clean = (report.folds or {}).get("clean")
    spare = report.items - clean.total.test_items if isinstance(clean, SplitCounts) else 0
    kept = "are in the clean folds: of twins the first is kept"
    return [
        *(" = ".join(group) for group in report.twins),
        f"{report.items - spare} of {report.items} items {kept}"
        if spare
        else "twins stay together, on one side of each clean fold",
    ]


def _format_folds(split: SplitCounts | Refusal) -> list[str]:
    if isinstance(split, Refusal):
        return [split.refused]
    rows = [
        f"fold {row.fold}: train {row.train_images} ({row.train_defective} defective),"
        f" test {row.test_images} ({row.test_defective} defective)"
        f" of {row.test_items} items{_leak(row)}"
        for row in split.folds
    ]
    total = split.total
    images = f"{total.test_images} images, {total.test_defective} defective{_leak(total)}"
    return [*rows, f"together: {total.test_items} items, {images}"]


def _leak(row: HeldOutCounts) -> str:
    images = f"{row.leaked_images} test images, {row.leaked_defective} of them defective"
    return f"; LEAK: {images}, have a twin in training" if row.leaked_images else ""
