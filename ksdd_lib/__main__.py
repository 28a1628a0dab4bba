"""The same series without a browser: `python -m ksdd_lib COMMAND`; `--help` lists the commands."""

import argparse
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ksdd_lib import pipeline, presets, settings_io, storage
from ksdd_lib.data import data_report, item_folders, sources
from ksdd_lib.data.dataset import short_path
from ksdd_lib.data.survey import survey
from ksdd_lib.deploy import detection, folder_table, weights
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.errors import DataError, KsddError, RunError, address, page_of, sections, with_link
from ksdd_lib.evaluation.final import NO_TEST
from ksdd_lib.evaluation.summary import Summary
from ksdd_lib.formatting import number, printable
from ksdd_lib.layouts import arrange
from ksdd_lib.layouts.catalog import LAYOUTS
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.stage_training import advised, usual_fold
from ksdd_lib.notebook import controls, live, outputs
from ksdd_lib.runs import open as runs
from ksdd_lib.runs import prepare
from ksdd_lib.runs.run import FINAL, Run, fold_name
from ksdd_lib.setting_rules import Values
from ksdd_lib.settings import RULES
from ksdd_lib.storage import relative
from ksdd_lib.study import run as studies
from ksdd_lib.training.loop import Progress, Watch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, or 2 with one sentence on what to mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whose encoding may lack letters, as on Windows
            stream.reconfigure(errors="backslashreplace")
    chosen = _parser()[0].parse_args(arguments)
    try:
        return chosen.command(chosen) or 0
    except KsddError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def demo(chosen: argparse.Namespace) -> None:
    """The five notebooks on generated surfaces, three folds."""
    explicit = settings_io.from_environment() | {"preset": "demo"}
    _run_series(chosen.out or runs.home() / "runs" / "demo", explicit, with_notebooks=True)


def run(chosen: argparse.Namespace) -> None:
    """Prepare, train, evaluate and report a data set, or go on where it stopped."""
    explicit = settings_io.from_environment()
    if chosen.preset:
        explicit["preset"] = chosen.preset
    elif not (chosen.out / "data.json").exists():
        explicit.setdefault("preset", "demo" if chosen.data == "generated" else "cpu")
    explicit |= settings_io.from_assignments(chosen.set)
    source = Path(chosen.data).expanduser()
    explicit["data"] = str(source.resolve()) if source.exists() else chosen.data
    _run_series(chosen.out, explicit, chosen.notebooks)


def study(chosen: argparse.Namespace) -> None:
    """Train and compare all cells of a grid of settings, on the workers of one or many machines."""
    given = settings_io.from_assignments(chosen.set)
    where = chosen.workers, chosen.cluster, chosen.slurm
    page = studies.study(chosen.data, chosen.out, chosen.grid, given, *where, chosen.plan)
    if not chosen.plan:
        print(relative(page))


def inspect(chosen: argparse.Namespace) -> None:
    """The data report: counts, sizes, twins, leaks, unreadable files; unpacks a zip to data/."""
    explicit = settings_io.from_environment() | settings_io.from_assignments(chosen.set)
    wanted = presets.resolve({"preset": "cpu"} | explicit)
    tell = partial(print, file=sys.stderr)
    lying = sources.obtain(chosen.data, runs.home(), report=tell)
    folder = arrange.as_item_folders(lying, runs.home(), wanted)
    seen = survey(folder.root, (), wanted.region, wanted.needs_masks)
    found = advised(data_report.inspect_data(seen, folder, wanted), wanted)
    as_json = json.dumps(found.model_dump(mode="json"), indent=1)
    print(as_json if chosen.json else data_report.format_report(found))
    if obstacles := data_report.obstacles(found, wanted.labels != "none", wanted.folds):
        raise DataError(f"{found.name} cannot be trained on yet. {' '.join(obstacles)}")
    if not chosen.json:
        name = presets.run_name(wanted.with_values({"data": chosen.data}))
        print(f"time: {controls.steps_and_time(wanted)}")
        given = "".join(f" --set {shlex.quote(words)}" for words in chosen.set)
        print(f"next: run --data {shlex.quote(chosen.data)} --out runs/{name}{given}")


def convert(chosen: argparse.Namespace) -> None:
    """Write data of any layout as item folders, to be looked at, corrected and shared."""
    explicit = settings_io.from_environment() | settings_io.from_assignments(chosen.set)
    wanted = presets.resolve({"preset": "cpu"} | explicit)
    folder = sources.obtain(chosen.data, runs.home(), report=partial(print, file=sys.stderr))
    note = arrange.convert(folder.root, chosen.out, wanted)
    print(f"{relative(chosen.out)}: written from {LAYOUTS[note.layout].words}")
    for line in note.notes:
        print(f"{line}.")


def label_good(chosen: argparse.Namespace) -> None:
    """List the images without a label, which would count as good; --write writes black labels."""
    if chosen.undo:
        removed, kept = item_folders.remove_labels(chosen.folder)
        for path in kept:
            print(f"{short_path(path)} was changed since, and stays")
        print(f"{len(removed)} labels removed: those that label_good had written.")
        return
    labels = item_folders.missing_labels(chosen.folder)
    for path in labels:
        print(short_path(path))
    if chosen.write:
        item_folders.write_labels(chosen.folder, labels)
        print(f"{len(labels)} labels written, all black. Each of these images now counts as good.")
    else:
        print(
            f"{len(labels)} labels would be written, all black: these images would count as good."
        )
        print("Nothing was written. If that is right, add --write; --undo takes it back.")


def judge(chosen: argparse.Namespace) -> int:
    """Judge a picture or a folder of them with a trained model; a table, the most suspicious first.

    Exit status: 0 all are good; 1 some are defective; 2 some are unreadable or no surface, or the
    command failed.
    """
    for place in filter(None, (chosen.out, chosen.masks)):
        if place.exists():
            raise RunError(f"{place} is there already: name another file or folder.")
        above = next(above for above in place.absolute().parents if above.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise RunError(f"Nothing can be written in {above}: name another place.")
    folder_table.require_table(chosen.out)
    for taken in (chosen.pictures, chosen.out):
        if chosen.masks and chosen.masks.resolve().is_relative_to(taken.resolve()):
            raise RunError(f"{chosen.masks} lies in {taken}: name a place outside with --masks.")
    detector = detection.load(chosen.weights)
    height, width = detector.size
    print(f"model: {detector.origin}, made for {height}x{width}")
    rows = folder_table.judge_folder(detector, chosen.pictures, masks=chosen.masks)
    folder_table.write_verdicts(chosen.out, rows)
    print(f"{relative(chosen.out)}: {folder_table.outcome(rows)}")
    return folder_table.exit_status(rows)


def train_final(chosen: argparse.Namespace) -> None:
    """Train one model on all items of a run that is evaluated, by its settings, to be published."""
    opened = _opened(chosen.run_folder)
    began = time.monotonic()
    if not method_of(opened.settings).stages:
        raise RunError(f"The method {opened.settings.method} learns nothing: publish it as it is.")
    with _watched(opened) as (drive, watch, _, saved):
        pipeline.train_final(opened, prepare.open_data(opened, drive), watch, saved)
    place, model = relative(opened.folder), "model.safetensors"
    print(f"next: publish {place} {model}, judge FOLDER --weights {model}")
    print(f"{relative(opened.fold_folder(FINAL))}: {NO_TEST} ({_minutes(began)})")


def share(chosen: argparse.Namespace) -> None:
    """Copy an executed notebook without widget state, personal places and secrets, to send it."""
    print(_tool("share_notebook")["share_notebook"](chosen.notebook, chosen.out))


def publish(chosen: argparse.Namespace) -> None:
    """Write the final model, or a fold's, as one file to give away, and its card beside it."""
    run = _opened(chosen.run_folder)
    if chosen.file.suffix != ".safetensors" or printable(chosen.file.name) != chosen.file.name:
        raise RunError(f"{chosen.file.name} must be text that ends in .safetensors.")
    fold = usual_fold(run) if chosen.fold is None else chosen.fold
    before = chosen.file.read_bytes() if chosen.file.exists() else None
    card = weights.publish(run, prepare.open_data(run), fold, chosen.file)
    print(f"published: {relative(chosen.file)}, {fold_name(fold)}; its card {card.name}")
    if before not in (None, chosen.file.read_bytes()):
        print("It replaces the one that was published there before.")
    if fold == FINAL:
        print(NO_TEST)
    elif method_of(run.settings).stages:
        hint = f"trained on a part of the items; train_final {relative(run.folder)} takes them all"
        print(f"{fold_name(fold)} was {hint}.")


def options(chosen: argparse.Namespace) -> None:
    """List every setting for --set: default, allowed values, unit, reason."""
    print("Values without a preset; `run` starts from the preset cpu, `demo` from demo (below).")
    print("\n".join(map(settings_io.explained, RULES)))
    for name, values in presets.PRESETS.items():
        print(f"preset {name}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


def help_(chosen: argparse.Namespace) -> None:
    """Find the settings, commands and sections of docs/ about a word, with their pages."""
    told = [(page_of(n), text := settings_io.explained(n), text) for n in RULES]
    for name, made in commands().items():
        short = str(made.description).partition("\n")[0]
        told.append((page_of(name), f"{name}: {short}", made.format_help()))
    word, told = chosen.word.lower(), [*told, *sections()]
    found = [(page, shown) for page, shown, text in told if word in " ".join(text.lower().split())]
    if not found:
        raise RunError(f"Nothing is told of {chosen.word!r}: `options` lists all settings.")
    print("\n".join(f"{shown}\n    {address(page)}" for page, shown in found))


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """Name of each command -> what reads its arguments."""
    return _parser()[1]


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(prog="python -m ksdd_lib", description=__doc__)
    added = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any) -> Callable[..., argparse.Action]:
        """A command that is named and explained as its function -> what gives it an argument."""
        text = function.__doc__
        short = text.partition("\n")[0]
        name = function.__name__.rstrip("_")
        made = added.add_parser(name, help=short, description=text)
        made.set_defaults(command=function)
        return made.add_argument

    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "FIELD=VALUE"}
    command(demo)("--out", type=Path, help="the run folder (default: runs/demo)")
    add = command(run)
    places = "folder, zip, https address, Drive link, kolektorsdd, or generated; several with ;"
    add("--data", required=True, help=places)
    add("--out", type=Path, required=True, help="the run folder, new or to go on")
    add("--preset", choices=presets.PRESETS, help="values to start from (cpu)")
    add("--set", **several, help="one setting (see options); repeatable")
    add("--notebooks", action="store_true", help="execute the five notebooks, and keep them")
    _study_arguments(command(study), several)
    _data_arguments(command, several)
    add = command(judge)
    add("pictures", type=Path, help="a folder of images, or one image")
    add("--weights", type=Path, help="a .safetensors file (the published model)")
    add("--out", type=Path, default=Path("verdicts.csv"), help=".csv or .json (verdicts.csv)")
    add("--masks", type=Path, help="a new folder for a mask and an overlay of each picture")
    add = command(share)
    add("notebook", type=Path, help="an executed notebook")
    add("--out", type=Path, help="the copy (NOTEBOOK-shared.ipynb)")
    command(train_final)("run_folder", type=Path, help="a run folder that is evaluated")
    add = command(publish)
    add("run_folder", type=Path, help="a run folder that is evaluated")
    add("file", type=Path, help="the file to write, .safetensors")
    text = "whose model (the final one where train_final has made it, else the first)"
    add("--fold", type=int, choices=range(FINAL), help=text)
    command(options)
    command(help_)("word", help="a part of a name or of its text, as alpha")
    return parser, added.choices


def _data_arguments(command: Any, several: dict[str, Any]) -> None:
    add = command(inspect)
    add("--data", required=True, help="as for run, but for generated")
    add("--json", action="store_true", help="for machines")
    add("--set", **several, help="as for run")
    add = command(convert)
    add("data", help="as --data of run, but for generated")
    add("out", type=Path, help="the folder to write, new")
    add("--set", **several, help="layout=... or item=...")
    add = command(label_good)
    add("folder", type=Path, help="the folder of the items")
    add("--write", action="store_true", help="write the labels that are listed without it")
    add("--undo", action="store_true", help="remove the labels that were written, unless changed")


def _study_arguments(add: Callable[..., argparse.Action], several: dict[str, Any]) -> None:
    add("--data", required=True, help="as for run")
    add("--out", type=Path, required=True, help="the folder of the study, new or to go on")
    add("--grid", default="paper", help="paper (40 cells), or a JSON file (paper)")
    add("--set", **several, help="as for run; of a varied setting this value alone is left")
    add("--workers", type=int, help="processes here (one a GPU, or one for two cores)")
    add("--cluster", metavar="ADDRESS", help="of a Dask scheduler: tcp://HOST:PORT")
    add("--slurm", type=Path, metavar="FILE", help="JSON, for dask_jobqueue.SLURMCluster")
    add("--plan", action="store_true", help="only say what it would take")


def _run_series(out: Path, explicit: Values, with_notebooks: bool) -> None:
    """The whole series on one run folder, here or in notebooks, and one line on what came of it."""
    began = time.monotonic()
    is_finished, go_on = _in_notebooks() if with_notebooks else (pipeline.is_finished, _run_here)
    wanted = presets.resolve(explicit)
    has_data = (out / "data.json").exists()  # an attempt that found no data settles nothing
    opened = runs.open_run(out, explicit) if has_data else runs.create(wanted, out)
    if is_finished(opened):
        print(f"{_outcome(opened)}; already finished: nothing was changed")
        if with_notebooks:
            print("(to execute the notebooks again, on the same weights, delete its report.html)")
        return
    words = ["python -m ksdd_lib", *map(_without_place, sys.argv[1:])]
    os.environ["KSDD_COMMAND"] = " ".join(words)
    go_on(opened)
    books = relative(opened.folder / "notebooks")
    kept = f"; executed notebooks in {books}" if with_notebooks else ""
    if not with_notebooks:
        model = "model.safetensors"
        place = relative(opened.folder)
        print(f"next: train_final {place}, publish {place} {model}, judge FOLDER --weights {model}")
    print(f"{_outcome(opened)}{kept} ({_minutes(began)})")


def _minutes(began: float) -> str:
    return f"{(time.monotonic() - began) / 60:.1f} min"


def _opened(folder: Path) -> Run:
    """The run in a folder; RunError where there is none."""
    if not (folder / "settings.json").exists():
        raise RunError(f"There is no run in {relative(folder)}.")
    return runs.open_run(folder)


def _tool(name: str) -> dict[str, Any]:
    """What a file of the checkout's `tools` defines; the notebooks are found beside it alone."""
    path = runs.CHECKOUT / "tools" / f"{name}.py"
    if not path.exists():
        raise RunError("The notebooks are not beside ksdd_lib: run this in a checkout.")
    return runpy.run_path(str(path))


def _in_notebooks() -> tuple[Callable[[Run], bool], Callable[[Run], None]]:
    """What tells whether a run is finished, and what executes it, in the checkout's notebooks."""
    tool = _tool("run_notebooks")
    tool["check_notebooks"]()
    return tool["is_finished"], tool["run_notebooks"]


def _run_here(opened: Run) -> None:
    """The series in this process, with one line that shows how far it is."""
    with _watched(opened) as (drive, watch, scored, saved):
        pipeline.run_series(opened, drive, watch, scored, saved)


@contextlib.contextmanager
def _watched(opened: Run) -> Iterator[tuple[Path | None, Watch, Any, pipeline.Saved]]:
    """Drive, and what shows how far training and scoring are, and copies what is new to Drive."""
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"
    place = os.environ.get("KSDD_DRIVE")
    drive, line = Path(place) if place else None, outputs.ProgressLine(1.0)
    scored = outputs.counter("scoring", line)

    def watch(progress: Progress) -> None:
        is_last = progress.step >= progress.steps
        line.show(live.describe(progress), is_last, (progress.stage, progress.fold))

    try:
        with BackgroundCopy(opened, drive) as copies:
            yield drive, watch, scored, copies.start_if_due
    finally:
        line.end()


def _outcome(opened: Run) -> str:
    """Where the threshold comes from, where the report is, and the score of all folds."""
    summary = storage.read_record(opened.folder / "metrics.json", Summary)
    pooled = summary.pooled
    place = relative(opened.folder / "report.html")
    good = pooled.images - pooled.defective
    missed = f"{pooled.fn} of {pooled.defective} missed" if pooled.defective else "no defect tested"
    rule = with_link(f"threshold: {summary.threshold_rule}", "thresholds#threshold")
    return (
        f"{rule}\n"
        f"{place}: pooled AP {number(pooled.ap)} over {pooled.images} images, {missed}, "
        f"{pooled.fp} of {good} good ones flagged"
    )


def _without_place(word: str) -> str:
    """A word of the command line without the folders of this machine."""
    return word if "://" in word else re.sub(r"[^\s=]*[/\\](?=[^/\\])", "", word)


if __name__ == "__main__":
    sys.exit(main())
