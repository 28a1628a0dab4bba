"""Figures: functions that take arrays and an optional `ax`, draw, and return what they drew on.

They never show and never save. Figures are plain `matplotlib.figure.Figure` objects, so no backend
and no pyplot state is touched; `png(figure)` gives the bytes to store or to display. Hues are those
of Okabe and Ito, which colour-blind readers can tell apart.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from ksdd_lib import metrics
from ksdd_lib.metrics import Prediction

INK, FAINT = "#333333", "#b8b8b8"
GOOD, DEFECTIVE = "#0072B2", "#D55E00"
OUTLINE = "#56B4E9"
FOLD_COLORS = ("#0072B2", "#009E73", "#CC79A7")
OUTPUT_COLORS = "inferno"
OUTPUT_SCALE = PowerNorm(0.5, vmin=0, vmax=1)  # 1 % is visible: what a miss did answer

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#ececec",
    "text.color": INK,
    "text.parse_math": False,  # a part may be called "a$b$"
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
"""The one look of all figures; each function applies it for as long as it draws."""


def new_axes(width: float = 5.2, height: float = 4.2) -> Axes:
    """Empty axes on a figure of its own, width x height in inches."""
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained").add_subplot()


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as the bytes of a PNG file of 256 colours, a quarter of the size of full colour.

    Equal figures give equal bytes.
    """
    from PIL import Image  # matplotlib needs it, so it is there

    full, small = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(full, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    picture = Image.open(full).convert("RGB")
    picture.quantize(method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


def stamp(figure: Figure, text: str = "GENERATED") -> Figure:
    """Say `text` in the figure's upper right corner: visible, but over none of the data."""
    with matplotlib.rc_context(STYLE):
        figure.text(
            1 - 0.06 / figure.get_figwidth(),
            1 - 0.06 / figure.get_figheight(),
            text,
            ha="right",
            va="top",
            fontsize=7.5,
            fontweight="bold",
            color=DEFECTIVE,
            bbox={"boxstyle": "square,pad=0.25", "facecolor": "white", "edgecolor": DEFECTIVE},
        ).set_in_layout(False)
    return figure


# Curves


def roc_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    flagged: ArrayLike | None = None,
    ax: Axes | None = None,
    label: str = "pooled",
    color: str = INK,
) -> Axes:
    """The ROC curve, with the points of the operating and of the oracle threshold on it.

    Args:
        labels, scores: (N,), defective or not, and logits.
        flagged: (N,), the verdicts at the operating threshold; None draws the curve alone.
    """
    from sklearn import metrics as sklearn_metrics

    area = metrics.roc_auc(labels, scores)
    ax = _curve_axes(ax, "ROC curve", "false positive rate", "true positive rate")
    with matplotlib.rc_context(STYLE):
        if area is None:
            return _write_undefined(ax)
        x, y, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
        ax.plot(x, y, color=color, linewidth=2, label=f"{label}: AUC {area:.4f}")
        if flagged is not None:
            ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="chance")
            for name, style, (tp, fp, fn, tn) in _points(labels, scores, flagged):
                ax.plot(fp / (fp + tn), tp / (tp + fn), label=f"{name}: {fp} FP, {fn} FN", **style)
        ax.legend(loc="lower right")
    return ax


def precision_recall_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    flagged: ArrayLike | None = None,
    ax: Axes | None = None,
    label: str = "pooled",
    color: str = INK,
) -> Axes:
    """The precision-recall curve as steps, whose area is the average precision.

    Args: as of `roc_curve`.
    """
    from sklearn import metrics as sklearn_metrics

    area = metrics.average_precision(labels, scores)
    ax = _curve_axes(ax, "Precision-recall curve", "recall", "precision")
    with matplotlib.rc_context(STYLE):
        if area is None:
            return _write_undefined(ax)
        y, x, _ = sklearn_metrics.precision_recall_curve(labels, scores)
        name = f"{label}: AP {area:.4f}"
        ax.plot(x, y, color=color, linewidth=2, drawstyle="steps-post", label=name)
        if flagged is not None:
            chance = float(np.mean(np.asarray(labels, bool)))
            ax.axhline(chance, color=FAINT, linewidth=1, linestyle=":", label="chance")
            for name, style, (tp, fp, fn, _) in _points(labels, scores, flagged):
                if tp + fp:
                    point = tp / (tp + fn), tp / (tp + fp)
                    ax.plot(*point, label=f"{name}: {fp} FP, {fn} FN", **style)
        ax.legend(loc="lower left")
    return ax


def _curve_axes(ax: Axes | None, title: str, x: str, y: str) -> Axes:
    ax = ax or new_axes()
    with matplotlib.rc_context(STYLE):
        ax.set(title=title, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    return ax


def _write_undefined(ax: Axes) -> Axes:
    text = "undefined: needs defective and good surfaces"
    ax.text(0.5, 0.5, text, ha="center", transform=ax.transAxes, color=INK)
    return ax


def _points(labels: ArrayLike, scores: ArrayLike, flagged: ArrayLike) -> list[tuple]:
    """(name, marker style, (tp, fp, fn, tn)) of the operating and the oracle threshold."""
    at_oracle = np.asarray(scores) > metrics.best_f1_threshold(labels, scores)
    filled = {"color": DEFECTIVE, "marker": "o", "markersize": 8, "linestyle": "", "zorder": 4}
    hollow = {"color": INK, "marker": "D", "markersize": 11, "fillstyle": "none", "linestyle": ""}
    return [
        (name, style, [metrics.error_counts(labels, verdict)[key] for key in COUNTS])
        for name, style, verdict in (("operating", filled, flagged), ("oracle", hollow, at_oracle))
    ]


COUNTS = ("tp", "fp", "fn", "tn")


def training_curve(
    history: Sequence[Mapping[str, float]],
    ax: Axes | None = None,
    label: str | None = None,
    color: str = FOLD_COLORS[0],
) -> Axes:
    """The loss of one stage over its steps: faint as logged, strong as a running mean.

    Args:
        history: rows with "step" and "loss", in order.
    """
    ax = ax or new_axes()
    step = np.array([row["step"] for row in history], float)
    loss = np.array([row["loss"] for row in history], float)
    with matplotlib.rc_context(STYLE):
        ax.plot(step, loss, color=color, linewidth=0.8, alpha=0.35)
        ax.plot(step, running_mean(loss), color=color, linewidth=2, label=label)
        if len(loss) and loss.min() > 0:
            ax.set_yscale("log")
            plain = FuncFormatter(lambda value, _: f"{value:g}")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(plain)
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="step", ylabel="loss")
        if label:
            ax.legend(loc="upper right")
    return ax


def running_mean(values: np.ndarray, share: float = 0.08) -> np.ndarray:
    """Each value's mean over a centred window of `share` of all, cut off at both ends."""
    half = int(len(values) * share / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def training_curves(stages: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]) -> Figure:
    """The loss of each stage side by side, one colour a fold.

    Args:
        stages: stage name ("segmentation", "decision") -> fold number -> history rows.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(stages), 3.8), layout="constrained")
        grid = figure.subplots(1, len(stages), squeeze=False)[0]
    for ax, (stage, histories) in zip(grid, stages.items(), strict=True):
        for fold, history in histories.items():
            color = FOLD_COLORS[fold % len(FOLD_COLORS)]
            training_curve(history, ax, label=f"fold {fold}", color=color)
        with matplotlib.rc_context(STYLE):
            ax.set_title(f"{stage.capitalize()} network: training loss")
    return figure


LEAST_AP = 60  # percent: what lies below would squeeze all that is worth comparing


def few_defects_curve(
    ours: Mapping[str, Mapping[int, Sequence[float]]],
    published: Mapping[str, Mapping[int, Sequence[float]]],
) -> Figure:
    """AP over the number of defective training images: each draw a dot, a line through the means.

    Args:
        ours, published: name -> number of images -> AP in percent, of each draw.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        for (name, few), marker in zip(published.items(), "sv^D", strict=False):
            counts = sorted(few)
            means = [float(np.mean(few[count])) for count in counts]
            style = {"color": "#8a8a8a", "linewidth": 0.9, "markersize": 4.5}
            ax.plot(counts, means, marker=marker, markerfacecolor="white", label=name, **style)
        for (name, few), color in zip(ours.items(), (*FOLD_COLORS, DEFECTIVE), strict=False):
            counts = sorted(few)
            means = [float(np.mean(few[count])) for count in counts]
            ax.plot(counts, means, color=color, linewidth=2, label=f"{name}: mean of draws")
            dots = [(count, ap) for count in counts for ap in few[count]]
            ax.plot(*zip(*dots, strict=True), "o", color=color, markersize=4)
        ax.set_ylim(bottom=LEAST_AP)
        ax.set(xlabel="defective images in training", ylabel="average precision, %")
        ax.set_title(f"Few defects (below {LEAST_AP} % cut off)")
        ax.legend(loc="lower right")
    return figure


# Verdicts


def confusion_matrix(labels: ArrayLike, flagged: ArrayLike, ax: Axes | None = None) -> Axes:
    """Counts of surface by verdict: right ones tinted blue, errors orange."""
    ax = ax or new_axes()
    counts = metrics.error_counts(labels, flagged)
    cells = [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]]
    with matplotlib.rc_context(STYLE):
        for row, (truth, values) in enumerate(zip(("good", "defective"), cells, strict=True)):
            for column, value in enumerate(values):
                _draw_cell(ax, row, column, value, sum(values), truth)
        ax.set(title="Confusion matrix", xlabel="verdict", ylabel="surface")
        ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
        ax.set_xticks([0, 1], ["passed", "flagged"])
        ax.set_yticks([0, 1], ["good", "defective"], rotation=90, va="center")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.grid(visible=False)
    return ax


def _draw_cell(ax: Axes, row: int, column: int, value: int, of: int, truth: str) -> None:
    share = value / of if of else 0.0
    tint = LinearSegmentedColormap.from_list("", ["#f6f6f6", GOOD if row == column else DEFECTIVE])
    depth = 0.55 * share if row == column else min(0.8, 0.2 + share) * (value > 0)
    box = (column - 0.48, row - 0.48), 0.96, 0.96
    ax.add_patch(Rectangle(*box, facecolor=tint(depth)))
    ax.text(column, row - 0.06, str(value), ha="center", va="center", fontsize=24)
    note = f"of {of} {truth}" + (f" ({share:.1%})" if of else "")
    ax.text(column, row + 0.24, note, ha="center", va="center")


def score_strip(
    labels: ArrayLike,
    scores: ArrayLike,
    folds: ArrayLike,
    thresholds: Mapping[int, float],
    oracle: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Every score as a dot: a band per fold, defective over good, the thresholds as lines.

    Args:
        labels, scores, folds: (N,).
        thresholds: fold -> its operating threshold in logits; one band for each.
        oracle: the pooled oracle threshold in logits, drawn through all bands.
    """
    ax = ax or new_axes(10.4, 1.5 + 0.9 * len(thresholds))
    labels, scores, folds = np.asarray(labels, bool), np.asarray(scores), np.asarray(folds)
    jitter = np.random.default_rng(0).uniform(-0.13, 0.13, len(scores))
    with matplotlib.rc_context(STYLE):
        for band, (fold, threshold) in enumerate(thresholds.items()):
            for kind, color, marker, offset in (
                (False, GOOD, "o", 0.2),
                (True, DEFECTIVE, "D", -0.2),
            ):
                chosen = (folds == fold) & (labels == kind)
                name = ("defective" if kind else "good") if band == 0 else None
                height = band + offset + jitter[chosen]
                style = {"s": 22, "alpha": 0.65, "linewidths": 0, "label": name, "zorder": 3}
                ax.scatter(scores[chosen], height, color=color, marker=marker, **style)
            name = "operating threshold" if band == 0 else None
            ax.plot([threshold] * 2, [band - 0.42, band + 0.42], color=INK, lw=2, label=name)
        if oracle is not None:
            ax.axvline(oracle, color=INK, linestyle=":", label="oracle threshold (pooled)")
        ax.set(
            title="Scores of all test surfaces", xlabel="score (logit; to the right: suspicious)"
        )
        ax.set_yticks(range(len(thresholds)), [f"fold {fold}" for fold in thresholds])
        ax.set_ylim(len(thresholds) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="lower right", bbox_to_anchor=(0.9, 1), ncols=4, columnspacing=1.2)
    return ax


# The strip of defective surfaces


@dataclass(frozen=True)
class JudgedSurface:
    """All that one row of the strip shows.

    Attributes:
        prediction: its row of predictions.csv, with threshold and verdict.
        image: (H, W) uint8.
        annotation: (H, W) bool.
        output: (h, w) in [0, 1], the segmentation network's probability at any size.
    """

    prediction: Prediction
    image: np.ndarray
    annotation: np.ndarray
    output: np.ndarray


def verdict(row: Prediction) -> str:
    """ "missed", "false alarm", "found" or "passed"."""
    if row.is_defective:
        return "found" if row.is_flagged else "missed"
    return "false alarm" if row.is_flagged else "passed"


def failures_first(rows: Sequence[Prediction]) -> list[Prediction]:
    """Defective and flagged surfaces: misses, then false alarms, then hits; each worst first."""
    missed = [row for row in rows if verdict(row) == "missed"]
    alarms = [row for row in rows if verdict(row) == "false alarm"]
    found = [row for row in rows if verdict(row) == "found"]

    def score(row: Prediction) -> float:
        return row.score

    return [
        *sorted(missed, key=score),
        *sorted(alarms, key=score, reverse=True),
        *sorted(found, key=score),
    ]


PANEL, GAP, NOTE, HEAD = 3.45, 0.08, 2.0, 0.62  # inches: a picture, between, the note, the head
FINEST = 800  # pixels: twice what a panel shows


def defect_strip(
    surfaces: Sequence[JudgedSurface], score_range: tuple[float, float] | None = None
) -> Figure:
    """Rows of image, annotation, output and score; tall surfaces lie on their left side.

    The output is drawn on one fixed scale, probability 0 to 1, so that rows can be compared;
    its colours follow the square root, so that a weak answer is seen too.

    Args:
        surfaces: in the order to show.
        score_range: the ends of the number line in logits; by default of these surfaces.
    """
    score_range = score_range or logit_range([surface.prediction for surface in surfaces])
    shapes = [_lying(surface.image).shape for surface in surfaces]
    row_height = PANEL * float(np.median([height / width for height, width in shapes] or [0.4]))
    row_height = max(row_height, 0.75)
    size = 3 * (PANEL + GAP) + NOTE + 2 * GAP, HEAD + len(surfaces) * (row_height + GAP)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=size)
        # One sheet measured in inches: axes for each picture would take four times as long.
        ax = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]))
        ax.set_axis_off()
        ax.autoscale(enable=False)
        for index, surface in enumerate(surfaces):
            bottom = size[1] - HEAD - (index + 1) * (row_height + GAP) + GAP
            _draw_surface(ax, surface, bottom, row_height)
            _draw_note(ax, surface.prediction, bottom, row_height, score_range)
        _draw_head(ax, any(s.image.shape[0] > s.image.shape[1] for s in surfaces))
    return figure


def logit_range(rows: Sequence[Prediction]) -> tuple[float, float]:
    """The least and the greatest score or threshold of the rows, with a margin."""
    values = [value for row in rows for value in (row.score, row.threshold or 0.0)] or [0.0]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _left(column: int) -> float:
    """Where a column of the strip begins, in inches."""
    return GAP + column * (PANEL + GAP)


def _lying(pixels: np.ndarray) -> np.ndarray:
    """A tall picture turned counter-clockwise by a quarter, its top to the left."""
    return np.rot90(pixels) if pixels.shape[0] > pixels.shape[1] else pixels


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A picture that lies, at no more than `FINEST` pixels wide; each pixel keeps its share."""
    height, width = pixels.shape
    size = min(width, FINEST), max(1, round(height * min(1.0, FINEST / width)))
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


def _draw_surface(ax: Axes, surface: JudgedSurface, bottom: float, row_height: float) -> None:
    image = _shrunk(_lying(surface.image))
    mask = _shrunk(_lying(surface.annotation).astype(np.float32)) > 0
    output = surface.output.astype(np.float32)
    output = np.rot90(output) if surface.image.shape[0] > surface.image.shape[1] else output
    pixel = min(PANEL / image.shape[1], row_height / image.shape[0])  # inches
    top, (height, width) = bottom + row_height, (pixel * side for side in image.shape)
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255}
    heat = {"cmap": OUTPUT_COLORS, "norm": OUTPUT_SCALE, "interpolation": "nearest"}
    for column, (picture, style) in enumerate(((image, gray), (image, gray), (output, heat))):
        left = _left(column)
        place = {"extent": (left, left + width, top - height, top), "aspect": "auto"}
        ax.imshow(picture, **style, **place)
        if column > 0:
            for outline in _outlines(mask):
                x, y = left + pixel * (outline[:, 0] + 0.5), top - pixel * (outline[:, 1] + 0.5)
                ax.plot(x, y, color=OUTLINE, linewidth=1.3)
    if not mask.any():
        box = {"boxstyle": "square,pad=0.3", "facecolor": "white", "edgecolor": "none"}
        style = {"fontsize": 8.5, "ha": "center", "va": "center", "bbox": box}
        ax.text(_left(1) + width / 2, top - height / 2, "no defect annotated", **style)


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines (n, 2) of x and y just outside a mask, so that thin cracks stay seen."""
    margin = 2 * max(1, round(0.008 * mask.shape[1])) + 1  # pixels
    around = cv2.dilate(mask.astype(np.uint8), np.ones((margin, margin), np.uint8))
    found, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [np.concatenate([line[:, 0], line[:1, 0]]) for line in found]


def _draw_note(
    ax: Axes, row: Prediction, bottom: float, row_height: float, score_range: tuple[float, float]
) -> None:
    kind = verdict(row)
    color = GOOD if kind == "found" else DEFECTIVE
    title = kind if kind == "found" else kind.upper()
    name = row.image if len(row.image) <= 27 else f"{row.image[:13]}…{row.image[-13:]}"
    numbers = f"score {row.score:.2f}, threshold {row.threshold:.2f}".replace("-", "−")
    left, top = _left(3) + 0.06, bottom + row_height
    ax.text(left, top - 0.04, title, va="top", color=color, fontsize=10.5, fontweight="bold")
    ax.text(left, top - 0.26, name, va="top", fontsize=9)
    ax.text(left, top - 0.43, numbers, va="top", fontsize=8.5)
    right, line = left + NOTE - 0.12, bottom + 0.18 * row_height
    score, threshold = np.interp([row.score, row.threshold], score_range, (left, right))
    ax.plot([left, right], [line, line], color=FAINT, linewidth=1)
    ax.plot([threshold] * 2, [line - 0.1, line + 0.1], color=INK, linewidth=1.5)
    ax.plot(score, line, "o", color=color, markersize=6)


def _draw_head(ax: Axes, turned: bool) -> None:
    titles = (
        "image (top edge at the left)" if turned else "image",
        "annotation (outlined)",
        "output: probability",
        "score ● and threshold |",
    )
    base = ax.get_ylim()[1] - HEAD + 0.1
    for column, title in enumerate(titles):
        ax.text(_left(column), base, title, va="bottom", fontsize=10, fontweight="bold")
    left, width = _left(2) + 1.75, 1.5
    place = {"extent": (left, left + width, base + 0.03, base + 0.13), "aspect": "auto"}
    ramp = np.linspace(0, 1, 128)[None]
    ax.imshow(ramp, cmap=OUTPUT_COLORS, **place)
    for value in (0, 0.1, 0.5, 1):
        x = left + width * float(OUTPUT_SCALE(value))
        ax.text(x, base + 0.16, f"{value:g}", ha="center", va="bottom", fontsize=8)


# Surfaces beside each other


def gallery(
    pictures: Sequence[np.ndarray],
    outlines: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Surfaces upright beside each other.

    Args:
        pictures: each (H, W), uint8 drawn in gray, or float drawn as a probability from 0 to 1.
        outlines: a mask (H, W) bool for each; its edge is drawn on the picture.
        titles: a short text for each.
    """
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = min(1.7, 13.0 / len(pictures))
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titlelocation": "center"}):
        height = width * ratio + 0.65
        figure = Figure(figsize=(width * len(pictures), height), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.2 / height))  # room for the stamp
        for index, ax in enumerate(figure.subplots(1, len(pictures), squeeze=False)[0]):
            picture = pictures[index]
            if picture.dtype == np.uint8:
                ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
            else:
                ax.imshow(picture, cmap=OUTPUT_COLORS, norm=OUTPUT_SCALE, interpolation="nearest")
            if outlines is not None and outlines[index].any():
                ax.contour(outlines[index], [0.5], colors=OUTLINE, linewidths=1)
            if titles is not None:
                ax.set_title(titles[index], fontsize=9, fontweight="normal", pad=4)
            ax.set_axis_off()
    return figure
