"""Three folds, each a split of the items into training and test, with twins never on both sides.

`clean` keeps the items of each group of twins together and is the default; of KolektorSDD it has
47 items, without the second of three pairs. `official` is KolektorSDD's published split of all 50
items; twins stand on both sides of it, which `count_leaks` counts.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ksdd_lib import storage
from ksdd_lib.data import kolektorsdd
from ksdd_lib.data.dataset import Sample, natural_key
from ksdd_lib.data.duplicates import twin_items
from ksdd_lib.data.layout_note import read_note
from ksdd_lib.errors import FoldError

FOLDS = 3


class FoldItems(storage.Record):
    """One fold as item names."""

    fold: int
    train_items: tuple[str, ...]
    test_items: tuple[str, ...]


class FoldsRecord(storage.Record):
    """The folds as item names: what folds.json holds."""

    protocol: str
    folds: tuple[FoldItems, ...]


class KolektorFolds(storage.Record):
    """KolektorSDD's published split, and its clean folds of partition 0, which never change."""

    official: FoldsRecord
    clean: FoldsRecord


Groups = Iterable[Collection[str]]  # of items that show one object


@dataclass(frozen=True)
class Fold:
    """One split of samples by item; `twins` are its `Groups`."""

    number: int
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    protocol: str
    twins: tuple[frozenset[str], ...]
    held: tuple[Sample, ...] = ()  # out of training, for the threshold


def make_folds(
    protocol: str,
    samples: Sequence[Sample],
    partition: int = 0,
    twins: str = "similar",
    needs_defects: bool = True,
) -> list[Fold]:
    """The checked folds of a protocol: three for "clean" and "official", one for "published".

    The official ones are KolektorSDD's, and always look for similar twins. The published one is
    what the data set itself calls train and test. `partition` is the seed of `clean_folds`, and
    `needs_defects` as of `check_folds`. FoldError where the data does not suit the protocol, or a
    fold is invalid.
    """
    if protocol == "clean":
        return clean_folds(samples, partition, twins, needs_defects)
    if protocol not in ("official", "published"):
        known = '"clean", "official" or "published"'
        raise FoldError(f"The folds {protocol!r} do not exist: choose {known}.")
    if partition:
        raise FoldError(
            f'The {protocol} folds have no partition {partition}: choose folds "clean".'
        )
    if protocol == "published":
        return _restored(_published(samples), samples, twin_items(samples, twins), needs_defects)
    if not kolektorsdd.is_kolektor(samples):
        others = f"KolektorSDD's 399 images, and these {len(samples)} are others"
        raise FoldError(f'The official folds belong to {others}: choose folds "clean".')
    return _restored(kolektor_folds().official, samples, twin_items(samples))


def clean_folds(
    samples: Sequence[Sample], seed: int = 0, twins: str = "similar", needs_defects: bool = True
) -> list[Fold]:
    """Folds by item, twins together, with equal shares of defective and of good images.

    `seed` orders items with equally many defective images; 0 keeps their names' order. `twins` are
    the "similar" items or only the "identical" ones. KolektorSDD without similar ones has 47 items
    and 375 images, 16 defective in each fold, as it was published. FoldError where fewer than three
    items differ, or fewer than two have defective images.
    """
    groups = twin_items(samples, twins)
    try:
        if twins == "similar" and kolektorsdd.is_kolektor(samples):
            record = kolektor_folds().clean
            if seed:
                kept = {item for row in record.folds for item in row.test_items}
                record = _share_out([one for one in samples if one.item in kept], seed, ())
        else:
            record = _share_out(samples, seed, groups)
        return _restored(record, samples, groups, needs_defects)
    except FoldError as error:
        if twins == "identical":
            raise
        try:
            clean_folds(samples, seed, "identical", needs_defects)
        except FoldError:
            raise error from None
        raise FoldError(
            f"{error} {sum(map(len, groups))} of {len(_items(samples))} items were taken for"
            " photographs of the same part, because their pictures resemble each other. If they"
            " are different parts, set twins to identical.",
            see="protocols#twins",
        ) from None


def with_few_defects(fold: Fold, count: int, seed: int) -> Fold:
    """The fold with at most `count` defective training images; those of fewer are among them."""
    names = [sample.name for sample in fold.train if sample.is_defective]
    random.Random(f"{seed}, fold {fold.number}").shuffle(names)
    left_out = set(names[count:])
    return replace(fold, train=tuple(s for s in fold.train if s.name not in left_out))


def with_held_out(fold: Fold, share: float, seed: int) -> Fold:
    """The fold with this share of its defective and good training images, or more, in `held`.

    Parts are held out whole, together with their twins. FoldError where training or `held` would be
    left without one kind.
    """
    together = {item: group for group in fold.twins for item in group}
    groups = [together.get(item, frozenset((item,))) for item in _sorted(_items(fold.train))]
    groups = list(dict.fromkeys(groups))
    random.Random(f"{seed}, held out of fold {fold.number}").shuffle(groups)
    shown = Counter((one.item, one.is_defective) for one in fold.train)
    held: set[str] = set()
    for kind in (True, False):  # those with defects bring their good images along
        wanted = share * sum(one.is_defective == kind for one in fold.train)
        for group in groups:
            has_defects = any(shown[item, True] for item in group)
            if sum(shown[item, kind] for item in held) < wanted and has_defects == kind:
                held |= group
    parts = [tuple(s for s in fold.train if (s.item in held) == side) for side in (False, True)]
    kinds = [{one.is_defective for one in part} for part in (fold.train, *parts)]
    if any(found != kinds[0] for found in kinds):
        raise FoldError(
            f"Holding {share:.0%} of the training parts of fold {fold.number} out leaves no good or"
            " no defective image on one side: take a smaller held_out, or 0."
        )
    return replace(fold, train=parts[0], held=parts[1])


def as_labelled(fold: Fold, labels: str, masks: str, seed: int) -> Fold:
    """The fold with what training may know of its defective images, by the settings.

    Without labels there are none in training. Of `masks` those of fewer are among them.
    """
    train = fold.train
    if labels == "none":
        good, held = (tuple(x for x in side if not x.is_defective) for side in (train, fold.held))
        return replace(fold, train=good, held=held)
    if masks in ("all", "given"):
        return fold
    names = [one.name for one in train if one.is_defective and one.has_mask]
    random.Random(f"{seed}, masks of fold {fold.number}").shuffle(names)
    hidden = set(names[0 if masks == "none" else int(masks) :])
    return replace(
        fold,
        train=tuple(replace(one, has_mask=False) if one.name in hidden else one for one in train),
    )


def check_folds(folds: Sequence[Fold], needs_defects: bool = True) -> None:
    """Raise FoldError for folds that cannot be trained or that would flatter the result.

    Training needs defective images, unless it learns from good ones alone.
    """
    tested: set[str] = set()
    for fold in folds:
        name, train, test = f"Fold {fold.number}", _items(fold.train), _items(fold.test)
        if not (train and test):
            side = "test" if train else "training"
            raise FoldError(f"{name} has no {side} images: give it at least one item.")
        if train & test:
            both = _listed(train & test)
            raise FoldError(f"{name} has {both} in training and in test: keep each on one side.")
        if tested & test:
            raise FoldError(f"{name} tests {_listed(tested & test)}, as an earlier fold does.")
        if needs_defects and not any(sample.is_defective for sample in fold.train):
            advice = (
                "add defective items, at least two in the whole data set, or set labels to none to "
                "learn from good images alone"
            )
            raise FoldError(f"{name} has no defective image in training: {advice}.")
        leaked = _items(leaked_samples(fold))
        if leaked and fold.protocol not in ("official", "published"):
            raise FoldError(
                f"{name} leaks: {_listed(leaked)} in test have a twin in training (the same object"
                ' photographed again). Use folds "clean", which keep twins together.',
                see="protocols#twins",
            )
        tested |= test


def leaked_samples(fold: Fold) -> list[Sample]:
    """The test samples whose item has a twin in training."""
    train = _items(fold.train)
    leaking = {item for group in fold.twins if group & train for item in group}
    return [sample for sample in fold.test if sample.item in leaking]


def count_leaks(fold: Fold) -> int:
    """How many test images have a twin of their item in training: 48 over the official folds."""
    return len(leaked_samples(fold))


def folds_record(folds: Sequence[Fold]) -> FoldsRecord:
    """The folds as item names, to be stored beside every result."""
    return _record(folds[0].protocol, [(_items(fold.train), _items(fold.test)) for fold in folds])


def folds_from_record(
    record: FoldsRecord, samples: Sequence[Sample], twins: Groups, needs_defects: bool = True
) -> list[Fold]:
    """The checked folds of a stored record; FoldError where it does not fit or was edited."""
    folds = _restored(record, samples, twins, needs_defects)
    is_official = kolektorsdd.is_kolektor(samples) and record == kolektor_folds().official
    if record.protocol == "official" and not is_official:
        advice = 'use folds "official" or "clean" and start a new run'
        raise FoldError(
            f"These folds are called official but are not the published ones: {advice}."
        )
    return folds


def kolektor_folds() -> KolektorFolds:
    """The folds of KolektorSDD that come with this package."""
    return storage.read_record(kolektorsdd.FOLDS, KolektorFolds)


def _published(samples: Sequence[Sample]) -> FoldsRecord:
    """The split that came with the data set; FoldError where none did."""
    note = read_note(samples[0].image_path.parents[1]) if samples else None
    sides: dict[str, set[str]] = {"train": set(), "test": set(), "": set()}
    for one in samples:
        sides[note.sides.get(one.name, "") if note else ""].add(one.item)
    if not (sides["train"] and sides["test"]):
        raise FoldError('This data set brings no split into train and test: choose folds "clean".')
    return _record("published", [(sides["train"], sides["test"])])


def _restored(
    record: FoldsRecord, samples: Sequence[Sample], twins: Groups, needs_defects: bool = True
) -> list[Fold]:
    """The checked folds of a record."""
    wanted = [0] if record.protocol == "published" else list(range(FOLDS))
    if (numbers := [row.fold for row in record.folds]) != wanted:
        raise FoldError(f"The stored folds are numbered {numbers}, not {str(wanted)[1:-1]}.")
    groups = tuple(map(frozenset, twins))
    folds = []
    for row in record.folds:
        if unknown := {*row.train_items, *row.test_items} - _items(samples):
            raise FoldError(
                f"Fold {row.fold} names {_listed(unknown)}, which the data lacks: use the data set"
                " that the folds were made for, or start a new run."
            )
        train = tuple(one for one in samples if one.item in row.train_items)
        test = tuple(one for one in samples if one.item in row.test_items)
        folds.append(Fold(row.fold, train, test, record.protocol, groups))
    check_folds(folds, needs_defects)
    return folds


def _share_out(samples: Sequence[Sample], seed: int, twins: Groups) -> FoldsRecord:
    """The record of clean folds, as `clean_folds` describes them."""
    items = _sorted(_items(samples))
    together = {item: _sorted(group) for group in twins for item in group}
    groups = list(dict.fromkeys(together.get(item, (item,)) for item in items))
    if len(groups) < FOLDS:
        raise FoldError(
            f"Only {len(groups)} different items for {FOLDS} folds: every fold needs one that is"
            " neither in another fold nor a twin of one.",
            see="data#item",
        )
    if seed:
        random.Random(seed).shuffle(groups)
    images = Counter((sample.item, sample.is_defective) for sample in samples)
    counts = [
        tuple(sum(images[item, kind] for item in group) for kind in (False, True))
        for group in groups
    ]
    tests: list[set[str]] = [set() for _ in range(FOLDS)]
    for group, fold in zip(groups, _deal(counts), strict=True):
        tests[fold].update(group)
    return _record("clean", [(set(items) - test, test) for test in tests])


def _deal(counts: Sequence[tuple[int, ...]]) -> list[int]:
    """The fold of each group, by its numbers of (good, defective) images.

    The groups with most defective images come first. Each goes where the shares of good and of
    defective images become the least uneven, and may move once when all the others are placed.
    """
    images = np.array(counts, object)  # whole numbers of any size: equal folds are equal
    weights = np.maximum(images.sum(0), 1)[::-1] ** 2
    loads = np.zeros((FOLDS, 2), object)
    places = [-1] * len(counts)
    first = sorted(
        range(len(counts)), key=lambda i: (-counts[i][1], not counts[i][1] and -counts[i][0])
    )
    for group in 2 * first:
        if (before := places[group]) >= 0:
            loads[before] -= images[group]
        uneven, size = (loads * images[group]) @ weights, loads**2 @ weights
        choices = ((uneven[fold], size[fold], fold != before, fold) for fold in range(FOLDS))
        places[group] = min(choices)[-1]
        loads[places[group]] += images[group]
    return places


def _record(protocol: str, sides: Iterable[tuple[set[str], set[str]]]) -> FoldsRecord:
    """The record of folds by the items of their training and test sides."""
    rows = (
        FoldItems(fold=number, train_items=_sorted(train), test_items=_sorted(test))
        for number, (train, test) in enumerate(sides)
    )
    return FoldsRecord(protocol=protocol, folds=tuple(rows))


def _items(samples: Iterable[Sample]) -> set[str]:
    return {sample.item for sample in samples}


def _sorted(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(items, key=natural_key))


def _listed(items: Iterable[str]) -> str:
    return ", ".join(_sorted(items))
