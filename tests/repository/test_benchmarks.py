"""The benchmark compares like with like, runs, and stores what it measured."""

from functools import partial

import numpy as np
import plain
import precision
import pytest
import robustness
import runs
import speed
import study_scale
import torch
from tiny_training import tiny_data, tiny_run
from torch import nn

from ksdd_lib import hardware, storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.synthetic import generate
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.models.two_stage import TwoStageNet
from ksdd_lib.training.batches import FLIPS, load_surfaces

CPU = torch.device("cpu")
SIZE = "128x128"


@pytest.fixture
def samples(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "device", lambda: CPU)
    return tiny_data(tmp_path / "tiny").samples


@pytest.mark.parametrize("width", [128, pytest.param(640, marks=pytest.mark.slow)])
def test_plain_and_ours_give_the_same_results(width):
    """The wider one is large enough for the frequency domain."""
    ours = plain.first_weights(speed.settings_of(SIZE, "float32"))
    theirs = plain.PlainTwoStage()
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(0)
    images = torch.rand(2, 1, 256 if width > 128 else 128, width)
    with torch.no_grad():
        expected = theirs(images)
        found = [ours.to(memory_format=torch.channels_last)(image[None]) for image in images]
    for one, two in zip(expected, zip(*found, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(two), one, rtol=1e-3, atol=1e-3)


def test_the_files_hold_what_the_surfaces_hold(samples):
    settings = speed.settings_of("160x144")
    surfaces = load_surfaces(samples, settings.size, settings.annotation)
    for row, (image, mask) in enumerate(plain.Files(samples, settings)):
        assert torch.equal(image, surfaces.image(row)[0])
        assert torch.equal(mask, surfaces.mask(row)[0])
        if row + 1 == len(samples):
            break


@pytest.mark.slow
def test_the_steps_have_the_same_losses_and_scores(samples):
    settings = speed.settings_of(SIZE, "float32")
    surfaces = load_surfaces(samples, settings.size, settings.annotation)
    order = speed.order_of(samples, 2, settings)
    ours, theirs = (
        speed.trainer(surfaces, order, settings),
        plain.trainer(samples, order, settings, 0, CPU),
    )
    assert float(ours()) == pytest.approx(theirs(), rel=1e-4)
    assert float(ours()) == pytest.approx(theirs(), rel=1e-2)
    expected = plain.scorer(samples, 2, settings, 0, CPU)()
    for whole in (False, True):
        found = speed.scorer(surfaces, 2, settings, whole=whole)()
        assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_bare_convolutions_are_those_of_the_networks():
    model, seen = TwoStageNet(), []

    def note(layer, inputs):
        height, width = inputs[0].shape[-2:]
        kernel = layer.kernel_size[0]
        seen.append(plain.Shape(layer.in_channels, layer.out_channels, kernel, height, width))

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.zeros(1, 1, 128, 144))
    first, second = plain.convolutions(128, 144)
    assert first + second == seen and len(second) == 3


@pytest.mark.slow
def test_the_benchmark_runs_and_stores_all(tmp_path, capsys):
    out = tmp_path / "speed.json"
    speed.main(["--sizes", "256x128", "--rounds", "1", "--precision", "auto", "--out", str(out)])
    report = storage.read_json(out)
    assert {"environment", "date", "threads", "rounds", "import", "loading"} <= set(report)
    keys = [(case["what"], case["batch"]) for case in report["cases"]]
    assert keys == [(what, batch) for what in ("training step", "scoring") for batch in (1, 2)]
    for case in report["cases"]:
        names = {"plain", "ours", "floor"} | ({speed.FOURIER} & set(case["medians"]))
        assert set(case["seconds"]) == set(case["medians"]) == names
        assert all(len(raw) == 1 and raw[0] > 0 for raw in case["seconds"].values())
        assert {"plain/ours", "ours/floor"} <= set(case["ratios"])
    memory = [(case["variant"], case["batch"]) for case in report["memory"]]
    assert memory == [("plain", 1), ("ours", 1), ("plain", 2), ("ours", 2)]
    assert all(case["peak_bytes"] >= case["growth_bytes"] > 0 for case in report["memory"])
    assert report["loading"][0]["images"] == 16 and report["cost_of_size"] == []
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert "| plain/ours | ours/floor |" in capsys.readouterr().out


@pytest.mark.slow
def test_reduced_precision_stands_beside_float32(tmp_path):
    data = tiny_data(tmp_path / "data")
    run = tiny_run(tmp_path / "run", segmentation_steps=1, decision_steps=1)
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    same, less = precision.compare(run, data, 0, ["float32", "bfloat16"])
    assert same["images"] == len(data.folds[0].test)
    assert same["mask error, worst image"] == 0 == same["score, largest difference"]
    assert 0 < less["mask error, mean"] <= less["mask error, worst image"] < 0.1
    assert less["AP in float32"] == same["AP"]


@pytest.mark.parametrize(("kind", "views"), [("both", FLIPS), ("decision", (0,))])
def test_precision_is_compared_on_the_scores_that_judge_in_the_run(
    tmp_path, monkeypatch, kind, views
):
    data, asked = tiny_data(tmp_path / "data"), []
    run = tiny_run(tmp_path / "run", score=kind, average_flips=len(views) > 1)
    monkeypatch.setattr(precision, "trained_judge", lambda run, *_: run.settings)

    def scored(settings, samples, size):
        views = FLIPS if settings.average_flips else (0,)
        asked.append((settings.precision, views, settings.score))
        return np.arange(float(len(samples))), np.ones((len(samples), 2, 2))

    monkeypatch.setattr(precision, "score_images", scored)
    precision.compare(run, data, 0, ["bfloat16"])
    assert asked == [("float32", views, kind), ("bfloat16", views, kind)]


def test_runs_are_named_by_their_settings_and_their_only_fold(tmp_path):
    assert runs.folder_name("best,seed=1", tmp_path) == "best-clean-seed1"
    assert runs.folder_name("cpu,folds=official,fold=2", tmp_path) == "cpu-official-seed0-fold2"


def test_a_run_with_a_wrong_setting_is_refused_before_any_begins(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        runs.main([str(tmp_path), str(tmp_path / "out"), "cpu", "cpu,steps=3"])
    assert "There is no setting 'steps'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_runs_that_would_share_a_folder_are_refused_before_any_begins(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        runs.main([str(tmp_path), str(tmp_path / "out"), "cpu", "cpu,rotation=1"])
    assert "Two runs would have the folder cpu-clean-seed0" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_are_trained_beside_each_other_and_one_that_fails_stops_no_other(tmp_path, capfd):
    root = generate(tmp_path / "generated", items=6, size=(128, 128), parts=2, defective_parts=1)
    tiny = f"demo,image_size={SIZE},segmentation_steps=1,decision_steps=1"
    words = [f"{tiny},folds=official,fold=0", f"{tiny},fold=0", f"{tiny},fold=1"]
    command = [str(root), str(tmp_path / "out"), "--workers", "2"]
    assert runs.main([*command, *words]) == 1
    told = capfd.readouterr().out
    assert f"{words[0]} failed: The official folds belong to KolektorSDD" in told
    for fold in (0, 1):
        folder = tmp_path / "out" / f"demo-{SIZE}-clean-seed0-fold{fold}"
        assert f"{folder.name}: AP " in told
        assert storage.read_json(folder / "metrics.json")["folds_trained"] == [fold]
        asked = storage.read_json(folder / "environment.json")["command"]
        assert asked == f"python benchmarks/runs.py {root.name} RUNS --workers 2 {words[1 + fold]}"


@pytest.mark.parametrize(
    ("runs", "workers", "task", "wanted"),
    [
        (120, 10, 0.0, 96),
        (120, 40, 0.0, 24),
        (121, 40, 0.0, 32),
        (10, 40, 0.0, 8),
        (60, 60, 10, 30),
    ],
)
def test_the_model_of_a_study_has_rounds_and_a_scheduler(runs, workers, task, wanted):
    assert study_scale.modelled(runs, workers, 8.0, 0.0, task) == wanted
    assert study_scale.modelled(runs, workers, 8.0, 60.0, task) == wanted + 1


@pytest.mark.slow
def test_the_engine_is_measured_on_empty_tasks(tmp_path, capsys):
    pytest.importorskip("distributed")
    study_scale.main(["--tasks", "20", "--out", str(tmp_path / "study.json")])
    report = storage.read_json(tmp_path / "study.json")
    assert report["tasks"] == 20 and 0 < report["seconds_a_task"] < 60
    assert [row["workers"] for row in report["model"]] == ["10", "40", "120", "120"]
    assert "| efficiency |" in capsys.readouterr().out


class TestRobustness:
    @pytest.mark.parametrize("how", robustness.DISTURBANCES, ids=lambda how: how.name)
    def test_a_disturbance_is_the_same_each_time_and_gray(self, how, samples):
        sample = samples[-1]
        image, _ = robustness.disturbed(sample, how)
        again, _ = robustness.disturbed(sample, how)
        before = read_image(sample)
        assert image.dtype == np.uint8 and np.array_equal(image, again)
        halved = tuple(n // 2 for n in before.shape)
        assert image.shape == (halved if how.kind == "half size" else before.shape)
        assert np.array_equal(image, before) == (how.kind == "none")

    def test_a_defect_that_leaves_the_picture_does_not_count(self, samples):
        [defective, *_] = [sample for sample in samples if sample.is_defective]
        away = partial(robustness.moved, shift=2)
        gone = robustness.Disturbance("shift", "far", lambda i, c: away(i, c) * 0, moves=True)
        assert robustness.disturbed(defective, gone)[1] is None
        near = robustness.Disturbance("turn", "a bit", partial(robustness.moved, turn=2), True)
        assert robustness.disturbed(defective, near)[1] is True

    def test_errors_are_named_the_worst_first(self):
        scores = {"a": 3.0, "b": -2.0, "c": 0.0, "d": 1.0, "e": 2.0, "f": -9.0}
        found = robustness.summed_up(scores, ["a", "b", "c"], 0.5)
        assert found["missed"] == ["b", "c"] and found["false_alarms"] == ["e", "d"]
        assert (found["surfaces"], found["defective"]) == (6, 3)

    def test_it_goes_on_where_it_was_stopped(self, tmp_path, samples, monkeypatch, capsys):
        """Each way is judged once; scores of other weights do not count."""
        asked = list[str]()

        def judged(detector, samples, how):
            asked.append(how.name)
            return {s.name: float(s.is_defective) for s in samples}

        class Card:
            never_trained_on, sha256, threshold = [samples[0].item], "one", 0.5

        monkeypatch.setattr(robustness, "judged", judged)
        monkeypatch.setattr(robustness.detection, "load", lambda path: None)
        monkeypatch.setattr(robustness.weights, "load", lambda path: (None, Card))
        root = str(samples[0].image_path.parents[1])
        line = ["--data", root, "--weights", "m", "--out", str(tmp_path / "found.json")]
        robustness.main(line)
        every = [how.name for how in robustness.DISTURBANCES]
        assert asked == every and "| as it is |" in capsys.readouterr().out
        robustness.main(line)
        assert asked == every
        Card.sha256 = "two"
        robustness.main(line)
        assert asked == 2 * every
