"""The one protocol of a method: how its stages are trained on a fold, and how it judges an image.

Folds, resume, scoring, thresholds, report and weights work with this alone. A new method is a file
in this room and a line in `catalog.METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ksdd_lib.settings import Settings
from ksdd_lib.training.batches import Shown, Surfaces
from ksdd_lib.training.checkpoint import Checkpoint
from ksdd_lib.training.loop import Look, Recipe


@dataclass(frozen=True)
class Trainable:
    """The network of one stage as its training starts, and its loss.

    Attributes:
        loss_of: the differentiable loss of one sample, as it is shown.
        look: what the network in training makes of an image; None where it makes no map.
        scale_gradients: whether gradients in float16 would underflow without a scale.
    """

    model: nn.Module
    loss_of: Callable[[Shown], Tensor]
    look: Look | None = None
    scale_gradients: bool = False


@dataclass(frozen=True)
class StagePlan:
    """One stage of a method, before anything is trained.

    Attributes:
        name: of its files and of its group of settings.
        notebook: the file that trains it step by step, without its ending.
        recipe: the settings of its loop.
        pastes: whether its steps see pasted defects.
        build: (settings, surfaces, finished stages before it) -> what is trained. Model and
            surfaces lie on the same device.
    """

    name: str
    notebook: str
    recipe: Callable[[Settings], Recipe]
    pastes: Callable[[Settings], bool]
    build: Callable[[Settings, Surfaces, Sequence[Checkpoint]], Trainable]


class Judge(Protocol):
    """A method that is ready to judge, on one device."""

    @property
    def device(self) -> torch.device:
        """Where the pixels that it judges must be."""

    def judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The score () of one surface, higher for more suspicious, and its map (H/8, W/8).

        Args:
            pixels: uint8 (1, 1, H, W) at the size of the settings, on the judge's device.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a file of weights must hold to build it again."""


class Method(Protocol):
    """Anything that can be trained on a fold and judge an image.

    Attributes:
        stages: its trainings, in order; none for a rule that learns nothing.
        judged_by: names of the settings that decide how an image is judged, beside the size.
        score_names: in words, each value of the setting `score`; none where there is one score.
        citation: the paper it is from; "" without one.
    """

    stages: tuple[StagePlan, ...]
    judged_by: tuple[str, ...]
    score_names: Mapping[str, str]
    citation: str

    def trained(self, settings: Settings, stages: Sequence[Checkpoint]) -> Judge:
        """The judge made of the finished stages of a fold, on this machine's device."""

    def loaded(self, settings: Settings, tensors: Mapping[str, Tensor], name: str) -> Judge:
        """The judge made of a file's tensors; `name` stands in the errors.

        Raises:
            CheckpointError: the tensors are of something else.
        """

    def probability(self, values: Tensor, settings: Settings) -> Tensor:
        """A map's values as the probability of a defect at each place, in [0, 1]."""

    def map_caption(self, settings: Settings) -> str:
        """What `probability` shows, in sentences for a reader of the report."""

    def every_score(
        self, settings: Settings, scores: Sequence[float], highest: Sequence[float]
    ) -> dict[str, list[float]]:
        """Each of `score_names` that is known -> what surfaces would have been judged by under it.

        Args:
            scores: by which the surfaces were judged.
            highest: the highest value of each map.
        """
