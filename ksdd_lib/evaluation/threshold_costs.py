"""What each threshold costs, on the scores of the test surfaces.

One shift in logits moves the operating thresholds of all folds and classes. Below 0 more is
flagged. A point that the test scores themselves choose, as `cheapest`, is an oracle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ksdd_lib.evaluation.metrics import error_counts
from ksdd_lib.evaluation.predictions import Prediction


@dataclass(frozen=True)
class Costs:
    """What an error costs, in the user's own money, and the share of defective parts on the line.

    In a test set that share is far higher.
    """

    miss: float = 100.0
    false_alarm: float = 1.0
    defective_share: float = 0.01


@dataclass(frozen=True)
class Point:
    """The errors on all test surfaces at one shift, and the surfaces whose verdict it changes."""

    shift: float
    misses: int
    defective: int
    false_alarms: int
    good: int
    changed: tuple[Prediction, ...]

    def cost(self, costs: Costs) -> float:
        """Expected cost of a thousand parts, at the rates seen here; a rate without parts is 0."""
        missed = self.misses / max(self.defective, 1)
        flagged = self.false_alarms / max(self.good, 1)
        share = costs.defective_share
        return 1000 * (share * missed * costs.miss + (1 - share) * flagged * costs.false_alarm)


def margins(rows: Sequence[Prediction]) -> np.ndarray:
    """Each surface's score minus the operating threshold of its fold, in logits: (N,)."""
    return np.array([row.margin for row in rows], float)


def at(rows: Sequence[Prediction], shift: float) -> Point:
    """The errors where every fold's threshold is moved by `shift` logits."""
    flagged = margins(rows) > shift
    counts = error_counts([row.is_defective for row in rows], flagged)
    return Point(
        shift=float(shift),
        misses=counts.fn,
        defective=counts.tp + counts.fn,
        false_alarms=counts.fp,
        good=counts.fp + counts.tn,
        changed=tuple(r for r, f in zip(rows, flagged, strict=True) if f != r.is_flagged),
    )


def shifts(rows: Sequence[Prediction]) -> np.ndarray:
    """All shifts that differ in their verdicts, ascending: between neighbouring margins, and 0."""
    values = np.unique(margins(rows))
    between = (values[1:] + values[:-1]) / 2
    return np.unique([values[0] - 1, *between, values[-1] + 1, 0.0])


def errors(rows: Sequence[Prediction], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Misses and false alarms at each of several shifts, as `at` counts them: (M,), (M,)."""
    labels, values = np.array([row.is_defective for row in rows], bool), margins(rows)
    below = (np.searchsorted(np.sort(values[kind]), places, "right") for kind in (labels, ~labels))
    return next(below), (~labels).sum() - next(below)


def cheapest(rows: Sequence[Prediction], costs: Costs) -> Point:
    """The point of least cost on these very scores; of equals the one nearest to shift 0."""
    places, start = shifts(rows), at(rows, 0.0)
    counted = zip(places.tolist(), *map(np.ndarray.tolist, errors(rows, places)), strict=True)
    points = (replace(start, shift=s, misses=m, false_alarms=a) for s, m, a in counted)
    best = min(points, key=lambda point: (point.cost(costs), abs(point.shift)))
    return at(rows, best.shift)
