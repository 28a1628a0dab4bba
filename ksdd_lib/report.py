"""The figures of a run, and one HTML file to send: both from the stored files alone.

The model is not run again. Pictures of surfaces come from a reader that the caller passes in; where
the data set is not at hand they are left out, and the report says so.
"""

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ksdd_lib
from ksdd_lib import metrics, origin, protocols, storage
from ksdd_lib.batches import STAGES
from ksdd_lib.errors import RunError
from ksdd_lib.evaluate import read_masks
from ksdd_lib.inspection import format_report
from ksdd_lib.metrics import Prediction
from ksdd_lib.operating import parts_needed
from ksdd_lib.run import alone
from ksdd_lib.settings import RULES, from_json, resolve, to_json
from ksdd_lib.targets import probability
from ksdd_lib.train import read_history

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


@dataclass(frozen=True)
class Results:
    """What a run folder stores about its results, checked to belong together."""

    folder: Path
    rows: list[Prediction]
    masks: Mapping[str, np.ndarray] | None
    metrics: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    folds: Mapping[str, Any]
    environment: Mapping[str, Any]
    timing: Sequence[Mapping[str, Any]]


def load_results(run_folder: Path) -> Results:
    """Read the stored results of a run.

    Raises:
        RunError: a file is missing or damaged, metrics.json or masks.npz is not of this
            predictions.csv, or they are of other data, settings or weights than the run's.
    """
    folder = Path(run_folder)
    rows = metrics.read_predictions(folder / "predictions.csv")
    summary = storage.read_json(folder / "metrics.json")
    if storage.sha256(folder / "predictions.csv") != summary.get("predictions_sha256"):
        raise RunError(
            "metrics.json was not made from this predictions.csv: one of them was edited, or comes "
            "from another run. Evaluate again."
        )
    folds = storage.read_json(folder / "folds.json")
    origin.require_own(folder, summary.get("made_from", {}))
    train_items = {fold["fold"]: fold["train_items"] for fold in folds["folds"]}
    origin.require_true(summary, rows, train_items)
    masks = read_masks(folder / "masks.npz") if (folder / "masks.npz").exists() else None
    if masks is not None and list(masks) != [row.image for row in rows]:
        raise RunError("masks.npz holds other images than predictions.csv. Evaluate again.")
    hashed = summary.get("masks_sha256")  # results of earlier versions name none
    if masks is not None and hashed not in (None, storage.sha256(folder / "masks.npz")):
        raise RunError("masks.npz was edited, or is of another run. Evaluate again.")

    def stored(name: str, default: Any) -> Any:
        return storage.read_json(folder / name) if (folder / name).exists() else default

    return Results(
        folder=folder,
        rows=rows,
        masks=masks,
        metrics=summary,
        settings=storage.read_json(folder / "settings.json"),
        data=storage.read_json(folder / "data.json"),
        folds=folds,
        environment=stored("environment.json", {}),
        timing=stored("timing.json", []),
    )


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
    from ksdd_lib import visualize

    folder = results.folder / "figures"
    paths = {}
    for name, figure in _draw_figures(results, read_pair):
        if results.data["is_generated"]:
            visualize.stamp(figure, "GENERATED")
        paths[name] = folder / f"{name}.png"
        storage.write_bytes(paths[name], visualize.png(figure))
    for path in folder.glob("*.png"):
        if _kind(path.stem) in CAPTIONS and path.stem not in paths:
            path.unlink()
    return paths


def _kind(figure_name: str) -> str:
    """ "strip_2" -> "strip"."""
    return figure_name.rstrip("0123456789").removesuffix("_")


def _draw_figures(results: Results, read_pair: ReadPair | None) -> Iterator[tuple[str, Any]]:
    """(name, figure), one at a time, so that only one is in memory."""
    from ksdd_lib import panels, visualize

    rows = results.rows
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    flagged, folds = [row.is_flagged for row in rows], [row.fold for row in rows]
    if read_pair is not None and results.masks is not None:
        wrong = [row for row in metrics.failures_first(rows) if metrics.verdict(row) != "found"]
        shown = [judged_surface(results, row, read_pair) for row in wrong[:CLOSE_UPS]]
        if shown:
            yield "errors", panels.close_ups(shown)
        for number, page in enumerate(_strip_pages(rows), start=1):
            surfaces = [judged_surface(results, row, read_pair) for row in page]
            score_range = panels.logit_range(rows)
            yield f"strip_{number}", panels.defect_strip(surfaces, score_range)
    thresholds = {fold["fold"]: fold["threshold"] for fold in results.metrics["folds"]}
    oracle = results.metrics["pooled"]["oracle"]["threshold"]
    yield "scores", visualize.score_strip(labels, scores, folds, thresholds, oracle).figure
    curve = visualize.precision_recall_curve(labels, scores, flagged)
    yield "precision_recall_curve", curve.figure
    yield "roc_curve", visualize.roc_curve(labels, scores, flagged).figure
    yield "confusion_matrix", visualize.confusion_matrix(labels, flagged).figure
    histories = _histories(results)
    if any(histories.values()):
        yield "training_curves", visualize.training_curves(histories)


def _histories(results: Results) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Stage -> fold -> the rows of its history, where there are any."""
    return {
        stage: {
            fold: history
            for fold in results.metrics["folds_trained"]
            if (history := read_history(results.folder / f"fold{fold}" / f"{stage}.jsonl"))
        }
        for stage in STAGES
    }


def _strip_rows(rows: Sequence[Prediction]) -> list[Prediction]:
    """What the strip shows: failures first, and no more of a kind than its limit."""
    left, shown = dict(STRIP_LIMITS), []
    for row in metrics.failures_first(rows):
        kind = metrics.verdict(row)
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
    from ksdd_lib import panels

    image, annotation = read_pair(row.image)
    logits = results.masks[row.image].astype(np.float32)
    output = probability(torch.from_numpy(logits), results.settings["segmentation_loss"]).numpy()
    return panels.JudgedSurface(row, image, annotation, output)


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
    environment.filters |= {"number": number, "interval": interval, "percent": _percent}
    context = _context(results, figures)
    path = results.folder / "report.html"
    storage.write_text(path, environment.from_string(template).render(context) + "\n")
    return path


def _context(results: Results, figures: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that the template shows, ready to print."""
    sections = _sections(results, figures)
    return {
        "metrics": results.metrics,
        "pooled": results.metrics["pooled"],
        "data": results.data,
        "version": ksdd_lib.__version__,
        "run_name": results.folder.resolve().name,
        "preset": results.settings.get("preset", "own"),
        "folds_text": _folds_text(results),
        "in_words": [*in_words(results.metrics["pooled"], results.rows), _speed(results)],
        "data_title": "KolektorSDD" if results.data["is_kolektor"] else results.data["name"],
        "rates": _rates(results.metrics["pooled"]),
        "cautions": _cautions(results),
        "strip_note": _strip_note(results, figures),
        "has_pictures": "strip_1" in figures,
        "glance": sections.pop("errors", None),
        "evaluated": results.environment.get("evaluated on"),
        "sections": list(sections.values()),
        "judges": _judges(results),
        "published": protocols.PUBLISHED if results.data["is_kolektor"] else (),
        "published_note": _published_note(results),
        "settings": _settings_table(results.settings),
        "data_report": format_report(results.data["report"]),
        "trained_defects": results.metrics.get("trained_defects", {}),
        "again": _command(results),
        "image_size": results.settings["image_size"],
        "few": results.settings.get("defective_images"),
        "rows": sorted(results.rows, key=lambda row: -row.score),
        "environment": [
            (_words(name), DIRTY.sub(r"\1 with changes that are in no commit", _plain(value)))
            for name, value in results.environment.items()
        ],
        "example": results.rows[0],
        "one_in_a_thousand": _false_share(results.metrics["pooled"], 0.001),
        "timing": [(row["what"], duration(row["seconds"])) for row in results.timing],
        "time_total": duration(sum(row["seconds"] for row in results.timing)),
    }


DIRTY = re.compile(r"\b([0-9a-f]{7,40})\+")
"""A commit, with the "+" of a checkout whose files differ from it."""

FEW = 20
"""Defective test surfaces under which the first sentences warn of the number."""

NAMED = 6
"""Surfaces that the first sentences name, of each kind of error."""


def in_words(pooled: Mapping[str, Any], rows: Sequence[Prediction]) -> list[str]:
    """What the pooled verdicts say to somebody who decides, as sentences.

    Args:
        pooled: of metrics.json.
        rows: of predictions.csv.
    """
    tp, fp, fn, tn = (pooled[name] for name in ("tp", "fp", "fn", "tn"))
    if not tp + fn or not fp + tn:
        return ["The test surfaces are all of one kind, so nothing can be said of the verdicts."]
    few = f"Only {tp + fn} defective surfaces were tested: so few prove nothing yet. "
    needed = parts_needed(0.01, fn)
    missed = 1 - pooled["intervals"]["recall"][0]
    flagged = pooled["intervals"]["false_positive_rate"][1]
    sentences = [
        f"{tp} of {tp + fn} defective surfaces were found; {fp} of {fp + tn} good ones were "
        f"flagged. {_by_item(rows)}",
        f"{few * (tp + fn < FEW)}On other surfaces of this kind up to {_whole_percent(missed)} of "
        f"the defects may be missed, and up to {_percent(flagged)} of the good ones flagged: so "
        "much is left open by the number of test surfaces alone (ends of the two-sided "
        f"95\N{NO-BREAK SPACE}% intervals). To claim fewer than 1\N{NO-BREAK SPACE}% misses "
        f"with 95\N{NO-BREAK SPACE}% confidence (one-sided), {needed} defective surfaces would "
        f"have to be tested in all, these {tp + fn} included, and {_no_more(fn)}. It is one "
        "training with one random start (seed); this file does not know how others came out.",
    ]
    if pooled["ap"] > 1 - 1e-9 and fp + fn:
        sentences.append(
            "All defects score above all good surfaces (average precision 1), so some threshold "
            "would make no error; those in use were each set without the scores of their own fold."
        )
    failures = metrics.failures_first(rows)
    named = [
        f"{name}: {_listed(found, NAMED)}."
        for kind, name in (("missed", "Missed"), ("false alarm", "False alarms"))
        if (found := [row.image for row in failures if metrics.verdict(row) == kind])
    ]
    if named:
        sentences.append(" ".join([*named, "They are shown first below."]))
    return sentences


def _no_more(misses: int) -> str:
    """ "none missed", or none beside those that were."""
    if not misses:
        return "none missed"
    return f"none missed beside {'this one' if misses == 1 else f'these {misses}'}"


def _by_item(rows: Sequence[Prediction]) -> str:
    """What the verdicts on surfaces mean for whole items, where one flagged surface flags it."""
    flagged, defective = defaultdict(bool), defaultdict(bool)
    for row in rows:
        flagged[row.item] |= row.is_flagged
        defective[row.item] |= row.is_defective
    bad = [flagged[item] for item in flagged if defective[item]]
    good = [flagged[item] for item in flagged if not defective[item]]
    text = f"By item, {sum(bad)} of {len(bad)} defective ones have a flagged surface; "
    if good:
        return text + f"so have {sum(good)} of {len(good)} good ones."
    return (
        text + "every item here has a defect, so how many good ones would be stopped is not seen."
    )


def _speed(results: Results) -> str:
    """How long judging took, from the run's own times; empty where they are not stored."""
    scored = [
        re.fullmatch(r"scoring (\d+) images, fold \d+", row["what"]) for row in results.timing
    ]
    pairs = [
        (int(found[1]), row["seconds"])
        for found, row in zip(scored, results.timing, strict=True)
        if found
    ]
    if not pairs:
        return ""
    images, seconds = map(sum, zip(*pairs, strict=True))
    facts = results.environment
    gpu, cpu = facts.get("gpu", "none"), facts.get("cpu", "the processor")
    cores = facts.get("cpu_cores", "")
    cores = f"{facts['threads']} of {cores}" if facts.get("threads", cores) != cores else cores
    where = f"{cores} cores of {cpu}".strip() if gpu == "none" else gpu
    return f"Judging took {seconds / images:.2g} s a surface on {where}."


def _rates(pooled: Mapping[str, Any]) -> list[tuple[str, str, float | None, list | None]]:
    """(what, k of n, rate, interval) of the pooled verdicts."""
    tp, fp, fn, tn = (pooled[name] for name in ("tp", "fp", "fn", "tn"))
    intervals = pooled["intervals"]
    rates = (
        ("recall: defective surfaces found", tp, tp + fn, "recall"),
        ("precision: flagged surfaces that are defective", tp, tp + fp, "precision"),
        ("false positive rate: good surfaces flagged", fp, fp + tn, "false_positive_rate"),
        ("accuracy: right verdicts", tp + tn, tp + fp + fn + tn, "accuracy"),
    )
    return [
        (what, f"{k} of {n}", k / n if n else None, intervals[name]) for what, k, n, name in rates
    ]


def _false_share(pooled: Mapping[str, Any], defective: float) -> float | None:
    """Which share of the alarms would be false, were this share of the surfaces defective."""
    recall, alarms = pooled["recall"], pooled["fp"] / max(1, pooled["fp"] + pooled["tn"])
    if recall is None or not alarms + recall:
        return None
    return alarms * (1 - defective) / (alarms * (1 - defective) + recall * defective)


def _cautions(results: Results) -> list[str]:
    """What a reader must know before using the numbers."""
    trained, data = results.metrics["folds_trained"], results.data
    cautions = []
    if data["is_generated"]:
        cautions.append(
            "The surfaces are GENERATED by a program. The numbers show that the series works; "
            "they say nothing about real parts."
        )
    if leak := _leak(results):
        cautions.append(
            f"The {results.metrics['protocol']} folds leak: over all of them, {leak} show an item "
            "that is also in training. Such numbers compare with published ones; those of clean "
            "folds tell what to expect on new items."
        )
    if len(trained) < len(results.folds["folds"]):
        cautions.append(
            f"Only {len(trained)} of the {len(results.folds['folds'])} folds {_is_are(trained)} "
            "trained: the others may come out differently."
        )
    if few := results.settings.get("defective_images"):
        cautions.append(
            f"Each network learned from at most {few} defective images, but the threshold was set "
            "with many more of them, scored by the other folds' networks. Who owns only "
            f"{few} cannot set it so well: expect more errors than stand above, even than the "
            "upper ends."
        )
    if data["is_kolektor"] and results.settings.get("preset") in CHOSEN_ON_KOLEKTOR:
        cautions.append(
            f"The settings (preset {results.settings['preset']}) were chosen on training images of "
            "clean fold 0, which the other folds test, by people who knew on which images earlier "
            "settings had erred. So the numbers are somewhat favourable; only new items give an "
            "untouched test."
        )
    if data["is_kolektor"]:
        cautions.append(
            "These are commutators of KolektorSDD, not your parts, camera and light: try it beside "
            "your inspection before you rely on it. Its pictures are licensed for non-commercial "
            "use, so train a network for a production line on pictures of your own."
        )
    return cautions


def _folds_text(results: Results) -> str:
    """ "clean folds, all 3 trained", or which of them are."""
    trained, count = results.metrics["folds_trained"], len(results.folds["folds"])
    which = f"all {count}" if len(trained) == count else f"only {_listed(trained)}"
    return f"{results.metrics['protocol']} folds, {which} trained"


def _is_are(values: Sequence[Any]) -> str:
    return "is" if len(values) == 1 else "are"


def _leak(results: Results) -> str:
    """ "48 of 399 test images (8 of 52 defective)" where the folds leak, else empty."""
    counts = (results.data["report"]["folds"] or {}).get(results.metrics["protocol"], {})
    total = counts.get("total", {})
    if not total.get("leaked_images"):
        return ""
    return (
        f"{total['leaked_images']} of {total['test_images']} test images "
        f"({total['leaked_defective']} of {total['test_defective']} defective)"
    )


def _strip_note(results: Results, figures: Mapping[str, Path]) -> str:
    """Why surfaces are not shown, or which of them are left out; empty where all are."""
    wanted = len(metrics.failures_first(results.rows))
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
    judges = [
        {
            "name": JUDGES[name],
            "is_own": name == kind,
            "ap": metrics.average_precision(labels, scores),
            "auc": metrics.roc_auc(labels, scores),
            "oracle": metrics.oracle(labels, scores),
        }
        for name, scores in metrics.every_score(results.rows, kind).items()
    ]
    if darkest := results.metrics.get("darkest_pixel"):
        name = "the darkest pixel, without training"
        judges.append({"name": name, "is_own": False, "oracle": None} | darkest)
    return judges


def _published_note(results: Results) -> str:
    """How far the published results are of the same test as this run's."""
    published = (
        "The published rows are of the official folds, each of a single training as far as their "
        "papers say, with the threshold chosen on the test scores."
    )
    if len(results.metrics["folds_trained"]) < len(results.folds["folds"]):
        return f"{published} This run judged only a part of those surfaces, so no row compares."
    if results.metrics["protocol"] == "official":
        return f"{published} So is this run's row: the rows compare, within what seeds change."
    return (
        f"{published} Those folds test some parts that are also in training; this run's folds do "
        "not, and hold fewer surfaces, so rows compare roughly."
    )


CHOSEN_ON_KOLEKTOR = ("cpu", "best")
"""Presets whose values were chosen with KolektorSDD's images, which a reader must know."""


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
        (name, _plain(value), RULES[name].unit, RULES[name].reason, value != preset[name])
        if name in RULES
        else (name, _plain(value), "", "", False)
        for name, value in settings.items()
    ]


# Words


def number(value: float | None, digits: int = 4) -> str:
    """A rate as text; "undefined" where the data do not define it."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _whole_percent(value: float) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def interval(value: Sequence[float] | None, digits: int = 3) -> str:
    """A confidence interval as text; "none" where there is none."""
    return "none" if value is None else f"{value[0]:.{digits}f} to {value[1]:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that one would say: "40 s", "4.2 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _listed(values: Sequence[Any], limit: int = 12) -> str:
    text = ", ".join(str(value) for value in values[:limit])
    return text + (f" and {len(values) - limit} more" if len(values) > limit else "")


def _plain(value: Any) -> str:
    """A setting or a fact of the environment as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _listed(value) if isinstance(value, list) else str(value)
