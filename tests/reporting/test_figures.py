"""Curves show what the arrays say, and pictures which surface they show, on any data."""

from dataclasses import replace

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from small_results import pixels, texts

from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.reporting import plots, surface_pictures
from ksdd_lib.reporting.surface_pictures import JudgedSurface, defect_strip, logit_range

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


def test_a_marker_in_a_corner_is_seen_whole():
    for function in (plots.roc_curve, plots.precision_recall_curve):
        ax = function([False, True], [0.0, 1.0], [False, True])
        points = [line for line in ax.lines if line.get_marker() in ("D", "o")]
        assert len(points) == 2 and not any(line.get_clip_on() for line in points)


@pytest.mark.parametrize("shape", [(160, 64), (64, 160), (90, 90)])
def test_surface_and_output_stand_beside_each_other_in_one_size(shape):
    """The defect lies at the edge, where its frame leaves the panel."""
    output = np.zeros(shape, np.float32)
    output[shape[0] // 2, -3:] = 0.9
    row = Prediction("a/1", "a", 0, 0, True, 1.0, 1.0, 0.0, True)
    image = np.full(shape, 120, np.uint8)
    figure = surface_pictures.overlay(JudgedSurface(row, image, output > 0.5, output), 0.5)
    figure.draw_without_rendering()
    left, middle, _ = (ax.get_position() for ax in figure.axes)
    assert middle.width == pytest.approx(left.width, rel=0.01)
    assert middle.height == pytest.approx(left.height, rel=0.01)


def test_what_the_output_is_sure_of_is_covered_at_the_opacity_chosen():
    output = np.zeros((40, 40), np.float32)
    output[10, 10], output[20, 20] = 0.3, 1.0
    row = Prediction("a/1", "a", 0, 0, False, 1.0, 1.0, 0.0, True)
    image = np.full((40, 40), 120, np.uint8)
    figure = surface_pictures.overlay(JudgedSurface(row, image, output > 2, output), 0.5)
    alpha = figure.axes[1].images[1].get_alpha()
    assert alpha[10, 10] == alpha[20, 20] == 0.5 and alpha[0, 0] == 0


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


def make_prediction(image="gen01/Part0", defective=True, score=1.0, threshold=0.0):
    flagged = score > threshold
    return Prediction(image, image.split("/")[0], 0, 0, defective, score, score, threshold, flagged)


def make_surface(row, height=120, width=48):
    mask = np.zeros((height, width), bool)
    mask[40:44, 10:30] = row.is_defective
    image = RANDOM.integers(90, 160, (height, width)).astype(np.uint8)
    return surface_pictures.JudgedSurface(row, image, mask, np.full((height // 8, width // 8), 0.2))


def make_strip(surfaces):
    return defect_strip(surfaces, logit_range([surface.prediction for surface in surfaces]))


def test_the_strip_names_the_verdict_and_the_score_of_each_surface():
    rows = [
        make_prediction("gen01/Part0", True, -1.25),
        make_prediction("gen02/Part1", False, 2.0),
        make_prediction("gen03/Part2", True, 3.0),
    ]
    figure = make_strip([make_surface(row) for row in rows])
    shown = " | ".join(texts(ax) for ax in figure.axes)
    for text in (
        "MISSED, fold 0",
        "gen01/Part0",
        "score −1.25",
        "FALSE ALARM",
        "no defect",
        "found",
    ):
        assert text in shown
    assert pixels(figure).shape[1] > 1200


def test_tall_surfaces_lie_and_their_output_lies_with_them():
    output = np.zeros((15, 6))
    output[0] = 1.0  # the top edge, which is drawn at the left
    surface = replace(make_surface(make_prediction()), output=output)
    image, _, drawn = make_strip([surface]).axes[0].images[:3]
    assert image.get_array().shape == (48, 120)
    assert drawn.get_array()[:, 0].min() == 1.0
    assert drawn.get_array()[:, 1:].max() == 0.0


def test_the_outline_runs_around_the_defect_in_image_and_output():
    ax = make_strip([make_surface(make_prediction())]).axes[0]
    outlines = [line for line in ax.lines if line.get_color() == surface_pictures.OUTLINE]
    assert len(outlines) == 2
    left, right, bottom, top = ax.images[1].get_extent()
    x, y = outlines[0].get_data()
    pixel = (right - left) / 120
    # Rows 40 to 43 of the tall image become columns; its columns 10 to 29 count from the bottom.
    assert (x.min() - left) / pixel == pytest.approx(40, abs=2)
    assert (x.max() - left) / pixel == pytest.approx(44, abs=2)
    assert (y.min() - bottom) / pixel == pytest.approx(10, abs=2)
    assert (y.max() - bottom) / pixel == pytest.approx(30, abs=2)


def test_outputs_of_all_surfaces_share_one_scale():
    weak, strong = (make_surface(make_prediction(f"a/{index}")) for index in range(2))
    figure = make_strip([weak, replace(strong, output=strong.output * 4)])
    first, second = figure.axes[0].images[2:6:3]
    assert (first.norm.vmin, first.norm.vmax) == (second.norm.vmin, second.norm.vmax) == (0, 1)


def test_close_ups_show_the_defect_or_where_the_network_saw_one():
    image = np.full((400, 200), 128, np.uint8)
    output = np.zeros((50, 25), np.float32)
    output[45, 3] = 1.0
    crack = np.zeros(image.shape, bool)
    crack[20:24, 150:190] = True
    missed = surface_pictures.JudgedSurface(make_prediction(score=-1.0), image, crack, output)
    alarm = surface_pictures.JudgedSurface(
        make_prediction(defective=False), image, np.zeros_like(crack), output
    )
    image[22, 170], image[363, 27] = 7, 9  # in the crack, and where the output is highest
    shown = [ax.images[0].get_array() for ax in surface_pictures.close_ups([missed, alarm]).axes]
    assert [array.min() for array in shown] == [7, 9]
    assert all(array.shape == (88, 88) for array in shown), "a square of 0.22 of 400 pixels"
    titles = [ax.get_title(loc="left") for ax in surface_pictures.close_ups([missed, alarm]).axes]
    assert titles[0].startswith("MISSED") and titles[1].startswith("FALSE ALARM")


def test_a_gallery_takes_surfaces_and_probabilities():
    image = np.full((32, 16), 100, np.uint8)
    outlines = [image > 200, np.eye(32, 16) > 0]
    figure = surface_pictures.gallery([image, image / 255], outlines, ["surface", "output"])
    assert [ax.get_title("center") for ax in figure.axes] == ["surface", "output"]
    assert pixels(figure).any()


@pytest.mark.parametrize("name", ["a/$x_$", "<img onerror>/1", "é ü/" + "long" * 30, "=1+1/%s"])
def test_awkward_names_are_drawn_as_they_are(name):
    figure = make_strip([make_surface(make_prediction(name))])
    assert pixels(figure).any()


def test_a_surface_of_odd_shape_can_be_drawn():
    row = make_prediction()
    for height, width in ((16, 16), (20, 300), (2000, 30)):
        pixels(make_strip([make_surface(row, height, width)]))
    pixels(make_strip([]))


@pytest.mark.parametrize("shape", [(160, 64), (64, 160), (90, 90)])
def test_each_verdict_stands_above_what_the_network_sees(shape):
    pictures = [np.full(shape, level, np.uint8) for level in (90, 160, 200)]
    outputs = [np.zeros(shape), np.full(shape, 0.9), np.zeros(shape)]
    words = ["good, and passed", "crack found", "CRACK MISSED"]
    figure = surface_pictures.verdicts(pictures, outputs, "abc", words, [True, True, False])
    upper, lower = figure.axes[:3], figure.axes[3:]
    assert [ax.get_title() for ax in upper] == ["a", "b", "c"]
    assert [ax.get_title() for ax in lower] == words
    assert [ax.title.get_color() for ax in lower] == [plots.GOOD, plots.GOOD, plots.DEFECTIVE]
    assert [float(ax.images[1].get_alpha().max()) for ax in lower] == [0, 1, 0]
    assert len(upper[0].images) == 1, "the surface itself is not covered"


@pytest.mark.parametrize("is_generated", [True, False])
@pytest.mark.parametrize(
    ("shape", "longest", "size"),
    [
        ((160, 64), 640, (160, 132)),
        ((64, 160), 640, (132, 160)),
        ((160, 64), 80, (80, 68)),
        ((90, 90), 30, (30, 64)),
        ((400, 3), 40, (40, 6)),
    ],
)
def test_a_card_is_upright_and_holds_surface_and_output(shape, longest, size, is_generated):
    image = np.full(shape, 170, np.uint8)
    annotation = np.zeros(shape, bool)
    annotation[shape[0] // 4 : shape[0] // 3] = True
    output = np.zeros((shape[0] // 8 + 1, shape[1] // 8 + 1), np.float16)
    row = Prediction("a/b", "a", 0, 0, True, 1.0, 0.0)
    surface = JudgedSurface(row, image, annotation, output)
    content = surface_pictures.card(surface, longest, is_generated)
    assert content.startswith(b"\x89PNG")
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert abs(np.subtract(shown.shape[:2], size)).max() <= 2
    is_wide = shape[0] < shape[1]
    first = shown[: size[0] // 2 - 2] if is_wide else shown[:, : size[1] // 2 - 2]
    assert abs(int(first[-1, 0, 0]) - 170) < 12, "the photograph comes first"
    blue = (first[..., 0].astype(int) - first[..., 2]) > 60
    rows = np.nonzero(blue.any(1))[0]
    if min(size) > 20:
        assert 0 < rows.mean() / (first.shape[0]) < 0.5, "the outline is where the defect is"
