"""Each defect has its box, area, length and highest probability, in pixels of the picture."""

import cv2
import numpy as np
import pytest

from ksdd_lib.deploy.defects import Defect, find_defects


def test_two_places_are_two_defects_the_most_probable_first():
    mask = np.zeros((60, 80), np.float32)
    mask[10:14, 20:50] = 0.7
    mask[40:42, 5:9] = 0.6
    mask[41, 6] = 0.95
    assert find_defects(mask, 0.5) == (
        Defect(5, 40, 4, 2, 8, 4.0, 0.95),
        Defect(20, 10, 30, 4, 120, 30.0, 0.7),
    )


def test_what_is_below_the_threshold_is_no_defect():
    mask = np.full((20, 20), 0.49, np.float32)
    assert find_defects(mask, 0.5) == ()
    [one] = find_defects(mask, 0.3)
    assert (one.area, one.width, one.height) == (400, 20, 20)


@pytest.mark.parametrize("angle", [0, 30, 45, 80])
def test_the_length_of_a_crack_does_not_hang_on_its_angle(angle: int):
    mask = np.zeros((300, 300), np.uint8)
    way = 100 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    ends = [tuple(map(int, np.round(150 + sign * way))) for sign in (-1, 1)]
    cv2.line(mask, *ends, 1, 3)
    [one] = find_defects(mask.astype(np.float32), 0.5)
    assert one.length == pytest.approx(200, abs=6)


def test_places_that_touch_by_a_corner_are_one():
    mask = np.zeros((10, 10), np.float32)
    mask[2, 2] = mask[3, 3] = 1
    assert len(find_defects(mask, 0.5)) == 1


def test_a_single_pixel_has_a_length():
    mask = np.zeros((10, 10), np.float32)
    mask[2, 3] = 1
    assert find_defects(mask, 0.5) == (Defect(3, 2, 1, 1, 1, 1.0, 1.0),)


def maps_of(*boxes: tuple[str, int, int, int, int, float]) -> dict[str, np.ndarray]:
    """Maps of classes with boxes (class, left, top, width, height, probability)."""
    maps = {name: np.full((60, 80), 0.01, np.float32) for name, *_ in boxes}
    for name, left, top, width, height, value in boxes:
        maps[name][top : top + height, left : left + width] = value
    return maps


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        (  # side by side
            [("scratch", 5, 10, 20, 4, 0.8), ("spot", 25, 8, 10, 10, 0.9)],
            [("spot", 25, 8, 10, 10, 100, 0.9), ("scratch", 5, 10, 20, 4, 80, 0.8)],
        ),
        (  # one lies in the other, and is surer there
            [("rust", 10, 10, 30, 30, 0.6), ("hole", 20, 20, 4, 4, 0.7)],
            [("hole", 20, 20, 4, 4, 16, 0.7), ("rust", 10, 10, 30, 30, 884, 0.6)],
        ),
        (  # the same class twice, and one that is nowhere
            [("a", 1, 1, 3, 3, 0.7), ("a", 40, 40, 5, 2, 0.9), ("b", 0, 0, 1, 1, 0.2)],
            [("a", 40, 40, 5, 2, 10, 0.9), ("a", 1, 1, 3, 3, 9, 0.7)],
        ),
        (  # two by a corner
            [("=x", 10, 10, 5, 5, 0.8), ("y;", 15, 15, 5, 5, 0.7)],
            [("=x", 10, 10, 5, 5, 25, 0.8), ("y;", 15, 15, 5, 5, 25, 0.7)],
        ),
    ],
)
def test_each_defect_is_of_one_class_and_two_that_touch_are_two(boxes, found):
    maps = maps_of(*boxes)
    defects = find_defects(np.max(list(maps.values()), axis=0), 0.5, maps)
    seen = [
        (one.class_name, one.left, one.top, one.width, one.height, one.area, one.probability)
        for one in defects
    ]
    assert seen == found
