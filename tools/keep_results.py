"""Keeps a finished run in assets/results, and writes the tables of results anew.

python tools/keep_results.py RUN_FOLDER           add a run on KolektorSDD, or folds of it
python tools/keep_results.py --remove NAME        remove a kept run
python tools/keep_results.py --draw NAME FOLDER   draw its figures, but for those of surfaces
python tools/keep_results.py                      write the tables alone
"""

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from choice_tables import recipe_table, try_table
from few_defects import draw_few_defects, few_defects_table
from kept import (
    ROOT,
    Kept,
    KeptRun,
    read_kept,
    read_run_folder,
    write_kept,
    write_run_folder,
)
from less_labels import less_labels_table
from pages import write_page
from protocols import protocol_table, published_table, twin_table, variant_protocol_table
from pydantic import JsonValue
from run_tables import error_table, headline_table, run_table, variant_run_table
from speed_tables import speed_table
from threshold_rules import threshold_rule_table

from ksdd_lib import storage
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.evaluation.predictions import predictions_text
from ksdd_lib.evaluation.results import FREE, load_results, rule_of
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.presets import NAMED, changes, run_name
from ksdd_lib.reporting.report import make_figures
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.settings_io import from_json, to_json

Json = dict[str, JsonValue]

PAGES: dict[str, dict[str, Callable[[Kept], str]]] = {
    "README.md": {"headline": headline_table},
    "assets/results/README.md": {
        "runs": run_table,
        "variant-runs": variant_run_table,
        "errors": error_table,
        "recipes": recipe_table,
        "tries": try_table,
        "few": few_defects_table,
        "less": less_labels_table,
        "threshold-rules": threshold_rule_table,
        "twins": twin_table,
    },
    "docs/protocols.md": {
        "published": published_table,
        "protocols": protocol_table,
        "variant-protocols": variant_protocol_table,
    },
    "docs/speed.md": {"speed": speed_table},
}
"""Page -> the name that marks a table's place in it -> what makes its text."""

PASSED_OVER = {"preset", "checkpoint_steps", "precision", *NAMED}
PASSED_OVER |= {"folds", "fold", "twins", "partition", "defective_images", "seed"}
"""Settings that change no score, or that a run's name or its results tell."""

FROM_GOOD_STEPS = 200
"""Decision steps of the recipe for good surfaces alone: each drawn surface is computed anew."""


def unnamed(settings: Settings) -> list[str]:
    """The settings that differ from the preset and change scores, but are not in `run_name`."""
    passed_over = set(PASSED_OVER)
    if settings.data != "generated":
        passed_over |= {"generated_items"}
    if not settings.copy_paste:
        passed_over |= {"decision_copy_paste"}
    if settings.labels == "none" and settings.decision_steps == FROM_GOOD_STEPS:
        passed_over |= {"decision_steps"}
    groups = {"data", "run"}
    if settings.method == "two_stage":  # with the score of the mask, the second stage is not asked
        groups |= {"segmentation"} if settings.score == "mask" else {"segmentation", "decision"}
    changed = changes(settings).keys() - passed_over
    return [name for name, rule in RULES.items() if name in changed and rule.group in groups]


def keep(run_folder: Path, root: Path) -> str:
    """Add a finished run to the kept results of a checkout, under the name of its settings.

    Folds of an earlier run of that name are replaced, or stay where this run did not train them.
    Long trainings are so kept fold by fold, and thresholds then follow from all folds. Weights,
    masks and pictures of surfaces are not kept: those of KolektorSDD may not enter the repository.

    Returns:
        The name.

    Raises:
        RunError: it is no run on KolektorSDD, or not finished, or its files do not belong together.
            Or it differs from its preset in what its name does not say, or it would join or replace
            results of other settings or folds.
    """
    if not (run_folder / "settings.json").exists():
        raise RunError(f"{run_folder.name} is no run folder.")
    load_results(run_folder)
    run = read_run_folder(run_folder, "")
    about = run.document("data", Json)
    if not about["is_kolektor"]:
        raise RunError(f"assets/results holds results on KolektorSDD, not on {about['name']}.")
    settings = replace(_settings(run), data="kolektorsdd")
    if different := unnamed(settings):
        raise RunError(
            f"{run_folder.name} is not as its preset {settings.preset}: {', '.join(different)}. "
            "Results are joined by their names, which do not tell that: only presets are kept."
        )
    kept, name = read_kept(root), run_name(settings)
    run = replace(run, name=name)
    if earlier := kept.runs.get(name):
        _require_same_recipe(run, earlier)
        run = _with_kept_folds(run, earlier)
    write_kept(Kept(kept.folder, kept.runs | {name: run}))
    return name


def remove(name: str, root: Path) -> None:
    """Remove a kept run from the results of a checkout.

    Raises:
        RunError: there is none of that name.
    """
    kept = read_kept(root)
    if name not in kept.runs:
        raise RunError(f"There is no kept run {name!r}.")
    write_kept(Kept(kept.folder, {n: run for n, run in kept.runs.items() if n != name}))


def draw(name: str, folder: Path, root: Path) -> list[Path]:
    """Draw the figures of a checkout's kept run; returns the PNG files.

    Raises:
        RunError: there is no kept run of that name.
    """
    runs = read_kept(root).runs
    if name not in runs:
        raise RunError(f"There is no kept run {name!r}; there are {', '.join(runs)}.")
    drawn = []
    with tempfile.TemporaryDirectory() as scratch:
        write_run_folder(runs[name], Path(scratch))
        for figure in make_figures(Path(scratch)).values():
            storage.write_bytes(folder / figure.name, figure.read_bytes())
            drawn.append(folder / figure.name)
    return drawn


def write_tables(root: Path, kept: Kept) -> list[str]:
    """Write every table into its page; returns the pages that this changed."""
    draw_few_defects(kept)
    changed = []
    for page, tables in PAGES.items():
        texts = {name: partial(table, kept) for name, table in tables.items()}
        if write_page(root / page, texts):
            changed.append(page)
    return changed


def _settings(run: KeptRun) -> Settings:
    """A run's settings; one that is newer than the run has its default."""
    return from_json(run.document("settings", dict[str, Value]))


def _require_same_recipe(run: KeptRun, earlier: KeptRun) -> None:
    """Refuse to replace results of other settings; which folds were trained may differ."""
    ours, theirs = to_json(_settings(run)), to_json(_settings(earlier))
    if other := [name for name in ours if name not in FREE and ours[name] != theirs[name]]:
        raise RunError(
            f"{earlier.name} holds results of another {', '.join(other)}: keep these under another "
            "preset or seed, or remove it first (--remove)."
        )


def _with_kept_folds(run: KeptRun, earlier: KeptRun) -> KeptRun:
    """The run with the folds of `earlier` that it did not train itself."""
    others = sorted(set(earlier.summary.folds_trained) - set(run.summary.folds_trained))
    if not others:
        return run
    if earlier.documents["folds"] != run.documents["folds"]:
        raise RunError(
            f"{earlier.name} holds folds of other items: remove it first (--remove), or keep these "
            "results under another seed."
        )
    rows = [*run.rows, *(row for row in earlier.rows if row.fold in others)]
    rows, summary = conclude(
        sorted(rows, key=lambda row: row.fold),
        run.summary.protocol,
        run.summary.seed,
        run.train_items,
        false_alarms=run.summary.false_alarms[0].wanted if run.summary.false_alarms else None,
        rule=rule_of(run.summary),
    )
    before, now = earlier.document("metrics", Json), run.document("metrics", Json)
    told = {"made_from", "trained_defects", "taught"} & set(before) & set(now)
    metrics = summary.model_dump(mode="json") | {n: _joined(before[n], now[n]) for n in told}
    settings = run.document("settings", Json)
    if len(summary.folds_trained) == len(run.train_items):
        settings |= {"fold": "all"}
    curves = [*run.curves, *(row for row in earlier.curves if int(row[0]) in others)]
    documents = dict(run.documents) | {
        "settings": settings,
        "environment": _joined_environment(run, earlier, others),
        "timing": _joined_timing(run, earlier, others),
        "metrics": metrics,
    }
    predictions = list(csv.reader(io.StringIO(predictions_text(rows))))
    return KeptRun(run.name, documents, predictions, sorted(curves, key=lambda row: row[:2]))


def _of_folds(folds: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"fold {fold}" for fold in folds)


def _joined_environment(run: KeptRun, earlier: KeptRun, others: Sequence[int]) -> JsonValue:
    """The run's, and of each kept fold where its stages were trained and by which command."""
    folds = _of_folds(others)
    commands = {f"command of {fold}": earlier.environment["command"] for fold in folds}
    made = {what: how for what, how in earlier.environment.items() if what.endswith(folds)}
    return {**run.environment, **commands, **made}


def _joined_timing(run: KeptRun, earlier: KeptRun, others: Sequence[int]) -> JsonValue:
    ours, theirs = (one.document("timing", list[JsonValue]) for one in (run, earlier))
    times = zip(earlier.timing, theirs, strict=True)
    return [line for timed, line in times if timed.what.endswith(_of_folds(others))] + ours


def _joined(earlier: JsonValue, newer: JsonValue) -> JsonValue:
    """Both, down to the single value; the newer one's where both have it."""
    if not (isinstance(earlier, Mapping) and isinstance(newer, Mapping)):
        return newer
    both = earlier.keys() & newer.keys()
    return earlier | newer | {name: _joined(earlier[name], newer[name]) for name in both}


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on what is wrong."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("run_folder", type=Path, nargs="?")
    parser.add_argument("--remove", metavar="NAME")
    parser.add_argument("--draw", nargs=2, metavar=("NAME", "FOLDER"))
    chosen = parser.parse_args(words)
    try:
        if chosen.draw:
            name, folder = chosen.draw
            print(*draw(name, Path(folder), ROOT), sep="\n")
            return 0
        if chosen.run_folder:
            print(f"kept: {keep(chosen.run_folder, ROOT)}")
        if chosen.remove:
            remove(chosen.remove, ROOT)
            print(f"removed: {chosen.remove}")
        for page in write_tables(ROOT, read_kept(ROOT)):
            print(f"written: {page}")
    except KsddError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
