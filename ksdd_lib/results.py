"""The results that stay in the repository: scores, curves and times of a finished run."""

import shutil
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.origin import FREE
from ksdd_lib.report import load_results
from ksdd_lib.settings import from_json, to_json

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

    What an earlier run of that name left there is replaced: three folds follow upon one.

    Args:
        root: the checkout. Weights, masks and pictures of surfaces are not copied.

    Raises:
        RunError: it is no run on KolektorSDD, or would replace results of other settings, a file is
            missing, or metrics.json was not made from predictions.csv.
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
    target = root / "assets" / "results" / from_json(settings).name
    _require_same_recipe(settings, target)
    sources = [run_folder / file for file in FILES]
    sources += [run_folder / "figures" / f"{curve}.png" for curve in CURVES]
    sources += sorted(run_folder.glob("fold*/*.jsonl"))
    for source in sources:
        if not source.exists():
            raise RunError(f"{source.name} is missing in {run_folder.name}: run 04 and 05 first.")
    report = storage.read_json(run_folder / "data.json")["report"]
    shutil.rmtree(target, ignore_errors=True)
    storage.write_json(target / "data.json", report)
    for source in sources:
        storage.write_bytes(target / source.relative_to(run_folder), source.read_bytes())
    return target


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
