"""Named sets of values to start from, and what a run that began with one is called."""

import re
from pathlib import PurePath

from ksdd_lib.setting_rules import Value, Values
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import data_name, differences, to_json

BASIC = (
    "preset data image_size folds fold seed annotation segmentation_steps decision_steps".split()
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

NAMED = {
    "method": "{}",
    "image_size": "{}",
    "fit": "{}",
    "region": "region",
    "tile_size": "tiles{}",
}
NAMED |= {"labels": "labels-{}", "masks": "masks-{}", "drawn": "drawn{:g}"}
NAMED |= {"score": "{}", "paste_turn": "turn{:g}", "mask_norm": "plain-mask"}
NAMED |= {"held_out": "held{:g}"}
"""Settings that a run's name holds where they are not the preset's, and how."""


def resolve(given: Values) -> Settings:
    """Settings from the defaults, the preset's values, and `given`; raises as `Settings`."""
    preset = given.get("preset", Settings.preset)
    return Settings().with_values({"preset": preset} | PRESETS.get(str(preset), {}) | dict(given))


def run_name(settings: Settings) -> str:
    """What a run is called: "cpu-clean-seed0", or with data of one's own and what is not the
    preset's: "cpu-parts-1056x384-mask-turn45-clean-5defective-seed0"."""
    changed = changes(settings)
    parts = [settings.preset, _own_data(data_name(settings.data))]
    parts += [form.format(changed[name]) for name, form in NAMED.items() if name in changed]
    parts += [settings.folds, settings.twins if settings.twins != "similar" else ""]
    parts += [f"partition{settings.partition}" if settings.partition else ""]
    parts += [f"{settings.defective_images}defective" if settings.defective_images else ""]
    return "-".join(filter(None, [*parts, f"seed{settings.seed}"]))


def changes(settings: Settings) -> dict[str, Value]:
    """The values that are not the preset's; the data source does not count."""
    usual = resolve({"preset": settings.preset})
    return {name: ours for name, (_, ours) in differences(usual, to_json(settings)).items()}


def _own_data(name: str) -> str:
    """The data's name as part of a run's: "my-parts" of "My parts.zip"; "" of the known sets."""
    first = name.partition(";")[0].lower()
    if first == "generated" or re.match(r"kolektorsdd(?!2)|drive:", first):
        return ""
    return re.sub(r"[^a-z0-9]+", "-", PurePath(first).stem).strip("-")[:24]
