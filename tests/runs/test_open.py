"""A run is created, opened and resumed by its settings and its folder."""

from dataclasses import asdict
from pathlib import Path

import pytest

from ksdd_lib import presets, storage
from ksdd_lib.errors import RunError
from ksdd_lib.presets import run_name
from ksdd_lib.runs.open import create, last_settings, open_run, resume
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings


def test_a_run_restores_its_own_settings(run: Run) -> None:
    again = open_run(run.folder, {})
    assert again.settings == run.settings and again.settings.seed == 3


def test_equal_explicit_values_are_welcome(run: Run) -> None:
    assert open_run(run.folder, {"seed": 3}).settings == run.settings


@pytest.mark.fault(21)
def test_a_different_explicit_value_is_refused_with_the_difference(run: Run) -> None:
    storage.write_json(run.folder / "data.json", {})
    with pytest.raises(RunError, match="seed is 3 there, 4 here; rotation is False there, True"):
        open_run(run.folder, {"seed": 4, "rotation": True})
    assert open_run(run.folder, {}).settings == run.settings


def test_until_the_data_is_there_another_value_replaces_the_first(tmp_path: Path) -> None:
    open_run(tmp_path / "run", {"data": "typo.zip", "preset": "cpu", "seed": 3})
    again = open_run(tmp_path / "run", {"data": "parts.zip", "seed": 4}).settings
    assert (again.preset, again.data, again.seed) == ("cpu", "parts.zip", 4)
    other = open_run(tmp_path / "run", {"preset": "paper"}).settings
    assert other == presets.resolve({"preset": "paper"})
    assert open_run(tmp_path / "run", {}).settings == other


def test_the_place_of_the_data_may_change_for_its_fingerprint_decides(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", {"data": "/here/parts.zip"})
    storage.write_json(run.folder / "data.json", {})
    assert open_run(tmp_path / "run", {"data": "/there/copy"}).settings.data == "/there/copy"
    assert open_run(tmp_path / "run", {}).settings.data == "parts.zip"
    assert "here" not in (tmp_path / "run" / "settings.json").read_text()


def test_create_finds_the_run_of_equal_settings_and_numbers_another(own_home: Path) -> None:
    first = create(presets.resolve({"seed": 1}))
    other = create(presets.resolve({"seed": 1, "rotation": True}))
    assert first.folder == own_home / "runs" / "demo-clean-seed1"
    assert other.folder.name == "demo-clean-seed1-2"
    assert create(presets.resolve({"seed": 1})).folder == first.folder
    assert create(presets.resolve({"seed": 1, "rotation": True})).folder == other.folder


def test_create_finds_its_run_among_numbers_with_gaps_and_passes_over_longer_names(
    own_home: Path,
) -> None:
    wanted = presets.resolve({"seed": 1, "rotation": True})
    open_run(own_home / "runs" / "demo-clean-seed1-3", asdict(wanted))
    storage.write_json(own_home / "runs" / "demo-clean-seed12" / "settings.json", {"new": 1})
    assert create(wanted).folder.name == "demo-clean-seed1-3"
    assert create(presets.resolve({"seed": 1})).folder.name == "demo-clean-seed1"


def test_create_goes_on_with_the_run_opened_last_whatever_it_is_called(own_home: Path) -> None:
    """As after `run --data /path/parts --out runs/parts`, of which settings.json keeps "parts"."""
    wanted = presets.resolve({"preset": "cpu", "data": "/path/parts"})
    named = open_run(own_home / "runs" / "parts", asdict(wanted))
    assert create(last_settings()).folder == named.folder
    assert create(presets.resolve({"preset": "cpu", "seed": 9})).folder.name != "parts"


def test_a_new_named_folder_starts_from_the_run_opened_last(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = create(presets.resolve({"preset": "cpu", "segmentation_steps": 7}))
    monkeypatch.setenv("KSDD_RUN", str(own_home / "runs" / "second"))
    assert last_settings() == last.settings


def test_create_brings_a_run_from_elsewhere_before_it_makes_one(own_home: Path) -> None:
    wanted, asked = presets.resolve({"seed": 1}), []

    def bring(settings: Settings) -> Path | None:
        asked.append(settings)
        return open_run(own_home / "runs" / "brought", asdict(settings)).folder

    assert create(wanted, bring=lambda settings: None).folder.name == "demo-clean-seed1"
    other = presets.resolve({"seed": 2})
    assert create(other, bring=bring).folder.name == "brought" and asked == [other]
    assert create(other, bring=bring).folder.name == "brought" and asked == [other], "it is here"


def test_create_in_a_named_folder_refuses_another_run(tmp_path: Path) -> None:
    run = create(presets.resolve({"seed": 1}), tmp_path / "mine")
    assert run.folder == tmp_path / "mine"
    storage.write_json(run.folder / "data.json", {})
    with pytest.raises(RunError, match="seed is 1 there, 2 here"):
        create(presets.resolve({"seed": 2}), tmp_path / "mine")


def test_create_finds_a_run_that_a_later_notebook_has_amended() -> None:
    first = create(presets.resolve({"seed": 1}))
    first.amend({"segmentation_steps": 50})
    again = create(presets.resolve({"seed": 1}))
    assert again.folder == first.folder and again.settings.segmentation_steps == 50


def test_resume_continues_the_run_opened_last() -> None:
    one, two = (presets.resolve({"seed": seed}) for seed in (1, 2))
    first, second = create(one), create(two)
    assert resume().folder == second.folder and last_settings() == two
    create(one)
    assert resume().folder == first.folder
    storage.write_json(first.folder / "data.json", {})
    assert resume({"seed": 1}).settings == first.settings
    with pytest.raises(RunError, match="seed is 1 there, 2 here"):
        resume({"seed": 2})


def test_resume_without_a_run_says_what_to_run_first() -> None:
    with pytest.raises(RunError, match="run 01_download_data.ipynb first"):
        resume()


def test_the_environment_names_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSDD_RUN", str(run.folder))
    storage.write_json(run.folder / "data.json", {})
    assert resume().settings == run.settings
    monkeypatch.setenv("KSDD_SEED", "9")
    with pytest.raises(RunError, match="seed is 3 there, 9 here"):
        resume()


@pytest.mark.parametrize("content", ['{"preset": "demo", ', '{"of_a_later_version": 1}'])
def test_a_run_that_cannot_be_read_is_passed_over_by_name(own_home: Path, content: str) -> None:
    wanted = presets.resolve({})
    first = create(wanted)
    storage.write_text(first.folder / "settings.json", content)
    with pytest.warns(
        UserWarning, match=f"Passed over: The settings.json in {first.folder.name} is"
    ):
        assert last_settings() is None
    with pytest.warns(
        UserWarning, match=f"Passed over: The settings.json in {first.folder.name} is"
    ):
        second = create(wanted)
    assert second.folder.name == f"{run_name(wanted)}-2"
    assert (first.folder / "settings.json").read_text() == content
    assert create(wanted).folder == second.folder


def test_a_run_named_with_umlauts_is_found_again(own_home: Path) -> None:
    begun = open_run(own_home / "runs" / "prüfung", {"seed": 3})
    assert resume({}).folder == begun.folder
