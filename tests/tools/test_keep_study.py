"""The kept study: its page is made of its files, and runs of another recipe do not join them."""

import shutil

import pytest
from keep_study import FOLDER, command_of, keep, main, read_study, result_text
from kept import ROOT, read_folder, write_run_folder
from pages import place_of

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import summary
from ksdd_lib.evaluation.results import rule_of
from ksdd_lib.study.grid import PAPER, jobs_of
from ksdd_lib.study.results import stored_grid

KEPT = read_folder(ROOT / FOLDER).runs


@pytest.mark.parametrize("run", KEPT.values(), ids=KEPT)
def test_a_run_s_numbers_follow_from_its_predictions(run):
    kept = run.summary
    _, again = summary.conclude(
        run.rows, kept.protocol, kept.seed, run.train_items, rule=rule_of(kept)
    )
    assert again.predictions_sha256 == kept.predictions_sha256
    assert again.pooled.ap == pytest.approx(kept.pooled.ap, abs=1e-12)


def test_the_page_shows_exactly_the_kept_runs():
    grid, found, runs = read_study(ROOT)
    text = (ROOT / FOLDER / "README.md").read_text(encoding="utf-8")
    assert place_of("study").search(text)[0] == result_text(grid, found, runs)
    assert found.finished == len(runs) == len(KEPT) and len(found.rows) == found.runs
    assert set(runs) <= {job.name for job in jobs_of(grid, "kolektorsdd")}


def test_the_command_names_all_that_is_not_the_paper_s():
    grid = PAPER.narrowed({"image_size": "704x256", "fold": "1", "copy_paste": 0.5})
    assert command_of(grid).endswith(
        "study --data KolektorSDD.zip --out runs/study "
        "--set image_size=704x256 --set fold=1 --set copy_paste=0.5"
    )


@pytest.fixture
def study(tmp_path):
    """The folder of the study that the kept runs come from, as far as they tell."""
    folder = tmp_path / "study"
    for name, run in KEPT.items():
        write_run_folder(run, folder / name)
        storage.write_text(folder / name / "report.html", "")
    shutil.copy(ROOT / FOLDER / "study.json", folder)
    return folder


def test_finished_runs_are_added_to_those_that_are_kept(study, tmp_path):
    root, [first, *others] = tmp_path / "root", sorted(KEPT)
    (study / first / "report.html").unlink()
    assert keep(study, root) == len(others)
    (study / first / "report.html").touch()
    for name in others:
        shutil.rmtree(study / name)
    assert keep(study, root) == len(KEPT)
    assert read_folder(root / FOLDER).runs == KEPT


def test_a_study_of_another_recipe_does_not_join(study, tmp_path):
    root = tmp_path / "root"
    keep(study, root)
    grid = stored_grid(study)
    other = grid.model_copy(update={"fixed": grid.fixed | {"segmentation_steps": 3}})
    storage.write_record(study / "study.json", other)
    with pytest.raises(RunError, match="another recipe"):
        keep(study, root)


def test_runs_whose_files_do_not_belong_together_are_not_kept(study, tmp_path, capsys):
    path = study / sorted(KEPT)[0] / "predictions.csv"
    path.write_text(path.read_text().replace("kos", "kas", 1))
    assert main([str(study)]) == 2
    assert "error: metrics.json was not made from this predictions.csv" in capsys.readouterr().err
