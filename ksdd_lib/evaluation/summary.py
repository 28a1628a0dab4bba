"""Everything that metrics.json holds, from the rows of predictions.csv alone."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import JsonValue, SerializerFunctionWrapHandler, model_serializer

from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import metrics
from ksdd_lib.evaluation.metrics import Counts, Interval, Oracle, clopper_pearson
from ksdd_lib.evaluation.predictions import Prediction, predictions_text
from ksdd_lib.evaluation.thresholds import (
    BEST,
    PER_CLASS,
    FalseAlarms,
    FoldThreshold,
    Numbered,
    Size,
    apply_thresholds,
    class_folds,
    good_thresholds,
    operating_thresholds,
    threshold_rule,
)
from ksdd_lib.storage import Record, sha256

FLAG_RULE = "score > threshold"
"""When a surface is flagged; earlier versions judged several classes by it as well."""

# In the JSON the fields of a second base class stand before those of the first.


class Ranking(Record):
    """How well scores order surfaces: average precision and area under the ROC curve."""

    ap: float | None
    auc: float | None


class Reached(Ranking):
    """What scores reach: how well they order surfaces, and the counts at their oracle threshold."""

    oracle: Oracle


class FoldReached(Reached, Numbered):
    """What the scores of one fold reach."""


class FoldMean(Record):
    """The mean over the folds where each number is defined, and over how many it is."""

    ap: float | None
    ap_folds: int
    auc: float | None
    auc_folds: int


class AllMapScores(Record):
    """What the highest values of the maps reach as scores: by fold, their mean, and pooled."""

    folds: list[FoldReached]
    fold_mean: FoldMean
    pooled: Reached


class Intervals(Record):
    """Confidence intervals: of AP by drawing items again, of the others by Clopper and Pearson."""

    confidence: float
    ap: Interval | None
    accuracy: Interval | None
    precision: Interval | None
    recall: Interval | None
    false_positive_rate: Interval | None


class Scores(Counts, Ranking, Size):
    """Numbers of some surfaces: their counts at the operating thresholds, and at the oracle."""

    oracle: Oracle
    intervals: Intervals


class FoldScores(Scores, FoldThreshold):
    """Numbers of one fold."""


class PooledScores(Scores):
    """Numbers of all folds on one list."""

    items: int


class PixelScores(Record):
    """How well marked pixels fit the annotated ones; None where none is annotated."""

    ap_loc: float | None  # average precision over all pixels of all images
    iou: float | None  # intersection over union, of the pixels of all images together
    dice: float | None  # likewise
    image_iou: float | None  # the mean over the defective images


class FoldPixelScores(PixelScores, FoldThreshold):
    """Those of one fold, marked from a probability on."""


class AllPixelScores(Record):
    """Those of each fold, and of all images, each marked at its fold's threshold."""

    threshold_rule: str
    annotators_iou: Interval | None = None  # of those who annotated the same defects, if known
    folds: list[FoldPixelScores]
    pooled: PixelScores


class ClassScores(Reached):
    """Numbers of one class of defects against all other images, and its threshold in each fold."""

    name: str
    images: int  # that show it
    folds: list[FoldThreshold]


class AllClassScores(Record):
    """Those of each class, and how often an image of a class was called what."""

    threshold_rule: str
    classes: list[ClassScores]
    confusion: dict[str, dict[str, int]]  # true class or "good" -> named class or "good" -> images


def class_thresholds(classes: Sequence[ClassScores], fold: int) -> dict[str, float]:
    """The threshold of each class in a fold."""
    return {one.name: each.threshold for one in classes for each in one.folds if each.fold == fold}


class Taught(Record):
    """What the training of a fold knew of its images."""

    masks: int
    labels: int


class MadeFrom(Record):
    """What results were made from."""

    data: str  # its fingerprint
    settings: dict[str, JsonValue]  # those that decide the results
    weights: dict[str, str]  # fold -> hash that names the weights that judged it


class Summary(Record):
    """What metrics.json holds."""

    protocol: str
    seed: int
    folds_trained: list[int]
    threshold_rule: str
    flag_rule: str
    folds: list[FoldScores]
    fold_mean: FoldMean
    pooled: PooledScores
    segmentation_score: AllMapScores  # of the highest value of each map, whatever the method
    predictions_sha256: str  # of the predictions.csv that it was made from
    darkest_pixel: Ranking | None = None  # of the simplest rule, on the same images
    made_from: MadeFrom | None = None
    masks_sha256: str | None = None  # of the maps that belong to it
    trained_defects: dict[str, list[str]] | None = None  # fold -> their names, where few
    pixel_scores: AllPixelScores | None = None
    class_scores: AllClassScores | None = None  # where several classes are told apart
    false_alarms: list[FalseAlarms] | None = None  # where no defect was known
    taught: Taught | None = None  # of the first fold
    held_sha256: str | None = None  # of held_out.csv, where a fold alone has held parts out
    learned_nothing: tuple[str, ...] | None = None  # stages that ended no better than guessing

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is None: every field that may be None was added later."""
        return {name: value for name, value in write(self).items() if value is not None}


def conclude(
    rows: Sequence[Prediction],
    protocol: str,
    seed: int,
    train_items: Mapping[int, Collection[str]],
    by_class: bool = True,
    false_alarms: float | None = None,
    rule: str = "best_f1",
    held: Sequence[Prediction] = (),
) -> tuple[list[Prediction], Summary]:
    """The rows with the thresholds and verdicts that follow from all scores, and their summary.

    Thresholds that the rows already have do not count. Where several classes are told apart, any
    of them flags, by its own threshold; AP, ROC, the oracle and the folds' thresholds are of the
    highest score. With `false_alarms`, the share of good parts that may be flagged, thresholds
    come from good surfaces alone, else by the `rule`, one of `BEST`. `held` are the rows of what
    a fold alone has held out. The seed of the run also draws the bootstrap. Raises RunError for no
    rows, an image twice, or a row of another seed.
    """
    _check_rows(rows, seed)
    known, promised = [*rows, *held], None
    if false_alarms is None:
        thresholds = operating_thresholds(known, train_items, BEST[rule])
    else:
        thresholds, promised = good_thresholds(known, train_items, false_alarms)
    own = class_folds(known, train_items, rule) if by_class else []
    judged = apply_thresholds(rows, thresholds, own)
    parts = [[row for row in judged if row.fold == one.fold] for one in thresholds]
    folds = [
        FoldScores(**dict(threshold), **dict(_scores(part, seed)))
        for threshold, part in zip(thresholds, parts, strict=True)
    ]
    summary = Summary(
        protocol=protocol,
        seed=seed,
        folds_trained=[one.fold for one in thresholds],
        threshold_rule=PER_CLASS * bool(own)
        + threshold_rule(thresholds, rule, false_alarms, bool(held)),
        flag_rule=FLAG_RULE + " in any class" * bool(own),
        folds=folds,
        fold_mean=_fold_mean(folds),
        pooled=PooledScores(**dict(_scores(judged, seed)), items=len({row.item for row in rows})),
        segmentation_score=_map_scores(parts),
        predictions_sha256=sha256(predictions_text(judged).encode("utf-8")),
        false_alarms=promised,
        held_sha256=sha256(predictions_text(held).encode("utf-8")) if held else None,
    )
    return judged, summary


def _check_rows(rows: Sequence[Prediction], seed: int) -> None:
    """Refuse rows that are not those of one run."""
    if not rows:
        raise RunError("There are no predictions: train and evaluate at least one fold first.")
    names = [row.image for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RunError(f"{twice} is predicted twice: rows of several runs are mixed.")
    if others := sorted({row.seed for row in rows} - {seed}):
        raise RunError(f"Rows of seed {others[0]} are mixed into a run of seed {seed}.")


def _scores(rows: Sequence[Prediction], seed: int) -> Scores:
    labels, scores = [row.is_defective for row in rows], [row.score for row in rows]
    counts = metrics.error_counts(labels, [bool(row.is_flagged) for row in rows])
    items = [row.item for row in rows]
    intervals = Intervals(
        confidence=metrics.CONFIDENCE,
        ap=metrics.bootstrap_average_precision(labels, scores, items, seed),
        accuracy=clopper_pearson(counts.tp + counts.tn, len(rows)),
        precision=clopper_pearson(counts.tp, counts.tp + counts.fp),
        recall=clopper_pearson(counts.tp, counts.tp + counts.fn),
        false_positive_rate=clopper_pearson(counts.fp, counts.fp + counts.tn),
    )
    return Scores(
        images=len(rows),
        defective=sum(labels),
        **dict(reached(labels, scores)),
        **dict(counts),
        intervals=intervals,
    )


def ranking(labels: Sequence[bool], scores: Sequence[float]) -> Ranking:
    """How well scores order surfaces."""
    ap, auc = metrics.average_precision(labels, scores), metrics.roc_auc(labels, scores)
    return Ranking(ap=ap, auc=auc)


def reached(labels: Sequence[bool], scores: Sequence[float]) -> Reached:
    """What scores reach."""
    return Reached(**dict(ranking(labels, scores)), oracle=metrics.oracle(labels, scores))


def _map_scores(folds: Sequence[Sequence[Prediction]]) -> AllMapScores:
    """What the highest values of the maps reach, over each fold's rows and over all."""

    def of_maps(rows: Sequence[Prediction]) -> Reached:
        return reached([row.is_defective for row in rows], [row.map_score for row in rows])

    each = [FoldReached(fold=rows[0].fold, **dict(of_maps(rows))) for rows in folds]
    pooled = of_maps([row for rows in folds for row in rows])
    return AllMapScores(folds=each, fold_mean=_fold_mean(each), pooled=pooled)


def _fold_mean(folds: Sequence[Ranking]) -> FoldMean:
    aps = [fold.ap for fold in folds if fold.ap is not None]
    aucs = [fold.auc for fold in folds if fold.auc is not None]
    ap, auc = (sum(known) / len(known) if known else None for known in (aps, aucs))
    return FoldMean(ap=ap, ap_folds=len(aps), auc=auc, auc_folds=len(aucs))
