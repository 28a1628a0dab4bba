"""What each threshold costs, on the scores of the test surfaces.

Each fold has an operating threshold, fixed in advance. All of them are moved here by one shift in
logits: below 0 more is flagged. Points that are chosen by the test scores themselves (`cheapest`,
`without_misses`) are oracles, and are called so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ksdd_lib.evaluation.metrics import CONFIDENCE, Interval, clopper_pearson
from ksdd_lib.evaluation.predictions import Prediction


@dataclass(frozen=True)
class Costs:
    """What errors cost, and how often parts are defective.

    Attributes:
        miss: cost of a defective part that passes, in the user's own money.
        false_alarm: cost of a good part that is flagged.
        defective_share: how many parts on the line are defective; in a test set it is far more.
    """

    miss: float = 100.0
    false_alarm: float = 1.0
    defective_share: float = 0.01


@dataclass(frozen=True)
class Point:
    """The errors on all test surfaces at one shift of the thresholds.

    Attributes:
        changed: the surfaces that are judged otherwise than at the operating thresholds.
    """

    shift: float
    misses: int
    defective: int
    false_alarms: int
    good: int
    changed: tuple[Prediction, ...]

    @property
    def miss_interval(self) -> Interval | None:
        """95 % interval of the share of defective parts that pass; None without any."""
        return clopper_pearson(self.misses, self.defective)

    @property
    def false_alarm_interval(self) -> Interval | None:
        """95 % interval of the share of good parts that are flagged; None without any."""
        return clopper_pearson(self.false_alarms, self.good)

    def cost(self, costs: Costs) -> float:
        """Expected cost of a thousand parts, at the rates seen here; a rate without parts is 0."""
        missed = self.misses / self.defective if self.defective else 0.0
        flagged = self.false_alarms / self.good if self.good else 0.0
        share = costs.defective_share
        each = share * missed * costs.miss + (1 - share) * flagged * costs.false_alarm
        return 1000 * each


def margins(rows: Sequence[Prediction]) -> np.ndarray:
    """Each surface's score minus the operating threshold of its fold, in logits: (N,)."""
    return np.array([row.margin for row in rows], float)


def at(rows: Sequence[Prediction], shift: float) -> Point:
    """The errors where every fold's threshold is moved by `shift` logits."""
    flagged = margins(rows) > shift
    defective = np.array([row.is_defective for row in rows], bool)
    return Point(
        shift=float(shift),
        misses=int((defective & ~flagged).sum()),
        defective=int(defective.sum()),
        false_alarms=int((~defective & flagged).sum()),
        good=int((~defective).sum()),
        changed=tuple(r for r, f in zip(rows, flagged, strict=True) if f != r.is_flagged),
    )


def shifts(rows: Sequence[Prediction]) -> np.ndarray:
    """All shifts that differ in their verdicts, ascending: between neighbouring margins, and 0."""
    values = np.unique(margins(rows))
    between = (values[1:] + values[:-1]) / 2
    ends = [values[0] - 1, values[-1] + 1]
    return np.unique(np.concatenate([between, ends, [0.0]]))


def cheapest(rows: Sequence[Prediction], costs: Costs) -> Point:
    """The point of least cost on these very scores; of equals the one nearest to shift 0."""
    points = [at(rows, shift) for shift in shifts(rows)]
    return min(points, key=lambda point: (point.cost(costs), abs(point.shift)))


def without_misses(rows: Sequence[Prediction]) -> Point:
    """The point of the highest shift at which none of these surfaces is missed."""
    points = (at(rows, shift) for shift in reversed(shifts(rows)))
    return next(point for point in points if point.misses == 0)


def parts_needed(rate: float, misses: int = 0) -> int:
    """How many defective parts must be tested to claim a rate of misses below `rate`.

    At this many parts, were the rate `rate`, the chance of no more than `misses` misses is at most
    5 % (one-sided, exact binomial). It is 299 for 1 % and no miss.
    """
    from scipy.stats import nbinom

    found = int(nbinom.ppf(CONFIDENCE, misses + 1, rate))  # parts found before one miss more
    return found + misses + 1
