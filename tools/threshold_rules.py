"""What each rule of the operating threshold comes to on the kept runs: a table of results.

python tools/threshold_rules.py   prints the errors of each run by each rule
"""

import re
from collections.abc import Mapping, Sequence

from kept import ROOT, Kept, KeptRun, read_kept
from pages import table

from ksdd_lib.data.folds import FOLDS
from ksdd_lib.evaluation.thresholds import BEST, apply_thresholds, operating_thresholds

TEST = re.compile(r"(best|cpu)-clean(-partition[45]-seed0|-seed[34])")
"""The runs that the rule is tested on, once; they were not there when it was chosen."""

COLUMNS = ("rule", "FP / FN: presets", "FP / FN: variants", "FP / FN: the declared test")

Errors = tuple[int, int]


def threshold_rule_table(kept: Kept) -> str:
    """The errors of each rule, summed over the runs of three folds with all defects."""
    groups = rule_groups(kept)
    heads = [f"{name}, {len(runs)} runs" for name, runs in zip(COLUMNS[1:], groups, strict=True)]
    rows = [[rule, *(_text(runs, rule) for runs in groups)] for rule in BEST]
    return table([COLUMNS[0], *heads], rows)


def rule_groups(kept: Kept) -> tuple[list[KeptRun], list[KeptRun], list[KeptRun]]:
    """The runs of the presets, of variants, and of the declared test."""
    presets, variants = (
        [run for run in kept.with_all_defects(kind) if len(run.summary.folds_trained) == FOLDS]
        for kind in (False, True)
    )
    return (
        [run for run in presets if not TEST.fullmatch(run.name)],
        variants,
        [run for run in presets if TEST.fullmatch(run.name)],
    )


def errors(run: KeptRun, rule: str) -> Errors:
    """False alarms and misses of a run at the thresholds of a rule."""
    found = operating_thresholds(run.rows, run.train_items, BEST[rule])
    judged = apply_thresholds(run.rows, found)
    wrong = [row.is_defective for row in judged if row.is_flagged != row.is_defective]
    return wrong.count(False), wrong.count(True)


def _text(runs: Sequence[KeptRun], rule: str) -> str:
    each: Mapping[str, Errors] = {run.name: errors(run, rule) for run in runs}
    fp, fn = (sum(one[k] for one in each.values()) for k in (0, 1))
    return f"{fp} / {fn}" if runs else ""


if __name__ == "__main__":
    stored = read_kept(ROOT)
    for each in (run for group in rule_groups(stored) for run in group):
        print(each.name, *(f"{rule} {errors(each, rule)}" for rule in BEST))
    print(threshold_rule_table(stored))
