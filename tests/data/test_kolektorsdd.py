"""What the package says of KolektorSDD is what the data set holds."""

import pytest

from ksdd_lib.data.dataset import read_image, read_mask
from ksdd_lib.data.duplicates import aligned_correlation
from ksdd_lib.data.kolektorsdd import kolektor_twins
from ksdd_lib.data.survey import find_samples


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
