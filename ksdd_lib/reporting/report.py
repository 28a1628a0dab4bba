"""The figures of a run, and one HTML file to send: both from the stored files alone.

The model is not run again. Pictures of surfaces come from a reader that the caller passes in. Where
the data set is not at hand they are left out, and the report says so.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import torch
from matplotlib.figure import Figure

import ksdd_lib
from ksdd_lib import storage, text
from ksdd_lib.data.inspection import format_report
from ksdd_lib.data.kolektorsdd import PUBLISHED
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.predictions import Prediction, failures_first, verdict
from ksdd_lib.evaluation.results import Results, load_results
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.two_stage import every_score
from ksdd_lib.presets import resolve
from ksdd_lib.reporting import plots, wording
from ksdd_lib.reporting.defect_strip import defect_strip, logit_range
from ksdd_lib.reporting.surface_pictures import JudgedSurface, close_ups
from ksdd_lib.runs.lock import alone
from ksdd_lib.settings import RULES, Rule, Settings
from ksdd_lib.settings_io import to_json
from ksdd_lib.training.loop import read_history

ReadPair = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""Image name -> image uint8 (H, W) and mask bool (H, W)."""

KINDS = (
    "errors",
    "strip",
    "scores",
    "precision_recall_curve",
    "roc_curve",
    "confusion_matrix",
    "training_curves",
)
"""The kinds of figures. Of "strip" there may be several: strip_1, strip_2 and so on."""

STRIP_ROWS = 6  # surfaces on one picture of the strip: half a printed page
STRIP_LIMITS = {"missed": 36, "false alarm": 24, "found": 60}

CLOSE_UPS = 6
"""Errors that the first screen shows, misses first."""


# Figures


@alone
def make_figures(run_folder: Path, read_pair: ReadPair | None = None) -> dict[str, Path]:
    """Draw every figure of a run into its `figures/`; older ones of the same kinds are replaced.

    Args:
        read_pair: gives image and mask of a name; None leaves out the pictures of surfaces.

    Returns:
        Figure name ("strip_1", "roc_curve", ...) -> PNG file.

    Raises:
        RunError: as of `load_results`, or another process works in the folder.
    """
    return _write_figures(load_results(run_folder), read_pair)


def _write_figures(results: Results, read_pair: ReadPair | None) -> dict[str, Path]:
    folder = results.folder / "figures"
    paths = {}
    for name, figure in _draw_figures(results, read_pair):
        if results.data.is_generated:
            plots.stamp(figure)
        paths[name] = folder / f"{name}.png"
        storage.write_bytes(paths[name], plots.png(figure))
    for path in folder.glob("*.png"):
        if _kind(path.stem) in KINDS and path.stem not in paths:
            path.unlink()
    return paths


def _kind(figure_name: str) -> str:
    """ "strip_2" -> "strip"."""
    return figure_name.rstrip("0123456789").removesuffix("_")


def _draw_figures(results: Results, read_pair: ReadPair | None) -> Iterator[tuple[str, Figure]]:
    """(name, figure), one at a time, so that only one is in memory."""
    rows = results.rows
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    flagged, folds = [bool(row.is_flagged) for row in rows], [row.fold for row in rows]
    if read_pair is not None and results.masks is not None:
        wrong = [row for row in failures_first(rows) if verdict(row) != "found"][:CLOSE_UPS]
        if wrong:
            yield "errors", close_ups([judged_surface(results, row, read_pair) for row in wrong])
        for number, page in enumerate(_strip_pages(rows), start=1):
            surfaces = [judged_surface(results, row, read_pair) for row in page]
            yield f"strip_{number}", defect_strip(surfaces, logit_range(rows))
    thresholds = {fold.fold: fold.threshold for fold in results.summary.folds}
    oracle = results.summary.pooled.oracle.threshold
    axes = {
        "scores": plots.score_strip(labels, scores, folds, thresholds, oracle),
        "precision_recall_curve": plots.precision_recall_curve(labels, scores, flagged),
        "roc_curve": plots.roc_curve(labels, scores, flagged),
        "confusion_matrix": plots.confusion_matrix(labels, flagged),
    }
    for name, ax in axes.items():
        figure = ax.get_figure(root=True)
        assert figure is not None
        yield name, figure
    histories = _histories(results)
    if any(histories.values()):
        yield "training_curves", plots.training_curves(histories)


def _histories(results: Results) -> plots.Histories:
    """The loss of each stage that the method has, where it is stored."""
    return {
        stage.name: {
            fold: history
            for fold in results.summary.folds_trained
            if (history := read_history(results.folder / f"fold{fold}" / f"{stage.name}.jsonl"))
        }
        for stage in method_of(results.settings).stages
    }


def _strip_rows(rows: Sequence[Prediction]) -> list[Prediction]:
    """What the strip shows: failures first, and no more of a kind than its limit."""
    left, shown = dict(STRIP_LIMITS), []
    for row in failures_first(rows):
        kind = verdict(row)
        left[kind] -= 1
        if left[kind] >= 0:
            shown.append(row)
    return shown


def _strip_pages(rows: Sequence[Prediction]) -> Iterator[list[Prediction]]:
    shown = _strip_rows(rows)
    for start in range(0, len(shown), STRIP_ROWS):
        yield shown[start : start + STRIP_ROWS]


def judged_surface(results: Results, row: Prediction, read_pair: ReadPair) -> JudgedSurface:
    """All that a picture of a row shows, from the stored files, which must hold the maps."""
    assert results.masks is not None
    image, annotation = read_pair(row.image)
    values = torch.from_numpy(results.masks[row.image].astype(np.float32))
    output = method_of(results.settings).probability(values, results.settings).numpy()
    return JudgedSurface(row, image, annotation, output)


def open_surfaces(
    run_folder: Path, read_pair: ReadPair
) -> tuple[list[Prediction], Callable[[Prediction], JudgedSurface]]:
    """The rows of a run's predictions.csv, and a function that gives all that is shown of one.

    Raises:
        RunError: as of `load_results`.
    """
    results = load_results(run_folder)
    return results.rows, lambda row: judged_surface(results, row, read_pair)


# The report


@alone
def make_report(run_folder: Path, read_pair: ReadPair | None = None) -> Path:
    """Draw the figures, and write them with every number into one file, `report.html`.

    The file needs nothing beside it: no script, no style sheet, no picture from elsewhere.

    Args: as of `make_figures`.

    Returns:
        The path of report.html.

    Raises:
        RunError: as of `load_results`, or another process works in the folder.
    """
    results = load_results(run_folder)
    pictures = _pictures(_write_figures(results, read_pair))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (text.number, text.interval, text.percent, text.duration, text.plain, text.words)
    environment.filters |= {one.__name__: one for one in (*filters, spelled_out)}
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        results=results,
        stages=[stage.name for stage in method_of(results.settings).stages],
        wording=wording,
        pictures=pictures,
        strip_shown=len(_strip_rows(results.rows)),
        strip_wanted=len(failures_first(results.rows)),
        judges=_judges(results),
        published=PUBLISHED if results.data.is_kolektor else (),
        data_report=format_report(results.data.report),
        again=_command(results),
        setting_rows=_setting_rows(results.settings),
        version=ksdd_lib.__version__,
    )
    path = results.folder / "report.html"
    storage.write_text(path, page + "\n")
    return path


def _pictures(figures: Mapping[str, Path]) -> dict[str, list[str]]:
    """Kind of figure -> all of that kind, as addresses that hold the pictures themselves."""
    found: dict[str, list[str]] = {}
    for name, path in figures.items():
        encoded = base64.b64encode(path.read_bytes()).decode("ascii")
        found.setdefault(_kind(name), []).append(f"data:image/png;base64,{encoded}")
    return found


class Judged(NamedTuple):
    """What one way to judge reaches, all folds pooled; `is_own` marks that of the run."""

    name: str
    is_own: bool
    ap: float | None
    auc: float | None
    oracle: metrics.Oracle | None


def _judges(results: Results) -> list[Judged]:
    """The scores that the run's method may be judged by, then the darkest pixel.

    There are none where the method has but one score.
    """
    settings, method = results.settings, method_of(results.settings)
    if "score" not in method.judged_by:
        return []
    names = {stage.name: f"the {stage.name} network alone" for stage in method.stages} | {
        "mask": "the highest value of the mask alone",
        "both": "both: the sum of their logits",
    }
    labels, own = [row.is_defective for row in results.rows], [row.score for row in results.rows]
    highest = [row.map_score for row in results.rows]
    judges = [
        Judged(
            names[name],
            name == settings.score,
            metrics.average_precision(labels, scores),
            metrics.roc_auc(labels, scores),
            metrics.oracle(labels, scores),
        )
        for name, scores in every_score(settings, own, highest).items()
    ]
    if darkest := results.summary.darkest_pixel:
        name = "the darkest pixel, without training"
        judges.append(Judged(name, False, darkest.ap, darkest.auc, None))
    return judges


def _command(results: Results) -> str:
    """The command that does the run again, but for where the data lies."""
    settings = to_json(results.settings)
    arithmetic = results.environment.get("arithmetic", "float32")
    if settings["precision"] == "auto" and arithmetic in RULES["precision"].choices:
        settings["precision"] = arithmetic  # another machine might choose another
    preset = to_json(resolve({"preset": results.settings.preset}))
    changed = [
        f"--set {name}={value}"
        for name, value in settings.items()
        if value != preset[name] and name not in ("data", "preset", "checkpoint_steps")
    ]
    command = f"python -m ksdd_lib run --data DATA --preset {results.settings.preset}"
    return " ".join([command, *changed])


def spelled_out(fact: str) -> str:
    """A fact of the environment; the "+" after a commit says that files of the checkout differ."""
    return re.sub(r"\b([0-9a-f]{7,40})\+", r"\1 with changes that are in no commit", fact)


def _setting_rows(settings: Settings) -> list[tuple[str, str, Rule, bool]]:
    """(name, value, rule, whether the preset has another value) of each setting."""
    preset = to_json(resolve({"preset": settings.preset}))
    return [
        (name, text.plain(value), RULES[name], value != preset[name])
        for name, value in to_json(settings).items()
    ]
