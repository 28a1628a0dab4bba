"""A form from the schema, what its choice takes on this machine, and a table of settings."""

import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ksdd_lib import hardware, presets, settings_io, storage
from ksdd_lib.data.sources import what_is_missing
from ksdd_lib.errors import KsddError, RunError, SettingsError
from ksdd_lib.formatting import duration, words
from ksdd_lib.methods import two_stage_timing
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.two_stage_timing import Pace
from ksdd_lib.notebook import outputs
from ksdd_lib.notebook.outputs import Widget
from ksdd_lib.runs import open as runs
from ksdd_lib.runs.run import Run
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import RULES, TYPES, Settings
from ksdd_lib.training import memory
from ksdd_lib.training.batches import mirror_images

LOOK = {"style": {"description_width": "14em"}, "layout": {"width": "28em", "flex": "0 0 auto"}}

SPREAD = 1.5
"""Factor by which a training may take longer or shorter than estimated, where nothing else runs."""

PACES = {"two_stage": two_stage_timing}
"""Method -> what measures it. Of another method only the memory is told."""

_remembered: dict[tuple[str, ...], "Form"] = {}
"""Run and groups -> their last form, so that *Run all* keeps what was touched in it."""


@dataclass
class Form:
    """A control for each setting of some groups, and what the user has touched in them.

    Attributes:
        given: what was written in the cell above *Run all*.
    """

    start: Settings
    controls: Mapping[str, Widget] = field(default_factory=dict)
    changed: dict[str, Value] = field(default_factory=dict)
    given: Mapping[str, Value] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """All values as they stand; raises SettingsError where one is not allowed."""
        return self.start.with_values(self.changed)

    @property
    def touched(self) -> dict[str, Value]:
        """The values that the user has chosen; raises as `settings`."""
        return {name: getattr(self.settings, name) for name in self.changed}

    def note(self, name: str, value: Value) -> None:
        """Take over a change by the user; another preset moves every control not touched yet."""
        self.changed[name] = value.strip() if isinstance(value, str) else value
        if name == "preset":
            stays = {**self.given, **settings_io.from_environment()}
            self.start = presets.resolve(stays | {"preset": value})
            for other in self.controls.keys() - self.changed:
                self.controls[other].value = getattr(self.start, other)

    def state(self) -> str:
        """HTML on the values: an error, or what differs from the preset and what they take here."""
        try:
            values = self.settings
            taken = html.escape(what_it_takes(values))
        except SettingsError as error:
            return outputs.alarm(str(error))
        preset = presets.resolve({"preset": values.preset})
        changes = settings_io.differences(preset, settings_io.to_json(values))
        if values.data != preset.data:
            changes["data"] = preset.data, values.data
        if missing := what_is_missing(values.data):
            taken = outputs.alarm(f"The data is not at {values.data}: {missing}.") + taken
        if not changes:
            return f"All as in the preset {values.preset}.<br>{taken}"
        listed = "; ".join(
            f"{_readable(name)} <b>{html.escape(str(ours))}</b> instead of {html.escape(str(its))}"
            for name, (its, ours) in changes.items()
        )
        return f"Differs from the preset {values.preset}: {listed}.<br>{taken}"


def choose(
    run: Run | None = None, groups: Sequence[str] = ("segmentation",), **given: object
) -> Form:
    """Show a control for each setting of `groups`, and return the form at once.

    It starts from the settings of `run`, where what a stage has begun with is fixed, else from
    those of the run opened last, or the preset. Above them stand the values `given` in the
    notebook, those of the environment, and what was touched in the form since. An empty value is
    not given. Raises SettingsError where one is not allowed.
    """
    form = _form(run, given)
    key = (str(run.folder) if run else "", *groups)
    before = _remembered.get(key, Form(form.start, given=form.given))
    _remembered[key] = form
    widgets = outputs.ipywidgets()
    if widgets is None:
        return form
    form.controls = {
        name: _control(widgets, name, getattr(form.settings, name))
        for name, rule in RULES.items()
        if rule.group in groups and not (run and name == "preset")
    }
    told = widgets.HTML()

    def change(name: str, value: Value) -> None:
        if name in form.changed or value != getattr(form.start, name):  # else a preset moves it
            form.note(name, value)
            told.value = form.state()

    for name, control in form.controls.items():
        control.disabled = run is not None and run.has_begun(RULES[name].group)
        control.observe(lambda found, name=name: change(name, found["new"]), names="value")
    for name, value in before.changed.items():
        is_newer = form.given.get(name) == before.given.get(name)  # than the cell above *Run all*
        if is_newer and not form.controls[name].disabled:
            form.controls[name].value = value
    told.value = form.state()
    outputs.show_controls(*_panel(widgets, form, told))
    return form


def _panel(widgets: Widget, form: Form, told: Widget) -> list[Widget]:
    """The controls, explained, but for a few folded away; what is told; a button to measure."""
    parts, more = list[Widget](), list[Widget]()
    for name, control in form.controls.items():
        rule = RULES[name]
        told_of = [rule.unit, rule.reason, *([] if rule.low is None else [rule.allowed])]
        explanation = widgets.HTML(f"<small>{html.escape('; '.join(told_of))}</small>")
        row = widgets.HBox([control, explanation])
        (parts if name in presets.BASIC else more).append(row)
    if more:
        folded = widgets.Accordion(children=[widgets.VBox(more)], selected_index=None)
        folded.set_title(0, f"{len(more)} more settings")
        parts.append(folded)
    button = widgets.Button(description="How long will it take?", layout={"width": "16em"})

    def measure(_: Widget) -> None:
        button.disabled, told.value = True, "Measured on one image ..."
        try:
            measure_pace(form.settings)
            told.value = form.state()
        except (KsddError, RuntimeError, MemoryError, OSError) as error:
            told.value = outputs.alarm(str(error) or "no memory")
        finally:
            button.disabled = False

    button.on_click(measure)
    return [*parts, told, button]


def _form(run: Run | None, texts: Mapping[str, object]) -> Form:
    """The form of a run, or of one to begin, with what was given as text or number."""
    known = settings_io.from_environment()
    filled = {name: str(value).strip() for name, value in texts.items() if value is not None}
    given = {
        name: settings_io.convert(name, text)
        for name, text in filled.items()
        if text and name not in known
    }
    if run is None:
        return Form(_start(given | known), given=given)
    changed = {name: value for name, value in given.items() if value != getattr(run.settings, name)}
    run.settings.with_values(changed)  # raises where one is not allowed
    return Form(run.settings, changed=changed, given=given)


def _start(given: Mapping[str, Value]) -> Settings:
    """What a form without a run starts from."""
    last = runs.last_settings()
    if last is None or given.get("preset", last.preset) != last.preset:
        return presets.resolve(given)
    return last.with_values(given)


def known_pace(settings: Settings) -> Pace | None:
    """What was measured here before for these settings; None where nothing was."""
    try:
        return storage.read_record(_file(settings), Pace)
    except RunError:  # none, a damaged one, or one of an earlier version
        return None


def measure_pace(settings: Settings) -> None:
    """Measure, and store it for `known_pace`; up to a minute on an old CPU."""
    if settings.method in PACES:
        storage.write_record(_file(settings), PACES[settings.method].measure(settings))


def what_it_takes(settings: Settings) -> str:
    """One or two sentences: what it will take here, as far as it is known."""
    if not method_of(settings).stages:
        return "This method needs no training."
    where = hardware.device()
    arithmetic = hardware.arithmetic_name(settings.precision)
    needed = memory.step_megabytes(settings.size, arithmetic, where) / 1000
    free = memory.free_megabytes(where) / 1000
    text = f"A training step takes about {needed:.1f} GB of memory ({free:.1f} GB are free)."
    pace = known_pace(settings)
    if pace is None:
        return text
    folds = len(settings.fold_numbers)
    minutes = PACES[settings.method].minutes(settings, pace)
    stages = [f"{duration(60 * m)} for the {name} stage, " for name, m in minutes.items()]
    total = 60 * sum(minutes.values())
    spread = f"{duration(total / SPREAD)} to {duration(total * SPREAD)}"
    shown = "tile" if settings.view.tiled else "image"
    scoring = pace.scoring * len(mirror_images(settings.average_flips))
    return (
        f"{'One fold' if folds == 1 else f'{folds} folds'}: about {duration(total)} in all where "
        f"nothing else runs ({spread}). That is {''.join(stages)}"
        f"and {scoring:.2g} s for each {shown} that is scored. {text}"
    )


def steps_and_time(settings: Settings) -> str:
    """As `what_it_takes`, after the steps of a fold; measured now if it never was."""
    stages = method_of(settings).stages
    steps = [f"{stage.recipe(settings).steps} {stage.name} steps" for stage in stages]
    with suppress(RuntimeError, MemoryError, OSError):  # the memory that is needed is told
        if stages and known_pace(settings) is None:
            measure_pace(settings)
    told = f"{' and '.join(steps)} a fold. " if steps else ""
    return told + what_it_takes(settings)


def _file(settings: Settings) -> Path:
    """Where the measurement of a method, size and arithmetic on this machine is stored."""
    arithmetic = hardware.arithmetic_name(settings.precision)
    size = "{}x{}".format(*settings.size)
    name = f"{settings.method}-{hardware.slug()}-{size}-{arithmetic}"
    return storage.cache_folder() / f"pace-{name}.json"


def show_settings(settings: Settings, groups: Sequence[str] | None = None) -> None:
    """Show which settings of `groups`, or of all, are not the preset's, as a table."""
    preset = settings_io.to_json(presets.resolve({"preset": settings.preset}))
    ours = settings_io.to_json(settings)
    changed = [
        name
        for name, rule in RULES.items()
        if ours[name] != preset[name] and (not groups or rule.group in groups)
    ]
    if not changed:
        return print(f"All as in the preset {settings.preset}.")
    rows = [
        [_readable(name), *(html.escape(str(values[name])) for values in (ours, preset))]
        for name in changed
    ]
    heads = "what differs from the preset", "value", settings.preset
    lines = [f"{_readable(n)} {ours[n]} instead of {preset[n]}" for n in changed]
    outputs.show_table(outputs.table(heads, rows), "\n".join(lines))


def _control(widgets: Widget, name: str, value: Value) -> Widget:
    rule, kind = RULES[name], TYPES[name]
    given = {"description": _readable(name), "value": value, **LOOK}
    if rule.choices:
        return widgets.Dropdown(options=list(rule.choices), **given)
    # A box with bounds would make another number of one that is out of range, without a word.
    boxes = {int: widgets.IntText, float: widgets.FloatText, str: widgets.Text}
    return (boxes | {bool: widgets.Checkbox})[kind](**given)


def _readable(name: str) -> str:
    return words(name).capitalize()
