"""Both stages learn, stop and go on exactly, and never mix with another training."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from small_data import data_record
from tiny_training import TINY, tiny_data, tiny_run

from ksdd_lib import hardware, presets, storage
from ksdd_lib.data import synthetic
from ksdd_lib.data.dataset import fingerprint
from ksdd_lib.data.folds import Fold, make_folds
from ksdd_lib.data.survey import find_samples
from ksdd_lib.errors import CheckpointError, RunError, TrainingError
from ksdd_lib.evaluation.metrics import average_precision
from ksdd_lib.evaluation.scoring import score_images
from ksdd_lib.methods import stage_training
from ksdd_lib.methods import two_stage as method
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.stage_training import load_stage, train_stage, trained_judge
from ksdd_lib.methods.two_stage import (
    FrozenFeatures,
    TwoStage,
    TwoStageJudge,
    trained_segmentation,
    untrained_segmentation,
)
from ksdd_lib.models import two_stage
from ksdd_lib.models.two_stage import DecisionNet, SegmentationNet, TwoStageNet, initialize
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.training import checkpoint, loop, targets
from ksdd_lib.training.batches import Shown, load_surfaces
from ksdd_lib.training.loop import Progress, learning_rate, read_history

PROGRAM = Path(__file__).resolve().parents[1] / "tiny_training.py"
REPOSITORY = PROGRAM.parent.parent
DECISION = TwoStage().stages[1]


pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def data(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


SIDES = "train", "test"


class Trained:
    """A run with both stages finished, and what was seen on the way."""

    settings = {
        "segmentation_steps": 8,
        "segmentation_optimizer": "sgd",
        "segmentation_learning_rate": 0.5,
        "segmentation_schedule": "constant",
        "decision_steps": 24,
        "decision_learning_rate": 0.01,
        "decision_schedule": "constant",
        "checkpoint_steps": 5,
        "weight_averaging": True,
    }

    def __init__(self, folder: Path, data: DataSet) -> None:
        self.run, self.progress = tiny_run(folder, **self.settings), []
        assert train_stage(self.run, data, 0, "segmentation", self.progress.append)
        first = load_stage(self.run, data, 0, "segmentation")
        self.first_stage = {name: w.clone() for name, w in first.state["weights"].items()}
        kept: list[method.FrozenFeatures] = []

        class Remembered(method.FrozenFeatures):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                kept.append(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(method, "FrozenFeatures", Remembered)
            assert train_stage(self.run, data, 0, "decision", self.progress.append)
        self.first_stage_after = kept[0].segmentation.state_dict()


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained") / "run", data)


@pytest.fixture
def first_stage_only(trained: Trained, tmp_path: Path) -> Run:
    """A run whose first stage is the trained one and whose second has not begun."""
    run = tiny_run(tmp_path / "run", **trained.settings)
    run.fold_folder(0).mkdir()
    for path in trained.run.fold_folder(0).glob("segmentation*"):
        shutil.copy(path, run.fold_folder(0))
    return run


@pytest.mark.parametrize(("free", "kept"), [(1e9, 2), (1.2, 2), (1.0, 1), (0.0, 0)])
def test_no_more_features_are_kept_than_half_of_the_free_memory_holds(
    data: DataSet, monkeypatch: pytest.MonkeyPatch, free: float, kept: int
) -> None:
    """At 128x128 those of an image take 1025 x 8 x 8 x 4 bytes, 0.26 MB."""
    monkeypatch.setattr(two_stage, "FEATURES", 1024)
    monkeypatch.setattr(method, "free_megabytes", lambda where: free)
    surfaces = load_surfaces(data.samples[:2], (128, 128), "fine")
    features = FrozenFeatures(SegmentationNet(), surfaces, Settings(precision="float32"))
    first = [features(Shown(row))[0] for row in (0, 1)]
    again = [features(Shown(row))[0] for row in (0, 1)]
    assert sum(a is b for a, b in zip(first, again, strict=True)) == kept == len(features.kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def adjusted(run: Run, **settings: Any) -> Run:
    """The same folder under settings that its trained first stage does not depend on."""
    return Run(run.folder, replace(run.settings, **settings))


def weights(run: Run, data: DataSet, stage: str, which: str = "weights") -> dict[str, torch.Tensor]:
    return load_stage(run, data, 0, stage).state[which]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


def history(run: Run, stage: str) -> list[dict[str, float]]:
    """The rows of a history without the time, which no two trainings share."""
    rows = read_history(run.fold_folder(0) / f"{stage}.jsonl")
    return [{name: row[name] for name in ("step", "loss", "lr")} for row in rows]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


# The four groups of the study: annotation, loss, size, rotation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("annotation", "loss", "size", "rotation"),
    [
        ("fine", "cross_entropy", "128x128", False),
        ("dilated5", "mean_squared_error", "128x144", False),
        ("dilated9", "cross_entropy", "144x128", False),
        ("dilated13", "mean_squared_error", "144x128", True),
        ("dilated17", "cross_entropy", "128x144", True),
        ("box", "mean_squared_error", "128x128", True),
    ],
)
def test_every_group_of_the_study_trains_both_stages(
    data: DataSet, tmp_path: Path, annotation: str, loss: str, size: str, rotation: bool
) -> None:
    run = tiny_run(
        tmp_path / "run",
        annotation=annotation,
        segmentation_loss=loss,
        image_size=size,
        rotation=rotation,
        segmentation_steps=2,
        decision_steps=2,
    )
    assert train_stage(run, data, 0, "segmentation") and train_stage(run, data, 0, "decision")
    for stage, network in (("segmentation", SegmentationNet()), ("decision", DecisionNet())):
        assert [row["step"] for row in history(run, stage)] == [1, 2]
        assert all(0 < row["loss"] < 10 for row in history(run, stage))
        initialize(network, run.settings.initialization, run.settings.seed)
        learned = weights(run, data, stage)
        moved = {name for name, w in network.state_dict().items() if not w.equal(learned[name])}
        assert moved == set(learned)
    height, width = run.settings.size
    surface = torch.rand(1, 1, height, width, device=hardware.device())
    mask_logits, score = trained_judge(run, data, 0).model(surface)
    assert mask_logits.shape == (1, 1, height // 8, width // 8) and score.isfinite().all()


def test_the_second_stage_is_shown_pasted_defects_only_where_set_so(data: DataSet) -> None:
    def pasted(stage: str, **chosen: bool) -> int:
        settings = presets.resolve(TINY | {"copy_paste": 0.5} | chosen)
        plan = next(plan for plan in method_of(settings).stages if plan.name == stage)
        _, order = stage_training._training_part(data.folds[0], settings, plan, torch.device("cpu"))
        return sum(shown.pasted is not None for step in range(40) for shown in order.shown(step))

    assert pasted("decision") > 0
    assert pasted("decision", decision_copy_paste=False) == 0
    assert pasted("segmentation", decision_copy_paste=False) == pasted("segmentation") > 0


# Learning


@pytest.mark.fault(71)
@pytest.mark.fault(18)
def test_a_training_in_tiles_goes_on_exactly(data: DataSet, tmp_path: Path) -> None:
    """Each surface is a piece of one twice as large."""
    root = tmp_path / "large"
    for sample in data.samples:
        place = root / sample.item / sample.image_path.name
        place.parent.mkdir(exist_ok=True, parents=True)
        for path in (sample.image_path, sample.mask_path):
            pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            larger = cv2.resize(pixels, (256, 224), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(place.parent / path.name), larger)
    samples = find_samples(root)
    part = {sample.name: sample for sample in samples}
    sides = {name: tuple(part[s.name] for s in getattr(data.folds[0], name)) for name in SIDES}
    large = replace(data, samples=tuple(samples), folds=(replace(data.folds[0], **sides),))
    chosen = {"tile_size": "128", "segmentation_steps": 4, "decision_steps": 4, "copy_paste": 0.5}
    runs = [tiny_run(tmp_path / name / "run", **chosen) for name in ("straight", "stopped")]
    for stage in ("segmentation", "decision"):
        stopped_after_one(stage, runs[1], large)
        for run in runs:
            assert train_stage(run, large, 0, stage)
        assert same(*(weights(run, large, stage) for run in runs))
        assert history(runs[0], stage) == history(runs[1], stage)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", ["704x256", "1408x512"])
def test_both_sizes_of_the_study_train_both_stages(
    data: DataSet, tmp_path: Path, image_size: str
) -> None:
    run = tiny_run(tmp_path / "run", image_size=image_size, segmentation_steps=2, decision_steps=2)
    assert train_stage(run, data, 0, "segmentation") and train_stage(run, data, 0, "decision")
    assert history(run, "decision")[-1]["step"] == 2


def test_the_loss_falls_in_both_stages(trained: Trained) -> None:
    for stage in ("segmentation", "decision"):
        losses = [row["loss"] for row in history(trained.run, stage)]
        assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_history_has_step_loss_rate_and_time(trained: Trained) -> None:
    rows = read_history(trained.run.fold_folder(0) / "segmentation.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(set(row) == {"step", "loss", "lr", "seconds"} for row in rows)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[-1] > 0


def test_a_live_display_is_told_of_every_row(trained: Trained) -> None:
    told = [(one.stage, one.step, one.steps) for one in trained.progress]
    assert told[:2] == [("segmentation", 1, 8), ("segmentation", 2, 8)]
    assert told[-1] == ("decision", 24, 24) and len(told) == 32
    assert trained.progress[-1].history[-1]["step"] == 24


def test_the_second_stage_leaves_the_first_as_it_was(trained: Trained, data: DataSet) -> None:
    assert same(trained.first_stage_after, trained.first_stage)
    assert same(weights(trained.run, data, "segmentation"), trained.first_stage)
    judging = trained_judge(trained.run, data, 0).model
    assert same(judging.segmentation.state_dict(), trained.first_stage)


def test_averaged_weights_judge_where_set_so(trained: Trained, data: DataSet) -> None:
    judging = trained_judge(trained.run, data, 0).model.decision.state_dict()
    assert same(judging, weights(trained.run, data, "decision", "average"))
    assert not same(judging, weights(trained.run, data, "decision"))
    first = trained_segmentation(load_stage(trained.run, data, 0, "segmentation")).state_dict()
    assert same(first, weights(trained.run, data, "segmentation", "average"))


def test_the_average_follows_the_published_decay(first_stage_only: Run, data: DataSet) -> None:
    run = adjusted(first_stage_only, decision_steps=14, checkpoint_steps=1)
    seen: list[dict[str, torch.Tensor]] = []

    def collect() -> None:
        newest = max(run.fold_folder(0).glob("decision-*.pt"))
        seen.append(torch.load(newest, map_location="cpu", weights_only=True)["weights"])

    train_stage(run, data, 0, "decision", saved=collect)
    assert len(seen) == 14
    model = DecisionNet()
    initialize(model, run.settings.initialization, run.settings.seed)
    expected = model.state_dict()
    for n, step in enumerate(seen):
        decay = min(0.9999, (1 + n) / (10 + n))
        expected = {name: decay * expected[name] + (1 - decay) * step[name] for name in expected}
    average = weights(run, data, "decision", "average")
    for name in expected:
        assert torch.allclose(average[name], expected[name], atol=1e-6)
    assert not same(average, seen[-1])


def test_the_published_learning_rate_is_constant() -> None:
    assert {learning_rate(0.1, "constant", step, 50) for step in range(50)} == {0.1}


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing() -> None:
    rates = [learning_rate(1.0, "one_cycle", step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.04) and max(rates) == rates[30] == pytest.approx(1.0)
    assert rates[:31] == sorted(rates[:31]) and rates[30:] == sorted(rates[30:], reverse=True)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_is_defined_for_the_shortest_training(steps: int) -> None:
    assert all(0 < learning_rate(1.0, "one_cycle", step, steps) <= 1 for step in range(steps))


def test_only_cross_entropy_begins_with_an_expected_share_of_defects() -> None:
    recipe = {"expected_defect_share": 0.02}
    expecting = untrained_segmentation(Settings(**recipe))
    assert torch.sigmoid(expecting.mask_norm.shift).item() == pytest.approx(0.02)
    squared = untrained_segmentation(Settings(segmentation_loss="mean_squared_error", **recipe))
    assert squared.mask_norm.shift.item() == 0


# Stopping and going on


@pytest.mark.fault(20)
def test_a_finished_stage_is_not_trained_again(trained: Trained, data: DataSet) -> None:
    before = files(trained.run.folder)
    assert train_stage(trained.run, data, 0, "segmentation") is False
    assert train_stage(trained.run, data, 0, "decision") is False
    assert files(trained.run.folder) == before


def test_a_finished_state_that_was_not_marked_so_is_marked_and_not_written_again(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill after the last save leaves it: writing it anew could only lose it."""
    run = first_stage_only
    (run.fold_folder(0) / "segmentation.done.json").unlink()
    monkeypatch.setattr(checkpoint, "save", pytest.fail)
    assert train_stage(run, data, 0, "segmentation") is True
    assert run.has("segmentation", 0)


@pytest.mark.fault(18)
@pytest.mark.fault(20)
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on_exactly(
    trained: Trained, first_stage_only: Run, data: DataSet, told: signal.Signals
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step in (3, 9):
            os.kill(os.getpid(), told)

    for step in (3, 9):  # between checkpoints, which come every 5 steps
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step}; run again"):
            train_stage(first_stage_only, data, 0, "decision", stop)
        assert checkpoint.newest_whole(first_stage_only.fold_folder(0), "decision")[0] == step
        assert not (first_stage_only.folder / "owner.json").exists()
    assert train_stage(first_stage_only, data, 0, "decision")
    for which in ("weights", "average"):
        resumed = weights(first_stage_only, data, "decision", which)
        assert same(resumed, weights(trained.run, data, "decision", which))
    assert history(first_stage_only, "decision") == history(trained.run, "decision")
    steps = [row["step"] for row in history(first_stage_only, "decision")]
    assert steps == list(range(1, 25)), "no row comes twice"


def test_gradient_scaling_goes_on_where_it_was(
    first_stage_only: Run, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with float16 on a T4: its scale grows every two steps here, and begins low."""
    scalers: list[torch.amp.GradScaler] = []
    low = functools.partial(torch.amp.GradScaler, "cpu", init_scale=8.0, growth_interval=2)
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *_, enabled: scalers.append(low()) or scalers[-1]
    )
    alone = adjusted(first_stage_only, decision_steps=7)
    run = Run(shutil.copytree(alone.folder, tmp_path / "stopped"), alone.settings)
    assert train_stage(alone, data, 0, "decision")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
        train_stage(run, data, 0, "decision", stop)
    path = run.fold_folder(0) / "decision-000003.pt"
    stored = torch.load(path, weights_only=True)["scaler"]
    assert (stored["scale"], stored["_growth_tracker"]) == (16.0, 1)
    assert train_stage(run, data, 0, "decision")
    assert scalers[0].state_dict() == scalers[2].state_dict()
    assert scalers[0].get_scale() == 64.0
    assert same(weights(run, data, "decision"), weights(alone, data, "decision"))


def test_a_stop_in_the_last_step_ends_the_series_too(first_stage_only: Run, data: DataSet) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == progress.steps:
            os.kill(os.getpid(), signal.SIGTERM)

    run = adjusted(first_stage_only, decision_steps=2)
    with pytest.raises(KeyboardInterrupt, match="after the last step"):
        train_stage(run, data, 0, "decision", stop)
    assert train_stage(run, data, 0, "decision") and not train_stage(run, data, 0, "decision")


@pytest.mark.parametrize("changed", [{}, {"decision_optimizer": "adamw"}], ids=["", "not fused"])
def test_a_stage_begun_without_gradient_scaling_goes_on_with_it(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    """As when a runtime with a CPU is lost and the next one has a T4."""

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run = adjusted(first_stage_only, decision_steps=3, **changed)
    with monkeypatch.context() as earlier, pytest.raises(KeyboardInterrupt):
        if changed:  # as this module made it before optimisers were fused
            adamw = functools.partial(torch.optim.AdamW, lr=1e-3)
            earlier.setattr(loop, "make_optimizer", lambda s: adamw(s.model.parameters()))
        train_stage(run, data, 0, "decision", stop)
    scaler = functools.partial(torch.amp.GradScaler, "cpu", init_scale=2.0)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, enabled: scaler(enabled=True))
    assert train_stage(run, data, 0, "decision")


@pytest.mark.fault(24)
def test_a_history_cut_by_a_full_disk_loses_only_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "segmentation.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert read_history(path) == [{"step": 1, "loss": 0.5}]


@pytest.mark.fault(17)
def test_a_full_gpu_is_one_clear_sentence(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stage_training, "load_surfaces", full)
    with pytest.raises(TrainingError, match="too small .* at 128x128 .* is intact"):
        train_stage(first_stage_only, data, 0, "decision")


def test_the_signal_handlers_of_the_caller_come_back(
    trained: Trained, first_stage_only: Run, data: DataSet
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train_stage(adjusted(first_stage_only, decision_steps=1), data, 0, "decision")
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.fault(20)
def test_killed_before_the_mark_of_the_end_it_only_makes_the_mark(
    trained: Trained, first_stage_only: Run, data: DataSet
) -> None:
    done = first_stage_only.fold_folder(0) / "segmentation.done.json"
    before = checkpoint_hash(first_stage_only, data)
    done.unlink()
    assert train_stage(first_stage_only, data, 0, "segmentation")
    assert done.exists() and checkpoint_hash(first_stage_only, data) == before
    assert history(first_stage_only, "segmentation") == history(trained.run, "segmentation")


def test_the_mark_of_the_end_is_the_last_that_is_written(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a kill before it is gone on from, and what it left half written goes."""
    done = first_stage_only.fold_folder(0) / "segmentation.done.json"
    done.unlink()
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Run, "note_time", Mock(side_effect=InterruptedError))
        train_stage(first_stage_only, data, 0, "segmentation")
    left = first_stage_only.folder / ".timing.json.999999999.tmp"
    left.touch()
    assert not done.exists() and train_stage(first_stage_only, data, 0, "segmentation")
    assert done.exists() and not left.exists()
    assert [line.what for line in first_stage_only.timing()] == ["segmentation stage, fold 0"]


def checkpoint_hash(run: Run, data: DataSet, stage: str = "segmentation") -> str:
    return load_stage(run, data, 0, stage).sha256


@pytest.mark.fault(16)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_first_stage_that_diverges_is_marked_and_goes_on_from_its_last_checkpoint(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    run = tiny_run(tmp_path / "run", segmentation_steps=4, checkpoint_steps=1)
    calls, real = [], targets.segmentation_loss

    def diverging(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return real(*arguments) * (value if len(calls) == 3 else 1)

    alone = tiny_run(tmp_path / "alone", segmentation_steps=4, checkpoint_steps=1)
    train_stage(alone, data, 0, "segmentation")
    monkeypatch.setattr(targets, "segmentation_loss", diverging)
    with pytest.raises(TrainingError, match="segmentation stage, fold 0, .* at step 3"):
        train_stage(run, data, 0, "segmentation")
    assert checkpoint.newest_whole(run.fold_folder(0), "segmentation")[0] == 2
    marked = json.loads((run.fold_folder(0) / "segmentation.diverged.json").read_text())
    assert marked["step"] == 3 and len(marked["images"]) == run.settings.segmentation_batch_size
    named = re.escape(", ".join(marked["images"]))
    with pytest.raises(
        RunError, match=f"no finished segmentation: fold 0 diverged at step 3.*{named}"
    ):
        run.require("segmentation")
    assert not run.has("segmentation")

    assert train_stage(run, data, 0, "segmentation")
    run.require("segmentation")
    assert not list(run.folder.rglob("*.diverged.json"))
    assert same(weights(run, data, "segmentation"), weights(alone, data, "segmentation"))
    assert history(run, "segmentation") == history(alone, "segmentation")


@pytest.mark.fault(16)
@pytest.mark.parametrize("steps", [3, 8], ids=["at the end", "at a checkpoint"])
def test_weights_that_become_infinite_under_a_finite_loss_are_a_divergence_too(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    run = adjusted(first_stage_only, decision_steps=steps, checkpoint_steps=3)
    real = loop.Session.take_step

    def overflowing(session: loop.Session, step: int, lr: float) -> torch.Tensor:
        loss = real(session, step, lr)
        if step == 2:
            with torch.no_grad():
                session.stage.model.score.weight[0, 5] = float("inf")
        return loss

    monkeypatch.setattr(loop.Session, "take_step", overflowing)
    with pytest.raises(TrainingError, match="decision stage.* step 3 .*not finite: weights.sc"):
        train_stage(run, data, 0, "decision")
    record = json.loads((run.fold_folder(0) / "decision.diverged.json").read_text())
    _, order = stage_training._training_part(
        data.folds[0], run.settings, DECISION, torch.device("cpu")
    )
    names = [data.folds[0].train[shown.row].name for shown in order.shown(2)]
    assert record == {"stage": "decision", "fold": 0, "step": 3, "images": names}
    with pytest.raises(RunError, match="no finished decision: fold 0 diverged at step 3"):
        run.require("decision")


@pytest.mark.fault(16)
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    first_stage_only: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = adjusted(first_stage_only, decision_steps=600, checkpoint_steps=2)  # a row each 3 steps
    calls, real = [], targets.decision_loss

    def diverging(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(arguments)
        return real(*arguments) * (float("nan") if len(calls) > 2 * 3 else 1)

    monkeypatch.setattr(targets, "decision_loss", diverging)
    order_of_4 = stage_training._training_part(
        data.folds[0], run.settings, DECISION, torch.device("cpu")
    )
    names = [data.folds[0].train[shown.row].name for shown in order_of_4[1].shown(3)]
    with pytest.raises(
        TrainingError, match="decision stage, fold 0, .* at step 4 .* loss is not finite"
    ) as e:
        train_stage(run, data, 0, "decision")
    assert all(name in str(e.value) for name in names)
    assert checkpoint.newest_whole(run.fold_folder(0), "decision")[0] == 2
    record = json.loads((run.fold_folder(0) / "decision.diverged.json").read_text())
    assert record == {"stage": "decision", "fold": 0, "step": 4, "images": names}
    assert not run.has("decision") and [row["step"] for row in history(run, "decision")] == [3]


@pytest.mark.fault(27)
def test_a_folder_in_which_another_process_works_is_left_alone(
    first_stage_only: Run, data: DataSet
) -> None:
    other = f"{os.uname().nodename} process {os.getppid()}"
    storage.write_json(
        first_stage_only.folder / "owner.json", {"owner": other, "last_wrote": time.time()}
    )
    history_of_other = first_stage_only.fold_folder(0) / "decision.jsonl"
    history_of_other.write_text('{"step": 7, "loss": 0.5, "lr": 0.1, "seconds": 1.0}\n')
    before = files(first_stage_only.folder)
    with pytest.raises(RunError, match=other):
        train_stage(first_stage_only, data, 0, "decision")
    assert files(first_stage_only.folder) == before


@pytest.mark.fault(56)
@pytest.mark.parametrize("is_finished", [False, True], ids=["at work", "has finished"])
def test_a_training_that_slept_while_another_took_over_saves_nothing_more(
    first_stage_only: Run, data: DataSet, is_finished: bool
) -> None:
    run, left = first_stage_only, []

    def take_over(progress: Progress) -> None:
        checkpoint.save(run.fold_folder(0), "decision", 999, {}, {"weights": {}})
        owner = {"owner": "colab-vm process 7", "last_wrote": time.time()}
        (run.folder / "owner.json").write_text(json.dumps(owner))
        if is_finished:
            (run.folder / "owner.json").unlink()
        left.append(files(run.folder))

    with pytest.raises(RunError, match="but meanwhile .* taken"):
        train_stage(run, data, 0, "decision", watch=take_over)
    assert [files(run.folder)] == left


# What belongs together


def test_the_second_stage_needs_the_first(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="segmentation stage of fold 0 has done 0 of"):
        train_stage(tiny_run(tmp_path / "run"), data, 0, "decision")


def test_a_first_stage_of_another_hash_is_refused(
    trained: Trained, data: DataSet, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", trained.run.settings)
    shutil.copytree(trained.run.folder, run.folder)
    first = load_stage(run, data, 0, "segmentation")
    first.state["weights"]["mask.weight"] += 1e-3
    identity = json.loads(next(run.fold_folder(0).glob("segmentation-*8.json")).read_text())
    checkpoint.save(
        run.fold_folder(0), "segmentation", first.step, identity["identity"], first.state
    )
    for read in (functools.partial(train_stage, name="decision"), trained_judge):
        with pytest.raises(CheckpointError, match="predecessor: here '.*', there '.*'"):
            read(run, data, 0)


@pytest.mark.fault(21)
def test_a_training_of_another_fold_data_or_setting_is_refused(
    trained: Trained, data: DataSet, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", trained.run.settings)
    shutil.copytree(trained.run.fold_folder(0), run.fold_folder(1))
    with pytest.raises(CheckpointError, match="fold: here 1, there 0"):
        train_stage(run, data, 1, "segmentation")
    other = replace(data, record=data_record(fingerprint="f" * 64))
    with pytest.raises(CheckpointError, match="data: here 'ffff"):
        train_stage(trained.run, other, 0, "segmentation")
    longer = Run(trained.run.folder, replace(trained.run.settings, annotation="box"))
    with pytest.raises(CheckpointError, match="annotation: here 'box', there 'dilated5'"):
        train_stage(longer, data, 0, "segmentation")


@pytest.mark.fault(21)
def test_a_checkpoint_of_another_architecture_is_refused_tensor_by_tensor(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", segmentation_steps=1)
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    train_stage(run, data, 0, "segmentation")
    monkeypatch.setattr(two_stage, "FEATURES", 16)
    with pytest.raises(CheckpointError, match="another architecture") as refused:
        trained_segmentation(load_stage(run, data, 0, "segmentation"))
    assert "mask.weight: here (1, 16, 1, 1), there (1, 8, 1, 1)" in str(refused.value)


@pytest.mark.fault(21)
def test_a_training_of_another_architecture_does_not_go_on(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", segmentation_steps=2, decision_steps=2, checkpoint_steps=1)
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    stopped_after_one("segmentation", run, data)
    monkeypatch.setattr(two_stage, "FEATURES", 16)
    with pytest.raises(CheckpointError, match="segmentation weights are of another architecture"):
        train_stage(run, data, 0, "segmentation")
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    train_stage(run, data, 0, "segmentation")
    stopped_after_one("decision", run, data)
    monkeypatch.setattr(method, "DecisionNet", Wider)
    with pytest.raises(CheckpointError, match="decision weights are of .*: score.weight: here"):
        train_stage(run, data, 0, "decision")
    assert checkpoint.newest_whole(run.fold_folder(0), "decision")[0] == 1


class Wider(DecisionNet):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.score = torch.nn.Linear(67, 1)


def stopped_after_one(stage: str, run: Run, data: DataSet) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_stage(run, data, 0, stage, lambda _: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.fault(87)
@pytest.mark.parametrize("stop", [3, 11, 17])
def test_scores_in_the_history_are_those_of_an_undisturbed_training(
    data: DataSet, first_stage_only: Run, tmp_path: Path, monkeypatch, stop: int
) -> None:
    """Also where it stops between two rows."""
    monkeypatch.setattr(loop, "ROWS", 2)
    shutil.copytree(first_stage_only.folder, tmp_path / "other")
    runs, taken = (first_stage_only, open_run(tmp_path / "other")), loop.Session.take_step

    def stopping(self: loop.Session, step: int, lr: float) -> torch.Tensor:
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, step, lr)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Session, "take_step", stopping)
        train_stage(runs[0], data, 0, "decision")
    found = []
    for run in runs:
        assert train_stage(run, data, 0, "decision")
        rows = read_history(run.fold_folder(0) / "decision.jsonl")
        found.append([(row["highest_good"], row["lowest_defective"]) for row in rows])
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.parametrize("defective", [True, False])
def test_one_kind_of_image_alone_is_refused(data: DataSet, tmp_path: Path, defective: bool) -> None:
    fold = data.folds[0]
    part = tuple(sample for sample in fold.train if sample.is_defective is defective)
    one_kind = replace(data, folds=(Fold(0, part, fold.test, "clean", ()),))
    with pytest.raises(TrainingError, match="need defective and good ones"):
        train_stage(tiny_run(tmp_path / "run"), one_kind, 0, "segmentation")


# In new processes


def order_log(run: Run) -> Path:
    return run.folder.with_name(f"{run.folder.name} order.txt")


def train_in_a_process(run: Run, data: DataSet, *stop: str) -> str:
    """Train, or go on, in a new process, until its end or `stop` -> what it says."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, PROGRAM, run.folder, data.root, order_log(run), *stop]
    ended = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode != 0) == bool(stop), ended.stderr
    return ended.stderr


SLOW_SETTINGS = {
    "segmentation_steps": 8,
    "decision_steps": 12,
    "checkpoint_steps": 3,
    "weight_averaging": True,
    "flips": True,
    "copy_paste": 0.5,
}


def everything(run: Run, stage: str, step: int) -> dict[str, Any]:
    """All of an unfinished checkpoint's state but the time, which no two trainings share."""
    path = run.fold_folder(0) / f"{stage}-{step:06d}.pt"
    state = torch.load(path, weights_only=True)
    state["history"] = [{**row, "seconds": 0} for row in state["history"]]
    return state | {"seconds": 0}


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


@pytest.mark.slow
@pytest.mark.fault(18)
@pytest.mark.parametrize(("precision", "told"), [("float32", "SIGINT"), ("bfloat16", "SIGTERM")])
def test_a_new_process_goes_on_bit_for_bit(
    data: DataSet, tmp_path: Path, precision: str, told: str
) -> None:
    """Order, weights, their average, optimiser, pending losses and history, in both stages."""
    settings = SLOW_SETTINGS | {"precision": precision}
    alone, run = (tiny_run(tmp_path / name, **settings) for name in ("alone", "run"))
    train_in_a_process(alone, data)
    for stage, step in (("segmentation", 4), ("decision", 2), ("decision", 5)):
        said = train_in_a_process(run, data, stage, str(step), told)
        assert f"stopped after step {step}; run again to go on" in said
        assert checkpoint.newest_whole(run.fold_folder(0), stage)[0] == step
    train_in_a_process(run, data)
    assert order_log(run).read_text() == order_log(alone).read_text()
    assert len(order_log(run).read_text().splitlines()) == 8 + 12
    for stage, step in (("segmentation", 6), ("decision", 9)):
        states = everything(run, stage, step), everything(alone, stage, step)
        assert {"weights", "average", "optimizer", "pending", "history"} <= states[0].keys()
        assert_same(*states)
        assert checkpoint_hash(run, data, stage) == checkpoint_hash(alone, data, stage)
        assert history(run, stage) == history(alone, stage)


# A trained model


@pytest.fixture(scope="module")
def by_the_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwoStageNet, DataSet]:
    """Fold 0's model by the demo's recipe, and the data it was trained on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    folder = tmp_path_factory.mktemp("learned")
    run = open_run(folder / "run", {"preset": "demo", "fold": "0"})
    items = run.settings.generated_items
    root = synthetic.generate(folder / "data", items=items, size=run.settings.size)
    samples = find_samples(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        folds = make_folds("clean", samples)
    data = DataSet(
        root, tuple(samples), tuple(folds), data_record(fingerprint=fingerprint(samples))
    )
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    model = trained_judge(run, data, 0).model
    torch.set_num_threads(threads)
    return model, data


@pytest.fixture
def learned(by_the_demo: tuple[TwoStageNet, DataSet]) -> Callable[[torch.Tensor], float]:
    """The score by which the demo judges an image: uint8 (1, 1, H, W) -> logit."""
    demo = presets.resolve({"preset": "demo"})
    exact = TwoStageJudge(by_the_demo[0], replace(demo, precision="float32"))
    return lambda image: exact.judge(image)[0].item()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(192, 128), (384, 256)])
def test_bfloat16_judges_as_float32_does(
    by_the_demo: tuple[TwoStageNet, DataSet], size: tuple[int, int]
) -> None:
    """At the larger size the 15x15 layer takes the frequency domain."""
    model, data = by_the_demo
    part = data.folds[0].test
    exact, reduced = (Settings(precision=kind) for kind in ("float32", "bfloat16"))
    scores, masks = score_images(TwoStageJudge(model, exact), part, size)
    less_exact_scores, less_exact = score_images(TwoStageJudge(model, reduced), part, size)
    errors = np.linalg.norm((less_exact - masks).reshape(len(part), -1), axis=1)
    errors /= np.linalg.norm(masks.reshape(len(part), -1), axis=1)
    assert 0 < errors.max() < 0.02
    assert np.abs(less_exact_scores - scores).max() < 0.01 * np.ptp(scores)
    if size == (192, 128):  # at a size that it was not trained at, some scores nearly tie
        labels = [sample.is_defective for sample in part]
        found = average_precision(labels, less_exact_scores)
        assert abs(found - average_precision(labels, scores)) < 0.002


def crack(length: float, depth: float, surface: int, width: float = 1) -> torch.Tensor:
    """A surface that no fold knows with a jagged crack: a share of its way, so much darker."""
    height, across = presets.resolve({"preset": "demo"}).size
    image, _ = synthetic.render((height, across), 0, 100 + surface, 0, False)
    angles = np.pi + np.random.default_rng(surface).normal(0, 0.5, 64)
    steps = 1.6 * np.stack([np.cos(angles), np.sin(angles)], 1)
    path = [across - 8, height / 2] + np.cumsum(steps, 0)[: max(2, round(64 * length))]
    line = np.zeros((4 * height, 4 * across), np.uint8)
    cv2.polylines(line, [np.rint(4 * path).astype(np.int32)], False, 255, round(4 * width))
    share = cv2.resize(line, (across, height), interpolation=cv2.INTER_AREA) / 255
    darkened = image * (1 - depth * cv2.GaussianBlur(share, (0, 0), 0.4))
    return torch.from_numpy(np.rint(darkened).astype(np.uint8))[None, None]


def largest_fall(scores: list[float]) -> float:
    """By how much a score falls below an earlier one, in logits; rounding aside it is 0."""
    return float((np.maximum.accumulate(scores) - scores).max())


JITTER = 0.2
"""Logits that a score may fall while a crack grows by a few pixels or by 10 % of contrast; it rises
by 3 to 6. Measured on the demo's three folds, six surfaces each: at most 0.07, 0.09 and 0.17. These
cracks are one pixel wide; those trained on are about two. That doubling one of two pixels never
lowers it is not so: it held for one training and not for the next, which differed from it by
rounding alone (0.06 to 0.23, at scores of 2.7)."""


@pytest.mark.slow
@pytest.mark.parametrize("surface", range(3))
def test_a_darkening_crack_never_lowers_the_score(
    learned: Callable[[torch.Tensor], float], surface: int
) -> None:
    """Twice the contrast never does; in fine steps the score may tremble."""
    scores = [learned(crack(0.8, depth, surface)) for depth in (0.25, 0.5, 1.0)]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 3, np.round(scores, 2).tolist()
    scores = [learned(crack(0.8, depth, surface)) for depth in np.linspace(0, 0.8, 9)]
    assert scores[-1] > scores[0] + 3
    assert largest_fall(scores) < JITTER, np.round(scores, 2).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("surface", range(3))
def test_a_lengthening_crack_never_lowers_the_score(
    learned: Callable[[torch.Tensor], float], surface: int
) -> None:
    """Twice the length, from 12 pixels on, never does; in fine steps the score may tremble."""
    scores = [learned(crack(length, 0.6, surface)) for length in (0.12, 0.24, 0.48, 0.96)]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 3, np.round(scores, 2).tolist()
    scores = [learned(crack(length, 0.6, surface)) for length in np.linspace(0.05, 0.9, 12)]
    assert scores[-1] > scores[0] + 3
    assert largest_fall(scores) < JITTER, np.round(scores, 2).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("surface", range(3))
def test_a_lengthening_crack_as_wide_as_those_trained_on_loses_little_of_its_score(
    learned: Callable[[torch.Tensor], float], surface: int
) -> None:
    """A standardised map peaks lower for a larger defect: once found, the score may fall again."""
    lengths = (0.05, 0.12, 0.24, 0.36, 0.48, 0.6, 0.72, 0.84, 0.96)
    scores = [learned(crack(length, 0.6, surface, 2)) for length in lengths]
    assert scores[-1] > scores[0] + 2 and scores[-1] > 1, np.round(scores, 2).tolist()
    assert largest_fall(scores) < 0.5, np.round(scores, 2).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decision", "both"])
@pytest.mark.parametrize("surface", range(3))
def test_a_crack_as_wide_as_those_trained_on_is_never_taken_for_a_good_surface_again(
    by_the_demo: tuple[TwoStageNet, DataSet], surface: int, kind: str
) -> None:
    """Also where the mask judges too, whose peak, and so the sum, falls as the crack grows: by up
    to 1.1 logits of 6 to 9 (two folds, four surfaces each)."""

    def score(length: float) -> float:
        image = crack(length, 0.7 * (length > 0), surface, 2)
        chosen = Settings(precision="float32", average_flips=True, score=kind)
        return TwoStageJudge(by_the_demo[0], chosen).judge(image)[0].item()

    good, scores = score(0.0), [score(length) for length in np.linspace(0.1, 1, 10)]
    found = next(place for place, value in enumerate(scores) if value > 0)
    assert good < 0 and all(value > 1 for value in scores[found + 1 :]), scores


# What an image would have been judged by


@pytest.mark.parametrize(("kind", "score"), [("decision", 2.0), ("both", 0.5), ("mask", -1.5)])
def test_the_stored_scores_tell_what_each_kind_would_have_been(kind, score):
    settings = Settings(score=kind, segmentation_loss="cross_entropy")
    expected = {"decision": [2.0], "mask": [-1.5], "both": [0.5]}
    found = TwoStage().every_score(settings, [score], [-1.5])
    assert found == (expected if kind != "mask" else {"mask": [-1.5]})


def test_a_mask_without_logits_is_never_added_to_the_decision():
    settings = Settings(score="decision", segmentation_loss="mean_squared_error")
    assert TwoStage().every_score(settings, [2.0], [0.9]) == {"decision": [2.0], "mask": [0.9]}
