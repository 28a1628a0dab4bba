"""Looking into results with a control in hand: a picture judged, of one's own too.

Every view stands as plain output first, so that a saved notebook keeps it.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ksdd_lib.deploy.detection import Detector, Verdict, as_pixels
from ksdd_lib.errors import KsddError
from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.threshold_costs import Costs, Point
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots, surface_pictures
from ksdd_lib.text import number

# Judging a picture


def judge_picture(
    detector: Detector, example: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """Show the verdict on an example, and a button to upload pictures, each judged below it.

    Args:
        example: a picture as `Detector.judge` takes it.
        name: what stands above it.
        record: as for `show_figure`.

    Returns:
        The verdict on the example.
    """
    found = _show_verdict(detector, example, name, record)
    try:
        import ipywidgets
    except ImportError:
        return found
    button = ipywidgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = ipywidgets.Output()

    def judge(change: Mapping[str, Any]) -> None:
        with below:
            for title, content in _uploaded(change["new"]):
                try:
                    _show_verdict(detector, content, title, {"is_generated": False})
                except KsddError as error:
                    print(f"{title}: {error}")

    button.observe(judge, names="value")
    if outputs.in_notebook():
        from IPython.display import display

        display(ipywidgets.VBox([button, below]))
    return found


def _show_verdict(
    detector: Detector, picture: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """One line and a figure: the picture, and where a defect is seen."""
    pixels = as_pixels(picture)
    found = detector.judge(pixels)
    if found.mask is None:
        print(f"{name}: {found.label}")
        return found
    print(f"{name}: {found.label}, score {found.score:.2f}, threshold {detector.threshold:.2f}")
    if doubt := detector.doubt(pixels.shape):
        print(f"Warning: {doubt}.")
    figure = surface_pictures.gallery(
        [pixels, found.mask], titles=[f"{name}: {found.label}", "output: probability"]
    )
    outputs.show_figure(figure, record)
    return found


# Each fold


def show_folds(summary: Mapping[str, Any]) -> None:
    """Show each fold's errors and scores, and what they come to together, as a table that stays.

    Args:
        summary: what metrics.json holds.
    """
    heads = ("", "misses", "false alarms", "AP", "ROC AUC", "threshold")
    rows = [_fold_cells(f"fold {fold['fold']}", fold) for fold in summary["folds"]]
    mean, pooled = summary["fold_mean"], summary["pooled"]
    rows.append(["mean of folds", "", "", number(mean["ap"]), number(mean["auc"]), ""])
    rows.append(_fold_cells("pooled", pooled))
    text = "\n".join(f"{row[0]:14}{row[1]:>10}{row[2]:>14}{row[3]:>12}" for row in [heads, *rows])
    if not outputs.in_notebook():
        print(text)
        return
    outputs.show({"text/html": outputs.table(heads, rows), "text/plain": text})


def _fold_cells(name: str, one: Mapping[str, Any]) -> list[str]:
    good = one["images"] - one["defective"]
    errors = [f"{one['fn']} of {one['defective']}", f"{one['fp']} of {good}"]
    threshold = number(one["threshold"], 2) if "threshold" in one else "each fold's own"
    return [name, *errors, number(one["ap"]), number(one["auc"]), threshold]


# The operating point


@dataclass(frozen=True)
class OperatingPoint:
    """The scores of a run, and what their errors cost.

    Attributes:
        rows: of predictions.csv.
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
            for row in changed[:SHOWN]
        ]
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        sides = f"Change sides: {'; '.join(names)}{more}." if names else "No part changes sides."
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


SHOWN = 8
"""Parts that change sides, by name."""


def operating_point(rows: Sequence[Prediction], record: Mapping[str, Any], costs: Costs) -> None:
    """Show three operating points as a table and a figure that stay, and controls to try others.

    One slider moves the thresholds of all folds; three boxes take what a miss and a false alarm
    cost and the share of defective parts on the line. What they change is shown below them, from
    the first move on.

    Args:
        rows: of predictions.csv, with thresholds.
        record: what data.json holds.
        costs: what the controls start from.
    """
    view = OperatingPoint(rows, costs, record["is_generated"])
    here = threshold_costs.at(rows, 0.0)
    named = {
        "operating": here,
        "no miss (oracle)": threshold_costs.without_misses(rows),
        "least cost (oracle)": threshold_costs.cheapest(rows, costs),
    }
    if not outputs.in_notebook():
        print(_plain(named))
        return
    outputs.show({"text/html": view.table(named) + view.words(here), "text/plain": _plain(named)})
    outputs.show_figure(view.figure(here, "operating"), {"is_generated": False})
    try:
        import ipywidgets
    except ImportError:
        return
    look = {"style": {"description_width": "16em"}, "layout": ipywidgets.Layout(width="40em")}
    low, high = (float(value) for value in threshold_costs.shifts(rows)[[0, -1]])
    slider = ipywidgets.FloatSlider(
        value=0.0,
        min=low,
        max=high,
        step=(high - low) / 400,
        readout_format="+.2f",
        continuous_update=False,
        description="shift of the thresholds",
        **look,
    )
    boxes = {
        "miss": ipywidgets.FloatText(costs.miss, description="a missed defect costs", **look),
        "false_alarm": ipywidgets.FloatText(
            costs.false_alarm, description="a false alarm costs", **look
        ),
        "defective_share": ipywidgets.FloatText(
            costs.defective_share, description="share of defective parts", **look
        ),
    }
    told = ipywidgets.HTML("<i>Move a control: what it changes is then shown here.</i>")
    drawn = ipywidgets.HTML()

    def renew(_: Any) -> None:
        values = {name: box.value for name, box in boxes.items()}
        if min(values.values()) < 0 or values["defective_share"] > 1:
            told.value = "Costs are 0 or more, and the share lies between 0 and 1."
            return
        chosen = OperatingPoint(rows, Costs(**values), view.is_generated)
        point = threshold_costs.at(rows, slider.value)
        best = threshold_costs.cheapest(rows, chosen.costs)
        points = {"operating": here, "chosen": point, "least cost (oracle)": best}
        told.value = chosen.table(points) + chosen.words(point)
        drawn.value = outputs.picture_tag(chosen.figure(point, "chosen"), 80)

    for control in (slider, *boxes.values()):
        control.observe(renew, names="value")
    from IPython.display import display

    display(ipywidgets.VBox([slider, *boxes.values(), told, drawn]))


def _k_of_n(k: int, n: int, limits: Sequence[float] | None) -> str:
    if limits is None:
        return f"{k} of {n}"
    return f"{k} of {n} [{limits[0]:.1%}, {limits[1]:.1%}]"


def _plain(named: Mapping[str, Point]) -> str:
    return "\n".join(
        f"{name:20} {point.misses} misses of {point.defective}, "
        f"{point.false_alarms} false alarms of {point.good}"
        for name, point in named.items()
    )


def _uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Names and contents in the value of a FileUpload: a dict in ipywidgets 7, a tuple in 8."""
    if isinstance(value, Mapping):
        return [(name, bytes(one["content"])) for name, one in value.items()]
    return [(one["name"], bytes(one["content"])) for one in value]
