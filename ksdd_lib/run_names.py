"""What a run is called: by its preset, and by what makes it another experiment."""

import re
from pathlib import PurePath

from ksdd_lib.presets import resolve
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.settings_io import data_name

BEFORE_FOLDS = {
    "method": "{}",
    "image_size": "{}",
    "score": "{}",
    "paste_turn": "turn{:g}",
}
"""Settings that a name holds where they are not the preset's, and how."""

NAMED = (*BEFORE_FOLDS, "folds", "fold", "twins", "partition", "defective_images", "seed")
"""What tells results of one preset apart: a run's name has it, or its results name each fold."""

HARMLESS = ("preset", "data", "checkpoint_steps", "precision")
"""Settings that change no score, or that the data and the preset's name tell."""


def run_name(settings: Settings) -> str:
    """What a run is called, for example "cpu-clean-seed0".

    The name also holds data of one's own, few defects, and a method, size, score or turning that
    is not the preset's: "cpu-parts-1056x384-mask-turn45-clean-5defective-seed0".
    """
    usual = resolve({"preset": settings.preset})
    parts = [settings.preset, _own_data(data_name(settings.data))]
    for name, form in BEFORE_FOLDS.items():
        value = getattr(settings, name)
        parts.append(form.format(value) if value != getattr(usual, name) else "")
    parts += [settings.folds, settings.twins if settings.twins != "similar" else ""]
    parts += [f"partition{settings.partition}" if settings.partition else ""]
    parts += [f"{settings.defective_images}defective" if settings.defective_images else ""]
    return "-".join(filter(None, [*parts, f"seed{settings.seed}"]))


def unnamed(settings: Settings) -> list[str]:
    """The settings that differ from the preset and change scores, but are not in `run_name`."""
    usual = resolve({"preset": settings.preset})
    passed_over = {*HARMLESS, *NAMED}
    if settings.data != "generated":
        passed_over |= {"generated_items"}
    if not settings.copy_paste:
        passed_over |= {"decision_copy_paste"}
    groups = {"data", "run"}
    if settings.method == "two_stage":  # with the score of the mask, the second stage is not asked
        groups |= {"segmentation"} if settings.score == "mask" else {"segmentation", "decision"}
    return [
        name
        for name, rule in RULES.items()
        if rule.group in groups and name not in passed_over
        if getattr(settings, name) != getattr(usual, name)
    ]


def _own_data(name: str) -> str:
    """The data's name as part of a run's: "my-parts" of "My parts.zip"; "" of the known sets."""
    first = name.partition(";")[0].lower()
    if first == "generated" or re.match(r"kolektorsdd(?!2)|drive:", first):
        return ""
    return re.sub(r"[^a-z0-9]+", "-", PurePath(first).stem).strip("-")[:24]
