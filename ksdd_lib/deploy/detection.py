"""One image in; label, score and mask out: what a trained model is for.

detector = detection.load()  # the published model; or detection.load("mine.safetensors")
detector.judge("part.jpg").label
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ksdd_lib.data.data_report import Sizes
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.pixels import check_size, decode_image, highest_of_few
from ksdd_lib.deploy import weights
from ksdd_lib.deploy.defects import Defect, find_defects
from ksdd_lib.errors import CheckpointError, DataError
from ksdd_lib.evaluation.classes import named
from ksdd_lib.evaluation.pixels import EVEN, at_full_size
from ksdd_lib.evaluation.predictions import of_highest
from ksdd_lib.evaluation.scoring import (
    class_thresholds_of,
    idle_stages,
    judge_picture,
    mask_threshold_of,
    scores_of,
)
from ksdd_lib.formatting import listed, percent
from ksdd_lib.image_size import is_squeezed
from ksdd_lib.methods.catalog import METHODS, method_of
from ksdd_lib.methods.protocol import Judge
from ksdd_lib.methods.stage_training import trained_judge
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.view import region_box

Picture = np.ndarray | bytes | bytearray | memoryview | Image.Image | os.PathLike[str] | str
"""Gray uint8 (H, W), the content or the path of a JPEG, PNG or BMP file, or a PIL image."""

LEAST_CONTRAST = 1.0
"""Standard deviation of a surface's gray levels, of 255; KolektorSDD's lie above 14. Below it there
is nothing to see, and feature normalisation would amplify the noise into a verdict."""


@dataclass(frozen=True)
class Verdict:
    """What the model says about one image.

    Attributes:
        label: "defective", "good", or "not a surface" for a frame without contrast.
        score: higher for more suspicious; None for no surface.
        mask: probability of a defect at each pixel of the image, float32 (H, W); None likewise.
        mask_threshold: from this probability on, a pixel of a defective image is marked.
        classes: those that a defective image shows, where the model tells several apart.
        class_maps: then each class's own probabilities, as `mask`, which has the highest of them.
        threshold: the image is defective where the score exceeds it; see `of_highest`.
    """

    label: str
    score: float | None = None
    mask: np.ndarray | None = None
    mask_threshold: float = EVEN
    classes: tuple[str, ...] = ()
    class_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    threshold: float = 0.0

    @property
    def marked(self) -> np.ndarray | None:
        """The pixels that the mask marks, bool (H, W): none unless the image is defective."""
        if self.mask is None:
            return None
        return (self.mask >= self.mask_threshold) & (self.label == "defective")

    @cached_property
    def defects(self) -> tuple[Defect, ...]:
        """The connected places of marked pixels, the most probable first.

        A defective image has none where its mask stays below the threshold everywhere.
        """
        if self.mask is None or self.label != "defective":
            return ()
        return find_defects(self.mask, self.mask_threshold, self.class_maps)


def as_pixels(image: Picture) -> np.ndarray:
    """The gray pixels of a picture, uint8 (H, W); a PIL image is read as a file of it would be.

    Raises DataError: the file cannot be read, or it is something else; the text says what to give.
    """
    if isinstance(image, Image.Image):
        image = _as_png(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), "the image")
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"The image is of the type {type(image).__name__}: give a path, the bytes of a file, a "
            "PIL image, or an array, as np.asarray(image)."
        )
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise DataError(
            f"The image is {image.dtype} of shape {image.shape}: it must be uint8 (H, W), gray. "
            f"Give {_way_to_gray(image)}."
        )
    return image


def _as_png(image: Image.Image) -> bytes:
    """A PIL image as the content of a file, upright."""
    file = io.BytesIO()
    try:
        ImageOps.exif_transpose(image).save(file, "PNG", compress_level=1)
    except (OSError, ValueError, SystemError) as error:
        raise DataError(
            f"The PIL image of mode {image.mode} and size {image.size} cannot be read ({error}): "
            "give a whole one, as of image.convert('RGB')."
        ) from None
    return file.getvalue()


def _way_to_gray(image: np.ndarray) -> str:
    """What makes an array gray uint8, as an expression."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        code = "BGR2GRAY" if image.shape[2] == 3 else "BGRA2GRAY"
        return f"cv2.cvtColor(image, cv2.COLOR_{code}), or with RGB where red comes first"
    if image.ndim != 2 or not image.size:
        return "image.squeeze(), where that is one picture"
    if image.dtype.kind == "b":
        return "255 * image.astype(np.uint8)"
    return "(255 / white * image).round().astype(np.uint8), where white is the level of white"


@dataclass(frozen=True)
class Detector:
    """A trained model and how to use it.

    Attributes:
        threshold: a surface is defective where its score is strictly greater; of several classes
            any of them decides, by its own.
        origin: which model it is, and what it was trained on, in words.
        mask_threshold: as of `Verdict`.
        usual: the sizes of the pictures that it was trained on, if they are known.
        class_thresholds: each class's own, where the model tells several apart.
    """

    trained: Judge
    settings: Settings
    threshold: float
    origin: str = ""
    mask_threshold: float = EVEN
    usual: Sizes | None = None
    class_thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels: what the network sees at a time."""
        return self.settings.size

    def judge(self, image: Picture) -> Verdict:
        """Judge one image.

        Raises DataError: as `as_pixels`, or the region lies outside of the image.
        Raises CheckpointError: the model answers with numbers that are not finite.
        """
        pixels, view = as_pixels(image), self.settings.view
        check_size(pixels.shape[0], pixels.shape[1], "The image")
        if region_box(view.region, pixels).cut(pixels).std() < LEAST_CONTRAST:
            return Verdict("not a surface")
        found = judge_picture(self.trained, pixels, view)
        if not (np.isfinite([found.score, *found.each]).all() and np.isfinite(found.map).all()):
            raise CheckpointError(
                f"The model's answer is not finite (score {found.score}): its weights are damaged "
                "or its training diverged. Use another model."
            )
        full, *of_classes = (self._shown(one, pixels.shape) for one in (found.map, *found.maps))
        if len(found.each) != len(self.class_thresholds):
            raise CheckpointError(
                "The weights tell other classes apart than the card names: publish both again."
            )
        maps = dict(zip(self.class_thresholds, of_classes, strict=True))
        each = dict(zip(self.class_thresholds, found.each, strict=True))
        own = list(self.class_thresholds.values())
        threshold = of_highest(found.each, own) if own else self.threshold
        is_good = found.score <= threshold
        classes = named(each, self.class_thresholds) if each and not is_good else ()
        label = "good" if is_good else "defective"
        return Verdict(label, found.score, full, self.mask_threshold, classes, maps, threshold)

    def _shown(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A map of the judge as probabilities at the size of its picture (H, W)."""
        share = method_of(self.settings).probability(torch.from_numpy(values), self.settings)
        return at_full_size(share.numpy(), (shape[0], shape[1]))

    def doubt(self, shape: tuple[int, int]) -> str:
        """What speaks against a verdict on an image of this shape (H, W); "" where nothing does.

        Something was lost where the picture was squeezed, or reduced, far more than those that the
        model was trained on, or the region reaches beyond it.
        """
        view, (height, width) = self.settings.view, shape
        if view.region != "none":
            beyond = view.reaches_beyond(shape)
            return f"the region {view.region} reaches beyond the picture" if beyond else ""
        if view.tiled:
            return ""
        usual, told = self.usual, f"the picture is {height}x{width} (height x width) and was"
        size, scale = "{}x{}".format(*self.size), view.scale(shape)
        ratio = self.size[0] / self.size[1]
        if usual and usual.height and usual.width:
            ends = usual.height[0] / usual.width[1], usual.height[1] / usual.width[0]
            ratio = float(np.clip(height / width, *ends))
            usual_scale = min(1.0, view.scale((usual.height[1], usual.width[1])))
            if 2 * scale < usual_scale:
                return (
                    f"{told} reduced to {percent(scale)} of that for {size}, those of the training "
                    f"to {percent(usual_scale)} at least: fine defects may be lost"
                )
        if view.fit == "pad" or not (
            is_squeezed(shape, self.size) and is_squeezed(shape, (ratio, 1))
        ):
            return ""
        return f"{told} squeezed to {size}: cut out one whole surface, upright"


def doubt_of_file(data: bytes) -> str:
    """What speaks against a verdict on a file with this content; "" where nothing does."""
    if highest := highest_of_few(data):
        share = percent(highest / 65535)
        return f"it uses {share} of its 16 bits (up to {highest} of 65535): scale it to all of them"
    return ""


def of_run(run: Run, data: DataSet, fold: int) -> Detector:
    """The detector of a fold of an evaluated run, with its operating threshold.

    Raises RunError: the run is not evaluated yet, or not this fold.
    Raises CheckpointError: a stage of this fold is not finished.
    """
    threshold, mask_threshold = scores_of(run, fold).threshold, mask_threshold_of(run, fold)
    origin = f"{run.folder.name}, fold {fold}, {_trained_on(data.record.name, data.is_generated)}"
    origin += _unseen(run.settings.method, run.settings.labels, run.settings.drawn_kinds)
    origin += _useless(idle_stages(run, [fold]))
    judge, usual = trained_judge(run, data, fold), data.record.report.sizes
    how = threshold, origin, mask_threshold, usual, class_thresholds_of(run, fold)
    return Detector(judge, run.settings, *how)


def load(path: Path | str | None = None) -> Detector:
    """The detector of a weights file; without one, of the published model.

    Raises CheckpointError: as `weights.load` and `weights.published`.
    """
    trained, card = weights.load(Path(path) if path else weights.published())
    settings, usual = card.judging_settings(), card.data.sizes
    origin = f"{card.file}, {_trained_on(card.data.name)}"
    origin += _unseen(card.method, card.settings.get("labels"), card.settings.get("drawn_kinds"))
    origin += _useless(card.learned_nothing)
    origin += "; trained on all items, so no test of it exists" * bool(card.test)
    how = card.threshold, origin, card.mask_threshold, usual, card.class_thresholds
    return Detector(trained, settings, *how)


def _useless(stages: Sequence[str]) -> str:
    return f"; do not use it, its {listed(stages)} learned nothing" if stages else ""


def _unseen(method: str, labels: object, kinds: object) -> str:
    """What a verdict means of a model that was trained without defects; "" of any other."""
    if labels != "none" or not METHODS[method].stages:
        return ""
    told = str(kinds).replace(",", ", ")
    return f"; it has seen no real defect, so good means: nothing like what was drawn ({told})"


def _trained_on(data: str, is_generated: bool = False) -> str:
    """What a model was trained on, and where its verdicts do not hold."""
    others = "real pictures" if is_generated else "other kinds of parts"
    return f"trained on {data} (on {others} its verdicts mean nothing)"
