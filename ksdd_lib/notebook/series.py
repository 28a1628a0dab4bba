"""The five notebooks in order, and what executes them one after the other."""

import json
import os
from pathlib import Path

from ksdd_lib import pipeline, settings_io
from ksdd_lib.errors import RunError
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.runs import run as runs
from ksdd_lib.runs.open import CHECKOUT, home
from ksdd_lib.runs.run import Run

NOTEBOOKS = (
    "01_download_data",
    "02_train_segmentation",
    "03_train_decision",
    "04_evaluate",
    "05_visualize",
)


def is_ready_for(run: Run, notebook: str) -> bool:
    """Whether all is finished that comes before the notebook of this name."""
    before = NOTEBOOKS[: NOTEBOOKS.index(notebook)]
    return all(run.has(part) for part, maker in _makers(run).items() if maker in before)


def check_notebooks() -> None:
    """Raise RunError unless the notebooks are here and none leads its run elsewhere."""
    for book in map(_book, NOTEBOOKS):
        if not book.exists():
            raise RunError("The notebooks are not beside ksdd_lib: run this in a checkout.")
        cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        if any("%env KSDD_" in text for text in code):
            raise RunError(
                f"notebooks/{book.name} holds a cell with %env KSDD_..., which would lead this run "
                "elsewhere: take that cell out, or run a clean copy of the repository."
            )


def is_finished(run: Run) -> bool:
    """Whether each notebook has done its part, and its results and data are what they were.

    Where they are not, the notebooks say why, or mend it.
    """
    executed = all(_executed(run, name).exists() for name in NOTEBOOKS)
    return executed and pipeline.is_finished(run)


def run_notebooks(run: Run, command: str) -> None:
    """Execute the five notebooks in order on one run; they are stored in its folder `notebooks`.

    Args:
        command: what the user typed, as it stands in the run's records.

    Raises:
        RunError, KeyboardInterrupt: as `executor.execute`.
    """
    from ksdd_lib.notebook.executor import execute  # a notebook itself needs no kernel

    environment = _environment(run) | {"KSDD_COMMAND": command}
    for name in NOTEBOOKS:
        print(f"== {name}", flush=True)
        execute(_book(name), _executed(run, name), environment)


def _environment(run: Run) -> dict[str, str]:
    """The notebooks take every setting from the run folder; only places are handed to them."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KSDD_") or name in settings_io.RESERVED
    }
    paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return kept | {
        "KSDD_RUN": str(run.folder),
        "KSDD_HOME": str(home()),
        "KSDD_DATA": run.settings.data,
        "KSDD_DRIVE": os.environ.get("KSDD_DRIVE", ""),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def _makers(run: Run) -> dict[str, str]:
    """What a finished run holds -> the notebook that makes it."""
    return runs.NOTEBOOKS | {plan.name: plan.notebook for plan in method_of(run.settings).stages}


def _book(name: str) -> Path:
    return CHECKOUT / "notebooks" / f"{name}.ipynb"


def _executed(run: Run, name: str) -> Path:
    return run.folder / "notebooks" / f"{name}.ipynb"
