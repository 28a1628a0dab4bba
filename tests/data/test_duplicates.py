"""Twins: the same surface photographed again correlates, another one does not."""

import cv2
import numpy as np
import pytest
from small_data import aligned_correlation

from ksdd_lib.data.dataset import read_image, read_mask
from ksdd_lib.data.kolektorsdd import kolektor_twins
from ksdd_lib.data.survey import find_samples


def texture(seed: int, size: tuple[int, int] = (400, 200)) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(size)
    return 128 + 40 * cv2.GaussianBlur(noise, (0, 0), 2) / 0.14


def photographed(surface: np.ndarray, down: int, right: int, seed: int) -> np.ndarray:
    """Shifted, under other light and with other noise."""
    light = np.linspace(0.6, 1.2, surface.shape[1])
    noise = np.random.default_rng(seed).standard_normal(surface.shape)
    return (
        (np.roll(surface, (down, right), (0, 1)) * light + 4 * noise).clip(0, 255).astype("uint8")
    )


def test_a_shifted_photograph_of_a_surface_is_found_among_others():
    images = [photographed(texture(seed), 0, 0, seed) for seed in range(6)]
    for down, right in ((0, 0), (4, 3), (-5, 2), (3, -5), (-4, -4)):
        alike = aligned_correlation([*images, photographed(texture(2), down, right, 99)])
        assert alike[2, 6] > 0.7 and alike[6, 2] > 0.7
        others = alike - np.eye(7)
        others[[2, 6], [6, 2]] = 0
        assert others.max() < 0.3


def test_what_all_photographs_share_makes_no_twins():
    frame = np.zeros((400, 200))
    cv2.rectangle(frame, (40, 60), (160, 340), 90, 8)
    images = [(texture(seed) * 0.4 + frame).clip(0, 255).astype("uint8") for seed in range(9)]
    assert (aligned_correlation(images) - np.eye(9)).max() < 0.3


def test_images_of_different_sizes_are_compared_where_they_overlap():
    images = [photographed(texture(seed), 0, 0, seed) for seed in range(5)]
    alike = aligned_correlation([*images, images[0][:370, :190], np.zeros((16, 900), np.uint8)])
    assert alike[0, 5] > 0.7
    assert alike[1:5, 5].max() < 0.3


def test_constant_images_are_like_nothing():
    constant = [np.full((160, 128), level, np.uint8) for level in (0, 0, 90)]
    assert np.all(aligned_correlation(constant) == 0)
    textured = [photographed(texture(seed, (160, 128)), 0, 0, seed) for seed in range(3)]
    assert np.all(aligned_correlation([*constant, *textured])[:3] == 0)


def test_kolektorsdd_holds_24_surfaces_twice_and_four_of_them_are_defective():
    pairs = kolektor_twins()
    names = [name for pair in pairs for name in pair.surfaces]
    assert len(pairs) == 24 and len(set(names)) == 48
    items = {tuple(name.split("/")[0] for name in pair.surfaces) for pair in pairs}
    assert items == {("kos01", "kos26"), ("kos27", "kos34"), ("kos38", "kos39")}
    assert sum(pair.mask_iou is not None for pair in pairs) == 4


@pytest.mark.slow
def test_the_stored_pairs_are_those_of_the_photographs(kolektor_root):
    samples = {sample.name: sample for sample in find_samples(kolektor_root)}
    for items in (("kos01", "kos26"), ("kos27", "kos34"), ("kos38", "kos39")):
        parts = [[s for s in samples.values() if s.item == item] for item in items]
        images = [read_image(sample) for part in parts for sample in part]
        alike = aligned_correlation(images)[: len(parts[0]), len(parts[0]) :]
        found = {parts[0][i].name: parts[1][j].name for i, j in enumerate(alike.argmax(1))}
        stored = [pair for pair in kolektor_twins() if pair.surfaces[0] in found]
        assert {pair.surfaces for pair in stored} == set(found.items())
        assert sorted(pair.correlation for pair in stored) == pytest.approx(
            sorted(alike.max(1)), abs=0.01
        )
        if items[0] == "kos38":
            continue  # its masks are compared only after alignment to the pixel
        for pair in stored:
            one, other = (read_mask(samples[name]) for name in pair.surfaces)
            union = (one | other).sum()
            iou = (one & other).sum() / union if union else None
            assert pair.mask_iou == (iou and pytest.approx(iou, abs=0.01))
