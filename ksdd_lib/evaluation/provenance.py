"""What results were made from, and whether they still say what their scores say.

An evaluation names its data, settings and weights in metrics.json. Whoever reads results compares
them with those of the run folder. A file of another run or an edited number is then found.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import MadeFrom, Summary, conclude
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import from_json, to_json
from ksdd_lib.text import listed
from ksdd_lib.training import checkpoint

FREE = ("fold", "data", "checkpoint_steps")
"""Settings that may differ between results of one recipe. Folds are trained one by one, the data is
known by its fingerprint, and the steps between checkpoints change no weight."""

LISTED = 5
"""Differences that an error names."""


def made_from(settings: Settings, fingerprint: str, weights: Mapping[int, str]) -> MadeFrom:
    """What results are made from.

    Args:
        fingerprint: of the data.
        weights: fold -> SHA-256 that names the weights that judged it.
    """
    kept: dict[str, JsonValue] = {k: v for k, v in to_json(settings).items() if k not in FREE}
    named = {str(fold): sha256 for fold, sha256 in weights.items()}
    return MadeFrom(data=fingerprint, settings=kept, weights=named)


def require_own(folder: Path, origin: MadeFrom) -> None:
    """Refuse results of other data, settings or weights than the run folder's own.

    What either side does not name is not compared: a folder may be without its checkpoints.

    Raises:
        RunError: something differs; the text says what.
    """
    settings = storage.read_json(folder / "settings.json")
    here: dict[str, JsonValue] = {
        "data": storage.read_json(folder / "data.json").get("fingerprint", origin.data),
        "settings": settings,
        "weights": _newest_weights(folder, from_json(settings), origin.weights),
    }
    if lines := listed(list(_differences(origin.model_dump(mode="json"), here)), LISTED, "; "):
        raise RunError(f"metrics.json is not of this run: {lines}. Evaluate again.")


def _newest_weights(folder: Path, settings: Settings, folds: Iterable[str]) -> dict[str, JsonValue]:
    """Fold -> hash of its last stage's newest checkpoint, where the folder has one."""
    last = [stage.name for stage in method_of(settings).stages][-1:]
    found = {k: checkpoint.newest_sha256(folder / f"fold{k}", name) for name in last for k in folds}
    return {k: sha256 for k, sha256 in found.items() if sha256}


def require_true(
    summary: Summary,
    rows: Sequence[Prediction],
    train_items: Mapping[int, Collection[str]],
) -> None:
    """Refuse a summary whose numbers are not those of the rows, as `conclude` has them.

    Intervals from drawing again are not compared: another numpy may draw otherwise.

    Raises:
        RunError: a number differs, and the text says which; or a threshold or verdict does. Or as
            of `conclude`.
    """
    judged, again = conclude(rows, summary.protocol, summary.seed, train_items)
    if judged != list(rows):
        raise RunError(
            "A threshold or verdict does not follow from the scores: predictions.csv was edited "
            "or mixed from several runs. Evaluate again."
        )
    here = again.model_dump(mode="json")
    for part in (here["pooled"], *here["folds"]):
        del part["intervals"]["ap"]
    if lines := listed(list(_differences(summary.model_dump(mode="json"), here)), LISTED, "; "):
        raise RunError(
            f"metrics.json was not made from this predictions.csv: {lines}. Evaluate again."
        )


def _differences(stored: JsonValue, here: JsonValue, name: str = "") -> Iterator[str]:
    """Yield "pooled fn: stored 1, here 2" for each value that both have and that differs."""
    if isinstance(stored, dict) and isinstance(here, dict):
        for key in [key for key in stored if key in here]:
            yield from _differences(stored[key], here[key], f"{name} {key}".strip())
    elif isinstance(stored, list) and isinstance(here, list) and len(stored) == len(here):
        for number, pair in enumerate(zip(stored, here, strict=True)):
            yield from _differences(*pair, f"{name} {number}")
    elif not _is_same(stored, here):
        yield f"{name}: stored {stored!r}, here {here!r}"


def _is_same(stored: JsonValue, here: JsonValue) -> bool:
    if isinstance(stored, float) and isinstance(here, float):
        return math.isclose(stored, here, rel_tol=1e-9, abs_tol=1e-12)  # of another scipy
    return stored == here
