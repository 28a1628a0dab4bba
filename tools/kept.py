"""The kept results of all runs: three tidy files in assets/results.

`predictions.csv` has the rows of each run's own predictions.csv behind a column `run`.
`curves.csv` has the losses of each training, whose run, fold and stage stand in its first row only.
`runs.json` has the other JSON files of each run folder. Runs stand in the order of their names, so
adding one changes one place of each file.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, TypeAdapter

from ksdd_lib import storage
from ksdd_lib.data.folds import FOLDS
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import COLUMNS, Prediction
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.runs.prepare import DataRecord
from ksdd_lib.storage import Record

ROOT = Path(__file__).resolve().parent.parent

PREDICTIONS, CURVES, RUNS = "predictions.csv", "curves.csv", "runs.json"

NEW = ".new"
"""The folder of all three files anew, which is whole once it has this name."""

DOCUMENTS = ("settings", "data", "folds", "environment", "timing", "metrics")
"""The JSON files of a run folder that are kept whole; of data.json its report."""

LOGGED = ("step", "loss", "lr", "seconds")
"""What a line of a training's log holds."""

FEW = re.compile(r"(?P<recipe>.+)-(?P<count>[0-9]+)defective")
"""A recipe that is trained with few defects."""

LESS = re.compile(r"(?P<preset>[a-z]+)-(?P<known>labels-none|masks-(?:none|[0-9]+))-(?P<folds>.+)")
"""A recipe that is trained with fewer labels."""

UNCHANGED = re.compile(r"[a-z]+-(official|clean(-partition[0-9]+)?)")
"""A preset with nothing changed, on any folds; every other recipe is a variant."""

Cells = list[str]
"""A row of a table, as text."""

Environment = dict[str, str | int]
"""What a run was made with, as environment.json has it."""

AnyValue = TypeVar("AnyValue")


class FoldItems(Record):
    """A fold of folds.json."""

    fold: int
    train_items: list[str]


class Folds(Record):
    """What the tables need of folds.json."""

    protocol: str
    folds: list[FoldItems]


class FoldCounts(Record):
    """A fold of the data report."""

    train_defective: int


class ProtocolCounts(Record):
    """The folds of one protocol in the data report."""

    folds: list[FoldCounts]


class DataReport(Record):
    """What the tables need of the data report."""

    twins: list[list[str]]
    folds: dict[str, ProtocolCounts]


class Timed(Record):
    """A line of timing.json."""

    what: str
    seconds: float


@dataclass(frozen=True)
class KeptRun:
    """What is kept of one run.

    Attributes:
        documents: name from DOCUMENTS -> the JSON value, as the run folder had it.
        predictions: the run's predictions.csv, the header first.
        curves: fold, stage and the values of LOGGED, a row for each line of a log.
    """

    name: str
    documents: Mapping[str, JsonValue]
    predictions: Sequence[Cells]
    curves: Sequence[Cells]

    @property
    def recipe(self) -> str:
        """The name without its seed: "best-clean" of "best-clean-seed0"."""
        return self.name.rpartition("-seed")[0]

    @property
    def seed(self) -> int:
        return int(self.name.rpartition("-seed")[2])

    @property
    def predictions_text(self) -> str:
        """The run's own predictions.csv."""
        return _csv(self.predictions)

    @cached_property
    def rows(self) -> list[Prediction]:
        """The predictions, each number as it was written."""
        header, *lines = self.predictions
        names = [COLUMNS[column] for column in header]
        cells = [dict(zip(names, (cell or None for cell in line), strict=True)) for line in lines]
        return TypeAdapter(list[Prediction]).validate_python(cells)

    @cached_property
    def summary(self) -> Summary:
        """metrics.json."""
        return self.document("metrics", Summary)

    @cached_property
    def folds(self) -> Folds:
        return self.document("folds", Folds)

    @property
    def train_items(self) -> dict[int, list[str]]:
        """Fold -> the names of its training items."""
        return {fold.fold: fold.train_items for fold in self.folds.folds}

    @property
    def data(self) -> DataReport:
        return self.document("data", DataReport)

    @property
    def timing(self) -> list[Timed]:
        return self.document("timing", list[Timed])

    @property
    def environment(self) -> Environment:
        return self.document("environment", Environment)

    @property
    def settings(self) -> dict[str, JsonValue]:
        return self.document("settings", dict[str, JsonValue])

    def document(self, name: str, kind: type[AnyValue]) -> AnyValue:
        """A document as a value of that type."""
        return TypeAdapter(kind).validate_json(json.dumps(self.documents[name]))


@dataclass(frozen=True)
class Kept:
    """The kept results of a checkout.

    Attributes:
        folder: its assets/results.
        runs: by name, in order.
    """

    folder: Path
    runs: dict[str, KeptRun]

    @property
    def recipes(self) -> dict[str, list[KeptRun]]:
        """Recipe -> its runs of all three folds, in the order of their seeds."""
        found: dict[str, list[KeptRun]] = {}
        for run in self.runs.values():
            if len(run.summary.folds_trained) == FOLDS:
                found.setdefault(run.recipe, []).append(run)
        return {recipe: sorted(runs, key=lambda run: run.seed) for recipe, runs in found.items()}

    def with_all_defects(self, variants: bool) -> list[KeptRun]:
        """The runs of the presets, or of variants, but for those with few defects or labels."""
        return [
            run
            for run in self.runs.values()
            if not (FEW.fullmatch(run.recipe) or LESS.fullmatch(run.recipe))
            and variants == (UNCHANGED.fullmatch(run.recipe) is None)
        ]


def readable(name: str) -> str:
    """ "best, clean" of "best-clean", and "best, clean, 0" of "best-clean-seed0"."""
    return name.replace("-", ", ").replace("seed", "")


def read_kept(root: Path) -> Kept:
    """The kept results of a checkout, as `read_folder`."""
    return read_folder(root / "assets" / "results")


def read_folder(folder: Path) -> Kept:
    """The kept results of a folder; no runs where it has no runs.json.

    Raises:
        RunError: a file is missing or damaged, or they name different runs.
    """
    _name_files(folder)
    if not (folder / RUNS).exists():
        return Kept(folder, {})
    documents = storage.read_json(folder / RUNS)
    header, predictions = _read_csv(folder / PREDICTIONS)
    _, curves = _read_csv(folder / CURVES, said_once=3)
    if set(predictions) != set(documents) or not set(curves) <= set(documents):
        raise RunError(f"{PREDICTIONS}, {CURVES} and {RUNS} hold different runs: restore them.")
    runs = {
        name: KeptRun(name, documents[name], [header, *predictions[name]], curves.get(name, []))
        for name in documents
    }
    return Kept(folder, runs)


def write_kept(kept: Kept) -> None:
    """Write the three files anew; where one cannot be written, all stay as they were. What a kill
    has left between their names, the next call or `read_kept` completes."""
    runs = [kept.runs[name] for name in sorted(kept.runs)]
    header = runs[0].predictions[0] if runs else list(COLUMNS)
    predictions = [[run.name, *row] for run in runs for row in run.predictions[1:]]
    curves = list[Cells]()
    for run in runs:
        for _, rows in groupby(run.curves, itemgetter(0, 1)):
            first, *more = rows
            curves += [[run.name, *first], *(["", "", "", *row[2:]] for row in more)]
    _name_files(kept.folder)
    with storage.whole_folder(kept.folder / NEW, lambda: False) as new:
        storage.write_text(new / PREDICTIONS, _csv([["run", *header], *predictions]))
        storage.write_text(new / CURVES, _csv([["run", "fold", "stage", *LOGGED], *curves]))
        storage.write_json(new / RUNS, {run.name: dict(run.documents) for run in runs})
    _name_files(kept.folder)


def _name_files(folder: Path) -> None:
    """Give the files of a whole `NEW` their names, those that have not got them yet."""
    if (folder / NEW).is_dir():
        for name in (PREDICTIONS, CURVES, RUNS):
            if (folder / NEW / name).exists():
                os.replace(folder / NEW / name, folder / name)
        (folder / NEW).rmdir()


def read_run_folder(folder: Path, name: str) -> KeptRun:
    """What is to be kept of a finished run.

    Raises:
        RunError: a file is missing.
    """
    for needed in (*(f"{document}.json" for document in DOCUMENTS), "predictions.csv"):
        if not (folder / needed).exists():
            raise RunError(f"{needed} is missing in {folder.name}: run notebooks 4 and 5 first.")
    documents = {document: storage.read_json(folder / f"{document}.json") for document in DOCUMENTS}
    documents["data"] = documents["data"]["report"]
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        predictions = list(csv.reader(file))
    curves = [row for path in sorted(folder.glob("fold*/*.jsonl")) for row in _curve(path)]
    return KeptRun(name, documents, predictions, curves)


def write_run_folder(run: KeptRun, folder: Path) -> None:
    """Write a kept run as a run folder, which then lacks weights, masks and figures."""
    report = run.document("data", dict[str, JsonValue])
    named = [name for name in DataRecord.model_fields if name in report]
    data = {name: report[name] for name in named} | {"place": ".", "report": report}
    for document, value in (dict(run.documents) | {"data": data}).items():
        storage.write_json(folder / f"{document}.json", value)
    storage.write_text(folder / "predictions.csv", run.predictions_text)
    for (fold, stage), rows in groupby(run.curves, itemgetter(0, 1)):
        log = "".join(map(_log_line, rows))
        storage.write_text(folder / f"fold{fold}" / f"{stage}.jsonl", log)


def _curve(path: Path) -> list[Cells]:
    """The lines of one training's log, with its fold and stage."""
    fold, stage = path.parent.name.removeprefix("fold"), path.stem
    logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [[fold, stage, *(repr(line[name]) for name in LOGGED)] for line in logged]


def _log_line(row: Cells) -> str:
    values = map(json.loads, row[2:])
    return json.dumps(dict(zip(LOGGED, values, strict=True))) + "\n"


def _read_csv(path: Path, said_once: int = 0) -> tuple[Cells, dict[str, list[Cells]]]:
    """The header without its first column, and run -> its rows without theirs.

    Of the first `said_once` cells an empty one is as in the row above.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (FileNotFoundError, ValueError) as error:
        raise RunError(f"{path.name} is missing or damaged: restore it ({error}).") from None
    for above, row in pairwise(rows):
        row[:said_once] = [
            own or before for own, before in zip(row[:said_once], above, strict=False)
        ]
    groups = groupby(rows, itemgetter(0))
    return header[1:], {name: [row[1:] for row in group] for name, group in groups}


def _csv(rows: Iterable[Cells]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
