"""What a study says follows from its numbers, also from half of them."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ksdd_lib import storage
from ksdd_lib.formatting import words
from ksdd_lib.study import page, planner, results, run
from ksdd_lib.study.grid import Grid, jobs_of
from ksdd_lib.study.results import Outcome, Row, mean_interval, paired, sentences

GRID = Grid(
    name="some",
    vary={"annotation": ("fine", "box", "dilated5"), "rotation": (False, True)},
    fixed={"preset": "demo", "image_size": "128x128"},
)


def rows_of(ap, folds=(0, 1, 2), seeds=(0,), grid=GRID):
    """A row of each cell and seed; `ap(cell, seed, fold)` gives its AP, None what is not there."""
    rows = []
    for seed, cell in itertools.product(seeds, itertools.product(*grid.vary.values())):
        found = {fold: ap(cell, seed, fold) for fold in folds}
        aps = {fold: one for fold, one in found.items() if one is not None}
        state = "finished" if len(aps) == len(folds) else "not begun"
        rows.append(Row(cell, seed, aps, None, 1.5, state))
    return rows


def outcome_of(rows, grid=GRID):
    factors = tuple(results._factor(grid, place, rows) for place in range(len(grid.vary)))
    return Outcome(tuple(rows), factors, results._seeds_spread(rows), {"a CPU": 3}, True, 9, 4)


def annotation_alone(cell, seed, fold):
    """Folds differ by 20 points, the annotation by 2, rotation by nothing."""
    return 0.5 + 0.2 * fold + {"fine": 0.0, "box": 0.02, "dilated5": 0.01}[cell[0]]


class TestEffects:
    def test_pairs_take_out_what_folds_and_other_factors_do(self):
        annotation, rotation = outcome_of(rows_of(annotation_alone)).factors
        assert [round(one.mean, 6) for one in annotation.effects] == [-1, 1, 0]
        assert annotation.sets == 6 and rotation.sets == 9
        assert (annotation.best, annotation.worst) == ("box", "fine")
        assert annotation.most.mean == pytest.approx(2)
        assert annotation.most.interval == pytest.approx((2, 2))
        assert rotation.most.mean == 0

    def test_a_set_that_lacks_a_value_does_not_count(self):
        def ap(cell, seed, fold):
            return (
                None if cell == ("box", True) and fold == 1 else annotation_alone(cell, seed, fold)
            )

        rows = rows_of(ap)
        assert len(paired(rows, 0, GRID.vary["annotation"])) == 5
        assert len(paired(rows, 1, GRID.vary["rotation"])) == 8

    def test_nothing_finished_gives_no_effect_and_no_sentence(self):
        found = outcome_of(rows_of(lambda *_: None))
        assert not any(factor.effects for factor in found.factors) and sentences(found) == []

    def test_a_setting_of_one_value_has_no_effect(self):
        grid = GRID.narrowed({"annotation": "fine"})
        assert outcome_of(rows_of(annotation_alone, grid=grid), grid).factors[0].effects == ()

    @pytest.mark.parametrize("among", [1, 3, 10])
    def test_the_interval_is_that_of_student(self, among):
        values = np.random.default_rng(among).normal(2, 3, 12)
        level = 1 - 0.05 / among
        wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert mean_interval(values, among) == pytest.approx((wanted.low, wanted.high))

    def test_a_single_pair_has_no_interval(self):
        assert mean_interval(np.array([3.0])) is None


class TestSentences:
    def test_a_steady_effect_and_none_at_all(self):
        first, second, last = sentences(outcome_of(rows_of(annotation_alone)))
        assert first.startswith("The annotation changed AP by 2.0 points at most (box over fine, 6")
        assert "do not tell" not in first
        assert second == "The rotation changed no AP (9 pairs)."
        assert last.startswith("There is one seed")

    def test_an_effect_in_the_noise_is_called_so(self):
        noise = np.random.default_rng(0)
        rows = rows_of(lambda *_: float(noise.uniform(0.4, 0.9)), seeds=(0, 1, 2))
        told = sentences(outcome_of(rows))
        assert len(told) == 2 and all("do not tell it from none" in line for line in told)
        assert all("within the seeds' spread" in line for line in told)

    def test_one_pair_says_nothing_of_chance(self):
        rows = rows_of(lambda cell, *_: 0.9 if cell[1] else 0.8, folds=(1,))
        told = sentences(outcome_of([row for row in rows if row.cell[0] == "fine"]))
        assert any("10.0 points" in line and "One pair says nothing" in line for line in told)


class TestSeeds:
    def test_their_spread_is_within_cells_and_folds(self):
        rows = rows_of(lambda cell, seed, fold: 0.3 * fold + 0.01 * seed, seeds=(0, 1, 2))
        assert results._seeds_spread(rows) == pytest.approx(1.0)

    def test_one_seed_has_none(self):
        assert results._seeds_spread(rows_of(annotation_alone)) is None


class TestPage:
    def test_what_is_not_there_is_shown_as_such(self, tmp_path):
        jobs = jobs_of(GRID, "generated")
        (tmp_path / jobs[0].name / "fold0").mkdir(parents=True)
        (tmp_path / jobs[0].name / "settings.json").write_text("{}")
        (tmp_path / jobs[1].name / "fold0").mkdir(parents=True)
        (tmp_path / jobs[1].name / "fold0" / "decision.diverged.json").write_text("{}")
        text = page.write_page(GRID, jobs, tmp_path).read_text("utf-8")
        assert "0 of 18 runs finished" in text
        assert text.count("not begun") == 4 and "fold 0: no stage done" in text
        assert "fold 0 diverged" in text and str(tmp_path) not in text

    def test_a_study_is_shown_anew_from_its_folder(self, tmp_path):
        storage.write_record(tmp_path / "study.json", GRID)
        whole = run.page_of(tmp_path).read_text("utf-8")
        assert whole == page.write_page(GRID, jobs_of(GRID, "x.zip"), tmp_path).read_text("utf-8")

    def test_the_map_shows_every_cell(self):
        def ap(cell, seed, fold):
            return None if cell == ("box", True) else annotation_alone(cell, seed, fold)

        [ax] = page.heat_map(GRID, outcome_of(rows_of(ap))).get_axes()
        assert sorted(text.get_text() for text in ax.texts) == sorted(
            ["70.0", "70.0", "72.0", "71.0", "71.0", "-"]
        )
        hatched = [patch.get_hatch() for patch in ax.patches if patch.get_hatch()]
        assert len(hatched) == 1

    def test_a_factor_s_figure_names_its_values(self):
        rotation = outcome_of(rows_of(annotation_alone)).factors[1]
        [ax] = page.effect_figure(rotation).get_axes()
        assert [label.get_text() for label in ax.get_yticklabels()] == ["off", "on"]
        assert words(rotation.name) in ax.get_title(loc="left")


class TestPlan:
    @pytest.mark.parametrize(
        ("chains", "machines", "wanted"),
        [([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([3, 3, 3], 5, 3), ([5, 1, 1, 1, 1, 1], 2, 5)],
    )
    def test_the_longest_runs_go_first(self, chains, machines, wanted):
        assert planner.makespan(chains, machines) == wanted

    def test_plan_only_plans(self, tmp_path, monkeypatch, capsys, narrow):
        from ksdd_lib.__main__ import main

        asked = []

        def measure(settings):
            asked.append(settings.size)
            return planner.Pace(training=6.0, scoring=0, deciding=0)

        monkeypatch.setattr(planner.two_stage_timing, "measure", measure)
        (tmp_path / "grid.json").write_text(GRID.model_dump_json())
        line = ["study", "--data=generated", f"--out={tmp_path / 'out'}", "--plan"]
        given = ["--set=segmentation_steps=10", "--set=segmentation_batch_size=1"]
        assert main([*line, f"--grid={tmp_path / 'grid.json'}", *given]) == 0
        told = capsys.readouterr().out
        assert "54 tasks are left, in 18 runs." in told and asked == [(128, 128)]
        assert "up to about 18 min on this machine" in told and "10 machines 2 min" in told
        assert not (tmp_path / "out").exists()
