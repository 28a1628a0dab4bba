"""Which class of defect an image shows: thresholds, counts and confusion, from predictions alone.

An image is defective where any class exceeds its own threshold, and shows each that does. Results
of earlier versions may be flagged without one: then the class that is nearest to it is named.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ksdd_lib.data.layout_note import GOOD
from ksdd_lib.evaluation.predictions import Prediction
from ksdd_lib.evaluation.summary import AllClassScores, ClassScores, class_thresholds, reached
from ksdd_lib.evaluation.thresholds import class_folds, of_class

RULE = (
    "as the fold's own threshold, over the same images with the score and label of the class alone;"
    " a logit of 0 where these lack the class, or know nothing else"
)


def class_scores(
    rows: Sequence[Prediction],
    train_items: Mapping[int, Collection[str]],
    rule: str = "best_f1",
    held: Sequence[Prediction] = (),
) -> AllClassScores:
    """The numbers of each class, of judged rows that all have the same classes; see `conclude`."""
    found = []
    for number, thresholds in enumerate(class_folds([*rows, *held], train_items, rule)):
        alone = [of_class(row, number) for row in rows]
        labels = [row.is_defective for row in alone]
        found.append(
            ClassScores(
                name=rows[0].classes[number].name,
                images=sum(labels),
                **dict(reached(labels, [row.score for row in alone])),
                folds=thresholds,
            )
        )
    thresholds_of = {fold: class_thresholds(found, fold) for fold in {r.fold for r in rows}}
    confusion = Counter[tuple[str, str]]()
    for row in rows:
        scores = {one.name: one.score for one in row.classes}
        said = named(scores, thresholds_of[row.fold]) if row.is_flagged else (GOOD,)
        true = [one.name for one in row.classes if one.is_there] or [GOOD]
        confusion.update((each, name) for each in true for name in said)
    names = [*(one.name for one in found), GOOD]
    return AllClassScores(
        threshold_rule=RULE,
        classes=found,
        confusion={true: {said: confusion[true, said] for said in names} for true in names},
    )


def named(scores: Mapping[str, float], thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """The classes that a defective image shows, by their scores: the most certain first."""
    margins = {name: score - thresholds[name] for name, score in scores.items()}
    order = sorted(margins, key=lambda name: -margins[name])
    return tuple(name for name in order if margins[name] > 0) or (order[0],)
