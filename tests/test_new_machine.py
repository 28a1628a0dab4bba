"""The five notebooks in a Colab that takes the machine away twice, and leaves only Drive."""

import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from ksdd_lib import __main__ as commands
from ksdd_lib.errors import RunError
from ksdd_lib.run import NOTEBOOKS

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
COLAB = TESTS / "fake_colab"

INJECTED = """
import os
import signal
import time
from pathlib import Path

from ksdd_lib import checkpoint, colab, courier, model

colab.MOUNT = Path(os.environ["FAKE_MOUNT"])
courier.EVERY = 0  # a copy after each checkpoint, not every ten minutes
model.FEATURES = 16  # instead of 1024
saves, whole_save = [], checkpoint.save


def save(*arguments):
    marker = whole_save(*arguments)
    saves.append(marker)
    if len(saves) == int(os.environ["FAKE_SAVES"]):
        while not list(Path(os.environ["FAKE_DRIVE"]).rglob(f"{arguments[1]}-*.json.ok")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    return marker


checkpoint.save = save
"""
"""A cell behind the set-up cell: a Drive of the test's own, small networks, and the end of the
machine right after a checkpoint, once one of its stage has reached Drive."""

SETTINGS = {
    "KSDD_PRESET": "demo",
    "KSDD_IMAGE_SIZE": "128x128",
    "KSDD_GENERATED_ITEMS": "6",
    "KSDD_FOLD": "0",
    "KSDD_SEGMENTATION_STEPS": "10",
    "KSDD_DECISION_STEPS": "10",
    "KSDD_CHECKPOINT_STEPS": "2",
}


class Colab:
    """Machines that come and go, before one Drive."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.drive = folder, folder / "Drive"
        self.books = folder / "books"
        for made in (self.drive, self.books, folder / "downloads"):
            made.mkdir(parents=True)
        for name in NOTEBOOKS.values():
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

    def run(self, part: str, saves: int = 0) -> str:
        """Run all cells of a notebook -> what it shows; after `saves` the machine dies."""
        environment = SETTINGS | {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{COLAB}",
            "COLAB_RELEASE_TAG": "release-colab",
            "KSDD_HOME": str(self.machine / "ksdd"),
            "HOME": str(self.machine / "root"),
            "FAKE_MOUNT": str(self.machine / "drive"),
            "FAKE_DRIVE": str(self.drive),
            "FAKE_DOWNLOADS": str(self.folder / "downloads"),
            "FAKE_SAVES": str(saves),
        }
        target = self.folder / f"{part}.ipynb"
        commands._execute(self.books / f"{NOTEBOOKS[part]}.ipynb", target, environment)
        cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
        return "".join("".join(text) for text in [*(o.get("text", "") for o in outputs), *shown])

    def lose(self, part: str, saves: int) -> None:
        """Run a notebook until its machine is taken away; then there is a new, empty one."""
        with pytest.raises(RunError, match="its process was killed"):
            self.run(part, saves)
        shutil.rmtree(self.machine)
        self.number += 1

    def result(self) -> dict:
        """metrics.json of the only run on the machine."""
        [found] = (self.machine / "ksdd" / "runs").glob("*/metrics.json")
        return json.loads(found.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.fault(19)
@pytest.mark.skipif(sys.platform != "linux", reason="Colab is Linux")
def test_the_series_loses_its_machine_twice_and_ends_with_the_same_metrics(tmp_path: Path):
    calm, lossy = Colab(tmp_path / "calm"), Colab(tmp_path / "lossy")
    for part in ("data", "segmentation", "decision", "evaluation"):
        calm.run(part)
    lossy.run("data")
    lossy.lose("segmentation", saves=3)
    printed = lossy.run("segmentation")
    assert "is back from Drive" in printed
    assert "segmentation, fold 0 (went on after step" in printed
    assert "safe on Drive: step 10 of segmentation, fold 0" in printed
    lossy.lose("decision", saves=4)
    printed = lossy.run("decision")
    assert "is back from Drive" in printed and "decision, fold 0 (went on after step" in printed
    shutil.rmtree(lossy.machine)
    lossy.number += 1
    lossy.run("evaluation")
    assert lossy.result() == calm.result()
    assert "report.html" in lossy.run("report")
    assert (tmp_path / "lossy" / "downloads" / "report.html").stat().st_size > 100_000
