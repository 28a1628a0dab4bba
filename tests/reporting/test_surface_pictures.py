"""Pictures of surfaces say which they are, at one scale, whatever they are called."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import pixels, texts

from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.reporting import surface_pictures
from ksdd_lib.reporting.surface_pictures import defect_strip, logit_range

RANDOM = np.random.default_rng(0)


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
