"""One schema: every value is checked, every source has its place in the precedence."""

import json
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from ksdd_lib import presets, settings_io
from ksdd_lib.errors import SettingsError
from ksdd_lib.image_size import size_like
from ksdd_lib.presets import PRESETS, run_name
from ksdd_lib.settings import RULES, TYPES, Settings

NAMES = [f.name for f in fields(Settings)]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_type_a_group_a_reason_and_a_range(name: str) -> None:
    rule = RULES[name]
    assert TYPES[name] in (str, int, float, bool)
    assert rule.group in ("data", "segmentation", "decision", "run", "evaluation")
    assert len(rule.reason) > 20 and rule.unit
    if TYPES[name] in (int, float):
        assert rule.low is not None and rule.high is not None and rule.low < rule.high
    elif TYPES[name] is str:
        assert len(rule.choices) > 1 or rule.form != "text" or name == "data"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("preset", "fast", "demo, cpu, best, paper"),
        ("method", "dark", "two_stage, darkest_pixel, local_contrast"),
        ("data", "", "text"),
        ("data", None, "str"),
        ("generated_items", 5, "from 6 to 500"),
        ("generated_items", 501, "from 6 to 500"),
        ("generated_items", 12.0, "int"),
        ("generated_items", True, "int"),
        ("image_size", "704", "HEIGHTxWIDTH"),
        ("image_size", "700x256", "704x256"),
        ("image_size", "112x256", "128x256"),
        ("image_size", "8192x256", "4096x256"),
        ("fit", "squeeze", "stretch, pad"),
        ("region", "", "x,y,width,height"),
        ("region", "the part", "none, part"),
        ("region", "1,2,30", "x,y,width,height"),
        ("region", "0,0,15,200", "from 16 on"),
        ("region", "-1,0,150,200", "x,y,width,height"),
        ("tile_size", "", "HEIGHTxWIDTH"),
        ("tile_size", "some", "HEIGHTxWIDTH"),
        ("tile_size", "100", "divisible by 16"),
        ("tile_size", "64x512", "128x512"),
        ("folds", "random", "clean, official"),
        ("fold", "3", "all, 0, 1, 2"),
        ("fold", 0, "str"),
        ("seed", -1, "from 0"),
        ("seed", 2**31, "from 0"),
        ("precision", "float64", "auto, float32, bfloat16, float16"),
        ("annotation", "dilated4", "fine, dilated5"),
        ("segmentation_loss", "dice", "cross_entropy, mean_squared_error"),
        ("rotation", 1, "bool"),
        ("rotation", "yes", "bool"),
        ("initialization", "xavier", "normal, kaiming"),
        ("expected_defect_share", 0.6, "from 0.0001 to 0.5"),
        ("segmentation_steps", 0, "from 1 to"),
        ("decision_batch_size", 65, "from 1 to 64"),
        ("segmentation_optimizer", "adam", "sgd, adamw"),
        ("segmentation_learning_rate", 0.0, "from 1e-06 to 10"),
        ("decision_learning_rate", 11, "from 1e-06 to 10"),
        ("decision_learning_rate", math.nan, "from 1e-06 to 10"),
        ("decision_learning_rate", "0.1", "float"),
        ("copy_paste", True, "float"),
        ("decision_schedule", "cosine", "constant, one_cycle"),
        ("checkpoint_steps", 0, "from 1 to"),
    ],
)
@pytest.mark.fault(29)
@pytest.mark.fault(13)
def test_an_invalid_value_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: Any, allowed: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings(**{name: value})
    assert name in str(refusal.value) and allowed in str(refusal.value)


def test_a_whole_number_will_do_for_a_setting_with_a_point() -> None:
    assert Settings(paste_turn=45).paste_turn == 45.0
    assert settings_io.to_json(Settings(copy_paste=1)) == settings_io.to_json(
        Settings(copy_paste=1.0)
    )


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="no setting 'sed': did you mean seed"):
        Settings().with_values({"sed": 1})


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().seed = 1  # type: ignore[misc]


def test_a_size_is_written_in_one_way() -> None:
    assert Settings(image_size=" 704 \u00d7 256 ").image_size == "704x256"
    assert Settings(image_size="704x256").size == (704, 256)


def test_a_tile_is_what_the_network_sees_and_one_number_makes_a_square():
    for text in ("256", "256x256", " 256 \u00d7 256 "):
        settings = Settings(tile_size=text)
        assert settings.tile_size == "256x256" and settings.size == (256, 256)
        assert settings.view.tiled
    assert not Settings(tile_size="none").view.tiled and Settings().tile_size == "none"


def test_fold_numbers_are_the_folds_to_train() -> None:
    assert Settings(fold="all").fold_numbers == (0, 1, 2)
    assert Settings(fold="2").fold_numbers == (2,)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rotation", "1", True),
        ("rotation", "False", False),
        ("seed", " 7 ", 7),
        ("segmentation_learning_rate", "1e-3", 0.001),
        ("fold", "0", "0"),
        ("data", "/data/a b.zip", "/data/a b.zip"),
    ],
)
def test_text_becomes_the_type_of_the_setting(name: str, text: str, value: Any) -> None:
    assert settings_io.from_assignments([f"{name}={text}"]) == {name: value}
    assert settings_io.from_environment({f"KSDD_{name.upper()}": text}) == {name: value}


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("seed=one", "seed is 'one'.*from 0"),
        ("seed=1.5", "seed is '1.5'.*from 0"),
        ("rotation=maybe", "yes or no"),
        ("speed=1", "no setting 'speed'.*image_size"),
        ("seed", "FIELD=VALUE"),
    ],
)
@pytest.mark.fault(29)
def test_an_assignment_that_cannot_be_read_is_refused(assignment: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        settings_io.from_assignments([assignment])


def test_a_value_may_hold_an_equals_sign() -> None:
    link = "https://drive.google.com/uc?id=abc"
    assert settings_io.from_assignments([f"data={link}"]) == {"data": link}


def test_an_unknown_environment_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="KSDD_SEEED"):
        settings_io.from_environment({"KSDD_SEEED": "1"})


def test_places_and_foreign_names_in_the_environment_are_no_settings() -> None:
    places = {"KSDD_RUN": "/a", "KSDD_HOME": "/b", "KSDD_ARCHIVE": "/c", "KSDD_DRIVE": "/d"}
    places |= {"KSDD_TAKE_OVER": "1"}
    assert settings_io.from_environment(places | {"HOME": "/root", "PATH": "/bin"}) == {}


def test_precedence_is_defaults_preset_environment_assignment() -> None:
    environment = settings_io.from_environment(
        {"KSDD_PRESET": "cpu", "KSDD_SEED": "3", "KSDD_SEGMENTATION_STEPS": "10"}
    )
    settings = presets.resolve(environment | settings_io.from_assignments(["seed=4"]))
    assert settings.decision_steps == PRESETS["cpu"]["decision_steps"]  # of the preset
    assert settings.segmentation_steps == 10  # the environment wins over the preset
    assert settings.seed == 4  # the assignment wins over the environment
    assert settings.annotation == Settings.annotation  # a default


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_differs_from_the_defaults_only_where_it_says(
    preset: str,
) -> None:
    values = settings_io.to_json(presets.resolve({"preset": preset}))
    expected = settings_io.to_json(Settings()) | {"preset": preset} | PRESETS[preset]
    assert values == expected


def test_a_switch_may_be_said_in_words():
    for words, value in ((("1", "yes", "True"), True), (("0", "no", "false"), False)):
        assert [settings_io.convert("rotation", word) for word in words] == [value] * 3


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingsError, match="demo, cpu, best, paper"):
        presets.resolve({"preset": "fast"})


def test_the_paper_preset_is_the_recipe_of_2019() -> None:
    paper = settings_io.to_json(presets.resolve({"preset": "paper"}))
    recipe = {
        "data": "kolektorsdd",
        "image_size": "1408x512",
        "annotation": "dilated5",
        "segmentation_loss": "cross_entropy",
        "rotation": False,
        "initialization": "normal",
        "expected_defect_share": 0.5,
        "weight_averaging": True,
        "segmentation_steps": 6600,
        "segmentation_batch_size": 1,
        "segmentation_optimizer": "sgd",
        "segmentation_learning_rate": 0.1,
        "segmentation_schedule": "constant",
        "decision_steps": 6600,
        "decision_batch_size": 1,
        "decision_optimizer": "sgd",
        "decision_learning_rate": 0.1,
        "decision_schedule": "constant",
    }
    assert {name: paper[name] for name in recipe} == recipe


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_come_back_from_json(preset: str) -> None:
    settings = presets.resolve({"preset": preset, "seed": 5})
    stored = json.loads(json.dumps(settings_io.to_json(settings)))
    assert settings_io.from_json(stored) == settings


def test_stored_settings_of_another_version_are_refused_by_field() -> None:
    stored = settings_io.to_json(Settings())
    with pytest.raises(SettingsError, match="dropout"):
        settings_io.from_json(stored | {"dropout": 0.5})


@pytest.mark.fault(85)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_from_before_thresholds_had_a_choice_keeps_best_f1(preset: str) -> None:
    stored = settings_io.to_json(presets.resolve({"preset": preset}))
    assert settings_io.from_json(stored).threshold == "medians"
    del stored["threshold"]
    assert settings_io.from_json(stored).threshold == "best_f1"
    for rule in ("zero", "medians"):
        assert settings_io.from_json(stored | {"threshold": rule}).threshold == rule


def test_a_setting_that_is_newer_than_the_stored_ones_has_its_default() -> None:
    stored = settings_io.to_json(presets.resolve({"preset": "cpu", "seed": 3}))
    for name in ("partition", "score", "twins", "method"):
        del stored[name]
    restored = settings_io.from_json(stored)
    assert (restored.partition, restored.score, restored.seed) == (0, "decision", 3)
    assert (restored.twins, restored.method) == ("similar", "two_stage")


@pytest.mark.parametrize(
    "together",
    [
        {"score": "both", "segmentation_loss": "mean_squared_error"},
        {"copy_paste": 0.5, "annotation": "box"},
        {"copy_paste": 0.1, "annotation": "dilated17"},
        {"folds": "official", "twins": "identical"},
    ],
)
@pytest.mark.fault(29)
def test_settings_that_make_no_sense_together_are_refused_with_what_to_take(together) -> None:
    with pytest.raises(SettingsError, match=": take "):
        presets.resolve({"preset": "paper"} | together)


@pytest.mark.parametrize("data", ["/home/ann/KolektorSDD.zip", "~/data/parts/", "../parts"])
def test_no_place_of_this_machine_is_stored(data: str) -> None:
    stored = settings_io.to_json(Settings(data=data))["data"]
    assert "/" not in stored and stored in data


@pytest.mark.parametrize(
    "picture, area, size",
    [
        ((1080, 1920), 704 * 256, (320, 560)),
        ((1260, 500), 192 * 128, (320, 128)),
        ((100, 100), 704 * 256, (432, 432)),
    ],
)
def test_a_size_keeps_a_pictures_shape_at_about_an_area_and_is_allowed(picture, area, size) -> None:
    assert size_like(*picture, area) == size
    assert presets.resolve({"image_size": "{}x{}".format(*size)}).size == size


def test_differences_are_named_with_both_values() -> None:
    settings = Settings(seed=1, data="/here/parts.zip")
    assert settings_io.differences(settings, {"seed": 1, "data": "/there/parts.zip"}) == {}
    assert settings_io.differences(settings, {"seed": 2, "rotation": True}) == {
        "seed": (1, 2),
        "rotation": (False, True),
    }


def test_a_run_is_named_by_what_makes_it_another_experiment():
    assert run_name(presets.resolve({"preset": "cpu", "seed": 1})) == "cpu-clean-seed1"
    other = {"preset": "cpu", "partition": 1, "defective_images": 5}
    assert run_name(presets.resolve(other)) == "cpu-clean-partition1-5defective-seed0"
    assert run_name(presets.resolve({"twins": "identical"})) == "demo-clean-identical-seed0"
    rule = presets.resolve({"method": "darkest_pixel"})
    assert run_name(rule) == "demo-darkest_pixel-clean-seed0"
    larger = {"preset": "cpu", "image_size": "1056x384", "data": "/home/ann/My parts.zip"}
    assert run_name(presets.resolve(larger)) == "cpu-my-parts-1056x384-clean-seed0"
    assert run_name(presets.resolve({"preset": "cpu", "score": "mask"})) == "cpu-mask-clean-seed0"
    turned = {"preset": "cpu", "paste_turn": 45.0}
    assert run_name(presets.resolve(turned)) == "cpu-turn45-clean-seed0"
    assert (
        run_name(presets.resolve({"data": "KolektorSDD2.zip"})) == "demo-kolektorsdd2-clean-seed0"
    )
    known = ("kolektorsdd", "/x/KolektorSDD.zip;kolektorsdd", "https://drive.google.com/file/d/1/")
    assert {run_name(presets.resolve({"data": name})) for name in known} == {"demo-clean-seed0"}


def test_a_preset_that_turns_may_be_told_to_paste_nothing() -> None:
    assert presets.resolve({"preset": "best", "copy_paste": 0.0}).copy_paste == 0
