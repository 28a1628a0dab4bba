"""study.html: a table of the cells, a figure for each factor, a heat map, and sentences."""

import base64
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import ksdd_lib
from ksdd_lib import storage
from ksdd_lib.formatting import duration, words
from ksdd_lib.reporting import plots
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, GOOD, INK
from ksdd_lib.setting_rules import Value
from ksdd_lib.study.grid import Grid, Job, described
from ksdd_lib.study.results import Factor, Outcome, Row, outcome, sentences, shown


def write_page(grid: Grid, jobs: list[Job], out: Path) -> Path:
    """Write study.html and its figures/ from what has finished below `out` -> the page."""
    found = outcome(grid, jobs, out)
    figures = {f"effect_{one.name}": effect_figure(one) for one in found.factors if one.effects}
    figures = {"cells": heat_map(grid, found)} | figures
    pictures = {}
    for name, figure in figures.items():
        if found.is_generated:
            plots.stamp(figure)
        data = plots.png(figure)
        storage.write_bytes(out / "figures" / f"{name}.png", data)
        encoded = base64.b64encode(data).decode("ascii")
        pictures[name] = f"data:image/png;base64,{encoded}", plots.describe(figure)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"words": words, "duration": duration, "shown": shown, "points": points}
    template = Path(__file__).with_name("study.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        grid=grid,
        found=found,
        sentences=sentences(found),
        pictures=pictures,
        recipe=described(grid, jobs[0]),
        protocol=jobs[0].settings.folds,
        minutes=sum(row.minutes for row in found.rows),
        version=ksdd_lib.__version__,
    )
    storage.write_text(out / "study.html", page + "\n")
    return out / "study.html"


def points(ap: float | None) -> str:
    """AP as the paper writes it, 100 for perfect; "-" where there is none."""
    return "-" if ap is None else f"{100 * ap:.1f}"


@plots.style()
def effect_figure(factor: Factor) -> Figure:
    """How far each value of a factor lies from the mean of all, with its 95 % interval."""
    figure = plots.sheet(6.4, 1.5 + 0.38 * len(factor.effects), above=0.266)
    ax = figure.add_subplot()
    for height, effect in enumerate(factor.effects):
        if effect.interval:
            ax.plot(effect.interval, [height] * 2, color=GOOD, linewidth=2)
        ax.plot(effect.mean, height, "o", color=GOOD)
    ax.axvline(0, color=FAINT, linewidth=1, zorder=0)
    ax.set_yticks(range(len(factor.effects)), [shown(one.value) for one in factor.effects])
    ax.set_ylim(len(factor.effects) - 0.5, -0.5)
    pairs = f"{factor.sets} set{'s' * (factor.sets != 1)} of runs, equal in all else"
    ax.set(title=f"Effect of the {words(factor.name)}", xlabel=f"AP against the mean ({pairs})")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -1), max(high, 1))  # a tenth of a point does not look like much
    return figure


@plots.style()
def heat_map(grid: Grid, found: Outcome) -> Figure:
    """AP of every cell, the mean over seeds and folds; what is not finished is hatched."""
    names = list(grid.vary)
    half = (len(names) + 1) // 2
    cells: dict[tuple[Value, ...], list[Row]] = {}
    for row in found.rows:
        cells.setdefault(row.cell, []).append(row)
    down = list(dict.fromkeys(cell[:half] for cell in cells))
    across = list(dict.fromkeys(cell[half:] for cell in cells))
    means = {cell: mean_of(rows) for cell, rows in cells.items()}
    known = [mean for mean in means.values() if mean is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    figure = plots.sheet(2.8 + 1.25 * len(across), 1.6 + 0.42 * len(down), above=0.266)
    ax = figure.add_subplot()
    tint = LinearSegmentedColormap.from_list("", [DEFECTIVE, "#f6f6f6", GOOD])
    for y, x in np.ndindex(len(down), len(across)):
        cell = down[y] + across[x]
        mean, is_whole = means[cell], all(row.state == "finished" for row in cells[cell])
        depth = 0.5 if mean is None or high == low else (mean - low) / (high - low)
        color = "white" if mean is None else tint(0.15 + 0.7 * depth)
        look: plots.Keywords = {} if is_whole else {"hatch": "///", "edgecolor": FAINT}
        ax.add_patch(Rectangle((x - 0.49, y - 0.47), 0.98, 0.94, facecolor=color, **look))
        ax.text(x, y, points(mean), ha="center", va="center", color=INK)
    ax.set_xticks(range(len(across)), [",\n".join(map(shown, cell)) or "AP" for cell in across])
    ax.set_yticks(range(len(down)), [", ".join(map(shown, cell)) for cell in down])
    ax.set(xlim=(-0.5, len(across) - 0.5), ylim=(len(down) - 0.5, -0.5), title="AP of each cell")
    ax.set(ylabel=", ".join(map(words, names[:half])), xlabel=", ".join(map(words, names[half:])))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return figure


def mean_of(rows: list[Row]) -> float | None:
    """The mean AP of rows, of those that have one."""
    known = [row.ap for row in rows if row.ap is not None]
    return float(np.mean(known)) if known else None
