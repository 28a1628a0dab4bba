"""A folder of images or a single one in; a table of verdicts out, what needs a look first."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_file, short_path
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, decode_image, is_image
from ksdd_lib.deploy.defects import Defect, save_pictures
from ksdd_lib.deploy.detection import Detector, Verdict, doubt_of_file
from ksdd_lib.errors import DataError, RunError
from ksdd_lib.formatting import listed, printable
from ksdd_lib.hardware import in_colab

SYSTEM = re.compile(r"\._.*|\.Trash.*|__MACOSX|@eaDir|\.DS_Store|Thumbs\.db|desktop\.ini")
"""What systems and file servers put beside pictures. It is passed over."""

UNMARKED = "its score is above the threshold, but no pixel is marked: see where its map is highest"
"""What speaks against a verdict without a place."""


@dataclass(frozen=True)
class Judged:
    """What became of one file of a folder.

    Attributes:
        image: its path below the folder.
        label: as of `Verdict`, or "unreadable".
        x, y: the pixel of the image where the mask is highest.
        reason: why it is unreadable, or what speaks against the verdict; else "".
        classes: of its defects, with ";" between them, where the model tells several apart.
        defects: as of `Verdict`.
    """

    image: str
    label: str
    score: float | None = None
    threshold: float | None = None
    x: int | None = None
    y: int | None = None
    reason: str = ""
    classes: str = ""
    defects: tuple[Defect, ...] = ()

    @property
    def margin(self) -> float:
        """How far the score lies above the threshold; 0 where there is none."""
        return (self.score or 0) - (self.threshold or 0)


def judge_folder(
    detector: Detector,
    folder: Path | str,
    watch: Callable[[int, int], None] | None = None,
    masks: Path | None = None,
) -> list[Judged]:
    """Judge every JPEG, PNG and BMP file in a folder and those below it, whatever its ending.

    The unreadable files come first, then what is no surface, then the most suspicious ones. A
    printed line tells of each kind of what is not judged: labels beside their pictures, other
    files, linked folders. A file may stand for a folder: it alone is judged. `watch` takes (files
    done, files in all). The pictures of `save_pictures` go to the folder `masks`, as the files lie.

    Raises DataError: there is no such folder or file, or no image in it.
    Raises CheckpointError: as `Detector.judge`.
    """
    folder = Path(folder)
    if folder.is_file():
        return [_judge_file(detector, folder, folder.name, masks)]
    if not folder.is_dir():
        drive = "where it was just put on Drive, wait a minute"
        hint = drive if in_colab() else "check the spelling"
        raise DataError(f"{folder.name} does not exist: {hint}.", see="line#judge")
    paths, left_out = _list_pictures(folder)
    if not paths:
        kinds = f"There is no image ({', '.join(IMAGE_EXTENSIONS)}) in {folder.name}"
        raise DataError(" ".join([f"{kinds}: name a folder of them.", *left_out]))
    for line in left_out:
        print(line)
    rows = []
    for path in paths:
        rows.append(_judge_file(detector, path, path.relative_to(folder).as_posix(), masks))
        if watch:
            watch(len(rows), len(paths))
    order = {"unreadable": 0, "not a surface": 1}
    return sorted(rows, key=lambda row: (order.get(row.label, 2), -row.margin, row.image))


def _list_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """What is to judge in a folder and below, and a sentence on each kind of what is not."""
    files, links, closed = list[Path](), list[Path](), list[Path]()
    for place, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename))):
        folders[:] = [name for name in folders if not SYSTEM.fullmatch(name)]
        links += [path for path in map(Path(place).joinpath, folders) if path.is_symlink()]
        files += [Path(place, name) for name in names if not SYSTEM.fullmatch(name)]
    images = {path for path in files if _is_image(path)}
    stems = {(path.parent, path.stem) for path in images}
    labels = {
        path
        for path in images
        if path.stem.endswith("_label") and (path.parent, path.stem[: -len("_label")]) in stems
    }
    others = set(files) - images
    kinds = Counter(path.suffix.lower() or "without ending" for path in others)
    each = listed([f"{count} {printable(kind)}" for kind, count in sorted(kinds.items())])
    left_out = [
        (f"files of other kinds ({each})", others, " Save pictures as PNG or JPEG."),
        ("labels beside their pictures", labels, ""),
        ("links to folders", links, " Judge such a folder by its own path."),
        ("folders that cannot be opened", closed, ""),
    ]
    told = []
    for what, paths, hint in left_out:
        names = [printable(path.relative_to(folder).as_posix()) for path in sorted(paths)]
        told += [f"Not judged, {what}: {len(names)} ({listed(names, 5)}).{hint}"] * bool(names)
    return sorted(images - labels), told


def _is_image(path: Path) -> bool:
    """Whether a file is called a picture, or starts as one."""
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return True
    if not os.path.isfile(path):  # a pipe would never answer
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return is_image(file.read(16))
    return False


def _judge_file(detector: Detector, path: Path, name: str, masks: Path | None) -> Judged:
    """The row of one file."""
    if not os.path.isfile(path):
        return Judged(name, "unreadable", reason="it is a broken link, or no file")
    try:
        data = read_file(path)
        pixels = decode_image(data, short_path(path))
        found, doubt = detector.judge(pixels), doubt_of_file(data)
    except DataError as error:
        return Judged(name, "unreadable", reason=str(error))
    marked = found.marked
    if found.mask is None or found.score is None or marked is None:
        return Judged(name, found.label, reason=doubt)
    if masks:
        save_pictures(masks / Path(name).parent, path.stem, pixels, found.mask, marked)
    reason = "; ".join(filter(None, [doubt, detector.doubt(pixels.shape), unmarked(found)]))
    y, x = map(int, np.unravel_index(found.mask.argmax(), found.mask.shape))
    score, threshold = round(found.score, 4), round(found.threshold, 4)
    classes = "; ".join(found.classes)
    return Judged(name, found.label, score, threshold, x, y, reason, classes, found.defects)


def unmarked(found: Verdict) -> str:
    """What to say of a defective picture that has no place marked; "" of any other."""
    return UNMARKED if found.label == "defective" and not found.defects else ""


def outcome(rows: Sequence[Judged]) -> str:
    """How many images have which label, and below what speaks against verdicts, a line a kind."""
    counts = Counter(row.label for row in rows)
    lines = [", ".join(f"{count} {label}" for label, count in counts.items())]
    judged = [row for row in rows if row.reason and row.label != "unreadable"]
    for is_unmarked in (False, True):
        if not (doubtful := [row for row in judged if (row.reason == UNMARKED) == is_unmarked]):
            continue
        worst = max(doubtful, key=lambda row: len(row.reason))
        told = f"{printable(worst.image)}: {printable(worst.reason)}"
        lines.append(f"Warning for {len(doubtful)}, named in the table: {told}.")
    return "\n".join(lines)


def exit_status(rows: Iterable[Judged]) -> int:
    """0 where all are good, 1 where some are defective, 2 where some could not be judged."""
    labels = {row.label for row in rows}
    return 2 if labels - {"good", "defective"} else int("defective" in labels)


def require_table(path: Path) -> None:
    """Raise RunError unless the path ends as a table that `write_verdicts` can write."""
    if path.suffix.lower() not in (".csv", ".json"):
        told = f"{path.name} must end in .csv or .json: name another file."
        raise RunError(told, see="line#judge")


def write_verdicts(path: Path, rows: Iterable[Judged]) -> None:
    """Write the rows as CSV or JSON, by the path's ending, atomically.

    JSON is a list of pictures, each with the list of its defects. In CSV a picture has a row for
    each of its defects, which are numbered from 1, and at least one row. They have a
    class name where the model tells classes apart.
    """
    require_table(path)
    pictures = [asdict(row) for row in rows]
    defects = [defect for row in pictures for defect in row["defects"]]
    for row in [*pictures, *defects]:
        row |= {name: printable(text) for name, text in row.items() if isinstance(text, str)}
    one_kind = not any(defect["class_name"] for defect in defects)
    for defect in defects * one_kind:
        del defect["class_name"]
    if path.suffix.lower() == ".json":
        return storage.write_json(path, pictures)
    own = [field.name for field in fields(Judged) if field.name != "defects"]
    of_defect = [one.name for one in fields(Defect) if not (one_kind and one.name == "class_name")]
    cells = [
        [row[name] for name in own] + [number or None, *(defect.get(name) for name in of_defect)]
        for row in pictures
        for number, defect in enumerate(row["defects"] or [{}], start=bool(row["defects"]))
    ]
    storage.write_text(path, storage.csv_text([*own, "defect", *of_defect], cells))
