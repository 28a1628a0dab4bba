"""A home and a run for the tests of run folders."""

from pathlib import Path

import pytest

from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.run import Run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data and runs of this test."""
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of one fold whose data is not prepared."""
    return open_run(tmp_path / "run", {"seed": 3, "fold": "0"})
