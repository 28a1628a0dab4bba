"""The figures of a run, and one HTML file to send: both from the stored files alone.

The model is not run again. Pictures of surfaces come from a reader that the caller passes in; where
the data set is not at hand they are left out, and the report says so.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ksdd_lib
from ksdd_lib import storage, text
from ksdd_lib.data.inspection import format_report
from ksdd_lib.data.kolektorsdd import PUBLISHED
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.predictions import Prediction, every_score, failures_first, verdict
from ksdd_lib.evaluation.results import Results, load_results
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.presets import resolve
from ksdd_lib.reporting import wording
from ksdd_lib.runs.lock import alone
from ksdd_lib.settings import RULES
from ksdd_lib.settings_io import from_json, to_json
from ksdd_lib.training.loop import read_history
from ksdd_lib.training.targets import probability

ReadPair = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""Image name -> image uint8 (H, W) and mask bool (H, W)."""

STRIP_ROWS = 6  # surfaces on one picture of the strip: half a printed page
STRIP_LIMITS = {"missed": 36, "false alarm": 24, "found": 60}

CLOSE_UPS = 6
"""Errors that the first screen shows, misses first."""

CAPTIONS = {
    "errors": (
        "The errors at a glance",
        "The place that matters, enlarged: a missed defect in its outline; in a false alarm, where "
        "the network saw one, with its width in pixels of the photograph. Whole surfaces, also "
        "without the outline, stand below.",
    ),
    "strip": (
        "Defective and flagged surfaces",
        "Misses first, then false alarms, then the hits with the lowest scores first; upright "
        "surfaces lie on their side. Compare the outline of the annotation with where the output "
        "is bright; {scale}. It is the mask alone; the verdict comes from the score at the right. "
        "A straight dark line near an edge is no fault of the surface: the network sees there that "
        "the picture ends, and is surer.",
    ),
    "scores": (
        "Scores",
        "Each dot is one surface. The further apart the two kinds, the safer the verdict: a dot on "
        "the wrong side of its fold's line is an error, one near it would flip with little noise.",
    ),
    "precision_recall_curve": (
        "Precision and recall",
        "Going right, more defects are found; going down, more of the alarms are false. The "
        "area under the steps is the average precision (AP). The point may lie beside the curve: "
        "each fold has its own threshold, the curve one for all.",
    ),
    "roc_curve": (
        "ROC curve",
        "The share of defects found against the share of good surfaces flagged. With few defective "
        "surfaces it looks kinder than precision and recall do.",
    ),
    "confusion_matrix": (
        "Verdicts",
        "All test surfaces at the operating thresholds; orange fields are errors.",
    ),
    "training_curves": (
        "Training",
        "The loss on training surfaces, on a logarithmic axis. Faint: as logged; strong: its "
        "running mean. One that is flat from the start learned nothing. Where the step length "
        "falls to zero at the end (one cycle), a flat end does not say that more steps are no use.",
    ),
}
"""Kind of figure -> its title, and how to read it."""


# Figures


@alone
def make_figures(run_folder: Path, read_pair: ReadPair | None = None) -> dict[str, Path]:
    """Draw every figure of a run into its `figures/`; older ones of the same kinds are replaced.

    Args:
        read_pair: gives image and mask of a name; None leaves out the pictures of surfaces.

    Returns:
        Figure name ("strip_1", "roc_curve", ...) -> PNG file, in the order of the report.

    Raises:
        RunError: as of `load_results`, or another process works in the folder.
    """
    return _write_figures(load_results(run_folder), read_pair)


def _write_figures(results: Results, read_pair: ReadPair | None) -> dict[str, Path]:
    from ksdd_lib.reporting import plots

    folder = results.folder / "figures"
    paths = {}
    for name, figure in _draw_figures(results, read_pair):
        if results.data["is_generated"]:
            plots.stamp(figure)
        paths[name] = folder / f"{name}.png"
        storage.write_bytes(paths[name], plots.png(figure))
    for path in folder.glob("*.png"):
        if _kind(path.stem) in CAPTIONS and path.stem not in paths:
            path.unlink()
    return paths


def _kind(figure_name: str) -> str:
    """ "strip_2" -> "strip"."""
    return figure_name.rstrip("0123456789").removesuffix("_")


def _draw_figures(results: Results, read_pair: ReadPair | None) -> Iterator[tuple[str, Any]]:
    """(name, figure), one at a time, so that only one is in memory."""
    from ksdd_lib.reporting import plots, surface_pictures
    from ksdd_lib.reporting.defect_strip import defect_strip, logit_range

    rows = results.rows
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    flagged, folds = [row.is_flagged for row in rows], [row.fold for row in rows]
    if read_pair is not None and results.masks is not None:
        wrong = [row for row in failures_first(rows) if verdict(row) != "found"]
        shown = [judged_surface(results, row, read_pair) for row in wrong[:CLOSE_UPS]]
        if shown:
            yield "errors", surface_pictures.close_ups(shown)
        for number, page in enumerate(_strip_pages(rows), start=1):
            surfaces = [judged_surface(results, row, read_pair) for row in page]
            score_range = logit_range(rows)
            yield f"strip_{number}", defect_strip(surfaces, score_range)
    thresholds = {fold.fold: fold.threshold for fold in results.metrics.folds}
    oracle = results.metrics.pooled.oracle.threshold
    yield "scores", plots.score_strip(labels, scores, folds, thresholds, oracle).figure
    curve = plots.precision_recall_curve(labels, scores, flagged)
    yield "precision_recall_curve", curve.figure
    yield "roc_curve", plots.roc_curve(labels, scores, flagged).figure
    yield "confusion_matrix", plots.confusion_matrix(labels, flagged).figure
    histories = _histories(results)
    if any(histories.values()):
        yield "training_curves", plots.training_curves(histories)


def _histories(results: Results) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Stage -> fold -> the rows of its history, where there are any."""
    return {
        stage: {
            fold: history
            for fold in results.metrics.folds_trained
            if (history := read_history(results.folder / f"fold{fold}" / f"{stage}.jsonl"))
        }
        for stage in [plan.name for plan in method_of(results.settings).stages]
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


def judged_surface(results: Results, row: Prediction, read_pair: ReadPair) -> Any:
    """All that a picture of a row shows, as `panels.JudgedSurface`, from the stored files."""
    from ksdd_lib.reporting import surface_pictures

    image, annotation = read_pair(row.image)
    logits = results.masks[row.image].astype(np.float32)
    output = probability(torch.from_numpy(logits), results.settings["segmentation_loss"]).numpy()
    return surface_pictures.JudgedSurface(row, image, annotation, output)


def open_surfaces(
    run_folder: Path, read_pair: ReadPair
) -> tuple[list[Prediction], Callable[[Prediction], Any]]:
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
    import jinja2

    results = load_results(run_folder)
    figures = _write_figures(results, read_pair)
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": text.number,
        "interval": text.interval,
        "percent": text.percent,
    }
    context = _context(results, figures)
    path = results.folder / "report.html"
    storage.write_text(path, environment.from_string(template).render(context) + "\n")
    return path


def _context(results: Results, figures: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that the template shows, ready to print."""
    sections = _sections(results, figures)
    return {
        "metrics": results.metrics,
        "pooled": results.metrics.pooled,
        "data": results.data,
        "version": ksdd_lib.__version__,
        "run_name": results.folder.resolve().name,
        "preset": results.settings.get("preset", "own"),
        "folds_text": wording.folds_text(results),
        "conclusion": wording.conclusion(results.metrics.pooled, results.data["is_generated"]),
        "unlucky": wording.unlucky_thresholds(results.metrics),
        "in_words": [
            *wording.in_words(results.metrics.pooled, results.rows),
            wording.speed(results),
        ],
        "data_title": "KolektorSDD" if results.data["is_kolektor"] else results.data["name"],
        "rates": wording.rates(results.metrics.pooled),
        "cautions": wording.cautions(results),
        "strip_note": _strip_note(results, figures),
        "has_pictures": "strip_1" in figures,
        "glance": sections.pop("errors", None),
        "evaluated": results.environment.get("evaluated on"),
        "sections": list(sections.values()),
        "judges": _judges(results),
        "published": PUBLISHED if results.data["is_kolektor"] else (),
        "published_note": wording.published_note(results),
        "settings": _settings_table(results.settings),
        "data_report": format_report(results.data["report"]),
        "trained_defects": results.metrics.trained_defects or {},
        "again": _command(results),
        "image_size": results.settings["image_size"],
        "few": results.settings.get("defective_images"),
        "rows": sorted(results.rows, key=lambda row: -row.score),
        "environment": [
            (
                text.words(name),
                DIRTY.sub(r"\1 with changes that are in no commit", text.plain(value)),
            )
            for name, value in results.environment.items()
        ],
        "example": results.rows[0],
        "leaks": bool(wording.leak(results)),
        "timing": [(row["what"], text.duration(row["seconds"])) for row in results.timing],
        "time_total": text.duration(sum(row["seconds"] for row in results.timing)),
    }


DIRTY = re.compile(r"\b([0-9a-f]{7,40})\+")
"""A commit, with the "+" of a checkout whose files differ from it."""


def _strip_note(results: Results, figures: Mapping[str, Path]) -> str:
    """Why surfaces are not shown, or which of them are left out; empty where all are."""
    wanted = len(failures_first(results.rows))
    if "strip_1" not in figures:
        if not wanted:
            return "No surface is defective or flagged, so there is none to show."
        missing = "the data set was not at hand" if results.masks else "masks.npz is missing"
        return f"Pictures of the surfaces are left out: {missing}."
    shown = len(_strip_rows(results.rows))
    return f"{shown} of {wanted} defective or flagged surfaces are shown." * (shown < wanted)


def _sections(results: Results, figures: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Kind of figure -> all of that kind: title, how to read it, pictures as data addresses."""
    scale = (
        "it is drawn on one scale, the probability of a defect from 0 to 1; colours follow its "
        "square root"
    )
    if results.settings["segmentation_loss"] == "mean_squared_error":
        scale = "it is drawn on one scale, the mask output itself from 0 to 1"
    sections: dict[str, dict[str, Any]] = {}
    for name, path in figures.items():
        title, text = CAPTIONS[_kind(name)]
        section = sections.setdefault(
            _kind(name),
            {"kind": _kind(name), "title": title, "text": text.format(scale=scale), "pictures": []},
        )
        encoded = base64.b64encode(path.read_bytes()).decode("ascii")
        section["pictures"].append(f"data:image/png;base64,{encoded}")
    return sections


JUDGES = {
    "decision": "the decision network alone",
    "mask": "the highest value of the mask alone",
    "both": "both: the sum of their logits",
}


def _judges(results: Results) -> list[dict[str, Any]]:
    """What each way to judge reaches, pooled; the run's own is marked, the darkest pixel last."""
    labels = [row.is_defective for row in results.rows]
    kind = results.settings.get("score", "decision")
    loss = results.settings["segmentation_loss"]
    judges = [
        {
            "name": JUDGES[name],
            "is_own": name == kind,
            "ap": metrics.average_precision(labels, scores),
            "auc": metrics.roc_auc(labels, scores),
            "oracle": metrics.oracle(labels, scores),
        }
        for name, scores in every_score(results.rows, kind, loss).items()
    ]
    if darkest := results.metrics.darkest_pixel:
        name = "the darkest pixel, without training"
        judges.append({"name": name, "is_own": False, "oracle": None, **dict(darkest)})
    return judges


def _command(results: Results) -> str:
    """The command that does the run again, but for where the data lies."""
    settings = to_json(from_json(results.settings))
    preset = to_json(resolve({"preset": settings["preset"]}))
    arithmetic = results.environment.get("arithmetic", "float32")
    if settings["precision"] == "auto" and arithmetic in RULES["precision"].choices:
        settings["precision"] = arithmetic  # another machine might choose another
    changed = [
        f"--set {name}={settings[name]}"
        for name in settings
        if settings[name] != preset[name] and name not in ("data", "preset", "checkpoint_steps")
    ]
    return " ".join(["python -m ksdd_lib run --data DATA --preset", settings["preset"], *changed])


def _settings_table(settings: Mapping[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """(name, value, unit, reason, whether the preset has another value) of each stored setting."""
    preset = to_json(resolve({"preset": settings.get("preset", "demo")}))
    return [
        (name, text.plain(value), RULES[name].unit, RULES[name].reason, value != preset[name])
        if name in RULES
        else (name, text.plain(value), "", "", False)
        for name, value in settings.items()
    ]
