"""Generated surfaces: exact masks, the layout of KolektorSDD, and no short cut by darkness."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from small_data import aligned_correlation

from ksdd_lib.data.dataset import read_mask
from ksdd_lib.data.survey import find_samples
from ksdd_lib.data.synthetic import MARKER, defective_part_numbers, generate, render
from ksdd_lib.errors import DataError
from ksdd_lib.storage import read_json, write_json

SIZE = (256, 128)


@pytest.fixture(scope="module")
def surfaces() -> tuple[list[np.ndarray], list[bool]]:
    """Twelve items of eight parts, and which are defective."""
    images, labels = [], []
    for item in range(1, 13):
        defective = defective_part_numbers(0, item, 8, 2)
        for part in range(8):
            images.append(render(SIZE, 0, item, part, part in defective)[0])
            labels.append(part in defective)
    return images, labels


def files(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.*") if p.name != MARKER}


def test_a_surface_depends_on_seed_item_and_part_alone():
    image, mask = render(SIZE, 3, 2, 5, True)
    again, mask_again = render(SIZE, 3, 2, 5, True)
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    for other in [(4, 2, 5), (3, 1, 5), (3, 2, 4)]:
        assert not np.array_equal(image, render(SIZE, *other, True)[0])


def test_a_larger_set_begins_with_the_smaller_one(tmp_path):
    small = files(generate(tmp_path / "small", 1, SIZE))
    large = files(generate(tmp_path / "large", 2, SIZE))
    assert small.items() < large.items()


@pytest.mark.parametrize("size", [(128, 128), (256, 128), (130, 517), (704, 256)])
def test_the_mask_holds_exactly_the_pixels_that_the_crack_darkens(size):
    for item in range(1, 5):
        image, mask = render(size, 0, item, 0, True)
        plain, nothing = render(size, 0, item, 0, False)
        assert image.shape == mask.shape == size and image.dtype == np.uint8
        assert np.array_equal(image < plain, mask)
        assert np.array_equal(image[~mask], plain[~mask])
        assert not nothing.any()


def test_every_crack_is_thin_clear_and_of_kolektors_share_of_the_image():
    for item in range(1, 60):
        image, mask = render(SIZE, 1, item, 0, True)
        plain = render(SIZE, 1, item, 0, False)[0]
        assert 0.002 < mask.mean() < 0.015
        assert (plain[mask].astype(int) - image[mask]).mean() > 40
        thickness = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3).max()
        extent = max(np.ptp(np.nonzero(mask)[0]), np.ptp(np.nonzero(mask)[1]))
        assert extent > 4 * thickness


@pytest.mark.parametrize("size", [(1408, 512), (192, 128), (333, 222)])
def test_a_crack_remains_in_the_soft_targets_at_an_eighth(size):
    mask = render(size, 0, 1, 0, True)[1]
    share = cv2.blur(mask.astype(np.float32), (17, 17))[::8, ::8]
    assert share.max() > 0.1


def test_the_layout_is_kolektors(tmp_path):
    root = generate(tmp_path / "set", 3, (144, 128), parts=4, defective_parts=1)
    samples = find_samples(root)
    assert [sample.name for sample in samples[:5]] == [
        *(f"gen01/Part{part}" for part in range(4)),
        "gen02/Part0",
    ]
    for item in range(1, 4):
        found = [sample for sample in samples if sample.item == f"gen{item:02d}"]
        names = {f"gen{item:02d}/Part{part}" for part in defective_part_numbers(0, item, 4, 1)}
        assert {sample.name for sample in found if sample.is_defective} == names
    for sample in samples:
        item, part = int(sample.item[3:]), int(sample.name[-1])
        mask = render((144, 128), 0, item, part, sample.is_defective)[1]
        assert np.array_equal(read_mask(sample), mask)


@pytest.mark.parametrize("blur", [0, 0.7, 1.5, 2.5])
def test_the_darkest_pixel_does_not_tell_the_defective_ones(surfaces, blur):
    images, labels = surfaces
    blurred = [cv2.GaussianBlur(image, (0, 0), blur) if blur else image for image in images]
    precision = average_precision_score(labels, [-float(image.min()) for image in blurred])
    assert 0.25 < precision < 0.7  # chance is 0.25: darkness says something, but not enough


@pytest.mark.parametrize("statistic", [np.mean, np.std])
def test_brightness_and_contrast_do_not_tell_the_defective_ones(surfaces, statistic):
    images, labels = surfaces
    values = np.array([statistic(image) for image in images])
    assert average_precision_score(labels, values) < 0.6
    assert average_precision_score(labels, -values) < 0.6


def test_no_two_surfaces_look_like_twins(surfaces):
    images, _ = surfaces
    correlation = aligned_correlation(images)
    np.fill_diagonal(correlation, 0)
    assert correlation.max() < 0.3
    textures = [i - cv2.GaussianBlur(i, (0, 0), 4) for i in np.float32(images)]
    raw = np.corrcoef(np.reshape(textures, (len(images), -1)))
    assert np.abs(raw - np.eye(len(raw))).max() < 0.3


def test_a_complete_set_is_used_again(tmp_path):
    root = generate(tmp_path / "set", 1, SIZE)
    image = root / "gen01" / "Part0.jpg"
    before = image.stat().st_mtime_ns, image.stat().st_ino
    assert generate(root, 1, SIZE) == root
    assert (image.stat().st_mtime_ns, image.stat().st_ino) == before


def test_a_set_of_an_older_version_is_made_anew(tmp_path):
    root = generate(tmp_path / "set", 1, SIZE)
    whole = files(root)
    write_json(root / MARKER, read_json(root / MARKER) | {"version": 0})
    (root / "gen01" / "Part0.jpg").write_bytes(b"as it was drawn then")
    with pytest.warns(UserWarning, match="set has changed, or is of an earlier version"):
        assert files(generate(root, 1, SIZE)) == whole


def test_leftovers_and_missing_files_are_made_anew(tmp_path):
    root = generate(tmp_path / "set", 1, SIZE)
    whole = files(root)
    (root / "gen01" / "Part3.jpg").unlink()
    leftover = tmp_path / ".set.999999999.tmp" / "gen77" / "Part0.jpg"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with pytest.warns(UserWarning, match="set has changed"):
        assert files(generate(root, 1, SIZE)) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set-changed"]


def test_an_interrupted_set_is_never_seen(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ksdd_lib.storage.write_record", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", 1, SIZE)
    assert not (tmp_path / "set").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    root = generate(tmp_path / "set", 1, SIZE, seed=1)
    with pytest.raises(DataError, match="set already holds"):
        generate(root, 1, SIZE, seed=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="another folder"):
        generate(tmp_path / "mine", 1, SIZE)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"size": (64, 128)}, "128"),
        ({"items": 0}, "items"),
        ({"seed": -1}, "seed"),
        ({"parts": 2, "defective_parts": 3}, "defective_parts"),
    ],
)
def test_a_parameter_out_of_range_is_named(tmp_path, change, name):
    with pytest.raises(DataError, match=name):
        generate(tmp_path / "set", **({"items": 1, "size": SIZE} | change))
    assert not (tmp_path / "set").exists()
