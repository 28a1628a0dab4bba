"""One image in; score, verdict and mask out; a folder in, a table out: what a model is for.

detector = predict.load()  # the published model; or predict.load("mine.safetensors")
detector.judge("part.jpg").label
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS, OTHER_EXTENSIONS, decode_image
from ksdd_lib.deploy import weights
from ksdd_lib.errors import CheckpointError, DataError
from ksdd_lib.evaluation.scoring import scores_of
from ksdd_lib.image_size import is_squeezed
from ksdd_lib.machine import in_colab
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import Judge
from ksdd_lib.methods.stages import trained_judge
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings

LEAST_CONTRAST = 1.0
"""Standard deviation of a surface's gray levels, of 255; KolektorSDD's lie above 14. Below it there
is nothing to see, and feature normalisation would amplify the noise into a verdict."""


@dataclass(frozen=True)
class Verdict:
    """What the model says about one image.

    Attributes:
        label: "defective", "good", or "not a surface" for a frame without contrast.
        score: logit, of the kind that the model is judged by; None for no surface.
        mask: probability of a defect at each pixel of the image, float32 (H, W); None likewise.
    """

    label: str
    score: float | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Detector:
    """A trained model and how to use it.

    Attributes:
        trained: what gives score and map.
        settings: those that it judges by.
        threshold: a surface is defective where its score is strictly greater.
        origin: what it was trained on, in words.
    """

    trained: Judge
    settings: Settings
    threshold: float
    origin: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels: every image is resized to it."""
        return self.settings.size

    def judge(self, image: np.ndarray | bytes | Path | str) -> Verdict:
        """Judge one image.

        Args:
            image: gray uint8 (H, W), or the path or the bytes of a JPEG, PNG or BMP file.

        Raises:
            DataError: the file cannot be read, or the array is no gray uint8 image.
            CheckpointError: the model answers with numbers that are not finite.
        """
        image = as_pixels(image)
        if image.ndim != 2 or image.dtype != np.uint8:
            raise DataError(
                f"The image is {image.dtype} of shape {image.shape}: it must be uint8 (H, W), gray."
            )
        if image.std() < LEAST_CONTRAST:
            return Verdict("not a surface")
        height, width = self.size
        pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(pixels)[None, None].to(self.trained.device)
        score, values = self.trained.judge(tensor)
        if not (score.isfinite() and values.isfinite().all()):
            raise CheckpointError(
                f"The model's answer is not finite (score {float(score)}): its weights are damaged "
                "or its training diverged. Use another model."
            )
        share = method_of(self.settings).probability(values, self.settings).cpu().numpy()
        full = cv2.resize(share, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        label = "defective" if float(score) > self.threshold else "good"
        return Verdict(label, float(score), full)

    def doubt(self, shape: tuple[int, int]) -> str:
        """What speaks against a verdict on an image of this shape (H, W); "" where nothing does."""
        if not is_squeezed(shape, self.size):
            return ""
        seen, shown = (f"{height}x{width}" for height, width in (self.size, shape))
        return (
            f"the picture is {shown} (height x width) and was squeezed to {seen}: cut out one "
            "whole surface, upright"
        )


@dataclass(frozen=True)
class Judged:
    """What became of one file of a folder: a row of verdicts.csv.

    Attributes:
        image: its path below the folder.
        label: as of a `Verdict`, or "unreadable".
        score: as of a `Verdict`; None where there is none.
        threshold: above which a score is defective; None where there is no score.
        x, y: the pixel of the image where the mask is highest; None where there is none.
        reason: why it is unreadable, or what speaks against the verdict; else "".
    """

    image: str
    label: str
    score: float | None = None
    threshold: float | None = None
    x: int | None = None
    y: int | None = None
    reason: str = ""


def judge_folder(
    detector: Detector,
    folder: Path | str,
    watch: Callable[[int, int], None] | None = None,
    report: Callable[[str], None] = print,
) -> list[Judged]:
    """Judge every JPEG, PNG and BMP file in a folder and those below it, but for `*_label.*`.

    Args:
        watch: called with (files done, files in all).
        report: hears in one line of pictures of other kinds, which are not judged.

    Returns:
        A row for each file: the unreadable ones first, then what is no surface, then the others,
        the most suspicious first.

    Raises:
        DataError: there is no such folder, or no image in it.
        CheckpointError: as `Detector.judge`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file: name the folder it is in" if folder.exists() else "does not exist"
        hint = ": where it was just put on Drive, wait a minute" * in_colab()
        hint = "" if folder.exists() else hint or ": check the spelling"
        raise DataError(f"{folder.name} {what}{hint}.")
    known = IMAGE_EXTENSIONS + OTHER_EXTENSIONS
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in known]
    files = [path for path in files if path.is_file() and not path.stem.endswith("_label")]
    paths = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    others = _explain_others(files)
    if not paths:
        endings = ", ".join(IMAGE_EXTENSIONS)
        told = f"There is no image ({endings}) in {folder.name}: name a folder of them. {others}"
        raise DataError(told.rstrip())
    if others:
        report(others)
    rows = []
    for path in paths:
        rows.append(_judge_file(detector, path, path.relative_to(folder).as_posix()))
        if watch:
            watch(len(rows), len(paths))
    order = {"unreadable": 0, "not a surface": 1}
    return sorted(rows, key=lambda row: (order.get(row.label, 2), -(row.score or 0), row.image))


def _explain_others(files: Iterable[Path]) -> str:
    """One sentence on the pictures of kinds that are not read; "" without any."""
    kinds = [path.suffix.lower() for path in files if path.suffix.lower() in OTHER_EXTENSIONS]
    listed = ", ".join(sorted(set(kinds)))
    if len(kinds) == 1:
        return f"1 file of another kind ({listed}) was not judged: save it as PNG or JPEG."
    told = (
        f"{len(kinds)} files of other kinds ({listed}) were not judged: save them as PNG or JPEG."
    )
    return told if kinds else ""


def _judge_file(detector: Detector, path: Path, name: str) -> Judged:
    try:
        pixels = read_image(path)
        found = detector.judge(pixels)
    except DataError as error:
        return Judged(name, "unreadable", reason=str(error))
    if found.mask is None or found.score is None:
        return Judged(name, found.label)
    y, x = map(int, np.unravel_index(found.mask.argmax(), found.mask.shape))
    score, threshold = round(found.score, 4), round(detector.threshold, 4)
    return Judged(name, found.label, score, threshold, x, y, detector.doubt(pixels.shape))


def doubts(rows: Iterable[Judged]) -> str:
    """One line on what speaks against verdicts; "" where nothing does."""
    doubtful = [row for row in rows if row.reason and row.score is not None]
    if not doubtful:
        return ""
    first = f"{doubtful[0].image}: {doubtful[0].reason}"
    return f"Warning for {len(doubtful)}, named in the table: {first}."


def write_verdicts(path: Path, rows: Iterable[Judged]) -> None:
    """Write the rows as CSV, a column for each attribute of `Judged`, atomically."""
    columns = [field.name for field in fields(Judged)]
    table = ([getattr(row, name) for name in columns] for row in rows)
    storage.write_text(path, storage.csv_text(columns, table))


def as_pixels(image: np.ndarray | bytes | Path | str) -> np.ndarray:
    """The gray pixels of an image as `Detector.judge` takes it; an array is handed back.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, bytes):
        return decode_image(image, "the image")
    return read_image(image)


def of_run(run: Run, data: DataSet, fold: int) -> Detector:
    """The detector of a fold of an evaluated run, with its operating threshold.

    Raises:
        RunError: the run is not evaluated yet, or not this fold.
        CheckpointError: a stage of this fold is not finished.
    """
    threshold = scores_of(run, fold).threshold
    others = "real pictures" if data.is_generated else "other kinds of parts"
    origin = (
        f"{run.folder.name}, fold {fold}, trained on {data.record.name} (on {others} its "
        "verdicts mean nothing)"
    )
    return Detector(trained_judge(run, data, fold), run.settings, threshold, origin)


def load(path: Path | str | None = None) -> Detector:
    """The detector of a weights file; without one, of the published model.

    Raises:
        CheckpointError: as `weights.load` and `weights.published`.
    """
    trained, card = weights.load(Path(path) if path else weights.published())
    origin = (
        f"{card.file}, trained on {card.data.name} (on other kinds of parts its verdicts mean "
        "nothing)"
    )
    return Detector(trained, card.judging_settings(), card.threshold, origin)
