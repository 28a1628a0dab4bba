"""The numbers on the pages are those of the kept results, under each protocol."""

from dataclasses import replace

import pytest
from choice_tables import read_recipes
from few_defects import draw_few_defects, few_defects_table
from keep_results import PAGES
from kept import ROOT, Kept, read_kept
from pages import place_of, write_page
from protocols import (
    by_fold,
    pooled,
    protocol_table,
    repetitions,
    twin_table,
    variant_protocol_table,
    without_doubtful,
    without_leaks,
)
from run_tables import error_table, headline_table, minutes, run_table, variant_run_table

from ksdd_lib.data.kolektorsdd import TwinSurfaces
from ksdd_lib.evaluation.predictions import Prediction

KEPT = read_kept(ROOT)
SOURCE = KEPT.runs["best-mask-turn0-official-seed0"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_exactly_the_kept_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, table in PAGES[page].items():
        assert place_of(name).search(text)[0] == table(KEPT)


def test_only_the_marked_places_of_a_page_are_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- a:begin -->\nold\n<!-- a:end -->\ntwo\n")
    assert write_page(page, {"a": lambda: "new\n"})
    assert page.read_text() == "one\n<!-- a:begin -->\nnew\n<!-- a:end -->\ntwo\n"
    assert not write_page(page, {"a": lambda: "new\n"})


def test_every_recipe_whose_results_are_kept_is_listed():
    listed = read_recipes(KEPT)
    kept = {recipe.kept for recipe in listed if recipe.kept}
    assert kept <= set(KEPT.runs)
    assert {name.split("-")[0] for name in kept} == {name.split("-")[0] for name in KEPT.runs}
    assert all((recipe.kept is None) != (recipe.pooled is None) for recipe in listed)


def under(*names: str, folder=None) -> Kept:
    """One real result under several names."""
    return Kept(folder, {name: replace(SOURCE, name=name) for name in sorted(names)})


SEEDS = ("a-official-seed0", "a-official-seed1", "a-official-5defective-seed0")


def rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_seeds_of_a_recipe_share_a_row_of_each_protocol():
    found = rows(protocol_table(under(*SEEDS)))
    assert len(found) == 6  # all, without leaks, without doubtful labels; pooled and one by one
    assert {row[0] for row in found} == {"a, official"} and {row[3] for row in found} == {"2"}
    assert all(" to " in row[4] and row[5].count("/") == 2 for row in found)
    parts = ["all", "without the leaked ones", "without two doubtful labels"]
    assert [row[1].split(":")[0] for row in found[::2]] == parts


def test_few_defects_have_their_own_table_and_figure(tmp_path):
    kept = under(*SEEDS, folder=tmp_path / "results")
    every, few = rows(few_defects_table(kept))
    assert every[:3] == ["a, official", "35", "2"] and every[5] == "99.9 (of 33)"
    assert few[:3] == ["a, official", "5", "1"] and few[-4:] == ["96.1", "89.2", "16.5", "69.8"]
    judged = {row[0]: row for row in rows(headline_table(kept))}["a, official"]
    assert every[3:5] == judged[3:4] + judged[6:7]
    assert "5defective" not in run_table(kept) + variant_run_table(kept)
    draw_few_defects(kept)
    assert (tmp_path / "few_defects.png").stat().st_size > 10_000
    assert few_defects_table(under(*SEEDS[:2])) == ""


def test_errors_are_named_as_often_as_they_are_counted():
    kept = under(*SEEDS)
    [headline] = rows(headline_table(kept))
    for number, row in enumerate(rows(error_table(kept))):
        assert row[0] == f"a, official, {number}"
        alarms, misses = headline[4].split(", ")[number].split(" / ")
        assert [row[1].count("/Part"), row[2].count("/Part")] == [int(misses), int(alarms)]
        alarms, misses = headline[5].split(", ")[number].split(" / ")
        assert row[3].count("(missed)") == int(misses)
        assert row[3].count("(false alarm)") == int(alarms)


def test_variants_of_a_preset_have_tables_of_their_own():
    kept = under(*SEEDS, "a-mask-turn0-official-seed0", "a-clean-partition2-seed0")
    runs = [row[0] for row in rows(run_table(kept))]
    assert runs == ["a, clean, partition2, 0", "a, official, 0", "a, official, 1"]
    assert [row[0] for row in rows(variant_run_table(kept))] == ["a, mask, turn0, official, 0"]
    tables = protocol_table(kept), variant_protocol_table(kept)
    names = [{row[0] for row in rows(table)} for table in tables]
    assert names == [{"a, clean, partition2", "a, official"}, {"a, mask, turn0, official"}]


def test_twins_are_compared_in_results_that_judge_both():
    found = rows(twin_table(under(*SEEDS[:2])))
    assert [row[1] for row in found] == ["kos01 = kos26", "kos27 = kos34", "kos38 = kos39"]
    assert all(row[4].count(" of 8") == 2 for row in found)
    assert [row[2] for row in found] == ["0.63", "0.66", "0.40, 0.59"]


def test_minutes_are_of_the_machine_that_trained():
    """Training on a GPU, judging on a CPU: neither has the other's time."""
    where = {"cpu": "AMD EPYC Processor", "cpu_cores": 2, "gpu": "none"}
    for stage in ("segmentation", "decision"):
        where[f"{stage} stage of fold 0"] = "Intel(R) Xeon(R), GPU Tesla T4, float16, at 0a1b2c3"
    timing = {"segmentation stage, fold 0": 480, "decision stage, fold 0": 120}
    times = [{"what": what, "seconds": seconds} for what, seconds in timing.items()]
    times.append({"what": "scoring 125 images, fold 0", "seconds": 180})
    run = replace(SOURCE, documents={"environment": where, "timing": times})
    assert minutes([run]) == "10 on Tesla T4; 3 on AMD EPYC, 2 cores"


def row(image: str, fold: int, is_defective: bool, score: float, threshold: float) -> Prediction:
    item = image.split("/")[0]
    flagged = score > threshold
    return Prediction(image, item, fold, 0, is_defective, score, score, threshold, flagged)


ROWS = [  # fold 1's scores lie 10 higher than fold 0's; each alone is separated perfectly
    row("a/0", 0, True, 2.0, 1.0),
    row("a/1", 0, False, 0.0, 1.0),
    row("b/0", 0, False, 1.5, 1.0),
    row("c/0", 1, True, 12.0, 13.0),
    row("c/1", 1, False, 10.0, 13.0),
]


def test_folds_on_their_own_forgive_a_shift_and_pooled_ones_do_not():
    alone, together = by_fold(ROWS), pooled(ROWS)
    assert (alone.ap, alone.oracle, alone.fp_at_fn0) == (1.0, (0, 0), 0)
    assert together.ap == pytest.approx((1 + 2 / 3) / 2)
    assert together.oracle == (1, 0) and together.fp_at_fn0 == 1


def test_operating_errors_are_the_stored_verdicts_in_both():
    assert pooled(ROWS).operating == by_fold(ROWS).operating == (1, 1)
    assert (pooled(ROWS).images, by_fold(ROWS).defective) == (5, 2)


def test_images_whose_twin_was_trained_on_are_left_out():
    train = {0: ["c", "x"], 1: ["a", "b"]}
    kept = without_leaks(ROWS, train, [("a", "x"), ("c", "y", "z")])
    assert [one.image for one in kept] == ["b/0", "c/0", "c/1"]


def test_a_twin_tested_in_the_same_fold_is_no_leak():
    assert without_leaks(ROWS, {0: ["c"], 1: ["d"]}, [("a", "b")]) == ROWS


def test_a_part_that_was_itself_trained_on_is_not_its_own_twin():
    assert len(without_leaks(ROWS, {0: ["a"], 1: ["d"]}, [("a", "q")])) == 5


def test_two_doubtful_surfaces_of_kolektorsdd_are_left_out():
    doubtful = [row("kos19/Part2", 0, False, 0.0, 1.0), row("kos46/Part6", 1, False, 0.0, 1.0)]
    assert without_doubtful([*doubtful, *ROWS]) == ROWS


def test_one_part_judged_twice_tells_how_far_scores_move():
    pairs = [
        TwinSurfaces(surfaces=("a/0", "c/0"), correlation=0.9, mask_iou=0.5),
        TwinSurfaces(surfaces=("a/1", "c/1"), correlation=0.9, mask_iou=None),
        TwinSurfaces(surfaces=("b/0", "c/1"), correlation=0.9, mask_iou=None),
    ]
    first, second = repetitions(ROWS, pairs)
    assert (first.items, second.items) == (("a", "c"), ("b", "c"))
    assert first.differences == (10.0, 10.0) and second.differences == (8.5,)
    assert (first.disagreements, second.disagreements) == (1, 1)
    assert first.mask_ious == (0.5,) and second.mask_ious == ()
