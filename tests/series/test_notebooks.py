"""The notebooks as they are stored: thin, clean, of one skeleton."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ksdd_lib.deploy import weights
from ksdd_lib.notebook import executor
from ksdd_lib.notebook.series import NOTEBOOKS
from tools import address

ROOT = Path(__file__).resolve().parents[2]
BOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]


def cells(book: Path, kind: str) -> list[list[str]]:
    """The lines of each cell of a kind."""
    stored = json.loads(book.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]).splitlines() for c in stored if c["cell_type"] == kind]


def test_the_five_notebooks_are_there_and_no_other():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == BOOKS


def test_nbstripout_finds_nothing_to_strip():
    command = [sys.executable, "-m", "nbstripout", "--verify", *map(str, BOOKS)]
    assert subprocess.run(command).returncode == 0


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
class TestEachNotebook:
    def test_is_stored_without_outputs_and_asks_for_a_t4(self, book):
        stored = json.loads(book.read_text(encoding="utf-8"))
        code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
        assert stored["metadata"]["accelerator"] == "GPU"
        assert stored["metadata"]["colab"]["gpuType"] == "T4"
        assert "widgets" not in stored["metadata"]

    def test_is_thin(self, book):
        code = cells(book, "code")
        assert len(code) <= 14
        assert max(len(cell) for cell in code) <= 20
        assert sorted(len(cell) for cell in code)[len(code) // 2] <= 8
        assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell)

    def test_tells_its_reader_what_is_needed_how_long_it_takes_and_what_comes_next(self, book):
        text = "\n".join("\n".join(cell) for cell in cells(book, "markdown"))
        for part in ("**You will**", "| needs |", "| takes |", "| writes |", "## Troubleshooting"):
            assert part in text
        assert 300 <= len(text.split()) <= 950
        number = int(book.stem[:2])
        for other in BOOKS[max(0, number - 2) : number + 1]:
            assert other == book or f"]({other.name})" in text


def test_badges_and_set_up_cells_are_those_of_pyproject():
    assert address.check_address(ROOT) == []


@pytest.mark.slow
def test_the_last_notebook_alone_judges_with_the_published_model(tmp_path, monkeypatch):
    assert weights.published() == ROOT / weights.PUBLISHED
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    executor.execute(BOOKS[4], tmp_path / "05.ipynb", os.environ)
    stored = json.loads((tmp_path / "05.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in stored for output in cell.get("outputs", [])]
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert "There is no run yet" in text
    assert re.search(r"generated: (defective|good), score -?[0-9.]+, threshold", text)
    shown = sum("image/png" in output.get("data", {}) for output in outputs)
    assert shown == 2, "the verdict, and what the network saw"
