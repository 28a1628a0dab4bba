"""What notebook 01 does and every later one checks: settings -> data on disk, samples and folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ksdd_lib import settings_io, storage
from ksdd_lib.data import folds, synthetic
from ksdd_lib.data.data_report import DataIdentity, DataReport, inspect_data
from ksdd_lib.data.dataset import Sample, fingerprint, read_image, read_mask
from ksdd_lib.data.folds import Fold, FoldsRecord
from ksdd_lib.data.layout_note import class_fingerprint, class_names
from ksdd_lib.data.sources import DataFolder, obtain
from ksdd_lib.data.survey import PairContent, survey
from ksdd_lib.errors import DataError, RunError
from ksdd_lib.image_size import parse_size
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.runs.lock import alone
from ksdd_lib.runs.open import home
from ksdd_lib.runs.run import FINAL, Run, refusal
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import RULES, Settings

MADE_WITH = [name for name, rule in RULES.items() if rule.group == "data" and name != "data"]
"""Settings that choose the data and its folds."""


class DataRecord(DataIdentity):
    """What data.json holds."""

    place: str  # the folder of the items as seen from the run folder
    report: DataReport
    made_with: dict[str, Value] = {}  # the settings of `MADE_WITH`; not in older runs
    contents: tuple[PairContent, ...] = ()  # for `survey`; empty in runs made before it was kept


@dataclass(frozen=True)
class DataSet:
    """The samples of a run on this machine, and its three folds."""

    root: Path
    samples: tuple[Sample, ...]
    folds: tuple[Fold, ...]
    record: DataRecord
    classes: tuple[str, ...] = ()  # of the defects, where each is learned

    @property
    def fingerprint(self) -> str:
        """What `dataset.fingerprint` names this data by."""
        return self.record.fingerprint

    @property
    def is_generated(self) -> bool:
        """Whether the surfaces are generated, which is stamped on every figure of them."""
        return self.record.is_generated

    def read_pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W) and mask bool (H, W) of the sample "kos01/Part5", at its own size."""
        sample = next(sample for sample in self.samples if sample.name == name)
        return read_image(sample), read_mask(sample)


@alone
def prepare_data(run: Run, drive: Path | None = None) -> DataSet:
    """Get the data, inspect it, split it; stores data.json and folds.json. Again: only checks.

    Raises DataError or FoldError where no source gives a valid data set that can be split, and
    RunError where the run was begun with other data, or another process works in its folder.
    """
    run.require_stored()
    if run.has("data"):
        return open_data(run, drive)
    folder = _obtain(run, drive)
    chosen = run.settings
    found = survey(folder.root, (), chosen.region, chosen.needs_masks)
    samples = found.usable(chosen.incomplete)
    classes = _classes(samples, chosen)
    learns = chosen.labels != "none"
    made = folds.make_folds(chosen.folds, samples, chosen.partition, chosen.twins, learns)
    report = inspect_data(found, folder, chosen)
    record = DataRecord(
        **{name: getattr(report, name) for name in DataIdentity.model_fields},
        place=storage.relative(folder.root, run.folder),
        report=report,
        contents=found.contents,
        made_with={name: getattr(chosen, name) for name in MADE_WITH},
    )
    storage.write_record(run.folder / "folds.json", folds.folds_record(made))
    storage.write_record(run.folder / "data.json", record)
    return DataSet(folder.root, samples, _as_trained(made, chosen), record, classes)


def open_data(run: Run, drive: Path | None = None) -> DataSet:
    """The data of a run that notebook 01 has prepared, found again and compared by fingerprint.

    Raises RunError where it has none or the data found is other; DataError where none is found.
    """
    run.require("data")
    run.require_stored()
    record = storage.read_record(run.folder / "data.json", DataRecord)
    stored = storage.read_record(run.folder / "folds.json", FoldsRecord)
    there = run.settings.with_values(record.made_with | {"folds": stored.protocol})
    if other := settings_io.differences(there, settings_io.to_json(run.settings)):
        raise RunError(refusal(run.folder, other))
    root = _place(run, record, drive)
    chosen = run.settings
    found_there = survey(root, record.contents, chosen.region, chosen.needs_masks)
    samples = found_there.usable(chosen.incomplete)
    found = (class_fingerprint if run.settings.classes == "each" else fingerprint)(samples)
    if found != record.fingerprint:
        parent, name = run.folder.parent, run.folder.name
        free = storage.first_free(parent, name, lambda path: not path.exists())
        raise RunError(
            f"The data in {root.name} is not what {run.folder.name} was begun with: fingerprint "
            f"{found[:12]} here, {record.fingerprint[:12]} there. Where pictures were added or "
            f"changed, begin another run: put %env KSDD_RUN={free} into a new cell above this one, "
            "run all, and delete it later; for `run`, name another folder by --out.",
            see="runs#other-data",
        )
    learns = chosen.labels != "none"
    whole = folds.folds_from_record(stored, samples, record.report.twins or (), learns)
    classes = _classes(samples, run.settings)
    return DataSet(root, samples, _as_trained(whole, run.settings), record, classes)


def part_of(run: Run, data: DataSet, fold: int) -> Fold:
    """A fold; for `FINAL` all samples in training and none in test, by the same settings."""
    if fold != FINAL:
        return data.folds[fold]
    whole = Fold(FINAL, data.samples, (), run.settings.folds, ())
    return _as_trained([whole], run.settings)[0]


def _classes(samples: Sequence[Sample], settings: Settings) -> tuple[str, ...]:
    """The names of the defects that are told apart; what is drawn is of the class of its kind."""
    if settings.classes == "one":
        return ()
    drawn = settings.drawn_kinds.split(",") if settings.draws else []
    return tuple(sorted({*class_names(samples), *drawn}))


def _as_trained(made: Sequence[Fold], settings: Settings) -> tuple[Fold, ...]:
    """The folds, with what training may know by the settings."""
    seed = settings.seed
    if count := settings.defective_images:
        made = [folds.with_few_defects(fold, count, seed) for fold in made]
    if share := settings.held_out:
        alone = settings.fold_numbers
        made = [folds.with_held_out(k, share, seed) if k.number in alone else k for k in made]
    return tuple(folds.as_labelled(one, settings.labels, settings.masks, seed) for one in made)


def _place(run: Run, record: DataRecord, drive: Path | None) -> Path:
    """An explicit source wins; else the place of last time; else the source is asked again."""
    remembered = (run.folder / record.place).resolve()
    is_explicit = "/" in run.settings.data or "\\" in run.settings.data
    if not is_explicit and remembered.is_dir():
        return remembered
    try:
        return _obtain(run, drive).root
    except DataError as error:
        example = (drive or Path("/path/to")) / record.name
        raise DataError(
            f"The data of {run.folder.name} ({record.name}) is not on this machine: {error} "
            f"Where it lies elsewhere, run %env KSDD_DATA={example} (with its place) in a cell of "
            "its own, then this cell again.",
            see="runs#other-data",
        ) from error


def _obtain(run: Run, drive: Path | None) -> DataFolder:
    settings, items = run.settings, run.settings.generated_items
    if settings.data != "generated":
        return as_item_folders(obtain(settings.data, home(), drive), home(), settings)
    root = home() / "data" / f"generated-{items}-{settings.image_size}"
    return DataFolder(
        synthetic.generate(root, items, parse_size(settings.image_size)), "generated surfaces"
    )
