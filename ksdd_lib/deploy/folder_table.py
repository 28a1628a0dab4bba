"""A folder of images in; a table of verdicts out, with what needs a second look first."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, OTHER_EXTENSIONS
from ksdd_lib.deploy.detection import Detector
from ksdd_lib.errors import DataError
from ksdd_lib.hardware import in_colab


@dataclass(frozen=True)
class Judged:
    """What became of one file of a folder: a row of verdicts.csv.

    Attributes:
        image: its path below the folder.
        label: as of `Verdict`, or "unreadable".
        x, y: the pixel of the image where the mask is highest.
        reason: why it is unreadable, or what speaks against the verdict; else "".
    """

    image: str
    label: str
    score: float | None = None
    threshold: float | None = None
    x: int | None = None
    y: int | None = None
    reason: str = ""


def judge_folder(
    detector: Detector, folder: Path | str, watch: Callable[[int, int], None] | None = None
) -> list[Judged]:
    """Judge every JPEG, PNG and BMP file in a folder and those below it, but for `*_label.*`.

    The unreadable files come first, then what is no surface, then the most suspicious ones. One
    printed line tells of pictures of other kinds. `watch` takes (files done, files in all).

    Raises DataError: there is no such folder, or no image in it.
    Raises CheckpointError: as `Detector.judge`.
    """
    folder = Path(folder)
    if folder.is_file():
        raise DataError(f"{folder.name} is a file: name the folder it is in.")
    if not folder.is_dir():
        drive = "where it was just put on Drive, wait a minute"
        hint = drive if in_colab() else "check the spelling"
        raise DataError(f"{folder.name} does not exist: {hint}.")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.stem.endswith("_label")]
    paths = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    others = _explain_others(files)
    if not paths:
        kinds = f"There is no image ({', '.join(IMAGE_EXTENSIONS)}) in {folder.name}"
        raise DataError(f"{kinds}: name a folder of them. {others}".rstrip())
    if others:
        print(others)
    rows = []
    for path in paths:
        rows.append(_judge_file(detector, path, path.relative_to(folder).as_posix()))
        if watch:
            watch(len(rows), len(paths))
    order = {"unreadable": 0, "not a surface": 1}
    return sorted(rows, key=lambda row: (order.get(row.label, 2), -(row.score or 0), row.image))


def _explain_others(files: Iterable[Path]) -> str:
    """One sentence on the pictures of kinds that are not read; "" without any."""
    kinds = [path.suffix.lower() for path in files if path.suffix.lower() in OTHER_EXTENSIONS]
    if not kinds:
        return ""
    named = ", ".join(sorted(set(kinds)))
    if len(kinds) == 1:
        return f"1 file of another kind ({named}) was not judged: save it as PNG or JPEG."
    return f"{len(kinds)} files of other kinds ({named}) were not judged: save them as PNG or JPEG."


def _judge_file(detector: Detector, path: Path, name: str) -> Judged:
    """The row of one file."""
    try:
        pixels = read_image(path)
    except DataError as error:
        return Judged(name, "unreadable", reason=str(error))
    found = detector.judge(pixels)
    if found.mask is None or found.score is None:
        return Judged(name, found.label)
    y, x = map(int, np.unravel_index(found.mask.argmax(), found.mask.shape))
    score, threshold = round(found.score, 4), round(detector.threshold, 4)
    return Judged(name, found.label, score, threshold, x, y, detector.doubt(pixels.shape))


def outcome(rows: Sequence[Judged]) -> str:
    """How many images have which label, and on a second line what speaks against verdicts."""
    counts = Counter(row.label for row in rows)
    lines = [", ".join(f"{count} {label}" for label, count in counts.items())]
    doubtful = [row for row in rows if row.reason and row.score is not None]
    if doubtful:
        first = f"{doubtful[0].image}: {doubtful[0].reason}"
        lines.append(f"Warning for {len(doubtful)}, named in the table: {first}.")
    return "\n".join(lines)


def write_verdicts(path: Path, rows: Iterable[Judged]) -> None:
    """Write the rows as CSV, a column for each attribute of `Judged`, atomically."""
    columns = [field.name for field in fields(Judged)]
    storage.write_text(path, storage.csv_text(columns, map(astuple, rows)))
