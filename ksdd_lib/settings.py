"""One typed schema of every hyperparameter.

It feeds the widgets, the environment (`KSDD_<FIELD>`), the command line (`--set FIELD=VALUE`), the
`settings.json` beside every result, and the report. Precedence: defaults < preset < environment <
`--set`; widgets start from that result and win only where they were touched.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

from ksdd_lib.errors import SettingsError
from ksdd_lib.image_size import parse_size

GROUPS = ("data", "segmentation", "decision", "run")
"""What a setting belongs to: a group is fixed in a run as soon as a stage has begun with it."""

RESERVED = (
    "KSDD_RUN",
    "KSDD_HOME",
    "KSDD_ARCHIVE",
    "KSDD_DRIVE",
    "KSDD_TAKE_OVER",
    "KSDD_COMMAND",
)
"""Environment names that are no settings: the run folder, the folder that holds data and runs, the
archive that the tests use, the folder that stands for Google Drive, whether to go on with a run
that another machine works on, the command to be recorded."""


@dataclass(frozen=True)
class Rule:
    """What a setting may be: its choices or its inclusive range, its unit, and why it exists."""

    group: str
    reason: str
    unit: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    form: str = "text"

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None:
            low, high = (
                f"{x:,}" if isinstance(x, int) else f"{x:g}" for x in (self.low, self.high)
            )
            return f"from {low} to {high}"
        return self.form


def setting(default: Any, **rule: Any) -> Any:
    """A dataclass field with its rule."""
    return field(default=default, metadata={"rule": Rule(**rule)})


OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("constant", "one_cycle")


CLOSE_ANNOTATIONS = ("fine", "dilated5")
"""Annotation types that hold little but the defect: lifted off its surface with wider ones, texture
came along (up to 11 gray levels of it with a box, against 3 with dilated5)."""


@dataclass(frozen=True)
class Settings:
    """Every hyperparameter of a run. The defaults are the recipe of 2019, on generated surfaces."""

    preset: str = setting(
        "demo",
        group="run",
        unit="name",
        choices=("demo", "cpu", "best", "paper"),
        reason="a named set of values to start from",
    )
    data: str = setting(
        "generated",
        group="data",
        unit="source",
        reason='"generated" surfaces, "kolektorsdd" (looked for here, in Drive, then downloaded), '
        "or a folder, a zip archive, an https address, a Google Drive link",
    )
    generated_items: int = setting(
        12,
        group="data",
        low=6,
        high=500,
        unit="items",
        reason="how many commutators of 8 surfaces each to generate; unused with real data",
    )
    image_size: str = setting(
        "1408x512",
        group="data",
        unit="pixels, height x width",
        form="HEIGHTxWIDTH",
        reason="the network's input; both sides divisible by 16 and at least 128. 1408x512 and "
        "704x256 are the two studied; cost grows with the area",
    )
    folds: str = setting(
        "clean",
        group="data",
        unit="protocol",
        choices=("clean", "official"),
        reason="clean keeps each physical part on one side of a split; official are the published "
        "folds of KolektorSDD, which leak",
    )
    twins: str = setting(
        "similar",
        group="data",
        unit="rule",
        choices=("similar", "identical"),
        reason="which items count as one part: those whose pictures look alike once aligned, or "
        "only those that share a file byte for byte; take identical where different parts are "
        "photographed so alike",
    )
    partition: int = setting(
        0,
        group="data",
        unit="number",
        low=0,
        high=2**31 - 1,
        reason="another number shares the items of the clean folds out anew; 0 are the fixed ones",
    )
    defective_images: int = setting(
        0,
        group="data",
        unit="images of each fold's training part",
        low=0,
        high=1_000_000,
        reason="how few defective images will do: keep at most this many, drawn by the seed; "
        "0 keeps all. The good images all stay",
    )
    fold: str = setting(
        "all",
        group="run",
        unit="fold number",
        choices=("all", "0", "1", "2"),
        reason="which of the three folds to train and judge",
    )
    seed: int = setting(
        0,
        group="run",
        unit="integer",
        low=0,
        high=2**31 - 1,
        reason="first weights, the order of the images, what is pasted where, which few defective "
        "images are kept; another seed is another experiment",
    )
    precision: str = setting(
        "auto",
        group="run",
        unit="type of number",
        choices=("auto", "float32", "bfloat16", "float16"),
        reason="arithmetic of the convolutions; auto takes the fastest that the machine really has",
    )
    annotation: str = setting(
        "dilated5",
        group="segmentation",
        unit="pixels of the original image",
        choices=("fine", "dilated5", "dilated9", "dilated13", "dilated17", "box"),
        reason="how generously the defects are outlined, in pixels of the original image",
    )
    segmentation_loss: str = setting(
        "cross_entropy",
        group="segmentation",
        unit="per mask pixel",
        choices=("cross_entropy", "mean_squared_error"),
        reason="what the segmentation network minimises at each mask pixel",
    )
    rotation: bool = setting(
        False,
        group="run",
        unit="yes or no",
        form="1 or 0",
        reason="turn each batch by 0, 90, 180 or 270 degrees: useful where defects have no "
        "preferred direction",
    )
    flips: bool = setting(
        False,
        group="run",
        unit="yes or no",
        form="1 or 0",
        reason="mirror each batch left to right, top to bottom, both or not at all: four views of "
        "each defect, where a mirrored part is as likely as the part",
    )
    copy_paste: float = setting(
        0.0,
        group="run",
        low=0,
        high=1,
        unit="share of the defective images",
        reason="show a defect on a good surface instead of its own, at another height and with 40 "
        "to 100 % of its contrast: many grounds for few defects, and faint ones",
    )
    paste_turn: float = setting(
        0.0,
        group="run",
        low=0,
        high=90,
        unit="degrees at most, either way",
        reason="turn each pasted defect at random: of few cracks most may lie one way, and one at "
        "an angle that was never shown is missed. Unused where copy_paste is 0",
    )
    average_flips: bool = setting(
        False,
        group="run",
        unit="yes or no",
        form="1 or 0",
        reason="score an image as the mean over its four mirror images: steadier, at four times "
        "the time of scoring",
    )
    score: str = setting(
        "decision",
        group="run",
        unit="logit",
        choices=("decision", "mask", "both"),
        reason="what an image is judged by: the decision network as published, the highest value "
        "of the mask, or both: the sum of the two, where one may see what the other misses. None "
        "measures size: a normalised map peaks lower for a larger defect, so a crack that grows on "
        "once it is found can lower each of them",
    )
    initialization: str = setting(
        "normal",
        group="segmentation",
        unit="distribution",
        choices=("normal", "kaiming"),
        reason="first weights: N(0, 0.01) as published, or scaled to each layer (Kaiming)",
    )
    expected_defect_share: float = setting(
        0.5,
        group="segmentation",
        low=1e-4,
        high=0.5,
        unit="share of the mask pixels",
        reason="how likely a defect is to the untrained mask, with cross entropy; 0.5 as published "
        "(no expectation); AdamW needs a small one to begin to learn at all",
    )
    weight_averaging: bool = setting(
        True,
        group="run",
        unit="yes or no",
        form="1 or 0",
        reason="judge by the moving average of the weights instead of the last ones",
    )
    segmentation_steps: int = setting(
        6600,
        group="segmentation",
        low=1,
        high=999_999,
        unit="steps",
        reason="training length of the first stage; 6,600 as published",
    )
    segmentation_batch_size: int = setting(
        1,
        group="segmentation",
        low=1,
        high=64,
        unit="images",
        reason="images per step, defective and good in turn",
    )
    segmentation_optimizer: str = setting(
        "sgd",
        group="segmentation",
        unit="rule",
        choices=OPTIMISERS,
        reason="plain SGD as published, or AdamW, which needs far fewer steps",
    )
    segmentation_learning_rate: float = setting(
        0.1,
        group="segmentation",
        unit="per step",
        low=1e-6,
        high=10,
        reason="step length; published: SGD 0.1 with cross entropy, 0.005 with the squared error",
    )
    segmentation_schedule: str = setting(
        "constant",
        group="segmentation",
        unit="over the steps",
        choices=SCHEDULES,
        reason="constant as published, or one cycle: up over the first 30 %, then down to zero",
    )
    decision_steps: int = setting(
        6600,
        group="decision",
        low=1,
        high=999_999,
        unit="steps",
        reason="training length of the second stage; 6,600 as published",
    )
    decision_batch_size: int = setting(
        1,
        group="decision",
        low=1,
        high=64,
        unit="images",
        reason="images per step, defective and good in turn",
    )
    decision_optimizer: str = setting(
        "sgd",
        group="decision",
        unit="rule",
        choices=OPTIMISERS,
        reason="plain SGD as published, or AdamW, which needs far fewer steps",
    )
    decision_learning_rate: float = setting(
        0.1,
        group="decision",
        unit="per step",
        low=1e-6,
        high=10,
        reason="step length; 0.1 as published for SGD",
    )
    decision_schedule: str = setting(
        "constant",
        group="decision",
        unit="over the steps",
        choices=SCHEDULES,
        reason="constant as published, or one cycle: up over the first 30 %, then down to zero",
    )
    decision_copy_paste: bool = setting(
        True,
        group="decision",
        unit="yes or no",
        form="1 or 0",
        reason="whether copy_paste holds in the second stage too; without, it learns from what the "
        "first says of real defects alone, asked once an image and view: faster a step, and on "
        "the folds that were tuned on good and defective scores lay further apart",
    )
    checkpoint_steps: int = setting(
        200,
        group="run",
        low=1,
        high=100_000,
        unit="steps",
        reason="how often the full state is saved: what is lost at most where the process ends. A "
        "lost machine loses what came after the last copy on Drive, begun every ten minutes",
    )

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            _check(name, getattr(self, name), rule)
        _check_together(self)
        height, width = parse_size(self.image_size)
        object.__setattr__(self, "image_size", f"{height}x{width}")

    @property
    def size(self) -> tuple[int, int]:
        """The network's input, (height, width) in pixels."""
        return parse_size(self.image_size)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds to train and judge."""
        return (0, 1, 2) if self.fold == "all" else (int(self.fold),)

    @property
    def name(self) -> str:
        """What a run is called: "cpu-clean-seed0", or of data of one's own, where size, score or
        turning are not the preset's, with few defects:
        "cpu-parts-1056x384-mask-turn45-clean-5defective-seed0"."""
        usual = resolve({"preset": self.preset})
        parts = [self.preset, *filter(None, [_own_data(self.data_name)])]
        for name, words in (("image_size", "{}"), ("score", "{}"), ("paste_turn", "turn{:g}")):
            if getattr(self, name) != getattr(usual, name):
                parts.append(words.format(getattr(self, name)))
        parts += [self.folds]
        parts += [self.twins] if self.twins != "similar" else []
        parts += [f"partition{self.partition}"] if self.partition else []
        parts += [f"{self.defective_images}defective"] if self.defective_images else []
        return "-".join([*parts, f"seed{self.seed}"])

    @property
    def unnamed(self) -> list[str]:
        """The settings that are not the preset's, change scores, and are not told by `name`."""
        usual = resolve({"preset": self.preset})
        told = {"preset", "data", "checkpoint_steps", "precision", *NAMED}
        if self.data != "generated":
            told |= {"generated_items"}
        if not self.copy_paste:
            told |= {"decision_copy_paste"}
        if self.score == "mask":  # the second stage is not asked
            told |= {name for name, rule in RULES.items() if rule.group == "decision"}
        differing = (n for n in RULES if getattr(self, n) != getattr(usual, n))
        return [name for name in differing if name not in told]

    @property
    def data_name(self) -> str:
        """The data source without its place: what may be stored beside a result."""
        return ";".join(map(_source_name, self.data.split(";")))


def _source_name(source: str) -> str:
    """ "KolektorSDD.zip" of a path or address, "drive:<id>" of a Google Drive link."""
    shared = re.search(r"drive\.google\.com/.*?(?:/d/|[?&]id=)([\w-]+)", source)
    if shared:
        return f"drive:{shared[1]}"
    address = source.partition("?")[0] if "://" in source else source
    return PurePath(address.rstrip("/")).name or source


def _own_data(name: str) -> str:
    """The data's name as part of a run's: "my-parts" of "My parts.zip"; "" of the known sets."""
    first = name.partition(";")[0].lower()
    if first == "generated" or re.match(r"kolektorsdd(?!2)|drive:", first):
        return ""
    return re.sub(r"[^a-z0-9]+", "-", PurePath(first).stem).strip("-")[:24]


NAMED = (
    "image_size",
    "score",
    "paste_turn",
    "folds",
    "fold",
    "twins",
    "partition",
    "defective_images",
    "seed",
)
"""What tells results of one preset apart: a run's name has it, or its results name each fold."""

RULES: dict[str, Rule] = {f.name: f.metadata["rule"] for f in fields(Settings)}
"""Setting name -> its rule, in the order of the schema."""

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
"""Settings that a newcomer looks at first; the others are at hand, but folded away."""

TYPES: dict[str, type] = {f.name: f.type for f in fields(Settings)}
"""Setting name -> its type: str, int, float or bool."""

FAST = {
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

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"data": "kolektorsdd"},
    "cpu": FAST
    | {
        "data": "kolektorsdd",
        "copy_paste": 0.5,
        "score": "both",
        "segmentation_steps": 400,
        "decision_steps": 250,
    },
    "best": FAST
    | {
        "data": "kolektorsdd",
        "copy_paste": 0.5,
        "paste_turn": 45.0,
        "decision_copy_paste": False,
        "score": "both",
        "segmentation_steps": 800,
        "decision_steps": 1000,
    },
    "demo": FAST | {"image_size": "192x128", "segmentation_steps": 100, "decision_steps": 150},
}
"""Preset name -> the settings in which it differs from the defaults."""

SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def convert(name: str, text: str) -> Any:
    """The text of an environment variable or of `--set` as the setting's own type.

    Raises:
        SettingsError: no such setting, or not a value of its type.
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SettingsError(
            f"There is no setting {name!r}: {hint}Settings are: {', '.join(RULES)}."
        )
    kind = TYPES[name]
    try:
        if kind is bool:
            return SWITCHES[text.strip().lower()]
        return kind(text.strip())
    except (KeyError, ValueError):
        wanted = "yes or no" if kind is bool else f"a value {RULES[name].allowed}"
        raise SettingsError(f"{name} is {text!r}; it must be {wanted}.") from None


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings given as `KSDD_<FIELD>`.

    Raises:
        SettingsError: a name that begins with `KSDD_` is no setting, or its value is not allowed.
    """
    given = {}
    for key, text in environment.items():
        if not key.startswith("KSDD_") or key in RESERVED:
            continue
        name = key.removeprefix("KSDD_").lower()
        if name not in RULES:
            raise SettingsError(f"The environment variable {key} is no setting; unset it.")
        given[name] = convert(name, text)
    return given


def from_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """The settings given as `FIELD=VALUE`, as `--set` takes them."""
    given = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign:
            raise SettingsError(f"--set takes FIELD=VALUE, not {assignment!r}.")
        given[name] = convert(name, text)
    return given


def resolve(explicit: Mapping[str, Any]) -> Settings:
    """Settings from what was given explicitly: defaults < the preset < `explicit`."""
    preset = explicit.get("preset", Settings.preset)
    _check("preset", preset, RULES["preset"])
    return Settings(**({"preset": preset} | PRESETS[preset] | dict(explicit)))


def differences(settings: Settings, explicit: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where `explicit` differs from `settings`: name -> (ours, theirs).

    The data source does not count: its place differs between machines, and its content is compared
    by fingerprint when it is opened.
    """
    wanted = replace(settings, **dict(explicit) | {"data": settings.data})
    ours, theirs = to_json(settings), to_json(wanted)
    return {name: (ours[name], theirs[name]) for name in RULES if ours[name] != theirs[name]}


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings as stored beside a result: no path of this machine."""
    return asdict(settings) | {"data": settings.data_name}


def from_json(stored: Mapping[str, Any]) -> Settings:
    """The settings of `to_json`; a setting that is newer than they are has its default, which
    changes nothing.

    Raises:
        SettingsError: an unknown field, or a value out of range.
    """
    if unknown := set(stored) - set(RULES):
        names = ", ".join(sorted(unknown))
        raise SettingsError(
            f"The stored settings are of another version of ksdd_lib, which knows {names}: use "
            "that one, or begin a new run."
        )
    return Settings(**stored)


def table(settings: Settings, group: str | None = None) -> list[tuple[str, str, str, str]]:
    """(name, value, unit, reason) of each setting of a group (of all, without one), in order."""
    values = to_json(settings)
    return [
        (name, str(values[name]), rule.unit, rule.reason)
        for name, rule in RULES.items()
        if group in (None, rule.group)
    ]


def _check_together(settings: Settings) -> None:
    """Raise SettingsError where one setting makes no sense beside another."""
    if settings.score != "decision" and settings.segmentation_loss != "cross_entropy":
        raise SettingsError(
            f"score is {settings.score!r}, but only a mask trained with segmentation_loss "
            "cross_entropy has logits: take score decision."
        )
    if settings.folds == "official" and settings.twins != "similar":
        raise SettingsError(
            f"twins is {settings.twins!r}, but the official folds are KolektorSDD's and their leak "
            "is counted by similar pictures: take twins similar, or folds clean."
        )
    if settings.copy_paste and settings.annotation not in CLOSE_ANNOTATIONS:
        raise SettingsError(
            f"copy_paste is {settings.copy_paste:g}, but annotation {settings.annotation} takes in "
            "much that is no defect and would be pasted too: take copy_paste 0, or annotation "
            f"{' or '.join(CLOSE_ANNOTATIONS)}."
        )


def _check(name: str, value: Any, rule: Rule) -> None:
    """Raise SettingsError, naming the allowed values, unless `value` is one of them."""
    kind = TYPES[name]
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (number or type(value) is kind):
        raise SettingsError(
            f"{name} is {value!r} ({type(value).__name__}); it must be {kind.__name__}, "
            f"{rule.allowed}."
        )
    inside = not rule.choices or value in rule.choices
    if rule.low is not None:
        inside = rule.low <= value <= rule.high
    if not inside or value == "":
        raise SettingsError(f"{name} is {value!r}; it must be {rule.allowed}.")
