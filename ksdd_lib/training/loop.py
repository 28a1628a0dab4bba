"""The two stages: the segmentation network, then the decision network on the frozen first stage.

Feature normalisation makes each image independent of its batch mates, so the gradient of a batch is
the sum of its images' gradients: they are taken one image at a time, and memory stays at one image.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ksdd_lib import machine, storage
from ksdd_lib.data.folds import Fold
from ksdd_lib.errors import CheckpointError, Interrupted, TrainingError
from ksdd_lib.models import two_stage as networks
from ksdd_lib.models.fourier import shared_spectra
from ksdd_lib.models.two_stage import (
    DecisionNet,
    SegmentationNet,
    TwoStageNet,
    expect_defects,
    initialize,
)
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run, alone
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.training import checkpoint
from ksdd_lib.training.batches import Order, Shown, Surfaces, load_surfaces
from ksdd_lib.training.memory import explain_memory, free_megabytes
from ksdd_lib.training.targets import decision_loss, segmentation_loss, soft_targets

ROWS = 200
"""About how many rows a stage's history has."""

FEATURE_BYTES = 3 * 2**30
"""Memory for the frozen first stage's pooled features, of which they take no more than half of what
is free; beyond it they are computed again."""


@dataclass(frozen=True)
class Progress:
    """What a live display is told.

    Attributes:
        step, steps: how far the stage has come, of how many steps.
        history: its rows so far, those of earlier sessions too.
        resumed_after: the step after which this session went on.
        model: the network in training, to look at and not to touch; None where it had finished.
    """

    stage: str
    fold: int
    step: int
    steps: int
    history: list[dict[str, float]]
    resumed_after: int = 0
    model: nn.Module | None = None


Watch = Callable[[Progress], None]


@dataclass
class Stage:
    """One stage of one fold, ready to train.

    `loss_of(shown)` is the differentiable loss of one sample, named `images[shown.row]`.
    """

    name: str
    fold: int
    folder: Path
    identity: dict[str, Any]
    model: nn.Module
    loss_of: Callable[[Shown], Tensor]
    order: Order
    images: tuple[str, ...]
    settings: Settings
    scale_gradients: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    def recipe(self, name: str) -> Any:
        """This stage's own value of steps, optimizer, learning_rate, batch_size or schedule."""
        return getattr(self.settings, f"{self.name}_{name}")


@explain_memory
def train_segmentation(
    run: Run,
    data: DataSet,
    fold: int,
    watch: Watch | None = None,
    saved: Callable[[], None] | None = None,
) -> bool:
    """Train the first stage of a fold, or go on where it stopped.

    Args:
        watch: told of every new row of the history; once, where the stage had already finished.
        saved: called after each checkpoint, for a copy elsewhere.

    Returns:
        False where it had already finished.

    Raises:
        TrainingError: it diverged, memory is too small, or the data has no good or no defective
            image to train on.
        CheckpointError: the folder holds a training of other data or settings.
    """
    settings, where = run.settings, machine.device()
    if _finished(run, fold, "segmentation", _identity(run, data, fold, "segmentation")):
        _tell_finished(run, fold, "segmentation", watch)
        return False
    surfaces, order = _training_part(data.folds[fold], settings, "segmentation", where)
    model = untrained_segmentation(settings)
    model.to(where, memory_format=torch.channels_last)
    loss_of = segmentation_loss_of(model, surfaces, settings)
    stage = _stage(run, data, fold, "segmentation", model, loss_of, order)
    stage.scale_gradients = machine.arithmetic(settings.precision, where) == torch.float16
    _train(run, stage, watch, saved)
    return True


@explain_memory
def train_decision(
    run: Run,
    data: DataSet,
    fold: int,
    watch: Watch | None = None,
    saved: Callable[[], None] | None = None,
) -> bool:
    """Train the second stage of a fold on its frozen first stage, or go on where it stopped.

    It starts from the last weights of the first stage, not from their average, as published.

    Args, Returns, Raises: as `train_segmentation`; CheckpointError also without a first stage.
    """
    settings, where = run.settings, machine.device()
    first = load_stage(run, data, fold, "segmentation")
    identity = _identity(run, data, fold, "decision", first.sha256)
    if _finished(run, fold, "decision", identity):
        _tell_finished(run, fold, "decision", watch)
        return False
    surfaces, order = _training_part(data.folds[fold], settings, "decision", where)
    segmentation = SegmentationNet()
    checkpoint.load_weights(segmentation, first.state["weights"], "segmentation")
    features = FrozenFeatures(segmentation, surfaces, settings.precision, where)
    model = DecisionNet()
    initialize(model, settings.initialization, settings.seed)
    model.to(where, memory_format=torch.channels_last)

    def loss_of(shown: Shown) -> Tensor:
        return decision_loss(model.judge(*features(shown)), surfaces.label(shown.row))

    stage = _stage(run, data, fold, "decision", model, loss_of, order, first.sha256)
    _train(run, stage, watch, saved)
    return True


def segmentation_loss_of(
    model: SegmentationNet, surfaces: Surfaces, settings: Settings
) -> Callable[[Shown], Tensor]:
    """The first stage's loss of one sample, as a function of how it is shown."""
    where = surfaces.images.device
    dtype = machine.arithmetic(settings.precision, where)
    binary = settings.segmentation_loss == "mean_squared_error"

    def loss_of(shown: Shown) -> Tensor:
        image, mask = surfaces.show(shown)
        with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
            _, mask_logits = model(image)
        targets = soft_targets(mask, binary)
        return segmentation_loss(mask_logits, targets, settings.segmentation_loss)

    return loss_of


def untrained_segmentation(settings: Settings) -> SegmentationNet:
    """The first stage as its training starts, on the CPU."""
    model = SegmentationNet()
    initialize(model, settings.initialization, settings.seed)
    if settings.segmentation_loss == "cross_entropy":
        expect_defects(model, settings.expected_defect_share)
    return model


class FrozenFeatures:
    """What a frozen first stage hands on, computed once per sample and view and kept in memory.

    A pasted defect comes only once, and is not kept.
    """

    def __init__(
        self,
        segmentation: SegmentationNet,
        surfaces: Surfaces,
        precision: str,
        where: torch.device,
    ) -> None:
        self.segmentation = segmentation.to(where, memory_format=torch.channels_last)
        self.segmentation.requires_grad_(False)
        self.surfaces = surfaces
        self.dtype = machine.arithmetic(precision, where)
        self.kept: dict[Shown, tuple[Tensor, Tensor]] = {}
        free = free_megabytes(where)
        self.free = FEATURE_BYTES if free is None else min(FEATURE_BYTES, free / 2 * 1e6)

    @torch.no_grad()
    def __call__(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """The decision network's pooled stack and mask pools of one sample, as `judge` takes it."""
        if shown in self.kept:
            return self.kept[shown]
        image, _ = self.surfaces.show(shown)
        with torch.autocast(image.device.type, self.dtype, enabled=self.dtype != torch.float32):
            stack, pools = DecisionNet.pool(*self.segmentation(image))
        if shown.pasted is None and stack.nbytes < self.free:
            self.free -= stack.nbytes
            self.kept[shown] = stack, pools
        return stack, pools


def frozen_bytes(settings: Settings) -> int:
    """What `FrozenFeatures` keeps of one image and view, in bytes."""
    height, width = settings.size
    dtype = machine.arithmetic(settings.precision, machine.device())
    return (networks.FEATURES + 1) * (height // 16) * (width // 16) * dtype.itemsize


def load_stage(run: Run, data: DataSet, fold: int, stage: str) -> checkpoint.Checkpoint:
    """The finished checkpoint of a stage.

    Raises:
        CheckpointError: the stage is not finished, or belongs to another training.
    """
    before = None
    if stage == "decision":
        before = load_stage(run, data, fold, "segmentation").sha256
    found = checkpoint.load(run.fold_folder(fold), stage, _identity(run, data, fold, stage, before))
    steps = getattr(run.settings, f"{stage}_steps")
    if found is None or found.step < steps:
        done = 0 if found is None else found.step
        raise CheckpointError(
            f"The {stage} stage of fold {fold} has done {done} of {steps} steps; train it first."
        )
    return found


def trained_model(run: Run, data: DataSet, fold: int) -> TwoStageNet:
    """Both finished stages of a fold with the weights to judge by, on this machine's device.

    With weight averaging these are the decision network's averages; the first stage keeps the
    weights that the second was trained on.
    """
    model = TwoStageNet()
    first = load_stage(run, data, fold, "segmentation").state
    second = load_stage(run, data, fold, "decision").state
    checkpoint.load_weights(model.segmentation, first["weights"], "segmentation")
    judging = second.get("average", second["weights"])
    checkpoint.load_weights(model.decision, judging, "decision")
    return model.to(machine.device(), memory_format=torch.channels_last).requires_grad_(False)


def trained_segmentation(run: Run, data: DataSet, fold: int) -> SegmentationNet:
    """The finished first stage alone, with the weights to judge by (averaged where set so)."""
    model = SegmentationNet()
    state = load_stage(run, data, fold, "segmentation").state
    checkpoint.load_weights(model, state.get("average", state["weights"]), "segmentation")
    return model.to(machine.device(), memory_format=torch.channels_last).requires_grad_(False)


def learning_rate(peak: float, schedule: str, step: int, steps: int) -> float:
    """The learning rate of step 0 .. steps - 1.

    "one_cycle" rises from 4 % of the peak over the first 30 % of the steps and falls to nearly
    zero, both along a cosine (Smith and Topin 2019).
    """
    if schedule == "constant":
        return peak
    rise = 0.3 * steps
    if step < rise:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * step / rise)) / 2)
    return peak * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a stage's history file: step, loss, lr, seconds."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a full disk may have cut the last
    return [json.loads(line) for line in whole]


@alone
def _train(run: Run, stage: Stage, watch: Watch | None, saved: Callable[[], None] | None) -> None:
    """Train, or go on, as the one process that works in the run folder."""
    with machine.reused_memory(machine.device()):
        seconds = _train_steps(run, stage, watch, saved)
    _mark_finished(run, stage, seconds)


def _train_steps(
    run: Run, stage: Stage, watch: Watch | None, saved: Callable[[], None] | None
) -> float:
    """The loop -> seconds. Saves at every `checkpoint_steps`, when interrupted, and at the end."""
    steps, every = stage.recipe("steps"), max(1, stage.recipe("steps") // ROWS)
    device = next(stage.model.parameters()).device
    optimizer = make_optimizer(stage)
    scaler = torch.amp.GradScaler(device.type, enabled=stage.scale_gradients)
    average = _clone(stage.model) if stage.settings.weight_averaging else None
    first, pending, elapsed = _resume(stage, optimizer, scaler, average)
    began = time.monotonic() - elapsed

    def save(step: int, finished: bool = False) -> None:
        _require_finite(stage, step, pending)
        state: dict[str, Any] = {"weights": stage.model.state_dict()}
        if average is not None:
            state["average"] = average
        if not finished:
            state |= {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            state |= {"seconds": time.monotonic() - began}
            state |= {"pending": [float(loss) for loss in pending], "history": stage.history}
        try:
            checkpoint.save(stage.folder, stage.name, step, stage.identity, state)
        except CheckpointError as error:  # a weight overflowed, though the loss was finite
            raise _diverged(stage, step, str(error)) from None
        if saved:
            saved()

    with _at_step_boundary() as interrupted:
        for step in range(first, steps):
            lr = learning_rate(stage.recipe("learning_rate"), stage.recipe("schedule"), step, steps)
            pending.append(take_step(stage, optimizer, scaler, step, lr))
            if average is not None:
                _update_average(average, stage.model, step)
            if (step + 1) % every == 0 or step + 1 == steps:
                run.claim()  # before the history is written, where another has taken over
                _log(stage, step + 1, pending, lr, time.monotonic() - began)
                pending.clear()
                if watch:
                    told = stage.name, stage.fold, step + 1, steps, stage.history, first
                    watch(Progress(*told, stage.model))
            due = (step + 1) % stage.settings.checkpoint_steps == 0
            if step + 1 < steps and (due or interrupted.is_set()):
                save(step + 1)
                if interrupted.is_set():
                    raise Interrupted(f"stopped after step {step + 1}; run again to go on")
        if first < steps:  # else the finished state was read, and stays as it is
            save(steps, finished=True)
        if interrupted.is_set():
            raise Interrupted("stopped after the last step; run again to go on")
    return time.monotonic() - began


def take_step(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    lr: float,
) -> Tensor:
    """One step of step 0, 1, 2, ...; returns the batch's mean loss, still on the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    batch = stage.order.shown(step)
    total = torch.zeros((), device=next(stage.model.parameters()).device)
    with shared_spectra(stage.model):
        for shown in batch:
            loss = stage.loss_of(shown) / len(batch)
            scaler.scale(loss).backward()
            total += loss.detach()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return total


def _require_finite(stage: Stage, step: int, pending: list[Tensor]) -> None:
    """Raise TrainingError where one of the last losses, up to `step` steps, is not finite."""
    bad = [number for number, loss in enumerate(pending) if not math.isfinite(loss)]
    if not bad:
        return
    step = step - len(pending) + bad[0] + 1
    raise _diverged(stage, step, "Its loss is not finite.")


def _diverged(stage: Stage, step: int, why: str) -> TrainingError:
    """Mark the run as diverged -> the error, which names the images of that step."""
    images = [stage.images[row] for row in stage.order.rows(step - 1)]
    record = {"stage": stage.name, "fold": stage.fold, "step": step, "images": images}
    storage.write_json(stage.folder / f"{stage.name}.diverged.json", record)
    return TrainingError(
        f"The {stage.name} stage, fold {stage.fold}, diverged at step {step} "
        f"({', '.join(images)}). {why} Take a smaller {stage.name}_learning_rate in a new run; the "
        "last good checkpoint is kept."
    )


def _log(stage: Stage, step: int, pending: list[Tensor], lr: float, seconds: float) -> None:
    """Add the mean of the pending losses to the history."""
    _require_finite(stage, step, pending)
    mean = float(torch.stack([torch.as_tensor(loss, device="cpu") for loss in pending]).mean())
    row = {"step": step, "loss": round(mean, 6), "lr": lr, "seconds": round(seconds, 2)}
    stage.history.append(row)
    storage.append_text(stage.folder / f"{stage.name}.jsonl", json.dumps(row) + "\n")


def _resume(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: dict[str, Tensor] | None,
) -> tuple[int, list[Tensor], float]:
    """Restore the newest state in place -> (first step, pending losses, seconds so far)."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    found = checkpoint.load(stage.folder, stage.name, stage.identity)
    path = stage.folder / f"{stage.name}.jsonl"
    step = found.step if found else 0
    state = found.state if found else {}
    # A finished state has no history: times differ, and its hash is an identity.
    rows = state.get("history", read_history(path))
    stage.history = [row for row in rows if row["step"] <= step]
    storage.write_text(path, "".join(json.dumps(row) + "\n" for row in stage.history))
    if found is None:
        return 0, [], 0.0
    checkpoint.load_weights(stage.model, found.state["weights"], stage.name)
    if average is not None:
        for name, value in found.state["average"].items():
            average[name].copy_(value)
    if "optimizer" not in found.state:  # killed after the last save, before it was marked finished
        return step, [], stage.history[-1]["seconds"] if stage.history else 0.0
    for group in found.state["optimizer"]["param_groups"]:
        group["fused"] = True  # also where it was saved before optimisers were fused
    optimizer.load_state_dict(found.state["optimizer"])
    if found.state["scaler"]:  # empty where it was trained without float16
        scaler.load_state_dict(found.state["scaler"])
    return step, [torch.tensor(x) for x in found.state["pending"]], found.state["seconds"]


def _stage(
    run: Run,
    data: DataSet,
    fold: int,
    name: str,
    model: nn.Module,
    loss_of: Callable[[Shown], Tensor],
    order: Order,
    predecessor: str | None = None,
) -> Stage:
    identity = _identity(run, data, fold, name, predecessor)
    images = tuple(sample.name for sample in data.folds[fold].train)
    folder = run.fold_folder(fold)
    return Stage(name, fold, folder, identity, model, loss_of, order, images, run.settings)


def _training_part(
    fold: Fold, settings: Settings, stage: str, where: torch.device
) -> tuple[Surfaces, Order]:
    """The fold's training images in the device's memory, and the order in which they come."""
    labels = [sample.is_defective for sample in fold.train]
    if all(labels) or not any(labels):
        raise TrainingError(
            f"Fold {fold.number} has {sum(labels)} defective images among {len(labels)} in "
            "training: the networks need defective and good ones. Add what is missing to the data."
        )
    surfaces = load_surfaces(fold.train, settings.size, settings.annotation).to(where)
    is_pasted = stage == "segmentation" or settings.decision_copy_paste
    order = Order(
        defective=tuple(row for row, label in enumerate(labels) if label),
        good=tuple(row for row, label in enumerate(labels) if not label),
        seed=settings.seed,
        fold=fold.number,
        stage=stage,
        batch_size=getattr(settings, f"{stage}_batch_size"),
        rotation=settings.rotation,
        flips=settings.flips,
        copy_paste=settings.copy_paste if is_pasted else 0.0,
        paste_turn=settings.paste_turn,
    )
    return surfaces, order


def _identity(
    run: Run, data: DataSet, fold: int, stage: str, predecessor: str | None = None
) -> dict[str, Any]:
    """All that decides the weights of a stage, and is compared when a checkpoint is loaded."""
    groups = ("segmentation",) if stage == "segmentation" else ("segmentation", "decision")
    shared = ("image_size", "folds", "seed", "rotation", "flips", "weight_averaging")
    shared += ("copy_paste", "paste_turn")
    names = [n for n, rule in RULES.items() if rule.group in groups or n in shared]
    part = sorted(sample.name for sample in data.folds[fold].train)
    return {
        "stage": stage,
        "fold": fold,
        "data": data.fingerprint,
        "training_images": storage.sha256("\n".join(part).encode()),
        "predecessor": predecessor,
        **{name: getattr(run.settings, name) for name in names},
    }


def _finished(run: Run, fold: int, stage: str, identity: dict[str, Any]) -> bool:
    if not run.has(stage, fold):
        return False
    found = checkpoint.load(run.fold_folder(fold), stage, identity)
    return found is not None and found.step >= getattr(run.settings, f"{stage}_steps")


def _tell_finished(run: Run, fold: int, stage: str, watch: Watch | None) -> None:
    history = read_history(run.fold_folder(fold) / f"{stage}.jsonl")
    steps = getattr(run.settings, f"{stage}_steps")
    if watch and history:
        watch(Progress(stage, fold, steps, steps, history))


def _mark_finished(run: Run, stage: Stage, seconds: float) -> None:
    made = machine.environment(run.settings.precision)
    record = {"steps": stage.recipe("steps"), "seconds": round(seconds, 1), "environment": made}
    storage.write_json(stage.folder / f"{stage.name}.done.json", record)
    (stage.folder / f"{stage.name}.diverged.json").unlink(missing_ok=True)
    run.note_time(f"{stage.name} stage, fold {stage.fold}", seconds)


def make_optimizer(stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser, with nothing remembered yet; fused, it reads each weight once."""
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[stage.recipe("optimizer")]
    return kind(stage.model.parameters(), lr=stage.recipe("learning_rate"), fused=True)


def _clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def _update_average(average: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """Move the average towards the weights; decay min(0.9999, (1 + n) / (10 + n)) at step n."""
    decay = min(0.9999, (1 + step) / (10 + step))
    weights = model.state_dict()
    torch._foreach_lerp_(list(average.values()), [weights[name] for name in average], 1 - decay)


@contextmanager
def _at_step_boundary() -> Iterator[threading.Event]:
    """Let SIGINT (the notebook's stop button) and SIGTERM only set a flag: a step is never cut."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
