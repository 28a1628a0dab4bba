"""The training loop of any stage: exactly resumable, one image at a time.

Feature normalisation makes each image independent of its batch mates. The gradient of a batch is
the sum of its images' gradients, and memory stays at one image.
"""

import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ksdd_lib import hardware, storage
from ksdd_lib.errors import CheckpointError, Interrupted, RunError, TrainingError
from ksdd_lib.models.fourier_conv import shared_spectra
from ksdd_lib.runs.lock import alone, claim
from ksdd_lib.runs.run import Divergence, Run, fold_name
from ksdd_lib.training import checkpoint
from ksdd_lib.training.batches import Order, Shown

ROWS = 200
"""About how many rows a stage's history has."""

COLLAPSED = 0.9
"""The share of guessing's loss from which a training has collapsed; kept ones had under 0.36."""

LEAST = 20  # steps, before which nothing is said of a training

Row = dict[str, float]
"""A row of a history: step, loss, lr, seconds, and of scores the fields of `LoggedRow`."""


class LoggedRow(storage.Record):
    """A line of a history file."""

    step: int
    loss: float
    lr: float = 0
    seconds: float = 0
    lowest_defective: float = 0  # the scores of what these steps showed, where there are some
    highest_good: float = 0


Look = Callable[[Tensor], Tensor]
"""What a network in training makes of an image, float32 (1, 1, H, W) in [0, 1]: the probability of
a defect at each place, (H/8, W/8), on the CPU."""


class Recipe(NamedTuple):
    """The settings of one stage's loop; `pastes` is whether its steps see pasted defects."""

    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    pastes: bool


@dataclass(frozen=True)
class Progress:
    """What a live display is told.

    Attributes:
        history: the rows so far, those of earlier sessions too.
        resumed_after: the step after which this session went on.
        look: None where the network makes no map, or had finished.
    """

    stage: str
    fold: int
    step: int
    steps: int
    history: list[Row]
    resumed_after: int = 0
    look: Look | None = None


Watch = Callable[[Progress], None]


@dataclass
class Trainable:
    """A network as its training starts, and its loss.

    Attributes:
        loss_of: the differentiable loss of one sample, as it is shown.
        look: None where the network makes no map.
        scale_gradients: whether gradients in float16 would underflow without a scale.
        guess: the loss of one who guesses, where it is known.
        restart: gives the model other first weights; None where it cannot.
        seen: (score, whether it is defective) of each sample that was shown since the last row.
    """

    model: nn.Module
    loss_of: Callable[[Shown], Tensor]
    look: Look | None = None
    scale_gradients: bool = False
    guess: float = math.inf
    restart: Callable[[], None] | None = None
    seen: list[tuple[Tensor | float, Tensor | bool]] = field(default_factory=list)


@dataclass(kw_only=True)
class Stage(Trainable):
    """One stage of one fold, ready to train.

    Attributes:
        identity: all that decides its weights, compared when a checkpoint is loaded.
        images: the names of the samples, by row.
        average: whether a running average of the weights is kept beside them.
        checkpoint_steps: how often the full state is saved.
    """

    name: str
    fold: int
    folder: Path
    identity: checkpoint.Identity
    recipe: Recipe
    order: Order
    images: tuple[str, ...]
    average: bool
    checkpoint_steps: int
    history: list[Row] = field(default_factory=list)


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


def read_history(path: Path) -> list[Row]:
    """The rows of a stage's history file: step, loss, lr, seconds.

    What is no row is passed over with a warning, but for a last line that a kill has cut.
    """
    if not path.exists():
        return []
    rows, bad = list[Row](), 0
    for line in path.read_bytes().rpartition(b"\n")[0].splitlines():
        try:
            row = storage.parse_record(line, LoggedRow, path.name)
            rows.append(row.model_dump(exclude_unset=True))
        except RunError:
            bad += 1
    if bad:
        told = f"{bad} lines of {path.name} in {path.parent.name} are damaged and passed over"
        warnings.warn(f"{told}: the curves lack them.", stacklevel=2)
    return rows


@alone
def train(run: Run, stage: Stage, watch: Watch | None, saved: Callable[[], None] | None) -> None:
    """Train, or go on, as the one process that works in the run folder, and mark it as finished.

    Raises TrainingError: it diverged; the last good checkpoint is kept.
    Raises CheckpointError: the folder holds a training of other data or settings.
    Raises Interrupted: the user stopped it; a checkpoint was saved at the end of the step.
    """
    with hardware.reused_memory(hardware.device()):
        seconds = _train_steps(run, stage, watch, saved)
    made = hardware.environment(run.settings.precision)
    record = {"steps": stage.recipe.steps, "seconds": round(seconds, 1), "environment": made}
    if loss := no_better_than_guessing(stage, stage.recipe.steps * 3 // 4, stage.recipe.steps):
        record["learned_nothing"] = True
        warnings.warn(
            f"The {stage.name} stage of {fold_name(stage.fold)} has learned nothing: its loss is "
            f"{loss:.2f} at the end, that of guessing is {stage.guess:.2f}. Do not use this model: "
            f"take more {stage.name}_steps.",
            stacklevel=2,
        )
    run.note_time(f"{stage.name} stage, {fold_name(stage.fold)}", seconds)
    storage.remove(stage.folder / f"{stage.name}.diverged.json")
    storage.write_json(stage.folder / f"{stage.name}.done.json", record)


def _train_steps(
    run: Run, stage: Stage, watch: Watch | None, saved: Callable[[], None] | None
) -> float:
    """The loop -> seconds. Saves at every `checkpoint_steps`, when interrupted, and at the end."""
    session, recipe, steps = Session(stage), stage.recipe, stage.recipe.steps
    first, every = session.resume(), max(1, steps // ROWS)
    with _at_step_boundary() as interrupted:
        for step in range(first, steps):
            lr = learning_rate(recipe.learning_rate, recipe.schedule, step, steps)
            session.pending.append(session.take_step(step, lr))
            if session.average is not None:
                _update_average(session.average, stage.model, step)
            done = step + 1
            if done % every == 0 or done == steps:
                claim(run.folder)  # before the history is written, where another has taken over
                session.log(done, lr)
                if done == steps // 2 // every * every:
                    session.restart_where_collapsed(done)
                if watch:
                    told = stage.name, stage.fold, done, steps, stage.history, first
                    watch(Progress(*told, stage.look))
            if done == steps or done % stage.checkpoint_steps == 0 or interrupted.is_set():
                session.save(done, is_last=done == steps)
                if saved:
                    saved()
            if interrupted.is_set():
                place = f"step {done}" if done < steps else "the last step"
                raise Interrupted(f"stopped after {place}; run again to go on")
    return session.seconds()


class Session:
    """A stage in training: its optimiser, its average, and the losses since the last row."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.optimizer = make_optimizer(stage)
        device = next(stage.model.parameters()).device
        self.scaler = torch.amp.GradScaler(device.type, enabled=stage.scale_gradients)
        weights = stage.model.state_dict().items()
        self.average = {name: w.clone() for name, w in weights} if stage.average else None
        self.pending: list[Tensor] = []
        self.began = time.monotonic()

    def seconds(self) -> float:
        """How long the stage has trained, earlier sessions included."""
        return time.monotonic() - self.began

    def resume(self) -> int:
        """Restore the newest state, if there is one -> the first step to take."""
        stage = self.stage
        stage.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load(stage.folder, stage.name, stage.identity)
        step, state = (found.step, found.state) if found else (0, {})
        path = stage.folder / f"{stage.name}.jsonl"
        # A finished state has no history: times differ, and its hash is an identity.
        rows = state["history"] if "history" in state else read_history(path)
        stage.history = [row for row in rows if row["step"] <= step]
        storage.write_text(path, "".join(json.dumps(row) + "\n" for row in stage.history))
        if found is None:
            return 0
        checkpoint.load_weights(stage.model, state["weights"], stage.name)
        if self.average is not None:
            self.average = state["average"]
        if "optimizer" in state:
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = True  # also where it was saved before optimisers were fused
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # empty where it was trained without float16
                self.scaler.load_state_dict(state["scaler"])
            self.pending = [torch.tensor(loss) for loss in state["pending"]]
            stage.seen[:] = map(tuple, state.get("seen", ()))
            self.began -= state["seconds"]
        elif stage.history:  # killed after the last save, before it was marked as finished
            self.began -= stage.history[-1]["seconds"]
        return step

    def take_step(self, step: int, lr: float) -> Tensor:
        """Take step 0, 1, 2, ... -> the batch's mean loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batch = self.stage.order.shown(step)
        total = torch.zeros((), device=next(self.stage.model.parameters()).device)
        with shared_spectra(self.stage.model):
            for shown in batch:
                loss = self.stage.loss_of(shown) / len(batch)
                self.scaler.scale(loss).backward()
                total += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def restart_where_collapsed(self, half: int) -> None:
        """Take other first weights, once, where half the steps have taught no more than guessing.

        Only the training's own loss is asked. A state that goes on restarts at the same step.
        """
        stage = self.stage
        loss = no_better_than_guessing(stage, half / 2, half)
        if stage.restart is None or not loss:
            return
        stage.restart()
        self.optimizer = make_optimizer(stage)
        if self.average is not None:
            self.average = {name: w.clone() for name, w in stage.model.state_dict().items()}
        told = {"step": half, "loss": round(loss, 4), "guess": round(stage.guess, 4)}
        storage.write_json(stage.folder / f"{stage.name}.restart.json", told)
        warnings.warn(
            f"The {stage.name} stage of {fold_name(stage.fold)} had learned nothing by step {half}"
            f": its loss was {loss:.2f}, that of guessing is {stage.guess:.2f}. It has begun anew.",
            stacklevel=2,
        )

    def save(self, step: int, is_last: bool) -> None:
        """Save a checkpoint; the last one holds the weights alone.

        Raises TrainingError: a loss or a weight is not finite.
        """
        self.require_finite(step)
        stage = self.stage
        state: checkpoint.State = {"weights": stage.model.state_dict()}
        if self.average is not None:
            state["average"] = self.average
        if not is_last:
            state |= {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "seconds": self.seconds(),
                "pending": [float(loss) for loss in self.pending],
                "seen": [(float(score), bool(kind)) for score, kind in stage.seen],
                "history": stage.history,
            }
        try:
            checkpoint.save(stage.folder, stage.name, step, stage.identity, state)
        except CheckpointError as error:  # a weight overflowed, though the loss was finite
            raise _diverged(stage, step, str(error)) from None

    def log(self, step: int, lr: float) -> None:
        """Add a row with the mean of the pending losses to the history."""
        self.require_finite(step)
        losses = torch.stack([torch.as_tensor(loss, device="cpu") for loss in self.pending])
        loss, seconds = round(float(losses.mean()), 6), round(self.seconds(), 2)
        row: Row = {"step": step, "loss": loss, "lr": lr, "seconds": seconds}
        for name, kind, pick in (("lowest_defective", True, min), ("highest_good", False, max)):
            scores = [float(score) for score, bad in self.stage.seen if bad == kind]
            row |= {name: round(pick(scores), 4)} if scores else {}
        self.stage.history.append(row)
        storage.append_text(self.stage.folder / f"{self.stage.name}.jsonl", json.dumps(row) + "\n")
        self.pending, self.stage.seen[:] = [], []

    def require_finite(self, step: int) -> None:
        """Raise TrainingError where one of the pending losses, up to `step`, is not finite."""
        for number, loss in enumerate(self.pending):
            if not math.isfinite(loss):
                bad = step - len(self.pending) + number + 1
                raise _diverged(self.stage, bad, "Its loss is not finite.")


def no_better_than_guessing(stage: Stage, after: float, last: int) -> float:
    """The mean loss of the steps up to `last`, where they have taught nothing; else 0."""
    rows = [row["loss"] for row in stage.history if after < row["step"] <= last]
    loss = sum(rows) / max(1, len(rows))
    return loss if last >= LEAST and loss >= COLLAPSED * stage.guess else 0.0


def _diverged(stage: Stage, step: int, why: str) -> TrainingError:
    """Mark the run as diverged -> the error, which names the images of that step."""
    images = tuple(stage.images[shown.row] for shown in stage.order.shown(step - 1))
    found = Divergence(stage=stage.name, fold=stage.fold, step=step, images=images)
    storage.write_record(stage.folder / f"{stage.name}.diverged.json", found)
    return TrainingError(
        f"The {stage.name} stage, {fold_name(stage.fold)}, diverged at step {step} "
        f"({', '.join(images)}). {why} Take a smaller {stage.name}_learning_rate in a new run; the "
        "last good checkpoint is kept."
    )


def make_optimizer(stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser, with nothing remembered yet; fused, it reads each weight once."""
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[stage.recipe.optimizer]
    return kind(stage.model.parameters(), lr=stage.recipe.learning_rate, fused=True)


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
