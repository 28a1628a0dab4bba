"""The figures that explain the method show what the networks and the data really do."""

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ksdd_lib.data import synthetic
from ksdd_lib.methods.two_stage import untrained_segmentation
from ksdd_lib.models.two_stage import SegmentationNet
from ksdd_lib.presets import resolve
from ksdd_lib.reporting import plots, teaching_figures

IMAGE, MASK = synthetic.render((160, 128), 0, 0, 0, True)
ITEMS = [f"item{number:02}" for number in range(12) for _ in range(4)]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() or ax.get_title("left") for ax in figure.axes]


def test_the_field_of_the_last_layer_is_the_networks():
    fields = teaching_figures.layer_fields()
    assert [kernel.split()[1] for kernel, _, _ in fields].count("5x5") == 9
    assert fields[-1] == ("10: 15x15 at 1/8", 216, 8)


def test_a_layer_really_sees_its_field():
    """What lies outside the square changes nothing; what lies at its edge does."""
    layers = torch.nn.Sequential(*[SegmentationNet().features[k] for k in range(3)])
    convolutions = torch.nn.Sequential(layers[0][0], layers[1][0])
    _, side, _ = teaching_figures.layer_fields()[1]
    image = torch.zeros(1, 1, 41, 41, requires_grad=True)
    convolutions(image)[0, :, 20, 20].sum().backward()
    rows = torch.nonzero(image.grad[0, 0].abs().sum(1)).flatten()
    assert (rows.min(), rows.max()) == (20 - side // 2, 20 + side // 2)


@pytest.mark.parametrize("size", [(160, 128), (704, 256), (128, 400)])
def test_each_square_is_seen_whole_also_where_it_is_larger_than_the_surface(size):
    image = np.full(size, 120, np.uint8)
    ax = teaching_figures.receptive_fields(image, (size[0] // 3, size[1] // 2)).axes[0]
    (left, right), (low, high) = ax.get_xlim(), sorted(ax.get_ylim())
    assert len(ax.patches) == 4
    for square in ax.patches:
        assert left < square.get_x() and square.get_x() + square.get_width() < right
        assert low < square.get_y() and square.get_y() + square.get_height() < high
    assert left <= -0.5 and right >= size[1] - 0.5 and low <= -0.5 and high >= size[0] - 0.5


def test_the_receptive_fields_are_named_and_drawn():
    figure = teaching_figures.receptive_fields(IMAGE, (80, 64))
    assert len(figure.axes[0].patches) == 4
    assert [text.get_text() for text in figure.axes[1].texts][-1] == "216"


def test_a_crack_stands_out_longest_where_the_darkest_pixel_is_kept():
    figure = teaching_figures.shrinking(*teaching_figures.around_defect(IMAGE, MASK))
    last = {title.split(",")[0]: float(title.split(": ")[1]) for title in titles(figure)[3::4]}
    assert last["max-pool"] > last["mean"] and last["max-pool"] > last["skipping"]


def test_standing_out_is_counted_in_deviations_of_the_ground():
    darkness = np.array([[1.0, -1.0, 1.0, -1.0, 5.0]])
    assert teaching_figures.stands_out(darkness, darkness > 4) == pytest.approx(5)


def test_half_the_light_halves_a_map_before_normalisation_and_not_after():
    numbers = [
        title.split("\n")[1] for title in titles(teaching_figures.normalisation(net(), IMAGE))[1:3]
    ]
    halved = [
        title.split("\n")[1] for title in titles(teaching_figures.normalisation(net(), IMAGE))[4:]
    ]
    means, spreads = zip(*[map(float, pair.split(" ± ")) for pair in numbers + halved], strict=True)
    assert spreads[2] == pytest.approx(spreads[0] / 2, rel=0.05)
    assert spreads[3] == pytest.approx(spreads[1], rel=0.1)


def net() -> SegmentationNet:
    return untrained_segmentation(resolve({"preset": "demo"}))


def test_a_split_counts_the_items_on_both_sides():
    mixed = [place % 4 == 0 for place in range(len(ITEMS))]
    whole = [item < "item04" for item in ITEMS]
    figure = teaching_figures.split_map(ITEMS, {"shuffled": mixed, "whole": whole})
    assert titles(figure) == [
        "shuffled: 12 of 12 items stand on both sides",
        "whole: 0 of 12 items stand on both sides",
    ]


def test_items_of_different_sizes_can_be_drawn():
    items = ["a", "b", "a", "a"]
    [title] = titles(teaching_figures.split_map(items, {"x": [True, False, False, True]}))
    assert title.startswith("x: 1 of 2")


def test_the_order_of_the_steps_is_counted():
    figure = teaching_figures.balance(
        {"random": [False] * 7 + [True], "alternating": [True, False] * 4}
    )
    assert titles(figure) == ["random: 1 of 8 are defective", "alternating: 4 of 8 are defective"]


def test_each_surface_is_a_dot_between_the_two_networks():
    figure = teaching_figures.two_scores([True, False, False], [1.0, 2.0, -3.0], [4.0, -4.0, -5.0])
    good, defective = [points.get_offsets().tolist() for points in figure.axes[0].collections]
    assert good == [[2.0, -4.0], [-3.0, -5.0]] and defective == [[1.0, 4.0]]


@pytest.mark.parametrize("place", [(0, 0), (159, 127), (80, 60)])
def test_the_cut_out_lies_inside_and_holds_the_defect(place):
    mask = np.zeros((160, 128), bool)
    mask[place] = True
    pixels, cut = teaching_figures.around_defect(IMAGE, mask, 64)
    assert pixels.shape == cut.shape == (64, 64) and cut.sum() == 1


def test_what_the_network_saw_goes_from_fine_to_coarse_and_ends_in_the_mask():
    figure = teaching_figures.what_it_saw(net(), IMAGE, "cross_entropy")
    shapes = [ax.images[0].get_array().shape for ax in figure.axes if ax.images]
    expected = [(160, 128)] * 4 + [(80, 64)] * 3 + [(40, 32)] * 3 + [(20, 16)] * 4
    assert shapes == expected
    mask = figure.axes[13].images[0].get_array()
    with torch.inference_mode():
        logits = net()(torch.from_numpy(IMAGE)[None, None].float() / 255)[1]
    assert np.allclose(mask, logits[0, 0].sigmoid().numpy(), atol=1e-5)
    squared = (
        teaching_figures.what_it_saw(net(), IMAGE, "mean_squared_error")
        .axes[13]
        .images[0]
        .get_array()
    )
    assert np.allclose(squared, logits[0, 0].clamp(0, 1).numpy(), atol=1e-5)


def test_every_lesson_can_be_stored():
    figures = (
        teaching_figures.receptive_fields(IMAGE, (80, 64)),
        teaching_figures.shrinking(*teaching_figures.around_defect(IMAGE, MASK)),
        teaching_figures.normalisation(net(), IMAGE),
    )
    for figure in figures:
        picture = cv2.imdecode(np.frombuffer(plots.png(figure, 40), np.uint8), cv2.IMREAD_COLOR)
        assert picture.std() > 10
