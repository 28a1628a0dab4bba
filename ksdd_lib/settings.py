"""Every hyperparameter of a run, declared once: its type, its range, its unit and why it exists."""

import difflib
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from ksdd_lib.errors import SettingsError
from ksdd_lib.image_size import parse_size
from ksdd_lib.setting_rules import (
    Rule,
    Size,
    Values,
    as_interval,
    as_pattern,
    as_region,
    as_tile,
    count_or,
    setting,
    some_of,
    switch,
)
from ksdd_lib.view import View

DRAWN_KINDS = ("crack", "scratch", "pit", "spot", "stain")
"""What can be drawn, as `training.drawn_defects` draws it."""

CLOSE_ANNOTATIONS = ("fine", "dilated5")
"""Annotation types that outline little but the defect. A pasted defect takes the texture inside its
outline along, which changes the new surface by up to 11 gray levels with a box, 3 with dilated5."""

Layout = Literal[  # fmt: skip
    "auto", "item_folders", "kolektorsdd2", "mvtec", "table", "masks_beside", "labelme", "coco",
    "cvat", "via", "yolo", "class_folders", "pictures",
]  # fmt: skip
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "one_cycle"]


# What every stage of training has:
steps = partial(
    setting, 6600, unit="steps", low=1, high=999_999, reason="training length. 6,600 as published"
)
batch_size = partial(
    setting, 1, unit="images", low=1, high=64, reason="images per step, defective and good in turn"
)
optimizer = partial(
    setting, "sgd", unit="rule", reason="plain SGD as published, or AdamW, with far fewer steps"
)
learning_rate = partial(
    setting,
    0.1,
    unit="per step",
    low=1e-6,
    high=10,
    reason="step length. Published for SGD: 0.1 with cross entropy, 0.005 with the squared error",
)
schedule = partial(
    setting,
    "constant",
    unit="over the steps",
    reason="constant as published, or one cycle that rises over 30 % and falls to zero",
)


@dataclass(
    frozen=True, config=ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)
)
class Settings:
    """Every hyperparameter of a run. The defaults are the recipe of 2019, on generated surfaces.

    Raises SettingsError where a name is unknown, a value not allowed, or two do not go together.
    """

    preset: Literal["demo", "cpu", "best", "paper"] = setting("demo", "run", "name")
    """a named set of values to start from"""

    method: Literal["two_stage", "darkest_pixel", "local_contrast"] = setting(
        "two_stage", "run", "name"
    )
    """what is trained and judges: the two-stage network, or a rule without training. Most
    suspicious is the darkest pixel, or what differs most from its surroundings"""

    data: Annotated[str, Field(min_length=1)] = setting("generated", "data", "source")
    """"generated" surfaces, "kolektorsdd", a folder, a zip archive, an https address, or a Google
    Drive link. KolektorSDD is looked for here and in Drive, then downloaded"""

    layout: Layout = setting("auto", "data", "name")
    """how pictures and labels lie in the folder. auto recognises it and says what it took"""

    item: Annotated[str, AfterValidator(as_pattern)] = setting(
        "auto", "data", "rule", form="auto, folder, picture, or a regular expression"
    )
    """which pictures show one part: by the layout, by the folder, each its own, or all whose name
    without its ending gives the same (group) of a regular expression, as (.+)[ _.-].+"""

    incomplete: Literal["refuse", "leave_out", "good"] = setting("refuse", "data", "rule")
    """what becomes of pictures without a usable label: no training until they are mended, or they
    are left out, and the report names them. good: those that no label names show no defect"""

    classes: Literal["one", "each"] = setting("one", "data", "rule")
    """whether all defects are one class, as in the paper, or each that the labels name has a mask
    and a score of its own"""

    generated_items: int = setting(12, "data", "items", 6, 500)
    """how many commutators of 8 surfaces each to generate. Unused with real data"""

    image_size: Size = setting("1408x512", "data", "pixels, height x width", form="HEIGHTxWIDTH")
    """the network's input. Both sides are divisible by 16 and at least 128. 1408x512 and 704x256
    are the two studied. Cost grows with the area"""

    fit: Literal["stretch", "pad"] = setting("stretch", "data", "way")
    """how a picture fills image_size. stretch changes its shape to that. pad keeps it, with an even
    border around: take it where pictures have several shapes"""

    region: Annotated[str, AfterValidator(as_region)] = setting(
        "none", "data", "pixels of the picture", form="none, part, or x,y,width,height from 16 on"
    )
    """what is looked at, the rest is cut off: a rectangle by its upper left corner, or the part,
    which is found where it stands out from an even background"""

    tile_size: Annotated[str, AfterValidator(as_tile)] = setting(
        "none", "data", "pixels, height x width", form="none or HEIGHTxWIDTH"
    )
    """the network sees tiles of this size, cut from the pictures at their own scale, instead of
    whole ones at image_size. Take 512x512 where a defect of a big picture would be shrunk until it
    vanishes. A picture is scored on overlapping tiles, by the highest"""

    folds: Literal["clean", "official", "published"] = setting("clean", "data", "protocol")
    """clean keeps each physical part on one side of a split. official are the published folds of
    KolektorSDD, which leak. published is the one split into train and test that a data set brings,
    as KolektorSDD2 does"""

    twins: Literal["similar", "identical"] = setting("similar", "data", "rule")
    """which items count as one part: those whose pictures look alike once aligned, or only those
    that share a file byte for byte. Take identical where pictures of different parts look alike"""

    partition: int = setting(0, "data", "number", 0, 2**31 - 1)
    """which clean folds: 0 are the fixed ones, and another number divides the items anew"""

    defective_images: int = setting(0, "data", "images of each fold's training part", 0, 1_000_000)
    """how many defective images to learn from at most, drawn by the seed. 0 keeps all. All good
    images stay"""

    labels: Literal["all", "none"] = setting("all", "data", "rule")
    """what training knows of the defective images: all their labels, or none. It then learns from
    good surfaces alone, and defects drawn on them are the only ones that it sees"""

    masks: Annotated[str, count_or("all", "given", "none")] = setting(
        "all",
        "data",
        "defective images of each fold's training part",
        form="all, given, none or a number",
    )
    """how many masks training sees: all, which every defective image must have, those that are
    given, none, or so many, drawn by the seed. Of the other images it knows that they are
    defective, and the segmentation network sees drawn defects in their place"""

    fold: Literal["all", "0", "1", "2"] = setting("all", "run", "fold number")
    """which of the three folds to train and judge"""

    held_out: float = setting(0.0, "data", "share of the training part", 0, 0.5)
    """of a fold that is trained alone: how much of its training part sets its threshold instead.
    Less is left to learn from. At 0 the threshold of such a fold is fixed"""

    seed: int = setting(0, "run", "integer", 0, 2**31 - 1)
    """draws the first weights, the order of the images, what is pasted where, and which defective
    images are kept. Another seed is another experiment"""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "run", "type of number"
    )
    """arithmetic of the convolutions. auto takes the fastest that the hardware has"""

    annotation: Literal["fine", "dilated5", "dilated9", "dilated13", "dilated17", "box"] = setting(
        "dilated5", "segmentation", "pixels of the original image"
    )
    """how widely the defects are outlined, in pixels of the original image"""

    segmentation_loss: Literal["cross_entropy", "mean_squared_error"] = setting(
        "cross_entropy", "segmentation", "per mask pixel"
    )
    """what the segmentation network minimises at each mask pixel"""

    rotation: bool = switch(False, "run")
    """turn each batch by 0, 90, 180 or 270 degrees. Useful where defects have no preferred
    direction"""

    flips: bool = switch(False, "run")
    """mirror each batch left to right, top to bottom, both or not at all. That gives four views of
    each defect, where a mirrored part is as likely as the part"""

    copy_paste: float = setting(0.0, "run", "share of the defective images", 0, 1)
    """show a defect on a good surface instead of its own, at another height and with 40 to 100 %
    of its contrast. Few defects then appear on many surfaces, and some are faint"""

    paste_turn: float = setting(0.0, "run", "degrees at most, either way", 0, 90)
    """turn each pasted defect at random. Few cracks may lie mostly one way, and a crack at an angle
    that was never shown is missed. Unused where copy_paste is 0"""

    drawn: float = setting(0.0, "run", "share of the defective images", 0, 1)
    """show a defect that is drawn on a good surface in place of a photographed one, in the
    segmentation stage. Where masks are missing, they are drawn whatever this says"""

    drawn_kinds: Annotated[str, some_of(*DRAWN_KINDS)] = setting(
        "crack", "run", "names", form="some of " + ", ".join(DRAWN_KINDS)
    )
    """what is drawn. With classes each, every kind is the class of its name"""

    drawn_length: Annotated[str, as_interval(3, 4096)] = setting(
        "30 to 200", "run", "pixels of the network's input", form="LOW to HIGH, from 3 to 4096"
    )
    """how long drawn defects are. A spot is a third as wide as this, a stain two thirds"""

    drawn_width: Annotated[str, as_interval(0.3, 200)] = setting(
        "1 to 3.5", "run", "pixels of the network's input", form="LOW to HIGH, from 0.3 to 200"
    )
    """how wide drawn lines are, and how wide half a pit is"""

    drawn_contrast: Annotated[str, as_interval(-1, 1)] = setting(
        "0.3 to 0.8", "run", "share of the gray level", form="LOW to HIGH, from -1 to 1"
    )
    """how much darker a drawn defect is than its surface; below 0, how much brighter"""

    harmless: Annotated[str, some_of("none", *DRAWN_KINDS)] = setting(
        "pit,spot", "run", "names", form="none or some of " + ", ".join(DRAWN_KINDS)
    )
    """what is drawn on every second surface without being a defect, where defects are drawn: as
    pits and spots for dust and dirt. What drawn_kinds names is never harmless"""

    false_alarms: float = setting(0.05, "run", "share of good parts", 0, 0.5)
    """how many of the good parts may be flagged, where no defect is known (labels none). The
    threshold then comes from good surfaces alone. 0 is the highest good score"""

    threshold: Literal["medians", "best_f1", "zero"] = setting("medians", "evaluation", "rule")
    """where the operating threshold lies: halfway between the medians of good and of defective
    out-of-fold scores, where their F1 is best, or at a fixed logit of 0"""

    average_flips: bool = switch(False, "run")
    """score an image as the mean over its four mirror images. That is steadier, and scoring takes
    four times as long"""

    score: Literal["decision", "mask", "both"] = setting("decision", "run", "logit")
    """what an image is judged by: the decision network as published, the highest value of the
    mask, or their sum (both), as one may see what the other misses. None of them measures size. A
    normalised map peaks lower for a larger defect, so a growing crack can lower each of them"""

    initialization: Literal["normal", "kaiming"] = setting("normal", "segmentation", "distribution")
    """first weights: N(0, 0.01) as published, or scaled to each layer (Kaiming)"""

    expected_defect_share: float = setting(
        0.5, "segmentation", "share of the mask pixels", 1e-4, 0.5
    )
    """how likely a defect is to the untrained mask, with cross entropy. 0.5 as published expects
    nothing. AdamW starts to learn only with a small share"""

    mask_norm: bool = switch(True, "segmentation")
    """normalise the mask, as published. Such a map peaks lower for larger defects: not where they
    cover more than a few percent of the picture"""

    weight_averaging: bool = switch(True, "run")
    """judge by the moving average of the weights instead of the last ones"""

    segmentation_steps: int = steps(group="segmentation")
    segmentation_batch_size: int = batch_size(group="segmentation")
    segmentation_optimizer: Optimizer = optimizer(group="segmentation")
    segmentation_learning_rate: float = learning_rate(group="segmentation")
    segmentation_schedule: Schedule = schedule(group="segmentation")
    decision_steps: int = steps(group="decision")
    decision_batch_size: int = batch_size(group="decision")
    decision_optimizer: Optimizer = optimizer(group="decision")
    decision_learning_rate: float = learning_rate(group="decision")
    decision_schedule: Schedule = schedule(group="decision")

    decision_copy_paste: bool = switch(True, "decision")
    """whether copy_paste holds in the second stage too. Without, this stage learns from real
    defects alone, and the first one's answer is computed once for each image and view. A step is
    faster, and good and defective scores lay further apart on the folds used for tuning"""

    checkpoint_steps: int = setting(200, "run", "steps", 1, 100_000)
    """how often the full state is saved. A process that ends loses these steps at most. A lost
    machine loses what came after the last copy on Drive, which begins every ten minutes"""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_one_sentence(cls, given: object, build: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return build(given)
        except ValidationError as refused:
            error = refused.errors(include_url=False)[0]
            raise SettingsError(_sentence(str(error["loc"][0]), error["input"])) from None

    def __post_init__(self) -> None:
        if self.score != "decision" and self.segmentation_loss != "cross_entropy":
            raise SettingsError(
                f"score is {self.score!r}, but only a mask trained with segmentation_loss "
                "cross_entropy has logits: take score decision."
            )
        if self.classes == "each" and self.method != "two_stage":
            raise SettingsError(
                f"classes is 'each', but the {self.method.replace('_', ' ')} knows no classes: "
                "take classes one."
            )
        if self.classes == "each" and self.labels == "none":
            raise SettingsError("classes is 'each', but labels none knows none: take classes one.")
        if self.folds == "published" and self.fold not in ("all", "0"):
            raise SettingsError(f"fold is {self.fold!r}, but folds published has fold 0 alone.")
        if self.held_out and len(self.fold_numbers) > 1:
            raise SettingsError(
                f"held_out is {self.held_out:g}, but three folds set each other's thresholds: take "
                "fold 0, or held_out 0."
            )
        if self.folds == "official" and self.twins != "similar":
            raise SettingsError(
                f"twins is {self.twins!r}, but the leak of the official folds is counted by "
                "similar pictures: take twins similar, or folds clean."
            )
        if self.copy_paste and self.annotation not in CLOSE_ANNOTATIONS:
            raise SettingsError(
                f"copy_paste is {self.copy_paste:g}, but annotation {self.annotation} outlines "
                "much that is no defect, which would be pasted too: take copy_paste 0, or "
                f"annotation {' or '.join(CLOSE_ANNOTATIONS)}."
            )

    @property
    def size(self) -> tuple[int, int]:
        """The network's input, (height, width) in pixels: of a tile, or of the whole picture."""
        return parse_size(self.image_size if self.tile_size == "none" else self.tile_size)

    @property
    def view(self) -> View:
        """How a picture becomes the network's input."""
        return View(self.size, self.fit, self.region, self.tile_size != "none")

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds to train and judge."""
        every = (0,) if self.folds == "published" else (0, 1, 2)
        return every if self.fold == "all" else (int(self.fold),)

    @property
    def needs_masks(self) -> bool:
        """Whether training needs the mask of each defective image."""
        return self.labels == self.masks == "all"

    @property
    def draws(self) -> bool:
        """Whether training sees drawn defects, also where all masks of the data are there."""
        return self.drawn > 0 or self.labels == "none" or self.masks != "all"

    def with_values(self, values: Values) -> Self:
        """These settings with other values for some of them; raises as new settings do."""
        return replace(self, **values)  # type: ignore[arg-type]


RULES: dict[str, Rule] = {
    name: Rule(
        group=field["group"],
        unit=field["unit"],
        reason=" ".join(field.get("description", "").split()),
        choices=tuple(field.get("enum", ())),
        low=field.get("minimum"),
        high=field.get("maximum"),
        form=field["form"],
    )
    for name, field in TypeAdapter(Settings).json_schema()["properties"].items()
}
"""Setting name -> its rule, in the order of the class."""

TYPES: dict[str, type] = {name: type(getattr(Settings, name)) for name in RULES}
"""Setting name -> its type: str, int, float or bool."""


def unknown(name: str) -> SettingsError:
    """The error that there is no such setting; it suggests the nearest name."""
    near = difflib.get_close_matches(name, RULES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return SettingsError(f"There is no setting {name!r}: {hint}Settings are: {', '.join(RULES)}.")


def _sentence(name: str, value: object) -> str:
    """Why a value is refused: its type, or the values that are allowed."""
    if name not in RULES:
        return str(unknown(name))
    kind, allowed = TYPES[name], RULES[name].allowed
    if type(value) is kind or (kind is float and type(value) is int):
        return f"{name} is {value!r}; it must be {allowed}."
    return f"{name} is {value!r} ({type(value).__name__}); it must be {kind.__name__}, {allowed}."
