"""A run is found by its settings and its folder, keeps them, and knows what comes next."""

from dataclasses import asdict
from pathlib import Path

import pytest

from ksdd_lib import presets, settings_io, storage
from ksdd_lib.errors import RunError
from ksdd_lib.presets import run_name
from ksdd_lib.runs import lock
from ksdd_lib.runs.open import create, last_settings, open_run, resume
from ksdd_lib.runs.prepare import open_data, prepare_data
from ksdd_lib.runs.run import NOTEBOOKS, Run
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


def begin(run: Run, stage: str) -> None:
    storage.write_text(run.fold_folder(0) / f"{stage}.jsonl", "")


def test_settings_may_change_until_a_stage_has_used_them(run: Run) -> None:
    amended = run.amend({"segmentation_steps": 7, "decision_steps": 9})
    assert open_run(run.folder, {}).settings == amended.settings
    assert (amended.settings.segmentation_steps, amended.settings.decision_steps) == (7, 9)


def test_settings_of_a_stage_that_has_begun_are_fixed(run: Run) -> None:
    begin(run, "segmentation")
    for name, value in {"segmentation_steps": 7, "annotation": "box", "seed": 4}.items():
        with pytest.raises(RunError, match=name):
            run.amend({name: value})
    assert run.amend({"decision_steps": 9}).settings.decision_steps == 9
    begin(run, "decision")
    with pytest.raises(RunError, match="decision_steps"):
        run.amend({"decision_steps": 8})
    assert open_run(run.folder, {}).settings.decision_steps == 9


def test_data_settings_are_fixed_once_the_data_is_there(run: Run) -> None:
    assert run.amend({"image_size": "128x128"}).settings.size == (128, 128)
    storage.write_json(run.folder / "data.json", {})
    with pytest.raises(RunError, match="image_size"):
        run.amend({"image_size": "512x256"})


def test_a_stage_of_any_name_fixes_the_settings_of_the_whole_run(run: Run) -> None:
    storage.write_text(run.fold_folder(0) / ".first_stage.jsonl.1.tmp", "")
    assert not run.has_begun("run")
    begin(run, "first_stage")
    assert run.has_begun("run") and run.has_begun("first_stage")
    assert not run.has_begun("decision")


def test_touching_a_fixed_setting_without_changing_it_is_welcome(run: Run) -> None:
    begin(run, "segmentation")
    assert run.amend({"seed": 3}).settings == run.settings


def test_a_missing_part_names_the_notebook_that_makes_it(run: Run) -> None:
    for part, notebook in NOTEBOOKS.items():
        assert not run.has(part)
        with pytest.raises(RunError, match=f"no finished {part} yet: run {notebook}.ipynb first"):
            run.require(part)


def test_a_missing_stage_is_to_be_trained_first(run: Run) -> None:
    with pytest.raises(RunError, match="The run run has no finished first_stage yet: train it"):
        run.require("first_stage")
    with pytest.raises(RunError, match="no finished first_stage yet: run 02_train.ipynb first"):
        run.require("first_stage", "02_train")


def test_a_stage_that_diverged_says_where(run: Run) -> None:
    mark = {"stage": "first_stage", "fold": 0, "step": 7, "images": ["kos01/Part1", "kos02/Part3"]}
    storage.write_json(run.folder / "fold0/first_stage.diverged.json", mark)
    with pytest.raises(RunError, match=r"fold 0 diverged at step 7 \(kos01/Part1, kos02/Part3\)"):
        run.require("first_stage")


@pytest.mark.fault(20)
def test_a_stage_is_finished_when_all_its_folds_are(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", {"fold": "all"})
    for fold in (0, 1):
        storage.write_json(run.fold_folder(fold) / "segmentation.done.json", {})
    assert run.has("segmentation", 1) and not run.has("segmentation", 2)
    assert not run.has("segmentation")
    storage.write_json(run.fold_folder(2) / "segmentation.done.json", {})
    assert run.has("segmentation") and not run.has("decision")


def test_timing_keeps_one_line_for_each_thing(run: Run) -> None:
    run.note_time("segmentation stage, fold 0", 2.04)
    run.note_time("decision stage, fold 0", 1)
    run.note_time("segmentation stage, fold 0", 3)
    assert storage.read_json(run.folder / "timing.json") == [
        {"what": "decision stage, fold 0", "seconds": 1},
        {"what": "segmentation stage, fold 0", "seconds": 3},
    ]


# A folder of runs, or a run in it, that is a link


@pytest.fixture(params=["runs", "run", "home", "plain", "both"])
def linked_home(request: pytest.FixtureRequest, tmp_path: Path, own_home: Path) -> Path:
    """A home in which something is a link to elsewhere, as to a larger disk."""
    kind, far = request.param, tmp_path / "far"
    if kind == "home":
        far.mkdir()
        own_home.symlink_to(far)
    if kind in ("runs", "both"):
        (far / "runs").mkdir(parents=True)
        own_home.mkdir()
        (own_home / "runs").symlink_to(far / "runs")
    if kind in ("run", "both"):
        (far / "elsewhere").mkdir(parents=True)
        (own_home / "runs").mkdir(parents=True, exist_ok=True)
        (own_home / "runs" / "demo-clean-seed2").symlink_to(far / "elsewhere")
    return own_home


@pytest.mark.fault(54)
def test_notebook_2_trains_the_run_that_notebook_1_chose(linked_home: Path) -> None:
    for seed in (1, 2, 1, 2):
        chosen = create(presets.resolve({"seed": seed}))
        assert resume().folder == chosen.folder and resume().settings.seed == seed
        assert last_settings() == chosen.settings
    assert len(list((linked_home / "runs").glob("*/settings.json"))) == 2


@pytest.mark.fault(54)
def test_a_run_that_is_named_by_its_folder_is_the_last_one(
    linked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(presets.resolve({"seed": 1}))
    place = linked_home / "runs" / "demo-clean-seed2"
    create(presets.resolve({"seed": 2}), place)
    monkeypatch.chdir(tmp_path)
    for named in (place, place.relative_to(tmp_path), place.parent.resolve() / place.name):
        assert resume().settings.seed == 2
        create(presets.resolve({"seed": 1}))
        assert resume().settings.seed == 1
        open_run(named)
    assert resume().settings.seed == 2
    outside = open_run(tmp_path / "outside" / "demo-clean-seed2")
    assert resume().folder != outside.folder


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b" \n", b"..", b".", b"../other", b"/etc", b"a\x00b", b"gone"]
)
def test_a_latest_txt_that_names_no_run_here_is_no_last_run(own_home: Path, content: bytes) -> None:
    run = create(presets.resolve({"seed": 1}))
    open_run(own_home.parent / "other")
    storage.write_json(own_home / "settings.json", storage.read_json(run.folder / "settings.json"))
    (own_home / "runs" / "latest.txt").write_bytes(content)
    assert last_settings() is None
    with pytest.raises(RunError, match="There is no run yet"):
        resume()
    assert create(presets.resolve({"seed": 1})).folder == run.folder


# Two people in one folder before its data is there


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    "other", [{"seed": 4}, {"partition": 3}, {"image_size": "128x128"}, {"decision_steps": 9}]
)
def test_settings_that_another_has_changed_meanwhile_make_no_data(
    run: Run, other: dict[str, int | str]
) -> None:
    theirs = open_run(run.folder, other)
    [name] = other
    with pytest.raises(RunError, match=f"{name} is .* there, .* here"):
        prepare_data(run)
    assert not (run.folder / "data.json").exists() and not (run.folder / "folds.json").exists()
    with pytest.raises(RunError, match=f"{name} is .* there, .* here"):
        run.amend({"segmentation_steps": 3})
    prepare_data(theirs)
    for work in (prepare_data, open_data):
        with pytest.raises(RunError, match=f"{name} is .* there, .* here"):
            work(run)
    assert open_run(run.folder).settings == theirs.settings


@pytest.mark.fault(55)
def test_settings_are_chosen_once_more_when_the_folder_is_ours(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has prepared the data since they were looked at."""
    plain = lock.claim

    def claim(folder: Path) -> bool:
        (folder / "data.json").write_text("{}")
        return plain(folder)

    monkeypatch.setattr(lock, "claim", claim)
    with pytest.raises(RunError, match="seed is 3 there, 4 here"):
        open_run(run.folder, {"seed": 4})
    assert storage.read_json(run.folder / "settings.json")["seed"] == 3


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition", 3),
        ("twins", "identical"),
        ("image_size", "128x128"),
        ("generated_items", 7),
        ("defective_images", 2),
    ],
)
def test_data_and_folds_that_other_settings_have_made_are_not_opened(
    run: Run, name: str, value: int | str
) -> None:
    prepare_data(run)
    path = run.folder / "settings.json"
    storage.write_json(path, storage.read_json(path) | {name: value})
    with pytest.raises(RunError, match=f"{name} is .* there, {value!r} here"):
        open_data(open_run(run.folder))


@pytest.mark.fault(55)
def test_folds_of_another_protocol_are_not_opened(run: Run) -> None:
    prepare_data(run)
    path = run.folder / "folds.json"
    storage.write_json(path, storage.read_json(path) | {"protocol": "official"})
    with pytest.raises(RunError, match="folds is 'official' there, 'clean' here"):
        open_data(run)


def test_data_of_an_earlier_version_which_did_not_note_settings_is_opened(run: Run) -> None:
    data = prepare_data(run)
    path = run.folder / "data.json"
    record = storage.read_json(path)
    del record["made_with"]
    storage.write_json(path, record)
    assert open_data(open_run(run.folder)).folds == data.folds


@pytest.mark.fault(85)
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("rule", ["best_f1", "zero", None])
def test_a_run_that_is_found_again_keeps_its_rule_of_thresholds(own_home, is_named, rule):
    """Also one from before there was a choice; told otherwise in words it is refused."""
    wanted = presets.resolve({"seed": 1})
    run = create(wanted)
    stored = settings_io.to_json(run.settings) | {"threshold": rule}
    stored = {name: value for name, value in stored.items() if value is not None}
    storage.write_json(run.folder / "settings.json", stored)
    storage.write_json(run.folder / "data.json", {})
    found = create(wanted, run.folder if is_named else None)
    assert found.folder == run.folder
    assert found.settings.threshold == (rule or "best_f1")
    with pytest.raises(RunError, match=f"threshold is '{rule or 'best_f1'}' there, 'medians' here"):
        open_run(run.folder, {"threshold": "medians"})
