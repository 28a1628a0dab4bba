"""What labels give away and what they cost: drawn defects beside photographed ones, runs by time.

That a mask takes a minute and a label a second is an assumption.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.folds import Fold
from ksdd_lib.errors import KsddError
from ksdd_lib.evaluation.scoring import taught
from ksdd_lib.evaluation.summary import Summary, Taught
from ksdd_lib.formatting import number
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import plots, surface_pictures
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.training.batches import Shown, load_surfaces
from ksdd_lib.training.drawn_defects import Ranges

MASK, LABEL = 1.0, 1 / 60
"""Minutes that a mask and a label are taken to cost."""

SHOWN = 4  # pictures of each kind


class Effort(NamedTuple):
    """A run with the labels that one of its trainings had, and what it reached."""

    name: str
    taught: Taught
    ap: float | None

    @property
    def minutes(self) -> float:
        """How long labelling takes, as assumed."""
        return self.taught.masks * MASK + self.taught.labels * LABEL

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of a table."""
        counts = self.taught.masks, self.taught.labels, round(self.minutes)
        return self.name, *map(str, counts), number(self.ap)


def show_labels(fold: Fold, settings: Settings) -> None:
    """Say what a training knows of a fold's images, and how long the labels take to make."""
    one = Effort("", taught(fold), None)
    masks, labels = one.taught.masks, one.taught.labels
    kinds = settings.drawn_kinds.replace(",", ", ")
    drawn = f" Defects that are drawn ({kinds}) stand in where masks are missing."
    print(
        f"The training of fold {fold.number} knows {labels} labels and {masks} masks: about "
        f"{one.minutes:.0f} minutes of labelling, if a mask takes a minute and a label a second."
        + drawn
        * settings.draws
    )
    if settings.labels == "none":
        print(
            "It knows no defect. What differs from good surfaces as drawn defects do is found. "
            "Which kinds are missed, only defective parts can tell."
        )


def show_drawn(data: DataSet, settings: Settings) -> None:
    """Show drawn defects beside photographed ones, at the network's size, where any are drawn."""
    if not settings.draws:
        print("No defects are drawn: all masks are used.")
        return
    good = [one for one in data.samples if not one.is_defective][:SHOWN]
    real = [one for one in data.samples if one.is_defective][:SHOWN]
    view = replace(settings.view, tiled=False) if settings.view.tiled else settings.view
    surfaces = load_surfaces([*good, *real], view, settings.annotation)
    surfaces = replace(surfaces, ranges=Ranges.of(settings))
    pictures, outlines = [], []
    for row in range(len(surfaces.samples)):
        shown = Shown(row, drawn=(settings.seed, row) if row < len(good) else None)
        image, masks = surfaces.show(shown)
        pictures.append((image[0, 0] * 255).round().byte().numpy())
        outlines.append(masks[0].amax(0).numpy() > 0.5)
    titles = ["drawn"] * len(good) + ["photographed"] * len(real)
    figure = surface_pictures.gallery(pictures, outlines, titles)
    outputs.show_figure(figure, data.is_generated)


def compare(run: Run) -> None:
    """Show this run beside others of the same data and folds: average precision by minutes."""
    found = efforts(run)
    if len(found) < 2:
        print(
            "No other run of this data is here. Begin one with fewer labels: in notebook 1, set "
            "masks to 5 or to none, or labels to none."
        )
        return
    heads = ("run", "masks", "labels", "minutes", "AP, pooled")
    rows = [one.cells for one in found]
    lines = [f"{row[0]:44}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in [heads, *rows]]
    text = "\n".join(lines)
    outputs.show_table(outputs.table(heads, rows), text)
    outputs.show_figure(_figure(found))


def efforts(run: Run) -> list[Effort]:
    """The evaluated runs beside this one, and it, with the same data and folds; least labels first.

    A training is one of three: the labels are those of its first fold.
    """
    here = storage.read_record(run.folder / "metrics.json", Summary)
    found = []
    for path in sorted(run.folder.parent.glob("*/metrics.json")):
        try:
            one = storage.read_record(path, Summary)
        except KsddError:  # of another version, or damaged
            continue
        if one.taught is None or one.made_from is None or here.made_from is None:
            continue
        if (one.made_from.data, one.protocol) == (here.made_from.data, here.protocol):
            found.append(Effort(Path(path).parent.name, one.taught, one.pooled.ap))
    return sorted(found, key=lambda one: (one.minutes, one.name))


def _figure(found: Sequence[Effort]) -> Figure:
    ax = plots.new_axes(6.4, 3.6)
    for one in found:
        if one.ap is not None:
            ax.plot([one.minutes], [one.ap], "o", color=plots.GOOD)
            place = (one.minutes, one.ap)
            ax.annotate(one.name, place, (5, 4), textcoords="offset points", fontsize=8)
    ax.set_xlabel("minutes of labelling: 1 a mask, 1/60 a label (assumed)")
    ax.set_ylabel("average precision, pooled")
    ax.margins(x=0.3, y=0.2)
    return plots.figure_of(ax)
