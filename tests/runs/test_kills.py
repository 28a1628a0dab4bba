"""Whatever is killed, and whenever, nothing is lost: a few of the kills that `kills.py` can do."""

from pathlib import Path

import pytest
from kills import harness, plan


def test_a_plan_follows_from_its_seed_and_begins_with_each_kind():
    assert plan(50, 3) == plan(50, 3) != plan(50, 4)
    assert [kill.kind for kill in plan(6, 9)[:3]] == ["anywhere", "checkpoint", "drive"]
    assert plan(6, 9)[2].disk_is_lost


@pytest.mark.slow
@pytest.mark.fault(19)
def test_a_killed_training_ends_as_one_left_alone(tmp_path: Path):
    found = harness(6, 0, tmp_path)
    assert found["equal"] and not found["leftovers"], found
    assert found["kills"] == 6 and found["lost_disks"] >= 1
    kinds = {name.partition(":")[0] for name in found["where"]}
    assert kinds == {"anywhere", "checkpoint", "drive"}
