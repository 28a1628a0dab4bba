"""Surfaces at the network's size, the order in which training sees them, and pasted defects."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ksdd_lib.data.dataset import Sample, read_mask
from ksdd_lib.data.layout_note import write_classes
from ksdd_lib.data.survey import find_samples
from ksdd_lib.training import batches
from ksdd_lib.training.batches import (
    FAINTEST,
    FLIPS,
    Order,
    Pasted,
    Shown,
    Surfaces,
    load_surfaces,
    open_tiles,
    turn,
)
from ksdd_lib.training.copy_paste import lift, paste, turned
from ksdd_lib.training.targets import annotate
from ksdd_lib.view import View

ORDER = Order(
    defective=(1, 4, 5),
    good=(0, 2, 3, 6, 7),
    seed=0,
    fold=1,
    stage=0,
    batch_size=1,
)


def rows_of(order: Order, step: int) -> list[int]:
    return [shown.row for shown in order.shown(step)]


def view_of(order: Order, step: int) -> int:
    """The one view of all that this step sees."""
    (view,) = {shown.view for shown in order.shown(step)}
    return view


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One item with a good part and one with a dark bar in its upper left, 208x160."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for part in range(2):
        image = random.integers(120, 200, (208, 160)).astype(np.uint8)
        mask = np.zeros((208, 160), np.uint8)
        if part == 1:
            mask[20:60, 10:14] = 255
            image[mask > 0] = 10
        (root / "a").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "a" / f"{part}.png"), image)
        cv2.imwrite(str(root / "a" / f"{part}_label.bmp"), mask)
    return root


@pytest.fixture(scope="module")
def surfaces(root: Path) -> Surfaces:
    return load_surfaces(find_samples(root), (208, 160), "fine")


def test_surfaces_are_kept_as_bytes_at_the_size_of_the_network(root: Path) -> None:
    surfaces = load_surfaces(find_samples(root), (128, 144), "dilated5")
    assert surfaces.images.shape == (2, 1, 128, 144) and surfaces.images.dtype is torch.uint8
    assert surfaces.masks.shape == (1, 1, 128, 144) and surfaces.mask_row == (-1, 0)


def test_an_image_is_gray_from_0_to_1_and_its_mask_fits_it(surfaces: Surfaces, root: Path) -> None:
    image, mask = surfaces.image(1), surfaces.mask(1)
    assert image.shape == mask.shape == (1, 1, 208, 160)
    assert image.dtype is mask.dtype is torch.float32
    pixels = cv2.imread(str(root / "a" / "1.png"), cv2.IMREAD_GRAYSCALE)
    assert np.allclose(image[0, 0].numpy(), pixels / 255)
    assert image[mask > 0].max() < 0.05 < 0.4 < image[mask == 0].min()
    assert not surfaces.mask(0).any()


def test_defects_are_outlined_in_pixels_of_the_original_image(root: Path) -> None:
    samples = find_samples(root)
    half = load_surfaces(samples, (208, 160), "dilated17").mask(1)
    bar = np.zeros((208, 160), bool)
    bar[20:60, 10:14] = True
    assert np.array_equal(half[0, 0].numpy() > 0.5, annotate(bar, "dilated17"))
    small = load_surfaces([samples[1]], (128, 144), "dilated17").mask(0)
    share = annotate(bar, "dilated17").mean()
    assert abs(small.mean().item() - share) < 0.03 * share


def test_the_label_is_that_of_the_full_size_mask(root: Path) -> None:
    sample = find_samples(root)[1]
    vanishing = np.zeros((208, 160), np.uint8)
    vanishing[100, 80] = 255
    cv2.imwrite(str(sample.mask_path), vanishing)
    try:
        tiny = [one for one in find_samples(root) if one.name == sample.name]
        surfaces = load_surfaces(tiny, (128, 128), "fine")
        assert surfaces.mask(0).max() < 0.5  # nothing of it would survive a cut at one half
        assert surfaces.label(0).tolist() == [[1.0]]
    finally:
        vanishing[:] = 0
        vanishing[20:60, 10:14] = 255
        cv2.imwrite(str(sample.mask_path), vanishing)


def test_labels_are_1_for_defective_and_0_for_good(surfaces: Surfaces) -> None:
    assert [surfaces.label(row).tolist() for row in (0, 1)] == [[[0.0]], [[1.0]]]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_image_keeps_its_pixels_and_its_mask_turns_with_it(
    surfaces: Surfaces, turns: int
) -> None:
    image, mask = surfaces.image(1, turns), surfaces.mask(1, turns)
    shape = (160, 208) if turns % 2 else (208, 160)
    assert image.shape == mask.shape == (1, 1, *shape)
    assert np.array_equal(image[0, 0].numpy(), np.rot90(surfaces.image(1)[0, 0].numpy(), turns))
    assert image[mask > 0].max() < 0.05 < 0.4 < image[mask == 0].min()
    assert surfaces.mask(0, turns).shape == surfaces.image(0, turns).shape


def test_a_mirrored_image_keeps_its_pixels_and_its_mask_is_mirrored_with_it(
    surfaces: Surfaces,
) -> None:
    straight = surfaces.image(1)[0, 0].numpy()
    assert np.array_equal(surfaces.image(1, 4)[0, 0].numpy(), straight[:, ::-1])
    assert np.array_equal(surfaces.image(1, 6)[0, 0].numpy(), straight[::-1])
    assert torch.equal(surfaces.mask(1, 6), surfaces.mask(1).flip(2))


def test_defective_and_good_samples_alternate_strictly() -> None:
    rows = [row for step in range(20) for row in rows_of(ORDER, step)]
    assert all(row in ORDER.defective for row in rows[0::2])
    assert all(row in ORDER.good for row in rows[1::2])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_the_batch_size_cuts_one_and_the_same_sequence(batch_size: int) -> None:
    batched = replace(ORDER, batch_size=batch_size)
    steps = -(-24 // batch_size)
    rows = [row for step in range(steps) for row in rows_of(batched, step)]
    assert all(len(rows_of(batched, step)) == batch_size for step in range(steps))
    assert rows[:24] == [row for step in range(24) for row in rows_of(ORDER, step)]


def test_every_sample_comes_once_in_an_epoch_and_epochs_differ() -> None:
    good = [rows_of(ORDER, step)[0] for step in range(1, 60, 2)]
    epochs = [tuple(good[start : start + 5]) for start in range(0, 30, 5)]
    assert all(sorted(epoch) == sorted(ORDER.good) for epoch in epochs)
    assert len(set(epochs)) > 1
    defective = [rows_of(ORDER, step)[0] for step in range(0, 60, 2)]
    assert all(sorted(defective[start : start + 3]) == [1, 4, 5] for start in range(0, 30, 3))


def test_the_order_depends_on_nothing_but_seed_fold_stage_and_step() -> None:
    def sequence(order: Order) -> list[int]:
        return [rows_of(order, step)[0] for step in range(40)]

    first = sequence(ORDER)
    backwards = [rows_of(replace(ORDER), step)[0] for step in reversed(range(40))]
    assert backwards[::-1] == first
    others = [replace(ORDER, seed=1), replace(ORDER, fold=2), replace(ORDER, stage=1)]
    sequences = [first, *map(sequence, others)]
    assert len({tuple(one) for one in sequences}) == 4


def test_flips_draw_the_four_mirror_images_that_keep_the_shape() -> None:
    views = [view_of(replace(ORDER, flips=True), step) for step in range(400)]
    assert set(views) == {0, 2, 4, 6} and min(map(views.count, set(views))) > 60
    every_way = replace(ORDER, flips=True, rotation=True)
    assert {view_of(every_way, step) for step in range(400)} == set(range(8))


def test_without_rotation_nothing_turns() -> None:
    assert {view_of(ORDER, step) for step in range(50)} == {0}


def test_rotation_draws_all_four_angles_one_for_each_step() -> None:
    order = replace(ORDER, rotation=True, batch_size=4)
    turns = [view_of(order, step) for step in range(400)]
    assert turns == [view_of(order, step) for step in range(400)]
    counts = [turns.count(angle) for angle in range(4)]
    assert sum(counts) == 400 and min(counts) > 60
    assert [rows_of(order, step) for step in range(9)] == [
        rows_of(replace(order, rotation=False), step) for step in range(9)
    ]


def test_copy_paste_lays_its_share_of_the_defects_upon_good_surfaces() -> None:
    order = replace(ORDER, copy_paste=0.5, batch_size=2, flips=True)
    shown = [one for step in range(400) for one in order.shown(step)]
    assert shown == [one for step in range(400) for one in order.shown(step)]
    assert [one.view for one in shown[::2]] == [view_of(order, step) for step in range(400)]
    assert not any(one.pasted for one in shown[1::2])  # the good ones
    pasted = [one.pasted for one in shown[::2] if one.pasted]
    assert 150 < len(pasted) < 250
    assert {one.row for one in pasted} == set(ORDER.good)
    assert min(one.strength for one in pasted) >= FAINTEST
    assert max(one.strength for one in pasted) <= 1
    assert not any(one.pasted for step in range(40) for one in ORDER.shown(step))


def test_pasted_defects_are_turned_as_far_as_set_and_nothing_else_changes() -> None:
    order = replace(ORDER, copy_paste=0.5, batch_size=2)
    straight = [one for step in range(400) for one in order.shown(step)]
    shown = [one for step in range(400) for one in replace(order, paste_turn=45).shown(step)]
    degrees = [one.pasted.degrees for one in shown if one.pasted]
    assert -45 <= min(degrees) < -40 and 40 < max(degrees) <= 45
    assert not any(one.pasted.degrees for one in straight if one.pasted)
    as_before = [
        replace(one, pasted=one.pasted and replace(one.pasted, degrees=0.0)) for one in shown
    ]
    assert as_before == straight


def test_a_pasted_defect_is_shown_at_its_angle(surfaces: Surfaces) -> None:
    image, mask = surfaces.show(Shown(1, 0, Pasted(0, 0.5, 1.0)))
    turned_image, turned_mask = surfaces.show(Shown(1, 0, Pasted(0, 0.5, 1.0, 90.0)))
    assert (mask[0, 0] > 0.5).any(1).sum() == 40 and (mask[0, 0] > 0.5).any(0).sum() == 4
    assert (turned_mask[0, 0] > 0.5).any(1).sum() in (4, 5)
    assert (turned_mask[0, 0] > 0.5).any(0).sum() > 30  # its end lies beyond the edge
    assert 0 < turned_image[turned_mask > 0.5].mean() < 0.35 < image[mask == 0].mean()


def test_a_pasted_defect_is_shown_with_its_mask_in_every_view(surfaces: Surfaces) -> None:
    for view in FLIPS:
        image, mask = surfaces.show(Shown(1, view, Pasted(0, 1.0, 1.0)))
        assert image.shape == mask.shape == (1, 1, 208, 160)
        assert 0 < image[mask > 0].mean() < 0.3 < image[mask == 0].mean()
        assert torch.equal(turn(mask, view)[..., :160, :], torch.zeros(1, 1, 160, 160))


def test_what_is_not_pasted_is_shown_as_it_is(surfaces: Surfaces) -> None:
    image, mask = surfaces.show(Shown(1, 4))
    assert torch.equal(image, surfaces.image(1, 4)) and torch.equal(mask, surfaces.mask(1, 4))


def test_a_defect_too_small_to_be_seen_stays_where_it_is(surfaces: Surfaces) -> None:
    unseen = replace(surfaces, masks=torch.zeros_like(surfaces.masks))
    image, _ = unseen.show(Shown(1, 0, Pasted(0, 0.5, 1.0)))
    assert torch.equal(image, unseen.image(1))


# A defect is taken off its surface and laid upon another as it was.

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


# With tiles a step sees a piece of a picture at its own scale, drawn anew each time.


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """A good picture and one with two defects, a long one and a spot, far larger than a tile."""
    root, random = tmp_path_factory.mktemp("big") / "a", np.random.default_rng(0)
    root.mkdir()
    for part, (height, width) in enumerate([(700, 900), (1000, 640)]):
        image = random.integers(120, 200, (height, width)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if part:
            cv2.line(mask, (20, 30), (600, 900), 255, 9)
            cv2.circle(mask, (560, 60), 6, 255, -1)
            image[mask > 0] = 10
        cv2.imwrite(str(root / f"{part}.png"), image)
        cv2.imwrite(str(root / f"{part}_label.png"), mask)
    return tuple(find_samples(root.parent))


TILES = View((128, 160), tiled=True)


def drawn(count: int, **chosen: int) -> list[Shown]:
    order = replace(ORDER, defective=(1,), good=(0,), tiles=True, **chosen)
    return [one for step in range(count) for one in order.shown(step)]


@pytest.mark.fault(71)
def test_a_defective_tile_shows_a_defect_with_what_is_around_it(big) -> None:
    tiles, spots = open_tiles(big, TILES, "fine"), 0
    for shown in drawn(80)[::2]:
        image, mask = tiles.show(shown)
        assert image.shape == mask.shape == (1, 1, 128, 160)
        assert mask.max() == 1 and mask.mean() < 0.3
        assert image[mask > 0].max() < 0.05 < 0.4 < image[mask == 0].min()  # they fit each other
        spots += int(mask.sum() < 200)
    assert 8 < spots < 32  # each defect comes as often, however large it is


@pytest.mark.fault(71)
def test_good_tiles_are_drawn_anew_each_time_from_everywhere(big) -> None:
    tiles, whole = open_tiles(big, TILES, "fine"), cv2.imread(str(big[0].image_path), 0)
    places = []
    for shown in drawn(60)[1::2]:
        image, mask = tiles.show(shown)
        assert not mask.any()
        pixels = (255 * image[0, 0]).round().byte().numpy()
        found = cv2.matchTemplate(whole, pixels, cv2.TM_SQDIFF)
        assert found.min() < 1e4
        places.append(np.unravel_index(found.argmin(), found.shape))
    assert len(set(places)) == len(places)
    low, high = np.min(places, 0), np.max(places, 0)
    assert (low < (120, 150)).all() and (high > (450, 590)).all()


@pytest.mark.fault(71)
def test_what_a_step_sees_depends_on_nothing_but_seed_fold_stage_and_step(big) -> None:
    forwards, tiles = drawn(12), open_tiles(big, TILES, "fine")
    first = [tiles.show(shown) for shown in forwards]
    again = open_tiles(big, TILES, "fine")
    for shown, (image, mask) in reversed(list(zip(drawn(12), first, strict=True))):
        assert all(map(torch.equal, again.show(shown), (image, mask)))
    assert [one.tile for one in drawn(12, seed=5)] != [one.tile for one in forwards]
    assert [replace(one, tile=None) for one in forwards] == [
        one for step in range(12) for one in replace(ORDER, defective=(1,), good=(0,)).shown(step)
    ]


@pytest.mark.fault(71)
def test_pictures_that_do_not_fit_into_memory_are_read_again(big, monkeypatch) -> None:
    plenty, short = open_tiles(big, TILES, "fine"), open_tiles(big, TILES, "fine")
    wanted = [plenty.show(shown) for shown in drawn(6)]
    monkeypatch.setattr(batches, "KEPT_BYTES", 704 * 904 + 1000)
    for shown, pair in zip(drawn(6), wanted, strict=True):
        assert all(map(torch.equal, short.show(shown), pair))
    assert len(plenty.kept) == 2 and len(short.kept) == 1


@pytest.mark.fault(71)
def test_in_tiles_too_a_defect_is_pasted_upon_a_good_surface(big) -> None:
    tiles = open_tiles(big, TILES, "fine")
    own = drawn(1)[0]
    image, mask = tiles.show(replace(own, pasted=Pasted(0, 0.5, 1.0, 30.0)))
    ground, _ = tiles.show(Shown(0, tile=own.tile))
    assert mask.any() and image[mask > 0.5].mean() < 0.3
    far = torch.nn.functional.max_pool2d(mask, 31, 1, 15) == 0
    assert torch.equal(image[far], ground[far])


def test_to_look_at_tiles_one_of_each_is_loaded(big) -> None:
    surfaces = load_surfaces(big, TILES, "fine")
    assert surfaces.images.shape == (2, 1, 128, 160)
    assert surfaces.mask(1).any() and not surfaces.mask(0).any()


@pytest.mark.fault(71)
def test_of_several_classes_a_tile_has_the_label_of_what_it_shows(big, tmp_path) -> None:
    _, pieces = cv2.connectedComponents(read_mask(big[1]).astype(np.uint8))
    sides = np.stack([pieces == pieces[60, 560], pieces == pieces[30, 20]])
    write_classes(tmp_path / "both.png", sides)
    both = replace(big[1], classes=("spot", "line"), class_path=tmp_path / "both.png")
    tiles = open_tiles([big[0], both], TILES, "fine", ("line", "other", "spot"))
    found = set()
    for shown in drawn(60):
        _, masks = tiles.show(shown)
        assert masks.shape == (1, 3, 128, 160)
        assert torch.equal(tiles.label_of(shown), (masks.amax((2, 3)) > 0).float())
        found.add(tuple(tiles.label_of(shown)[0].tolist()))
    assert found == {(1, 0, 0), (0, 0, 1), (0, 0, 0)}
    pasted = replace(drawn(1)[0], pasted=Pasted(0, 0.5, 1.0))
    assert torch.equal(tiles.label_of(pasted), tiles.label_of(drawn(1)[0]))
