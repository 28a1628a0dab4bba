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
    makers = runs.NOTEBOOKS | {plan.name: plan.notebook for plan in method_of(run.settings).stages}
    return all(run.has(part) for part, maker in makers.items() if maker < notebook)


def check_notebooks() -> None:
    """Raise RunError unless the notebooks are here and none leads its run elsewhere."""
    for name in NOTEBOOKS:
        book = _book(CHECKOUT, name)
        if not book.exists():
            raise RunError("The notebooks are not beside ksdd_lib: run this in a checkout.")
        cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        if "%env KSDD_" in "".join(code):
            raise RunError(
                f"notebooks/{book.name} holds a cell with %env KSDD_..., which would lead this run "
                "elsewhere: take that cell out, or run a clean copy of the repository."
            )


def is_finished(run: Run) -> bool:
    """Whether each notebook has done its part, and its results and data are what they were."""
    executed = all(_book(run.folder, name).exists() for name in NOTEBOOKS)
    return executed and pipeline.is_finished(run)


def run_notebooks(run: Run) -> None:
    """Execute the five notebooks in order on one run; they are stored in its folder `notebooks`.

    They take settings from the run folder, and places from here. Raises as `executor.execute`.
    """
    from ksdd_lib.notebook.executor import execute  # a notebook itself needs no kernel

    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KSDD_") or name in settings_io.RESERVED
    }
    environment |= {
        "KSDD_RUN": str(run.folder),
        "KSDD_HOME": str(home()),
        "KSDD_DATA": run.settings.data,
        "KSDD_DRIVE": os.environ.get("KSDD_DRIVE", ""),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.getenv("PYTHONPATH")])),
    }
    for name in NOTEBOOKS:
        print(f"== {name}", flush=True)
        execute(_book(CHECKOUT, name), _book(run.folder, name), environment)


def _book(folder: Path, name: str) -> Path:
    """A notebook of a checkout, or as executed on a run, by the folder of either."""
    return folder / "notebooks" / f"{name}.ipynb"
