"""How a picture becomes what the network sees, and how its map goes back to the picture."""

import cv2
import numpy as np
import pytest

from ksdd_lib.errors import DataError
from ksdd_lib.settings import Settings
from ksdd_lib.view import OUTSIDE, Box, View, find_part, region_box

SHAPES = [(60, 400), (400, 60), (333, 97), (128, 128), (1000, 1400), (37, 41)]


def picture(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, shape).astype(np.uint8)


def highest(values: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """Where a map is highest, in pixels of its picture."""
    place = np.unravel_index(values.argmax(), values.shape)
    y, x = ((n + 0.5) * a / b for n, a, b in zip(place, shape, values.shape, strict=True))
    return y, x


@pytest.mark.parametrize("shape", SHAPES)
def test_by_default_a_picture_is_stretched_as_it_always_was(shape):
    image, view = picture(shape), Settings(image_size="192x128").view
    wanted = cv2.resize(image, (128, 192), interpolation=cv2.INTER_AREA)
    assert np.array_equal(view.seen(image), wanted)
    values = np.random.default_rng(1).normal(size=(24, 16)).astype(np.float32)
    assert view.placed(image).back(values) is values


@pytest.mark.fault(68)
@pytest.mark.parametrize("shape", SHAPES)
def test_padded_a_picture_keeps_its_shape_within_an_even_border(shape):
    image = picture(shape)
    placed = View((192, 160), "pad").placed(image)
    seen, (top, left, rows, columns) = placed.lay(image), placed.inner
    assert seen.shape == (192, 160) and (rows == 192 or columns == 160)
    assert abs(rows / shape[0] - columns / shape[1]) <= 0.5 / min(shape)  # half a pixel at most
    border = np.ones(seen.shape, bool)
    border[top : top + rows, left : left + columns] = False
    assert len(set(seen[border].tolist())) <= 1
    assert abs(top - (192 - rows) / 2) < 1 and abs(left - (160 - columns) / 2) < 1
    mask = np.full(shape, 255, np.uint8)
    assert np.array_equal(placed.lay(mask, 0) == 255, ~border)


@pytest.mark.fault(68)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "view",
    [View((256, 192)), View((256, 192), "pad"), View((256, 192), "pad", "5,7,30,29")],
    ids=["stretch", "pad", "region"],
)
def test_a_map_goes_back_to_the_place_that_it_was_seen_at(shape, view):
    """A spot of the picture is where the map of what the network sees puts it."""
    placed = view.placed(np.zeros(shape, np.uint8))
    box = placed.box
    for down, right in ((0.2, 0.3), (0.5, 0.5), (0.9, 0.7)):
        y, x = box.top + down * box.height, box.left + right * box.width
        ys, xs = np.mgrid[: shape[0], : shape[1]]
        near = np.hypot(ys - y, (xs - x)) < 0.12 * min(box.height, box.width)
        canvas = placed.lay(near.astype(np.uint8) * 255, 0)
        values = cv2.resize(canvas, (192 // 8, 256 // 8), interpolation=cv2.INTER_AREA)
        back = placed.back(values.astype(np.float32))
        middle = np.argwhere(back >= 0.5 * back.max()).mean(0) + 0.5
        found = middle * shape / np.array(back.shape)
        step = 1.5 * 8 / np.array([a / b for a, b in zip(placed.inner[2:], box[2:], strict=True)])
        assert abs(found[0] - y) <= step[0] and abs(found[1] - x) <= step[1]


def test_outside_of_the_region_a_map_says_no_defect():
    image = picture((300, 200))
    placed = View((128, 128), "stretch", "50,60,100,120").placed(image)
    back = placed.back(np.full((16, 16), 3.0, np.float32))
    full = cv2.resize(back, (200, 300), interpolation=cv2.INTER_NEAREST)
    assert (full[75:165, 65:135] == 3).all()
    assert (full[:45] == OUTSIDE).all() and (full[:, 165:] == OUTSIDE).all()
    assert 0.5 < (full == 3).sum() / (100 * 120) < 1.5


@pytest.mark.fault(69)
def test_a_rectangle_is_cut_where_it_reaches_beyond_and_refused_where_it_lies_outside():
    image = np.zeros((100, 80), np.uint8)
    assert region_box("10,20,30,40", image) == Box(20, 10, 40, 30)
    assert region_box("70,90,30,40", image) == Box(90, 70, 10, 10)
    assert region_box("none", image) == Box(0, 0, 100, 80)
    for outside in ("80,0,20,20", "0,100,20,20", "5000,5000,20,20"):
        with pytest.raises(DataError, match=r"lies outside of the picture, which is 100x80"):
            region_box(outside, image)
    view = View((128, 128), region="10,20,30,40")
    assert not view.reaches_beyond((60, 40)) and view.reaches_beyond((59, 40))


def on_table(shape, part, background, level, noise=3.0):
    """A picture of a part (top, left, height, width) that lies on an even table."""
    image = np.full(shape, float(background))
    top, left, height, width = part
    image[top : top + height, left : left + width] = level
    image += np.random.default_rng(0).normal(0, noise, shape)
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.fault(69)
@pytest.mark.parametrize("background", [12, 128, 245])
@pytest.mark.parametrize("contrast", [-90, 40, 100])
@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((600, 800), (150, 200, 300, 400)),
        ((600, 800), (0, 250, 600, 200)),  # from edge to edge
        ((1500, 2000), (1200, 100, 250, 90)),
        ((200, 150), (40, 30, 100, 60)),
    ],
)
def test_the_part_is_found_where_it_stands_out(background, contrast, shape, part):
    level = background + contrast if 0 <= background + contrast <= 255 else background - contrast
    box = find_part(on_table(shape, part, background, level))
    margin = 0.03 * max(shape)
    ends = [box.top, box.left, box.top + box.height, box.left + box.width]
    wanted = [part[0], part[1], part[0] + part[2], part[1] + part[3]]
    assert ends[0] <= wanted[0] and ends[1] <= wanted[1]
    assert ends[2] >= wanted[2] and ends[3] >= wanted[3]
    assert max(abs(a - b) for a, b in zip(ends, wanted, strict=True)) <= margin


@pytest.mark.fault(69)
def test_a_part_of_two_brightnesses_is_one_part():
    image = on_table((600, 800), (150, 200, 300, 400), 20, 60)
    image[150:450, 400:600] = 230
    box = find_part(image)
    assert box.left <= 200 and box.left + box.width >= 600


@pytest.mark.fault(69)
def test_where_no_part_stands_out_the_whole_picture_is_taken():
    slope = np.linspace(0, 255, 400)[None].repeat(300, 0).astype(np.uint8)
    speck = on_table((300, 400), (100, 100, 5, 5), 128, 250)
    for image in (picture((300, 400)), np.full((300, 400), 90, np.uint8), slope, speck):
        assert find_part(image) == Box(0, 0, 300, 400)


@pytest.mark.fault(71)
@pytest.mark.parametrize("tile", [(128, 128), (256, 192), (512, 512)])
@pytest.mark.parametrize("shape", [(40, 60), (128, 1000), (700, 530), (1001, 1333), (513, 511)])
def test_tiles_cover_a_picture_and_their_maps_are_joined_where_they_were(shape, tile):
    image = picture(shape)
    placed = View(tile, tiled=True).placed(image)
    canvas = placed.lay(image)
    top, left, rows, columns = placed.inner
    assert np.array_equal(canvas[top : top + rows, left : left + columns], image)  # at its scale
    seen, values = np.zeros(canvas.shape, bool), canvas[::8, ::8].astype(np.float32)
    maps = []
    for box in placed.tiles:
        assert box.cut(canvas).shape == tile and box.top % 8 == box.left % 8 == 0
        box.cut(seen)[:] = True
        maps.append(Box(*(side // 8 for side in box)).cut(values))
    assert seen.all()
    np.testing.assert_allclose(placed.joined(maps), values, rtol=1e-6)


@pytest.mark.fault(71)
def test_where_tiles_overlap_nothing_jumps_and_edges_do_not_count():
    """Tiles that answer with different numbers fade into each other; a wrong edge is not seen."""
    placed = View((512, 512), tiled=True).placed(np.zeros((512, 1024), np.uint8))
    maps = [np.full((64, 64), float(number), np.float32) for number in range(len(placed.tiles))]
    row = placed.joined(maps)[30]
    assert len(maps) == 3 and abs(np.diff(row)).max() <= 0.3 and (np.diff(row) >= 0).all()
    for one in maps:
        one[:, :14] = one[:, -14:] = 1e4  # nearer to the edge than what the network reaches
        one[:, 14:-14] = 5
    inside = placed.joined(maps)[:, 14:-14]
    assert abs(inside - 5).max() < 0.1
    assert (placed.joined(maps)[:, :13] > 1e3).all()  # at the picture's own edge it is all there is


@pytest.mark.fault(71)
def test_no_pixel_beyond_the_reach_changes_a_value_of_the_map():
    """But for the normalisation of features, whose numbers are those of the whole input."""
    import torch
    from torch import nn

    from ksdd_lib.models.two_stage import FeatureNorm, SegmentationNet
    from ksdd_lib.view import REACH, STRIDE

    net = SegmentationNet()
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, FeatureNorm):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                nn.init.constant_(child.weight, 1e-2)
    image = torch.zeros(1, 1, 256, 256)
    with torch.no_grad():
        before = net(image)[1]
        image[..., 120, 136] = 1.0
        changed = (net(image)[1] - before)[0, 0].abs() > 1e-30
    rows, columns = changed.nonzero().T
    for places, at in ((rows, 120), (columns, 136)):
        middles = STRIDE * (places + 0.5)
        assert REACH - STRIDE <= (middles - at).abs().max() <= REACH


def test_the_tile_to_look_at_lies_in_the_middle():
    image = picture((700, 900))
    seen = View((256, 128), tiled=True).seen(image)
    assert seen.shape == (256, 128)
    found = cv2.matchTemplate(image, seen, cv2.TM_SQDIFF)
    top, left = np.unravel_index(found.argmin(), found.shape)
    assert found.min() < 1e4 and abs(top + 128 - 350) < 4 and abs(left + 64 - 450) < 4
