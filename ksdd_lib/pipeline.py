"""The whole series: prepare the data, train each stage of each fold, evaluate, report.

Each step goes on where it stopped, and only checks what is finished.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ksdd_lib.data.data_report import format_report
from ksdd_lib.errors import KsddError
from ksdd_lib.evaluation import scoring
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.stage_training import advised, train_stage
from ksdd_lib.reporting.report import make_report
from ksdd_lib.runs.prepare import DataSet, open_data, prepare_data
from ksdd_lib.runs.run import FINAL, Run, fold_name
from ksdd_lib.training.loop import Watch

Saved = Callable[[], None]
"""Called whenever something new is safe in the run folder, for a copy elsewhere."""


def run_series(
    run: Run,
    drive: Path | None = None,
    watch: Watch | None = None,
    scored: scoring.Watch | None = None,
    saved: Saved | None = None,
) -> Path:
    """All of a run, or what is left of it -> its report. Data may lie on `drive`.

    Raises:
        KsddError: a step cannot be done; the text says how to mend it.
        Interrupted: the user stopped it; the same call goes on.
    """
    data = prepare_data(run, drive)
    print(format_report(advised(data.record.report, run.settings)))
    for stage in method_of(run.settings).stages:
        train(run, data, stage.name, watch, saved)
    scoring.evaluate(run, data, scored, saved)
    return make_report(run.folder, data.read_pair)


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do, and results and data are what they were."""
    stages = [stage.name for stage in method_of(run.settings).stages]
    if not all(map(run.has, ["data", *stages, "evaluation", "report"])):
        return False
    try:
        load_results(run.folder)
        open_data(run)
    except KsddError:
        return False
    return True


def train_final(
    run: Run, data: DataSet, watch: Watch | None = None, saved: Saved | None = None
) -> None:
    """Train one model on all items, as the folds of an evaluated run; raises as `train_stage`."""
    run.require("evaluation")
    for stage in method_of(run.settings).stages:
        train(run, data, stage.name, watch, saved, (FINAL,))


def train(
    run: Run,
    data: DataSet,
    stage: str,
    watch: Watch | None = None,
    saved: Saved | None = None,
    folds: Sequence[int] = (),
) -> None:
    """Train one stage of each fold, and say whether it was finished; raises as `train_stage`."""
    for fold in folds or run.settings.fold_numbers:
        is_new = train_stage(run, data, fold, stage, watch, saved)
        print(f"{stage}, {fold_name(fold)}: {'trained' if is_new else 'was already finished'}")
        if saved:
            saved()
