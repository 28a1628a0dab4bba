"""Curves and matrices show what the arrays say, on any data, without touching pyplot."""

import matplotlib
import numpy as np
import pytest
from drawn import pixels, texts
from matplotlib import pyplot
from matplotlib.figure import Figure

from ksdd_lib.evaluation import metrics
from ksdd_lib.reporting import plots

RANDOM = np.random.default_rng(0)
LABELS = np.arange(60) % 4 == 3
SCORES = RANDOM.normal(2.0 * LABELS, 1.0)
FLAGGED = SCORES > 1.0


def test_drawing_leaves_pyplot_and_its_style_alone():
    before = dict(matplotlib.rcParams)
    plots.png(plots.stamp(plots.roc_curve(LABELS, SCORES, FLAGGED).figure))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.roc_curve(LABELS, SCORES, FLAGGED, ax=ax),
        lambda ax: plots.precision_recall_curve(LABELS, SCORES, FLAGGED, ax=ax),
    ],
)
def test_each_function_draws_on_the_axes_given_and_returns_them(draw):
    ax = Figure().add_subplot()
    assert draw(ax) is ax
    assert isinstance(draw(None).figure, Figure)


def test_curves_name_their_area_and_both_thresholds():
    roc = texts(plots.roc_curve(LABELS, SCORES, FLAGGED))
    assert f"AUC {metrics.roc_auc(LABELS, SCORES):.4f}" in roc
    counts = metrics.error_counts(LABELS, FLAGGED)
    assert f"operating: {counts.fp} FP, {counts.fn} FN" in roc
    assert "oracle" in roc
    recall = texts(plots.precision_recall_curve(LABELS, SCORES, FLAGGED))
    assert f"AP {metrics.average_precision(LABELS, SCORES):.4f}" in recall


def test_the_area_under_the_drawn_steps_is_the_average_precision():
    line = plots.precision_recall_curve(LABELS, SCORES, FLAGGED).lines[0]
    x, y = line.get_data()
    assert line.get_drawstyle() == "steps-post"
    assert np.sum(-np.diff(x) * y[:-1]) == pytest.approx(metrics.average_precision(LABELS, SCORES))


@pytest.mark.parametrize("labels", [[False, False], [True, True]])
def test_a_curve_without_both_classes_says_undefined(labels):
    for function in (plots.roc_curve, plots.precision_recall_curve):
        ax = function(labels, [0.0, 1.0], [False, True])
        assert "undefined" in texts(ax)
        assert not ax.lines


@pytest.mark.parametrize("scores", [[0.0, 1.0], [0.5, 0.5]])
@pytest.mark.parametrize("flagged", [[False, True], [False, False]])
def test_perfect_separation_ties_and_no_flags_can_be_drawn(scores, flagged):
    for function in (plots.roc_curve, plots.precision_recall_curve):
        assert "oracle" in texts(function([False, True], scores, flagged))


def test_confusion_matrix_shows_the_four_counts():
    shown = texts(plots.confusion_matrix([0, 0, 0, 1, 1], [1, 0, 0, 1, 0])).split(" | ")
    assert shown[::2] == ["2", "1", "1", "1"]
    assert shown[1] == "of 3 good (66.7%)"
    assert "of 0 defective" in texts(plots.confusion_matrix([0], [0]))


def test_score_strip_shows_every_score_once():
    folds = np.arange(60) % 3
    ax = plots.score_strip(LABELS, SCORES, folds, {0: 1.0, 1: 1.1, 2: 0.9}, 1.0)
    drawn = np.concatenate([points.get_offsets()[:, 0] for points in ax.collections])
    assert sorted(drawn) == pytest.approx(sorted(SCORES))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["fold 0", "fold 1", "fold 2"]


def test_running_mean_keeps_constants_and_halves_noise():
    assert plots.running_mean(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    noise = RANDOM.normal(size=200)
    assert plots.running_mean(noise).std() < noise.std() / 2
    assert len(plots.running_mean(np.array([]))) == 0


def test_training_curves_have_a_panel_a_stage_and_a_line_a_fold():
    history = [{"step": step, "loss": 1 / step} for step in range(1, 30)]
    stages = {"segmentation": {0: history, 2: history}, "decision": {0: history}}
    first, second = plots.training_curves(stages).axes
    assert texts(first) == "fold 0 | fold 2"
    assert texts(second) == "fold 0"
    assert first.get_yscale() == "log"


def test_a_loss_of_zero_and_an_empty_history_can_be_drawn():
    figure = plots.training_curves({"segmentation": {0: [{"step": 1, "loss": 0.0}], 1: []}})
    assert texts(figure.axes[0]) == "fold 0"
    assert pixels(figure).any()


def test_the_stamp_is_seen_and_covers_no_data():
    plain = pixels(plots.roc_curve(LABELS, SCORES, FLAGGED).figure).astype(int)
    stamped = plots.stamp(plots.roc_curve(LABELS, SCORES, FLAGGED).figure)
    changed = np.abs(pixels(stamped).astype(int) - plain).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    assert len(rows) > 300
    assert rows.max() < 0.06 * plain.shape[0]
    assert columns.min() > 0.6 * plain.shape[1]


def test_equal_figures_give_equal_bytes():
    first, second = (plots.png(plots.roc_curve(LABELS, SCORES, FLAGGED).figure) for _ in range(2))
    assert first == second
