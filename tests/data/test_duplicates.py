"""Twins: the same surface photographed again correlates, another one does not."""

import shutil

import cv2
import numpy as np
import pytest
from small_data import aligned_correlation

from ksdd_lib.data.dataset import read_image, read_mask
from ksdd_lib.data.duplicates import TWIN_CORRELATION, closest_pairs, twin_items
from ksdd_lib.data.folds import clean_folds
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


def part(seed: int, defect: bool = False) -> np.ndarray:
    """One of many parts in one fixture: float64 (400, 200), gray levels at exposure 1."""
    picture = texture(seed) * 0.45 + 20
    cv2.rectangle(picture, (40, 60), (160, 340), 150, 8)
    if defect:
        cv2.line(picture, (60, 100), (140, 300), 10, 5)
    return picture


def shot(surface: np.ndarray, exposure: str, seed: int) -> np.ndarray:
    """A photograph of it at another exposure, with noise of its own; what is too bright clips."""
    light = {
        "as it is": surface,
        "dark": surface * 0.35,
        "darker": surface * 0.6,
        "brighter": surface * 1.4,
        "bright": surface * 1.8,
        "lifted": surface + 60,
        "lowered": surface - 30,
        "flat": surface * 0.4 + 70,
        "light gamma": 255 * (surface.clip(0, 255) / 255) ** 0.5,
        "dark gamma": 255 * (surface.clip(0, 255) / 255) ** 1.8,
        "lit from one side": surface * np.linspace(0.5, 1.5, surface.shape[1]),
    }[exposure]
    noise = np.random.default_rng(seed).standard_normal(surface.shape)
    return (light + 2 * noise).clip(0, 255).astype(np.uint8)


EXPOSURES = ["dark", "darker", "brighter", "bright", "lifted", "lowered", "flat"]
EXPOSURES += ["light gamma", "dark gamma", "lit from one side"]


@pytest.mark.fault(37)
@pytest.mark.parametrize("exposure", EXPOSURES)
def test_a_surface_at_another_exposure_is_found_among_parts_in_one_fixture(exposure: str):
    images = [shot(part(seed), "as it is", seed) for seed in range(8)]
    alike = aligned_correlation([*images, shot(np.roll(part(3), 3, 0), exposure, 99)])
    assert alike[3, 8] > 0.6
    others = alike - np.eye(9)
    others[[3, 8], [8, 3]] = 0
    assert others.max() < 0.4


@pytest.mark.fault(37)
@pytest.mark.parametrize("parts", [3, 8])
def test_six_exposures_of_each_part_are_joined_and_no_two_parts(parts: int):
    series = ["dark", "darker", "as it is", "brighter", "lifted", "dark gamma"]
    images = [
        shot(part(seed, seed % 2 == 0), exposure, 10 * seed + number)
        for seed in range(parts)
        for number, exposure in enumerate(series)
    ]
    alike = aligned_correlation(images)
    owner = np.repeat(np.arange(parts), len(series))
    same = owner[:, None] == owner
    assert alike[same].min() > TWIN_CORRELATION + 0.1
    assert alike[~same].max() < TWIN_CORRELATION - 0.1


@pytest.mark.fault(37)
def test_six_exposures_of_one_part_among_few_others_are_one_group(
    make_data_set, tmp_path, monkeypatch
):
    root = make_data_set(tmp_path / "lit", items=5, parts=2)
    gains = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
    for number, gain in enumerate(gains):
        make = shutil.copytree(root / "tiny03", root / f"shot{number}")
        for image in make.glob("*.jpg"):
            pixels = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(image), (pixels * gain).clip(0, 255).astype(np.uint8))
    samples = find_samples(root)
    assert twin_items(samples) == [{"tiny03", *(f"shot{number}" for number in range(6))}]
    for fold in clean_folds(samples):
        for side in (fold.train, fold.test):
            shots = {one.item for one in side if one.item.startswith("shot")}
            assert len(shots) in (0, 6)


@pytest.mark.fault(37)
def test_cracks_alike_make_no_twins_of_different_parts():
    images = [shot(part(seed, defect=True), "as it is", seed) for seed in range(6)]
    images += [shot(part(seed), "as it is", seed) for seed in range(6, 16)]
    assert (aligned_correlation(images) - np.eye(16)).max() < 0.4


@pytest.mark.fault(37)
def test_the_closest_pairs_that_are_no_twins_are_named_most_alike_first(tiny_root):
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny06", dirs_exist_ok=True)
    mixed = [
        cv2.imread(str(tiny_root / f"tiny0{item}" / "Part0.jpg"), cv2.IMREAD_GRAYSCALE)
        for item in (1, 4)
    ]
    blend = cv2.addWeighted(mixed[0], 0.75, mixed[1], 0.25, 0)
    for number, weight in ((3, 0.3), (5, 0.2)):
        path = str(tiny_root / f"tiny0{number}" / "Part2.jpg")
        own = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(path, cv2.addWeighted(own, 1 - weight, blend, weight, 0))
    samples = find_samples(tiny_root)
    assert twin_items(samples) == [{"tiny02", "tiny06"}]
    first, *others = closest_pairs(samples)
    assert set(first.surfaces) == {"tiny01/Part0", "tiny03/Part2"}
    assert len(others) == 2
    values = [one.correlation for one in (first, *others)]
    assert values == sorted(values, reverse=True) and 0.1 < values[0] < TWIN_CORRELATION
    for one in (first, *others):
        items = {name.split("/")[0] for name in one.surfaces}
        assert len(items) == 2 and items != {"tiny02", "tiny06"}


def test_where_only_identical_files_make_twins_similar_ones_are_the_closest(tiny_root):
    similar = (tiny_root / "tiny01" / "Part0.jpg").read_bytes() + b"\0"
    (tiny_root / "tiny04" / "Part0.jpg").write_bytes(similar)
    first = closest_pairs(find_samples(tiny_root), "identical")[0]
    assert first.surfaces == ("tiny01/Part0", "tiny04/Part0") and first.correlation == 1


def test_no_picture_and_one_alone_have_no_closest_pair(tiny_root):
    samples = find_samples(tiny_root)
    assert twin_items([]) == [] and closest_pairs([]) == ()
    assert twin_items(samples[:1]) == [] and closest_pairs(samples[:1]) == ()


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
