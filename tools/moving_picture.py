"""Draws the README's moving picture from a finished demo: a mask that forms while the network
trains, a part that it has never seen, and the threshold as it moves over the scores.

`python tools/executed.py` calls it. Every map, score and number is that of the run.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import Prediction, verdict
from ksdd_lib.notebook.live import Examples
from ksdd_lib.reporting.plots import DEFECTIVE, GOOD, INK, Keywords, stamp, style
from ksdd_lib.reporting.report import open_surfaces
from ksdd_lib.reporting.surface_pictures import JudgedSurface, picture_style, show_image
from ksdd_lib.reporting.training_view import Forming
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data

PICTURE = Path(__file__).resolve().parents[1] / "assets" / "found.gif"

WIDTH, HEIGHT, DPI = 8.0, 3.6, 100  # inches, and pixels an inch
COLOURS, WHITE = 192, 246  # of the palette; from this level on a colour is the page's own
FADED, FLAGGED = "#777777", "#f6ece4"
ROWS = 7  # of dots for each kind, so that near scores do not cover each other

Frame = tuple[Figure, int]
"""A figure, and for how many milliseconds it stands."""


def write_picture(run_folder: Path) -> None:
    """Draw a finished demo, whose notebooks have kept the maps; RunError where there are none."""
    storage.write_bytes(PICTURE, gif([*frames(run_folder)]))


def frames(run_folder: Path) -> Iterator[Frame]:
    """About 15 seconds; raises as `write_picture`."""
    run = open_run(run_folder)
    data = open_data(run)
    rows, surface = open_surfaces(run.folder, data.read_pair)
    fold = run.settings.fold_numbers[0]
    forming = Examples(run, data, fold).forming(fold, True)
    if forming is None:
        raise RunError(f"{run.folder.name} kept no maps of its training: run its notebooks.")
    last = max(forming.masks)
    for step in forming.masks:
        yield training(forming, step, last), 1400 if step == last else 520
    best = max((row for row in rows if row.is_defective), key=lambda row: row.margin)
    yield judged(surface(best)), 2600
    margins = [row.margin for row in rows]
    low, high = min(margins) - 0.3, max(margins) + 0.3
    for place in [*np.linspace(low, high, 17), *np.linspace(high, 0.0, 7)[1:-1]]:
        yield scores(rows, place), 210
    yield scores(rows, 0.0), 2800


@style()
def page(number: int, title: str) -> Figure:
    """An empty frame."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    box: Keywords = {"boxstyle": "circle,pad=0.25", "facecolor": GOOD, "edgecolor": "none"}
    look: Keywords = {"fontweight": "bold", "va": "top"}
    figure.text(0.02, 0.955, f"{number}", color="white", fontsize=13, bbox=box, **look)
    figure.text(0.065, 0.96, title, fontsize=15, **look)
    return stamp(figure)


@picture_style
def training(forming: Forming, step: int, last: int) -> Figure:
    """A crack and a good surface, both in training, and what the network sees at this step."""
    figure = page(1, "Training: the network learns where a crack is")
    for row, name in enumerate(("a crack, outlined", "a good surface")):
        left, (bottom, height) = 0.03 + 0.42 * row, (0.04, 0.74)
        ax, beside = (figure.add_axes((x, bottom, 0.2, height)) for x in (left, left + 0.206))
        show_image(ax, forming.images[row], forming.outlines[row])
        show_image(beside, forming.masks[step][row])
        ax.set_title(name, fontsize=11)
        beside.set_title("what it marks", fontsize=11)
    figure.text(0.925, 0.5, f"{step}", fontsize=30, fontweight="bold", ha="center")
    figure.text(0.925, 0.41, f"of {last} steps", fontsize=11, ha="center", color=FADED)
    return figure


@picture_style
def judged(surface: JudgedSurface) -> Figure:
    """A test surface beside its output, and the verdict."""
    row = surface.prediction
    figure = page(2, "A part that it has never seen")
    show_image(figure.add_axes((0.03, 0.03, 0.25, 0.82)), surface.image)
    show_image(figure.add_axes((0.29, 0.03, 0.25, 0.82)), surface.output.astype(np.float32))
    figure.text(0.58, 0.55, verdict(row), fontsize=34, fontweight="bold", color=GOOD)
    figure.text(0.58, 0.44, f"score {row.score:.2f}, threshold {row.threshold:.2f}", fontsize=12)
    figure.text(0.58, 0.37, f"{row.image}, fold {row.fold}", fontsize=12, color=FADED)
    figure.text(0.58, 0.3, "the clearest one", fontsize=12, color=FADED)
    return figure


@style(axes_grid=False)
def scores(rows: Sequence[Prediction], place: float) -> Figure:
    """All test surfaces by their score, a threshold at `place` from their own, and its errors."""
    margins = np.array([row.margin for row in rows])
    bad = np.array([row.is_defective for row in rows])
    wrong = bad != (margins > place)
    figure = page(3, "Where to draw the line?")
    ax = figure.add_axes((0.11, 0.15, 0.54, 0.64))
    _dots(ax, margins, bad, wrong)
    ax.axvline(place, color=INK, linewidth=2.5)
    ax.axvspan(place, margins.max() + 1, color=FLAGGED, zorder=0)
    ax.text(place + 0.1, 16, "flagged", fontsize=10, color=FADED, va="top", clip_on=True)
    for top, kind, word in ((0.66, bad, "missed"), (0.4, ~bad, "false alarms")):
        count = int((kind & wrong).sum())
        color = DEFECTIVE if count else INK
        figure.text(0.7, top, f"{count}", fontsize=32, fontweight="bold", color=color)
        figure.text(0.81, top + 0.035, f"of {kind.sum()}", fontsize=12, color=FADED)
        figure.text(0.7, top - 0.07, word, fontsize=13)
    if place == 0:
        told = "set by the scores\nof other folds"
        figure.text(0.7, 0.13, told, fontsize=11.5, color=GOOD, fontweight="bold")
    return figure


def _dots(ax: Axes, margins: np.ndarray, bad: np.ndarray, wrong: np.ndarray) -> None:
    """A dot for each surface, a cross where its verdict is wrong; cracks above the good ones."""
    lift = np.empty(len(margins))
    lift[np.argsort(margins)] = 5 * np.arange(len(margins)) % ROWS
    for kind, word, color, base in ((True, "crack", DEFECTIVE, 8), (False, "good", GOOD, 0)):
        for is_wrong, marker, size in ((False, "o", 34), (True, "X", 60)):
            here = (bad == kind) & (wrong == is_wrong)
            look: Keywords = {"color": color, "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
            ax.scatter(margins[here], base + lift[here], s=size, marker=marker, **look)
        where: Keywords = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center"}
        ax.text(-0.02, base + ROWS / 2, word, color=color, fontsize=12, **where)
    ax.set(xlim=(margins.min() - 0.5, margins.max() + 0.5), ylim=(-1.5, 16.2), yticks=[])
    ax.set_xlabel("how far a score lies above its threshold; each dot is a surface", fontsize=10)
    ax.spines["left"].set_visible(False)


def gif(shown: Sequence[Frame]) -> bytes:
    """A GIF that plays again and again, with one palette for all frames."""
    pictures = []
    for figure, _ in shown:
        content = io.BytesIO()
        with style():
            figure.savefig(content, format="png", dpi=DPI)
        pictures.append(Image.open(content).convert("RGB"))
    wide, high = pictures[0].size
    all_of_it = Image.new("RGB", (wide, high * len(pictures)))
    for row, picture in enumerate(pictures):
        all_of_it.paste(picture, (0, row * high))
    palette = all_of_it.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(1) > WHITE] = 255
    palette.putpalette(colours.ravel().tolist())
    flat = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures]
    content, times = io.BytesIO(), [milliseconds for _, milliseconds in shown]
    told: Keywords = {"save_all": True, "append_images": flat[1:], "duration": times, "loop": 0}
    flat[0].save(content, "GIF", optimize=True, **told)
    return content.getvalue()
