"""What the two-stage network would have judged by under each setting of `score`."""

import pytest

from ksdd_lib.methods.two_stage import TwoStage
from ksdd_lib.settings import Settings


@pytest.mark.parametrize(("kind", "score"), [("decision", 2.0), ("both", 0.5), ("mask", -1.5)])
def test_the_stored_scores_tell_what_each_kind_would_have_been(kind, score):
    settings = Settings(score=kind, segmentation_loss="cross_entropy")
    expected = {"decision": [2.0], "mask": [-1.5], "both": [0.5]}
    found = TwoStage().every_score(settings, [score], [-1.5])
    assert found == (expected if kind != "mask" else {"mask": [-1.5]})


def test_a_mask_without_logits_is_never_added_to_the_decision():
    settings = Settings(score="decision", segmentation_loss="mean_squared_error")
    assert TwoStage().every_score(settings, [2.0], [0.9]) == {"decision": [2.0], "mask": [0.9]}
