"""Defects drawn on good surfaces, and where training sees them."""

import cv2
import numpy as np
import pytest

from ksdd_lib.settings import DRAWN_KINDS, Settings
from ksdd_lib.training.batches import Order, Shown
from ksdd_lib.training.drawn_defects import KINDS, VISIBLE, Ranges, draw
from ksdd_lib.view import Box

GROUND = np.random.default_rng(0).integers(120, 180, (192, 160)).astype(np.uint8)


def ranges(kind: str, **changed: tuple[float, float]) -> Ranges:
    usual = {"length": (30.0, 60.0), "width": (1.0, 3.0), "contrast": (0.3, 0.7)}
    return Ranges((kind,), **usual | changed)


def drawn(kind: str, number: int, inner: Box | None = None, **changed: tuple[float, float]):
    return draw(GROUND, ranges(kind, **changed), np.random.default_rng(number), inner)


def test_every_kind_of_the_settings_can_be_drawn() -> None:
    assert tuple(KINDS) == DRAWN_KINDS


@pytest.mark.parametrize("kind", DRAWN_KINDS)
@pytest.mark.parametrize("number", range(5))
def test_only_what_is_marked_is_changed_much_and_the_texture_stays(kind: str, number: int) -> None:
    image, mask, found = drawn(kind, number)
    change = image.astype(float) - GROUND
    assert found == kind and set(np.unique(mask)) == {0, 255} and image.dtype == np.uint8
    assert change.max() <= 0 and change.min() < -VISIBLE
    assert abs(change[mask == 0]).max() <= 0.3 * 0.7 * 180 + 1  # the soft rim
    assert change[mask > 0].mean() < 10 * change[mask == 0].mean()


@pytest.mark.parametrize("kind", DRAWN_KINDS)
def test_a_contrast_below_zero_is_brighter(kind: str) -> None:
    image, mask, _ = drawn(kind, 1, contrast=(-0.5, -0.3))
    change = image.astype(float) - GROUND
    assert change.min() >= 0 and change[mask > 0].max() > VISIBLE


def test_the_same_numbers_draw_the_same_and_others_another() -> None:
    first, again, other = (drawn("crack", number)[0] for number in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("kind", DRAWN_KINDS)
def test_nothing_is_drawn_on_a_border(kind: str) -> None:
    inner = Box(40, 30, 100, 90)
    for number in range(5):
        image, mask, _ = drawn(kind, number, inner)
        outside = np.ones(GROUND.shape, bool)
        inner.cut(outside)[:] = False
        assert (image[outside] == GROUND[outside]).all() and not mask[outside].any()


@pytest.mark.parametrize(("length", "least", "most"), [((12, 16), 5, 30), ((90, 120), 35, 170)])
def test_lengths_are_pixels_from_end_to_end(length: tuple, least: float, most: float) -> None:
    sides = []
    for number in range(30):
        _, mask, _ = drawn("scratch", number, length=length)
        sides.append(max(cv2.minAreaRect(np.argwhere(mask).astype(np.float32))[1]))
    assert least <= np.median(sides) and max(sides) <= most


def test_a_defect_is_put_where_it_can_be_seen() -> None:
    ground = np.full((160, 160), 2, np.uint8)
    ground[:, 80:] = 150  # nothing can be seen on the dark half
    places = [
        np.argwhere(draw(ground, ranges("pit"), np.random.default_rng(n))[1]) for n in range(20)
    ]
    assert all(place[:, 1].max() >= 78 for place in places)


ORDER = Order(
    defective=(1, 4, 5, 8), good=(0, 2, 3, 6, 7), seed=0, fold=1, stage=0, batch_size=2,
    copy_paste=0.5,
)  # fmt: skip


def shown(order: Order, steps: int = 40) -> list[Shown]:
    return [one for step in range(steps) for one in order.shown(step)]


def changed(**fields: object) -> Order:
    return Order(**{**vars(ORDER), **fields})


def test_an_order_without_anything_drawn_is_what_it_was() -> None:
    assert shown(ORDER) == shown(changed(unmasked=frozenset(), to_draw=frozenset(), drawn=0.0))
    assert not any(one.drawn for one in shown(ORDER))


def test_what_lacks_a_mask_is_replaced_by_a_defect_drawn_on_a_good_surface() -> None:
    order = changed(to_draw=frozenset({4, 8}), unmasked=frozenset({4, 8}))
    plain, now = shown(ORDER), shown(order)
    for before, after in zip(plain, now, strict=True):
        if before.row in (4, 8):
            assert after.row in ORDER.good and after.drawn and after.pasted is None
        else:
            assert after == before
    keys = [one.drawn for one in now if one.drawn]
    assert len(set(keys)) == len(keys) == 20


def test_what_lacks_a_mask_is_shown_but_never_pasted_where_labels_are_enough() -> None:
    rows = [one for one in shown(changed(unmasked=frozenset({4, 8}))) if one.row in (4, 8)]
    assert len(rows) == 20 and not any(one.pasted or one.drawn for one in rows)


def test_from_good_parts_alone_each_is_shown_as_it_is_and_drawn_upon() -> None:
    good = ORDER.good
    found = shown(changed(defective=good, to_draw=frozenset(good), unmasked=frozenset(good)), 5)
    assert sorted(one.row for one in found if one.drawn) == list(good)
    assert sorted(one.row for one in found if not one.drawn) == list(good)


def test_a_share_of_the_photographed_defects_is_replaced() -> None:
    found = [one for one in shown(changed(drawn=0.25), 400)[::2]]
    assert 0.18 < np.mean([one.drawn is not None for one in found]) < 0.32


def test_ranges_are_those_of_the_settings() -> None:
    settings = Settings(drawn_kinds="pit,stain", drawn_width="2 to 3", drawn_contrast="-0.5 to 0.5")
    found = Ranges(("pit", "stain"), (30, 200), (2, 3), (-0.5, 0.5), ("spot",))
    assert Ranges.of(settings) == found  # what is a defect is not harmless
