"""Figures: functions that take arrays and an optional `ax`, draw, and return what they drew on.

They never show and never save. Figures are plain `matplotlib.figure.Figure` objects, so no backend
and no pyplot state is touched; `png(figure)` gives the bytes to store or to display. Hues are those
of Okabe and Ito, which colour-blind readers can tell apart.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from ksdd_lib.evaluation import metrics

INK, FAINT = "#333333", "#b8b8b8"
GOOD, DEFECTIVE = "#0072B2", "#D55E00"
FOLD_COLORS = ("#0072B2", "#009E73", "#CC79A7")

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


def describe(figure: Figure) -> str:
    """What a figure shows, for those who cannot see it: its texts, titles, axes and legends."""
    words = [text.get_text() for text in figure.texts]
    for ax in figure.get_axes():
        words += [ax.get_title(loc=place) for place in ("left", "center")]
        if ax.axison:
            words.append(" against ".join(filter(None, [ax.get_ylabel(), ax.get_xlabel()])))
        if legend := ax.get_legend():
            words += [text.get_text() for text in legend.texts]
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in words if text.strip()))


# Curves


def roc_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    flagged: ArrayLike | None = None,
    ax: Axes | None = None,
    label: str = "pooled",
    color: str = INK,
    point: str = "operating",
) -> Axes:
    """The ROC curve, with the points of the operating and of the oracle threshold on it.

    Args:
        labels, scores: (N,), defective or not, and logits.
        flagged: (N,), the verdicts at the operating threshold; None draws the curve alone.
        point: what the verdicts are called.
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
            for name, style, (tp, fp, fn, tn) in _points(labels, scores, flagged, point):
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
    point: str = "operating",
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
            for name, style, (tp, fp, fn, _) in _points(labels, scores, flagged, point):
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


def _points(labels: ArrayLike, scores: ArrayLike, flagged: ArrayLike, point: str) -> list[tuple]:
    """(name, marker style, (tp, fp, fn, tn)) of the verdicts given and of the oracle threshold."""
    at_oracle = np.asarray(scores) > metrics.best_f1_threshold(labels, scores)
    filled = {"color": DEFECTIVE, "marker": "o", "markersize": 8, "linestyle": "", "zorder": 4}
    hollow = {"color": INK, "marker": "D", "markersize": 11, "fillstyle": "none", "linestyle": ""}
    return [
        (name, style, [metrics.error_counts(labels, verdict)[key] for key in COUNTS])
        for name, style, verdict in ((point, filled, flagged), ("oracle", hollow, at_oracle))
    ]


def both_curves(
    labels: ArrayLike, scores: ArrayLike, flagged: ArrayLike, point: str = "operating"
) -> Figure:
    """Precision-recall and ROC curve beside each other; arguments as of `roc_curve`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.8), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.93))
        left, right = figure.subplots(1, 2)
    precision_recall_curve(labels, scores, flagged, left, label="all folds", point=point)
    roc_curve(labels, scores, flagged, right, label="all folds", point=point)
    return figure


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
