"""A form from the schema, and the static table of what was chosen.

A form never waits: it starts from the run's settings and is read as it stands. Written, as
`explore`, to what ipywidgets 7.7.1 (Colab) and 8 have in common.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ksdd_lib import outputs
from ksdd_lib import run as runs
from ksdd_lib import settings as schema
from ksdd_lib.run import Run
from ksdd_lib.settings import Settings

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
    if outputs.in_notebook():
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
    if outputs.in_notebook():
        table = f"<table>{head}{''.join(rows)}</table>"
        outputs.show({"text/html": table, "text/plain": text})
    else:
        print(text)


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
