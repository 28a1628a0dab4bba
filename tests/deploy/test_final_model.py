"""One model of all items: trained like a fold, judged by all out-of-fold scores, given away."""

import os
import shutil
import signal
from pathlib import Path
from statistics import median

import pytest
import torch
from tiny_training import TINY

import ksdd_lib as ksdd
from ksdd_lib import pipeline, settings_io, storage
from ksdd_lib.__main__ import main
from ksdd_lib.data.synthetic import generate
from ksdd_lib.deploy import weights
from ksdd_lib.drive import recovery
from ksdd_lib.drive.upload import copy
from ksdd_lib.errors import CheckpointError, Interrupted, MissingError, RunError
from ksdd_lib.evaluation.metrics import good_parts_threshold
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.evaluation.scoring import evaluate
from ksdd_lib.methods.stage_training import load_stage
from ksdd_lib.reporting.report import make_report
from ksdd_lib.runs.lock import FILE
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import part_of, prepare_data
from ksdd_lib.runs.run import FINAL

STEPS = {"segmentation_steps": 4, "decision_steps": 4, "checkpoint_steps": 2}


def evaluated(folder, root, **settings):
    """A run on a data set of item folders, trained and evaluated, and its data."""
    chosen = TINY | STEPS | {"data": str(root), "twins": "identical", "fold": "all"} | settings
    run = open_run(folder, chosen)
    data = prepare_data(run)
    for stage in ("segmentation", "decision"):
        pipeline.train(run, data, stage)
    evaluate(run, data)
    return run, data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("final") / "tiny"
    return generate(place, items=6, size=(128, 128), parts=3, defective_parts=1)


@pytest.fixture(scope="module")
def trained(narrow, root, tmp_path_factory):
    """An evaluated run with its final model, and its data."""
    run, data = evaluated(tmp_path_factory.mktemp("final") / "run", root)
    assert weights.usual_fold(run) == 0
    pipeline.train_final(run, data)
    return run, data


def states(run, data, fold=FINAL):
    """The weights of both stages."""
    found = [load_stage(run, data, fold, name).state for name in ("segmentation", "decision")]
    return {
        f"{k} {name}": value
        for k, one in enumerate(found)
        for name, value in one["weights"].items()
    }


@pytest.mark.fault(78)
def test_it_is_trained_on_all_items_as_a_fold_is(trained):
    run, data = trained
    whole = part_of(run, data, FINAL)
    assert (whole.train, whole.test) == (data.samples, ())
    done = [
        storage.read_json(run.folder / f"{place}/decision.done.json")
        for place in ("fold0", "final")
    ]
    assert done[0]["steps"] == done[1]["steps"] == 4
    names = {
        path.name for path in run.fold_folder(0).iterdir() if path.name.startswith(("seg", "dec"))
    }
    files = list((run.folder / "final").iterdir())
    assert {path.name for path in files} == names
    assert all(FILE.fullmatch(f"final/{path.name}") for path in files)
    assert [line.what for line in run.timing()][-1] == "decision stage, the final model"


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    ("stage", "step"), [("segmentation", 1), ("segmentation", 3), ("decision", 2)]
)
def test_it_goes_on_exactly_where_it_was_cut(trained, root, tmp_path, stage, step):

    run, data = trained
    other = tmp_path / "again"
    shutil.copytree(run.folder, other, ignore=shutil.ignore_patterns("final", "owner.json"))
    again = open_run(other)

    def watch(progress):
        assert progress.fold == FINAL
        if (progress.stage, progress.step) == (stage, step):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        pipeline.train_final(again, data, watch)
    assert weights.usual_fold(again) == 0  # not before it is finished
    pipeline.train_final(again, data)
    ours, theirs = states(again, data), states(run, data)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_is_finished_once(trained, capsys):
    run, data = trained
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "final").iterdir()}
    pipeline.train_final(run, data)
    assert capsys.readouterr().out.count("the final model: was already finished") == 2
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "final").iterdir()} == before


@pytest.mark.fault(78)
def test_its_threshold_comes_from_all_out_of_fold_scores_and_its_card_says_that_no_test_exists(
    trained, tmp_path
):
    run, data = trained
    weights.publish(run, data, None, tmp_path / "model.safetensors")
    judge, card = weights.load(tmp_path / "model.safetensors")
    rows = read_predictions(run.folder / "predictions.csv")
    kinds = [[row.score for row in rows if row.is_defective == kind] for kind in (False, True)]
    assert card.threshold == sum(map(median, kinds)) / 2
    assert card.threshold_from.images == len(rows) == len(data.samples)
    assert "out-of-fold scores of all items" in card.threshold_rule
    assert card.test.startswith("No test exists for this model")
    assert (card.fold, card.never_trained_on) == (None, [])
    assert card.test_scores_of_the_unrounded_weights is None
    assert "Learn-then-Test" in card.promise and "counted by part" in card.promise
    assert card.the_folds_showed.pooled == load_results(run.folder).summary.pooled
    trained_weights = states(run, data)
    for name, value in judge.tensors().items():
        stage, _, rest = name.partition(".")
        own = trained_weights[f"{int(stage == 'decision')} {rest}"]
        torch.testing.assert_close(value, own, rtol=2**-10, atol=1e-7)


@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_can_still_be_given_away(trained, tmp_path, fold):
    run, data = trained
    weights.publish(run, data, fold, tmp_path / "model.safetensors")
    _, card = weights.load(tmp_path / "model.safetensors")
    assert (card.fold, card.test, card.the_folds_showed) == (fold, "", None)
    assert "Each with 95% confidence, fewer than" in card.promise
    assert card.never_trained_on and card.test_scores_of_the_unrounded_weights.fold == fold


def test_the_results_and_the_report_stay_as_they_are(trained):
    run, data = trained
    names = ("predictions.csv", "metrics.json")
    before = [(run.folder / name).read_bytes() for name in names]
    evaluate(run, data)
    assert [(run.folder / name).read_bytes() for name in names] == before
    page = make_report(run.folder, data.read_pair).read_text()
    assert "What can be promised of it:</strong> Each with 95% confidence" in page
    assert pipeline.is_finished(run)


@pytest.mark.fault(78)
def test_it_needs_evaluated_folds_and_results_that_nobody_edited(trained, root, tmp_path):
    run, data = trained
    early = open_run(tmp_path / "early", settings_io.to_json(run.settings) | {"data": str(root)})
    with pytest.raises(MissingError, match="no finished evaluation yet: run 04_evaluate"):
        pipeline.train_final(early, prepare_data(early))
    stored = (run.folder / "predictions.csv").read_text()
    try:
        (run.folder / "predictions.csv").write_text(stored.replace("gen01", "gen09", 1))
        with pytest.raises(RunError, match="not made from this predictions.csv"):
            weights.publish(run, data, None, tmp_path / "model.safetensors")
    finally:
        (run.folder / "predictions.csv").write_text(stored)
    with pytest.raises(CheckpointError, match="stage of the final model has done 0 of 4 steps"):
        load_stage(early, prepare_data(early), FINAL, "segmentation")


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    "settings", [{"fold": "1"}, {"labels": "none", "fold": "all"}, {"masks": "2"}]
)
def test_it_knows_what_the_folds_knew(narrow, root, tmp_path, settings):
    run, data = evaluated(tmp_path / "run", root, **settings)
    pipeline.train_final(run, data)
    weights.publish(run, data, None, tmp_path / "model.safetensors")
    _, card = weights.load(tmp_path / "model.safetensors")
    rows = read_predictions(run.folder / "predictions.csv")
    train = part_of(run, data, FINAL).train
    if settings.get("labels") == "none":
        assert not any(one.is_defective for one in train)
        good = [row for row in rows if not row.is_defective]
        scores, items = [row.score for row in good], [row.item for row in good]
        assert card.threshold == good_parts_threshold(scores, items, 0.05)[0]
        assert "good surfaces alone, of all items that a fold has tested" in card.threshold_rule
    else:
        assert len(train) == len(data.samples)
        assert card.threshold_from.images == len(rows)
    if "masks" in settings:
        assert sum(one.is_defective and one.has_mask for one in train) == 2


def test_drive_brings_it_back_and_its_state_hides_no_results(trained, drive, home, tmp_path):

    run, data = trained
    place = home / "runs" / "mine"
    shutil.copytree(run.folder, place, ignore=shutil.ignore_patterns("owner.json"))
    mine = open_run(place)
    assert not copy(mine, drive.root).failure
    shutil.rmtree(home / "runs")
    back = recovery.restore(home, drive.root)
    for path in (run.folder / "final").glob("*.done.json"):
        assert (back / "final" / path.name).read_bytes() == path.read_bytes()
    assert torch.equal(*(states(one, data)["1 score.weight"] for one in (open_run(back), run)))
    # A final model that has gone further here than there is no reason to leave the results there.
    for name in ("metrics.json", "predictions.csv", "masks.npz"):
        (back / name).unlink()
    shutil.rmtree(back / "final")
    shutil.copytree(run.fold_folder(1), back / "final")
    back = recovery.restore(home, drive.root)
    assert load_results(back).summary.pooled


def test_the_commands(trained, tmp_path, capsys, monkeypatch):
    run, data = trained
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    assert main(["train_final", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "next: publish" in said and "No test exists for this model" in said
    file = tmp_path / "model.safetensors"
    assert main(["publish", str(run.folder), str(file)]) == 0
    said = capsys.readouterr().out
    assert "the final model" in said and "replaces" not in said
    assert main(
        ["judge", str(data.root), "--weights", str(file), "--out", str(tmp_path / "v.csv")]
    ) in (0, 1)
    assert "no test of it exists" in capsys.readouterr().out
    assert main(["publish", str(run.folder), str(file), "--fold", "1"]) == 0
    said = capsys.readouterr().out
    assert "fold 1" in said and "It replaces the one that was published there before." in said
    assert main(["publish", str(run.folder), str(file), "--fold", "1"]) == 0
    assert "replaces" not in capsys.readouterr().out, "it is the same"
    assert main(["train_final", str(tmp_path / "absent")]) == 2
    assert "There is no run in" in capsys.readouterr().err


def test_a_rule_that_learns_nothing_has_no_final_model(root, tmp_path, capsys):
    run = open_run(
        tmp_path / "run",
        {
            "preset": "demo",
            "image_size": "128x128",
            "data": str(root),
            "method": "darkest_pixel",
            "twins": "identical",
        },
    )
    data = prepare_data(run)
    evaluate(run, data)
    assert weights.usual_fold(run) == 0
    assert main(["train_final", str(run.folder)]) == 2
    assert "learns nothing" in capsys.readouterr().err


def test_the_box_at_the_end_of_notebook_4_gives_a_model_to_judge_with(trained, capsys):
    run, data = trained
    book = Path(__file__).parents[2] / "notebooks" / "04_evaluate.ipynb"
    sources = ["".join(cell["source"]) for cell in storage.read_json(book)["cells"]]
    [source] = [text for text in sources if "train_final" in text]
    for box in ("False", "True"):
        program = source.replace("train_on_all = False", f"train_on_all = {box}")
        exec(program, {"ksdd": ksdd, "run": run, "data": data, "drive": None})
        assert (run.folder / "model.safetensors").exists() == (box == "True")
    assert (
        ksdd.detection.load(run.folder / "model.safetensors")
        .judge(data.samples[0].image_path)
        .score
    )
