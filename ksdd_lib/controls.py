"""What a notebook shows while one works in it: a form from the schema, a static table, live curves.

The only module that knows ipywidgets, written to what 7.7.1 (Colab) and 8 have in common. A form
never waits: it starts from the run's settings and is read as it stands. What must survive saving
and sharing is static HTML or PNG.
"""

import base64
import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ksdd_lib import run as runs
from ksdd_lib import settings as schema
from ksdd_lib import visualize
from ksdd_lib.errors import KsddError
from ksdd_lib.predict import Detector, Verdict, as_pixels
from ksdd_lib.report import duration
from ksdd_lib.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.train import Progress, Watch

PAUSE = 5.0
"""Seconds between two drawings of a live curve, at least."""

SHARE = 0.02
"""Part of the time that live curves may take."""

LEFT = 'style="text-align: left"'
"""Each notebook front end aligns table cells in its own way, unless told."""

_remembered: dict[tuple[str, ...], dict[str, Any]] = {}
"""Groups -> what was touched in their form, so that *Run all* keeps it."""


@dataclass
class Form:
    """A control for each setting of some groups, and what the user has touched in them."""

    start: Settings
    controls: Mapping[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    moving: bool = False

    @property
    def settings(self) -> Settings:
        """All values as they stand: what it started from, and what the user has chosen.

        Raises:
            SettingsError: a value is not allowed; the text names the allowed ones.
        """
        return replace(self.start, **self.changed)

    @property
    def touched(self) -> dict[str, Any]:
        """The values that the user has chosen.

        Raises:
            SettingsError: a value is not allowed; the text names the allowed ones.
        """
        return {name: getattr(self.settings, name) for name in self.changed}

    def note(self, name: str, value: Any) -> None:
        """Take over a change by the user; another preset moves every control not touched yet."""
        if self.moving:
            return
        self.changed[name] = value.strip() if isinstance(value, str) else value
        if name == "preset":
            self._move_to(schema.resolve(schema.from_environment() | {"preset": value}))

    def _move_to(self, values: Settings) -> None:
        self.moving, self.start = True, values
        for name, control in self.controls.items():
            if name not in self.changed:
                control.value = getattr(values, name)
        self.moving = False


def choose(run: Run | None = None, groups: Sequence[str] = ("segmentation",)) -> Form:
    """Show a control for each setting of `groups`, and return the form at once.

    It starts from the run's settings; without a run from those of the run opened last, and on a new
    machine from the preset, each with the environment's on top. What a stage of `run` has begun
    with cannot be changed any more. Without ipywidgets nothing is shown and nothing is touched.
    """
    start = run.settings if run else _start()
    form = Form(start)
    try:
        import ipywidgets
    except ImportError:
        return form
    key = tuple(groups)
    names = [name for name, rule in schema.RULES.items() if rule.group in groups]
    if run is not None and "preset" in names:
        names.remove("preset")
    form.controls = {name: _control(name, getattr(start, name)) for name in names}
    for name, control in form.controls.items():
        control.disabled = run is not None and run.has_begun(schema.RULES[name].group)
        control.observe(lambda change, name=name: form.note(name, change["new"]), names="value")
    for name, value in _remembered.get(key, {}).items():
        if name in form.controls and not form.controls[name].disabled:
            form.controls[name].value = value
    _remembered[key] = form.changed
    if _in_notebook():
        from IPython.display import display

        rows = [
            ipywidgets.HBox([control, ipywidgets.HTML(_explanation(name))])
            for name, control in form.controls.items()
        ]
        display(ipywidgets.VBox(rows))
    return form


def _start() -> Settings:
    last, given = runs.last_settings(), schema.from_environment()
    if last is None or given.get("preset", last.preset) != last.preset:
        return schema.resolve(given)
    return replace(last, **given)


def show_settings(settings: Settings, groups: Sequence[str] | None = None) -> None:
    """Show the settings of `groups` (all, without them) as a table that stays in a saved notebook.

    What differs from the preset is bold, with the preset's own value beside it.
    """
    preset = schema.to_json(schema.resolve({"preset": settings.preset}))
    rows, lines = [], []
    for name, value, unit, reason in schema.table(settings):
        if groups is not None and schema.RULES[name].group not in groups:
            continue
        ours = html.escape(value)
        if value != str(preset[name]):
            ours = f"<b>{ours}</b> ({settings.preset}: {html.escape(str(preset[name]))})"
        cells = (html.escape(_readable(name)), ours, html.escape(unit), html.escape(reason))
        rows.append("<tr>" + "".join(f"<td {LEFT}>{cell}</td>" for cell in cells) + "</tr>")
        lines.append(f"{_readable(name):32} {value} {unit}".rstrip())
    names = ("setting", "value", "unit", "why")
    head = "<tr>" + "".join(f"<th {LEFT}>{name}</th>" for name in names) + "</tr>"
    text = "\n".join(lines)
    if _in_notebook():
        table = f"<table>{head}{''.join(rows)}</table>"
        _display({"text/html": table, "text/plain": text})
    else:
        print(text)


def show_figure(figure: Figure, record: Mapping[str, Any]) -> None:
    """Show a figure as a picture that stays in a saved notebook.

    Args:
        record: what data.json holds; "GENERATED" is stamped on figures of generated surfaces.
    """
    if record["is_generated"]:
        visualize.stamp(figure)
    if _in_notebook():
        _display({"image/png": _encoded(figure, 120), "text/plain": "figure"})


def show_picture(path: Path) -> None:
    """Show a PNG file as a picture that stays in a saved notebook."""
    if _in_notebook():
        picture = base64.b64encode(path.read_bytes()).decode()
        _display({"image/png": picture, "text/plain": path.name})


def judge_picture(
    detector: Detector, example: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """Show the verdict on an example, and a button to upload pictures, each judged below it.

    Args:
        example: a picture as `Detector.judge` takes it.
        name: what stands above it.
        record: as for `show_figure`.

    Returns:
        The verdict on the example.
    """
    found = _show_verdict(detector, example, name, record)
    try:
        import ipywidgets
    except ImportError:
        return found
    button = ipywidgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = ipywidgets.Output()

    def judge(change: Mapping[str, Any]) -> None:
        with below:
            for title, content in _uploaded(change["new"]):
                try:
                    _show_verdict(detector, content, title, {"is_generated": False})
                except KsddError as error:
                    print(f"{title}: {error}")

    button.observe(judge, names="value")
    if _in_notebook():
        from IPython.display import display

        display(ipywidgets.VBox([button, below]))
    return found


def _show_verdict(
    detector: Detector, picture: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """One line and a figure: the picture, and where a defect is seen."""
    pixels = as_pixels(picture)
    found = detector.judge(pixels)
    if found.mask is None:
        print(f"{name}: {found.label}")
        return found
    print(f"{name}: {found.label}, score {found.score:.2f}, threshold {detector.threshold:.2f}")
    figure = visualize.gallery(
        [pixels, found.mask], titles=[f"{name}: {found.label}", "output: probability"]
    )
    show_figure(figure, record)
    return found


def _uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Names and contents in the value of a FileUpload: a dict in ipywidgets 7, a tuple in 8."""
    if isinstance(value, Mapping):
        return [(name, bytes(one["content"])) for name, one in value.items()]
    return [(one["name"], bytes(one["content"])) for one in value]


def live_curve(is_generated: bool = False, state: Callable[[], str] = str) -> Watch:
    """A `watch` for the training stages: one picture of the loss, drawn again every few seconds.

    Args:
        is_generated: the data set is generated, which then stands on the picture.
        state: what is on Drive, in a few words; see `Courier.state`.
    """
    output = _Output(PAUSE)

    def watch(progress: Progress) -> None:
        line = "; ".join(filter(None, [describe(progress), state()]))

        def draw() -> dict[str, Any]:
            ax = visualize.training_curve(progress.history, visualize.new_axes(6.8, 2.8))
            ax.set_xlim(0, progress.steps)
            ax.figure.suptitle(line, x=0.01, ha="left", fontsize=9)
            if is_generated:
                visualize.stamp(ax.figure)
            return {"image/png": _encoded(ax.figure, 90)}

        last = progress.step >= progress.steps
        output.update((progress.stage, progress.fold), line, last, draw)

    return watch


def progress_line(what: str) -> Callable[[int, int, int], None]:
    """A `watch` for scoring: one line with the fold and the images done, renewed every second."""
    output = _Output(1.0)
    began: dict[int, float] = {}

    def watch(fold: int, done: int, total: int) -> None:
        seconds = time.monotonic() - began.setdefault(fold, time.monotonic())
        line = f"{what}, fold {fold}: {done} of {total} images, {duration(seconds)}"
        output.update(fold, line, done >= total)

    return watch


def describe(progress: Progress) -> str:
    """One line on how far a stage has come and how long it still takes."""
    row = progress.history[-1]
    place = f"{progress.stage}, fold {progress.fold}"
    if progress.resumed_after:
        place += f" (went on after step {progress.resumed_after})"
    loss, taken = f"loss {row['loss']:.3g}", duration(row["seconds"])
    if progress.step >= progress.steps:
        return f"{place}: all {progress.steps} steps done, {loss}, {taken}"
    left = duration(row["seconds"] / progress.step * (progress.steps - progress.step))
    return f"{place}: step {progress.step} of {progress.steps}, {loss}, {taken}, about {left} left"


@dataclass
class _Output:
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
        if not last and (began < self.due or not _in_notebook()):
            return
        if not _in_notebook():
            print(line)
            return
        bundle = draw() | {"text/plain": line}
        if self.handle is None:
            self.handle = _display(bundle, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
        now = time.monotonic()
        self.due = now + max(self.pause, (now - began) / SHARE)


def _control(name: str, value: Any) -> Any:
    """The control of one setting."""
    import ipywidgets

    rule, kind = schema.RULES[name], schema.TYPES[name]
    look = {
        "description": _readable(name),
        "style": {"description_width": "14em"},
        "layout": ipywidgets.Layout(width="28em", flex="0 0 auto"),
    }
    if rule.choices:
        return ipywidgets.Dropdown(options=list(rule.choices), value=value, **look)
    if kind is bool:
        return ipywidgets.Checkbox(value=value, **look)
    if kind is int:
        return ipywidgets.BoundedIntText(value=value, min=int(rule.low), max=int(rule.high), **look)
    if kind is float:
        return ipywidgets.FloatText(value=value, **look)
    return ipywidgets.Text(value=value, **look)


def _readable(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _explanation(name: str) -> str:
    """The unit, the reason and the allowed values of a setting, as small HTML."""
    rule = schema.RULES[name]
    parts = [rule.unit, rule.reason] if rule.unit else [rule.reason]
    if rule.low is not None:
        parts.append(rule.allowed)
    return f"<small>{html.escape('; '.join(parts))}</small>"


def _in_notebook() -> bool:
    """Whether a kernel takes our output, rather than a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _display(bundle: dict[str, Any], display_id: bool = False) -> Any:
    """Put a MIME bundle under the cell; with `display_id`, the handle that replaces it."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=display_id)


def _encoded(figure: Figure, dpi: int) -> str:
    return base64.b64encode(visualize.png(figure, dpi)).decode()
