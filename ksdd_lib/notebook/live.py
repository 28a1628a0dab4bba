"""A training to look at while it runs: the losses of its stages, and maps as they form."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.zips import DAMAGE
from ksdd_lib.formatting import duration
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.notebook import outputs
from ksdd_lib.notebook.outputs import ProgressLine
from ksdd_lib.notebook.progress import Whole, Work, training
from ksdd_lib.reporting.plots import stamp
from ksdd_lib.reporting.training_view import Forming, training_view
from ksdd_lib.runs.prepare import DataSet, part_of
from ksdd_lib.runs.run import Run, fold_name
from ksdd_lib.training.batches import one_of_each
from ksdd_lib.training.loop import Progress, Row, Watch, read_history

MOMENTS = 8
"""How often a stage is asked for its maps: at first more often, as they change more."""


def watch_training(run: Run, data: DataSet, state: Callable[[], str] = str) -> Watch:
    """A `watch` for training: a line; in a notebook one picture for all folds of a stage, and above
    it one bar.

    `state` says what is on Drive, as `BackgroundCopy.state` does.
    """
    output, bar = ProgressLine(5.0), ProgressLine(5.0)
    examples: dict[int, Examples] = {}
    wholes = list[Whole]()

    def watch(progress: Progress) -> None:
        stage, fold, steps = progress.stage, progress.fold, progress.steps
        line = "; ".join(filter(None, [describe(progress), state()]))
        if outputs.in_notebook():
            if not wholes:
                wholes.append(training(run, stage, fold))
            seconds = progress.history[-1]["seconds"]
            wholes[0].parts[stage, fold] = Work(stage, steps, progress.step, seconds)
            wholes[0].show(line, bar)
        if fold not in examples:
            examples[fold] = Examples(run, data, fold)
        examples[fold].look(progress)

        def draw() -> Figure:
            rows = [one.forming(number, number == fold) for number, one in examples.items()]
            histories, forming = _histories(run, progress), [row for row in rows if row]
            figure = training_view(histories, fold, steps, forming)
            return stamp(figure) if data.is_generated else figure

        output.show(line, progress.step >= steps, stage, draw)

    return watch


def describe(progress: Progress) -> str:
    """One line on how far a stage has come, at which rate, and how long it still takes."""
    row, step, steps = progress.history[-1], progress.step, progress.steps
    place = f"{progress.stage}, {fold_name(progress.fold)}"
    if progress.resumed_after:
        place += f" (went on after step {progress.resumed_after})"
    loss, taken = f"loss {row['loss']:.3g}", duration(row["seconds"])
    if step >= steps:
        return f"{place}: all {steps} steps done, {loss}, {taken}"
    rate = row["seconds"] / step
    pace = f"{rate:.2g} s a step, {taken}, about {duration(rate * (steps - step))} left"
    return f"{place}: step {step} of {steps}, {loss}, {pace}"


def _histories(run: Run, progress: Progress) -> dict[str, dict[int, list[Row]]]:
    """Stage -> fold -> history, up to the stage and fold in training; of earlier ones from disk."""
    names = [stage.name for stage in method_of(run.settings).stages]
    found = {
        name: {
            fold: read_history(run.fold_folder(fold) / f"{name}.jsonl")
            for fold in run.settings.fold_numbers
        }
        for name in names[: names.index(progress.stage) + 1]
    }
    found[progress.stage][progress.fold] = list(progress.history)
    return found


class Examples:
    """Maps of a defective and a good training surface by step, as in `examples.npz` of the fold:
    (2, H/8, W/8) uint8, 255 for certain."""

    def __init__(self, run: Run, data: DataSet, fold: int) -> None:
        surfaces, both = one_of_each(part_of(run, data, fold).train, run.settings)
        self.pairs = [surfaces.show(one) for one in both]
        self.path = run.fold_folder(fold) / "examples.npz"
        self.masks = _read(self.path)

    def look(self, progress: Progress) -> None:
        """Ask for the maps, if it is time; those that a lost session saw later are dropped."""
        if progress.look is None:
            return
        self.masks = {step: mask for step, mask in self.masks.items() if step <= progress.step}
        due = [max(1, round(progress.steps * (n / MOMENTS) ** 2)) for n in range(1, MOMENTS + 1)]
        passed = max((step for step in due if step <= progress.step), default=None)
        if passed is None or any(passed <= step for step in self.masks):
            return
        seen = [progress.look(image).numpy() for image, _ in self.pairs]
        self.masks[progress.step] = (255 * np.stack(seen)).round().astype(np.uint8)
        content = io.BytesIO()
        arrays = {str(step): mask for step, mask in self.masks.items()}
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        storage.write_bytes(self.path, content.getvalue())

    def forming(self, fold: int, whole: bool) -> Forming | None:
        """What is shown, the defective one alone unless `whole`; None before the first look."""
        if not self.masks:
            return None
        pairs = self.pairs[: 2 if whole else 1]
        images = [(255 * image[0, 0]).round().byte().numpy() for image, _ in pairs]
        outlines = [mask[0, 0].numpy() > 0 for _, mask in pairs]
        masks = {
            step: mask[: len(pairs)].astype(np.float32) / 255 for step, mask in self.masks.items()
        }
        return Forming(fold_name(fold), images, outlines, masks)


def _read(path: Path) -> dict[int, np.ndarray]:
    """The stored maps; none where the file is missing or damaged: they can be seen again."""
    try:
        with np.load(path) as stored:
            return {int(name): stored[name] for name in stored.files}
    except (*DAMAGE, OSError):
        return {}
