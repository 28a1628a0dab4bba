"""What a cell shows: pictures, tables and renewed lines, which stay, and controls, which do not.

What matters stands as plain output before any control. On a terminal a line of text stands for it.
Controls are written to what ipywidgets 7.7.1 (Colab) and 8 have in common.
"""

import base64
import html
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ksdd_lib.reporting import plots
from ksdd_lib.text import duration, words

Widget = Any
"""What ipywidgets and IPython give: a control, the module, a handle. They have no types."""

PAUSE = 5.0
"""Seconds between two drawings of a live picture, at least."""

SHARE = 0.02
"""Part of the time that live pictures may take."""

LEFT = 'style="text-align: left; padding: 0.1em 1.2em 0.1em 0"'
"""Each notebook front end aligns table cells in its own way, unless told."""

LOOK = {"style": {"description_width": "16em"}, "layout": {"width": "40em"}}
"""How wide a control and its name are."""


def show_figure(figure: Figure, is_generated: bool = False) -> None:
    """Show a figure; GENERATED is stamped on one of generated surfaces."""
    if is_generated:
        plots.stamp(figure)
    if in_notebook():
        show({"image/png": encoded(figure), "text/plain": plots.describe(figure)})


def show_picture(path: Path) -> None:
    """Show a PNG file."""
    if in_notebook():
        picture = base64.b64encode(path.read_bytes()).decode()
        show({"image/png": picture, "text/plain": words(path.stem)})


def show_table(page: str, text: str) -> None:
    """Show HTML; on a terminal `text` stands for it."""
    if in_notebook():
        show({"text/html": page, "text/plain": text})
    else:
        print(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table, aligned to the left in every front end; cells are HTML already."""
    lines = [("th", heads), *(("td", row) for row in rows)]
    inner = "".join(
        "<tr>" + "".join(f"<{tag} {LEFT}>{cell}</{tag}>" for cell in line) + "</tr>"
        for tag, line in lines
    )
    return f"<table>{inner}</table>"


def ipywidgets() -> Widget:
    """The module of the controls; None outside a notebook, or where it is missing."""
    if not in_notebook():
        return None
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets


def show_controls(*controls: Widget) -> None:
    """Show controls below each other."""
    from IPython.display import display

    display(ipywidgets().VBox(controls))


def show_answers(
    controls: Sequence[Widget],
    answer: Callable[[], tuple[str, Figure | None]],
    is_generated: bool,
) -> None:
    """Show controls, and from the first move on what they answer.

    Args:
        answer: HTML, and a figure that stands below it or stays as it is.
        is_generated: GENERATED is stamped on the figures.
    """
    widgets = ipywidgets()
    told = widgets.HTML("<i>Move a control: what it changes is then shown here.</i>")
    drawn = widgets.HTML()

    def renew(_: Widget) -> None:
        told.value, figure = answer()
        if figure is not None:
            if is_generated:
                plots.stamp(figure)
            description = html.escape(plots.describe(figure), quote=True)
            source = f"data:image/png;base64,{encoded(figure)}"
            drawn.value = f'<img alt="{description}" style="max-width: 100%" src="{source}">'

    for control in controls:
        control.observe(renew, names="value")
    show_controls(*controls, told, drawn)


def counter(what: str) -> Callable[..., None]:
    """A `watch` for work on images: one line with the number done, renewed every second.

    It is told (done, total), or (fold, done, total) for a line of each fold.
    """
    line, began = ProgressLine(1.0), dict[str, float]()

    def watch(*told: int) -> None:
        *fold, done, total = told
        name = ", fold ".join([what, *map(str, fold)])
        seconds = time.monotonic() - began.setdefault(name, time.monotonic())
        text = f"{name}: {done} of {total} images, {duration(seconds)}"
        line.show(text, is_last=done >= total, key=name)

    return watch


class ProgressLine:
    """One line that is renewed as work goes on, in a notebook with a picture above it.

    On a terminal the line is written over. In a file only the last one stands.

    Args:
        pause: seconds between two showings, at least.
    """

    def __init__(self, pause: float) -> None:
        self._pause, self._due = pause, 0.0
        self._key: object = None
        self._handle: Widget = None
        self._is_open = False

    def show(
        self,
        line: str,
        is_last: bool = False,
        key: object = None,
        draw: Callable[[], Figure] | None = None,
    ) -> None:
        """Show `line`, unless the pause has not passed and it is not the last.

        Args:
            key: another one begins a new line.
            draw: makes the picture, where pictures can be shown.
        """
        if key != self._key:
            self.end()
            self._key = key
        began = time.monotonic()
        if not is_last and began < self._due:
            return
        if in_notebook():
            self._renew(line, draw)
        elif sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", flush=True)
            self._is_open = True
            if is_last:
                self.end()
        elif is_last:
            print(line, flush=True)
        now = time.monotonic()
        self._due = now + max(self._pause, (now - began) / SHARE)

    def end(self) -> None:
        """Leave the line as it stands; what follows begins below it."""
        if self._is_open:
            print(flush=True)
        self._is_open, self._handle, self._due = False, None, 0.0

    def _renew(self, line: str, draw: Callable[[], Figure] | None) -> None:
        picture = {"image/png": encoded(draw())} if draw else {}
        bundle = picture | {"text/plain": line}
        if self._handle is None:
            self._handle = show(bundle, display_id=True)
        else:
            self._handle.update(bundle, raw=True, metadata=_alternative(bundle))


def in_notebook() -> bool:
    """Whether a kernel takes our output, rather than a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def show(bundle: dict[str, str], display_id: bool = False) -> Widget:
    """Put a MIME bundle under the cell; with `display_id`, the handle that replaces it."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=display_id, metadata=_alternative(bundle))


def _alternative(bundle: dict[str, str]) -> dict[str, dict[str, str]]:
    """The words of a picture where front ends look for its alternative text."""
    return {"image/png": {"alt": bundle["text/plain"]}} if "image/png" in bundle else {}


def encoded(figure: Figure) -> str:
    """A figure as a PNG file in base64."""
    return base64.b64encode(plots.png(figure, 90)).decode()
