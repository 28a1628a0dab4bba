"""What a choice will take is computed from one measurement on this machine, which is kept."""

from collections.abc import Callable

import pytest
import torch

from ksdd_lib import estimate, model, storage
from ksdd_lib.estimate import Pace
from ksdd_lib.settings import resolve

TINY = {"preset": "demo", "image_size": "128x128", "fold": "0"}


def test_minutes_follow_from_steps_batches_and_folds():
    settings = resolve({"preset": "cpu", "fold": "0"})
    one = estimate.minutes(settings, Pace(training=0.6, scoring=0.12))
    assert one == pytest.approx(
        {"segmentation": 400 * 2 * 0.6 / 60, "decision": 250 * 8 * 0.12 / 60}
    )
    all_folds = estimate.minutes(resolve({"preset": "cpu"}), Pace(0.6, 0.12))
    assert all_folds == pytest.approx({stage: 3 * value for stage, value in one.items()})


def test_a_measurement_is_kept_for_its_size_and_arithmetic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "FEATURES", 8)
    settings = resolve(TINY | {"precision": "float32"})
    assert estimate.known_pace(settings) is None
    pace = estimate.measure_pace(settings)
    assert pace.training > 0 and pace.scoring > 0
    assert estimate.known_pace(settings) == pace
    assert estimate.known_pace(resolve(TINY | {"image_size": "144x128"})) is None
    estimate.measure_pace(resolve(TINY | {"precision": "float32", "image_size": "144x128"}))
    assert estimate.known_pace(settings) == pace


def test_training_is_timed_with_its_backward_pass_and_scoring_without(
    monkeypatch: pytest.MonkeyPatch,
):
    backward, calls = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: [calls.append(1), backward(loss)])

    def seconds(work: Callable[[], None], _: torch.device) -> float:
        before = len(calls)
        work()
        return 1.0 + len(calls) - before

    monkeypatch.setattr(model, "FEATURES", 8)
    monkeypatch.setattr(estimate, "_seconds", seconds)
    assert estimate.measure_pace(resolve(TINY)) == Pace(training=2.0, scoring=1.0)


def test_a_damaged_cache_is_measured_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "FEATURES", 8)
    path = storage.cache_folder() / "pace.json"
    storage.write_text(path, "{")
    assert estimate.known_pace(resolve(TINY)) is None
    estimate.measure_pace(resolve(TINY))
    assert estimate.known_pace(resolve(TINY)) is not None


def test_the_sentence_tells_memory_always_and_minutes_once_they_were_measured(monkeypatch):
    settings = resolve({"preset": "cpu", "precision": "float32"})
    assert estimate.describe(settings).startswith("A training step takes about 2.1 GB of memory (")
    monkeypatch.setattr(estimate, "known_pace", lambda settings: Pace(0.6, 0.12))
    assert estimate.describe(settings).startswith(
        "3 folds: about 24 min for the segmentation network, at most 12 min for the decision "
        "network, and 0.48 s for each image that is scored. A training step"
    )
