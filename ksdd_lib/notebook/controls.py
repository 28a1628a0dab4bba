"""A form from the schema, and the static table of what was chosen.

A form never waits: it starts from the run's settings and is read as it stands. Written, as
`explore`, to what ipywidgets 7.7.1 (Colab) and 8 have in common.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ksdd_lib import presets, settings_io
from ksdd_lib.errors import KsddError, SettingsError
from ksdd_lib.notebook import estimate, outputs
from ksdd_lib.runs import open as runs
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES, TYPES, Settings

ALARM = "color: #7a2e00; background: #fff0e5; padding: 0.3em 0.6em; max-width: 60em"
"""How an error looks, in the light and in the dark theme."""

_remembered: dict[tuple[str, ...], dict[str, Any]] = {}
"""Run and groups -> what was touched in their form, so that *Run all* keeps it."""


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
            self._move_to(presets.resolve(settings_io.from_environment() | {"preset": value}))

    def _move_to(self, values: Settings) -> None:
        self.moving, self.start = True, values
        for name, control in self.controls.items():
            if name not in self.changed:
                control.value = getattr(values, name)
        self.moving = False

    def state(self) -> str:
        """What is to be said of the values as they stand, as HTML: an error, or what differs from
        the preset and what the choice takes here."""
        try:
            values = self.settings
            taken = html.escape(estimate.describe(values))
        except SettingsError as error:
            return f'<div style="{ALARM}">{html.escape(str(error))}</div>'
        preset = presets.resolve({"preset": values.preset})
        changes = settings_io.differences(preset, settings_io.to_json(values))
        listed = [
            f"{_readable(name)} <b>{html.escape(str(ours))}</b> instead of {html.escape(str(its))}"
            for name, (its, ours) in changes.items()
        ]
        differs = f"Differs from the preset {values.preset}: {'; '.join(listed)}."
        same = f"All as in the preset {values.preset}."
        return f"{differs if listed else same}<br>{taken}"


def choose(run: Run | None = None, groups: Sequence[str] = ("segmentation",)) -> Form:
    """Show a control for each setting of `groups`, and return the form at once.

    It starts from the run's settings; without a run from those of the run opened last, and on a new
    machine from the preset, each with the environment's on top. What a stage of `run` has begun
    with cannot be changed any more. Without ipywidgets nothing is shown and nothing is touched.

    The `presets.BASIC` ones stand first, the others are folded away. Below them stands what differs
    from the preset, what is not allowed, and what the choice takes on this machine.
    """
    start = run.settings if run else _start()
    form = Form(start)
    try:
        import ipywidgets
    except ImportError:
        return form
    key = (str(run.folder) if run else "", *groups)
    names = [name for name, rule in RULES.items() if rule.group in groups]
    if run is not None and "preset" in names:
        names.remove("preset")
    form.controls = {name: _control(name, getattr(start, name)) for name in names}
    says = ipywidgets.HTML()

    def change(name: str, value: Any) -> None:
        form.note(name, value)
        if not form.moving:
            says.value = form.state()

    for name, control in form.controls.items():
        control.disabled = run is not None and run.has_begun(RULES[name].group)
        control.observe(lambda told, name=name: change(name, told["new"]), names="value")
    for name, value in _remembered.get(key, {}).items():
        if name in form.controls and not form.controls[name].disabled:
            form.controls[name].value = value
    _remembered[key] = form.changed
    says.value = form.state()
    if outputs.in_notebook():
        from IPython.display import display

        display(_panel(form, says))
    return form


def _panel(form: Form, says: Any) -> Any:
    """The controls with their explanations, what is said of them, and a button to measure."""
    import ipywidgets

    rows = {
        name: ipywidgets.HBox([control, ipywidgets.HTML(_explanation(name))])
        for name, control in form.controls.items()
    }
    basic = [row for name, row in rows.items() if name in presets.BASIC]
    more = [row for name, row in rows.items() if name not in presets.BASIC]
    parts = [*basic]
    if more:
        folded = ipywidgets.Accordion(children=[ipywidgets.VBox(more)], selected_index=None)
        folded.set_title(0, f"{len(more)} more settings")
        parts.append(folded)
    button = ipywidgets.Button(
        description="How long will it take?", layout=ipywidgets.Layout(width="16em")
    )

    def measure(_: Any) -> None:
        button.disabled, says.value = True, "Measured on one image ..."
        try:
            estimate.measure_pace(form.settings)
            says.value = form.state()
        except (KsddError, RuntimeError, MemoryError, OSError) as error:
            says.value = f'<div style="{ALARM}">{html.escape(str(error) or "no memory")}</div>'
        finally:
            button.disabled = False

    button.on_click(measure)
    return ipywidgets.VBox([*parts, says, button])


def _start() -> Settings:
    last, given = runs.last_settings(), settings_io.from_environment()
    if last is None or given.get("preset", last.preset) != last.preset:
        return presets.resolve(given)
    return replace(last, **given)


def show_settings(settings: Settings, groups: Sequence[str] | None = None) -> None:
    """Show the settings of `groups` (all, without them) as a table that stays in a saved notebook.

    What differs from the preset is bold, with the preset's own value beside it.
    """
    preset = settings_io.to_json(presets.resolve({"preset": settings.preset}))
    rows, lines = [], []
    for name, value, unit, reason in settings_io.table(settings):
        if groups is not None and RULES[name].group not in groups:
            continue
        ours = html.escape(value)
        if value != str(preset[name]):
            ours = f"<b>{ours}</b> ({settings.preset}: {html.escape(str(preset[name]))})"
        cells = (html.escape(_readable(name)), ours, html.escape(unit), html.escape(reason))
        rows.append(cells)
        lines.append(f"{_readable(name):32} {value} {unit}".rstrip())
    names = ("setting", "value", "unit", "why")
    text = "\n".join(lines)
    if outputs.in_notebook():
        outputs.show({"text/html": outputs.table(names, rows), "text/plain": text})
    else:
        print(text)


def _control(name: str, value: Any) -> Any:
    """The control of one setting."""
    import ipywidgets

    rule, kind = RULES[name], TYPES[name]
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
    rule = RULES[name]
    parts = [rule.unit, rule.reason] if rule.unit else [rule.reason]
    if rule.low is not None:
        parts.append(rule.allowed)
    return f"<small>{html.escape('; '.join(parts))}</small>"
