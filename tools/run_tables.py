"""The tables of the kept runs: in short, each run, and its errors by name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kept import Environment, Kept, KeptRun, readable
from pages import in_percent, interval_in_percent, table
from protocols import SEED_COLUMNS, over_seeds, pooled

from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.predictions import failures_first, verdict
from ksdd_lib.evaluation.results import rule_of
from ksdd_lib.formatting import number

PLAIN = re.compile(r"[a-z]+-(clean|official)")
"""A preset with nothing changed, on the folds that are fixed: what the README shows."""

HEADLINE_COLUMNS = (
    "preset, folds",
    "surfaces, all three folds pooled",
    *SEED_COLUMNS,
    "minutes a run",
)

RUN_COLUMNS = (
    "preset, folds, seed",
    "judged",
    "AP [95 %]",
    "defects found [95 %]",
    "false alarms [95 %]",
    "thresholds, fold by fold",
    "FP / FN, oracle",
    "AP of the darkest pixel",
    "minutes",
)

ERROR_COLUMNS = (
    "preset, folds, seed",
    "missed, operating (score; threshold)",
    "false alarms, operating (score; threshold)",
    "wrong at the oracle",
)

WRONG = ("missed", "false alarm")


def headline_table(kept: Kept) -> str:
    """The presets as they are, all three folds pooled, seeds together."""
    rows = []
    for recipe, runs in kept.recipes.items():
        if not PLAIN.fullmatch(recipe):
            continue
        judged = [pooled(run.rows) for run in runs]
        surfaces = f"{judged[0].images}, {judged[0].defective} defective"
        rows.append([readable(recipe), surfaces, *over_seeds(judged), minutes(runs)])
        rows[-1][HEADLINE_COLUMNS.index("FP / FN, operating threshold")] += rule_name(runs)
    return table(HEADLINE_COLUMNS, rows)


def run_table(kept: Kept) -> str:
    """Each run of the presets as they are, with the intervals of one run."""
    return table(RUN_COLUMNS, map(_run_row, kept.with_all_defects(variants=False)))


def variant_run_table(kept: Kept) -> str:
    """Each run of every other recipe, but for those with few defects."""
    return table(RUN_COLUMNS, map(_run_row, kept.with_all_defects(variants=True)))


def error_table(kept: Kept) -> str:
    """The errors of each run of the presets by name, worst first, pooled."""
    return table(ERROR_COLUMNS, map(_error_row, kept.with_all_defects(variants=False)))


def rule_name(runs: Sequence[KeptRun]) -> str:
    """ " (medians)" where thresholds are not by best F1, as all were at first, for each run."""
    rules = [rule_of(run.summary) for run in runs]
    return "" if set(rules) == {"best_f1"} else f" ({', '.join(rules)})"


def minutes(runs: Iterable[KeptRun]) -> str:
    """What training and scoring took, and where: "24, 23 on AMD EPYC, 2 cores"."""
    of_machine: dict[str, list[str]] = {}
    for run in runs:
        spent: dict[str, float] = {}
        for line in run.timing:
            name = machine_name(run.environment, line.what)
            spent[name] = spent.get(name, 0) + line.seconds / 60
        for name, total in spent.items():
            of_machine.setdefault(name, []).append(number(total, 0))
    return "; ".join(f"{', '.join(times)} on {name}" for name, times in of_machine.items())


def machine_name(made: Environment, work: str = "") -> str:
    """The GPU, or the CPU and its cores, of an environment.json.

    Args:
        work: what was done there, as timing.json has it: "segmentation stage, fold 0". A stage is
            of the machine that trained it, where the environment has that. All else is of the
            machine that judged, of joined folds the last.
    """
    cpu, gpu = str(made["cpu"]), str(made["gpu"])
    trained = re.match(r"(.*), GPU (.*), \w+, at ", str(made.get(work.replace(", ", " of "), "")))
    if trained:
        cpu, gpu = trained.groups()
    if gpu != "none":
        return gpu
    name = cpu.replace("(R)", "").replace(" Processor", "")
    return f"{name}, {made['cpu_cores']} cores" if cpu == made["cpu"] else name


def _run_row(run: KeptRun) -> list[str]:
    """One run; its counts are computed again from the kept predictions."""
    pooled, trained = run.summary.pooled, run.summary.folds_trained
    labels = [row.is_defective for row in run.rows]
    counts = metrics.error_counts(labels, [bool(row.is_flagged) for row in run.rows])
    part = "3 folds, pooled" if len(trained) == 3 else "fold " + ", ".join(map(str, trained))
    size = run.settings["image_size"]
    ap = metrics.average_precision(labels, [row.score for row in run.rows])
    found, alarms = pooled.intervals.recall, pooled.intervals.false_positive_rate
    # Folds that were kept one by one have none: it would need the images of all.
    darkest = run.summary.darkest_pixel
    return [
        readable(run.name),
        f"{part}: {len(labels)} surfaces, {sum(labels)} defective, {size}",
        f"{in_percent(ap)} {interval_in_percent(pooled.intervals.ap)}",
        f"{counts.tp} of {sum(labels)} {interval_in_percent(found)}",
        f"{counts.fp} of {len(labels) - sum(labels)} {interval_in_percent(alarms)}",
        ", ".join(number(fold.threshold, 2) for fold in run.summary.folds) + rule_name([run]),
        f"{pooled.oracle.fp} / {pooled.oracle.fn}",
        in_percent(darkest.ap) if darkest else "",
        minutes([run]),
    ]


def _error_row(run: KeptRun) -> list[str]:
    best = metrics.oracle([row.is_defective for row in run.rows], [row.score for row in run.rows])
    assert best.threshold is not None, run.name
    cells = [readable(run.name)]
    for kind in WRONG:
        wrong = [row for row in failures_first(run.rows) if verdict(row) == kind]
        cells.append(
            ", ".join(
                f"{row.image} ({number(row.score, 1)}; {number(row.threshold, 1)})" for row in wrong
            )
        )
    judged = [replace(row, is_flagged=row.score > best.threshold) for row in run.rows]
    wrong = [row for row in failures_first(judged) if verdict(row) in WRONG]
    return [*cells, ", ".join(f"{row.image} ({verdict(row)})" for row in wrong)]
