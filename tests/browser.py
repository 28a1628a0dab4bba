"""A real JupyterLab, and a real Chromium that looks into it: what the browser tests work with.

As a program, `python tests/browser.py FOLDER` runs the demo there and leaves pictures of it
in FOLDER: `python tests/browser.py assets` takes those of the guide anew.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "surface"
SETTINGS = {
    "notebook-extension:tracker": {"windowingMode": "none"},
    "apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
"""JupyterLab: every cell stands in the page, and it asks nobody on the net for news."""

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def chromium() -> str | None:
    """The path of Debian's Chromium, or of Chrome; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def lab(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """JupyterLab on copies of the notebooks in `folder`; yields its address.

    Args:
        environment: what its kernels find besides our own environment.
    """
    books = folder / "notebooks"
    shutil.copytree(ROOT / "notebooks", books)
    for name, values in SETTINGS.items():
        extension, plugin = name.split(":")
        path = folder / "lab" / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={books}", "--allow-root"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"]
    command += ["--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly"]
    places = {
        "JUPYTERLAB_SETTINGS_DIR": folder / "lab",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "JUPYTER_CONFIG_DIR": folder / "config",
        "KSDD_HOME": folder / "home",
        "PYTHONPATH": ROOT,
    }
    surroundings = os.environ | {name: str(path) for name, path in places.items()}
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, env=surroundings | dict(environment), stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api/status?token={TOKEN}", server)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def colab_widgets(folder: Path) -> dict[str, str]:
    """Install in `folder` the ipywidgets that Colab has, and their part of JupyterLab -> the
    environment for `lab`."""
    packages = ["ipywidgets==7.7.1", "jupyterlab_widgets==1.1.11", "ipython_genutils==0.2.0"]
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
    subprocess.run([*install, *packages], check=True, capture_output=True)
    shared = folder / "share" / "jupyter"
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "JUPYTER_PATH": str(shared)}


def _wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("JupyterLab did not start; see server.log beside its notebooks.")


class Book:
    """A notebook open in JupyterLab.

    Attributes:
        page: Playwright's page.
        path: of the notebook, to see what was saved.
        complaints: what stood in the browser's console as an error.
    """

    def __init__(self, page: Any, address: str, folder: Path, name: str) -> None:
        self.page, self.complaints = page, []
        self.path = folder / "notebooks" / f"{name}.ipynb"
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.address = f"{address}/lab/tree/{name}.ipynb?token={TOKEN}&reset"
        self.open()

    def _listen(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self) -> None:
        """Open it, or open it again: what a reload of the page does."""
        self.page.goto(self.address)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        self.page.wait_for_function(STATUS + "() => ready()", timeout=300_000)

    def menu(self, menu: str, entry: str) -> None:
        """Click an entry of a menu, as a user would."""
        self.page.click(f"#jp-MainMenu .lm-MenuBar-itemLabel >> text={menu}")
        self.page.click(f".lm-Menu .lm-Menu-itemLabel >> text=/^{entry}$/")

    def run_all(self) -> None:
        """*Run*, *Run All Cells*; returns at once."""
        self.menu("Run", "Run All Cells")

    def wait(self, seconds: float = 300) -> None:
        """Until every code cell has run, and the kernel is idle."""
        self.page.wait_for_function(STATUS + "() => done()", timeout=seconds * 1000)

    def until(self, holds: Callable[[], bool], seconds: float = 120) -> None:
        """Until `holds` answers yes."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"nothing came of it in {seconds} s"
            self.page.wait_for_timeout(100)

    def wait_for_text(self, text: str, seconds: float = 60) -> None:
        """Until `text` stands in an output, or in the words of a picture."""
        found = "text => outputs().includes(text)"
        self.page.wait_for_function(STATUS + found, arg=text, timeout=seconds * 1000)

    def text(self) -> str:
        """All that the outputs show as words, those of pictures too."""
        return self.page.evaluate(STATUS + "() => outputs()")

    def errors(self) -> list[str]:
        """Warnings and tracebacks below the cells."""
        kinds = ("application/vnd.jupyter.stderr", "application/vnd.jupyter.error")
        wanted = ", ".join(f'[data-mime-type="{kind}"]' for kind in kinds)
        return self.page.locator(wanted).all_inner_texts()

    def row(self, label: str) -> list[str]:
        """The cells of the last table row that begins with `label`."""
        rows = self.page.locator(".jp-OutputArea tr")
        named = rows.filter(has=self.page.get_by_text(label, exact=True))
        return named.last.locator("td").all_inner_texts()

    def control(self, label: str) -> Any:
        """The control with this label."""
        named = self.page.get_by_text(label, exact=True)
        return self.page.locator(".jp-OutputArea .widget-inline-hbox").filter(has=named).first

    def type(self, label: str, value: str) -> None:
        """Type a value into a box, and leave it."""
        box = self.control(label).locator("input")
        box.fill(value)
        box.press("Tab")

    def choose(self, label: str, value: str) -> None:
        """Choose an entry of a list."""
        self.control(label).locator("select").select_option(label=value)

    def slide(self, label: str, key: str, times: int = 1) -> None:
        """Move a slider by the keyboard."""
        handle = self.control(label).locator(".noUi-handle, .ui-slider-handle")  # 8, and 7
        handle.focus()
        for _ in range(times):
            handle.press(key)

    def save(self) -> None:
        """Save the notebook, as its menu does."""
        self.menu("File", "Save Notebook")
        self.page.wait_for_function(
            "() => !window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=30_000
        )


STATUS = r"""
const panel = () => window.jupyterapp.shell.currentWidget;
const kernel = () => panel()?.sessionContext?.session?.kernel;
const ready = () => kernel()?.status === 'idle';
const cells = () => panel().content.widgets.filter(cell => cell.model.type === 'code');
const done = () => ready() && cells().every(cell => cell.model.executionCount !== null
    && cell.model.executionState !== 'running');
const words = cell => [cell.outputArea.node.innerText,
    ...cell.model.outputs.toJSON().map(output => output.data?.['text/plain'] ?? '')].join('\n');
const outputs = () => cells().map(words).join('\n');
"""
"""JavaScript on the notebook in front; what follows is the function that is asked."""


def take_pictures(out: Path) -> None:
    """Run the demo, fold 0, and leave what a user sees of it in `out`."""
    from playwright.sync_api import sync_playwright

    def take(book: Book, code: str, part: str, name: str) -> None:
        book.page.wait_for_timeout(2000)  # controls answer with a delay
        cell = book.page.locator(".jp-CodeCell", has_text=code)
        cell.locator(part).first.screenshot(path=str(out / f"{name}.png"))

    with tempfile.TemporaryDirectory() as made, sync_playwright() as started:
        folder = Path(made)
        seen = started.chromium.launch(executable_path=chromium(), args=FLAGS)
        with lab(folder, {"KSDD_PRESET": "demo", "KSDD_FOLD": "0"}) as address:
            for name in sorted(path.stem for path in ROOT.glob("notebooks/0*.ipynb")):
                book = Book(seen.new_page(viewport=VIEW), address, folder, name)
                book.run_all()
                book.wait(1200)
                if name == "02_train_segmentation":
                    take(book, "watch_training", ".jp-Cell-outputArea", "training")
                if name == "04_evaluate":
                    frame = book.page.frame_locator('iframe[title="Operating point"]')
                    for _ in range(6):
                        frame.locator("#line").press("ArrowLeft")
                    take(book, "operating_point.show(", "iframe", "operating_point")
                if name == "05_visualize":
                    book.choose("order", "closest calls")
                    take(book, "browse.parts", ".widget-vbox", "parts")
                book.page.close()


VIEW = {"width": 1200, "height": 2400}
"""Pixels of the window for pictures: a whole output has room."""

if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
