"""A survey decodes each file once, and not at all where it knows the files by their bytes."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ksdd_lib.data import duplicates
from ksdd_lib.data.dataset import fingerprint, read_image
from ksdd_lib.data.folds import make_folds
from ksdd_lib.data.inspection import inspect_data
from ksdd_lib.data.sources import from_folder
from ksdd_lib.data.survey import survey
from ksdd_lib.settings import Settings


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
    duplicates.aligned_correlation([read_image(sample) for sample in first.samples])
    assert len(seen) == 3 and np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])
