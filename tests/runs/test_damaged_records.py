"""A record of a run folder that holds something else is one sentence, never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluated_run import make_run

from ksdd_lib.errors import KsddError, MissingError, RunError
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.runs.lock import claim
from ksdd_lib.runs.open import last_settings, open_run
from ksdd_lib.runs.prepare import open_data
from ksdd_lib.training.loop import read_history

CONTENTS = {
    "list": b"[]",
    "text": b'"x"',
    "number": b"3",
    "null": b"null",
    "yes": b"true",
    "list of lists": b"[[]]",
    "list of numbers": b"[1, 2]",
    "deep lists": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "huge number": b"1" * 5000,
    "huge number inside": b'{"fold": ' + b"1" * 5000 + b"}",
    "NaN": b"NaN",
    "NaN inside": b'{"seed": NaN, "fold": -Infinity}',
    "nothing": b"",
    "cut": b'{"seed": 1, ',
    "not UTF-8": b"\xff\xfe\x00",
    "values of another kind": b'{"seed": {}, "owner": 1, "fold": [], "python": [], "what": 1}',
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training and evaluation leave it."""
    return make_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


RECORDS = ["settings", "data", "folds", "metrics", "timing", "environment"]
OTHERS = [kind for kind in CONTENTS if kind != "list"]  # a timing.json without a line is one


@pytest.mark.fault(52)
@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("kind", OTHERS)
def test_results_with_a_record_of_another_kind_are_refused_by_its_name(
    folder: Path, record: str, kind: str
) -> None:
    (folder / f"{record}.json").write_bytes(CONTENTS[kind])
    with pytest.raises(KsddError, match=f"{record}.json is not|fold is -inf") as refusal:
        load_results(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.fault(52)
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("settings.json", lambda folder: open_run(folder)),
        ("data.json", lambda folder: open_data(open_run(folder))),
        ("timing.json", lambda folder: open_run(folder).note_time("scoring", 1)),
        ("owner.json", claim),
    ],
    ids=["settings", "data", "timing", "owner"],
)
def test_work_with_a_record_of_another_kind_is_refused_by_its_name(
    folder: Path, name: str, work: Callable[[Path], object], kind: str
) -> None:
    (folder / name).write_bytes(CONTENTS[kind])
    with pytest.raises(RunError, match=name):
        work(folder)
    assert (folder / name).read_bytes() == CONTENTS[kind]


@pytest.mark.fault(52)
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_mark_of_divergence_of_another_kind_is_named(folder: Path, kind: str) -> None:
    (folder / "fold1" / "decision.diverged.json").write_bytes(CONTENTS[kind])
    with pytest.raises(RunError, match="decision.diverged.json is not") as refusal:
        open_run(folder).require("decision")
    assert not isinstance(refusal.value, MissingError)


@pytest.mark.fault(52)
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_run_with_settings_of_another_kind_is_passed_over(
    own_home: Path, folder: Path, kind: str
) -> None:
    place = shutil.copytree(folder, own_home / "runs" / "demo-clean-seed0")
    (own_home / "runs" / "latest.txt").write_text(place.name)
    (place / "settings.json").write_bytes(CONTENTS[kind])
    with pytest.warns(UserWarning, match="Passed over: The settings.json in demo-clean-seed0"):
        assert last_settings() is None


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    "line",
    [
        *CONTENTS.values(),
        b'{"step": "3", "loss": 0.1, "lr": 0.1, "seconds": 1}',
        b'{"step": 3, "loss": NaN, "lr": 0.1, "seconds": 1}',
        b'{"step": 3, "lr": 0.1, "seconds": 1}',
    ],
)
def test_a_line_of_a_history_that_is_no_row_is_passed_over(tmp_path: Path, line: bytes) -> None:
    rows = [{"step": step, "loss": 0.5, "lr": 0.1, "seconds": 1.5} for step in (1, 2)]
    first, last = (json.dumps(row).encode() for row in rows)
    path = tmp_path / "segmentation.jsonl"
    path.write_bytes(b"\n".join([first, line, last, b""]))
    with pytest.warns(UserWarning, match="1 lines of segmentation.jsonl .* passed over"):
        assert read_history(path) == rows
