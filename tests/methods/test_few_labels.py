"""What training takes from defective images, where it may know little of them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_data import data_record
from tiny_training import tiny_data, tiny_run

from ksdd_lib.data import folds
from ksdd_lib.data.dataset import fingerprint
from ksdd_lib.data.survey import find_samples
from ksdd_lib.errors import Interrupted, TrainingError
from ksdd_lib.methods.stage_training import load_stage, train_stage
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.training.loop import Progress

pytestmark = pytest.mark.usefixtures("narrow")

STEPS = {"segmentation_steps": 3, "decision_steps": 3, "copy_paste": 0.5}
STAGES = ("segmentation", "decision")
Weights = dict[str, dict[str, torch.Tensor]]


def trained(folder: Path, data: DataSet, **settings: Any) -> Weights:
    """The weights of both stages of fold 0, as labelled by the settings."""
    run = tiny_run(folder, **STEPS, **settings)
    chosen = run.settings
    parts = [folds.as_labelled(f, chosen.labels, chosen.masks, chosen.seed) for f in data.folds]
    seen = replace(data, folds=tuple(parts))
    for stage in STAGES:
        train_stage(run, seen, 0, stage)
    return {stage: load_stage(run, seen, 0, stage).state["weights"] for stage in STAGES}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def altered(root: Path, what: str) -> DataSet:
    """The tiny data, with other defective images, or other masks, than there were."""
    data = tiny_data(root)
    for sample in data.samples:
        if not sample.is_defective:
            continue
        if what == "images":
            cv2.imwrite(str(sample.image_path), np.full(sample.size, 128, np.uint8))
        mask = np.zeros(sample.size, np.uint8)
        mask[5:40, 5:40] = 255
        cv2.imwrite(str(sample.mask_path), mask)
    samples = {one.name: one for one in find_samples(root)}
    parts = tuple(
        replace(
            part,
            train=tuple(samples[one.name] for one in part.train),
            test=tuple(samples[one.name] for one in part.test),
        )
        for part in data.folds
    )
    record = data_record(fingerprint=fingerprint(samples.values()))
    return DataSet(root, tuple(samples.values()), parts, record)


@pytest.fixture(scope="module")
def places(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataSet]:
    made = tmp_path_factory.mktemp("data")
    found = {what: altered(made / what, what) for what in ("images", "masks")}
    return found | {"plain": tiny_data(made / "plain")}


@pytest.mark.fault(74)
def test_without_labels_no_defective_image_is_learned_from(
    places: dict[str, DataSet], tmp_path: Path
) -> None:
    one = trained(tmp_path / "plain", places["plain"], labels="none")
    two = trained(tmp_path / "images", places["images"], labels="none")
    assert all(same(one[stage], two[stage]) for stage in STAGES)
    full = trained(tmp_path / "all", places["images"])
    assert not same(two["segmentation"], full["segmentation"])


@pytest.mark.fault(74)
def test_without_masks_labels_alone_are_learned_from(
    places: dict[str, DataSet], tmp_path: Path
) -> None:
    one = trained(tmp_path / "plain", places["plain"], masks="none")
    two = trained(tmp_path / "masks", places["masks"], masks="none")
    assert all(same(one[stage], two[stage]) for stage in STAGES)
    other = trained(tmp_path / "images", places["images"], masks="none")
    assert same(one["segmentation"], other["segmentation"])  # it sees drawn defects alone
    assert not same(one["decision"], other["decision"])


def test_a_few_masks_are_drawn_by_the_seed_and_are_among_more(places: dict[str, DataSet]) -> None:
    samples = places["plain"].samples
    many = tuple(replace(one, name=f"{one.name}-{n}") for n in range(4) for one in samples)
    fold = folds.Fold(0, many, (), "clean", ())

    def masked(count: str, seed: int = 0) -> set[str]:
        train = folds.as_labelled(fold, "all", count, seed).train
        assert [one.is_defective for one in train] == [one.is_defective for one in many]
        return {one.name for one in train if one.is_defective and one.has_mask}

    defective = {one.name for one in many if one.is_defective}
    assert masked("5") < masked("8") < masked("all") == masked("given") == defective
    assert len(masked("5")) == 5 and masked("none") == set()
    assert masked("5") != masked("5", seed=1)


def test_training_without_a_good_surface_is_refused(
    places: dict[str, DataSet], tmp_path: Path
) -> None:
    data = places["plain"]
    part = data.folds[0]
    bad = replace(part, train=tuple(one for one in part.train if one.is_defective))
    run = tiny_run(tmp_path / "run", labels="none")
    with pytest.raises(TrainingError, match="0 defective images among 0"):
        train_stage(
            run,
            replace(data, folds=(folds.as_labelled(bad, "none", "all", 0), *data.folds[1:])),
            0,
            "segmentation",
        )


@pytest.mark.parametrize("chosen", [{"labels": "none"}, {"masks": "1"}, {"drawn": 0.5}])
def test_a_stopped_training_goes_on_with_the_same_drawn_defects(
    places: dict[str, DataSet], tmp_path: Path, chosen: dict[str, Any]
) -> None:
    data, steps = places["plain"], {"segmentation_steps": 6, "checkpoint_steps": 2}
    wanted = []
    for stop in (0, 3):
        run = tiny_run(tmp_path / str(stop), **STEPS | steps, **chosen)
        labels, masks = run.settings.labels, run.settings.masks
        parts = [folds.as_labelled(fold, labels, masks, 0) for fold in data.folds]
        seen = replace(data, folds=tuple(parts))

        def watch(progress: Progress, stop: int = stop) -> None:
            if progress.step == stop:
                raise Interrupted("stopped")

        with suppress(Interrupted):
            train_stage(run, seen, 0, "segmentation", watch)
        train_stage(run, seen, 0, "segmentation")
        wanted.append(load_stage(run, seen, 0, "segmentation").state["weights"])
    assert same(*wanted)
