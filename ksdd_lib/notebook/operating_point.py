"""The errors of each fold, and a page on which the user draws the line: dots, and costs."""

import html
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.metrics import clopper_pearson
from ksdd_lib.evaluation.predictions import SURE, Prediction
from ksdd_lib.evaluation.summary import AllClassScores, FoldScores, Scores, Summary
from ksdd_lib.evaluation.threshold_costs import Costs, Point
from ksdd_lib.formatting import interval, number, printable
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots
from ksdd_lib.reporting.surface_pictures import JudgedSurface

PAGE = Path(__file__).with_suffix(".html")
NEAREST = 12  # surfaces of each kind and side whose pictures the page has
CUT, SIDE = 256, 112  # pixels of the square around a defect, and of its picture


def show_folds(summary: Summary, others: Mapping[str, float | None]) -> None:
    """Show each fold's errors and scores, and what they come to together, as a table that stays.

    Below stands the AP of `others`, which judge the same surfaces.
    """
    heads = ("", "misses", "false alarms", "AP", "ROC AUC", "threshold")
    rows = [_fold_cells(f"fold {fold.fold}", fold) for fold in summary.folds]
    for row in rows if summary.class_scores else ():
        row[-1] = "each class's own"
    mean = summary.fold_mean
    rows.append(["mean of folds", "", "", number(mean.ap), number(mean.auc), ""])
    rows.append(_fold_cells("pooled", summary.pooled))
    rows[-1][3] += f" (95 %: {interval(summary.pooled.intervals.ap)})"
    rest = dict(others)
    if summary.darkest_pixel:
        rest["the darkest pixel, no training"] = summary.darkest_pixel.ap
    rows += [[name, "", "", number(ap), "", ""] for name, ap in rest.items()]
    text = "\n".join(f"{row[0]:36}{row[1]:>10}{row[2]:>14}  {row[3]}" for row in [heads, *rows])
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


def show(
    rows: Sequence[Prediction],
    surface: Callable[[Prediction], JudgedSurface],
    is_generated: bool,
    costs: Costs,
) -> None:
    """Show a page with a line to drag, which needs no kernel; where no scripts run, what stays.

    `surface` gives what is shown of a row, as of `report.open_surfaces`.
    """
    points = {
        "operating": threshold_costs.at(rows, 0.0),
        "least cost": threshold_costs.cheapest(rows, costs),
    }
    text = "\n".join(
        f"{name:12} {point.misses} misses of {point.defective}, "
        f"{point.false_alarms} false alarms of {point.good}"
        for name, point in points.items()
    )
    page = ""
    if outputs.in_notebook():
        told = json.dumps(_told(rows, surface, is_generated, costs)).replace("<", "\\u003c")
        source = html.escape(PAGE.read_text("utf-8").replace("THE_DATA", told))
        frame = '<iframe title="Operating point" style="width: 100%; height: 0; border: 0"'
        page = f"<div>{_table(points, costs)}{_dots(rows, is_generated)}</div>"
        page += f'{frame} srcdoc="{source}"></iframe>'
    outputs.show_table(page, text)


def _told(
    rows: Sequence[Prediction],
    surface: Callable[[Prediction], JudgedSurface],
    is_generated: bool,
    costs: Costs,
) -> dict[str, object]:
    """What the page knows, for JSON."""
    places = threshold_costs.shifts(rows)
    misses, alarms = threshold_costs.errors(rows, places)
    start = threshold_costs.at(rows, 0.0)
    return {
        "margins": threshold_costs.margins(rows).tolist(),
        "labels": [int(row.is_defective) for row in rows],
        "places": places.tolist(),
        "misses": misses.tolist(),
        "alarms": alarms.tolist(),
        "intervals": [
            [_interval(k, n) for k in range(n + 1)] for n in (start.defective, start.good)
        ],
        "cards": [
            {"row": n, "name": printable(rows[n].image), "picture": _thumbnail(surface(rows[n]))}
            for n in _nearest(rows)
        ],
        "costs": asdict(costs),
        "sure": SURE,
        "is_generated": is_generated,
    }


def _nearest(rows: Sequence[Prediction]) -> list[int]:
    """The rows whose pictures are shown: of each kind and side of the line the nearest to it."""
    by_distance = sorted(range(len(rows)), key=lambda n: abs(rows[n].margin))
    kinds = [(is_defective, flagged) for is_defective in (True, False) for flagged in (True, False)]
    return [
        n
        for kind in kinds
        for n in [n for n in by_distance if (rows[n].is_defective, rows[n].margin > 0) == kind][
            :NEAREST
        ]
    ]


def _thumbnail(one: JudgedSurface) -> str:
    """The square around the defect, or what the model suspects most, as the address of a JPEG."""
    pixels = one.image[one.closest(min(CUT, *one.image.shape))]
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


def _dots(rows: Sequence[Prediction], is_generated: bool) -> str:
    """The page's dots as a picture, a band for each fold."""
    labels, folds = [row.is_defective for row in rows], [row.fold for row in rows]
    lines = dict.fromkeys(sorted(set(folds)), 0.0)
    strip = plots.score_strip(labels, threshold_costs.margins(rows), folds, lines)
    strip.set_xlabel("score minus threshold (logits; to the right: suspicious)")
    return outputs.picture(plots.figure_of(strip), is_generated)


def _table(points: Mapping[str, Point], costs: Costs) -> str:
    """The points as an HTML table: misses and false alarms first, with intervals and cost."""
    heads = ("", "shift, logits", "misses", "false alarms", "cost of 1,000 parts")
    rows = [
        (
            f"<b>{name}</b>",
            f"{point.shift:+.2f}",
            f"{point.misses} of {point.defective} {_interval(point.misses, point.defective)}",
            f"{point.false_alarms} of {point.good} {_interval(point.false_alarms, point.good)}",
            f"{point.cost(costs):,.1f}",
        )
        for name, point in points.items()
    ]
    return outputs.table(heads, rows)


def _interval(k: int, n: int) -> str:
    """The 95 % interval of the rate k of n; nothing where n is 0."""
    limits = clopper_pearson(k, n)
    return f"[95 %: {limits[0]:.1%} to {limits[1]:.1%}]" if limits else ""
