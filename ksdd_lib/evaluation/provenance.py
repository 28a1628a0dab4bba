"""What results were made from, and whether they still say what their scores say.

An evaluation names its data, settings and weights in metrics.json. Whoever reads results compares
them with those of the folder, so that a file of another run, or a number that was edited, is found.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import summarize
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import to_json
from ksdd_lib.training import checkpoint

FREE = ("fold", "data", "checkpoint_steps")
"""Settings that may differ between results of one recipe: three folds follow upon one, the data is
known by its fingerprint, and steps between checkpoints change no weight."""

LISTED = 5
"""Differences that an error names."""


def record(settings: Settings, fingerprint: str, weights: Mapping[int, str]) -> dict[str, Any]:
    """What results are made from, as metrics.json holds it.

    Args:
        fingerprint: of the data.
        weights: fold -> SHA-256 of its decision checkpoint, which names the first stage's in turn.
    """
    kept = {name: value for name, value in to_json(settings).items() if name not in FREE}
    named = {str(fold): sha256 for fold, sha256 in weights.items()}
    return {"data": fingerprint, "settings": kept, "weights": named}


def require_own(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Refuse results of other data, settings or weights than the run folder's own.

    What either side does not name is not compared: a folder may be without its checkpoints.

    Raises:
        RunError: something differs; the text says what.
    """
    newest = {
        k: checkpoint.newest_sha256(folder / f"fold{k}", "decision")
        for k in made_from.get("weights", {})
    }
    here = {
        "data": storage.read_json(folder / "data.json").get("fingerprint", made_from.get("data")),
        "settings": storage.read_json(folder / "settings.json"),
        "weights": {k: sha256 for k, sha256 in newest.items() if sha256},
    }
    if lines := _listed(_differences(made_from, here)):
        raise RunError(f"metrics.json is not of this run: {lines}. Evaluate again.")


def require_true(
    summary: Mapping[str, Any],
    rows: Sequence[Prediction],
    train_items: Mapping[int, Collection[str]],
) -> None:
    """Refuse a summary whose numbers are not those of the rows, as `metrics.summarize` has them.

    Intervals from drawing again are not compared: another numpy may draw otherwise.

    Raises:
        RunError: a number differs; the text says which. Or as of `metrics.summarize`.
    """
    again = summarize(rows, summary["protocol"], summary["seed"], train_items)
    for part in (again["pooled"], *again["folds"]):
        del part["intervals"]["ap"]
    if lines := _listed(_differences(summary, again)):
        raise RunError(
            f"metrics.json was not made from this predictions.csv: {lines}. Evaluate again."
        )


def _differences(stored: Any, here: Any, name: str = "") -> Iterator[str]:
    """ "pooled fn: stored 1, here 2" for each value that both have and that differs."""
    if isinstance(stored, Mapping) and isinstance(here, Mapping):
        for key in [key for key in stored if key in here]:
            yield from _differences(stored[key], here[key], f"{name} {key}".strip())
    elif isinstance(stored, list) and isinstance(here, list) and len(stored) == len(here):
        for number, pair in enumerate(zip(stored, here, strict=True)):
            yield from _differences(*pair, f"{name} {number}")
    elif not _is_same(stored, here):
        yield f"{name}: stored {stored!r}, here {here!r}"


def _is_same(stored: Any, here: Any) -> bool:
    if isinstance(stored, float) and isinstance(here, float):
        return math.isclose(stored, here, rel_tol=1e-9, abs_tol=1e-12)  # of another scipy
    return stored == here


def _listed(differences: Iterable[str]) -> str:
    lines = list(differences)
    more = f"; and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return "; ".join(lines[:LISTED]) + more
