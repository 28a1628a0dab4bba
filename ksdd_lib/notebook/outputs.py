"""What a cell shows: pictures, tables and renewed lines, which stay, and controls, which do not.

Controls are written to what ipywidgets 7.7.1 (Colab) and 8 have in common.
"""

import html
import io
import shutil
import sys
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ksdd_lib.errors import KsddError
from ksdd_lib.formatting import duration, words
from ksdd_lib.reporting import plots

Widget = Any
"""What ipywidgets and IPython give: a control, the module, a handle. They have no types."""

LEFT = 'style="text-align: left; padding: 0.1em 1.2em 0.1em 0"'
"""Each notebook front end aligns table cells in its own way, unless told."""

LOOK = {"style": {"description_width": "16em"}, "layout": {"width": "40em"}}
"""How wide a control and its name are."""


def show_figure(figure: Figure, is_generated: bool = False) -> None:
    """Show a figure; GENERATED is stamped on one of generated surfaces."""
    if is_generated:
        plots.stamp(figure)
    if in_notebook():
        show({"image/png": _drawn(figure), "text/plain": plots.describe(figure)})


def show_picture(path: Path) -> None:
    """Show a PNG file."""
    if in_notebook():
        picture = b64encode(path.read_bytes()).decode()
        show({"image/png": picture, "text/plain": words(path.stem)})


def show_table(page: str, text: str) -> None:
    """Show HTML; on a terminal `text` stands for it."""
    if in_notebook():
        show({"text/html": page, "text/plain": text})
    else:
        print(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table, aligned to the left in every front end; cells are HTML already."""
    lines = ["".join(f"<th {LEFT}>{head}</th>" for head in heads)]
    lines += ["".join(f"<td {LEFT}>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def picture(figure: Figure, is_generated: bool = False) -> str:
    """A figure as HTML; GENERATED is stamped on one of generated surfaces."""
    if is_generated:
        plots.stamp(figure)
    description = html.escape(plots.describe(figure), quote=True)
    source = f"data:image/png;base64,{_drawn(figure)}"
    return f'<img alt="{description}" style="max-width: 100%" src="{source}">'


def ipywidgets() -> Widget:
    """The module of the controls; None outside a notebook, or where it is missing."""
    if not in_notebook() or find_spec("ipywidgets") is None:
        return None
    import ipywidgets

    return ipywidgets


def slider(name: str, value: float, low: float, high: float, step: float) -> Widget:
    """A slider that answers when it is let go."""
    return ipywidgets().FloatSlider(
        value, min=low, max=high, step=step, continuous_update=False, description=name, **LOOK
    )


def show_controls(*controls: Widget) -> None:
    """Show controls below each other."""
    from IPython.display import display

    display(ipywidgets().VBox(controls))


class Answer:
    """What stands below controls: a text and a picture. Each answer replaces the one before.

    Widgets that hold HTML, as an output widget drops what is displayed again under the same name.
    """

    def __init__(self, text: str = "") -> None:
        self.text, self.picture = ipywidgets().HTML(text), ipywidgets().HTML()

    def draw(self, figure: Figure, is_generated: bool = False) -> None:
        """Show a figure instead of the one before."""
        self.picture.value = picture(figure, is_generated)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, what is printed and warned, or else the error, becomes the text."""
        self.text.value = self.picture.value = ""
        said = io.StringIO()
        try:
            with redirect_stdout(said), warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = lambda message, *_: said.write(f"Warning: {message}\n")  # type: ignore[assignment]
                yield
            self.text.value = f"<pre>{html.escape(said.getvalue())}</pre>"
        except (KsddError, OSError) as error:
            self.text.value = alarm(str(error))


def alarm(text: str) -> str:
    """An error as HTML that can be read in the light and in the dark theme."""
    look = "color: #7a2e00; background: #fff0e5; padding: 0.3em 0.6em; max-width: 60em"
    return f'<div style="{look}">{html.escape(text)}</div>'


def show_answers(
    controls: Sequence[Widget], answer: Callable[[], tuple[str, Figure | None]], is_generated: bool
) -> None:
    """Show controls, and from the first move on what they answer: HTML, and the newest figure."""
    below = Answer("<i>Move a control: what it changes is then shown here.</i>")

    def renew(_: Widget) -> None:
        below.text.value, figure = answer()
        if figure is not None:
            below.draw(figure, is_generated)

    for control in controls:
        control.observe(renew, names="value")
    show_controls(*controls, below.text, below.picture)


def counter(what: str, line: "ProgressLine | None" = None) -> Callable[..., None]:
    """A `watch` for work on images, told (done, total), or (fold, done, total): a line a fold."""
    line, began = line or ProgressLine(1.0), dict[str, float]()

    def watch(*told: int) -> None:
        *fold, done, total = told
        name = ", fold ".join([what, *map(str, fold)])
        seconds = time.monotonic() - began.setdefault(name, time.monotonic())
        text = f"{name}: {done} of {total} images, {duration(seconds)}"
        line.show(text, is_last=done >= total, key=name)

    return watch


MINUTE = 60.0
"""How often a file gets a line, in seconds."""


class ProgressLine:
    """A line that is renewed at most once in `pause` seconds, in a notebook below a picture.

    On a terminal it is written over. A file gets the last one, and one a minute before.
    """

    def __init__(self, pause: float) -> None:
        self._pause, self._due, self._due_in_file = pause, 0.0, time.monotonic() + MINUTE
        self._key: object = None
        self._handle: Widget = None
        self._is_open = False

    def show(
        self,
        line: str,
        is_last: bool = False,
        key: object = None,
        draw: Callable[[], Figure] | None = None,
        page: str = "",
    ) -> None:
        """Show `line` and what `draw` makes, if due or last; another `key` begins a new line.

        In a notebook `page`, HTML, stands in place of the line.
        """
        if key != self._key:
            self.end()
            self._key = key
        began = time.monotonic()
        if not is_last and began < self._due:
            return
        if in_notebook():
            bundle = {"image/png": _drawn(draw())} if draw else {}
            bundle |= ({"text/html": page} if page else {}) | {"text/plain": line}
            if self._handle is None:
                self._handle = show(bundle, display_id=True)
            else:
                self._handle.update(bundle, raw=True, metadata=_alternative(bundle))
        elif sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="\n" if is_last else "", flush=True)
            self._is_open = not is_last
        elif is_last or began >= self._due_in_file:
            print(line, flush=True)
            self._due_in_file = began + MINUTE
        now = time.monotonic()
        self._due = now + max(self._pause, 50 * (now - began))  # it takes 2 % of the time at most

    def end(self) -> None:
        """Leave the line as it stands; what follows begins below it."""
        if self._is_open:
            print(flush=True)
        self._is_open, self._handle, self._due = False, None, 0.0


def in_notebook() -> bool:
    """Whether a kernel takes our output, rather than a terminal."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def show(bundle: dict[str, str], display_id: bool = False) -> Widget:
    """Put a MIME bundle under the cell; with `display_id`, the handle that replaces it."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=display_id, metadata=_alternative(bundle))


def _alternative(bundle: dict[str, str]) -> dict[str, dict[str, str]]:
    """The words of a picture where front ends look for its alternative text."""
    return {"image/png": {"alt": bundle["text/plain"]}} if "image/png" in bundle else {}


def _drawn(figure: Figure) -> str:
    """A figure as a PNG file in base64."""
    return b64encode(plots.png(figure, 90)).decode()
