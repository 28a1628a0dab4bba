"""A checkpoint is whole or absent, and belongs to one training."""

import errno
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ksdd_lib import storage
from ksdd_lib.errors import CheckpointError, DiskFullError
from ksdd_lib.storage import FileHash
from ksdd_lib.training import checkpoint

IDENTITY = {"stage": "segmentation", "fold": 0, "data": "abc", "seed": 1}


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "weights": {"a": torch.full((3, 2), value), "b": torch.arange(4)},
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
        "pending": [0.5, 0.25],
        "seconds": 1.5,
    }


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, "segmentation", step, IDENTITY, state(float(step)))


def load(folder: Path) -> checkpoint.Checkpoint | None:
    return checkpoint.load(folder, "segmentation", IDENTITY)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def weights_file(folder: Path, step: int) -> Path:
    return folder / f"segmentation-{step:06d}.pt"


def forge(folder: Path, step: int, data: bytes, **changes: Any) -> None:
    """A checkpoint with this content whose marker has the right hash."""
    record = {"schema": checkpoint.SCHEMA, "step": step, **FileHash.of(data).model_dump()}
    record |= {"bytes": len(data), "identity": IDENTITY} | changes
    weights_file(folder, step).write_bytes(data)
    weights_file(folder, step).with_suffix(".json").write_text(json.dumps(record))


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = load(tmp_path)
    assert found.step == 7
    assert torch.equal(found.state["weights"]["a"], torch.full((3, 2), 7.0))
    assert torch.equal(found.state["weights"]["b"], torch.arange(4))
    assert found.state["optimizer"] == state()["optimizer"]
    assert (found.state["pending"], found.state["seconds"]) == ([0.5, 0.25], 1.5)
    assert found.sha256 == storage.sha256(weights_file(tmp_path, 7))


def test_equal_states_have_equal_hashes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        checkpoint.save(tmp_path / folder, "segmentation", 1, IDENTITY, state())
    assert load(tmp_path / "a").sha256 == load(tmp_path / "b").sha256


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None and load(tmp_path / "absent") is None
    assert checkpoint.newest_whole(tmp_path, "segmentation")[0] == -1


def test_only_the_two_newest_are_kept_and_stages_do_not_mix(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "decision", 1, IDENTITY, state())
    save(tmp_path, 8, 9, 10, 11)
    kept = [f"segmentation-{step:06d}.{end}" for step in (10, 11) for end in ("json", "pt")]
    assert names(tmp_path) == ["decision-000001.json", "decision-000001.pt", *kept]
    assert load(tmp_path).step == 11
    assert checkpoint.newest_whole(tmp_path, "segmentation")[0] == 11
    assert checkpoint.newest_whole(tmp_path, "decision")[0] == 1


def test_the_longest_training_is_found_again(tmp_path: Path) -> None:
    save(tmp_path, 999_999, 1_000_000)
    assert load(tmp_path).step == 1_000_000


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("damage", "end"),
    [
        (truncate, ".pt"),
        (flip_a_byte, ".pt"),
        (empty, ".pt"),
        (Path.unlink, ".pt"),
        (truncate, ".json"),
        (empty, ".json"),
    ],
)
def test_a_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, damage: Any, end: str
) -> None:
    save(tmp_path, 5, 10)
    damage(weights_file(tmp_path, 10).with_suffix(end))
    with pytest.warns(UserWarning, match="segmentation-000010 is .*passed over"):
        assert load(tmp_path).step == 5


def without(field: str) -> str:
    record = {
        "schema": checkpoint.SCHEMA,
        "step": 10,
        "bytes": 1,
        "sha256": "0" * 64,
        "identity": IDENTITY,
    }
    return json.dumps({name: value for name, value in record.items() if name != field})


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "content", ["[]", "3", "null", "{}", *map(without, ("schema", "step", "sha256", "identity"))]
)
def test_a_marker_that_is_none_falls_back_to_the_one_before(tmp_path: Path, content: str) -> None:
    save(tmp_path, 5, 10)
    weights_file(tmp_path, 10).with_suffix(".json").write_text(content)
    with pytest.warns(
        UserWarning, match="segmentation-000010 is passed over: .* not as it was written"
    ):
        assert load(tmp_path).step == 5


@pytest.mark.fault(22)
@pytest.mark.parametrize("stray", ["segmentation-000099 (1).json", "segmentation-best.json"])
def test_a_file_of_another_name_is_passed_over(tmp_path: Path, stray: str) -> None:
    save(tmp_path, 5)
    (tmp_path / stray).write_bytes(weights_file(tmp_path, 5).with_suffix(".json").read_bytes())
    with pytest.warns(UserWarning, match=re.escape(f"{stray} is passed over")):
        assert load(tmp_path).step == 5
    assert checkpoint.newest_whole(tmp_path, "segmentation")[0] == 5
    save(tmp_path, 6)
    assert load(tmp_path).step == 6


@pytest.mark.fault(22)
def test_with_all_damaged_the_next_one_saved_is_kept(tmp_path: Path) -> None:
    save(tmp_path, 50, 100)
    for step in (50, 100):
        truncate(weights_file(tmp_path, step))
    with pytest.warns(UserWarning, match="passed over"):
        assert load(tmp_path) is None
    save(tmp_path, 10)
    assert load(tmp_path).step == 10


@pytest.mark.fault(21)
def test_another_training_is_refused_field_by_field(tmp_path: Path) -> None:
    save(tmp_path, 5)
    other = {"stage": "segmentation", "fold": 2, "data": "abc", "seed": 1, "rotation": True}
    with pytest.raises(CheckpointError) as refusal:
        checkpoint.load(tmp_path, "segmentation", other)
    assert "fold: here 2, there 0" in str(refusal.value)
    assert "rotation: here True, there False" in str(refusal.value)
    assert "seed" not in str(refusal.value)


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("field", "here"), [("seed", 2), ("stage", "decision"), ("fold", 1), ("data", "abd")]
)
def test_a_checkpoint_of_another_seed_stage_fold_or_data_is_refused(
    tmp_path: Path, field: str, here: Any
) -> None:
    save(tmp_path, 5)
    difference = f"{field}: here {here!r}, there {IDENTITY[field]!r}"
    with pytest.raises(CheckpointError, match=f"another training: {difference}[.]"):
        checkpoint.load(tmp_path, "segmentation", IDENTITY | {field: here})


def test_the_newest_is_known_by_its_marker(tmp_path: Path) -> None:
    assert checkpoint.newest_sha256(tmp_path, "segmentation") is None
    save(tmp_path, 5, 10)
    for step in (10, 5):
        digest = storage.sha256(weights_file(tmp_path, step))
        assert checkpoint.newest_sha256(tmp_path, "segmentation") == digest
        weights_file(tmp_path, step).with_suffix(".json").write_text("[]")
    assert checkpoint.newest_sha256(tmp_path, "segmentation") is None


@pytest.mark.fault(22)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    tmp_path: Path, bad: float
) -> None:
    save(tmp_path, 5)
    with pytest.raises(CheckpointError, match="not finite"):
        save_bad = state() | {"average": {"a": torch.tensor([1.0, bad])}}
        checkpoint.save(tmp_path, "segmentation", 6, IDENTITY, save_bad)
    assert load(tmp_path).step == 5
    torch.save({"weights": {"a": torch.tensor([bad])}}, weights_file(tmp_path, 6))
    forge(tmp_path, 6, weights_file(tmp_path, 6).read_bytes())
    with pytest.raises(CheckpointError, match="not finite"):
        load(tmp_path)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.fault(23)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", [pickle.dump, torch.save])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, writer: Any) -> None:
    folder, harm = tmp_path / "run", tmp_path / "harm"
    folder.mkdir()
    with open(weights_file(folder, 5), "wb") as file:
        writer({"weights": Malicious(harm)}, file)
    forge(folder, 5, weights_file(folder, 5).read_bytes())
    with pytest.raises(CheckpointError, match="not a checkpoint of ksdd_lib"):
        load(folder)
    assert not harm.exists()


@pytest.mark.fault(23)
def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    forge(tmp_path, 5, weights_file(tmp_path, 5).read_bytes(), schema=99)
    with pytest.raises(CheckpointError, match="schema 99.* reads 1"):
        load(tmp_path)


@pytest.mark.fault(24)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, written: int
) -> None:
    save(tmp_path, 5)
    before, done, real = names(tmp_path), [], getattr(os, call)

    def full_after(*args: Any) -> Any:
        done.append(args)
        if len(done) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, call, full_after)
    with pytest.raises(DiskFullError, match="no room for segmentation-000006"):
        save(tmp_path, 6)
    assert names(tmp_path) == before
    assert load(tmp_path).step == 5


@pytest.mark.fault(19)
@pytest.mark.fault(24)
def test_files_of_a_killed_save_are_cleared_by_the_next(tmp_path: Path) -> None:
    save(tmp_path, 5)
    weights_file(tmp_path, 6).write_bytes(b"no marker came")
    (tmp_path / ".segmentation-000006.pt.123.tmp").write_bytes(b"half")
    assert load(tmp_path).step == 5
    save(tmp_path, 7)
    steps = [f"segmentation-{step:06d}.{end}" for step in (5, 7) for end in ("json", "pt")]
    assert names(tmp_path) == steps


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    "name",
    [
        "segmentation-best.pt",
        "segmentation-000001 (1).pt",
        "segmentation-000001.pt.bak",
        "segmentation-000001-copy.pt",
        "segmentation-1.pt",
        "segmentation-notes.txt",
        ".segmentation-mine.tmp",
        ".segmentation-000001.txt.77.tmp",
        "decision-000001.pt",
    ],
)
def test_a_file_of_the_user_beside_the_checkpoints_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    save(tmp_path, 5, 6, 7, 8)
    assert (tmp_path / name).read_text() == "mine"
    kept = [f"segmentation-{step:06d}.{end}" for step in (7, 8) for end in ("json", "pt")]
    assert names(tmp_path) == sorted([*kept, name])


def test_a_checkpoint_older_than_a_setting_goes_on_where_that_has_its_default(
    tmp_path: Path,
) -> None:
    save(tmp_path, 3)
    assert checkpoint.load(tmp_path, "segmentation", IDENTITY | {"copy_paste": 0.0}).step == 3
    with pytest.raises(CheckpointError, match=r"copy_paste: here 0\.5, there 0\.0"):
        checkpoint.load(tmp_path, "segmentation", IDENTITY | {"copy_paste": 0.5})
