"""Where to draw the line: the errors of each fold, and a slider that moves the thresholds."""

import html
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.metrics import clopper_pearson, parts_needed
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import AllClassScores, FoldScores, Scores, Summary
from ksdd_lib.evaluation.threshold_costs import Costs, Point
from ksdd_lib.formatting import listed, number
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots


def show_folds(summary: Summary) -> None:
    """Show each fold's errors and scores, and what they come to together, as a table that stays."""
    heads = ("", "misses", "false alarms", "AP", "ROC AUC", "threshold")
    rows = [_fold_cells(f"fold {fold.fold}", fold) for fold in summary.folds]
    for row in rows if summary.class_scores else ():
        row[-1] = "each class's own"
    mean = summary.fold_mean
    rows.append(["mean of folds", "", "", number(mean.ap), number(mean.auc), ""])
    rows.append(_fold_cells("pooled", summary.pooled))
    text = "\n".join(f"{row[0]:14}{row[1]:>10}{row[2]:>14}{row[3]:>12}" for row in [heads, *rows])
    outputs.show_table(outputs.table(heads, rows), text)


def show_classes(found: AllClassScores) -> None:
    """Show how often an image of each class was called what, as a table that stays."""
    heads = ("shown \\ named", *found.confusion, "AP")
    scores = {one.name: number(one.ap) for one in found.classes}
    rows = [
        [name, *map(str, row.values()), scores.get(name, "")]
        for name, row in found.confusion.items()
    ]
    text = "\n".join("".join(f"{cell:>16}" for cell in row) for row in [heads, *rows])
    safe = [[html.escape(cell) for cell in row] for row in [heads, *rows]]  # names are the user's
    outputs.show_table(outputs.table(safe[0], safe[1:]), text)


def _fold_cells(name: str, one: Scores) -> list[str]:
    errors = [f"{one.fn} of {one.defective}", f"{one.fp} of {one.images - one.defective}"]
    threshold = number(one.threshold, 2) if isinstance(one, FoldScores) else "each fold's own"
    return [name, *errors, number(one.ap), number(one.auc), threshold]


def show(rows: Sequence[Prediction], is_generated: bool, costs: Costs) -> None:
    """Show three operating points as a table and a figure that stay, and controls to try others:
    a slider for the thresholds of all folds, and boxes for the costs and the defective share."""
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
    outputs.show_table(_table(named, costs) + _words(here), text)
    outputs.show_figure(_figure(rows, here, "operating"), is_generated)
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    low, high = (float(value) for value in threshold_costs.shifts(rows)[[0, -1]])
    slider = outputs.slider("shift of the thresholds", 0.0, low, high, (high - low) / 400)
    slider.readout_format = "+.2f"
    asked = {
        "a missed defect costs": costs.miss,
        "a false alarm costs": costs.false_alarm,
        "share of defective parts": costs.defective_share,
    }
    boxes = [widgets.FloatText(x, description=name, **outputs.LOOK) for name, x in asked.items()]

    def answer() -> tuple[str, Figure | None]:
        values = [box.value for box in boxes]
        if min(values) < 0 or values[-1] > 1:
            return "Costs are 0 or more, and the share lies between 0 and 1.", None
        chosen, point = Costs(*values), threshold_costs.at(rows, slider.value)
        best = threshold_costs.cheapest(rows, chosen)
        points = {"operating": here, "chosen": point, "least cost (oracle)": best}
        return _table(points, chosen) + _words(point), _figure(rows, point, "chosen")

    outputs.show_answers((slider, *boxes), answer, is_generated)


def _table(named: Mapping[str, Point], costs: Costs) -> str:
    """The points as an HTML table: misses and false alarms first, with intervals and cost."""
    heads = ("", "shift, logits", "misses [95 %]", "false alarms [95 %]", "cost of 1,000 parts")
    rows = [
        (
            f"<b>{name}</b>",
            f"{point.shift:+.2f}",
            _k_of_n(point.misses, point.defective),
            _k_of_n(point.false_alarms, point.good),
            f"{point.cost(costs):,.1f}",
        )
        for name, point in named.items()
    ]
    return outputs.table(heads, rows)


def _words(point: Point) -> str:
    """What changes against the operating thresholds, and what could be claimed, as HTML."""
    needed = parts_needed(0.01, point.misses)
    names = [
        f"{html.escape(row.image)} ({'defective' if row.is_defective else 'good'}, "
        f"{'passed' if row.is_flagged else 'flagged'} now, score {row.score:.2f})"
        for row in sorted(point.changed, key=lambda row: (not row.is_defective, -row.score))
    ]
    sides = f"Change sides: {listed(names, 8, '; ')}." if names else "No part changes sides."
    return (
        f"<p>To claim fewer than 1 % misses (95 % sure) with {point.misses} missed, "
        f"{needed:,} defective parts must be tested; here are {point.defective}.</p>"
        f"<p>{sides}</p>"
    )


def _figure(rows: Sequence[Prediction], point: Point, name: str) -> Figure:
    """Precision-recall and ROC curve of the margins, with the point on them."""
    labels, values = [row.is_defective for row in rows], threshold_costs.margins(rows)
    return plots.both_curves(labels, values, values > point.shift, name)


def _k_of_n(k: int, n: int) -> str:
    """A count and the 95 % interval of its rate; no interval where n is 0."""
    limits = clopper_pearson(k, n)
    return f"{k} of {n}" + (f" [{limits[0]:.1%}, {limits[1]:.1%}]" if limits else "")
