"""The package works with what Colab holds, so that installing it there replaces nothing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
LINES = (TESTS / "colab_packages.txt").read_text("utf-8").splitlines()
COLAB = dict(line.split("==") for line in LINES if "==" in line)
NEEDED = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
OLDER = (
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "opencv-python",
    "ipywidgets",
    "joblib",
    "pillow",
    "psutil",
    "pydantic",
    "pydantic_core",
    "ipython",
    "ipython-genutils",
    "backcall",
    "decorator",
    "pickleshare",
)
"""What is taken in Colab's version; the last four are what its IPython needs."""

TOUCHED = (
    "base",
    "data",
    "deploy",
    "evaluation",
    "notebook",
    "reporting",
    "training/test_batches.py",
)
"""The tests of the rooms that work with those packages."""


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_colab_already_has_what_is_needed(needed: Requirement):
    held = {name.lower(): version for name, version in COLAB.items()}
    assert needed.specifier.contains(held[needed.name].split("+")[0]), needed


def test_only_lower_bounds_are_asked_for():
    assert all(spec.operator == ">=" for needed in NEEDED for spec in needed.specifier)
    dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "dependencies" in dynamic["project"].get("dynamic", []), "they come from that file"


@pytest.mark.slow
def test_the_fast_tests_pass_with_colab_s_versions(tmp_path: Path):
    """Every control is constructed and driven with ipywidgets 7.7.1 too."""
    wanted = [f"{name}=={COLAB[name]}" for name in OLDER]
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path)]
    done = subprocess.run([*install, *wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    files = [f"tests/{place}" for place in TOUCHED]
    program = "import ipywidgets, IPython, numpy; print(ipywidgets.__version__, numpy.__version__)"
    seen = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert seen.split() == [COLAB["ipywidgets"], COLAB["numpy"]]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 200
