"""The figures of a run, and one HTML file to send: both from the stored files alone.

The model is not run again. Without the data set the pictures of surfaces are left out.
"""

import base64
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import torch
from matplotlib.figure import Figure

import ksdd_lib
from ksdd_lib import storage
from ksdd_lib.data.data_report import format_report
from ksdd_lib.data.kolektorsdd import PAPER, PUBLISHED, annotators_iou
from ksdd_lib.evaluation.predictions import Prediction, failures_first, verdict
from ksdd_lib.evaluation.results import Results, load_results
from ksdd_lib.evaluation.summary import Ranking, reached
from ksdd_lib.formatting import duration, interval, number, percent, plain, words
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.presets import changes, resolve
from ksdd_lib.reporting import plots, surface_pictures, wording
from ksdd_lib.reporting.surface_pictures import JudgedSurface
from ksdd_lib.runs.lock import alone
from ksdd_lib.settings import RULES
from ksdd_lib.settings_io import to_json
from ksdd_lib.training.loop import read_history

ReadPair = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""Image name -> image uint8 (H, W) and mask bool (H, W)."""

# The kinds of figures. Of "strip" there may be several: strip_1, strip_2 and so on.
KINDS = {"errors", "strip", "scores", "confusion_matrix", "training_curves"}
KINDS |= {"precision_recall_curve", "roc_curve"}

OURS = re.compile(r"strip_\d+|" + "|".join(KINDS - {"strip"}))
"""The names of figures that may be removed."""

STRIP_ROWS = 6  # surfaces on one picture of the strip: half a printed page
STRIP_LIMITS = {"missed": 36, "false alarm": 24, "found": 60}
CLOSE_UPS = 6  # errors that are shown enlarged, misses first
SMALL, LARGE = 360, 640  # pixels: the longer side of a surface in the report, and on its first page


@alone
def make_figures(run_folder: Path, read_pair: ReadPair | None = None) -> dict[str, Path]:
    """Draw every figure of a run into its `figures/`: name ("strip_1", ...) -> PNG file.

    Older ones are replaced. Without `read_pair` there are no pictures of surfaces. Raises RunError:
    as of `load_results`, or another process works in the folder.
    """
    results, paths = load_results(run_folder), {}
    folder = results.folder / "figures"
    for name, figure in _draw_figures(results, read_pair):
        if results.data.is_generated:
            plots.stamp(figure)
        paths[name] = folder / f"{name}.png"
        storage.write_bytes(paths[name], plots.png(figure))
    for path in folder.glob("*.png"):
        if OURS.fullmatch(path.stem) and path.stem not in paths:
            storage.remove(path)
    return paths


def _draw_figures(results: Results, read_pair: ReadPair | None) -> Iterator[tuple[str, Figure]]:
    """(name, figure), one at a time, so that only one is in memory."""
    rows, summary = results.rows, results.summary
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    flagged, folds = [bool(row.is_flagged) for row in rows], [row.fold for row in rows]
    if read_pair is not None and results.masks is not None:
        surface = partial(judged_surface, results, read_pair)
        wrong = [row for row in failures_first(rows) if verdict(row) != "found"][:CLOSE_UPS]
        if wrong:
            yield "errors", surface_pictures.close_ups([surface(row) for row in wrong])
        limits = surface_pictures.logit_range(rows)
        shown = _strip_rows(rows)
        for sheet, start in enumerate(range(0, len(shown), STRIP_ROWS), start=1):
            surfaces = [surface(row) for row in shown[start : start + STRIP_ROWS]]
            yield f"strip_{sheet}", surface_pictures.defect_strip(surfaces, limits)
    thresholds = {fold.fold: fold.threshold for fold in summary.folds}
    strip = labels, scores, folds, thresholds, summary.pooled.oracle.threshold
    if summary.class_scores:  # by how far each is above the threshold of a class, if of any
        strip = labels, [row.margin for row in rows], folds, dict.fromkeys(thresholds, 0.0), None
    yield "scores", plots.figure_of(plots.score_strip(*strip))
    curve = plots.precision_recall_curve(labels, scores, flagged)
    yield "precision_recall_curve", plots.figure_of(curve)
    yield "roc_curve", plots.figure_of(plots.roc_curve(labels, scores, flagged))
    yield "confusion_matrix", plots.figure_of(plots.confusion_matrix(labels, flagged))
    histories = {
        stage.name: {
            fold: history
            for fold in summary.folds_trained
            if (history := read_history(results.folder / f"fold{fold}" / f"{stage.name}.jsonl"))
        }
        for stage in method_of(results.settings).stages
    }
    if any(histories.values()):
        yield "training_curves", plots.training_curves(histories)


def _strip_rows(rows: Sequence[Prediction]) -> list[Prediction]:
    """What the strip shows: failures first, and no more of a kind than its limit."""
    shown: list[Prediction] = []
    for kind, limit in STRIP_LIMITS.items():
        shown += [row for row in failures_first(rows) if verdict(row) == kind][:limit]
    return shown


def judged_surface(results: Results, read_pair: ReadPair, row: Prediction) -> JudgedSurface:
    """All that a picture of a row shows, from the stored files, which must hold the maps."""
    assert results.masks is not None
    image, annotation = read_pair(row.image)
    values = torch.from_numpy(results.masks[row.image].astype(np.float32))
    output = method_of(results.settings).probability(values, results.settings).numpy()
    return JudgedSurface(row, image, annotation, output)


def open_surfaces(
    run_folder: Path, read_pair: ReadPair
) -> tuple[list[Prediction], Callable[[Prediction], JudgedSurface]]:
    """The rows of predictions.csv, and what gives all that is shown of one; see `load_results`."""
    results = load_results(run_folder)
    return results.rows, partial(judged_surface, results, read_pair)


@alone
def make_report(
    run_folder: Path, read_pair: ReadPair | None = None, author: str = "", comment: str = ""
) -> Path:
    """Write figures and numbers into report.html, which needs no other file; as `make_figures`.

    Its first page is for who decides; `author` and `comment` stand on it. The rest is folded.
    """
    results = load_results(run_folder)
    settings = results.settings
    preset = to_json(resolve({"preset": settings.preset}))
    figures = make_figures(run_folder, read_pair)
    pictures = {  # name of a figure -> the address that holds it
        name: _address(path.read_bytes())
        for name, path in figures.items()
        if not name.startswith("strip")  # their surfaces are shown one by one
    }
    shown = _strip_rows(results.rows)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (duration, interval, number, percent, plain, words, spelled_out)
    environment.filters |= {one.__name__: one for one in filters}
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        results=results,
        method=method_of(settings),
        wording=wording,
        pictures=pictures,
        examples=_examples(results, read_pair),
        cards=_cards(results, read_pair, shown, SMALL),
        author=author.strip(),
        comment=comment.strip(),
        strip_shown=len(shown),
        strip_wanted=len(failures_first(results.rows)),
        judges=_judges(results),
        published=PUBLISHED if results.data.is_kolektor else (),
        data_report=format_report(results.data.report),
        again=_command(results),
        stored=to_json(settings),
        preset=preset,
        rules=RULES,
        paper=PAPER,
        annotators=annotators_iou(),
        version=ksdd_lib.__version__,
    )
    storage.write_text(results.folder / "report.html", page + "\n")
    return results.folder / "report.html"


class Card(NamedTuple):
    """A surface in the report: what is said above its picture, and the address that holds it."""

    row: Prediction
    verdict: str
    address: str
    why: str = ""  # it is shown, of all of its kind


def _cards(
    results: Results, read_pair: ReadPair | None, rows: Sequence[Prediction], longest: int
) -> list[Card]:
    """A card for each row; none where the data or the maps are not at hand."""
    if read_pair is None or results.masks is None:
        return []
    draw = partial(surface_pictures.card, is_generated=results.data.is_generated)
    surfaces = (judged_surface(results, read_pair, row) for row in rows)
    return [
        Card(one.prediction, verdict(one.prediction), _address(draw(one, longest)))
        for one in surfaces
    ]


def _examples(results: Results, read_pair: ReadPair | None) -> list[Card]:
    """What the first page shows, and why: the clearest defect, and the two worst errors.

    Without errors it is the closest call instead.
    """
    rows = results.rows
    found = sorted((r for r in rows if verdict(r) == "found"), key=lambda row: -row.margin)
    wrong = [row for row in failures_first(rows) if verdict(row) != "found"]
    shown = [(row, f"the clearest of {len(found)}") for row in found[:1]]
    closest = [(row, f"the closest call of {len(found)}") for row in found[1:][-1:]]
    shown += [(row, "") for row in wrong[:2]] or closest
    cards = _cards(results, read_pair, [row for row, _ in shown], LARGE)
    return [card._replace(why=why) for card, (_, why) in zip(cards, shown, strict=False)]


def _address(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"


class KindOfScore(NamedTuple):
    """What a kind of score reaches, all folds pooled; `is_own` marks that of the run."""

    name: str
    is_own: bool
    reached: Ranking  # with its oracle, but for the darkest pixel


def _judges(results: Results) -> list[KindOfScore]:
    """The scores that the run's method may be judged by, then the darkest pixel; or none."""
    settings, method = results.settings, method_of(results.settings)
    labels, own = [row.is_defective for row in results.rows], [row.score for row in results.rows]
    highest = [row.map_score for row in results.rows]
    judges = [
        KindOfScore(method.score_names[name], name == settings.score, reached(labels, scores))
        for name, scores in method.every_score(settings, own, highest).items()
    ]
    if judges and (darkest := results.summary.darkest_pixel):
        judges.append(KindOfScore("the darkest pixel, without training", False, darkest))
    return judges


def _command(results: Results) -> str:
    """The command that does the run again, but for where the data lies."""
    settings = results.settings
    arithmetic = results.environment.get("arithmetic", "float32")
    if settings.precision == "auto" and arithmetic in RULES["precision"].choices:
        # Another machine might choose another.
        settings = settings.with_values({"precision": arithmetic})
    changed = changes(settings).items()
    given = [
        f"--set {shlex.quote(f'{name}={value}')}"
        for name, value in changed
        if name != "checkpoint_steps"
    ]
    return " ".join(["python -m ksdd_lib run --data DATA --preset", settings.preset, *given])


def spelled_out(fact: str) -> str:
    """A fact of the environment; the "+" after a commit says that files of the checkout differ."""
    return re.sub(r"\b([0-9a-f]{7,40})\+", r"\1 with changes that are in no commit", fact)
