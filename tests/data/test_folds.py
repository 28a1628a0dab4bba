"""Folds: by item, twins on one side, equal shares of defects, and nothing invalid gets through."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ksdd_lib import storage
from ksdd_lib.data import folds
from ksdd_lib.data.dataset import Sample
from ksdd_lib.data.duplicates import twin_items
from ksdd_lib.data.folds import (
    Fold,
    FoldsRecord,
    check_folds,
    clean_folds,
    count_leaks,
    folds_from_record,
    folds_record,
    leaked_samples,
    make_folds,
    with_few_defects,
)
from ksdd_lib.data.survey import find_samples
from ksdd_lib.errors import FoldError, RunError


@pytest.fixture
def samples(tiny_root: Path) -> list[Sample]:
    return find_samples(tiny_root)


@pytest.fixture
def twin_samples(tiny_root: Path) -> list[Sample]:
    """Seven items: tiny07 is tiny02 again, with one byte more in each file."""
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny07")
    for image in (tiny_root / "tiny07").glob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"\0")
    return find_samples(tiny_root)


def items(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.item for sample in samples}


def test_every_item_is_tested_once_and_never_trained_in_that_fold(samples):
    three = clean_folds(samples)
    assert [fold.number for fold in three] == [0, 1, 2]
    tested = [sample.name for fold in three for sample in fold.test]
    assert sorted(tested) == sorted(sample.name for sample in samples)
    for fold in three:
        assert not items(fold.train) & items(fold.test)
        assert len(fold.train) + len(fold.test) == len(samples)


def test_defective_images_are_shared_out_evenly(tiny_root: Path, make_surface):
    for part in range(4, 8):
        make_surface(tiny_root / "tiny03", f"Part{part}", [3, part], True)
    three = clean_folds(find_samples(tiny_root))
    # One item with five defective images, five with one: it stands alone, the others fill up.
    assert [sum(one.is_defective for one in fold.test) for fold in three] == [5, 3, 2]
    assert items(three[0].test) == {"tiny03"}


@pytest.mark.fault(36)
def test_twins_stay_together_and_none_is_left_out(twin_samples):
    three = clean_folds(twin_samples)
    assert sorted(one.name for fold in three for one in fold.test) == sorted(
        one.name for one in twin_samples
    )
    for side in [items(side) for fold in three for side in (fold.train, fold.test)]:
        assert ("tiny02" in side) == ("tiny07" in side)
    assert sum(count_leaks(fold) for fold in three) == 0
    assert len(three[0].train) + len(three[0].test) == 28


@pytest.mark.fault(36)
def test_many_twins_are_shared_out_by_their_group_with_all_their_images(mixed):
    """60 items of one picture each, in groups of six exposures."""
    samples = mixed([(1, 0)] * 36 + [(0, 1)] * 24)
    shots = [replace(one, image_sha256=f"part {number // 6}") for number, one in enumerate(samples)]
    three = clean_folds(shots, twins="identical")
    assert [len(fold.test) for fold in three] == [24, 18, 18]
    assert sum(len(items(fold.test)) for fold in three) == 60
    assert sum(count_leaks(fold) for fold in three) == 0


@pytest.fixture
def mixed() -> Callable[[Sequence[tuple[int, int]]], list[Sample]]:
    """Samples of items with so many (good, defective) images; no file is behind them."""

    def make(counts: Sequence[tuple[int, int]]) -> list[Sample]:
        return [
            Sample(
                name=f"item{item:03}/{part}",
                item=f"item{item:03}",
                image_path=Path(),
                mask_path=Path(),
                size=(160, 128),
                is_defective=part >= good,
                defect_width=0.0,
                image_sha256=f"{item} {part}",
                mask_file_sha256="",
                mask_sha256="",
            )
            for item, (good, defective) in enumerate(counts)
            for part in range(good + defective)
        ]

    return make


MIXES = {
    "single pictures": [(0, 1)] * 57 + [(1, 0)] * 124,
    "defects come last": [(1, 0)] * 124 + [(0, 1)] * 57,
    "items with both": [(6, 2)] * 5 + [(7, 1)] * 13,
    "all three kinds": [(6, 2)] * 5 + [(0, 3)] * 7 + [(8, 0)] * 11,
    "few defective": [(1, 1)] * 3 + [(4, 0)] * 20,
    "few good": [(0, 4)] * 20 + [(1, 0)] * 3,
    "few items": [(3, 1)] * 3 + [(4, 0)] * 4,
    "one giant of both": [(100, 10)] + [(2, 1)] * 8,
    "one giant of good": [(300, 0)] + [(5, 1)] * 12 + [(9, 0)] * 6,
    "one giant of defective": [(0, 60)] + [(5, 1)] * 12 + [(9, 0)] * 6,
    "of any size": [(n % 7, n % 4) for n in range(1, 27)],
}


def unevenness(counts: Sequence[tuple[int, int]], tests: Sequence[Collection[int]]) -> float:
    """How far the tests' shares of the good and of the defective images are from a third."""
    held = np.array([[counts[item] for item in sorted(test)] for test in map(list, tests)], object)
    shares = np.array([np.sum(rows, axis=0) for rows in held]) / np.sum(counts, axis=0)
    return float(((shares - 1 / 3) ** 2).sum())


@pytest.mark.fault(35)
@pytest.mark.parametrize("counts", MIXES.values(), ids=MIXES)
def test_good_and_defective_images_are_balanced_each_in_any_mix(mixed, counts):
    samples = mixed(counts)
    three = clean_folds(samples, twins="identical")
    for fold in three:
        assert {one.is_defective for one in fold.train} == {False, True}
        assert {one.is_defective for one in fold.test} == {False, True}
    names = [one.item for one in samples]
    labels = [one.is_defective for one in samples]
    reference = [
        {int(samples[index].item[4:]) for index in test}
        for _, test in StratifiedGroupKFold(3).split(names, labels, names)
    ]
    ours = [{int(item[4:]) for item in items(fold.test)} for fold in three]
    assert unevenness(counts, ours) <= unevenness(counts, reference) + 1e-9


@pytest.mark.fault(35)
def test_random_mixes_are_divided_as_evenly_as_by_scikit_learn(mixed):
    draw = random.Random(0)
    ours, theirs = 0.0, 0.0
    for _ in range(60):
        many = draw.randint(6, 40)
        counts = [(draw.randint(1, 8), draw.choice([0, 0, 1, 2, 3])) for _ in range(many)]
        counts += [(0, 1), (0, 2)]
        samples = mixed(counts)
        names = [one.item for one in samples]
        split = StratifiedGroupKFold(3).split(names, [one.is_defective for one in samples], names)
        theirs += unevenness(
            counts, [{int(samples[i].item[4:]) for i in test} for _, test in split]
        )
        dealt = folds._deal(counts)
        ours += unevenness(
            counts, [{i for i, place in enumerate(dealt) if place == fold} for fold in range(3)]
        )
    assert ours < theirs


@pytest.mark.fault(35)
def test_every_fold_of_good_only_and_defective_only_items_can_be_trained(mixed):
    three = clean_folds(mixed(MIXES["single pictures"]), twins="identical")
    assert [sum(one.is_defective for one in fold.test) for fold in three] == [19, 19, 19]
    assert sorted(len(fold.test) for fold in three) == [60, 60, 61]


@pytest.fixture
def fixture_samples(tiny_root: Path) -> list[Sample]:
    """Six items in one fixture: every picture looks like the first, and no file is another's."""
    first = {part: (tiny_root / "tiny01" / f"Part{part}.jpg").read_bytes() for part in range(4)}
    for item in range(2, 7):
        for part, data in first.items():
            (tiny_root / f"tiny0{item}" / f"Part{part}.jpg").write_bytes(data + b"\0" * item)
    return find_samples(tiny_root)


@pytest.mark.fault(15)
def test_parts_that_look_alike_are_refused_with_the_way_out(fixture_samples):
    hint = (
        "Only 1 different items for 3 folds: .* 6 of 6 items were taken for photographs of the "
        "same part, because their pictures resemble each other. If they are different parts, set "
        "twins to identical."
    )
    with pytest.raises(FoldError, match=hint):
        clean_folds(fixture_samples)
    three = make_folds("clean", fixture_samples, twins="identical")
    assert [len(fold.test) for fold in three] == [8, 8, 8]
    assert sum(count_leaks(fold) for fold in three) == 0
    assert folds_from_record(folds_record(three), fixture_samples, ()) == three
    with pytest.raises(FoldError, match="leaks"):
        folds_from_record(folds_record(three), fixture_samples, twin_items(fixture_samples))


@pytest.mark.fault(14)
def test_too_few_defects_for_each_fold_may_be_due_to_twins_too(tiny_root: Path):
    for item in (2, 3):
        for kind in ("1.jpg", "1_label.bmp"):
            shutil.copy(tiny_root / "tiny01" / f"Part{kind}", tiny_root / f"tiny0{item}")
        with (tiny_root / f"tiny0{item}" / "Part1.jpg").open("ab") as file:
            file.write(b"\0" * item)
    few = [s for s in find_samples(tiny_root) if not s.is_defective or s.item < "tiny04"]
    with pytest.raises(FoldError, match="no defective image in training.* 3 of 6 items were taken"):
        clean_folds(few)


@pytest.mark.fault(13)
def test_twins_are_not_blamed_where_the_same_files_or_too_few_items_are_the_reason(
    twin_samples, tiny_root: Path
):
    pair = [sample for sample in twin_samples if sample.item in ("tiny02", "tiny07")]
    with pytest.raises(FoldError, match="nor a twin of one. See docs.data.md#item.$"):
        clean_folds(pair)
    for item in range(2, 8):
        shutil.copytree(tiny_root / "tiny01", tiny_root / f"tiny0{item}", dirs_exist_ok=True)
    for twins in ("similar", "identical"):
        with pytest.raises(FoldError, match="nor a twin of one. See docs.data.md#item.$"):
            clean_folds(find_samples(tiny_root), twins=twins)


def test_a_seed_deals_the_same_folds_again_and_others_differ(samples):
    assert clean_folds(samples, seed=5) == clean_folds(samples, seed=5)
    deals = {folds_record(clean_folds(samples, seed)).model_dump_json() for seed in range(6)}
    assert len(deals) > 2


def test_another_partition_is_another_deal_and_the_official_folds_have_none(samples):
    assert make_folds("clean", samples, 5) == clean_folds(samples, seed=5)
    with pytest.raises(FoldError, match="official folds have no partition 5"):
        make_folds("official", samples, 5)


def test_few_defects_keep_every_good_image_and_are_nested(tiny_root: Path, make_surface):
    for part in range(4, 10):
        make_surface(tiny_root / "tiny03", f"Part{part}", [3, part], True)
    fold = next(f for f in clean_folds(find_samples(tiny_root)) if "tiny03" not in items(f.test))

    def drawn(count: int, seed: int) -> set[str]:
        few = with_few_defects(fold, count, seed)
        assert [s for s in few.train if not s.is_defective] == [
            s for s in fold.train if not s.is_defective
        ]
        assert few.test == fold.test
        return {sample.name for sample in few.train if sample.is_defective}

    assert [len(drawn(count, 0)) for count in (1, 3, 5)] == [1, 3, 5]
    assert drawn(1, 0) < drawn(3, 0) < drawn(5, 0)
    assert len({frozenset(drawn(3, seed)) for seed in range(6)}) > 1
    assert with_few_defects(fold, 1000, 0) == fold


@pytest.mark.fault(13)
def test_too_few_items_are_refused(samples):
    with pytest.raises(FoldError, match="Only 2 different items for 3 folds"):
        clean_folds([sample for sample in samples if sample.item in ("tiny01", "tiny02")])


@pytest.mark.fault(14)
def test_no_defective_image_in_training_is_refused(samples):
    good = [sample for sample in samples if not sample.is_defective]
    defective = next(sample for sample in samples if sample.is_defective)
    with pytest.raises(FoldError, match="Fold 0 has no defective image in training"):
        clean_folds([*good, defective])


@pytest.mark.fault(14)
def test_no_defective_image_in_test_is_allowed(samples):
    few = [one for one in samples if not one.is_defective or one.item in ("tiny01", "tiny02")]
    assert [sum(one.is_defective for one in fold.test) for fold in clean_folds(few)] == [1, 1, 0]


def test_official_folds_refuse_other_data(samples):
    with pytest.raises(FoldError, match='official folds belong to KolektorSDD.*choose.*"clean"'):
        make_folds("official", samples)


def test_unknown_protocol_is_refused(samples):
    with pytest.raises(FoldError, match='\'random\'.*"clean", "official" or "published"'):
        make_folds("random", samples)


def leaking(samples: list[Sample], protocol: str) -> Fold:
    test = ("tiny02", "tiny03")
    return Fold(
        0,
        tuple(sample for sample in samples if sample.item not in test),
        tuple(sample for sample in samples if sample.item in test),
        protocol,
        tuple(map(frozenset, twin_items(samples))),
    )


@pytest.mark.fault(15)
def test_twins_on_both_sides_are_refused_unless_official(twin_samples):
    fold = leaking(twin_samples, "mine")
    assert count_leaks(fold) == 4
    assert items(tuple(leaked_samples(fold))) == {"tiny02"}
    with pytest.raises(FoldError, match="Fold 0 leaks: tiny02 in test have a twin in training"):
        check_folds([fold])
    check_folds([leaking(twin_samples, "official")])


@pytest.mark.fault(13)
def test_an_empty_side_an_item_on_both_and_an_item_tested_twice_are_refused(samples):
    first, second, _ = clean_folds(samples)
    with pytest.raises(FoldError, match="Fold 0 has no test images"):
        check_folds([replace(first, test=())])
    with pytest.raises(FoldError, match="Fold 0 has no training images"):
        check_folds([replace(first, train=())])
    with pytest.raises(FoldError, match="Fold 0 has tiny01, tiny04 in training and in test"):
        check_folds([replace(first, train=first.train + first.test)])
    with pytest.raises(FoldError, match="Fold 1 tests tiny01, tiny04, as an earlier fold does"):
        check_folds([first, replace(first, number=1)])


def test_folds_come_back_from_their_record(samples):
    three = clean_folds(samples)
    stored = folds_record(three).model_dump_json()
    assert folds_from_record(storage.parse_record(stored, FoldsRecord, ""), samples, ()) == three


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("test_items", ["tiny99"], "Fold 0 names tiny99, which the data lacks"),
        ("test_items", [], "no test images"),
        ("train_items", ["tiny01", "tiny02"], "tiny01 in training and in test"),
        ("fold", 7, r"numbered \[7, 1, 2\]"),
        ("fold", "first", "folds.json is not as it was written: folds.0.fold"),
        ("test_items", 3, "folds.json is not as it was written: folds.0.test_items"),
    ],
)
@pytest.mark.fault(13)
def test_an_edited_record_is_refused(samples, field, change, message):
    stored = folds_record(clean_folds(samples)).model_dump(mode="json")
    stored["folds"][0][field] = change
    with pytest.raises((FoldError, RunError), match=message):
        record = storage.parse_record(json.dumps(stored), FoldsRecord, "folds.json")
        folds_from_record(record, samples, ())


@pytest.mark.fault(15)
def test_a_leaking_record_is_refused_even_if_it_calls_itself_official(twin_samples):
    record = folds_record(clean_folds(twin_samples))
    edited = tuple(
        row.model_copy(
            update={
                "train_items": (*row.train_items, "tiny07"),
                "test_items": tuple(item for item in row.test_items if item != "tiny07"),
            }
        )
        if "tiny02" in row.test_items
        else row
        for row in record.folds
    )
    twins = twin_items(twin_samples)
    with pytest.raises(FoldError, match="leaks: tiny02"):
        folds_from_record(record.model_copy(update={"folds": edited}), twin_samples, twins)
    official = record.model_copy(update={"folds": edited, "protocol": "official"})
    with pytest.raises(FoldError, match="official"):
        folds_from_record(official, twin_samples, twins)


@pytest.mark.slow
@pytest.mark.fault(15)
def test_kolektor_official_folds_leak_48_images_8_of_them_defective(kolektor_samples):
    three = make_folds("official", kolektor_samples)
    assert [len(items(fold.test)) for fold in three] == [17, 17, 16]
    assert [len(fold.test) for fold in three] == [135, 136, 128]
    assert [sum(one.is_defective for one in fold.test) for fold in three] == [18, 18, 16]
    assert [sum(one.is_defective for one in fold.train) for fold in three] == [34, 34, 36]
    assert sum(count_leaks(fold) for fold in three) == 48
    leaked = [sample for fold in three for sample in leaked_samples(fold)]
    assert sum(sample.is_defective for sample in leaked) == 8

    record = folds_record(three)
    assert make_folds("official", kolektor_samples, twins="identical") == three
    assert record == folds.kolektor_folds().official
    twins = twin_items(kolektor_samples)
    assert folds_from_record(record, kolektor_samples, twins) == three
    moved = record.model_dump(mode="json")
    moved["folds"][0]["train_items"].append(moved["folds"][0]["test_items"].pop())
    edited = storage.parse_record(json.dumps(moved), FoldsRecord, "folds.json")
    with pytest.raises(FoldError, match="not the published ones"):
        folds_from_record(edited, kolektor_samples, twins)
    with pytest.raises(FoldError, match="leaks"):
        folds_from_record(record.model_copy(update={"protocol": "clean"}), kolektor_samples, twins)


@pytest.mark.slow
def test_kolektor_clean_folds_are_the_stored_ones(kolektor_samples):
    three = clean_folds(kolektor_samples)
    tested = [sample for fold in three for sample in fold.test]
    assert len(items(tuple(tested))) == 47 and len(tested) == 375
    assert [sum(one.is_defective for one in fold.test) for fold in three] == [16, 16, 16]
    assert sum(count_leaks(fold) for fold in three) == 0
    assert folds_record(three) == folds.kolektor_folds().clean
    assert folds._share_out(tested, 0, twins=()) == folds.kolektor_folds().clean
    again = clean_folds(kolektor_samples, seed=3)
    assert {one.name for fold in again for one in fold.test} == {one.name for one in tested}
    digest = hashlib.sha256(folds_record(again).model_dump_json().encode()).hexdigest()
    assert digest.startswith("5b19adfae213f6d2"), "kept results were made on these folds"
    identical = clean_folds(kolektor_samples, twins="identical")
    assert len({sample.item for fold in identical for sample in fold.test}) == 50
