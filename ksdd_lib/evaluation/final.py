"""What the model of all items judges by, and what its card says where no test exists."""

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.pixels import EVEN, mask_thresholds
from ksdd_lib.evaluation.promises import of_all_thresholds
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.evaluation.scoring import pixel_counts
from ksdd_lib.evaluation.summary import FoldMean, PooledScores
from ksdd_lib.evaluation.thresholds import (
    BEST,
    PER_CLASS,
    Size,
    class_folds,
    good_thresholds,
    operating_thresholds,
    threshold_rule,
)
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import FINAL, Run
from ksdd_lib.storage import Record

NO_TEST = (
    "No test exists for this model: it was trained on all items. What the folds showed is of other "
    "models with the same settings, each trained on fewer items and tested on the rest."
)
MASK_RULE = (
    "best Dice over the pixels of the out-of-fold maps of all items; "
    f"{EVEN}, fixed in advance, where these show no defect"
)


class FoldsShowed(Record):
    """What the models of the folds showed on items that they had not seen."""

    fold_mean: FoldMean
    pooled: PooledScores


class FinalModel(Record):
    """The thresholds of the model of all items, from all out-of-fold scores of its run."""

    threshold: float
    threshold_rule: str
    threshold_from: Size
    class_thresholds: dict[str, float]
    mask_threshold: float
    mask_threshold_rule: str
    promise: str
    the_folds_showed: FoldsShowed


def final_model(run: Run, data: DataSet) -> FinalModel:
    """What the model of all items judges by; RunError where the run is not evaluated as it is."""
    run.require("evaluation")
    found, settings = load_results(run.folder), run.settings
    rows, summary = found.rows, found.summary
    every = {FINAL: {row.item for row in rows}}
    share = settings.false_alarms if settings.labels == "none" else None
    if share is None:
        [one] = operating_thresholds(rows, every, BEST[settings.threshold])
    else:
        [[one], _] = good_thresholds(rows, every, share)
    own = class_folds(rows, every, settings.threshold)
    if found.masks is None:
        raise RunError(f"{run.folder.name} has no masks.npz. Evaluate again.")
    counts = pixel_counts(data, settings, found.masks)
    [mask] = mask_thresholds(rows, counts, every, settings.labels != "none")
    return FinalModel(
        threshold=one.threshold,
        threshold_rule=PER_CLASS * bool(own) + threshold_rule([one], settings.threshold, share),
        threshold_from=one.threshold_from,
        class_thresholds={
            of.name: each.threshold for of, [each] in zip(rows[0].classes, own, strict=True)
        },
        mask_threshold=mask.threshold,
        mask_threshold_rule=MASK_RULE,
        promise="" if own else of_all_thresholds(rows, one.threshold),
        the_folds_showed=FoldsShowed(fold_mean=summary.fold_mean, pooled=summary.pooled),
    )
