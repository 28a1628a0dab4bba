"""Each setting has its control, touched values win, and the form tells what a choice takes."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from ksdd_lib import hardware, presets, settings_io, storage
from ksdd_lib.errors import RunError, SettingsError
from ksdd_lib.methods import two_stage_timing
from ksdd_lib.methods.two_stage_timing import Pace
from ksdd_lib.models import two_stage
from ksdd_lib.notebook import controls
from ksdd_lib.presets import PRESETS, resolve
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES, TYPES

GROUPS = ("data", "segmentation", "decision", "evaluation", "run")


@pytest.fixture(autouse=True)
def nothing_remembered(screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "_remembered", {})


def make_run(folder: Path) -> Run:
    run = Run(folder, presets.resolve({"preset": "demo"}))
    storage.write_json(run.folder / "settings.json", settings_io.to_json(run.settings))
    return run


def test_every_setting_has_the_control_of_its_type():
    form = controls.choose(groups=GROUPS)
    assert list(form.controls) == list(RULES)
    for name, control in form.controls.items():
        rule = RULES[name]
        wanted = {bool: "Checkbox", int: "IntText", float: "FloatText", str: "Text"}
        kind = "Dropdown" if rule.choices else wanted[TYPES[name]]
        assert type(control).__name__ == kind, name
        assert control.value == getattr(presets.resolve({}), name)
        assert control.description and "_" not in control.description
    assert form.controls["folds"].options == ("clean", "official", "published")


def test_a_form_shows_only_its_groups_and_explains_each_control(screen):
    form = controls.choose(groups=("decision",))
    assert set(form.controls) == {name for name in RULES if name.startswith("decision")}
    *_, folded, _, _ = screen.bundles[-1].children
    [text] = [
        row.children[1].value
        for row in folded.children[0].children
        if row.children[0].description == "Decision batch size"
    ]
    assert "images" in text and "from 1 to 64" in text and text.startswith("<small>")


def test_an_untouched_form_changes_nothing(tmp_path: Path):
    assert controls.choose(groups=GROUPS).touched == {}
    assert controls.choose(make_run(tmp_path), groups=GROUPS).touched == {}


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -5), ("generated_items", 3), ("partition", -1)]
)
def test_a_number_out_of_range_is_refused_and_not_made_another(screen, name, value):
    form = controls.choose(groups=("data", "run"))
    form.controls[name].value = value
    says = screen.bundles[-1].children[-2].value
    assert f"{name} is {value}; it must be from" in says
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        _ = form.settings


def test_the_form_says_which_part_of_a_path_is_missing(screen, tmp_path: Path):
    form = controls.choose(groups=("data", "run"))
    form.controls["data"].value = str(tmp_path / "prts" / "a")
    says = screen.bundles[-1].children[-2].value
    assert f"there is no &#x27;prts&#x27; in {tmp_path.name}" in says
    assert "All as in the preset" not in says and "instead of generated" in says
    form.controls["data"].value = str(tmp_path)
    says = screen.bundles[-1].children[-2].value
    assert "there is no" not in says and str(tmp_path) in says


def test_touched_values_have_the_setting_s_own_type():
    form = controls.choose(groups=GROUPS)
    form.controls["fold"].value = "1"
    form.controls["rotation"].value = True
    form.controls["seed"].value = 7
    form.controls["decision_learning_rate"].value = 1
    form.controls["image_size"].value = " 160 x 128 "
    assert form.touched == {
        "fold": "1",
        "rotation": True,
        "seed": 7,
        "decision_learning_rate": 1.0,
        "image_size": "160x128",
    }


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("segmentation_learning_rate", 50.0, "from 1e-06 to 10"),
        ("segmentation_learning_rate", 0.0, "from 1e-06 to 10"),
        ("image_size", "100x100", "divisible by 16"),
        ("image_size", "big", "HEIGHTxWIDTH"),
        ("data", "", "must be text"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_allowed_ones(name, value, allowed):
    form = controls.choose(groups=GROUPS)
    form.controls[name].value = value
    with pytest.raises(SettingsError, match=name) as refusal:
        _ = form.touched
    assert allowed in str(refusal.value)


def test_the_panel_says_at_once_what_differs_and_what_is_not_allowed(screen, monkeypatch):
    monkeypatch.setattr(controls, "what_it_takes", lambda values: f"{values.image_size}: 3 GB.")
    form = controls.choose(groups=("run", "data"))
    *_, says, _ = screen.bundles[-1].children
    assert says.value == "All as in the preset demo.<br>192x128: 3 GB."
    form.controls["seed"].value = 3
    assert "Seed <b>3</b> instead of 0" in says.value
    form.controls["image_size"].value = "700x256"
    assert "divisible by 16" in says.value and "background" in says.value
    form.controls["image_size"].value = "704x256"
    assert "Image size <b>704x256</b> instead of 192x128; Seed <b>3</b>" in says.value
    assert says.value.endswith("<br>704x256: 3 GB.")


def test_a_newcomer_sees_a_few_settings_and_finds_the_others_folded(screen):
    controls.choose(groups=("segmentation",))
    *basic, folded, _, _ = screen.bundles[-1].children
    assert [row.children[0].description for row in basic] == ["Annotation", "Segmentation steps"]
    assert folded.selected_index is None and folded.get_title(0).endswith("more settings")
    assert len(folded.children[0].children) > 5


def test_the_button_measures_and_the_panel_tells_the_minutes(screen, monkeypatch):
    form = controls.choose(groups=("segmentation",))
    form.controls["segmentation_steps"].value = 10
    *_, says, button = screen.bundles[-1].children
    assert "for the segmentation stage" not in says.value
    measured = []
    monkeypatch.setattr(controls, "measure_pace", measured.append)
    monkeypatch.setattr(
        controls,
        "known_pace",
        lambda values: Pace(training=1.0, scoring=0.1, deciding=0.0),
    )
    button.click()
    assert measured[0].segmentation_steps == 10 and not button.disabled
    assert "for the segmentation stage" in says.value


def test_another_preset_moves_the_controls_that_were_not_touched():
    form = controls.choose(groups=GROUPS)
    form.controls["seed"].value = 3
    form.controls["segmentation_steps"].value = 99
    form.controls["preset"].value = "cpu"
    assert form.controls["image_size"].value == "704x256"
    assert form.controls["decision_steps"].value == PRESETS["cpu"]["decision_steps"]
    assert form.controls["segmentation_steps"].value == 99
    assert form.touched == {"seed": 3, "segmentation_steps": 99, "preset": "cpu"}
    assert presets.resolve(form.touched).data == "kolektorsdd"


def test_the_environment_stands_above_a_preset(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KSDD_SEED", "5")
    form = controls.choose(groups=GROUPS)
    form.controls["preset"].value = "paper"
    assert form.controls["seed"].value == 5
    assert form.controls["segmentation_optimizer"].value == "sgd"


def test_running_the_cell_again_keeps_what_was_touched():
    controls.choose(groups=("run", "data")).controls["preset"].value = "cpu"
    again = controls.choose(groups=("run", "data"))
    assert again.controls["preset"].value == "cpu"
    assert again.controls["image_size"].value == "704x256"
    assert again.touched == {"preset": "cpu"}
    assert controls.choose(groups=("decision",)).touched == {}


def test_what_was_touched_in_one_run_s_form_stays_out_of_another_s(tmp_path: Path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    controls.choose(first, groups=("segmentation",)).controls["segmentation_steps"].value = 60
    assert controls.choose(second, groups=("segmentation",)).touched == {}
    assert controls.choose(first, groups=("segmentation",)).touched == {"segmentation_steps": 60}


def test_what_a_stage_has_begun_with_is_fixed(tmp_path: Path):
    run = make_run(tmp_path)
    controls.choose(run, groups=("segmentation",)).controls["annotation"].value = "box"
    run.fold_folder(0).mkdir()
    (run.fold_folder(0) / "segmentation.jsonl").touch()
    form = controls.choose(run, groups=("segmentation", "decision"))
    assert form.controls["annotation"].disabled and not form.controls["decision_steps"].disabled
    form = controls.choose(run, groups=("segmentation",))
    assert form.controls["annotation"].value == run.settings.annotation
    assert form.touched == {}


def test_a_run_s_preset_is_no_control(tmp_path: Path):
    assert "preset" not in controls.choose(make_run(tmp_path), groups=("run",)).controls


def test_without_ipywidgets_nothing_breaks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    assert controls.choose(groups=GROUPS).touched == {}


def test_the_table_is_escaped_and_holds_only_what_differs_from_the_preset(screen):
    chosen = presets.resolve({"preset": "cpu", "data": "<img onerror=x>", "seed": 4})
    controls.show_settings(chosen, ("data", "run"))
    [bundle] = screen.bundles
    table = bundle["text/html"]
    assert "<img" not in table and "&lt;img onerror=x&gt;" in table
    assert ">4</td>" in table and ">0</td>" in table and ">cpu</th>" in table
    assert table.count("<tr>") == 3 and "Precision" not in table
    assert bundle["text/plain"].splitlines()[1] == "Seed 4 instead of 0"


@pytest.mark.parametrize(
    ("given", "groups", "said"),
    [
        ({}, None, "All as in the preset demo.\n"),
        ({"preset": "cpu"}, ("data", "run"), "All as in the preset cpu.\n"),
        ({"preset": "cpu", "seed": 4}, ("decision",), "All as in the preset cpu.\n"),
        ({"decision_steps": 7}, ("decision",), "Decision steps 7 instead of 150\n"),
        (
            {"seed": 1, "data": "/x/parts.zip"},
            None,
            "Data parts.zip instead of generated\nSeed 1 instead of 0\n",
        ),
    ],
)
def test_in_a_terminal_the_table_is_text(capsys, monkeypatch, given, groups, said):
    monkeypatch.setattr(controls.outputs, "in_notebook", lambda: False)
    controls.show_settings(presets.resolve(given), groups)
    assert capsys.readouterr().out == said


@pytest.mark.fault(79)
class TestTheCellAboveRunAll:
    """Values given in the notebook: above the last run's and the preset's, below all others."""

    @pytest.mark.parametrize("empty", ["", None, "  "])
    def test_empty_fields_change_nothing(self, empty):
        form = controls.choose(groups=GROUPS, preset=empty, seed=empty, data=empty)
        assert form.settings == presets.resolve({}) and form.touched == {}

    @pytest.mark.parametrize(
        ("name", "written", "value"),
        [
            ("seed", "3", 3),
            ("seed", 3, 3),
            ("seed", " 12 ", 12),
            ("fold", "0", "0"),
            ("fold", 1, "1"),
            ("data", "/content/parts.zip", "/content/parts.zip"),
            ("image_size", "256 x 128", "256x128"),
            ("rotation", True, True),
        ],
    )
    def test_text_and_numbers_are_both_taken(self, name, written, value):
        form = controls.choose(groups=GROUPS, **{name: written})
        assert getattr(form.settings, name) == value == form.controls[name].value

    @pytest.mark.parametrize(
        ("name", "written"),
        [("seed", "three"), ("fold", "3"), ("preset", "fast"), ("image_size", "100x100")],
    )
    @pytest.mark.parametrize("has_widgets", [True, False])
    def test_what_is_not_allowed_is_refused_at_once(self, name, written, has_widgets, monkeypatch):
        if not has_widgets:
            monkeypatch.setattr(controls.outputs, "ipywidgets", lambda: None)
        with pytest.raises(SettingsError, match=name):
            controls.choose(groups=GROUPS, **{name: written})

    def test_the_environment_wins(self, monkeypatch):
        monkeypatch.setenv("KSDD_SEED", "5")
        monkeypatch.setenv("KSDD_PRESET", "paper")
        form = controls.choose(groups=GROUPS, seed="3", preset="cpu", fold="1")
        values = form.settings
        assert (values.seed, values.preset, values.fold) == (5, "paper", "1")

    def test_the_last_run_goes_on_where_the_fields_are_empty_or_agree(self, monkeypatch):
        last = presets.resolve({"preset": "cpu", "seed": 4})
        monkeypatch.setattr(controls.runs, "last_settings", lambda: last)
        assert controls.choose(groups=GROUPS).settings == last
        assert controls.choose(groups=GROUPS, preset="cpu").settings == last
        assert controls.choose(groups=GROUPS, seed="4").settings == last
        assert controls.choose(groups=GROUPS, seed="6").settings.seed == 6
        other = controls.choose(groups=GROUPS, preset="best").settings
        assert other == presets.resolve({"preset": "best"})

    def test_a_touched_control_wins_until_the_cell_says_something_new(self):
        controls.choose(groups=GROUPS, seed="3", fold="0").controls["seed"].value = 7
        again = controls.choose(groups=GROUPS, seed="3", fold="1").settings
        assert (again.seed, again.fold) == (7, "1")
        assert controls.choose(groups=GROUPS, seed="3").settings.seed == 7
        assert controls.choose(groups=GROUPS, seed="8").settings.seed == 8
        assert controls.choose(groups=GROUPS, seed="").settings.seed == 0

    def test_another_preset_in_the_form_keeps_what_the_cell_says(self):
        form = controls.choose(groups=GROUPS, preset="cpu", seed="3")
        form.controls["preset"].value = "paper"
        assert (form.settings.seed, form.controls["seed"].value) == (3, 3)
        assert form.settings.segmentation_optimizer == "sgd"

    @pytest.mark.parametrize("has_widgets", [True, False])
    def test_a_stage_takes_it_until_it_has_begun(self, tmp_path, monkeypatch, has_widgets):
        if not has_widgets:
            monkeypatch.setattr(controls.outputs, "ipywidgets", lambda: None)
        run, groups = make_run(tmp_path), ("segmentation",)
        run = run.amend(controls.choose(run, groups, segmentation_steps="60").touched)
        assert run.settings.segmentation_steps == 60
        run.fold_folder(0).mkdir()
        (run.fold_folder(0) / "segmentation.jsonl").touch()
        for same in ("60", "", 60):
            assert controls.choose(run, groups, segmentation_steps=same).touched == {}
        with pytest.raises(RunError, match="segmentation_steps"):
            run.amend(controls.choose(run, groups, segmentation_steps="70").touched)


@pytest.mark.slow
def test_in_a_notebook_without_a_browser_all_of_it_runs_and_stays(tmp_path: Path):
    lines = """
from ksdd_lib.notebook import controls, outputs
from ksdd_lib.presets import resolve
form = controls.choose(groups=("run", "data"))
chosen = resolve(form.touched)
controls.show_settings(chosen)
watch = outputs.counter("scoring")
for n in range(1, 51):
    watch(2, n, 50)
print(form.touched)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(lines)])
    here = str(Path(__file__).parents[1])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": here}}).execute()
    outputs = notebook.cells[0].outputs
    kinds = [set(output.data) if "data" in output else output.text for output in outputs]
    assert "application/vnd.jupyter.widget-view+json" in kinds[0]
    assert kinds[1:] == ["All as in the preset demo.\n", {"text/plain"}, "{}\n"]
    assert outputs[2].data["text/plain"].startswith("scoring, fold 2: 50 of 50 images")


TINY = {"preset": "demo", "image_size": "128x128", "fold": "0"}
PACE = Pace(training=0.6, scoring=0.12, deciding=0.02)


def test_minutes_follow_from_steps_batches_and_folds():
    one = two_stage_timing.minutes(resolve({"preset": "cpu", "fold": "0"}), PACE)
    assert one == pytest.approx(
        {"segmentation": 400 * 2 * 0.6 / 60, "decision": 250 * 8 * (0.12 + 0.02) / 60}
    )
    all_folds = two_stage_timing.minutes(resolve({"preset": "cpu"}), PACE)
    assert all_folds == pytest.approx({stage: 3 * value for stage, value in one.items()})


def test_what_is_asked_only_once_is_counted_once(monkeypatch: pytest.MonkeyPatch):
    """At most 399 images in four views, where nothing is pasted: not 8,000 passes."""
    monkeypatch.setattr(hardware, "arithmetic", lambda *_: torch.bfloat16)
    best = {"preset": "best", "fold": "0"}

    def minutes(**others) -> float:
        return two_stage_timing.minutes(resolve(best | others), PACE)["decision"]

    assert minutes() == pytest.approx((8 * 1000 * 0.02 + 4 * 399 * 0.12) / 60)
    every = pytest.approx(8 * 1000 * (0.02 + 0.12) / 60)
    assert minutes(image_size="1408x512") == every  # too large to be kept in memory
    assert minutes(decision_copy_paste=True) == every
    assert minutes(data="mine.zip") == every
    assert minutes(rotation=True) == every
    few = resolve(TINY | {"generated_items": 6, "decision_steps": 9000})
    views = 4 if few.flips else 1
    expected = few.decision_batch_size * 9000 * 0.02 + 48 * views * 0.12
    assert two_stage_timing.minutes(few, PACE)["decision"] == pytest.approx(expected / 60)


def test_a_measurement_is_kept_for_its_size_and_arithmetic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    settings = resolve(TINY | {"precision": "float32"})
    assert controls.known_pace(settings) is None
    controls.measure_pace(settings)
    pace = controls.known_pace(settings)
    assert min(pace.training, pace.scoring, pace.deciding) > 0
    assert controls.known_pace(resolve(TINY | {"image_size": "144x128"})) is None
    controls.measure_pace(resolve(TINY | {"precision": "float32", "image_size": "144x128"}))
    assert controls.known_pace(settings) == pace


def test_trainings_are_timed_with_their_backward_pass_and_scoring_without(
    monkeypatch: pytest.MonkeyPatch,
):
    backward, calls = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: [calls.append(1), backward(loss)])

    def seconds(work: Callable[[], None], _: torch.device) -> float:
        before = len(calls)
        work()
        return 1.0 + len(calls) - before

    monkeypatch.setattr(two_stage, "FEATURES", 8)
    monkeypatch.setattr(two_stage_timing, "seconds", seconds)
    found = two_stage_timing.measure(resolve(TINY))
    assert found == Pace(training=2.0, scoring=1.0, deciding=2.0)


@pytest.mark.parametrize("stored", ["{", '{"training": 1.0, "scoring": 1.0}'])
def test_a_damaged_or_earlier_cache_is_measured_again(stored, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_stage, "FEATURES", 8)
    storage.write_text(controls._file(resolve(TINY)), stored)
    assert controls.known_pace(resolve(TINY)) is None
    controls.measure_pace(resolve(TINY))
    assert controls.known_pace(resolve(TINY)) is not None


def test_the_sentence_tells_memory_always_and_minutes_once_they_were_measured(monkeypatch):
    settings = resolve({"preset": "cpu", "precision": "float32"})
    assert controls.what_it_takes(settings).startswith(
        "A training step takes about 2.1 GB of memory ("
    )
    monkeypatch.setattr(controls, "known_pace", lambda settings: PACE)
    assert controls.what_it_takes(settings).startswith(
        "3 folds: about 38 min in all where nothing else runs (25 min to 57 min). That is 24 min "
        "for the segmentation stage, 14 min for the decision stage, and 0.48 s for each image that "
        "is scored. A training step"
    )


def test_a_method_without_a_training_needs_no_estimate():
    settings = resolve(TINY | {"method": "darkest_pixel"})
    controls.measure_pace(settings)
    assert controls.what_it_takes(settings) == "This method needs no training."
