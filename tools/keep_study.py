"""Keeps the paper's study on KolektorSDD in assets/results/study, and writes its page anew.

python tools/keep_study.py STUDY_FOLDER   add the runs that have finished
python tools/keep_study.py                write the page and its figures alone
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kept import ROOT, Kept, KeptRun, read_folder, read_run_folder, write_kept, write_run_folder
from pages import in_percent, table, write_page

from ksdd_lib import storage
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.formatting import words
from ksdd_lib.reporting import plots
from ksdd_lib.setting_rules import Value
from ksdd_lib.study.grid import JUDGING, PAPER, Grid, jobs_of
from ksdd_lib.study.page import effect_figure, heat_map
from ksdd_lib.study.results import Outcome, Row, outcome, sentences, shown, stored_grid
from ksdd_lib.study.work import is_done

FOLDER = Path("assets/results/study")


def keep(study: Path, root: Path) -> int:
    """Add all finished runs of a study to those that a checkout keeps; returns how many it keeps.

    A run that is kept already is replaced. Weights, masks and pictures of surfaces are not kept.
    Raises RunError where it is no study on KolektorSDD, of another recipe than the kept one, or
    where the files of a run do not belong together.
    """
    grid, folder = stored_grid(study), root / FOLDER
    if (folder / "study.json").exists() and not _is_of_one(grid, stored_grid(folder)):
        raise RunError(f"{FOLDER} holds a study of another recipe: remove that folder first.")
    runs = {}
    for job in jobs_of(grid, "kolektorsdd"):
        if is_done(study, job, JUDGING):
            load_results(study / job.name)
            runs[job.name] = read_run_folder(study / job.name, job.name)
    for run in runs.values():
        if not run.document("data", dict[str, object])["is_kolektor"]:
            raise RunError(f"{FOLDER} holds a study on KolektorSDD, and {run.name} is on others.")
    folder.mkdir(parents=True, exist_ok=True)
    kept = read_folder(folder).runs | runs
    write_kept(Kept(folder, kept))
    storage.write_record(folder / "study.json", grid)
    return len(kept)


def _is_of_one(grid: Grid, kept: Grid) -> bool:
    """Whether the runs of both can stand in one table: all that does not vary is the same."""
    return (grid.fixed, grid.along, [*grid.vary]) == (kept.fixed, kept.along, [*kept.vary])


def read_study(root: Path) -> tuple[Grid, Outcome, dict[str, KeptRun]]:
    """The kept study of a checkout, what it says, and its runs by name."""
    folder = root / FOLDER
    grid, runs = stored_grid(folder), read_folder(folder).runs
    with tempfile.TemporaryDirectory() as scratch:
        for name, run in runs.items():
            write_run_folder(run, Path(scratch) / name)
            storage.write_text(Path(scratch) / name / "report.html", "")  # it was finished
        return grid, outcome(grid, jobs_of(grid, "kolektorsdd"), Path(scratch)), runs


def command_of(grid: Grid) -> str:
    """The command that this study of the paper's settings is."""
    given = {name: values[0] for name, values in grid.vary.items() if len(values) == 1}
    given |= {"fold": grid.folds[0]} if len(grid.folds) == 1 else {}
    given |= {name: value for name, value in grid.fixed.items() if PAPER.fixed.get(name) != value}
    line = " ".join(f"--set {name}={_text(value)}" for name, value in given.items())
    return f"python -m ksdd_lib study --data KolektorSDD.zip --out runs/study {line}"


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def result_text(grid: Grid, found: Outcome, runs: dict[str, KeptRun]) -> str:
    """What the study says, as Markdown: sentences, figures, a table, and what ran where."""
    head = f"**{found.finished} of {found.runs} runs are finished.**"
    told = "".join(f"- {sentence}\n" for sentence in sentences(found))
    figures = ["![AP of each cell](cells.png)"]
    figures += [
        f"![Effect of the {words(one.name)}](effect_{one.name}.png)"
        for one in found.factors
        if one.effects
    ]
    columns = [*map(words, grid.vary), "AP", "FP / FN, oracle", "FP at FN = 0", "minutes", "state"]
    cells = table(columns, [_cells(row) for row in found.rows])
    ran = Counter((_machine(run), run.environment["commit"]) for run in runs.values())
    where = "".join(
        f"- {count} run{'s' * (count > 1)} at {commit}: {machine}.\n"
        for (machine, commit), count in sorted(ran.items())
    )
    parts = [head, f"```bash\n{command_of(grid)}\n```", told, *figures, cells, where]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _machine(run: KeptRun) -> str:
    """Where the stages of a run were trained."""
    made = {
        str(how).partition(", at ")[0]
        for what, how in run.environment.items()
        if " stage of fold " in what
    }
    return "; ".join(sorted(made))


def _cells(row: Row) -> list[str]:
    pooled = row.pooled
    errors = ["", ""]
    if pooled:
        oracle = pooled.oracle
        errors = [f"{oracle.fp} / {oracle.fn}", str(oracle.fp_at_fn0)]
    minutes = f"{row.minutes:.1f}" if row.minutes else ""
    ap = "" if row.ap is None else in_percent(row.ap)
    return [*map(shown, row.cell), ap, *errors, minutes, row.state]


def write_study(root: Path) -> bool:
    """Write the page of the kept study and its figures; returns whether the page changed."""
    grid, found, runs = read_study(root)
    figures = {f"effect_{one.name}": effect_figure(one) for one in found.factors if one.effects}
    for name, figure in ({"cells": heat_map(grid, found)} | figures).items():
        storage.write_bytes(root / FOLDER / f"{name}.png", plots.png(figure))
    page = root / FOLDER / "README.md"
    return write_page(page, {"study": lambda: result_text(grid, found, runs)})


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on what is wrong."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("study_folder", type=Path, nargs="?")
    chosen = parser.parse_args(words)
    try:
        if chosen.study_folder:
            print(f"kept: {keep(chosen.study_folder, ROOT)} runs")
        if write_study(ROOT):
            print(f"written: {FOLDER}/README.md")
    except KsddError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
