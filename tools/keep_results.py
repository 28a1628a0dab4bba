"""The results that stay in the repository: scores, curves and times of a finished run."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import read_predictions, write_predictions
from ksdd_lib.evaluation.provenance import FREE
from ksdd_lib.evaluation.results import Results, load_results
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.reporting.report import make_figures
from ksdd_lib.run_names import unnamed
from ksdd_lib.settings_io import from_json, to_json

FILES = (
    "settings.json",
    "environment.json",
    "folds.json",
    "timing.json",
    "predictions.csv",
    "metrics.json",
)
CURVES = ("scores", "precision_recall_curve", "roc_curve", "confusion_matrix", "training_curves")
"""The figures that show no surface: pictures of KolektorSDD may not enter the repository."""


def keep(run_folder: Path, root: Path) -> Path:
    """Copy a finished run's scores and curves to `assets/results/<the name of its settings>`.

    A fold that an earlier run of that name left there is replaced, or stays where this run did not
    train it: long trainings are kept fold by fold, and thresholds then follow from all of them.

    Args:
        root: the checkout. Weights, masks and pictures of surfaces are not copied.

    Raises:
        RunError: it is no run on KolektorSDD, differs from its preset in what its name does not
            say, or would join or replace results of other settings or folds, a file is missing, or
            metrics.json was not made from predictions.csv.
    """
    run_folder = Path(run_folder)
    if not (run_folder / "settings.json").exists():
        raise RunError(f"{run_folder.name} is no run folder.")
    stored = load_results(run_folder)
    if not stored.data["is_kolektor"]:
        raise RunError(
            f"assets/results holds results on KolektorSDD, not on {stored.data['name']}."
        )
    settings = _read_settings(run_folder)
    typed = replace(from_json(settings), data="kolektorsdd")
    if unnamed(typed):
        raise RunError(
            f"{run_folder.name} is not as its preset {typed.preset}: {', '.join(unnamed(typed))}. "
            "Results are joined by their names, which do not tell that: only presets are kept."
        )
    name = typed.name
    target = root / "assets" / "results" / name
    _require_same_recipe(settings, target)
    _require_finished(run_folder)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / run_folder.name
        _copy(run_folder, whole)
        storage.write_bytes(whole / "data.json", (run_folder / "data.json").read_bytes())
        _add_kept_folds(whole, stored, target)
        # The old one may hold folds that are nowhere else: it goes when the new one is there.
        with storage.whole_folder(target, is_whole=lambda: False) as joined:
            _copy(whole, joined)
            storage.write_json(joined / "data.json", stored.data["report"])
    return target


def _copy(source: Path, target: Path) -> None:
    for path in _kept_files(source):
        storage.write_bytes(target / path.relative_to(source), path.read_bytes())


def _kept_files(folder: Path) -> list[Path]:
    return [
        *(folder / file for file in FILES),
        *(folder / "figures" / f"{curve}.png" for curve in CURVES),
        *sorted(folder.glob("fold*/*.jsonl")),
    ]


def _require_finished(run_folder: Path) -> None:
    for path in _kept_files(run_folder):
        if not path.exists():
            raise RunError(f"{path.name} is missing in {run_folder.name}: run 04 and 05 first.")


def _add_kept_folds(whole: Path, run: Results, kept: Path) -> None:
    """Join the folds of `kept` that the run did not train to `whole`, a copy of the run's files."""
    summary = storage.read_json(kept / "metrics.json") if kept.exists() else {"folds_trained": []}
    others = sorted(set(summary["folds_trained"]) - set(run.metrics["folds_trained"]))
    if not others:
        return
    if storage.read_json(kept / "folds.json") != run.folds:
        raise RunError(
            f"{kept.name} holds folds of other items: delete that folder first, or keep these "
            "results under another seed."
        )
    for fold in others:
        for history in sorted((kept / f"fold{fold}").glob("*.jsonl")):
            storage.write_bytes(whole / history.relative_to(kept), history.read_bytes())
    earlier = read_predictions(kept / "predictions.csv")
    rows = [*run.rows, *(row for row in earlier if row.fold in others)]
    train_items = {fold["fold"]: fold["train_items"] for fold in run.folds["folds"]}
    rows, joined = conclude(
        sorted(rows, key=lambda row: row.fold),
        run.metrics["protocol"],
        run.metrics["seed"],
        train_items,
    )
    for name in {"made_from", "trained_defects"} & set(summary) & set(run.metrics):
        joined[name] = _joined(summary[name], run.metrics[name])
    write_predictions(whole / "predictions.csv", rows)
    storage.write_json(whole / "metrics.json", joined)
    storage.write_json(whole / "environment.json", _joined_environment(run, kept, others))
    timing = storage.read_json(kept / "timing.json")
    timing = [row for row in timing if row["what"].endswith(_of_folds(others))]
    storage.write_json(whole / "timing.json", [*timing, *run.timing])
    if len(joined["folds_trained"]) == len(train_items):
        storage.write_json(whole / "settings.json", dict(run.settings) | {"fold": "all"})
    make_figures(whole)


def _of_folds(folds: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"fold {fold}" for fold in folds)


def _joined_environment(run: Results, kept: Path, others: Sequence[int]) -> dict[str, Any]:
    """The run's, and of each kept fold where its stages were trained and by which command."""
    earlier = storage.read_json(kept / "environment.json")
    commands = {f"command of {fold}": earlier["command"] for fold in _of_folds(others)}
    of_folds = {what: made for what, made in earlier.items() if what.endswith(_of_folds(others))}
    return dict(run.environment) | commands | of_folds


def _joined(earlier: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Both, down to the single value; the newer one's where both have it."""
    joined = dict(earlier)
    for name, value in newer.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(name), Mapping)
        joined[name] = _joined(joined[name], value) if both else value
    return joined


def _read_settings(folder: Path) -> dict[str, Any]:
    """A result's settings; one that is newer than the result has its default."""
    return to_json(from_json(storage.read_json(folder / "settings.json")))


def _require_same_recipe(settings: dict[str, Any], target: Path) -> None:
    """Refuse to replace results of other settings; the fold may differ: three follow upon one."""
    if not target.exists():
        return
    kept = _read_settings(target)
    other = [name for name in settings if name not in FREE and settings[name] != kept[name]]
    if other:
        raise RunError(
            f"{target.name} holds results of another {', '.join(other)}: keep them under another "
            "preset or seed, or delete that folder first."
        )
