"""A fold that is trained alone takes its threshold from parts that its training has not seen."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import TINY

from ksdd_lib import storage
from ksdd_lib.data.folds import Fold, clean_folds, with_held_out
from ksdd_lib.data.survey import find_samples
from ksdd_lib.data.synthetic import generate
from ksdd_lib.deploy import weights
from ksdd_lib.errors import FoldError, RunError, SettingsError
from ksdd_lib.evaluation.predictions import read_predictions, write_predictions
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.evaluation.scoring import evaluate, require_unseen
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.presets import resolve, run_name
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data, prepare_data
from ksdd_lib.runs.run import HELD
from ksdd_lib.training.batches import Order

HALF = {"held_out": 0.5, "fold": "0"}


@pytest.fixture(scope="module")
def fold(tmp_path_factory) -> Fold:
    root = generate(tmp_path_factory.mktemp("held") / "data", items=12, size=(128, 128))
    return clean_folds(find_samples(root))[0]


def items(samples) -> set[str]:
    return {one.item for one in samples}


def share_of(part, whole, kind: bool) -> float:
    counts = [sum(one.is_defective == kind for one in side) for side in (part, whole)]
    return counts[0] / counts[1]


@pytest.mark.fault(91)
class TestFold:
    @pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
    def test_whole_parts_of_both_kinds_are_held_out(self, fold, share):
        made = with_held_out(fold, share, 0)
        assert items(made.train) | items(made.held) == items(fold.train)
        assert not items(made.train) & items(made.held) and made.test == fold.test
        assert len(made.train) + len(made.held) == len(fold.train)
        assert {one.is_defective for one in made.held} == {True, False}
        assert share <= share_of(made.held, fold.train, True) <= share + 0.25

    def test_the_seed_chooses_and_the_same_one_again_alike(self, fold):
        chosen = [items(with_held_out(fold, 0.25, seed).held) for seed in (0, 0, 1, 2, 3)]
        assert chosen[0] == chosen[1] and len({frozenset(one) for one in chosen}) > 1

    def test_twins_stay_together(self, fold):
        names = sorted(items(fold.train))
        twins = tuple(map(frozenset, np.array(names).reshape(-1, 2)))
        for seed in range(5):
            held = items(with_held_out(replace(fold, twins=twins), 0.25, seed).held)
            assert all(pair <= held or not pair & held for pair in twins)

    def test_too_few_parts_are_refused(self, fold):
        [first, *_] = [one for one in fold.train if one.is_defective]
        few = tuple(one for one in fold.train if one.item == first.item or not one.is_defective)
        with pytest.raises(FoldError, match="take a smaller held_out, or 0"):
            with_held_out(replace(fold, train=few), 0.25, 0)

    def test_good_images_alone_are_divided_too(self, fold):
        good = tuple(one for one in fold.train if not one.is_defective)
        made = with_held_out(replace(fold, train=good), 0.25, 0)
        assert made.held and not any(one.is_defective for one in made.held)

    def test_what_was_trained_on_is_not_scored(self, fold):
        made = with_held_out(fold, 0.25, 0)
        require_unseen(made)
        with pytest.raises(RunError, match="say nothing"):
            require_unseen(replace(made, train=fold.train))


class TestSetting:
    @pytest.mark.parametrize("given", [{"fold": "all"}, {"folds": "clean"}])
    def test_three_folds_need_none(self, given):
        with pytest.raises(SettingsError, match="three folds set each other's thresholds"):
            resolve({"held_out": 0.25} | given)

    @pytest.mark.parametrize("given", [{"fold": "1"}, {"folds": "published"}])
    def test_one_fold_may_have_it(self, given):
        settings = resolve({"held_out": 0.25} | given)
        assert settings.held_out == 0.25 and "held0.25" in run_name(settings)


def small_run(folder, **settings):
    given = TINY | {"generated_items": 12, "segmentation_steps": 2, "decision_steps": 2}
    return open_run(folder, given | HALF | settings)


@pytest.fixture(scope="module")
def judged(tmp_path_factory, narrow):
    """A run of one fold, trained for two steps a stage, and what evaluate said."""
    folder = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSDD_HOME", str(folder / "home"))
        run = small_run(folder / "run")
        data = prepare_data(run)
        shown = []
        real = Order.shown

        def watched(order, step):
            found = real(order, step)
            shown.extend(str(one) for one in found)
            return found

        patch.setattr(Order, "shown", watched)
        for stage in ("segmentation", "decision"):
            train_stage(run, data, 0, stage)
        yield run, data, evaluate(run, data), shown


@pytest.mark.fault(91)
class TestRun:
    def test_the_threshold_comes_from_the_held_out_parts_alone(self, judged):
        run, data, summary, _ = judged
        held = read_predictions(run.folder / "held_out.csv")
        assert [row.image for row in held] == [one.name for one in data.folds[0].held]
        assert {row.fold for row in held} == {HELD}
        kinds = [[r.score for r in held if r.is_defective == kind] for kind in (False, True)]
        [one] = summary.folds
        assert one.threshold == pytest.approx(sum(map(np.median, kinds)) / 2)
        assert one.threshold_from.images == len(held)
        assert "held out of the fold's training" in summary.threshold_rule
        tested = read_predictions(run.folder / "predictions.csv")
        assert [row.image for row in tested] == [one.name for one in data.folds[0].test]
        assert summary.pooled.images == len(tested) and summary.folds_trained == [0]
        assert summary.pixel_scores.folds[0].threshold_from.images == len(held)

    def test_no_held_out_image_was_shown(self, judged):
        _, data, _, shown = judged
        names = {one.name for one in data.folds[0].held}
        assert shown and not any(name in text for name in names for text in shown)

    def test_it_opens_alike_and_scores_nothing_twice(self, judged, monkeypatch):
        run, data, summary, _ = judged
        again = open_data(run)
        assert again.folds[0].held == data.folds[0].held
        monkeypatch.setattr("ksdd_lib.evaluation.scoring.judge_samples", None)
        assert evaluate(run, again) == summary
        assert load_results(run.folder).summary == summary

    def test_an_edited_file_is_found(self, judged, tmp_path):
        run, _, _, _ = judged
        path = run.folder / "held_out.csv"
        before = path.read_bytes()
        rows = read_predictions(path)
        write_predictions(path, [replace(rows[0], score=rows[0].score + 1), *rows[1:]])
        with pytest.raises(RunError, match="Evaluate again"):
            load_results(run.folder)
        storage.write_bytes(path, before)
        load_results(run.folder)

    def test_its_model_is_published_with_that_threshold(self, judged, tmp_path):
        run, data, summary, _ = judged
        weights.publish(run, data, 0, tmp_path / "model.safetensors")
        card = weights.load(tmp_path / "model.safetensors")[1]
        assert card.threshold == summary.folds[0].threshold and "held out" in card.threshold_rule
        assert card.never_trained_on == sorted(items(data.folds[0].test))

    def test_good_parts_alone_set_it_too(self, judged):
        run, data, summary, _ = judged
        rows = read_predictions(run.folder / "predictions.csv")
        held = read_predictions(run.folder / "held_out.csv")
        train = {0: items(data.folds[0].train) | items(data.folds[0].held)}
        _, told = conclude(rows, "clean", 0, train, false_alarms=0.2, held=held)
        assert told.folds[0].threshold_from.images == sum(not row.is_defective for row in held)
        assert (
            told.false_alarms[0].parts and "held out of the fold's training" in told.threshold_rule
        )
