"""Every setting has its control, touched values win, and what matters outlives the widgets."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from ksdd_lib import controls, report, settings, visualize
from ksdd_lib.errors import SettingsError
from ksdd_lib.predict import Verdict
from ksdd_lib.run import Run
from ksdd_lib.settings import GROUPS, PRESETS, RULES, TYPES
from ksdd_lib.train import Progress


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "_remembered", {})


class Screen:
    """What a notebook's cell shows; `bundles` are the outputs, each in its newest state."""

    def __init__(self) -> None:
        self.bundles: list[dict] = []
        self.drawn = 0

    def display(self, bundle: dict, raw: bool = False, display_id: bool = False) -> "Handle":
        self.bundles.append(bundle)
        self.drawn += 1
        return Handle(self, len(self.bundles) - 1)


class Handle:
    def __init__(self, screen: Screen, place: int) -> None:
        self.screen, self.place = screen, place

    def update(self, bundle: dict, raw: bool) -> None:
        self.screen.bundles[self.place] = bundle
        self.screen.drawn += 1


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A notebook's screen, without a kernel."""
    screen = Screen()
    monkeypatch.setattr(controls, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", screen.display)
    return screen


def make_run(folder: Path) -> Run:
    run = Run(folder, settings.resolve({"preset": "demo"}))
    run.write("settings.json", settings.to_json(run.settings))
    return run


def test_every_setting_has_the_control_of_its_type():
    form = controls.choose(groups=GROUPS)
    assert list(form.controls) == list(RULES)
    for name, control in form.controls.items():
        rule = RULES[name]
        wanted = {bool: "Checkbox", int: "BoundedIntText", float: "FloatText", str: "Text"}
        kind = "Dropdown" if rule.choices else wanted[TYPES[name]]
        assert type(control).__name__ == kind, name
        assert control.value == getattr(settings.resolve({}), name)
        assert control.description and "_" not in control.description
    assert form.controls["folds"].options == ("clean", "official")
    assert form.controls["segmentation_steps"].max == 1_000_000


def test_a_form_shows_only_its_groups_and_explains_each_control():
    form = controls.choose(groups=("decision",))
    assert set(form.controls) == {name for name in RULES if name.startswith("decision")}
    text = controls._explanation("decision_batch_size")
    assert "images" in text and "from 1 to 64" in text and text.startswith("<small>")


def test_an_untouched_form_changes_nothing(tmp_path: Path):
    assert controls.choose(groups=GROUPS).touched == {}
    assert controls.choose(make_run(tmp_path), groups=GROUPS).touched == {}


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


def test_a_whole_number_out_of_range_cannot_be_entered():
    control = controls.choose(groups=GROUPS).controls["segmentation_batch_size"]
    control.value = 1000
    assert control.value == RULES["segmentation_batch_size"].high


def test_another_preset_moves_the_controls_that_were_not_touched():
    form = controls.choose(groups=GROUPS)
    form.controls["seed"].value = 3
    form.controls["segmentation_steps"].value = 99
    form.controls["preset"].value = "cpu"
    assert form.controls["image_size"].value == "704x256"
    assert form.controls["decision_steps"].value == PRESETS["cpu"]["decision_steps"]
    assert form.controls["segmentation_steps"].value == 99
    assert form.touched == {"seed": 3, "segmentation_steps": 99, "preset": "cpu"}
    assert settings.resolve(form.touched).data == "kolektorsdd"


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


def test_the_table_is_escaped_and_marks_what_differs_from_the_preset(screen: Screen):
    chosen = settings.resolve({"preset": "cpu", "data": "<img onerror=x>", "seed": 4})
    controls.show_settings(chosen, ("data", "run"))
    [bundle] = screen.bundles
    table = bundle["text/html"]
    assert "<img" not in table and "&lt;img onerror=x&gt;" in table
    assert "<b>4</b> (cpu: 0)" in table and ">clean</td>" in table
    assert "Decision steps" not in table and "Precision" in table
    assert "Seed" in bundle["text/plain"]


@pytest.mark.parametrize("is_generated", [True, False])
def test_a_figure_is_shown_as_a_picture_and_says_generated(screen: Screen, is_generated: bool):
    figure = visualize.new_axes(2, 2).figure
    controls.show_figure(figure, {"is_generated": is_generated})
    assert base64.b64decode(screen.bundles[0]["image/png"]).startswith(b"\x89PNG")
    assert [text.get_text() for text in figure.texts] == ["GENERATED"] * is_generated


def test_in_a_terminal_the_table_is_text(capsys: pytest.CaptureFixture):
    controls.show_settings(settings.resolve({}))
    assert len(capsys.readouterr().out.splitlines()) == len(RULES)


def at(step: int, fold: int = 0, steps: int = 350) -> Progress:
    rows = [
        {"step": n, "loss": 1 / n, "lr": 0.1, "seconds": 2.0 * n} for n in range(10, step + 1, 10)
    ]
    return Progress("segmentation", fold, step, steps, rows)


def test_the_live_curve_is_one_picture_that_is_replaced(screen: Screen):
    watch = controls.live_curve()
    for step in range(10, 351, 10):
        watch(at(step))
    [bundle] = screen.bundles
    assert screen.drawn == 2, "at the start and at the end of this quick training"
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == (
        "segmentation, fold 0: all 350 steps done, loss 0.00286, 12 min"
    )
    watch(at(10, fold=1))
    assert len(screen.bundles) == 2


def test_the_live_curve_is_drawn_again_after_its_pause(screen: Screen, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(controls.time, "monotonic", lambda: clock[0])
    watch = controls.live_curve(is_generated=True)
    for second, drawn in ((0, 1), (4, 1), (5.1, 2), (9, 2), (10.5, 3)):
        clock[0] = 1000.0 + second
        watch(at(100))
        assert screen.drawn == drawn, second


def test_a_live_curve_in_a_terminal_is_one_line_at_the_end(capsys: pytest.CaptureFixture):
    watch = controls.live_curve()
    watch(at(100))
    assert capsys.readouterr().out == ""
    watch(at(350))
    assert capsys.readouterr().out.startswith("segmentation, fold 0: all 350 steps done")


def test_progress_says_what_is_done_and_how_long_it_takes():
    assert controls.describe(at(120)) == (
        "segmentation, fold 0: step 120 of 350, loss 0.00833, 4 min, about 7.7 min left"
    )
    assert report.duration(40) == "40 s"
    assert report.duration(9000) == "2.5 h"


def test_scoring_shows_one_line_for_each_fold(screen: Screen):
    watch = controls.progress_line("scoring")
    for fold in (0, 1):
        for done in range(1, 41):
            watch(fold, done, 40)
    assert [bundle["text/plain"] for bundle in screen.bundles] == [
        "scoring, fold 0: 40 of 40 images, 0 s",
        "scoring, fold 1: 40 of 40 images, 0 s",
    ]


@pytest.mark.slow
def test_in_a_notebook_without_a_browser_all_of_it_runs_and_stays(tmp_path: Path):
    lines = """
from ksdd_lib import controls, settings
from ksdd_lib.train import Progress
form = controls.choose(groups=("run", "data"))
chosen = settings.resolve(form.touched)
controls.show_settings(chosen)
watch = controls.live_curve()
rows = [{"step": n, "loss": 1 / n, "lr": 0.1, "seconds": n} for n in range(1, 51)]
for n in range(1, 51):
    watch(Progress("decision", 2, n, 50, rows[:n]))
print(form.touched)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(lines)])
    here = str(Path(__file__).parent)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": here}}).execute()
    outputs = notebook.cells[0].outputs
    kinds = [set(output.data) if "data" in output else output.text for output in outputs]
    assert "application/vnd.jupyter.widget-view+json" in kinds[0]
    assert kinds[1:] == [{"text/html", "text/plain"}, {"image/png", "text/plain"}, "{}\n"]
    assert outputs[2].data["text/plain"].startswith("decision, fold 2: all 50 steps done")


# Judging a picture


REAL = {"is_generated": False}


@dataclass(frozen=True)
class Judge:
    """Judges by the mean gray level, for want of a network."""

    threshold: float = 100.0

    def judge(self, pixels: np.ndarray) -> Verdict:
        if pixels.std() == 0:
            return Verdict("not a surface")
        label = "defective" if pixels.mean() > self.threshold else "good"
        return Verdict(label, float(pixels.mean()), np.zeros(pixels.shape, np.float32))


def picture(level: int) -> np.ndarray:
    pixels = np.full((32, 32), level, np.uint8)
    pixels[0] += 1
    return pixels


def test_a_picture_is_judged_in_one_line_and_one_figure(screen, capsys):
    found = controls.judge_picture(Judge(), picture(120), "mine", REAL)
    assert found.label == "defective"
    assert capsys.readouterr().out == "mine: defective, score 120.03, threshold 100.00\n"
    figure, upload = screen.bundles
    assert figure["image/png"] and type(upload).__name__ == "VBox"
    frame = controls.judge_picture(Judge(), np.zeros((32, 32), np.uint8), "dark", REAL)
    assert frame.label == "not a surface" and capsys.readouterr().out == "dark: not a surface\n"


@pytest.mark.parametrize("version", [7, 8])
def test_uploaded_pictures_are_judged_one_after_the_other(screen, capsys, version):
    content = cv2.imencode(".png", picture(40))[1].tobytes()
    controls.judge_picture(Judge(), picture(120), "example", REAL)
    button = screen.bundles[-1].children[0]
    capsys.readouterr()
    for name, bytes_ in (("a.png", content), ("b.txt", b"no picture")):
        old = {name: {"metadata": {}, "content": bytes_}}
        new = ({"name": name, "content": memoryview(bytes_)},)
        button.notify_change(
            {"name": "value", "new": old if version == 7 else new, "type": "change"}
        )
    said = capsys.readouterr().out
    assert "a.png: good, score 40.03" in said
    assert "b.txt: the image is not a JPEG" in said
