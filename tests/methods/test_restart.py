"""A stage whose first weights learn nothing takes others, by its training loss alone."""

import json
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.deploy import detection
from ksdd_lib.deploy import weights as files
from ksdd_lib.errors import Interrupted
from ksdd_lib.evaluation.scoring import evaluate
from ksdd_lib.methods import two_stage as method
from ksdd_lib.methods.stage_training import load_stage, train_stage
from ksdd_lib.models.two_stage import DecisionNet
from ksdd_lib.reporting.wording import learned_nothing
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.training import loop, targets
from ksdd_lib.training.loop import Progress

pytestmark = pytest.mark.usefixtures("narrow")

STEPS = {
    "segmentation_steps": 1,
    "decision_steps": 40,
    "decision_batch_size": 2,
    "checkpoint_steps": 7,
    "weight_averaging": True,
}


@pytest.fixture(scope="module")
def data(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """First weights of the decision network from which nothing is learned: all are 0."""

    def initialize(model: torch.nn.Module, way: str, seed: int) -> None:
        plain(model, way, seed)
        if isinstance(model, DecisionNet) and seed < method.ANEW:
            for weights in model.parameters():
                torch.nn.init.zeros_(weights)

    plain = method.networks.initialize
    monkeypatch.setattr(method.networks, "initialize", initialize)


def train(folder: Path, data: DataSet, stop: int = 0) -> dict[str, torch.Tensor]:
    """The decision network's weights, of a training that is stopped once and goes on."""
    run = tiny_run(folder, **STEPS)

    def watch(progress: Progress) -> None:
        if progress.step == stop and progress.resumed_after == 0:
            raise KeyboardInterrupt

    train_stage(run, data, 0, "segmentation")
    try:
        train_stage(run, data, 0, "decision", watch)
    except (KeyboardInterrupt, Interrupted):
        train_stage(run, data, 0, "decision")
    return load_stage(run, data, 0, "decision").state["weights"]


@pytest.mark.fault(76)
@pytest.mark.filterwarnings("ignore:The decision stage")
def test_a_collapsed_start_is_left_for_another(
    dead: None, data: DataSet, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    weights = train(tmp_path / "run", data)
    assert any(values.any() for values in weights.values())
    told = json.loads((tmp_path / "run" / "fold0" / "decision.restart.json").read_text())
    assert told["step"] == 20 and told["loss"] == pytest.approx(0.6931, abs=1e-3)
    for stop in (3, 20, 23):  # before it, at it and after it, between two checkpoints
        again = train(tmp_path / str(stop), data, stop)
        assert all(torch.equal(weights[name], again[name]) for name in weights), stop


@pytest.mark.fault(86)
@pytest.mark.filterwarnings("ignore:The decision stage of fold 0 had")
def test_one_that_has_learned_nothing_at_the_end_says_so_everywhere(
    dead: None, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "decision_loss", lambda scores, labels: 0 * scores.sum() + 0.6931)
    run = tiny_run(tmp_path / "run", **STEPS)
    storage.write_record(run.folder / "data.json", data.record)
    train_stage(run, data, 0, "segmentation")
    with pytest.warns(UserWarning, match="has learned nothing: its loss is 0.69 at the end"):
        train_stage(run, data, 0, "decision")
    summary, stage = evaluate(run, data), "decision stage of fold 0"
    assert summary.learned_nothing == (stage,)
    assert learned_nothing(summary).startswith(f"Do not use this model: {stage}")
    files.publish(run, data, 0, tmp_path / "idle.safetensors")
    assert files.load(tmp_path / "idle.safetensors")[1].learned_nothing == (stage,)
    for detector in (detection.load(tmp_path / "idle.safetensors"), detection.of_run(run, data, 0)):
        assert f"do not use it, its {stage} learned nothing" in detector.origin


@pytest.mark.fault(86)
def test_one_that_has_learned_is_not_accused(data: DataSet, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", **STEPS)
    storage.write_record(run.folder / "data.json", data.record)
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    assert evaluate(run, data).learned_nothing is None
    assert "learned_nothing" not in (run.folder / "metrics.json").read_text()
    assert "learned nothing" not in detection.of_run(run, data, 0).origin


@pytest.mark.fault(76)
def test_one_that_learns_goes_on(data: DataSet, tmp_path: Path) -> None:
    train(tmp_path / "run", data)
    assert not (tmp_path / "run" / "fold0" / "decision.restart.json").exists()


def test_a_short_training_is_left_alone(dead: None, data: DataSet, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", **STEPS | {"decision_steps": loop.LEAST})
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    assert not (run.fold_folder(0) / "decision.restart.json").exists()
