"""The scored test images: one row each in predictions.csv, one map each in masks.npz."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from heapq import nlargest
from pathlib import Path

import numpy as np

from ksdd_lib.data.zips import DAMAGE
from ksdd_lib.errors import RunError
from ksdd_lib.storage import csv_text, csv_value, write_bytes, write_text

HELD_OUT = "held_out.csv"
"""The rows of what a fold alone has held out of its training; there is no such file otherwise."""


@dataclass(frozen=True)
class ClassScore:
    """What is known of one class of defects in a test image."""

    name: str
    score: float  # logit
    is_there: bool


@dataclass(frozen=True)
class Prediction:
    """What the model said about one test image; RunError where a score is NaN or infinite."""

    image: str  # "kos01/Part5"
    item: str  # "kos01"
    fold: int  # of the model that scored it; the image is in that fold's test set
    seed: int  # of the model
    is_defective: bool
    score: float  # logit by which the image is judged; of several classes the highest
    map_score: float  # the highest value of the image's map
    threshold: float | None = None  # in logits; `apply_thresholds` sets both: see `of_highest`
    is_flagged: bool | None = None
    classes: tuple[ClassScore, ...] = ()  # where several are told apart

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in ("score", "map_score", "threshold")}
        values |= {f"score of {one.name}": one.score for one in self.classes}
        for name, value in values.items():
            if value is not None and not math.isfinite(value):
                raise RunError(
                    f"The {name} of {self.image} is {value}: the model has diverged. "
                    "Train this fold again, with a lower learning rate or in float32."
                )

    @property
    def margin(self) -> float:
        """How far the score lies above the operating threshold, in logits."""
        assert self.threshold is not None, self.image
        return self.score - self.threshold


def of_highest(scores: Sequence[float], thresholds: Sequence[float]) -> float:
    """What the highest score of an image must exceed, so that any class exceeds its own threshold.

    The highest score minus this is the greatest margin of a class. So it is the threshold of the
    highest class, or less, where another lies further above its own.
    """
    top, pairs = max(scores), zip(scores, thresholds, strict=True)
    margin, score, own = max((score - own, score, own) for score, own in pairs)
    return own if score == top else top - margin


COLUMNS = {
    "segmentation_score" if field.name == "map_score" else field.name: field.name
    for field in fields(Prediction)
    if field.name != "classes"
}
"""Column of predictions.csv -> attribute of `Prediction`; two more follow for each class."""


def verdict(row: Prediction) -> str:
    """Return "missed", "false alarm", "found" or "passed"."""
    if row.is_defective:
        return "found" if row.is_flagged else "missed"
    return "false alarm" if row.is_flagged else "passed"


SURE = 1.0
"""From this distance to its threshold on, in logits, a score is clear: odds 2.7 times as high."""


def sureness(row: Prediction) -> str:
    """What the score says of an image, whatever its label: "clearly good", "just so", "clearly
    defective"."""
    if abs(row.margin) < SURE:
        return "just so"
    return "clearly defective" if row.is_flagged else "clearly good"


def failures_first(rows: Sequence[Prediction]) -> list[Prediction]:
    """Defective and flagged surfaces: misses, then false alarms, then hits; each worst first."""
    kinds = ("missed", "false alarm", "found")

    def order(row: Prediction) -> tuple[int, float]:
        return kinds.index(verdict(row)), row.score if row.is_defective else -row.score

    return sorted((row for row in rows if verdict(row) in kinds), key=order)


def suspicious(rows: Sequence[Prediction], count: int = 4) -> list[Prediction]:
    """Surfaces whose label the scores doubt most, `count` of each kind, the greatest doubt first.

    These are good surfaces far above their fold's threshold and defective ones far below it.
    """

    def doubt(row: Prediction) -> float:
        return -row.margin if row.is_defective else row.margin

    kinds = ([row for row in rows if row.is_defective is kind] for kind in (False, True))
    chosen = [row for kind in kinds for row in nlargest(count, kind, key=doubt)]
    return sorted(chosen, key=doubt, reverse=True)


def write_predictions(path: Path, rows: Iterable[Prediction]) -> None:
    """Write rows as predictions.csv, atomically. `read_predictions` gives back equal rows."""
    write_text(path, predictions_text(rows))


def predictions_text(rows: Iterable[Prediction]) -> str:
    """The text of predictions.csv."""
    rows = list(rows)
    names = [one.name for one in rows[0].classes] if rows else []
    columns = [*COLUMNS, *(f"{what} {name}" for name in names for what in ("score", "is"))]
    lines = [
        [getattr(row, name) for name in COLUMNS.values()]
        + [value for one in row.classes for value in (one.score, one.is_there)]
        for row in rows
    ]
    return csv_text(columns, lines)


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a predictions.csv, as they were written; RunError where it cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
    except FileNotFoundError:
        raise RunError(f"{path.name} is missing: evaluate the trained model first.") from None
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path.name} cannot be read ({error}): evaluate again.") from None
    own, of_classes = header[: len(COLUMNS)], [csv_value(cell) for cell in header[len(COLUMNS) :]]
    classes = [cell.removeprefix("score ") for cell in of_classes[::2]]
    expected = [f"{what} {name}" for name in classes for what in ("score", "is")]
    if own != list(COLUMNS) or of_classes != expected:
        raise RunError(f"{path.name} has the columns {header}, not {list(COLUMNS)}.")
    return [_read_row(path, number, line, classes) for number, line in enumerate(lines, start=2)]


def _read_row(path: Path, number: int, line: list[str], classes: Sequence[str]) -> Prediction:
    try:
        image, item, fold, seed, is_defective, score, map_score, threshold, flagged, *rest = line
        of_classes = zip(classes, rest[::2], rest[1::2], strict=True)
        return Prediction(
            image=csv_value(image),
            item=csv_value(item),
            fold=int(fold),
            seed=int(seed),
            is_defective=_read_bool(is_defective),
            score=float(score),
            map_score=float(map_score),
            threshold=float(threshold) if threshold else None,
            is_flagged=_read_bool(flagged) if flagged else None,
            classes=tuple(ClassScore(n, float(s), _read_bool(there)) for n, s, there in of_classes),
        )
    except ValueError as error:
        raise RunError(f"{path.name}, row {number}: {error}. Evaluate again.") from None


def _read_bool(text: str) -> bool:
    """A cell that holds 0 or 1."""
    if text not in ("0", "1"):
        raise ValueError(f"expected 0 or 1, found {text!r}")
    return text == "1"


def write_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write image name -> map (h, w) as float16, atomically."""
    maps = [mask.astype(np.float16) for mask in masks.values()]
    stored = {"images": np.array(list(masks))}
    if len({mask.shape for mask in maps}) > 1:
        stored |= {"shapes": np.array([mask.shape for mask in maps])}
        stored |= {"masks": np.concatenate([mask.ravel() for mask in maps])}
    else:
        stored |= {"masks": np.stack(maps)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """Image name -> map (h, w) float16, of a file by `write_masks`; RunError if damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            names, maps = stored["images"].tolist(), stored["masks"]
            if "shapes" in stored:  # they differ, and lie in one row
                shapes = stored["shapes"]
                ends = shapes.prod(axis=1).cumsum()
                flat = np.split(maps, ends[:-1])
                maps = [one.reshape(shape) for one, shape in zip(flat, shapes, strict=True)]
            return dict(zip(names, maps, strict=True))
    except (*DAMAGE, KeyError, TypeError, IndexError) as error:
        raise RunError(
            f"{path.name} in {path.parent.name} is damaged ({error}): evaluate again."
        ) from None
