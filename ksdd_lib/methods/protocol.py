"""The one protocol of a method: how its stages are trained on a fold, and how it judges an image.

Folds, resume, scoring, thresholds, report and weights work with this alone. A new method is a file
in this room and a line in `catalog.METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ksdd_lib.settings import Settings
from ksdd_lib.training.batches import Surfaces
from ksdd_lib.training.checkpoint import Checkpoint
from ksdd_lib.training.loop import Recipe, Trainable


class StagePlan(NamedTuple):
    """One stage of a method, before anything is trained."""

    name: str  # of its files and of its group of settings
    notebook: str  # the file that trains it step by step, without its ending
    recipe: Callable[[Settings], Recipe]  # the settings of its loop
    # (settings, surfaces, finished stages before it) -> what is trained, on the surfaces' device
    build: Callable[[Settings, Surfaces, Sequence[Checkpoint]], Trainable]
    needs_masks: bool = False  # a defective image without one is replaced by a drawn defect


class Judge(Protocol):
    """A method that is ready to judge, on one device."""

    @property
    def device(self) -> torch.device:
        """Where the pixels that it judges must be."""

    def judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The score () of one surface, higher for more suspicious, and its map (H/8, W/8).

        Where it tells K > 1 classes of defects apart, those of each: (K,) and (K, H/8, W/8).

        The pixels are uint8 (1, 1, H, W) at the size of the settings, on the judge's device.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a file of weights must hold to build it again."""


class Method(Protocol):
    """Anything that can be trained on a fold and judge an image."""

    stages: tuple[StagePlan, ...] = ()  # its trainings, in order; none where nothing is learned
    judged_by: tuple[str, ...] = ()  # settings that decide how an image is judged, beside the size
    score_names: Mapping[str, str] = {}  # each `score` in words; none where there is but one
    citation: str = ""  # the paper it is from

    def trained(self, settings: Settings, stages: Sequence[Checkpoint]) -> Judge:
        """The judge made of the finished stages of a fold, on this machine's device."""

    def loaded(self, settings: Settings, tensors: Mapping[str, Tensor], name: str) -> Judge:
        """The judge made of a file's tensors; `name` stands in the errors.

        Raises CheckpointError: the tensors are of something else.
        """

    def probability(self, values: Tensor, settings: Settings) -> Tensor:
        """A map's values as the probability of a defect at each place, in [0, 1]."""

    def map_caption(self, settings: Settings) -> str:
        """What `probability` shows, in sentences for a reader of the report."""

    def every_score(
        self, settings: Settings, scores: Sequence[float], highest: Sequence[float]
    ) -> dict[str, list[float]]:
        """Each of `score_names` that is known -> what surfaces would have been judged by under it.

        Known are the scores that they were judged by, and the highest value of each map.
        """
        return {}
