"""Each test image is scored once; every number after that comes from the stored scores."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.data.folds import Fold, folds_record
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import scoring as evaluation
from ksdd_lib.evaluation.predictions import (
    read_masks,
    read_predictions,
    write_masks,
    write_predictions,
)
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.evaluation.scoring import (
    evaluate,
    most_doubtful,
    require_unseen,
    score_images,
)
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.methods.stage_training import train_stage, trained_judge
from ksdd_lib.methods.two_stage import TwoStageJudge, deciding_score
from ksdd_lib.models.two_stage import TwoStageNet, initialize
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.settings_io import to_json
from ksdd_lib.training.batches import load_surfaces

COLUMNS = "image,item,fold,seed,is_defective,score,segmentation_score,threshold,is_flagged"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


class Forwards:
    """Counts how often a two-stage network has looked at an image."""

    def __init__(self) -> None:
        self.count, self.real = 0, TwoStageNet.forward

    def __call__(self, model: TwoStageNet, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.count += len(image)
        return self.real(model, image)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    counter = Forwards()
    monkeypatch.setattr(TwoStageNet, "forward", lambda *arguments: counter(*arguments))
    return counter


class Judged:
    """A run of three folds, trained for one step each and evaluated."""

    def __init__(self, folder: Path, data: DataSet) -> None:
        self.run = tiny_run(folder, fold="all", seed=4, segmentation_steps=1, decision_steps=1)
        storage.write_record(self.run.folder / "data.json", data.record)
        storage.write_record(self.run.folder / "folds.json", folds_record(data.folds))
        for fold in range(3):
            train_stage(self.run, data, fold, "segmentation")
            train_stage(self.run, data, fold, "decision")
        counter, self.watched = Forwards(), []

        def saved() -> None:
            self.watched.append("saved")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TwoStageNet, "forward", lambda *arguments: counter(*arguments))
            self.summary = evaluate(self.run, data, lambda *seen: self.watched.append(seen), saved)
        self.forwards = counter.count


@pytest.fixture(scope="module")
def judged(narrow: None, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("judged") / "run", data)


@pytest.fixture
def copied(judged: Judged, tmp_path: Path) -> Run:
    """The evaluated run, in a folder that a test may change."""
    shutil.copytree(judged.run.folder, tmp_path / "run")
    return Run(tmp_path / "run", judged.run.settings)


def test_the_model_runs_once_for_each_image(judged: Judged, data: DataSet) -> None:
    assert judged.forwards == len(data.samples) == 6
    told = [[(fold, 1, 2), (fold, 2, 2), "saved"] for fold in range(3)]
    assert judged.watched == sum(told, [])


@pytest.mark.fault(27)
def test_scoring_goes_on_giving_signs_of_life(
    copied: Run, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "SIGN_OF_LIFE", 0.0)
    for fold in range(3):
        (copied.fold_folder(fold) / "scores.json").unlink()
    owner = copied.folder / "owner.json"
    seen = []

    def long_ago(*_: int) -> None:
        record = storage.read_json(owner)
        seen.append(record["last_wrote"])
        storage.write_json(owner, record | {"last_wrote": 0.0})

    evaluate(copied, data, long_ago)
    assert len(seen) == 6 and min(seen) > 0
    assert not owner.exists()


def test_predictions_have_the_agreed_columns_and_one_row_for_each_test_image(
    judged: Judged, data: DataSet
) -> None:
    text = (judged.run.folder / "predictions.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(text.splitlines()))
    expected = [(one.name, str(fold.number)) for fold in data.folds for one in fold.test]
    assert [(row["image"], row["fold"]) for row in rows] == expected
    assert {row["seed"] for row in rows} == {"4"}
    labels = {one.name: str(int(one.is_defective)) for one in data.samples}
    for row in rows:
        assert row["is_defective"] == labels[row["image"]]
        assert row["item"] == row["image"].split("/")[0]
        assert row["is_flagged"] == str(int(float(row["score"]) > float(row["threshold"])))


def test_scores_are_the_logits_of_the_fold_that_holds_the_image_out(
    judged: Judged, data: DataSet
) -> None:
    rows = read_predictions(judged.run.folder / "predictions.csv")
    part = data.folds[1]
    scores, masks = score_images(
        trained_judge(judged.run, data, 1), part.test, judged.run.settings.size
    )
    fold_rows = [row for row in rows if row.fold == 1]
    assert [row.score for row in fold_rows] == pytest.approx(scores.tolist(), abs=1e-3)
    highest = [float(mask.max()) for mask in masks]
    assert [row.map_score for row in fold_rows] == pytest.approx(highest, abs=1e-3)


def test_masks_are_stored_beside_the_predictions_in_their_order(judged: Judged) -> None:
    rows = read_predictions(judged.run.folder / "predictions.csv")
    masks = read_masks(judged.run.folder / "masks.npz")
    assert list(masks) == [row.image for row in rows]
    for row in rows:
        assert masks[row.image].shape == (16, 16) and masks[row.image].dtype == np.float16
        assert float(masks[row.image].max()) == pytest.approx(row.map_score, rel=1e-3)


def test_metrics_and_environment_are_stored(judged: Judged) -> None:
    stored = storage.read_record(judged.run.folder / "metrics.json", Summary)
    assert stored == judged.summary
    assert judged.summary.seed == 4 and judged.summary.protocol == "clean"
    assert [fold.images for fold in judged.summary.folds] == [2, 2, 2]
    assert judged.summary.pooled.images == 6
    assert storage.read_json(judged.run.folder / "environment.json")["torch"] == torch.__version__
    day = date.fromisoformat(
        storage.read_json(judged.run.folder / "environment.json")["evaluated on"]
    )
    assert abs(datetime.now(UTC).date() - day) <= timedelta(days=1)


@pytest.mark.fault(67)
def test_pixel_scores_are_those_of_the_stored_maps_at_the_images_size(
    judged: Judged, data: DataSet
) -> None:
    found = judged.summary.pixel_scores
    masks = read_masks(judged.run.folder / "masks.npz")
    wanted, share = [], []
    for name, mask in masks.items():
        pixels, annotation = data.read_pair(name)
        logits = torch.from_numpy(mask.astype(np.float32))
        wanted.append(annotation.ravel())
        share.append(cv2.resize(logits.sigmoid().numpy(), pixels.shape[::-1]).ravel())
    ap = average_precision_score(np.concatenate(wanted), np.concatenate(share))
    assert found.pooled.ap_loc == pytest.approx(ap, abs=0.01)
    assert [fold.threshold_from.images for fold in found.folds] == [4, 4, 4]
    assert found.annotators_iou is None  # these are no surfaces of KolektorSDD


def test_few_defects_in_training_are_named_in_the_result(
    judged: Judged, copied: Run, data: DataSet
) -> None:
    assert judged.summary.trained_defects is None
    few = Run(copied.folder, replace(copied.settings, defective_images=1))
    trained = {str(f.number): [s.name for s in f.train if s.is_defective] for f in data.folds}
    assert evaluate(few, data).trained_defects == trained
    assert all(trained.values())


def test_what_an_evaluation_leaves_belongs_together(judged: Judged) -> None:
    results = load_results(judged.run.folder)
    assert [row.image for row in results.rows] == list(results.masks)


@pytest.mark.fault(32)
def test_masks_of_the_same_images_but_other_weights_are_refused(copied: Run) -> None:
    swap_two_masks(copied.folder)
    with pytest.raises(RunError, match="masks.npz was edited, or is of another run"):
        load_results(copied.folder)


@pytest.mark.fault(32)
def test_results_of_earlier_weights_are_refused_until_evaluated_again(
    copied: Run, data: DataSet
) -> None:
    for path in copied.fold_folder(0).glob("decision*"):
        path.unlink()
    longer = Run(copied.folder, replace(copied.settings, decision_steps=2))
    storage.write_json(longer.folder / "settings.json", to_json(longer.settings))
    train_stage(longer, data, 0, "decision")
    with pytest.raises(RunError, match="not of this run: .*decision_steps: stored 1, here 2; .*"):
        load_results(copied.folder)
    storage.write_json(longer.folder / "settings.json", to_json(copied.settings))
    with pytest.raises(RunError, match="not of this run: weights 0: stored '"):
        load_results(copied.folder)


def test_a_second_evaluation_scores_nothing_again(
    judged: Judged, copied: Run, data: DataSet, forwards: Forwards
) -> None:
    before = (copied.folder / "predictions.csv").read_bytes()
    assert evaluate(copied, data) == judged.summary
    assert forwards.count == 0
    assert (copied.folder / "predictions.csv").read_bytes() == before


def test_a_lost_runtime_scores_only_what_is_missing(
    judged: Judged, copied: Run, data: DataSet, forwards: Forwards
) -> None:
    for name in ("predictions.csv", "masks.npz", "metrics.json", "fold2/scores.json"):
        (copied.folder / name).unlink()
    summary = evaluate(copied, data)
    assert forwards.count == 2
    assert summary.pooled.ap == judged.summary.pooled.ap


def edit_a_score(folder: Path) -> None:
    path = folder / "scores.csv"
    first, *others = read_predictions(path)
    write_predictions(path, [replace(first, score=first.score + 7), *others])


def swap_two_masks(folder: Path) -> None:
    masks = read_masks(folder / "masks.npz")
    write_masks(folder / "masks.npz", dict(zip(masks, reversed(masks.values()), strict=True)))


def cut_the_masks(folder: Path) -> None:
    path = folder / "masks.npz"
    path.write_bytes(path.read_bytes()[:-30])


def empty_the_masks(folder: Path) -> None:
    (folder / "masks.npz").write_bytes(b"")


def lose_the_scores(folder: Path) -> None:
    (folder / "scores.csv").unlink()


def spoil_the_record(content: bytes) -> Callable[[Path], int]:
    """What stores something else as scores.json."""
    return lambda folder: (folder / "scores.json").write_bytes(content)


CHANGES = (edit_a_score, swap_two_masks, cut_the_masks, empty_the_masks, lose_the_scores)
CHANGES += tuple(
    map(spoil_the_record, (b"[]", b"null", b'{"a":' * 9999, b'{"sha256": [1]}', b"\xff"))
)


@pytest.mark.fault(32)
@pytest.mark.fault(52)
@pytest.mark.parametrize("change", CHANGES)
def test_stored_scores_that_were_changed_are_computed_anew(
    judged: Judged, copied: Run, data: DataSet, forwards: Forwards, change
) -> None:
    folder = copied.fold_folder(1)
    change(folder)
    with pytest.warns(UserWarning, match="fold1 are not as they were stored .* scored again"):
        assert evaluate(copied, data) == judged.summary
    assert forwards.count == 2
    again = read_predictions(folder / "scores.csv")
    assert again == read_predictions(judged.run.fold_folder(1) / "scores.csv")


@pytest.mark.fault(52)
@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"environment": 1}', "[" * 9999])
def test_a_done_marker_that_is_none_is_named(copied: Run, data: DataSet, content: str) -> None:
    (copied.fold_folder(2) / "decision.done.json").write_text(content)
    with pytest.raises(RunError, match="decision.done.json is not"):
        evaluate(copied, data)


@pytest.mark.fault(56)
def test_scoring_that_slept_while_another_took_over_writes_nothing_more(
    copied: Run, data: DataSet
) -> None:
    (copied.fold_folder(1) / "scores.json").unlink()
    owner, left = copied.folder / "owner.json", {}

    def take_over(*_: int) -> None:
        owner.write_text('{"owner": "colab-vm process 7", "last_wrote": 0.0}')
        left.update({path: path.read_bytes() for path in copied.folder.rglob("*.*")})

    with pytest.raises(RunError, match="colab-vm process 7 has taken it over"):
        evaluate(copied, data, take_over)
    assert {path: path.read_bytes() for path in copied.folder.rglob("*.*")} == left


def test_stored_scores_from_before_there_were_hashes_are_used(
    judged: Judged, copied: Run, data: DataSet, forwards: Forwards
) -> None:
    for path in copied.folder.glob("fold*/scores.json"):
        record = json.loads(path.read_text())
        del record["sha256"]
        path.write_text(json.dumps(record))
    assert evaluate(copied, data) == judged.summary
    assert forwards.count == 0


def test_scores_of_earlier_weights_are_not_used(
    copied: Run, data: DataSet, forwards: Forwards
) -> None:
    longer = Run(copied.folder, replace(copied.settings, decision_steps=2, fold="0"))
    for path in longer.fold_folder(0).glob("decision*"):
        path.unlink()
    train_stage(longer, data, 0, "decision")
    before = read_predictions(longer.fold_folder(0) / "scores.csv")
    evaluate(longer, data)
    assert forwards.count == 2
    after = read_predictions(longer.fold_folder(0) / "scores.csv")
    assert all(a.score != b.score for a, b in zip(before, after, strict=True))


def test_a_single_fold_is_judged_at_one_half(judged: Judged, copied: Run, data: DataSet) -> None:
    single = Run(copied.folder, replace(copied.settings, fold="2"))
    summary = evaluate(single, data)
    assert [(fold.fold, fold.threshold) for fold in summary.folds] == [(2, 0.0)]
    assert "single fold" in summary.threshold_rule
    rows = read_predictions(single.folder / "predictions.csv")
    assert len(rows) == 2 and all(row.is_flagged == (row.score > 0) for row in rows)


def test_the_most_doubtful_image_of_a_fold_lies_nearest_to_its_threshold(judged: Judged) -> None:
    rows = read_predictions(judged.run.folder / "predictions.csv")
    for fold in range(3):
        gaps = {row.image: abs(row.score - row.threshold) for row in rows if row.fold == fold}
        assert gaps[most_doubtful(judged.run, fold)] == min(gaps.values())


def test_thresholds_come_from_the_other_folds(judged: Judged) -> None:
    rows = read_predictions(judged.run.folder / "predictions.csv")
    for fold in judged.summary.folds:
        others = [row for row in rows if row.fold != fold.fold]
        kinds = [[r.score for r in others if r.is_defective == kind] for kind in (False, True)]
        expected = float(sum(np.median(scores) for scores in kinds) / 2)
        assert fold.threshold == expected and math.isfinite(expected)


@pytest.mark.fault(30)
def test_an_image_that_was_trained_on_is_refused(copied: Run, data: DataSet) -> None:
    fold = data.folds[0]
    leaking = Fold(0, fold.train, (*fold.test, fold.train[0]), "clean", ())
    with pytest.raises(RunError, match=f"Fold 0 was trained on {fold.train[0].item}"):
        require_unseen(leaking)
    mixed = replace(data, folds=(leaking, *data.folds[1:]))
    with pytest.raises(RunError, match=f"Fold 0 was trained on {fold.train[0].item}"):
        evaluate(copied, mixed)


@pytest.mark.fault(30)
def test_what_is_not_trained_yet_is_named(data: DataSet, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    with pytest.raises(RunError, match="01_download_data"):
        evaluate(run, data)
    storage.write_record(run.folder / "data.json", data.record)
    with pytest.raises(RunError, match="02_train_segmentation"):
        evaluate(run, data)


def test_no_file_of_the_run_names_a_place_on_this_machine(judged: Judged, data: DataSet) -> None:
    home = str(data.root.parent.parent).encode()
    stored = [path for path in judged.run.folder.rglob("*") if path.is_file()]
    assert len(stored) > 30
    assert [path.name for path in stored if home in path.read_bytes()] == []


def test_images_are_scored_alone_and_in_order(data: DataSet, forwards: Forwards) -> None:
    model = TwoStageNet()
    initialize(model, "kaiming", 1)
    seen: list[tuple[int, int]] = []
    samples = data.samples[:3]
    judge = TwoStageJudge(model, Settings(precision="float32"))
    scores, masks = score_images(judge, samples, (128, 144), lambda *done: seen.append(done))
    assert scores.dtype == np.float64 and scores.shape == (3,) and masks.shape == (3, 16, 18)
    assert forwards.count == 3 and seen == [(1, 3), (2, 3), (3, 3)]
    with torch.no_grad():
        image = load_surfaces([samples[2]], (128, 144), "fine").image(0)
        _, score = model(image)
    assert score.item() == pytest.approx(scores[2], abs=1e-4)


def test_scores_and_masks_are_averaged_over_the_mirror_images(data: DataSet) -> None:
    model = TwoStageNet()
    initialize(model, "kaiming", 1)
    samples = data.samples[:2]
    judge = TwoStageJudge(model, Settings(precision="float32", average_flips=True))
    scores, masks = score_images(judge, samples, (128, 144))
    image = load_surfaces(samples, (128, 144), "fine").image(1)
    with torch.no_grad():
        seen = [model(image.flip(axes)) for axes in ((), (3,), (2,), (2, 3))]
    assert scores[1] == pytest.approx(np.mean([score.item() for _, score in seen]), abs=1e-4)
    back = [mask.flip(axes) for (mask, _), axes in zip(seen, ((), (3,), (2,), (2, 3)), strict=True)]
    assert np.allclose(masks[1], torch.stack(back).mean(0)[0, 0].numpy(), atol=1e-3)


def test_the_score_is_the_decision_the_mask_or_the_sum_of_both() -> None:
    mask = torch.tensor([[-3.0, -1.0], [-2.0, -4.0]])
    scores = [deciding_score(torch.tensor(2.5), mask, kind) for kind in RULES["score"].choices]
    assert scores == [2.5, -1.0, 1.5]


def test_another_kind_of_score_is_computed_anew(judged: Judged, copied: Run, data: DataSet) -> None:
    before = read_predictions(judged.run.folder / "predictions.csv")
    evaluate(Run(copied.folder, replace(copied.settings, score="both")), data)
    after = read_predictions(copied.folder / "predictions.csv")
    for old, new in zip(before, after, strict=True):
        assert new.score == pytest.approx(old.score + old.map_score, abs=1e-5)
        assert new.map_score == pytest.approx(old.map_score)
