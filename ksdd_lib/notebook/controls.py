"""A form from the schema, and the table of what was chosen.

A form never waits: it starts from the run's settings and is read as it stands.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ksdd_lib import presets, settings_io
from ksdd_lib.errors import KsddError, SettingsError
from ksdd_lib.notebook import estimate, outputs
from ksdd_lib.notebook.outputs import Widget
from ksdd_lib.runs import open as runs
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES, TYPES, Settings, Value
from ksdd_lib.text import words

ALARM = "color: #7a2e00; background: #fff0e5; padding: 0.3em 0.6em; max-width: 60em"
"""How an error looks, in the light and in the dark theme."""

LOOK = {"style": {"description_width": "14em"}, "layout": {"width": "28em", "flex": "0 0 auto"}}

_remembered: dict[tuple[str, ...], dict[str, Value]] = {}
"""Run and groups -> what was touched in their form, so that *Run all* keeps it."""


@dataclass
class Form:
    """A control for each setting of some groups, and what the user has touched in them."""

    start: Settings
    controls: Mapping[str, Widget] = field(default_factory=dict)
    changed: dict[str, Value] = field(default_factory=dict)
    moving: bool = False

    @property
    def settings(self) -> Settings:
        """All values as they stand: what it started from, and what the user has chosen.

        Raises:
            SettingsError: a value is not allowed; the text names the allowed ones.
        """
        return self.start.with_values(self.changed)

    @property
    def touched(self) -> dict[str, Value]:
        """The values that the user has chosen; raises as `settings`."""
        return {name: getattr(self.settings, name) for name in self.changed}

    def note(self, name: str, value: Value) -> None:
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
            return _alarm(str(error))
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

    It starts from the run's settings. Without a run it starts from those of the run opened last,
    and on a new machine from the preset; the environment's stand above both. What a stage of `run`
    has begun with cannot be changed any more. Without controls nothing is touched.

    The `presets.BASIC` ones stand first, the others are folded away. Below them stands what differs
    from the preset, what is not allowed, and what the choice takes on this machine.
    """
    form = Form(run.settings if run else _start())
    widgets = outputs.ipywidgets()
    if widgets is None:
        return form
    names = [name for name, rule in RULES.items() if rule.group in groups]
    if run is not None and "preset" in names:
        names.remove("preset")
    form.controls = {name: _control(widgets, name, getattr(form.start, name)) for name in names}
    told = widgets.HTML()

    def change(name: str, value: Value) -> None:
        form.note(name, value)
        if not form.moving:
            told.value = form.state()

    for name, control in form.controls.items():
        control.disabled = run is not None and run.has_begun(RULES[name].group)
        control.observe(lambda found, name=name: change(name, found["new"]), names="value")
    key = (str(run.folder) if run else "", *groups)
    for name, value in _remembered.get(key, {}).items():
        if name in form.controls and not form.controls[name].disabled:
            form.controls[name].value = value
    _remembered[key] = form.changed
    told.value = form.state()
    outputs.show_controls(*_panel(widgets, form, told))
    return form


def _panel(widgets: Widget, form: Form, told: Widget) -> list[Widget]:
    """The controls with their explanations, what is told of them, and a button to measure."""
    rows = {
        name: widgets.HBox([control, widgets.HTML(_explanation(name))])
        for name, control in form.controls.items()
    }
    parts = [row for name, row in rows.items() if name in presets.BASIC]
    more = [row for name, row in rows.items() if name not in presets.BASIC]
    if more:
        folded = widgets.Accordion(children=[widgets.VBox(more)], selected_index=None)
        folded.set_title(0, f"{len(more)} more settings")
        parts.append(folded)
    button = widgets.Button(description="How long will it take?", layout={"width": "16em"})

    def measure(_: Widget) -> None:
        button.disabled, told.value = True, "Measured on one image ..."
        try:
            estimate.measure_pace(form.settings)
            told.value = form.state()
        except (KsddError, RuntimeError, MemoryError, OSError) as error:
            told.value = _alarm(str(error) or "no memory")
        finally:
            button.disabled = False

    button.on_click(measure)
    return [*parts, told, button]


def _start() -> Settings:
    last, given = runs.last_settings(), settings_io.from_environment()
    if last is None or given.get("preset", last.preset) != last.preset:
        return presets.resolve(given)
    return last.with_values(given)


def show_settings(settings: Settings, groups: Sequence[str] | None = None) -> None:
    """Show the settings of `groups` (all, without them) as a table that stays in a saved notebook.

    What differs from the preset is bold, with the preset's own value beside it.
    """
    preset = settings_io.to_json(presets.resolve({"preset": settings.preset}))
    rows, lines = [], []
    for name, value in settings_io.to_json(settings).items():
        rule, readable = RULES[name], _readable(name)
        if groups is not None and rule.group not in groups:
            continue
        ours = html.escape(str(value))
        if value != preset[name]:
            ours = f"<b>{ours}</b> ({settings.preset}: {html.escape(str(preset[name]))})"
        rows.append((readable, ours, html.escape(rule.unit), html.escape(rule.reason)))
        lines.append(f"{readable:32} {value} {rule.unit}".rstrip())
    heads = ("setting", "value", "unit", "why")
    outputs.show_table(outputs.table(heads, rows), "\n".join(lines))


def _control(widgets: Widget, name: str, value: Value) -> Widget:
    """The control of one setting."""
    rule, kind = RULES[name], TYPES[name]
    given = {"description": _readable(name), "value": value, **LOOK}
    if rule.choices:
        return widgets.Dropdown(options=list(rule.choices), **given)
    if kind is int:
        return widgets.BoundedIntText(min=int(rule.low or 0), max=int(rule.high or 0), **given)
    of_kind = {bool: widgets.Checkbox, float: widgets.FloatText, str: widgets.Text}
    return of_kind[kind](**given)


def _alarm(text: str) -> str:
    return f'<div style="{ALARM}">{html.escape(text)}</div>'


def _readable(name: str) -> str:
    return words(name).capitalize()


def _explanation(name: str) -> str:
    """The unit, the reason and the allowed values of a setting, as small HTML."""
    rule = RULES[name]
    parts = [rule.unit, rule.reason] if rule.unit else [rule.reason]
    if rule.low is not None:
        parts.append(rule.allowed)
    return f"<small>{html.escape('; '.join(parts))}</small>"
