"""Where to draw the line: the errors of each fold, and a slider that moves the thresholds.

The first view stands as plain output, so that a saved notebook keeps it. The controls are written
to what ipywidgets 7.7.1 (Colab) and 8 have in common.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import FoldScores, Scores, Summary
from ksdd_lib.evaluation.threshold_costs import Costs, Point
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots
from ksdd_lib.text import listed, number

LOOK = {"style": {"description_width": "16em"}, "layout": {"width": "40em"}}

SHOWN = 8
"""Parts that change sides, by name."""


def show_folds(summary: Summary) -> None:
    """Show each fold's errors and scores, and what they come to together, as a table that stays.

    Args:
        summary: what metrics.json holds.
    """
    heads = ("", "misses", "false alarms", "AP", "ROC AUC", "threshold")
    rows = [_fold_cells(f"fold {fold.fold}", fold) for fold in summary.folds]
    mean, pooled = summary.fold_mean, summary.pooled
    rows.append(["mean of folds", "", "", number(mean.ap), number(mean.auc), ""])
    rows.append(_fold_cells("pooled", pooled))
    text = "\n".join(f"{row[0]:14}{row[1]:>10}{row[2]:>14}{row[3]:>12}" for row in [heads, *rows])
    outputs.show_table(outputs.table(heads, rows), text)


def _fold_cells(name: str, one: Scores) -> list[str]:
    good = one.images - one.defective
    errors = [f"{one.fn} of {one.defective}", f"{one.fp} of {good}"]
    threshold = number(one.threshold, 2) if isinstance(one, FoldScores) else "each fold's own"
    return [name, *errors, number(one.ap), number(one.auc), threshold]


@dataclass(frozen=True)
class OperatingPoint:
    """The scores of a run, and what their errors cost.

    Attributes:
        rows: of predictions.csv, with thresholds.
        costs: what an error costs.
        is_generated: the data set is generated, which then stands on each figure.
    """

    rows: Sequence[Prediction]
    costs: Costs
    is_generated: bool

    def table(self, named: Mapping[str, Point]) -> str:
        """The points as an HTML table: misses and false alarms first, with intervals and cost."""
        heads = ("", "shift, logits", "misses [95 %]", "false alarms [95 %]", "cost of 1,000 parts")
        rows = [
            (
                f"<b>{html.escape(name)}</b>",
                f"{point.shift:+.2f}",
                _k_of_n(point.misses, point.defective, point.miss_interval),
                _k_of_n(point.false_alarms, point.good, point.false_alarm_interval),
                f"{point.cost(self.costs):,.1f}",
            )
            for name, point in named.items()
        ]
        return outputs.table(heads, rows)

    def words(self, point: Point) -> str:
        """What changes against the operating thresholds, and what could be claimed, as HTML."""
        needed = threshold_costs.parts_needed(0.01, point.misses)
        changed = sorted(point.changed, key=lambda row: (not row.is_defective, -row.score))
        names = [
            f"{html.escape(row.image)} ({'defective' if row.is_defective else 'good'}, "
            f"{'passed' if row.is_flagged else 'flagged'} now, score {row.score:.2f})"
            for row in changed
        ]
        sides = (
            f"Change sides: {listed(names, SHOWN, '; ')}." if names else "No part changes sides."
        )
        return (
            f"<p>To claim fewer than 1 % misses (95 % sure) with {point.misses} missed, "
            f"{needed:,} defective parts must be tested; here are {point.defective}.</p>"
            f"<p>{sides}</p>"
        )

    def figure(self, point: Point, name: str) -> Figure:
        """Precision-recall and ROC curve of the margins, with the point on them."""
        labels = [row.is_defective for row in self.rows]
        values = threshold_costs.margins(self.rows)
        figure = plots.both_curves(labels, values, values > point.shift, name)
        return plots.stamp(figure) if self.is_generated else figure


def show(rows: Sequence[Prediction], is_generated: bool, costs: Costs) -> None:
    """Show three operating points as a table and a figure that stay, and controls to try others.

    One slider moves the thresholds of all folds. Three boxes take what a miss and a false alarm
    cost, and the share of defective parts on the line. What they change is shown below them, from
    the first move on.

    Args:
        rows: of predictions.csv, with thresholds.
        is_generated: the data set is generated.
        costs: what the controls start from.
    """
    view = OperatingPoint(rows, costs, is_generated)
    here = threshold_costs.at(rows, 0.0)
    named = {
        "operating": here,
        "no miss (oracle)": threshold_costs.without_misses(rows),
        "least cost (oracle)": threshold_costs.cheapest(rows, costs),
    }
    text = "\n".join(
        f"{name:20} {point.misses} misses of {point.defective}, "
        f"{point.false_alarms} false alarms of {point.good}"
        for name, point in named.items()
    )
    outputs.show_table(view.table(named) + view.words(here), text)
    outputs.show_figure(view.figure(here, "operating"))
    _show_controls(view)


def _show_controls(view: OperatingPoint) -> None:
    """The slider and the boxes; nothing where there are no controls."""
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    rows, costs, here = view.rows, view.costs, threshold_costs.at(view.rows, 0.0)
    low, high = (float(value) for value in threshold_costs.shifts(rows)[[0, -1]])
    slider = widgets.FloatSlider(
        value=0.0,
        min=low,
        max=high,
        step=(high - low) / 400,
        readout_format="+.2f",
        continuous_update=False,
        description="shift of the thresholds",
        **LOOK,
    )
    boxes = [
        widgets.FloatText(value, description=description, **LOOK)
        for value, description in (
            (costs.miss, "a missed defect costs"),
            (costs.false_alarm, "a false alarm costs"),
            (costs.defective_share, "share of defective parts"),
        )
    ]
    told = widgets.HTML("<i>Move a control: what it changes is then shown here.</i>")
    drawn = widgets.HTML()

    def renew(_: object) -> None:
        values = [box.value for box in boxes]
        if min(values) < 0 or values[-1] > 1:
            told.value = "Costs are 0 or more, and the share lies between 0 and 1."
            return
        chosen = OperatingPoint(rows, Costs(*values), view.is_generated)
        point = threshold_costs.at(rows, slider.value)
        best = threshold_costs.cheapest(rows, chosen.costs)
        points = {"operating": here, "chosen": point, "least cost (oracle)": best}
        told.value = chosen.table(points) + chosen.words(point)
        drawn.value = outputs.picture_tag(chosen.figure(point, "chosen"), 80)

    for control in (slider, *boxes):
        control.observe(renew, names="value")
    outputs.show_controls(slider, *boxes, told, drawn)


def _k_of_n(k: int, n: int, limits: Sequence[float] | None) -> str:
    if limits is None:
        return f"{k} of {n}"
    return f"{k} of {n} [{limits[0]:.1%}, {limits[1]:.1%}]"
