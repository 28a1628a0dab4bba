"""Which copy of a run is further, the one here or the one on Drive.

Checkpoint steps, hashes and done markers decide that, never times.
"""

import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from ksdd_lib import settings_io, storage
from ksdd_lib.drive import layout, markers
from ksdd_lib.errors import KsddError
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.runs.lock import FILE
from ksdd_lib.runs.run import Run, Timing
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import RULES
from ksdd_lib.training import checkpoint

STAGE_FILE = re.compile(
    r"(?P<fold>fold\d+|final)/(?P<stage>\w+)(-\d{6}\.(pt|json)|\.jsonl|\.done\.json)"
)

NO_RESULTS = {"settings.json", "folds.json", "data.json", "timing.json", layout.LAST_COPY}
"""Files of a run that belong neither to a stage nor to the evaluation."""

File = tuple[str, bytes]
"""A file's name, relative to the run's folder, and its content."""


class DataFacts(storage.Record):
    """What matters here of data.json, whichever version wrote it; see `runs.prepare`."""

    fingerprint: str | None = None
    archive_sha256: str | None = None
    place: str = "nowhere"


class Done(storage.Record):
    """What matters here of the marker of a finished stage."""

    steps: int


def opened(folder: Path, read: Callable[[Path], bytes | None] = markers.content) -> Run | None:
    """The run in a folder; None where its settings are absent, damaged or of another version.

    On Drive its settings.json is read by `markers.read`.
    """
    stored = read(folder / "settings.json")
    try:
        found = storage.parse_record(stored or b"", dict[str, Value], "settings.json")
        return Run(folder, settings_io.from_json(found))
    except KsddError:
        return None


def fixed_differences(here: Run, there: Run) -> tuple[set[str], set[str]]:
    """The groups of settings in which a run here and one on Drive differ: those in use here, and
    those in use there (see `Run.has_begun`). "data" is among them where the data differ."""
    names = settings_io.differences(here.settings, settings_io.to_json(there.settings))
    groups = {RULES[name].group for name in names}
    ours = markers.parsed(markers.content(here.folder / "data.json"), DataFacts)
    theirs = markers.parsed(markers.read(there.folder / "data.json"), DataFacts)
    if len({data.fingerprint for data in (ours, theirs) if data and data.fingerprint}) == 2:
        groups.add("data")

    def is_used_there(group: str) -> bool:
        if group == "data":  # the content of data.json may have another name there
            return markers.marker_of(there.folder / "data.json").exists()
        return there.has_begun(group)

    return set(filter(here.has_begun, groups)), set(filter(is_used_there, groups))


def folder_on_drive(run: Run, runs: Path) -> Path:
    """The run's folder in the `runs` on Drive: the known one, else the first free of its name.

    Settings that no stage there has used may differ, as they may have been changed in time.
    """

    def is_ours(folder: Path) -> bool:
        there = opened(folder, markers.read)
        return there is not None and not fixed_differences(run, there)[1]

    def is_free(folder: Path) -> bool:
        if folder.is_symlink():  # it may lead out of Drive
            return False
        return is_ours(folder) or not markers.marker_of(folder / "settings.json").exists()

    agreed = layout.read_agreement(run.folder.parent)
    if agreed and agreed.here == run.folder.name:
        known = layout.folder_of(runs, agreed.drive)
        if known and is_ours(known):
            return known
    return storage.first_free(runs, run.folder.name, is_free)


def _is_of_a_run(name: str) -> bool:
    """Whether a file of that name in a run's folder on Drive may be brought."""
    return FILE.fullmatch(name) is not None and name != "owner.json"


class DriveCopy:
    """All files of a run on Drive, by their names in its folder, read through their markers.

    `damaged` are the names of the files read that are not what their markers say, `others` those
    of files that this package does not write, which are not brought.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = markers.walk(folder)
        found = markers.read_markers(self.files)
        named = {path.relative_to(folder).as_posix(): found[path] for path in found}
        self.markers = {name: named[name] for name in filter(_is_of_a_run, named)}
        self.others = sorted(named.keys() - self.markers.keys())
        self.damaged: set[str] = set()

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is absent or damaged."""
        data = markers.read(self.folder / name, self.markers.get(name, []))
        if data is None and name in self.markers:
            self.damaged.add(name)
        return data

    def steps(self, prefix: str) -> list[int]:
        """The steps of the checkpoints of "fold0/segmentation", newest first."""
        found = re.compile(re.escape(prefix) + r"-(\d{6})\.json")
        return sorted(int(m[1]) for name in self.markers if (m := found.fullmatch(name)))[::-1]

    def not_whole(self, folder: Path) -> list[str]:
        """Names of damaged files, and of those missing in `folder` here whose copy was cut."""
        shown = [path for path in self.files if path.suffix != ".ok" and path.name[0] != "."]
        names = {markers.plain(path).relative_to(self.folder).as_posix() for path in shown}
        cut = set(filter(_is_of_a_run, names - self.markers.keys()))
        return sorted(self.damaged | {name for name in cut if not (folder / name).exists()})


def further_files(copy: DriveCopy, there: Run, folder: Path) -> Iterator[File]:
    """What a run has further on Drive than in its folder here, in the order of writing.

    Each file must be written before the next is asked for, as later ones depend on it.

    - Of each stage the newest checkpoint with its history and done marker, where its step is
      higher than here, or as high and the stage is done only there.
    - Settings that a stage on Drive has used and none here.
    - data.json and folds.json, or the results of evaluation, where only Drive has them whole.
    - Any other file, and lines of timing.json, that are missing here.
    """
    yield from _settings(copy, there, folder)
    yield from _unit(copy, folder, ["folds.json", "data.json"], key="data.json")
    order = [stage.name for stage in method_of(there.settings).stages]
    found = {m["fold"] for m in map(STAGE_FILE.fullmatch, copy.markers) if m}
    folds, fit = sorted(found - {"final"}), True  # no result is of the final model
    for fold in sorted(found):
        for before, stage in zip(["", *order], order, strict=False):
            is_whole = yield from _stage(copy, folder, fold, stage, before)
            fit = fit and (is_whole or fold not in folds)
    if fit and _has_same_results(copy, folder, folds, order[-1] if order else ""):
        names = [n for n in copy.markers if n not in NO_RESULTS and not STAGE_FILE.fullmatch(n)]
        yield from _unit(copy, folder, names, key="metrics.json")
    yield from _timing(copy, folder)


def _settings(copy: DriveCopy, there: Run, folder: Path) -> Iterator[File]:
    here = opened(folder)
    if here is None:
        yield from _whole(copy, ["settings.json"])
        return
    used_here, used_there = fixed_differences(here, there)
    theirs = settings_io.to_json(there.settings)
    names = settings_io.differences(here.settings, theirs)
    taken = {n: theirs[n] for n in names if RULES[n].group in used_there - used_here}
    if taken:
        settings = settings_io.to_json(here.settings.with_values(taken))
        yield "settings.json", storage.json_text(settings).encode()


def _whole(copy: DriveCopy, names: Iterable[str]) -> Iterator[File]:
    """Those of the files that are whole on Drive."""
    for name in names:
        data = copy.read(name)
        if data is not None:
            yield name, data


def _unit(copy: DriveCopy, folder: Path, names: Iterable[str], key: str) -> Iterator[File]:
    """All of `names` where `key` is only on Drive, else those that are missing here."""
    is_further = key in copy.markers and not (folder / key).exists()
    wanted = [name for name in names if is_further or not (folder / name).exists()]
    order = sorted(wanted, key=lambda name: (name == key, name.endswith(".json"), name))
    return _whole(copy, order)


def _stage(
    copy: DriveCopy, folder: Path, fold: str, stage: str, before: str
) -> Generator[File, None, bool]:
    """The newest whole checkpoint of a stage, if it is further, and what belongs to it.

    Returns False where it goes on from other weights of the stage `before`, and stays on Drive.
    """
    prefix, steps = f"{fold}/{stage}", copy.steps(f"{fold}/{stage}")
    done = f"{prefix}.done.json"
    is_only_done_there = done in copy.markers and not (folder / done).exists()
    ours = checkpoint.newest_whole(folder / fold, stage)[0] if steps else -1
    for step in steps:
        if step < ours or (step == ours and not is_only_done_there):
            return True
        weights, marker = (f"{prefix}-{step:06d}.{ending}" for ending in ("pt", "json"))
        record, data = copy.read(marker), copy.read(weights)
        found = markers.parsed(record, checkpoint.Marker)
        if not (record and data and found and found.fits(data)):
            continue  # damaged, or of two trainings
        predecessor = found.identity.get("predecessor")
        if predecessor and predecessor != checkpoint.newest_whole(folder / fold, before)[1]:
            told = f"{prefix} on Drive goes on from other weights than are here: passed over."
            warnings.warn(told, stacklevel=2)
            return False
        yield weights, data
        yield from _whole(copy, [f"{prefix}.jsonl"])
        yield marker, record
        finished = copy.read(done)
        last = markers.parsed(finished, Done)
        if finished and last and last.steps <= step:
            yield done, finished
        return True
    return True


def _has_same_results(copy: DriveCopy, folder: Path, folds: Iterable[str], last: str) -> bool:
    """Whether weights of the last stage and an evaluation, where they are here, are Drive's too."""
    for fold in folds:
        names = [f"{fold}/{last}-{step:06d}.json" for step in copy.steps(f"{fold}/{last}")[:1]]
        found = [markers.parsed(copy.read(name), checkpoint.Marker) for name in names]
        theirs = [marker.sha256 for marker in found if marker]
        if checkpoint.newest_whole(folder / fold, last)[1] not in [None, *theirs]:
            return False
    metrics = markers.content(folder / "metrics.json")
    return metrics is None or any(m.fits(metrics) for m in copy.markers.get("metrics.json", []))


def _timing(copy: DriveCopy, folder: Path) -> Iterator[File]:
    """timing.json with the lines that are missing here; not where one of both is damaged."""
    rows = markers.parsed(markers.content(folder / "timing.json") or b"[]", list[Timing])
    there = markers.parsed(copy.read("timing.json"), list[Timing])
    if rows is None or there is None:
        return
    here = {row.what for row in rows}
    if more := [row for row in there if row.what not in here]:
        lines = [row.model_dump() for row in [*rows, *more]]
        yield "timing.json", storage.json_text(lines).encode()
