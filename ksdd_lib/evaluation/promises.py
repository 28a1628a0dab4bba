"""What can be promised of thresholds: exact bounds on the errors among other parts.

Parts are counted, not photographs. A defective part is missed where none of its defective surfaces
is flagged. A good one is flagged where any of its good surfaces is. All bounds are one-sided, each
with 95 % confidence, for parts that come from where the tested ones came from.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ksdd_lib.evaluation.metrics import CONFIDENCE, error_bound, parts_needed
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.formatting import number, percent, percent_up_to
from ksdd_lib.storage import Record

WANTED = 0.05
"""The share of missed, and of flagged parts, that is to be promised unless told otherwise."""

ERRORS = {
    "missed": "defective parts are missed",
    "flagged": "parts have a good surface that is flagged",
}
"""How a part errs: defective parts have good surfaces too."""


class Bound(Record):
    """How many parts err, and below which share of all such parts do."""

    parts: int
    errors: int
    below: float

    def more(self, wanted: float) -> int:
        """How many more parts without an error would promise the wanted share; 0 where it holds."""
        return max(0, parts_needed(wanted, self.errors) - self.parts)


class Promise(Record):
    """Bounds on the defective parts that are missed, and on the good ones that are flagged."""

    missed: Bound | None  # None without such parts
    flagged: Bound | None


def of_verdicts(rows: Sequence[Prediction]) -> Promise:
    """What the verdicts promise; their thresholds must have been set without these rows."""

    def bound(kind: bool) -> Bound | None:
        margins = _of_parts(rows, kind, lambda row: row.margin)
        errors, parts = int(np.sum((margins > 0) != kind)), len(margins)
        below = float(error_bound(errors, parts))
        return Bound(parts=parts, errors=errors, below=below) if parts else None

    return Promise(missed=bound(True), flagged=bound(False))


def _of_parts(
    rows: Sequence[Prediction], kind: bool, value: Callable[[Prediction], float]
) -> np.ndarray:
    """The highest value of each part over its surfaces of a kind: (parts,)."""
    found: dict[str, float] = {}
    for row in rows:
        if row.is_defective == kind:
            found[row.item] = max(value(row), found.get(row.item, -np.inf))
    return np.array(list(found.values()), float)


def kept(errors: ArrayLike, parts: int, wanted: float) -> np.ndarray:
    """Which of a sequence of thresholds keep errors below `wanted`, by Learn-then-Test.

    `errors` of the parts err at each. The sequence is fixed, the safest threshold first, and ends
    at the first whose bound is too high. So all that are kept hold together with 95 % confidence,
    and any of them may be chosen afterwards, by these same parts (Angelopoulos 2021).
    """
    return np.logical_and.accumulate(error_bound(errors, parts) <= wanted)


def highest_threshold(scores: ArrayLike, wanted: float = WANTED) -> float | None:
    """Up to which threshold, in logits, fewer than `wanted` of the defective parts are missed.

    The scores are the highest of each part. None where no threshold can be promised.
    """
    values = np.sort(np.asarray(scores, float))
    # Between two scores nothing changes: these stand for all thresholds, from the lowest up.
    sequence = np.nextafter(values, -np.inf)
    errors = np.searchsorted(values, values, "left")
    found = sequence[kept(errors, len(values), wanted)]
    return float(found[-1]) if len(found) else None


def lowest_threshold(scores: ArrayLike, wanted: float = WANTED) -> float | None:
    """From which threshold, in logits, on fewer than `wanted` of the good parts are flagged."""
    values = np.sort(np.asarray(scores, float))[::-1]  # a score flags where it is greater
    errors = np.searchsorted(-values, -values, "left")
    found = values[kept(errors, len(values), wanted)]
    return float(found[-1]) if len(found) else None


def short(promise: Promise) -> str:
    """Both bounds in a few words."""
    pairs = ((promise.missed, "missed"), (promise.flagged, "flagged"))
    told = [f"fewer than {percent_up_to(one.below)} {what}" for one, what in pairs if one]
    return " and ".join(told)


def words(rows: Sequence[Prediction], wanted: float = WANTED) -> str:
    """What the verdicts promise, and what is missing for the wanted promise, in sentences."""
    found = of_verdicts(rows)
    whose = "parts with good surfaces"
    pairs = ((found.missed, "defective parts", "missed"), (found.flagged, whose, "flagged"))
    each = [
        f"fewer than {percent_up_to(one.below)} of the {ERRORS[what]} "
        f"({one.errors} of {one.parts} here)"
        for one, _, what in pairs
        if one
    ]
    more = [
        f"To promise fewer than {percent(wanted, 0)} {what} takes {one.more(wanted):,} more "
        f"{kind}, none of them {what}."
        for one, kind, what in pairs
        if one and one.more(wanted)
    ]
    return " ".join([f"Each with {CONFIDENCE:.0%} confidence, {' and '.join(each)}.", *more])


def of_all_thresholds(rows: Sequence[Prediction], threshold: float, wanted: float = WANTED) -> str:
    """What Learn-then-Test promises of a threshold that was chosen by these rows, in sentences."""
    sides = []
    for kind, find in ((True, highest_threshold), (False, lowest_threshold)):
        scores = _of_parts(rows, kind, lambda row: row.score)
        end = find(scores, wanted)
        what = "missed" if kind else "flagged"
        told = f"fewer than {percent(wanted, 0)} of the {ERRORS[what]}"
        if end is not None and (threshold <= end if kind else threshold >= end):
            sides.append(f"{told.capitalize()}.")
            continue
        errors = int(np.sum((scores > threshold) != kind))
        more = parts_needed(wanted, errors) - len(scores)
        where = ""
        if end is not None:
            safe = (np.floor(100 * end - 1e-6) if kind else np.ceil(100 * end)) / 100
            where = f" It holds at thresholds {'up to' if kind else 'from'} {number(safe, 2)}."
        sides.append(f"Not that {told}: that takes {more:,} more, none of them {what}.{where}")
    return (
        "What the models that gave the scores promise, by Learn-then-Test over all thresholds, "
        f"counted by part, each with {CONFIDENCE:.0%} confidence: {' '.join(sides)}"
    )
