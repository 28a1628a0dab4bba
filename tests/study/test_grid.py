"""A grid becomes runs and tasks, and equal stages are trained once."""

import json

import pytest

from ksdd_lib.__main__ import main
from ksdd_lib.errors import KsddError, RunError, SettingsError
from ksdd_lib.study.grid import JUDGING, PAPER, Grid, jobs_of, read_grid, tasks_of

TINY = {"preset": "demo", "image_size": "128x128"}


def runs_of(*, data="generated", **fields):
    return jobs_of(Grid(**{"name": "some", "fixed": TINY} | fields), data)


def trainings(jobs):
    return [task for task in tasks_of(jobs) if task.stage != JUDGING and task.source is None]


class TestPaper:
    jobs = jobs_of(PAPER, "KolektorSDD.zip")

    def test_it_has_forty_cells_and_three_folds(self):
        assert len({job.cell for job in self.jobs}) == 40 and len(self.jobs) == 120
        assert len({job.name for job in self.jobs}) == 120
        assert len(trainings(self.jobs)) == 240 and len(tasks_of(self.jobs)) == 360
        assert {job.settings.folds for job in self.jobs} == {"official"}

    def test_the_rate_goes_with_the_loss_as_published(self):
        rates = {
            (job.settings.segmentation_loss, job.settings.segmentation_learning_rate)
            for job in self.jobs
        }
        assert rates == {("cross_entropy", 0.1), ("mean_squared_error", 0.005)}

    def test_what_is_given_wins_over_what_goes_along(self):
        for given in ({"segmentation_learning_rate": 0.02}, {"segmentation_optimizer": "adamw"}):
            jobs = jobs_of(PAPER.narrowed(given), "x.zip")
            rates = {job.settings.segmentation_learning_rate for job in jobs}
            assert 0.005 not in rates and len(rates) == 1

    def test_it_is_narrowed_by_set(self):
        jobs = jobs_of(PAPER.narrowed({"image_size": "704x256", "fold": "0", "seed": 3}), "x.zip")
        assert len(jobs) == 20 == len({job.cell for job in jobs})
        assert {(job.fold, job.seed) for job in jobs} == {(0, 3)}
        assert {job.settings.image_size for job in jobs} == {"704x256"}

    def test_a_narrowed_study_has_the_same_run_folders(self):
        whole = {job.name: job.settings for job in self.jobs}
        for given in ({"image_size": "704x256"}, {"fold": "2"}, {"rotation": True}):
            part = jobs_of(PAPER.narrowed(given), "KolektorSDD.zip")
            assert 0 < len(part) < 120
            assert all(whole[job.name] == job.settings for job in part)

    def test_each_fold_is_whole_before_the_next_begins(self):
        assert [job.fold for job in self.jobs] == [0] * 40 + [1] * 40 + [2] * 40


class TestSharing:
    @pytest.mark.parametrize(
        ("vary", "segmentation", "decision"),
        [
            ({"decision_steps": (3, 4, 5)}, 1, 3),
            ({"decision_optimizer": ("sgd", "adamw"), "decision_learning_rate": (0.1, 0.01)}, 1, 4),
            ({"score": ("decision", "mask", "both")}, 1, 1),
            ({"average_flips": (True, False)}, 1, 1),
            ({"annotation": ("fine", "box")}, 2, 2),
            ({"annotation": ("fine", "box"), "decision_steps": (3, 4)}, 2, 4),
            ({"rotation": (True, False)}, 2, 2),
            ({"precision": ("float32", "bfloat16")}, 2, 2),
            ({"image_size": ("128x128", "144x128")}, 2, 2),
            ({"defective_images": (3, 4)}, 2, 2),
            ({"twins": ("similar", "identical")}, 2, 2),
        ],
    )
    def test_equal_stages_are_trained_once_in_each_fold(self, vary, segmentation, decision):
        fixed = {name: value for name, value in TINY.items() if name not in vary}
        done = trainings(runs_of(vary=vary, fixed=fixed, folds=(0, 2)))
        counts = [
            [task.stage for task in done].count(name) for name in ("segmentation", "decision")
        ]
        assert counts == [2 * segmentation, 2 * decision]

    def test_seeds_share_nothing(self):
        assert len(trainings(runs_of(vary={}, seeds=(0, 1, 2)))) == 2 * 3 * 3

    def test_a_copy_comes_after_what_is_copied_and_its_own_first_stage(self):
        jobs = runs_of(vary={"score": ("decision", "mask")}, folds=(1,))
        tasks = {task.key: task for task in tasks_of(jobs)}
        first, second = (job.name for job in jobs)
        copy = tasks[second, "decision"]
        assert copy.source == first
        assert set(copy.after) == {(first, "decision"), (second, "segmentation")}
        assert tasks[first, "decision"].after == ((first, "segmentation"),)
        assert tasks[second, JUDGING].after == ((second, "decision"),)

    def test_every_task_comes_after_those_that_it_needs(self):
        seen = set()
        for task in tasks_of(runs_of(vary={"score": ("decision", "mask"), "rotation": (True,)})):
            assert set(task.after) <= seen
            seen.add(task.key)

    def test_a_rule_without_training_is_only_judged(self):
        jobs = runs_of(vary={"method": ("darkest_pixel", "local_contrast")}, folds=(0,))
        assert [task.stage for task in tasks_of(jobs)] == [JUDGING] * 2


class TestFiles:
    def grid(self, tmp_path, **fields):
        path = tmp_path / "grid.json"
        whole = {"name": "mine", "vary": {"annotation": ["fine", "box"]}, "fixed": TINY}
        path.write_text(json.dumps(whole | fields))
        return str(path)

    def test_a_file_is_read(self, tmp_path):
        found = read_grid(self.grid(tmp_path, folds=[2], seeds=[4, 5], vary={"drawn": [0, 0.5]}))
        assert [(job.cell, job.seed, job.fold) for job in jobs_of(found, "generated")] == [
            ((0,), 4, 2),
            ((0.5,), 4, 2),
            ((0,), 5, 2),
            ((0.5,), 5, 2),
        ]

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"vary": {"annotatoin": ["fine"]}}, "did you mean annotation"),
            ({"fixed": {"steps": 3}}, "no setting 'steps'"),
            ({"vary": {"annotation": []}}, "every list needs a value"),
            ({"folds": []}, "every list needs a value"),
            ({"vary": {"seed": [0, 1]}}, "seed: a grid has folds and seeds"),
            ({"fixed": {"data": "x.zip"}}, "data: a grid has folds and seeds"),
            ({"vary": {"annotation": ["fine", "wide"]}}, "The cell wide: annotation is 'wide'"),
            ({"vary": {"segmentation_steps": ["3"]}}, "must be int"),
            ({"vary": {"annotation": ["fine", "fine"]}}, "a value stands there twice"),
            ({"folds": [0, 3]}, "fold is '3'"),
            ({"vary": ["annotation"]}, "not as it was written: vary"),
            (
                {"vary": {"segmentation_loss": ["mean_squared_error"]}, "fixed": {"score": "mask"}},
                "The cell mean_squared_error: score is 'mask'",
            ),
        ],
    )
    def test_a_wrong_one_is_refused_before_anything_begins(self, tmp_path, capsys, fields, told):
        path, out = self.grid(tmp_path, **fields), tmp_path / "out"
        assert main(["study", "--data", "generated", "--out", str(out), "--grid", path]) == 2
        assert told in capsys.readouterr().err and not out.exists()

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "x"}', "null"])
    def test_a_file_that_is_no_grid(self, tmp_path, text):
        (tmp_path / "grid.json").write_text(text)
        with pytest.raises(RunError, match="grid.json"):
            read_grid(str(tmp_path / "grid.json"))

    def test_a_file_that_is_not_there(self):
        with pytest.raises(KsddError, match="There is no grid absent.json: take paper"):
            read_grid("absent.json")

    def test_values_that_make_one_name_are_two_cells(self):
        with pytest.raises(SettingsError, match="the same"):
            runs_of(vary={"region": ("0,0,64,64", "0 ,0,64,64")})
