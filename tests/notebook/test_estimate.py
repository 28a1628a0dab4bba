"""What a choice will take is computed from one measurement on this machine, which is kept."""

from collections.abc import Callable

import pytest
import torch

from ksdd_lib import storage
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import estimate
from ksdd_lib.notebook.estimate import Pace
from ksdd_lib.presets import resolve

TINY = {"preset": "demo", "image_size": "128x128", "fold": "0"}


def test_minutes_follow_from_steps_batches_and_folds():
    settings = resolve({"preset": "cpu", "fold": "0"})
    pace = Pace(training=0.6, scoring=0.12, deciding=0.02)
    one = estimate.minutes(settings, pace)
    assert one == pytest.approx(
        {"segmentation": 400 * 2 * 0.6 / 60, "decision": 250 * 8 * (0.12 + 0.02) / 60}
    )
    all_folds = estimate.minutes(resolve({"preset": "cpu"}), pace)
    assert all_folds == pytest.approx({stage: 3 * value for stage, value in one.items()})


def test_what_is_asked_only_once_is_counted_once():
    """At most 399 images in four views, where nothing is pasted: not 8,000 passes."""
    pace = Pace(training=0.6, scoring=0.12, deciding=0.02)
    best = {"preset": "best", "fold": "0"}
    known = estimate.minutes(resolve(best), pace)["decision"]
    assert known == pytest.approx((8 * 1000 * 0.02 + 4 * 399 * 0.12) / 60)
    every = pytest.approx(8 * 1000 * (0.02 + 0.12) / 60)
    too_large_to_keep = {"image_size": "1408x512"}
    for other in (
        too_large_to_keep,
        {"decision_copy_paste": True},
        {"data": "mine.zip"},
        {"rotation": True},
    ):
        assert estimate.minutes(resolve(best | other), pace)["decision"] == every
    few = resolve(TINY | {"generated_items": 6, "decision_steps": 9000})
    views = 4 if few.flips else 1
    expected = few.decision_batch_size * 9000 * 0.02 + 48 * views * 0.12
    assert estimate.minutes(few, pace)["decision"] == pytest.approx(expected / 60)


def test_a_measurement_is_kept_for_its_size_and_arithmetic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    settings = resolve(TINY | {"precision": "float32"})
    assert estimate.known_pace(settings) is None
    pace = estimate.measure_pace(settings)
    assert min(pace.training, pace.scoring, pace.deciding) > 0
    assert estimate.known_pace(settings) == pace
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
    monkeypatch.setattr(estimate, "_seconds", seconds)
    assert estimate.measure_pace(resolve(TINY)) == Pace(2.0, 1.0, 2.0)


@pytest.mark.parametrize("kept", ["{", "{KEY: {training: 1.0, scoring: 1.0}}"])
def test_a_damaged_or_earlier_cache_is_measured_again(kept: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    path = storage.cache_folder() / "pace.json"
    words = {"KEY": estimate._key(resolve(TINY)), "training": "training", "scoring": "scoring"}
    for word, text in words.items():
        kept = kept.replace(word, f'"{text}"')
    storage.write_text(path, kept)
    assert estimate.known_pace(resolve(TINY)) is None
    estimate.measure_pace(resolve(TINY))
    assert estimate.known_pace(resolve(TINY)) is not None


def test_the_sentence_tells_memory_always_and_minutes_once_they_were_measured(monkeypatch):
    settings = resolve({"preset": "cpu", "precision": "float32"})
    assert estimate.describe(settings).startswith("A training step takes about 2.1 GB of memory (")
    monkeypatch.setattr(estimate, "known_pace", lambda settings: Pace(0.6, 0.12, 0.02))
    assert estimate.describe(settings).startswith(
        "3 folds: about 24 min for the segmentation network, at most 14 min for the decision "
        "network, and 0.48 s for each image that is scored. A training step"
    )
