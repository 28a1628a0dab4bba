"""The kept results of all runs, in three tidy files in assets/results.

`predictions.csv` has the rows of each run's own predictions.csv behind a column `run`,
`curves.csv` the losses of each training, and `runs.json` the other JSON files of each run folder.
Runs stand in the order of their names, so that adding one changes one place of each file.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from pydantic import JsonValue

from ksdd_lib import storage
from ksdd_lib.errors import RunError

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = ("settings", "data", "folds", "environment", "timing", "metrics")
"""The JSON files of a run folder that are kept, whole; of data.json its report."""

PREDICTIONS, CURVES, RUNS = "predictions.csv", "curves.csv", "runs.json"

CURVE_COLUMNS = ("fold", "stage", "step", "loss", "lr", "seconds")


@dataclass(frozen=True)
class KeptRun:
    """What is kept of one run.

    Attributes:
        documents: name from DOCUMENTS -> the JSON value, as the run folder had it.
        predictions: the run's predictions.csv as cells of text, the header first.
        curves: a row for each logged step, as cells of text in the order of CURVE_COLUMNS.
    """

    name: str
    documents: Mapping[str, JsonValue]
    predictions: list[list[str]]
    curves: list[list[str]]

    @property
    def predictions_text(self) -> str:
        """The run's own predictions.csv."""
        return _csv(self.predictions)


def results_folder(root: Path) -> Path:
    """Where a checkout has its kept results."""
    return root / "assets" / "results"


def read_kept(root: Path) -> dict[str, KeptRun]:
    """The kept runs of a checkout by name, in order; none where it has no runs.json.

    Raises:
        RunError: a file is missing or damaged, or they name different runs.
    """
    folder = results_folder(root)
    if not (folder / RUNS).exists():
        return {}
    documents = storage.read_json(folder / RUNS)
    (header, predictions), (_, curves) = (
        _read_csv(folder / name) for name in (PREDICTIONS, CURVES)
    )
    if set(predictions) != set(documents) or not set(curves) <= set(documents):
        raise RunError(f"{PREDICTIONS}, {CURVES} and {RUNS} hold different runs: restore them.")
    return {
        name: KeptRun(name, documents[name], [header, *predictions[name]], curves.get(name, []))
        for name in documents
    }


def write_kept(root: Path, kept: Mapping[str, KeptRun]) -> None:
    """Write the three files anew; where one cannot be written, all stay as they were."""
    runs = [kept[name] for name in sorted(kept)]
    header = runs[0].predictions[0] if runs else []
    texts = {
        PREDICTIONS: _csv(
            [
                ["run", *header],
                *([run.name, *row] for run in runs for row in run.predictions[1:]),
            ]
        ),
        CURVES: _csv(
            [["run", *CURVE_COLUMNS], *([run.name, *row] for run in runs for row in run.curves)]
        ),
    }
    documents = {run.name: dict(run.documents) for run in runs}
    folder = results_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        for name, text in texts.items():
            storage.write_text(Path(scratch) / name, text)
        storage.write_json(Path(scratch) / RUNS, documents)
        for name in (*texts, RUNS):
            os.replace(Path(scratch) / name, folder / name)


def of_run_folder(folder: Path, name: str) -> KeptRun:
    """What is to be kept of a finished run.

    Raises:
        RunError: a file is missing.
    """
    needed = [*(f"{document}.json" for document in DOCUMENTS), "predictions.csv"]
    for file in needed:
        if not (folder / file).exists():
            raise RunError(f"{file} is missing in {folder.name}: run 04 and 05 first.")
    documents = {document: storage.read_json(folder / f"{document}.json") for document in DOCUMENTS}
    documents["data"] = documents["data"]["report"]
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        predictions = list(csv.reader(file))
    curves = [row for path in sorted(folder.glob("fold*/*.jsonl")) for row in _curve(path)]
    return KeptRun(name, documents, predictions, curves)


def write_run_folder(run: KeptRun, folder: Path) -> None:
    """Write a kept run as a run folder, without weights, masks and figures."""
    report = run.documents["data"]
    data = {name: report[name] for name in ("name", "is_kolektor", "is_generated", "fingerprint")}
    data["report"] = report
    for document, value in (dict(run.documents) | {"data": data}).items():
        storage.write_json(folder / f"{document}.json", value)
    storage.write_text(folder / "predictions.csv", run.predictions_text)
    for (fold, stage), rows in groupby(run.curves, itemgetter(0, 1)):
        lines = (_log_line(row) for row in rows)
        storage.write_text(folder / f"fold{fold}" / f"{stage}.jsonl", "".join(lines))


def _curve(path: Path) -> list[list[str]]:
    """The rows of one history, with its fold and stage."""
    fold, stage = path.parent.name.removeprefix("fold"), path.stem
    logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [[fold, stage, *(repr(step[name]) for name in CURVE_COLUMNS[2:])] for step in logged]


def _log_line(row: list[str]) -> str:
    values = [json.loads(cell) for cell in row[2:]]
    return json.dumps(dict(zip(CURVE_COLUMNS[2:], values, strict=True))) + "\n"


def _read_csv(path: Path) -> tuple[list[str], dict[str, list[list[str]]]]:
    """The header without its first column, and run -> its rows without theirs."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    groups = groupby(rows, itemgetter(0))
    return header[1:], {name: [row[1:] for row in group] for name, group in groups}


def _csv(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
