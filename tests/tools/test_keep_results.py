"""What stays in the repository: its numbers are those of the kept predictions."""

import contextlib
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import keep_results
import pytest
from keep_results import unnamed
from kept import LOGGED, ROOT, KeptRun, read_kept, write_run_folder

from ksdd_lib import presets, storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import results, summary
from ksdd_lib.evaluation.predictions import read_predictions, write_predictions
from ksdd_lib.evaluation.results import rule_of
from ksdd_lib.presets import run_name
from ksdd_lib.settings_io import from_json

KEPT = read_kept(ROOT).runs
SOURCE = KEPT["cpu-clean-10defective-seed0"]


@pytest.mark.parametrize("run", KEPT.values(), ids=KEPT)
class TestEachKeptRun:
    @pytest.mark.fault(32)
    def test_its_metrics_follow_from_its_predictions(self, run):
        kept = run.summary
        _, again = summary.conclude(
            run.rows, kept.protocol, kept.seed, run.train_items, rule=rule_of(kept)
        )
        assert again.predictions_sha256 == kept.predictions_sha256
        assert storage.sha256(run.predictions_text.encode()) == kept.predictions_sha256
        assert again.pooled.ap == pytest.approx(kept.pooled.ap, abs=1e-12)
        for name in ("images", "defective", "fp", "fn"):
            assert getattr(again.pooled, name) == getattr(kept.pooled, name)

    def test_its_curves_are_of_its_folds(self, run):
        folds = {int(row[0]) for row in run.curves}
        assert folds == set(run.summary.folds_trained)
        assert {row[1] for row in run.curves} == {"segmentation", "decision"}
        steps = [(row[:2], int(row[2])) for row in run.curves]
        assert steps == sorted(steps) and all(len(row) == 2 + len(LOGGED) for row in run.curves)

    def test_says_how_it_was_made(self, run):
        command, commit = run.environment["command"], run.environment["commit"]
        assert command.startswith(("python -m ksdd_lib", "python benchmarks/runs.py"))
        assert re.fullmatch("[0-9a-f]{7,}", commit), "of a checkout without changes"

    def test_is_of_the_preset_as_it_is_now(self, run):
        """But for what its name says: seeds of one name are put together."""
        settings = from_json(run.documents["settings"])
        assert unnamed(settings) == []
        assert run.name == run_name(replace(settings, data="kolektorsdd"))


def changed(path: Path, **values: object) -> None:
    """Change fields of a JSON file."""
    storage.write_json(path, storage.read_json(path) | values)


def only(run: Path, folds: list[int]) -> Path:
    """A copy of a run folder in which no more than these folds are trained."""
    part = run.parent / f"only{''.join(map(str, folds))}"
    shutil.copytree(run, part)
    before = storage.read_json(part / "metrics.json")
    rows = [row for row in read_predictions(part / "predictions.csv") if row.fold in folds]
    rows, told = summary.conclude(rows, before["protocol"], before["seed"], SOURCE.train_items)
    made_from = dict(before["made_from"])
    made_from["weights"] = {str(k): before["made_from"]["weights"][str(k)] for k in folds}
    defects = {str(k): before["trained_defects"][str(k)] for k in folds}
    write_predictions(part / "predictions.csv", rows)
    joined = {"made_from": made_from, "trained_defects": defects}
    storage.write_json(part / "metrics.json", told.model_dump(mode="json") | joined)
    for fold in {0, 1, 2} - set(folds):
        shutil.rmtree(part / f"fold{fold}")
    of_folds = tuple(f"fold {fold}" for fold in folds)
    timing = storage.read_json(part / "timing.json")
    timing = [row for row in timing if row["what"].endswith(of_folds)]
    storage.write_json(part / "timing.json", timing)
    made = storage.read_json(part / "environment.json")
    made = {k: made[k] for k in made if "stage of" not in k or k.endswith(of_folds)}
    storage.write_json(part / "environment.json", made)
    if len(folds) == 1:
        changed(part / "settings.json", fold=str(folds[0]))
    return part


class TestKeep:
    """What may not be kept is refused, and what is kept is left alone."""

    @pytest.fixture
    def root(self, tmp_path):
        """A checkout with one kept run, beside the run folder that it came from."""
        write_run_folder(SOURCE, tmp_path / "run")
        checkout = tmp_path / "checkout"
        assert keep_results.keep(tmp_path / "run", checkout) == SOURCE.name
        return tmp_path

    def kept(self, root: Path, checkout: str = "checkout") -> KeptRun:
        [run] = read_kept(root / checkout).runs.values()
        return run

    def test_a_finished_run_is_kept_digit_by_digit(self, root):
        assert self.kept(root) == SOURCE
        files = {path.name for path in (root / "checkout" / "assets" / "results").iterdir()}
        assert files == {"predictions.csv", "curves.csv", "runs.json"}

    def test_other_runs_stay_as_they_were(self, root):
        checkout = root / "checkout"
        changed(root / "run" / "settings.json", seed=7)
        before = self.kept(root)
        rows = [replace(row, seed=7) for row in read_predictions(root / "run" / "predictions.csv")]
        rows, told = summary.conclude(rows, "clean", 7, SOURCE.train_items)
        write_predictions(root / "run" / "predictions.csv", rows)
        made_from = storage.read_json(root / "run" / "metrics.json")["made_from"]
        made_from["settings"]["seed"] = 7
        metrics = told.model_dump(mode="json") | {"made_from": made_from}
        storage.write_json(root / "run" / "metrics.json", metrics)
        name = keep_results.keep(root / "run", checkout)
        assert name == "cpu-clean-10defective-seed7"
        assert list(read_kept(checkout).runs) == [SOURCE.name, name]
        keep_results.remove(name, checkout)
        assert self.kept(root) == before == SOURCE
        with pytest.raises(RunError, match="no kept run 'cpu'"):
            keep_results.remove("cpu", checkout)

    def test_what_was_kept_stays_until_the_new_files_are_whole(self, root, monkeypatch):
        """Its folds may be nowhere else."""
        folder = root / "checkout" / "assets" / "results"
        before = {path: path.read_bytes() for path in folder.iterdir()}

        def full(path: Path, value: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(storage, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            keep_results.keep(root / "run", root / "checkout")
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.fault(58)
    @pytest.mark.parametrize("act", ["keep", "remove"])
    def test_a_kill_between_two_names_loses_nothing(self, root, monkeypatch, act):
        """The old results or the new ones are there, whichever file got its name last."""
        folder, whole = root / "checkout" / "assets" / "results", root / "whole"
        shutil.copytree(folder, whole)
        other = root / "other size"
        shutil.copytree(root / "run", other)
        for path in (other / "settings.json", other / "metrics.json"):
            path.write_text(path.read_text().replace('"704x256"', '"1056x384"'))
        replace_file, seen, number = os.replace, [], 0
        while not seen or len(seen[-1]) < 3:
            number += 1
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            named = []

            def die(source, target, named=named, number=number):
                if Path(target).parent == folder:
                    if len(named) == number - 1:
                        raise SystemExit
                    named.append(Path(target).name)
                replace_file(source, target)

            with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
                patch.setattr(os, "replace", die)
                if act == "keep":
                    keep_results.keep(other, root / "checkout")
                else:
                    keep_results.remove(SOURCE.name, root / "checkout")
            seen.append([name for name in named if name.endswith((".csv", ".json"))])
            kept = read_kept(root / "checkout").runs
            assert kept.get(SOURCE.name, SOURCE) == SOURCE
            assert len(kept) in ((1, 2) if act == "keep" else (0, 1))
            files = {path.name for path in folder.iterdir() if path.suffix != ".tmp"}
            assert files == {"predictions.csv", "curves.csv", "runs.json"}
        assert len(kept) == (2 if act == "keep" else 0) and len(seen) == 5

    @pytest.mark.fault(52)
    @pytest.mark.parametrize("name", ["data", "settings", "metrics", "folds", "timing"])
    @pytest.mark.parametrize("content", ["3", "null", '"x"', "[" * 9999, "[[]]"])
    def test_a_record_of_another_kind_is_refused_by_its_name(self, root, name, content):
        (root / "run" / f"{name}.json").write_text(content)
        with pytest.raises(RunError, match=f"{name}.json is not"):
            keep_results.keep(root / "run", root / "checkout")
        assert self.kept(root) == SOURCE

    def test_another_image_size_is_another_result(self, root):
        run = root / "run"
        for path in (run / "settings.json", run / "metrics.json"):
            text = path.read_text()
            assert '"704x256"' in text
            path.write_text(text.replace('"704x256"', '"1056x384"'))
        name = "cpu-1056x384-clean-10defective-seed0"
        assert keep_results.keep(run, root / "checkout") == name

    def test_other_data_is_refused(self, root):
        data = storage.read_json(root / "run" / "data.json")
        other = {"name": "mine", "is_kolektor": False}
        storage.write_json(
            root / "run" / "data.json", data | other | {"report": data["report"] | other}
        )
        with pytest.raises(RunError, match="not on mine"):
            keep_results.keep(root / "run", root / "checkout")

    def test_what_no_preset_does_is_refused(self, root):
        """Its name would not tell, and it would count as another seed of the preset."""
        changed(root / "run" / "settings.json", segmentation_steps=2, seed=7)
        made_from = storage.read_json(root / "run" / "metrics.json")["made_from"]
        made_from["settings"] |= {"segmentation_steps": 2, "seed": 7}
        changed(root / "run" / "metrics.json", made_from=made_from)
        with pytest.raises(RunError, match="not as its preset cpu: segmentation_steps"):
            keep_results.keep(root / "run", root / "checkout")

    def change_kept_settings(self, root: Path, change) -> None:
        path = root / "checkout" / "assets" / "results" / "runs.json"
        runs = storage.read_json(path)
        change(runs[SOURCE.name]["settings"])
        storage.write_json(path, runs)

    def test_results_of_an_earlier_preset_of_that_name_are_not_joined(self, root):
        self.change_kept_settings(root, lambda settings: settings.update(segmentation_steps=2))
        with pytest.raises(RunError, match="another segmentation_steps"):
            keep_results.keep(root / "run", root / "checkout")

    def test_a_result_older_than_a_setting_may_be_replaced(self, root):
        """A setting that the result leaves at its default."""
        self.change_kept_settings(root, lambda settings: settings.pop("rotation"))
        assert keep_results.keep(root / "run", root / "checkout") == SOURCE.name

    @pytest.mark.parametrize("first, then", [([0], [1, 2]), ([1, 2], [0]), ([0, 1, 2], [1])])
    def test_folds_that_are_kept_one_after_the_other_are_as_if_kept_together(
        self, root, first, then
    ):
        """As a training of many hours comes: thresholds follow from all folds that are there."""
        checkout = root / "other"
        keep_results.keep(only(root / "run", first), checkout)
        keep_results.keep(only(root / "run", then), checkout)
        kept = self.kept(root, "other")
        assert (kept.predictions, kept.curves) == (SOURCE.predictions, SOURCE.curves)
        # of all images, which are not there
        whole = {"darkest_pixel": None, "masks_sha256": None}
        stored = SOURCE.summary.model_copy(update=whole)
        assert kept.summary.darkest_pixel is None and kept.summary.masks_sha256 is None
        assert results._differences(kept.summary, stored) == "", "but for another scipy's last bit"
        assert kept.documents["settings"] == SOURCE.documents["settings"]
        times = [{line.what: line.seconds for line in run.timing} for run in (kept, SOURCE)]
        assert times[0] == times[1]
        made = kept.environment
        assert made.items() >= SOURCE.environment.items()
        assert {name for name in made if name.startswith("command of")} == {
            f"command of fold {fold}" for fold in first if fold not in then
        }

    def test_folds_of_other_items_are_not_joined(self, root):
        keep_results.keep(only(root / "run", [0]), root / "other")
        run = only(root / "run", [1])
        folds = storage.read_json(run / "folds.json")
        folds["folds"][2]["train_items"].pop()
        storage.write_json(run / "folds.json", folds)
        with pytest.raises(RunError, match="holds folds of other items"):
            keep_results.keep(run, root / "other")

    def test_an_unfinished_run_leaves_the_kept_result_alone(self, root):
        (root / "run" / "environment.json").unlink()
        with pytest.raises(RunError, match="environment.json is missing"):
            keep_results.keep(root / "run", root / "checkout")
        assert self.kept(root) == SOURCE


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path, capsys):
    assert keep_results.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path.name} is no run folder.\n"


def test_figures_of_a_kept_run_are_drawn_on_demand_and_show_no_surface(tmp_path):
    figures = keep_results.draw(SOURCE.name, tmp_path, ROOT)
    assert {path.stem for path in figures} == {
        "scores",
        "precision_recall_curve",
        "roc_curve",
        "confusion_matrix",
        "training_curves",
    }
    assert all(path.stat().st_size > 5_000 for path in figures)
    with pytest.raises(RunError, match="no kept run 'cpu'"):
        keep_results.draw("cpu", tmp_path, ROOT)


def test_what_changes_scores_and_is_not_in_the_name_is_listed() -> None:
    named = {"fold": "1", "seed": 3, "image_size": "1056x384", "paste_turn": 20.0, "partition": 2}
    harmless = {"checkpoint_steps": 7, "precision": "float32", "data": "x.zip"}
    assert unnamed(presets.resolve({"preset": "cpu"} | named | harmless)) == []
    other = {"flips": False, "decision_steps": 3}
    assert unnamed(presets.resolve({"preset": "cpu"} | other)) == ["flips", "decision_steps"]
    assert unnamed(presets.resolve({"preset": "cpu", "score": "mask"} | other)) == ["flips"]
    assert unnamed(presets.resolve({"method": "darkest_pixel", "decision_steps": 3})) == []
    unused = {"generated_items": 20, "decision_copy_paste": False}
    assert unnamed(presets.resolve({"preset": "paper"} | unused)) == []
    assert unnamed(presets.resolve({"preset": "demo"} | unused)) == ["generated_items"]
    from_good = {"preset": "best", "labels": "none"}
    assert unnamed(presets.resolve(from_good | {"decision_steps": 200})) == []
    assert unnamed(presets.resolve(from_good | {"decision_steps": 201})) == ["decision_steps"]
    assert unnamed(presets.resolve({"preset": "best", "decision_steps": 200})) == ["decision_steps"]
