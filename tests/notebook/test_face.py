"""`import ksdd_lib as ksdd` is light, and gives a notebook all that it uses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ksdd_lib as ksdd

ROOT = Path(__file__).resolve().parents[2]
NAMES = {name for names in ksdd.FACE.values() for name in names.split()}


def code_of(book: Path) -> str:
    cells = json.loads(book.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_each_name_is_there_and_the_notebooks_use_exactly_these():
    assert all(getattr(ksdd, name) is not None for name in NAMES)
    assert set(dir(ksdd)) >= NAMES
    code = "\n".join(map(code_of, (ROOT / "notebooks").glob("*.ipynb")))
    assert set(re.findall(r"\bksdd\.(\w+)", code)) == NAMES
    assert set(re.findall(r"^(?:from|import) ksdd_lib.*", code, re.M)) == {
        "import ksdd_lib as ksdd"
    }


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ksdd.nothing
    with pytest.raises(ImportError):
        from ksdd_lib import nothing  # noqa: F401


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, ksdd_lib; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"torch", "numpy", "matplotlib", "ksdd_lib.settings"} & set(done.stdout.split())
