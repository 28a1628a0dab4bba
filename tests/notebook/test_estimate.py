"""What a choice will take is computed from one measurement on this machine, which is kept."""

from collections.abc import Callable

import pytest
import torch

from ksdd_lib import machine, storage
from ksdd_lib.methods import two_stage_pace
from ksdd_lib.methods.two_stage_pace import Pace
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import estimate
from ksdd_lib.presets import resolve

TINY = {"preset": "demo", "image_size": "128x128", "fold": "0"}
PACE = Pace(training=0.6, scoring=0.12, deciding=0.02)


def test_minutes_follow_from_steps_batches_and_folds():
    one = two_stage_pace.minutes(resolve({"preset": "cpu", "fold": "0"}), PACE)
    assert one == pytest.approx(
        {"segmentation": 400 * 2 * 0.6 / 60, "decision": 250 * 8 * (0.12 + 0.02) / 60}
    )
    all_folds = two_stage_pace.minutes(resolve({"preset": "cpu"}), PACE)
    assert all_folds == pytest.approx({stage: 3 * value for stage, value in one.items()})


def test_what_is_asked_only_once_is_counted_once(monkeypatch: pytest.MonkeyPatch):
    """At most 399 images in four views, where nothing is pasted: not 8,000 passes."""
    monkeypatch.setattr(machine, "arithmetic", lambda *_: torch.bfloat16)
    best = {"preset": "best", "fold": "0"}

    def minutes(**others) -> float:
        return two_stage_pace.minutes(resolve(best | others), PACE)["decision"]

    assert minutes() == pytest.approx((8 * 1000 * 0.02 + 4 * 399 * 0.12) / 60)
    every = pytest.approx(8 * 1000 * (0.02 + 0.12) / 60)
    assert minutes(image_size="1408x512") == every  # too large to be kept in memory
    assert minutes(decision_copy_paste=True) == every
    assert minutes(data="mine.zip") == every
    assert minutes(rotation=True) == every
    few = resolve(TINY | {"generated_items": 6, "decision_steps": 9000})
    views = 4 if few.flips else 1
    expected = few.decision_batch_size * 9000 * 0.02 + 48 * views * 0.12
    assert two_stage_pace.minutes(few, PACE)["decision"] == pytest.approx(expected / 60)


def test_a_measurement_is_kept_for_its_size_and_arithmetic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    settings = resolve(TINY | {"precision": "float32"})
    assert estimate.known_pace(settings) is None
    estimate.measure_pace(settings)
    pace = estimate.known_pace(settings)
    assert min(pace.training, pace.scoring, pace.deciding) > 0
    assert estimate.known_pace(resolve(TINY | {"image_size": "144x128"})) is None
    estimate.measure_pace(resolve(TINY | {"precision": "float32", "image_size": "144x128"}))
    assert estimate.known_pace(settings) == pace


def test_trainings_are_timed_with_their_backward_pass_and_scoring_without(
    monkeypatch: pytest.MonkeyPatch,
):
    backward, calls = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: [calls.append(1), backward(loss)])

    def seconds(work: Callable[[], None], _: torch.device) -> float:
        before = len(calls)
        work()
        return 1.0 + len(calls) - before

    monkeypatch.setattr(two_stage, "FEATURES", 8)
    monkeypatch.setattr(two_stage_pace, "seconds", seconds)
    found = two_stage_pace.measure(resolve(TINY))
    assert found == Pace(training=2.0, scoring=1.0, deciding=2.0)


@pytest.mark.parametrize("stored", ["{", '{"training": 1.0, "scoring": 1.0}'])
def test_a_damaged_or_earlier_cache_is_measured_again(stored, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    storage.write_text(estimate._file(resolve(TINY)), stored)
    assert estimate.known_pace(resolve(TINY)) is None
    estimate.measure_pace(resolve(TINY))
    assert estimate.known_pace(resolve(TINY)) is not None


def test_the_sentence_tells_memory_always_and_minutes_once_they_were_measured(monkeypatch):
    settings = resolve({"preset": "cpu", "precision": "float32"})
    assert estimate.describe(settings).startswith("A training step takes about 2.1 GB of memory (")
    monkeypatch.setattr(estimate, "known_pace", lambda settings: PACE)
    assert estimate.describe(settings).startswith(
        "3 folds: about 24 min for the segmentation stage, about 14 min for the decision stage, "
        "and 0.48 s for each image that is scored. A training step"
    )


def test_a_method_without_a_training_needs_no_estimate():
    settings = resolve(TINY | {"method": "darkest_pixel"})
    estimate.measure_pace(settings)
    assert estimate.describe(settings) == "This method needs no training."
