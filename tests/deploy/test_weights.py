"""A model that is given away comes back as it was, and only whole."""

import io
import json
import pickle
import shutil
from dataclasses import replace

import pytest
import requests
import torch
from safetensors.torch import load, save
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.data import sources
from ksdd_lib.deploy import detection, weights
from ksdd_lib.errors import CheckpointError, RunError
from ksdd_lib.evaluation.scoring import evaluate
from ksdd_lib.methods.stage_training import train_stage, trained_judge
from ksdd_lib.models import two_stage


@pytest.fixture(scope="module")
def trained(narrow, tmp_path_factory):
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


@pytest.fixture(scope="module")
def original(trained, tmp_path_factory):
    """The published file of the run, which stays as it is."""
    run, data = trained
    path = tmp_path_factory.mktemp("published") / "tiny.safetensors"
    weights.publish(run, data, 0, path)
    return path


@pytest.fixture
def file(original, tmp_path):
    for part in (original, original.with_suffix(".json")):
        shutil.copy(part, tmp_path)
    return tmp_path / original.name


def test_the_weights_come_back_in_half_precision(trained, file):
    run, data = trained
    judge, _ = weights.load(file)
    before, after = trained_judge(run, data, 0).tensors(), judge.tensors()
    assert list(before) == list(after)
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        torch.testing.assert_close(after[name], value, rtol=2**-10, atol=1e-7)
    assert file.stat().st_size < 32_000_000


@pytest.mark.fault(83)
def test_a_mask_without_normalisation_is_trained_judged_and_given_away(narrow, tmp_path):
    data = tiny_data(tmp_path / "data")
    run = tiny_run(tmp_path / "run", segmentation_steps=2, decision_steps=1, mask_norm=False)
    storage.write_record(run.folder / "data.json", data.record)
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    evaluate(run, data)
    weights.publish(run, data, 0, tmp_path / "plain.safetensors")
    judge, card = weights.load(tmp_path / "plain.safetensors")
    before, after = trained_judge(run, data, 0).tensors(), judge.tensors()
    assert "segmentation.mask.bias" in after and before.keys() == after.keys()
    pixels = torch.randint(0, 255, (1, 1, 128, 128), dtype=torch.uint8)
    for mine, theirs in zip(
        trained_judge(run, data, 0).judge(pixels), judge.judge(pixels), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0.1)  # in half precision
    normalised = replace(run, settings=replace(run.settings, mask_norm=True))
    with pytest.raises(CheckpointError, match="mask_norm"):
        train_stage(normalised, data, 0, "segmentation")


def test_the_card_says_licence_use_and_origin(trained, file):
    run, data = trained
    _, card = weights.load(file)
    first = file.with_suffix(".json").read_text().splitlines()[1]
    assert first.strip().startswith('"licence"')
    assert card.threshold == storage.read_json(run.folder / "metrics.json")["folds"][0]["threshold"]
    [pixels] = storage.read_json(run.folder / "metrics.json")["pixel_scores"]["folds"]
    assert (card.mask_threshold, pixels["threshold_from"]["images"]) == (pixels["threshold"], 0)
    assert card.image_size == "128x128" and card.average_flips is True
    assert card.never_trained_on == [data.folds[0].test[0].item]
    assert str(run.folder) not in file.with_suffix(".json").read_text()


@pytest.mark.fault(67)
@pytest.mark.parametrize("value", [0.125, 0.75])
def test_a_mask_threshold_goes_from_the_results_by_the_card_to_the_verdict(
    trained, file, tmp_path, value
):
    run, data = trained
    before = storage.read_json(run.folder / "metrics.json")
    [fold] = before["pixel_scores"]["folds"]
    changed = before["pixel_scores"] | {"folds": [fold | {"threshold": value}]}
    try:
        storage.write_json(run.folder / "metrics.json", before | {"pixel_scores": changed})
        assert detection.of_run(run, data, 0).mask_threshold == value
        weights.publish(run, data, 0, tmp_path / "new.safetensors")
        del before["pixel_scores"]  # as in results of an earlier version
        storage.write_json(run.folder / "metrics.json", before)
        assert detection.of_run(run, data, 0).mask_threshold == 0.5
    finally:
        before["pixel_scores"] = changed | {"folds": [fold]}
        storage.write_json(run.folder / "metrics.json", before)
    assert detection.load(tmp_path / "new.safetensors").mask_threshold == value
    found = detection.load(tmp_path / "new.safetensors").judge(data.samples[0].image_path)
    assert found.mask_threshold == value
    card = storage.read_json(file.with_suffix(".json"))
    storage.write_json(
        file.with_suffix(".json"), {k: v for k, v in card.items() if "mask" not in k}
    )
    assert detection.load(file).mask_threshold == 0.5  # of a card of an earlier version


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


WRONG = {
    "threshold": ["NaN", "Infinity", "-Infinity", "1e400", "1e300", "null", '"0.5"', "true", "[]"],
    "mask_threshold": ["NaN", "-0.1", "1.1", "null", '"0.5"', "true", "[]"],
    "segmentation_loss": ['"hinge"', '"Cross_Entropy"', '""', "null", "1", "{}"],
    "average_flips": ['"no"', '"false"', "0", "1.0", "null", "[]"],
    "score": ['"sum"', "null", "3", '"both "'],
    "image_size": ['"128"', '"100x100"', '"0x0"', "128", "[128, 128]", f'"{"1" * 5000}x128"'],
    "method": ['"resnet"', '""', "null", "{}"],
    "fold": ["3", "-1", "0.5", '"0"', "true", "NaN"],
    "file": ["null", "3"],
    "sha256": ["null", "7"],
    "licence": ["null", "[]"],
    "data": ["null", '"KolektorSDD"', "[]", '{"name": 1, "fingerprint": "f"}'],
    "never_trained_on": ["null", '"kos01"', "[1]"],
    "settings": ["[]", '{"seed": null}', '{"seed": [1]}'],
    "environment": ["3", '{"torch": 2.5}'],
}


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_wrong_field_of_a_card_is_one_sentence_that_names_it(file, field, value):
    path = file.with_suffix(".json")
    card = storage.read_json(path) | {field: "@"}
    path.write_text(json.dumps(card).replace('"@"', value))
    with pytest.raises(
        CheckpointError, match=rf"tiny.json is not the card.*\b{field}\b"
    ) as refusal:
        weights.load(file)
    assert "\n" not in str(refusal.value)


@pytest.mark.fault(51)
@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "{", "", "[" * 10_000, b"\xff\xfe{"])
def test_a_card_that_is_no_json_of_its_kind_is_refused(file, content):
    path = file.with_suffix(".json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match="tiny.json is not the card"):
        weights.load(file)


def with_header(content, change):
    """The content of a weights file with a changed header."""
    size = int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8 : 8 + size]))
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def with_first(**values):
    """What changes the header's entry of the first tensor."""
    return lambda head: head | {name: head[name] | values for name in list(head)[:1]}


def overlapping(header):
    """Two tensors lie in the same place."""
    first, second = [name for name in header if name != "__metadata__"][:2]
    return header | {second: header[first]}


def resaved(content, change):
    """A weights file with changed tensors."""
    return save(change(load(content)))


def first(tensors, change):
    """The tensors, the first one changed."""
    name = min(tensors)  # a file has them in any order
    return tensors | {name: change(tensors[name])}


MALFORMED = {
    "empty": lambda c: b"",
    "too short": lambda c: c[:5],
    "no header": lambda c: bytes(8),
    "absurd header length": lambda c: b"\xff" * 8 + c[8:],
    "a header longer than the file": lambda c: (2 * len(c)).to_bytes(8, "little") + c[8:],
    "header is a list": lambda c: with_header(c, lambda head: []),
    "header is a text": lambda c: with_header(c, lambda head: "x"),
    "header is null": lambda c: with_header(c, lambda head: None),
    "header is no JSON": lambda c: with_header(c, lambda head: b"{tensors"),
    "header is not UTF-8": lambda c: with_header(c, lambda head: b'{"\xff": 1}'),
    "deep header": lambda c: with_header(c, lambda head: b'{"a":' * 10_000 + b"}" * 10_000),
    "entry without a type": lambda c: with_header(c, lambda head: dict.fromkeys(head, {})),
    "unknown type": lambda c: with_header(c, with_first(dtype="Q7")),
    "a type that torch lacks": lambda c: with_header(c, with_first(dtype="F8_E8M0")),
    "a type of another size": lambda c: with_header(c, with_first(dtype="F32")),
    "negative shape": lambda c: with_header(c, with_first(shape=[-1])),
    "huge shape": lambda c: with_header(c, with_first(shape=[2**40, 2**40])),
    "offsets beyond the end": lambda c: with_header(c, with_first(data_offsets=[0, 10**12])),
    "offsets reversed": lambda c: with_header(c, with_first(data_offsets=[2, 0])),
    "overlapping offsets": lambda c: with_header(c, overlapping),
    "cut": lambda c: c[:-100],
    "with more at the end": lambda c: c + b"x" * 100,
    "not safetensors": lambda c: b"<!doctype html><html>" + c,
    "a pickle": lambda c: pickle.dumps({"weights": [1.0]}),
    "whole numbers": lambda c: resaved(c, lambda t: {k: v.to(torch.int8) for k, v in t.items()}),
    "one of whole numbers": lambda c: resaved(c, lambda t: first(t, lambda v: v.int())),
    "yes and no": lambda c: resaved(c, lambda t: first(t, lambda v: v > 0)),
    "in eight bits": lambda c: resaved(c, lambda t: first(t, lambda v: v.to(torch.float8_e5m2))),
    "a tensor missing": lambda c: resaved(c, lambda t: dict(list(t.items())[1:])),
    "a tensor more": lambda c: resaved(c, lambda t: t | {"more": torch.zeros(2)}),
    "no tensor": lambda c: save({}),
    "another shape": lambda c: resaved(c, lambda t: first(t, lambda v: v.flatten()[:1])),
    "NaN": lambda c: resaved(c, lambda t: first(t, lambda v: v * float("nan"))),
    "infinite": lambda c: resaved(c, lambda t: first(t, lambda v: v + float("inf"))),
}


@pytest.mark.fault(51)
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_weights_file_of_a_card_that_names_it_is_refused(file, kind):
    file.write_bytes(MALFORMED[kind](file.read_bytes()))
    card = storage.read_json(file.with_suffix(".json")) | {"sha256": storage.sha256(file)}
    storage.write_json(file.with_suffix(".json"), card)
    with pytest.raises(CheckpointError, match="tiny.safetensors"):
        weights.load(file)


@pytest.mark.fault(30)
def test_a_fold_that_is_not_trained_cannot_be_published(trained, tmp_path):
    with pytest.raises(RunError, match="Fold 1 is not evaluated"):
        weights.publish(*trained, 1, tmp_path / "tiny.safetensors")


RUN_FILES = ["metrics", "settings", "data", "environment", "owner", "folds", "timing"]
RUN_FILES += ["fold0/scores", "fold0/segmentation-000001", "fold0/decision.done"]


@pytest.mark.fault(57)
@pytest.mark.parametrize("name", RUN_FILES)
def test_no_file_of_the_run_is_replaced_by_a_card(trained, name):
    run, data = trained
    (run.folder / "owner.json").unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in run.folder.rglob("*.*")}
    with pytest.raises(RunError, match="is a file of the run: name another place"):
        weights.publish(run, data, 0, run.folder / f"{name}.safetensors")
    assert {path: path.read_bytes() for path in run.folder.rglob("*.*")} == before


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("theirs", "content"),
    [
        ("mine.json", "{}"),
        ("mine.json", '{"file": "notes", "threshold": 1}'),
        ("mine.json", "[]"),
        ("mine.json", "notes"),
        ("mine.safetensors", "weights of another model"),
    ],
)
def test_no_file_of_the_user_is_replaced(trained, tmp_path, theirs, content):
    (tmp_path / theirs).write_text(content)
    with pytest.raises(RunError, match="mine.safetensors or mine.json is there already"):
        weights.publish(*trained, 0, tmp_path / "mine.safetensors")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(theirs, content)]


def test_a_model_may_be_published_again(trained, file):
    """Also after a kill between its two files, and over one of an earlier version."""
    card = file.with_suffix(".json")
    whole = file.read_bytes(), card.read_bytes()
    card.unlink()
    weights.publish(*trained, 0, file)
    assert (file.read_bytes(), card.read_bytes()) == whole
    file.write_bytes(b"an earlier one")
    card.write_text('{"file": "tiny.safetensors", "sha256": "0"}')
    weights.publish(*trained, 0, file)
    assert (file.read_bytes(), card.read_bytes()) == whole


class TestPublished:
    """The published model is taken from the checkout, else fetched once."""

    @pytest.fixture(autouse=True)
    def nothing_here(self, monkeypatch, tmp_path):
        monkeypatch.setattr(weights, "CHECKOUT", tmp_path / "checkout")
        monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def repository(self, file, tmp_path, monkeypatch):
        """The place of the file in the repository whose address the package knows."""
        place = tmp_path / "repository" / "raw" / "main" / weights.PUBLISHED
        place.parent.mkdir(parents=True)
        for part in (file, file.with_suffix(".json")):
            shutil.copy(part, place.with_suffix(part.suffix))

        def download(address, path):
            assert address.startswith("https://example.org/raw/main/")
            shutil.copy(address.replace("https://example.org", str(tmp_path / "repository")), path)

        monkeypatch.setattr(weights, "repository", lambda: "https://example.org")
        monkeypatch.setattr(sources, "_download", download)
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
        with pytest.raises(CheckpointError, match="could not be fetched from https:.*hash"):
            weights.published()
        assert not list((tmp_path / "home").rglob("*.safetensors"))
        repository.write_bytes(whole)
        weights.load(weights.published())

    @pytest.mark.fault(6)
    def test_a_part_that_is_not_of_it_does_not_block_it(self, repository, tmp_path):
        place = tmp_path / "home" / weights.PUBLISHED
        place.parent.mkdir(parents=True)
        for suffix in (".safetensors.part", ".json.part"):
            place.with_suffix(suffix).write_bytes(b"of something else")
        weights.load(weights.published())
        assert {path.suffix for path in place.parent.iterdir()} == {".safetensors", ".json"}

    @pytest.mark.fault(6)
    @pytest.mark.parametrize("page", [b"<html>not found</html>", b"{}", b""])
    def test_a_card_that_is_none_is_not_kept(self, repository, tmp_path, page):
        repository.with_suffix(".json").write_bytes(page)
        with pytest.raises(CheckpointError, match="could not be fetched.* is not the card"):
            weights.published()
        assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]

    @pytest.mark.fault(6)
    @pytest.mark.parametrize("address", ["", "http://example.org/parts", "file:///parts"])
    def test_not_here_and_no_safe_place_to_fetch_it(self, monkeypatch, address):
        monkeypatch.setattr(weights, "repository", lambda: address)
        with pytest.raises(CheckpointError, match="is not here: take a whole copy"):
            weights.published()

    @pytest.mark.fault(6)
    def test_a_redirect_to_http_is_not_followed(self, tmp_path, monkeypatch):
        asked = []

        def answer(adapter, request, **_):
            asked.append(request.url)
            response = requests.Response()
            response.status_code, response.url, response.request = 302, request.url, request
            response.headers["Location"] = "http://plain.org/ksdd.json"
            response.raw = io.BytesIO()
            return response

        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
        monkeypatch.setattr(sources.time, "sleep", lambda _: None)
        monkeypatch.setattr(weights, "repository", lambda: "https://example.org")
        with pytest.raises(CheckpointError, match="could not be fetched.*leads to http"):
            weights.published()
        assert asked and all(url.startswith("https://example.org/") for url in asked)


def test_the_published_model_is_whole_and_says_whose_it_is(monkeypatch):
    monkeypatch.setattr(two_stage, "FEATURES", 1024)
    path = weights.published()
    judge, card = weights.load(path)
    assert card.licence.startswith("CC BY-NC-SA 4.0")
    assert path.stat().st_size <= 32 * 2**20
    assert card.never_trained_on and card.threshold is not None
    assert not any(p.requires_grad for p in judge.model.parameters())
