"""The numbers on the pages are those of the kept results."""

import json
import shutil
from pathlib import Path

import pytest

from ksdd_lib import storage
from tools import result_tables

PROTOCOLS = result_tables.protocol_table, result_tables.variant_protocol_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", result_tables.PAGES)
def test_a_page_shows_exactly_the_kept_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, table in result_tables.PAGES[page].items():
        assert result_tables.place_of(name).search(text)[0] == table(ROOT)


def test_every_recipe_whose_results_are_kept_is_listed():
    listed = storage.read_json(ROOT / "assets" / "results" / "recipes.json")
    folders = {path.parent.name for path in (ROOT / "assets" / "results").glob("*/metrics.json")}
    kept = {one["kept"] for one in listed if "kept" in one}
    assert kept <= folders
    assert {name.split("-")[0] for name in kept} == {name.split("-")[0] for name in folders}
    assert all(("kept" in one) != ("pooled" in one) for one in listed)


@pytest.fixture
def root(tmp_path):
    """A checkout whose kept results are one real result under several names."""
    source = next((ROOT / "assets" / "results").glob("*-official-seed*"))
    for name in ("a-official-seed0", "a-official-seed1", "a-official-5defective-seed0"):
        shutil.copytree(source, tmp_path / "assets" / "results" / name)
    return tmp_path


def rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_seeds_of_a_recipe_share_a_row_of_each_protocol(root):
    found = rows(result_tables.protocol_table(root))
    assert len(found) == 6  # all, without leaks, without doubtful labels; pooled and one by one
    assert {row[0] for row in found} == {"a, official"} and {row[3] for row in found} == {"2"}
    assert all(" to " in row[4] and row[5].count("/") == 2 for row in found)
    parts = ["all", "without the leaked ones", "without two doubtful labels"]
    assert [row[1].split(":")[0] for row in found[::2]] == parts


def test_few_defects_have_their_own_table_and_figure(root):
    every, few = rows(result_tables.few_defects_table(root))
    assert every[:3] == ["a, official", "35", "2"] and every[5] == "99.9 (of 33)"
    assert few[:3] == ["a, official", "5", "1"] and few[-4:] == ["96.1", "89.2", "16.5", "69.8"]
    judged = {row[0]: row for row in rows(result_tables.headline_table(root))}["a, official"]
    assert every[3:5] == judged[3:4] + judged[6:7]
    assert "5defective" not in result_tables.run_table(root) + result_tables.variant_run_table(root)
    result_tables.draw_few_defects(root)
    assert (root / "assets" / "few_defects.png").stat().st_size > 10_000
    for folder in (root / "assets" / "results").glob("*defective*"):
        shutil.rmtree(folder)
    assert result_tables.few_defects_table(root) == ""


def test_errors_are_named_as_often_as_they_are_counted(root):
    [headline] = rows(result_tables.headline_table(root))
    for number, row in enumerate(rows(result_tables.error_table(root))):
        assert row[0] == f"a, official, {number}"
        alarms, misses = headline[4].split(", ")[number].split(" / ")
        assert [row[1].count("/Part"), row[2].count("/Part")] == [int(misses), int(alarms)]
        alarms, misses = headline[5].split(", ")[number].split(" / ")
        assert row[3].count("(missed)") == int(misses)
        assert row[3].count("(false alarm)") == int(alarms)


def test_variants_of_a_preset_have_tables_of_their_own(root):
    kept = root / "assets" / "results"
    for name in ("a-mask-turn0-official-seed0", "a-clean-partition2-seed0"):
        shutil.copytree(kept / "a-official-seed0", kept / name)
    runs = [row[0].partition("]")[0] for row in rows(result_tables.run_table(root))]
    assert runs == ["[a, clean, partition2, 0", "[a, official, 0", "[a, official, 1"]
    assert "[a, mask, turn0, official, 0]" in result_tables.variant_run_table(root)
    assert len(rows(result_tables.variant_run_table(root))) == 1
    names = [{row[0] for row in rows(table(root))} for table in PROTOCOLS]
    assert names == [{"a, clean, partition2", "a, official"}, {"a, mask, turn0, official"}]


def test_twins_are_compared_in_results_that_judge_both(root):
    found = rows(result_tables.twin_table(root))
    assert [row[1] for row in found] == ["kos01 = kos26", "kos27 = kos34", "kos38 = kos39"]
    assert all(row[4].count(" of 8") == 2 for row in found)
    assert [row[2] for row in found] == ["0.63", "0.66", "0.40, 0.59"]


def test_minutes_are_of_the_machine_that_trained(tmp_path):
    """Training on a GPU, judging on a CPU: neither has the other's time."""
    where = {"cpu": "AMD EPYC Processor", "cpu_cores": 2, "gpu": "none"}
    for stage in ("segmentation", "decision"):
        where[f"{stage} stage of fold 0"] = "Intel(R) Xeon(R), GPU Tesla T4, float16, at 0a1b2c3"
    timing = {"segmentation stage, fold 0": 480, "decision stage, fold 0": 120}
    rows = [{"what": what, "seconds": seconds} for what, seconds in timing.items()]
    rows.append({"what": "scoring 125 images, fold 0", "seconds": 180})
    (tmp_path / "environment.json").write_text(json.dumps(where))
    (tmp_path / "timing.json").write_text(json.dumps(rows))
    assert result_tables._minutes([tmp_path]) == "10 on Tesla T4; 3 on AMD EPYC, 2 cores"
