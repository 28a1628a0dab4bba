"""Full training state on disk: whole or absent, checked by hash, tied to what it was trained on.

A checkpoint is `<stage>-<step>.pt` and then its marker `<stage>-<step>.json` with the size and
SHA-256. Without a matching marker it does not exist: a kill loses the steps since the one before.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ksdd_lib import storage
from ksdd_lib.errors import CheckpointError, KsddError, RunError
from ksdd_lib.formatting import listed
from ksdd_lib.settings import Settings
from ksdd_lib.storage import FileHash

Identity = dict[str, str | bool | int | float | None]
"""What a state was trained on: data, fold, settings, predecessor."""

State = dict[str, Any]
"""Nested dicts and lists of tensors and plain values."""

SCHEMA = 1
"""Version of the layout; raised when an older reader would misread a newer checkpoint."""

KEPT = 2
"""Checkpoints of a stage that stay on disk."""

LISTED = 8
"""Differing tensors that an error names."""


class Marker(FileHash):
    """The marker of a checkpoint: it is written last."""

    version: int = Field(alias="schema")
    step: int
    identity: Identity


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its step, its state, and the hash by which later stages name it."""

    step: int
    state: State
    sha256: str

    @property
    def judging_weights(self) -> dict[str, Tensor]:
        """The weights to judge by: their running average where one was kept."""
        return self.state["average"] if "average" in self.state else self.state["weights"]


def save(folder: Path, stage: str, step: int, identity: Identity, state: State) -> Path:
    """Write the state after `step` steps and return the marker's path.

    Raises CheckpointError: a weight is not finite.
    Raises OSError: the disk is full; earlier checkpoints are untouched.
    """
    require_finite(state, f"The weights of the {stage} stage after step {step}")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"{stage}-{step:06d}.pt"
    marker = path.with_suffix(".json")
    known = FileHash.of(data).model_dump() | {"identity": identity}
    storage.write_bytes(path, data)
    try:
        storage.write_json(marker, {"schema": SCHEMA, "step": step} | known)
    except OSError:
        storage.remove(path)
        raise
    _clear(folder, stage, step)
    return marker


def load(folder: Path, stage: str, identity: Identity) -> Checkpoint | None:
    """The newest valid checkpoint of the stage, on the CPU, or None where there is none.

    A damaged one is passed over with a warning. Weights are read as plain tensors; no code in the
    file is run.

    Raises CheckpointError: it is of other data, another fold, other settings or a newer schema.
    """
    markers = _markers(folder, stage)
    for stray in set(folder.glob(f"{stage}-*.json")) - set(markers):
        warnings.warn(f"{stray.name} is passed over: no checkpoint has that name.", stacklevel=2)
    for path in markers:
        try:
            marker, data = _read_marker(path), path.with_suffix(".pt").read_bytes()
        except (OSError, RunError) as error:
            warnings.warn(f"{path.stem} is passed over: {error}", stacklevel=2)
            continue
        # A setting that is newer than the checkpoint had its default, which changes nothing.
        found = {key: getattr(Settings, key, None) for key in identity} | marker.identity
        if lines := _differences(identity, found):
            told = f"{path.stem} belongs to another training: {'; '.join(lines)}."
            raise CheckpointError(told, see="runs#other-settings")
        if not marker.fits(data):
            warnings.warn(f"{path.stem} is damaged and passed over.", stacklevel=2)
            continue
        state = _read(data, path.stem)
        require_finite(state, f"The weights of {path.stem}")
        return Checkpoint(marker.step, state, marker.sha256)
    return None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give a network the weights of a checkpoint.

    Raises CheckpointError, naming tensors that differ: the weights are of another architecture.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    if lines := _differences(wanted, found, "none"):
        told = listed(lines, LISTED, "; ")
        raise CheckpointError(f"The {name} weights are of another architecture: {told}.")
    model.load_state_dict(weights)


def newest_whole(folder: Path, stage: str) -> tuple[int, str | None]:
    """Step and SHA-256 of the newest checkpoint that fits its marker; (-1, None) without any."""
    for path in _markers(folder, stage):
        with contextlib.suppress(KsddError, OSError):
            marker = _read_marker(path)
            if marker.fits(path.with_suffix(".pt")):
                return marker.step, marker.sha256
    return -1, None


def newest_sha256(folder: Path, stage: str) -> str | None:
    """The hash of the newest checkpoint by its marker, without reading it; None without any."""
    for path in _markers(folder, stage):
        with contextlib.suppress(RunError):
            return _read_marker(path).sha256
    return None


def require_finite(state: Any, what: str) -> None:
    """Raise CheckpointError, naming tensors, where one in nested dicts or lists is not finite.

    `what` is the subject of its text, for example "The weights of x.safetensors".
    """
    if bad := list(_not_finite(state)):
        raise CheckpointError(f"{what} hold values that are not finite: {listed(bad, LISTED)}.")


def _step(marker: Path) -> int:
    """The step in a marker's name."""
    return int(marker.stem.rpartition("-")[2])


def _markers(folder: Path, stage: str) -> list[Path]:
    """The stage's markers, newest first."""
    name = re.compile(re.escape(stage) + r"-\d{6,}\.json")
    found = [path for path in folder.glob(f"{stage}-*.json") if name.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _read_marker(path: Path) -> Marker:
    """The marker at `path`; raises RunError where it is none, CheckpointError of another schema."""
    marker = storage.read_record(path, Marker)
    if marker.version != SCHEMA:
        text = f"{path.name} has schema {marker.version}; this ksdd_lib reads {SCHEMA}."
        raise CheckpointError(text)
    return marker


def _clear(folder: Path, stage: str, step: int) -> None:
    """Remove all but the newest up to `step` (later ones are damaged), and what a kill left."""
    kept = [marker.stem for marker in _markers(folder, stage) if _step(marker) <= step][:KEPT]
    ours = re.compile(re.escape(stage) + r"-\d{6,}\.(pt|json)")
    for path in folder.iterdir():
        if ours.fullmatch(storage.finished_name(path) or path.name) and path.stem not in kept:
            storage.remove(path)


def _read(data: bytes, name: str) -> State:
    """The state in the content of a checkpoint file."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, as the file may hold anything
        raise CheckpointError(f"{name}.pt is not a checkpoint of ksdd_lib: {error}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{name}.pt is not a checkpoint of ksdd_lib.")
    return state


def _not_finite(state: Any, name: str = "") -> Iterator[str]:
    """The keys that lead to each tensor with NaN or infinity, joined by dots."""
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        path = f"{name}.{key}".lstrip(".")
        if isinstance(value, dict | list | tuple):
            yield from _not_finite(value, path)
        elif isinstance(value, Tensor) and not value.isfinite().all():
            yield path


def _differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any], absent: Any = None
) -> list[str]:
    """ "seed: here 1, there 2" of each name under which two mappings differ."""
    keys = sorted(wanted.keys() | found.keys())
    pairs = [(key, wanted.get(key, absent), found.get(key, absent)) for key in keys]
    return [f"{key}: here {here!r}, there {there!r}" for key, here, there in pairs if here != there]
