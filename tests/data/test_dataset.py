"""Samples: only what is sure becomes one, each file is decoded once, and twins are found."""

import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_data import aligned_correlation, huge_png

from ksdd_lib.data import duplicates
from ksdd_lib.data.data_report import inspect_data
from ksdd_lib.data.dataset import fingerprint, read_image, read_mask
from ksdd_lib.data.duplicates import twin_items
from ksdd_lib.data.folds import make_folds
from ksdd_lib.data.item_folders import missing_labels
from ksdd_lib.data.kolektorsdd import is_kolektor
from ksdd_lib.data.sources import from_folder
from ksdd_lib.data.survey import Duplicate, PairContent, find_samples, survey
from ksdd_lib.errors import DataError
from ksdd_lib.settings import Settings


@pytest.mark.fault(47)
@pytest.mark.parametrize("odd", [b"tiny\xfc2", b"tiny\r2", b"tiny\n2", b"tiny\x7f2", b"\xf0\x9f2"])
def test_a_sample_whose_name_is_not_text_is_named_before_work_begins(tiny_root: Path, odd: bytes):
    """Results could not be stored under it, or not be read again."""
    (tiny_root / "tiny02").rename(tiny_root / os.fsdecode(odd))
    (tiny_root / "tiny03" / "Part0.jpg").rename(tiny_root / "tiny03" / os.fsdecode(odd + b".jpg"))
    (tiny_root / os.fsdecode(odd + b".txt")).touch()
    found = survey(tiny_root)
    reasons = [one.reason for one in found.unreadable]
    assert len(reasons) == 5 and all("not text: rename it" in reason for reason in reasons)
    assert len(found.samples) == 19
    for text in [*reasons, *(one.name for one in found.unreadable), *found.ignored]:
        assert text.encode().decode().isprintable()
    with pytest.raises(DataError, match="5 of the images cannot be used: .*rename it"):
        found.usable()


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    "odd", [" tiny", "tiny ", "t" * 251, "\u00fc \u20ac", "\u202ftiny", "ti;ny"]
)
def test_a_sample_of_any_other_name_is_used(tiny_root: Path, odd: str):
    (tiny_root / "tiny02").rename(tiny_root / odd)
    assert odd in {sample.item for sample in survey(tiny_root).usable()}


def test_samples_are_pairs_with_their_label(tiny_root: Path):
    samples = find_samples(tiny_root)
    assert len(samples) == 24
    assert samples[0].name == "tiny01/Part0" and samples[0].item == "tiny01"
    assert {s.name for s in samples if s.is_defective} == {f"tiny0{n}/Part1" for n in range(1, 7)}
    assert read_image(samples[1]).shape == read_mask(samples[1]).shape == (160, 128)
    assert read_image(samples[1]).dtype == np.uint8
    assert read_image(samples[1])[read_mask(samples[1])].mean() < 60
    assert not read_mask(samples[0]).any()


@pytest.mark.fault(9)
def test_pairs_do_not_depend_on_the_order_of_the_directory(tiny_root: Path, monkeypatch):
    before = find_samples(tiny_root)
    listed = Path.iterdir

    def shuffled(folder: Path):
        return iter(random.sample(paths := list(listed(folder)), len(paths)))

    monkeypatch.setattr(Path, "iterdir", shuffled)
    assert find_samples(tiny_root) == before


@pytest.mark.fault(9)
def test_part1_is_not_part10(tiny_root: Path, make_surface):
    for number in (2, 10, 11):
        make_surface(tiny_root / "tiny01", f"Part{number}", [9, number], number == 10)
    (tiny_root / "tiny01" / "Part1_label.bmp").unlink()
    found = survey(tiny_root)
    names = [sample.name for sample in found.samples if sample.item == "tiny01"]
    assert names == [f"tiny01/Part{number}" for number in (0, 2, 3, 10, 11)]
    assert [one.name for one in found.unreadable] == ["tiny01/Part1"]


@pytest.mark.fault(12)
def test_any_names_work(tmp_path: Path, make_surface):
    names = ["Größe 3", "it's", "<img onerror=x>", "=cmd()", "a.b", "part_label_2"]
    for seed, name in enumerate(names):
        make_surface(tmp_path / "data" / "item é", "plain", [0, 0], False)
        image, label = "plain.jpg", "plain_label.bmp"
        folder = tmp_path / "data" / "item é"
        (folder / image).rename(folder / f"{name}.JPG")
        (folder / label).rename(folder / f"{name}_label.bmp")
        # A distinct byte behind the end mark keeps the copies from being dropped as identical.
        (folder / f"{name}.JPG").write_bytes((folder / f"{name}.JPG").read_bytes() + bytes([seed]))
    samples = find_samples(tmp_path / "data")
    assert {sample.name for sample in samples} == {f"item é/{name}" for name in names}


@pytest.mark.fault(7)
def test_a_missing_mask_is_loud_and_never_empty(tiny_root: Path):
    (tiny_root / "tiny02" / "Part1_label.bmp").unlink()
    with pytest.raises(DataError, match=r"tiny02/Part1.jpg has no mask tiny02/Part1_label.bmp"):
        find_samples(tiny_root)


@pytest.mark.fault(7)
def test_a_mask_of_another_size_is_loud_with_both_sizes(tiny_root: Path):
    cv2.imwrite(str(tiny_root / "tiny02" / "Part1_label.bmp"), np.zeros((160, 127), np.uint8))
    with pytest.raises(DataError, match="Part1.jpg is 160x128 but its mask .*bmp is 160x127"):
        find_samples(tiny_root)


def test_two_files_of_one_name_are_refused_not_chosen_from(tiny_root: Path):
    folder = tiny_root / "tiny02"
    shutil.copy(folder / "Part0_label.bmp", folder / "Part1_label.png")
    shutil.copy(folder / "Part0.jpg", folder / "Part3.png")
    reasons = {one.name: one.reason for one in survey(tiny_root).unreadable}
    assert "Part1_label.bmp and tiny02/Part1_label.png" in reasons["tiny02/Part1"]
    assert "Part3.jpg and tiny02/Part3.png" in reasons["tiny02/Part3"]


@pytest.mark.fault(11)
def test_unusable_files_are_listed_in_one_table_and_refused(tiny_root: Path):
    folder = tiny_root / "tiny03"
    (folder / "Part0.jpg").write_bytes((folder / "Part0.jpg").read_bytes()[:-400])
    (folder / "Part1.jpg").write_bytes(b"")
    (folder / "Part2.jpg").write_text("a text")
    cv2.imwrite(str(folder / "Part3.jpg"), np.zeros((1, 1), np.uint8))
    (folder / "Part4.png").write_bytes(huge_png(30_000))
    shutil.copy(folder / "Part0_label.bmp", folder / "Part4_label.bmp")
    found = survey(tiny_root)
    assert [one.name for one in found.unreadable] == [f"tiny03/Part{n}" for n in range(5)]
    assert "Part4.png is 30000x30000" in found.unreadable[4].reason
    assert len(found.samples) == 20
    with pytest.raises(DataError, match="5 of the images cannot be used.*tiny03/Part4.*inspect"):
        find_samples(tiny_root)


def test_an_identical_pair_in_an_item_is_dropped_and_named(tiny_root: Path):
    folder = tiny_root / "tiny04"
    for end in (".jpg", "_label.bmp"):
        shutil.copy(folder / f"Part1{end}", folder / f"Part9{end}")
    found = survey(tiny_root)
    assert found.duplicates == (Duplicate(dropped="tiny04/Part9", same_as="tiny04/Part1"),)
    assert len(found.samples) == 24


def test_the_same_image_with_another_mask_is_kept(tiny_root: Path):
    folder = tiny_root / "tiny04"
    shutil.copy(folder / "Part1.jpg", folder / "Part9.jpg")
    shutil.copy(folder / "Part0_label.bmp", folder / "Part9_label.bmp")
    assert len(find_samples(tiny_root)) == 25


def test_nested_folders_and_other_files_are_ignored_and_listed(tiny_root: Path):
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny01" / "tiny02")
    (tiny_root / "readme.txt").write_text("x")
    (tiny_root / "tiny01" / "Part7_label.bmp").write_bytes(b"x")
    (tiny_root / "tiny01" / ".DS_Store").write_bytes(b"x")
    found = survey(tiny_root)
    assert len(found.samples) == 24
    assert set(found.ignored) == {"readme.txt", "tiny01/tiny02/", "tiny01/Part7_label.bmp"}


@pytest.mark.fault(7)
@pytest.mark.parametrize("stray", ["Part1_label.jpg", "Part1_Label.png", "Part1-mask.tif"])
def test_what_was_meant_as_a_label_never_makes_a_defect_good(tiny_root: Path, stray: str):
    folder = tiny_root / "tiny01"
    shutil.move(folder / "Part1_label.bmp", folder / stray)
    [(name, reason)] = [(one.name, one.reason) for one in survey(tiny_root).unreadable]
    assert name == "tiny01/Part1" and reason.startswith(f"tiny01/{stray} looks like the label of")
    with pytest.raises(DataError, match="Nothing was written.*looks like the label"):
        missing_labels(tiny_root)
    cv2.imwrite(str(folder / "Part1_label.png"), np.zeros((160, 128), np.uint8))
    [(name, reason)] = [(one.name, one.reason) for one in survey(tiny_root).unreadable]
    assert name == "tiny01/Part1" and reason.endswith("Part1_label.png is all black")
    cv2.imwrite(str(folder / "Part1_label.png"), 255 * np.eye(160, 128, dtype=np.uint8))
    found = survey(tiny_root)
    assert not found.unreadable and f"tiny01/{stray}" in found.ignored


def test_an_absent_or_empty_root_says_what_is_expected(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        find_samples(tmp_path / "none")
    with pytest.raises(DataError, match="in it <name>.jpg beside <name>_label.png"):
        find_samples(tmp_path)


def test_a_file_gone_since_the_survey_is_a_data_error(tiny_root: Path):
    sample = find_samples(tiny_root)[0]
    sample.mask_path.unlink()
    with pytest.raises(DataError, match="tiny01/Part0_label.bmp cannot be read"):
        read_mask(sample)


def test_the_fingerprint_names_images_masks_and_names_but_not_the_place(tiny_root: Path, tmp_path):
    before = fingerprint(find_samples(tiny_root))
    shutil.copytree(tiny_root, tmp_path / "moved")
    assert fingerprint(find_samples(tmp_path / "moved")) == before
    assert fingerprint(reversed(find_samples(tiny_root))) == before

    mask = tiny_root / "tiny01" / "Part1_label.bmp"
    pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    mask.unlink()
    cv2.imwrite(str(mask.with_suffix(".png")), pixels // 255)
    assert fingerprint(find_samples(tiny_root)) == before, "the same booleans in another file"
    pixels[0, 0] = 255
    cv2.imwrite(str(mask.with_suffix(".png")), pixels)
    assert fingerprint(find_samples(tiny_root)) != before


def test_only_kolektor_is_kolektor(tiny_root: Path):
    assert not is_kolektor(find_samples(tiny_root))


@pytest.mark.fault(15)
def test_items_with_an_image_in_common_are_twins_transitively(tiny_root: Path):
    shutil.copy(tiny_root / "tiny01" / "Part0.jpg", tiny_root / "tiny05" / "Part2.jpg")
    shutil.copy(tiny_root / "tiny05" / "Part3.jpg", tiny_root / "tiny03" / "Part0.jpg")
    assert twin_items(find_samples(tiny_root)) == [{"tiny01", "tiny03", "tiny05"}]


@pytest.mark.fault(15)
def test_an_item_photographed_again_is_a_twin(tiny_root: Path):
    for part in range(4):
        source = tiny_root / "tiny02" / f"Part{part}.jpg"
        pixels = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
        again = np.roll(pixels, (2, -1), (0, 1))
        target = tiny_root / "tiny06" / f"Part{(part + 1) % 4}.jpg"
        cv2.imwrite(str(target), again, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert twin_items(find_samples(tiny_root)) == [{"tiny02", "tiny06"}]


@pytest.mark.fault(15)
def test_similar_pictures_of_different_parts_are_no_twins_where_files_must_be_identical(
    tiny_root: Path,
):
    similar = (tiny_root / "tiny01" / "Part0.jpg").read_bytes() + b"\0"
    (tiny_root / "tiny04" / "Part0.jpg").write_bytes(similar)
    shutil.copy(tiny_root / "tiny02" / "Part1.jpg", tiny_root / "tiny05" / "Part3.jpg")
    samples = find_samples(tiny_root)
    assert twin_items(samples) == [{"tiny01", "tiny04"}, {"tiny02", "tiny05"}]
    assert twin_items(samples, kind="identical") == [{"tiny02", "tiny05"}]


def test_twins_are_cached_by_fingerprint_and_work_without_a_cache(
    tiny_root: Path, tmp_path: Path, monkeypatch
):
    shutil.copy(tiny_root / "tiny01" / "Part0.jpg", tiny_root / "tiny03" / "Part0.jpg")
    samples = find_samples(tiny_root)
    blocked = tmp_path / "a file, no folder"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert twin_items(samples) == [{"tiny01", "tiny03"}]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    duplicates._known.clear()
    assert twin_items(samples) == [{"tiny01", "tiny03"}]
    duplicates._known.clear()
    monkeypatch.setattr(duplicates, "_correlation", None)  # would fail if called
    assert twin_items(samples) == [{"tiny01", "tiny03"}]


@pytest.mark.parametrize("name, value", [("TWIN_VERSION", 99), ("TWIN_CORRELATION", -2.0)])
def test_another_way_to_find_twins_does_not_read_old_answers(
    tiny_root: Path, monkeypatch, name: str, value: float
):
    samples = find_samples(tiny_root)
    assert twin_items(samples) == []
    everything_alike = np.ones((len(samples), len(samples)))
    monkeypatch.setattr(duplicates, "_correlation", lambda *_: everything_alike)
    duplicates._known.clear()
    assert twin_items(samples) == []
    monkeypatch.setattr(duplicates, name, value)
    duplicates._known.clear()
    assert twin_items(samples) == [{f"tiny0{n}" for n in range(1, 7)}]


@pytest.mark.slow
def test_kolektor_has_399_images_and_52_defective(kolektor_root: Path, kolektor_samples):
    assert len(kolektor_samples) == 399
    assert sum(sample.is_defective for sample in kolektor_samples) == 52
    assert len({sample.item for sample in kolektor_samples}) == 50
    assert survey(kolektor_root).duplicates == (
        Duplicate(dropped="kos21/Part7", same_as="kos21/Part6"),
    )
    assert is_kolektor(kolektor_samples)
    assert not is_kolektor(kolektor_samples[:-1])


@pytest.mark.slow
@pytest.mark.fault(8)
def test_kolektor_masks_are_read_through_their_palette(kolektor_samples):
    sample = next(one for one in kolektor_samples if one.name == "kos20/Part4")
    assert read_mask(sample).sum() == 3690


@pytest.mark.slow
def test_kolektor_stays_kolektor_when_its_images_are_stored_again(
    kolektor_root: Path, kolektor_samples, tmp_path: Path
):
    root = tmp_path / "stored again"
    shutil.copytree(kolektor_root, root)
    image = root / "kos05" / "Part3.jpg"
    cv2.imwrite(str(image), read_image(image), [cv2.IMWRITE_JPEG_QUALITY, 90])
    samples = find_samples(root)
    assert is_kolektor(samples)
    assert fingerprint(samples) != fingerprint(kolektor_samples)


@pytest.mark.slow
@pytest.mark.fault(15)
def test_kolektor_has_three_pairs_of_twins_with_a_wide_margin(kolektor_samples):
    pairs = [{"kos01", "kos26"}, {"kos27", "kos34"}, {"kos38", "kos39"}]
    assert twin_items(kolektor_samples) == pairs
    assert twin_items(kolektor_samples, kind="identical") == pairs[:2]
    alike = aligned_correlation([read_image(sample) for sample in kolektor_samples])
    items = [sample.item for sample in kolektor_samples]
    is_twin = np.array([[{a, b} in pairs for b in items] for a in items])
    assert alike[is_twin.any(1)].max(1, where=is_twin[is_twin.any(1)], initial=-1).min() > 0.8
    assert alike[~is_twin & ~np.eye(399, dtype=bool)].max() < 0.18


def test_each_file_is_decoded_once_for_samples_twins_folds_and_report(
    tiny_root: Path, decoded: Counter
):
    found = survey(tiny_root)
    samples = found.usable()
    assert not duplicates.twin_items(samples)
    make_folds("clean", samples)
    inspect_data(found, from_folder(tiny_root), Settings())
    assert len(decoded) == 48 and set(decoded.values()) == {1}


def test_known_files_are_not_decoded_and_give_the_same_samples(tiny_root: Path, decoded: Counter):
    first = survey(tiny_root)
    decoded.clear()
    again = survey(tiny_root, first.contents)
    assert not decoded
    assert again == first


def test_contents_of_before_the_levels_were_kept_are_known_too(tiny_root: Path, decoded: Counter):
    first = survey(tiny_root)
    older = [one.model_dump(exclude={"mask_levels", "defect_share"}) for one in first.contents]
    decoded.clear()
    again = survey(tiny_root, map(PairContent.model_validate, older))
    assert not decoded and {one.mask_levels for one in again.samples} == {""}
    report = inspect_data(again, from_folder(tiny_root), Settings())
    assert report.mask_levels == {} and not any("half" in line for line in report.advice)
    assert again.samples[0] == replace(first.samples[0], mask_levels="", defect_share=0.0)


def test_known_files_are_known_by_their_bytes_not_their_names(tiny_root: Path, decoded: Counter):
    first = survey(tiny_root)
    decoded.clear()
    for end in (".jpg", "_label.bmp"):
        shutil.move(tiny_root / "tiny01" / f"Part1{end}", tiny_root / "tiny02" / f"Part7{end}")
    again = survey(tiny_root, first.contents)
    assert not decoded
    assert fingerprint(again.samples) == fingerprint(survey(tiny_root).samples)


@pytest.mark.parametrize("edited", ["Part1.jpg", "Part1_label.bmp"])
def test_of_known_files_only_an_edited_one_is_decoded(
    tiny_root: Path, decoded: Counter, edited: str
):
    first = survey(tiny_root)
    path = tiny_root / "tiny03" / edited
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(path), 255 - pixels)
    decoded.clear()
    again = survey(tiny_root, first.contents)
    assert set(decoded) == {"tiny03/Part1.jpg", "tiny03/Part1_label.bmp"}
    assert fingerprint(again.samples) == fingerprint(survey(tiny_root).samples)
    assert fingerprint(again.samples) != fingerprint(first.samples)


@pytest.mark.fault(7)
def test_a_known_black_mask_beside_what_looks_like_a_label_is_doubted_too(tiny_root: Path):
    first = survey(tiny_root)
    cv2.imwrite(str(tiny_root / "tiny01" / "Part0-mask.png"), np.eye(160, 128))
    [(name, reason)] = [
        (one.name, one.reason) for one in survey(tiny_root, first.contents).unreadable
    ]
    assert name == "tiny01/Part0" and "Part0_label.bmp is all black" in reason


def test_twins_are_the_same_whether_the_images_are_at_hand_or_read_again(
    make_data_set, tmp_path: Path, monkeypatch
):
    root = make_data_set(tmp_path / "large", size=(700, 300))
    for part in range(4):
        pixels = cv2.imread(str(root / "tiny02" / f"Part{part}.jpg"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(root / "tiny06" / f"Part{part}.jpg"), np.roll(pixels, (4, -3), (0, 1))[8:])
        mask = cv2.imread(str(root / "tiny06" / f"Part{part}_label.bmp"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(root / "tiny06" / f"Part{part}_label.bmp"), mask[8:])
    correlate, seen = duplicates._correlation, []

    def noted(*given):
        seen.append(correlate(*given))
        return seen[-1]

    monkeypatch.setattr(duplicates, "_correlation", noted)
    first = survey(root)
    known = survey(root, first.contents)
    for samples in (first.samples, known.samples):
        monkeypatch.setattr(duplicates, "_known", {})
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{len(seen)}"))
        assert duplicates.twin_items(samples) == [{"tiny02", "tiny06"}]
    aligned_correlation([read_image(sample) for sample in first.samples])
    assert len(seen) == 3 and np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])
