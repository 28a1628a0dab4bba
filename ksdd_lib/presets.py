"""Named sets of values to start from, and which settings a newcomer looks at first."""

from ksdd_lib.settings import Settings, Value, Values

BASIC = (
    "preset",
    "data",
    "image_size",
    "folds",
    "fold",
    "seed",
    "annotation",
    "segmentation_steps",
    "decision_steps",
)
"""Settings that a newcomer looks at first; the widgets fold the others away."""

FAST: dict[str, Value] = {
    "image_size": "704x256",
    "initialization": "kaiming",
    "expected_defect_share": 0.01,
    "flips": True,
    "average_flips": True,
    "weight_averaging": False,
    "segmentation_batch_size": 2,
    "segmentation_optimizer": "adamw",
    "segmentation_learning_rate": 1e-3,
    "segmentation_schedule": "one_cycle",
    "decision_batch_size": 8,
    "decision_optimizer": "adamw",
    "decision_learning_rate": 1e-3,
    "decision_schedule": "one_cycle",
    "checkpoint_steps": 50,
}
"""The recipe with AdamW, which all presets but the published one build on."""

TUNED: dict[str, Value] = FAST | {"data": "kolektorsdd", "copy_paste": 0.5, "score": "both"}

PRESETS: dict[str, dict[str, Value]] = {
    "paper": {"data": "kolektorsdd"},
    "cpu": TUNED | {"segmentation_steps": 400, "decision_steps": 250},
    "best": TUNED
    | {
        "paste_turn": 45.0,
        "decision_copy_paste": False,
        "segmentation_steps": 800,
        "decision_steps": 1000,
    },
    "demo": FAST | {"image_size": "192x128", "segmentation_steps": 100, "decision_steps": 150},
}
"""Preset name -> the settings in which it differs from the defaults."""


def resolve(given: Values) -> Settings:
    """Settings from some values: the defaults, then those of the preset, then `given`.

    Raises:
        SettingsError: a name is unknown, a value is not allowed, or two do not go together.
    """
    preset = given.get("preset", Settings.preset)
    return Settings().with_values({"preset": preset} | PRESETS.get(str(preset), {}) | dict(given))
