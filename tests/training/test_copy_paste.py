"""A defect is taken off its surface and laid upon another as it was."""

import numpy as np
import pytest
import torch

from ksdd_lib.training.copy_paste import lift, paste, turned

HEIGHT, WIDTH = 208, 160


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def surface(random: np.random.Generator) -> np.ndarray:
    return random.integers(140, 160, (HEIGHT, WIDTH)).astype(np.uint8)


def with_bar(ground: np.ndarray, gray: int) -> tuple[np.ndarray, np.ndarray]:
    """A bar of this gray in the ground, 30 pixels long and 4 high, and its mask."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[60:64, 100:130] = 255
    return np.where(mask > 0, gray, ground).astype(np.uint8), mask


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)[None, None]


@pytest.mark.parametrize(("gray", "sign"), [(50, -1), (250, 1)])
def test_the_contrast_is_what_the_defect_adds(random, gray, sign):
    defect = lift(*with_bar(surface(random), gray))
    inside = defect.contrast[defect.mask > 0] * sign
    assert inside.min() > 70 and inside.max() < 120
    assert (defect.contrast * sign).min() >= 0


def test_on_another_ground_the_defect_looks_as_it_did(random):
    image, mask = with_bar(surface(random), 50)
    ground = tensor(surface(random))
    defect = lift(image, mask)
    there, annotated = paste(defect, ground, defect.top / (HEIGHT - len(defect.mask)), 1.0)
    assert torch.equal(annotated, tensor(mask))
    inside = there[annotated > 0].float()
    assert 35 < inside.mean() < 65
    far = torch.nn.functional.max_pool2d(annotated.float(), 9, 1, 4) == 0
    assert torch.equal(there[far], ground[far])


def test_half_the_strength_is_half_the_contrast(random):
    ground = surface(random)
    defect = lift(*with_bar(ground, 50))
    there, mask = paste(defect, tensor(surface(random)), 0.5, 0.5)
    assert 85 < there[mask > 0].float().mean() < 115


def test_every_height_from_the_upper_to_the_lower_edge_fits(random):
    defect, ground = lift(*with_bar(surface(random), 50)), tensor(surface(random))
    before = ground.clone()
    tops = []
    for height in (0.0, 0.5, 1.0):
        _, mask = paste(defect, ground, height, 1.0)
        rows, columns = np.nonzero(mask[0, 0].numpy())
        assert len(rows) == 120 and (columns.min(), columns.max()) == (100, 129)
        tops.append(rows.min())
    assert tops[0] < 5 and tops[1] in range(95, 110) and tops[2] > HEIGHT - 10
    assert torch.equal(ground, before)


def test_a_defect_of_no_pixels_changes_nothing(random):
    ground = tensor(surface(random))
    defect = lift(surface(random), np.zeros((HEIGHT, WIDTH), np.uint8))
    there, mask = paste(defect, ground, 0.3, 1.0)
    assert torch.equal(there, ground) and not mask.any()


def slope(mask: torch.Tensor) -> float:
    """The angle of a mask's long axis in degrees, up to the right positive."""
    rows, columns = np.nonzero(mask[0, 0].numpy() > 127)
    values, axes = np.linalg.eigh(np.cov(columns, -rows))
    right, up = axes[:, np.argmax(values)]
    return float(np.degrees(np.arctan(up / right)))


@pytest.mark.parametrize("degrees", [-40.0, -5.0, 25.0, 80.0])
def test_a_turned_defect_is_as_large_and_as_dark_at_its_new_angle(random, degrees):
    ground = surface(random)
    defect = lift(*with_bar(ground, 50))
    image, mask = paste(turned(defect, degrees), tensor(surface(random)), 0.5, 1.0)
    assert slope(mask) == pytest.approx(degrees, abs=2)
    assert mask.float().sum() == pytest.approx(255 * 120, rel=0.1)
    assert 45 < image[mask > 200].float().mean() < 75  # its edge is softer


def test_a_defect_is_turned_about_its_middle(random):
    defect = lift(*with_bar(surface(random), 50))
    for degrees in (0.0, 90.0, -30.0):
        there = turned(defect, degrees)
        rows, columns = there.contrast.shape
        assert there.top + rows / 2 == pytest.approx(62, abs=1)
        assert there.left + columns / 2 == pytest.approx(115, abs=1)
    assert torch.equal(turned(defect, 0.0).mask, defect.mask)
    assert torch.allclose(turned(defect, 0.0).contrast, defect.contrast, atol=1e-3)


def test_what_reaches_beyond_the_surface_is_left_out(random):
    image, mask = with_bar(surface(random), 50)
    moved = np.roll(image, 30, 1), np.roll(mask, 30, 1)  # it ends at the right edge
    upright = turned(lift(*moved), 45.0)
    wide = turned(lift(image.T, mask.T), 90.0)  # 160 high, 208 wide, on a ground of 208 x 160
    for defect in (upright, wide):
        for height in (0.0, 1.0):
            there, found = paste(defect, tensor(surface(random)), height, 1.0)
            assert there.shape == found.shape == (1, 1, HEIGHT, WIDTH) and found.any()
    tall = turned(lift(*(np.repeat(x[:, 60:], 7, 1)[:, 280:440] for x in (image, mask))), 90.0)
    assert tall.contrast.shape[0] > 150
    there, found = paste(tall, tensor(surface(random)[:144]), 0.5, 1.0)
    assert there.shape == (1, 1, 144, WIDTH) and found[0, 0, 0].any() and found[0, 0, -1].any()
