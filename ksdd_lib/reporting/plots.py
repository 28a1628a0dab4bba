"""The look that all figures share, curves, and verdicts as figures.

Functions draw and return what they drew on, without pyplot. The hues are those of Okabe and Ito.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image

from ksdd_lib.evaluation import metrics
from ksdd_lib.runs.run import fold_name

INK, FAINT = "#333333", "#b8b8b8"
GOOD, DEFECTIVE = "#0072B2", "#D55E00"
FOLD_COLORS = ("#0072B2", "#009E73", "#CC79A7")

Keywords = dict[Any, Any]  # arguments of matplotlib by name

CHANCE: Keywords = {"color": FAINT, "linewidth": 1, "linestyle": ":", "label": "chance"}

STYLE: Keywords = {
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


@contextmanager
def style(**changes: object) -> Iterator[None]:
    """Apply `STYLE`, changed as told with "_" for ".", in a `with` or to a decorated function."""
    with matplotlib.rc_context(STYLE | {key.replace("_", "."): changes[key] for key in changes}):
        yield


@style()
def sheet(width: float, height: float, above: float = 0.0) -> Figure:
    """An empty figure in inches, with `above` inches free at the top for a line or the stamp."""
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - above / height))
    return Figure(figsize=(width, height), layout=layout)


@style()
def new_axes(width: float = 5.2, height: float = 4.2) -> Axes:
    """Empty axes on a figure of its own, in inches."""
    return sheet(width, height).add_subplot()


def figure_of(ax: Axes) -> Figure:
    """The figure that axes are on."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG file of 256 colours; equal figures give equal bytes."""
    full, small = io.BytesIO(), io.BytesIO()
    with style():
        figure.savefig(full, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    picture = Image.open(full).convert("RGB")
    picture.quantize(method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


@style()
def stamp(figure: Figure) -> Figure:
    """Write GENERATED in the figure's upper right corner, clear of the data."""
    place = 1 - 0.06 / figure.get_figwidth(), 1 - 0.06 / figure.get_figheight()
    box = {"boxstyle": "square,pad=0.25", "facecolor": "white", "edgecolor": DEFECTIVE}
    look: Keywords = {"fontsize": 7.5, "fontweight": "bold", "color": DEFECTIVE, "bbox": box}
    figure.text(*place, "GENERATED", ha="right", va="top", **look).set_in_layout(False)
    return figure


def describe(figure: Figure) -> str:
    """The figure's texts, titles, axes and legends, for a reader who cannot see it."""
    words = [text.get_text() for text in figure.texts]
    for ax in figure.get_axes():
        words += [ax.get_title(loc=place) for place in ("left", "center")]
        if ax.axison:
            words.append(" against ".join(filter(None, [ax.get_ylabel(), ax.get_xlabel()])))
        if legend := ax.get_legend():
            words += [text.get_text() for text in legend.texts]
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in words if text.strip()))


@style()
def roc_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    flagged: ArrayLike,
    ax: Axes | None = None,
) -> Axes:
    """The pooled curve; on it the verdicts `flagged`, and the oracle's."""
    from sklearn import metrics as sklearn_metrics

    ax = ax or new_axes()
    ax.set(title="ROC curve", xlabel="false positive rate", ylabel="true positive rate")
    area = _write_area(ax, "AUC", metrics.roc_auc(labels, scores))
    if area:
        x, y, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
        ax.plot(x, y, **area)
        ax.plot([0, 1], [0, 1], **CHANCE)
        for counts, marker in _points(labels, scores, flagged):
            found, alarms = counts.tp / (counts.tp + counts.fn), counts.fp / (counts.fp + counts.tn)
            ax.plot(alarms, found, **marker)
        ax.legend(loc="lower right")
    return ax


@style()
def precision_recall_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    flagged: ArrayLike,
    ax: Axes | None = None,
) -> Axes:
    """As `roc_curve`, drawn as steps, whose area is the average precision."""
    from sklearn import metrics as sklearn_metrics

    ax = ax or new_axes()
    ax.set(title="Precision-recall curve", xlabel="recall", ylabel="precision")
    area = _write_area(ax, "AP", metrics.average_precision(labels, scores))
    if area:
        y, x, _ = sklearn_metrics.precision_recall_curve(labels, scores)
        ax.plot(x, y, drawstyle="steps-post", **area)
        ax.axhline(float(np.mean(np.asarray(labels, bool))), **CHANCE)
        for counts, marker in _points(labels, scores, flagged):
            if counts.precision is not None:
                ax.plot(counts.tp / (counts.tp + counts.fn), counts.precision, **marker)
        ax.legend(loc="lower left")
    return ax


def _write_area(ax: Axes, name: str, area: float | None) -> Keywords:
    """How a curve of this area is drawn; where it is undefined the axes say so, and it is empty."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    if area is None:
        text = "undefined: needs defective and good surfaces"
        ax.text(0.5, 0.5, text, ha="center", transform=ax.transAxes, color=INK)
        return {}
    return {"color": INK, "linewidth": 2, "label": f"pooled: {name} {area:.4f}"}


def _points(
    labels: ArrayLike, scores: ArrayLike, flagged: ArrayLike
) -> Iterator[tuple[metrics.Counts, Keywords]]:
    """The verdicts and the oracle's, each with its marker."""
    at_oracle = np.asarray(scores) > metrics.best_f1_threshold(labels, scores)
    points: dict[str, tuple[ArrayLike, Keywords]] = {
        "operating": (flagged, {"color": DEFECTIVE, "marker": "o", "markersize": 8, "zorder": 4}),
        "oracle": (at_oracle, {"color": INK, "marker": "D", "markersize": 11, "fillstyle": "none"}),
    }
    for name, (verdicts, marker) in points.items():
        counts = metrics.error_counts(labels, verdicts)
        marker |= {"label": f"{name}: {counts.fp} FP, {counts.fn} FN"}
        marker |= {"linestyle": "", "clip_on": False}  # whole also in a corner
        yield counts, marker


History = Sequence[Mapping[str, float]]  # rows with "step" and "loss", in order
Histories = Mapping[str, Mapping[int, History]]  # name of the stage -> fold -> history


@style()
def _draw_history(ax: Axes, history: History, label: str, color: str) -> None:
    """The loss of one stage over its steps: faint as logged, strong as a running mean."""
    step, loss = np.array([(row["step"], row["loss"]) for row in history], float).T
    ax.plot(step, loss, color=color, linewidth=0.8, alpha=0.35)
    ax.plot(step, running_mean(loss), color=color, linewidth=2, label=label)
    if loss.min() > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="step", ylabel="loss")
    ax.legend(loc="upper right")


def running_mean(values: np.ndarray, share: float = 0.08) -> np.ndarray:
    """Each value's mean over a centred window of `share` of all, cut off at both ends."""
    half = int(len(values) * share / 2)
    total, place = np.concatenate([[0.0], np.cumsum(values)]), np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


@style()
def training_curves(stages: Histories) -> Figure:
    """The loss of each stage side by side, one colour a fold."""
    figure = sheet(5.2 * len(stages), 3.8)
    draw_stages(figure.subplots(1, len(stages), squeeze=False)[0], stages)
    return figure


def draw_stages(axes: Sequence[Axes], stages: Histories) -> None:
    """Draw the loss of each stage on axes of its own, one colour a fold."""
    for ax, (stage, histories) in zip(axes, stages.items(), strict=True):
        for fold, history in histories.items():
            if history:
                _draw_history(ax, history, fold_name(fold), FOLD_COLORS[fold % len(FOLD_COLORS)])
        ax.set_title(f"{stage.capitalize()} network: training loss")


@style()
def confusion_matrix(labels: ArrayLike, flagged: ArrayLike) -> Axes:
    """Counts of surface by verdict: right ones tinted blue, errors orange."""
    ax = new_axes()
    counts = metrics.error_counts(labels, flagged)
    cells = [[counts.tn, counts.fp], [counts.fn, counts.tp]]
    for row, (truth, values) in enumerate(zip(("good", "defective"), cells, strict=True)):
        for column, value in enumerate(values):
            share = value / sum(values) if any(values) else 0.0
            hue, depth = GOOD, 0.55 * share
            if row != column:
                hue, depth = DEFECTIVE, min(0.8, 0.2 + share) * (value > 0)
            tint = LinearSegmentedColormap.from_list("", ["#f6f6f6", hue])(depth)
            ax.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=tint))
            ax.text(column, row - 0.06, str(value), ha="center", va="center", fontsize=24)
            note = f"of {sum(values)} {truth}" + (f" ({share:.1%})" if any(values) else "")
            ax.text(column, row + 0.24, note, ha="center", va="center")
    ax.set(title="Confusion matrix", xlabel="verdict", ylabel="surface")
    ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
    ax.set_xticks([0, 1], ["passed", "flagged"])
    ax.set_yticks([0, 1], ["good", "defective"], rotation=90, va="center")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return ax


def scatter_by_label(
    ax: Axes, labels: np.ndarray, x: np.ndarray, y: np.ndarray, named: bool = True, zorder: int = 1
) -> None:
    """A blue dot for each surface, or an orange diamond where the bool (N,) `labels` are true."""
    look: Keywords = {"s": 22, "alpha": 0.65, "linewidths": 0, "zorder": zorder}
    names = ("good", "defective") if named else (None, None)
    for here, name, color, marker in zip(
        (~labels, labels), names, (GOOD, DEFECTIVE), ("o", "D"), strict=True
    ):
        ax.scatter(x[here], y[here], color=color, marker=marker, label=name, **look)


@style()
def score_strip(
    labels: ArrayLike,
    scores: ArrayLike,
    folds: ArrayLike,
    thresholds: Mapping[int, float],
    oracle: float | None = None,
) -> Axes:
    """Every score as a dot: a band per fold, defective over good, the thresholds as lines.

    `thresholds` are fold -> operating threshold in logits, `oracle` is the pooled one of all bands.
    """
    ax = new_axes(10.4, 1.5 + 0.9 * len(thresholds))
    labels, scores, folds = np.asarray(labels, bool), np.asarray(scores), np.asarray(folds)
    jitter = np.random.default_rng(0).uniform(-0.13, 0.13, len(scores))
    for band, (fold, threshold) in enumerate(thresholds.items()):
        here = folds == fold
        height = band + np.where(labels, -0.2, 0.2) + jitter
        scatter_by_label(ax, labels[here], scores[here], height[here], named=band == 0, zorder=3)
        name = "operating threshold" if band == 0 else None
        ax.plot([threshold] * 2, [band - 0.42, band + 0.42], color=INK, lw=2, label=name)
    if oracle is not None:
        ax.axvline(oracle, color=INK, linestyle=":", label="oracle threshold (pooled)")
    ax.set(title="Scores of all test surfaces", xlabel="score (logit; to the right: suspicious)")
    ax.set_yticks(range(len(thresholds)), [f"fold {fold}" for fold in thresholds])
    ax.set_ylim(len(thresholds) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower right", bbox_to_anchor=(0.9, 1), ncols=4, columnspacing=1.2)
    return ax
