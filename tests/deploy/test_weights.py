"""A model that is given away comes back as it was, and only whole."""

import shutil

import pytest
import torch
from safetensors.torch import load, save
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.deploy import weights
from ksdd_lib.errors import CheckpointError, RunError
from ksdd_lib.evaluation.scoring import evaluate
from ksdd_lib.methods.stage_training import train_stage, trained_judge


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that is evaluated, and its data."""
    folder = tmp_path_factory.mktemp("weights")
    data = tiny_data(folder / "data")
    run = tiny_run(folder / "run", segmentation_steps=1, decision_steps=1, average_flips=True)
    storage.write_record(run.folder / "data.json", data.record)
    with pytest.raises(RunError, match="04_evaluate"):
        weights.publish(run, data, 0, folder / "early.safetensors")
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    evaluate(run, data)
    return run, data


@pytest.fixture
def file(trained, tmp_path):
    run, data = trained
    weights.publish(run, data, 0, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_the_weights_come_back_in_half_precision(trained, file):
    run, data = trained
    judge, _ = weights.load(file)
    before, after = trained_judge(run, data, 0).tensors(), judge.tensors()
    assert list(before) == list(after)
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        torch.testing.assert_close(after[name], value, rtol=2**-10, atol=1e-7)
    assert file.stat().st_size < 32_000_000


def test_the_card_says_licence_use_and_origin(trained, file):
    run, data = trained
    _, card = weights.load(file)
    first = file.with_suffix(".json").read_text().splitlines()[1]
    assert first.strip().startswith('"licence"')
    assert card.threshold == storage.read_json(run.folder / "metrics.json")["folds"][0]["threshold"]
    assert card.image_size == "128x128" and card.average_flips is True
    assert card.never_trained_on == [data.folds[0].test[0].item]
    assert str(run.folder) not in file.with_suffix(".json").read_text()


@pytest.mark.fault(22)
def test_a_damaged_file_is_refused(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not the file"):
        weights.load(file)


@pytest.mark.fault(22)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(file, value):
    content = load(file.read_bytes())
    content["decision.score.weight"].view(-1)[0] = value
    file.write_bytes(save(content))
    card = storage.read_json(file.with_suffix(".json")) | {"sha256": storage.sha256(file)}
    storage.write_json(file.with_suffix(".json"), card)
    with pytest.raises(CheckpointError, match="tiny.* not finite: decision.score.weight"):
        weights.load(file)


def test_a_file_without_its_card_is_refused(file):
    file.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="side by side"):
        weights.load(file)


@pytest.mark.fault(22)
@pytest.mark.parametrize("card", [{}, [], "of an earlier version"])
def test_a_card_that_does_not_say_how_to_use_the_weights_is_refused(file, card):
    path = file.with_suffix(".json")
    if card == "of an earlier version":
        card = storage.read_json(path)
        del card["score"]
    storage.write_json(path, card)
    refusal = r"tiny.json is not the card.*(file|object|score).*publish"
    with pytest.raises(CheckpointError, match=refusal):
        weights.load(file)


@pytest.mark.fault(30)
def test_a_fold_that_is_not_trained_cannot_be_published(trained, tmp_path):
    with pytest.raises(RunError, match="Fold 1 is not evaluated"):
        weights.publish(*trained, 1, tmp_path / "tiny.safetensors")


class TestPublished:
    """The published model is taken from the checkout, else fetched once."""

    @pytest.fixture(autouse=True)
    def nothing_here(self, monkeypatch, tmp_path):
        monkeypatch.setattr(weights, "CHECKOUT", tmp_path / "checkout")
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def repository(self, file, tmp_path, monkeypatch):
        """The place of the file in the repository whose address the package knows."""
        monkeypatch.setattr(weights, "_repository", (tmp_path / "repository").as_uri)
        place = tmp_path / "repository" / "raw" / "main" / weights.PUBLISHED
        place.parent.mkdir(parents=True)
        for part in (file, file.with_suffix(".json")):
            shutil.copy(part, place.with_suffix(part.suffix))
        return place

    def test_of_the_checkout(self, file, tmp_path):
        place = tmp_path / "checkout" / weights.PUBLISHED
        place.parent.mkdir(parents=True)
        for part in (file, file.with_suffix(".json")):
            shutil.copy(part, place.with_suffix(part.suffix))
        assert weights.published() == place

    def test_fetched_once(self, repository, tmp_path):
        path = weights.published()
        assert path == tmp_path / "home" / weights.PUBLISHED
        weights.load(path)
        repository.unlink()
        assert weights.published() == path

    def test_cut_on_the_way_it_is_not_kept(self, repository, tmp_path):
        whole = repository.read_bytes()
        repository.write_bytes(whole[:-1000])
        with pytest.raises(CheckpointError, match="could not be fetched from file:.*hash"):
            weights.published()
        assert not list((tmp_path / "home").rglob("*.safetensors"))
        repository.write_bytes(whole)
        weights.load(weights.published())

    def test_neither_here_nor_there(self, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "_repository", str)
        with pytest.raises(CheckpointError, match="is not here: take a whole copy"):
            weights.published()
        monkeypatch.setattr(weights, "_repository", (tmp_path / "nowhere").as_uri)
        with pytest.raises(CheckpointError, match="could not be fetched from file:.*nowhere"):
            weights.published()


def test_the_published_model_is_whole_and_says_whose_it_is():
    path = weights.published()
    judge, card = weights.load(path)
    assert card.licence.startswith("CC BY-NC-SA 4.0")
    assert path.stat().st_size <= 32 * 2**20
    assert card.never_trained_on and card.threshold is not None
    assert not any(p.requires_grad for p in judge.model.parameters())
