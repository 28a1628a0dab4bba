"""Executes the five notebooks on a run and keeps them.

The commands `demo` and `run --notebooks` of `python -m ksdd_lib` load this file.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from ksdd_lib import errors, pipeline, settings_io, storage
from ksdd_lib.errors import RunError
from ksdd_lib.notebook.outputs import ProgressLine
from ksdd_lib.runs.open import home
from ksdd_lib.runs.run import Run

ROOT = Path(__file__).resolve().parents[1]

NOTEBOOKS = (
    "01_download_data",
    "02_train_segmentation",
    "03_train_decision",
    "04_evaluate",
    "05_visualize",
)


def check_notebooks() -> None:
    """Raise RunError where a notebook is missing, or leads its run elsewhere."""
    for name in NOTEBOOKS:
        book = _book(ROOT, name)
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

    They take settings from the run folder, whatever stands in their cell *Choose*, and places from
    here. Raises as `execute`.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KSDD_") or name in settings_io.RESERVED
    }
    settings = settings_io.to_json(run.settings)
    environment |= {f"KSDD_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {
        "KSDD_RUN": str(run.folder),
        "KSDD_HOME": str(home()),
        "KSDD_DATA": run.settings.data,
        "KSDD_DRIVE": os.environ.get("KSDD_DRIVE", ""),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")])),
    }
    for name in NOTEBOOKS:
        print(f"== {name}", flush=True)
        execute(_book(ROOT, name), _book(run.folder, name), environment)


def _book(folder: Path, name: str) -> Path:
    """A notebook of a checkout, or as executed on a run, by the folder of either."""
    return folder / "notebooks" / f"{name}.ipynb"


class Client(NotebookClient):
    """Shows what the notebook prints, and ends its kernel gently when it is stopped."""

    km: AsyncKernelManager
    line: ProgressLine
    ending: asyncio.Future | None = None

    async def async_start_new_kernel(self, **arguments: Any) -> None:
        with suppress(RuntimeError):  # Windows has no such handlers: Ctrl-C raises there
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
        self.km.shutdown_wait_time = 30  # seconds in which a training ends its step and saves it
        await super().async_start_new_kernel(**arguments)

    def stop(self) -> None:
        """End the kernel as Jupyter does: interrupt it, ask it to end, then kill it."""
        self.ending = self.ending or asyncio.ensure_future(self.km.shutdown_kernel())

    async def _async_cleanup_kernel(self) -> None:
        if self.ending:  # of two that end one kernel at once, one fails
            await asyncio.wait([self.ending])
        await super()._async_cleanup_kernel()

    def process_message(
        self, message: dict[str, Any], *others: Any
    ) -> nbformat.NotebookNode | None:
        echo(message, self.line)
        return super().process_message(message, *others)


def echo(message: dict[str, Any], line: ProgressLine) -> None:
    """Show what a kernel's message prints; what it renews, but for pictures, goes to `line`."""
    content = message["content"]
    if message["msg_type"] == "stream":
        line.end()
        print(content["text"], end="", flush=True)
    elif message["msg_type"] == "update_display_data":
        text = content["data"].get("text/plain", "")
        if text and not text.startswith("<") and "image/png" not in content["data"]:
            line.show(text, is_last=not sys.stdout.isatty())


def execute(book: Path, target: Path, environment: Mapping[str, str]) -> None:
    """Execute the notebook `book`, and store it with its outputs as `target`.

    Raises:
        RunError: a cell failed, and the text is the error's own; or the kernel was killed.
        KeyboardInterrupt: the user stopped it; a training in it has saved its last step.
    """
    notebook = nbformat.read(book, as_version=4)
    client = Client(
        notebook,
        timeout=None,
        startup_timeout=300,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        shutdown_kernel="graceful",
        store_widget_state=False,
        resources={"metadata": {"path": str(book.parent)}},
    )
    client.line = ProgressLine(0.0)
    try:
        client.execute(env=dict(environment), stderr=subprocess.DEVNULL)
    except Exception as error:
        if client.ending:  # a kernel that is going down fails in one of many ways
            raise KeyboardInterrupt from None
        raise _explained(error, book.stem) from None
    finally:
        client.line.end()
    if client.ending:
        raise KeyboardInterrupt
    storage.write_text(target, nbformat.writes(notebook))


def _explained(error: Exception, name: str) -> BaseException:
    """What the user is told of an error in the notebook `name`; ours are whole sentences."""
    if isinstance(error, DeadKernelError):
        return RunError(
            f"{name}: its process was killed, by somebody or for want of memory. The same "
            "command goes on at the last checkpoint; a smaller image_size needs less memory."
        )
    if not isinstance(error, CellExecutionError):
        return error
    if error.ename in ("KeyboardInterrupt", "Interrupted"):
        return KeyboardInterrupt()
    kind = "" if hasattr(errors, error.ename) else f"{error.ename}: "
    return RunError(f"{name}: {kind}{error.evalue}")
