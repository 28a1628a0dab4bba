"""The five notebooks in a Colab that takes machines away, and leaves only Drive; also a bad one."""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from fake_drive import READS, WRITES

from ksdd_lib.errors import RunError
from tools import run_notebooks
from tools.run_notebooks import NOTEBOOKS

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

INJECTED = """
import importlib
import os
import signal
import socket
import time
from pathlib import Path

import fake_colab
from fake_drive import UnreliableDrive

from ksdd_lib.drive import background
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import colab

fake_colab.install()
colab.MOUNT = Path(os.environ["FAKE_MOUNT"])
background.EVERY = 0  # a copy after each checkpoint, not every ten minutes
two_stage.FEATURES = 16  # instead of 1024
socket.gethostname = lambda: os.environ["FAKE_HOST"]
if os.environ["FAKE_LIES"]:
    UnreliableDrive(os.environ["FAKE_MOUNT"], os.environ["FAKE_LIES"], seed=0).install()


def die_in(module, name, number):
    whole, calls = getattr(importlib.import_module(module), name), []

    def dying(*given, **named):
        result = whole(*given, **named)
        calls.append(result)
        if len(calls) == int(number):
            until = time.monotonic() + 60
            wanted = f"{given[1]}-*.json.ok" if name == "save" else "nothing"
            drive = Path(os.environ["FAKE_DRIVE"])
            while name == "save" and time.monotonic() < until and not list(drive.rglob(wanted)):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(importlib.import_module(module), name, dying)


def keep_in_turn(copies, start_if_due=BackgroundCopy.start_if_due):
    copies._wait(time.monotonic() + 60)  # a copy at work takes no second one
    start_if_due(copies)


if os.environ["FAKE_DEATH"]:
    BackgroundCopy.start_if_due = keep_in_turn
    die_in(*os.environ["FAKE_DEATH"].split(":"))
"""
"""A cell behind the set-up cell: a Drive of the test's own, small networks, and the end of the
machine after a call; after a checkpoint, once one of its stage has reached Drive."""

SETTINGS = {
    "KSDD_PRESET": "demo",
    "KSDD_IMAGE_SIZE": "128x128",
    "KSDD_GENERATED_ITEMS": "6",
    "KSDD_SEGMENTATION_STEPS": "6",
    "KSDD_DECISION_STEPS": "6",
    "KSDD_CHECKPOINT_STEPS": "2",
}

PARTS = ["data", "segmentation", "decision", "evaluation", "report"]


class Colab:
    """Machines that come and go, before one Drive; with `lies`, a bad one."""

    def __init__(self, folder: Path, lies: bool = False) -> None:
        self.folder, self.drive = folder, folder / "Drive"
        self.lies = folder / "lies.txt" if lies else None
        self.books = folder / "books"
        for made in (self.drive, self.books, folder / "downloads"):
            made.mkdir(parents=True)
        for name in NOTEBOOKS:
            book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
            tags = [cell.metadata.get("tags", []) for cell in book.cells]
            place = next(number for number, found in enumerate(tags) if "setup" in found)
            book.cells.insert(place + 1, nbformat.v4.new_code_cell(INJECTED))
            nbformat.write(book, self.books / f"{name}.ipynb")
        self.number = 0

    @property
    def machine(self) -> Path:
        """The disk of the machine at work."""
        return self.folder / f"machine{self.number}"

    def run(self, part: str, death: str = "", **named: str) -> str:
        """Run all cells of a notebook -> what it shows; `death` ends the machine.

        Args:
            death: "module:function:n", for the end after its n-th call.
            named: more of the environment.
        """
        environment = SETTINGS | {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{TESTS}",
            "COLAB_RELEASE_TAG": "release-colab",
            "KSDD_HOME": str(self.machine / "ksdd"),
            "HOME": str(self.machine / "root"),
            "FAKE_MOUNT": str(self.machine / "drive"),
            "FAKE_DRIVE": str(self.drive),
            "FAKE_DOWNLOADS": str(self.folder / "downloads"),
            "FAKE_HOST": self.machine.name,
            "FAKE_DEATH": death,
            "FAKE_LIES": str(self.lies or ""),
        }
        target = self.folder / f"{part}.ipynb"
        book = self.books / f"{NOTEBOOKS[PARTS.index(part)]}.ipynb"
        run_notebooks.execute(book, target, environment | named)
        cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
        return "".join("".join(text) for text in [*(o.get("text", "") for o in outputs), *shown])

    def lose(self, part: str, death: str, **named: str) -> None:
        """Run a notebook until its machine is taken away; then there is a new, empty one."""
        with pytest.raises(RunError, match="its process was killed"):
            self.run(part, death, **named)
        shutil.rmtree(self.machine)
        self.number += 1

    def result(self) -> dict:
        """metrics.json of the only run on the machine."""
        [found] = (self.machine / "ksdd" / "runs").glob("*/metrics.json")
        return json.loads(found.read_text(encoding="utf-8"))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Colab is Linux"),
]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a series on one machine and a good Drive ends with; no notebook of it is refused."""
    colab = Colab(tmp_path_factory.mktemp("calm") / "calm")
    for part in PARTS:
        colab.run(part)
    return colab.result()


@pytest.mark.fault(19)
@pytest.mark.fault(27)
def test_the_series_loses_its_machine_twice_and_ends_with_the_same_metrics(
    tmp_path: Path, calm: dict
):
    lossy = Colab(tmp_path / "lossy")
    lossy.run("data")
    lossy.lose("segmentation", "ksdd_lib.training.checkpoint:save:2")
    with pytest.raises(
        RunError, match=r"machine \(machine0\) works on .* free in 1[0-5] min.*KSDD_TAKE_OVER=1"
    ):
        lossy.run("segmentation")
    printed = lossy.run("segmentation", KSDD_TAKE_OVER="1")
    assert "is back from Drive" in printed
    assert "safe on Drive: step 6 of segmentation, fold 2" in printed
    lossy.lose("decision", "ksdd_lib.training.checkpoint:save:2")
    printed = lossy.run("decision", KSDD_TAKE_OVER="1")
    assert "is back from Drive" in printed
    shutil.rmtree(lossy.machine)
    lossy.number += 1
    lossy.run("evaluation")  # the machine before had finished its work
    assert lossy.result() == calm
    assert "report.html" in lossy.run("report")
    assert (
        tmp_path / "lossy" / "downloads" / "demo-128x128-clean-seed0.html"
    ).stat().st_size > 100_000


MISSING = "There is no run|has no finished|is not evaluated yet|of another architecture"
"""What a notebook says that misses the one before. Without a run, the last one takes the published
model, whose network is larger than those here."""


def insist(colab: Colab, part: str) -> str:
    """As a user before a bad Drive: where a notebook misses the one before, run that again."""
    for _ in range(4):
        try:
            printed = colab.run(part, KSDD_TAKE_OVER="1")
        except RunError as error:
            printed = str(error)
        if not re.search(MISSING, printed):
            return printed
        insist(colab, PARTS[PARTS.index(part) - 1])
    raise AssertionError(printed)


CUTS = {
    "data": "ksdd_lib.runs.prepare:inspect_data:1",
    "segmentation": "ksdd_lib.training.checkpoint:save:5",
    "decision": "ksdd_lib.training.checkpoint:save:4",
    "evaluation": "ksdd_lib.evaluation.scoring:_scores_of_fold:1",
    "report": "ksdd_lib.reporting.plots:png:3",
}
"""Where each notebook loses its machine."""


@pytest.mark.fault(19)
@pytest.mark.fault(25)
@pytest.mark.fault(26)
def test_every_notebook_is_cut_before_a_drive_that_lies_and_no_number_changes(
    tmp_path: Path, calm: dict
):
    lossy = Colab(tmp_path / "lossy", lies=True)
    for part in PARTS:
        lossy.lose(part, CUTS[part], KSDD_TAKE_OVER="1")
        insist(lossy, part)
    assert lossy.result() == calm
    assert (
        tmp_path / "lossy" / "downloads" / "demo-128x128-clean-seed0.html"
    ).stat().st_size > 100_000
    happened = Counter(lossy.lies.read_text().splitlines())
    assert set(happened) >= {f"write {kind}" for kind in WRITES}, happened
    assert any(f"read {kind}" in happened for kind in READS)
