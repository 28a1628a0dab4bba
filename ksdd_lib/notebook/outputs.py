"""What a notebook shows and what stays in it when it is saved: pictures, and lines that move on.

Plain output, without ipywidgets; in a terminal a line of text.
"""

import base64
import html
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ksdd_lib.reporting import plots
from ksdd_lib.text import duration

PAUSE = 5.0
"""Seconds between two drawings of a live picture, at least."""

LEFT = 'style="text-align: left; padding: 0.1em 1.2em 0.1em 0"'
"""Each notebook front end aligns table cells in its own way, unless told."""

SHARE = 0.02
"""Part of the time that live pictures may take."""


def show_figure(figure: Figure, record: Mapping[str, Any]) -> None:
    """Show a figure as a picture that stays in a saved notebook.

    Args:
        record: what data.json holds; "GENERATED" is stamped on figures of generated surfaces.
    """
    if record["is_generated"]:
        plots.stamp(figure)
    if in_notebook():
        show({"image/png": encoded(figure, 90), "text/plain": plots.describe(figure)})


def show_picture(path: Path) -> None:
    """Show a PNG file as a picture that stays in a saved notebook."""
    if in_notebook():
        picture = base64.b64encode(path.read_bytes()).decode()
        show({"image/png": picture, "text/plain": path.stem.replace("_", " ")})


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table, aligned to the left in every front end; cells are HTML already."""
    lines = [("th", heads), *(("td", row) for row in rows)]
    inner = "".join(
        "<tr>" + "".join(f"<{tag} {LEFT}>{cell}</{tag}>" for cell in line) + "</tr>"
        for tag, line in lines
    )
    return f"<table>{inner}</table>"


def picture_tag(figure: Figure, dpi: int) -> str:
    """A figure as HTML that needs nothing beside it: what a control redraws."""
    words = html.escape(plots.describe(figure), quote=True)
    source = f"data:image/png;base64,{encoded(figure, dpi)}"
    return f'<img alt="{words}" style="max-width: 100%" src="{source}">'


def progress_line(what: str) -> Callable[[int, int, int], None]:
    """A `watch` for scoring: one line with the fold and the images done, renewed every second."""
    lines: dict[int, Callable[[int, int], None]] = {}

    def watch(fold: int, done: int, total: int) -> None:
        lines.setdefault(fold, count_line(f"{what}, fold {fold}"))(done, total)

    return watch


def count_line(what: str) -> Callable[[int, int], None]:
    """A `watch` for a number of images: one line, renewed every second."""
    output, began = Replaced(1.0), time.monotonic()

    def watch(done: int, total: int) -> None:
        line = f"{what}: {done} of {total} images, {duration(time.monotonic() - began)}"
        output.update("", line, done >= total)

    return watch


@dataclass
class Replaced:
    """One output of a cell that is replaced as work goes on; another key begins a new one."""

    pause: float
    key: Any = None
    handle: Any = None
    due: float = 0.0

    def update(
        self,
        key: Any,
        line: str,
        last: bool,
        draw: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Show `line`, with the picture that `draw` makes where pictures can be shown."""
        if key != self.key:
            self.key, self.handle, self.due = key, None, 0.0
        began = time.monotonic()
        if not last and (began < self.due or not in_notebook()):
            return
        if not in_notebook():
            print(line)
            return
        bundle = draw() | {"text/plain": line}
        if self.handle is None:
            self.handle = show(bundle, display_id=True)
        else:
            self.handle.update(bundle, raw=True, metadata=_alternative(bundle))
        now = time.monotonic()
        self.due = now + max(self.pause, (now - began) / SHARE)


def in_notebook() -> bool:
    """Whether a kernel takes our output, rather than a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def show(bundle: dict[str, Any], display_id: bool = False) -> Any:
    """Put a MIME bundle under the cell; with `display_id`, the handle that replaces it."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=display_id, metadata=_alternative(bundle))


def _alternative(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a picture where front ends look for its alternative text."""
    return {"image/png": {"alt": bundle["text/plain"]}} if "image/png" in bundle else {}


def encoded(figure: Figure, dpi: int) -> str:
    return base64.b64encode(plots.png(figure, dpi)).decode()
