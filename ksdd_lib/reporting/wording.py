"""What results say in words, for somebody who decides; fixed words are in the report's template."""

import re
from collections.abc import Sequence

from ksdd_lib.data.data_report import SplitCounts
from ksdd_lib.evaluation import promises
from ksdd_lib.evaluation.metrics import Interval, parts_needed
from ksdd_lib.evaluation.predictions import Prediction, failures_first, verdict
from ksdd_lib.evaluation.results import Results
from ksdd_lib.evaluation.summary import PooledScores, Summary
from ksdd_lib.formatting import listed, of_ten, percent, percent_up_to

FEW = 20  # defective test surfaces under which the first sentences warn of the number
NAMED = 6  # surfaces that the first sentences name, of each kind of error
CHOSEN_ON_KOLEKTOR = ("cpu", "best")  # presets whose values were chosen with its images


def conclusion(pooled: PooledScores, is_generated: bool) -> str:
    """The result in two sentences; "" where no good surface was tested."""
    recall, (defective, good) = pooled.intervals.recall, _totals(pooled)
    if good and not defective:
        return (
            f"In short: no defective part was tested, and {pooled.fp} of {good} good surfaces were "
            "flagged by mistake. How many defects are missed, these numbers cannot say."
        )
    if recall is None or not good:
        return ""
    counts = (
        f"In short: {pooled.tp} of {defective} defects were found, and {pooled.fp} of {good} good "
        "surfaces were flagged by mistake."
    )
    if is_generated:
        return f"{counts} The surfaces are generated, so this says nothing about real parts."
    return f"{counts} This is at most something to try beside an inspection, not to replace one."


def still_missed(rows: Sequence[Prediction]) -> tuple[str, str]:
    """Below which share of other defective parts are missed, and how sure that is, in words."""
    found = promises.of_verdicts(rows).missed
    if found is None:
        return "not known", "No defective part was tested."
    more = found.more(promises.WANTED)
    wanted = percent(promises.WANTED, 0)
    return (
        percent_up_to(found.below),
        f"Of other defective parts of this kind, with 95 % confidence: here "
        f"{found.errors} of {found.parts} were passed on all surfaces. To promise fewer than "
        f"{wanted} takes {more:,} more, none of them missed."
        if more
        else "Of other defective parts of this kind, with 95 % confidence.",
    )


def next_step(results: Results) -> str:
    """What to do next, in a sentence or two."""
    summary, pooled = results.summary, results.summary.pooled
    if summary.learned_nothing:
        return learned_nothing(summary)
    if results.data.is_generated:
        return (
            "This decides nothing about a production line. Photograph parts of your own: at least "
            "six, better dozens, with each defect marked."
        )
    if leak(results):
        return "Run it with clean folds. Only those tell what to expect on new parts."
    if len(summary.folds_trained) < len(results.folds.folds):
        return "Train the other folds too, in a new run, so that every part is tested once."
    if pooled.defective < FEW:
        return f"Photograph more defective parts. {pooled.defective} are too few to decide by."
    trial = "try the model beside your inspection, on parts that are not in this file."
    if pooled.fp + pooled.fn:
        return f"Let somebody who knows the parts look at the errors. Then {trial}"
    return trial.capitalize()


def learned_nothing(summary: Summary) -> str:
    """What to do where a stage learned nothing, in sentences; "" where all have learned."""
    if not summary.learned_nothing:
        return ""
    stages = listed(summary.learned_nothing, NAMED)
    return f"Do not use this model: {stages} learned nothing. Train anew with more steps."


def _totals(pooled: PooledScores) -> tuple[int, int]:
    """How many surfaces are defective, and how many are good."""
    return pooled.tp + pooled.fn, pooled.fp + pooled.tn


def in_words(pooled: PooledScores, rows: Sequence[Prediction]) -> list[str]:
    """What the pooled verdicts on the rows say to somebody who decides, as paragraphs."""
    defective, good = _totals(pooled)
    if not defective or not good:
        return ["All test surfaces are of one kind, so the verdicts cannot be summed up."]
    paragraphs = [
        f"{pooled.tp} of {defective} defective surfaces were found, and {pooled.fp} of {good} good "
        f"ones were flagged. {_by_item(rows)}{_if_rare(pooled)}",
        _left_open(pooled),
    ]
    if pooled.ap is not None and pooled.ap > 1 - 1e-9 and pooled.fp + pooled.fn:
        paragraphs.append(
            "All defects score above all good surfaces (average precision 1), so some threshold "
            "would make no error. Those in use were each set without the scores of their own fold."
        )
    named = [
        f"{name}: {listed(found, NAMED)}."
        for kind, name in (("missed", "Missed"), ("false alarm", "False alarms"))
        if (found := [row.image for row in failures_first(rows) if verdict(row) == kind])
    ]
    if named:
        paragraphs.append(" ".join([*named, "They are shown first below."]))
    return paragraphs


def _by_item(rows: Sequence[Prediction]) -> str:
    """What the verdicts on surfaces mean for whole items, where one flagged surface flags it."""
    flagged = {row.item for row in rows if row.is_flagged}
    bad = {row.item for row in rows if row.is_defective}
    good = {row.item for row in rows} - bad
    text = f"Of the items, {len(bad & flagged)} of {len(bad)} defective ones have a flagged surface"
    if good:
        return f"{text}, and so have {len(good & flagged)} of {len(good)} good ones."
    alarmed = {row.item for row in rows if verdict(row) == "false alarm"}
    return (
        f"{text}. Every item here has a defect. A good surface was flagged on {len(alarmed)} of "
        f"{len(bad)}, about the share of good items that would be stopped."
    )


def _if_rare(pooled: PooledScores) -> str:
    """How many alarms would be false where defects are rare; "" where there is no alarm to tell."""
    share, totals = false_share(pooled, 0.001), _totals(pooled)
    if not pooled.fp or share is None:
        return ""
    here = percent(totals[0] / sum(totals), 0)
    return (
        f" Here {here} of the surfaces are defective. If only 1 in 1,000 were, {of_ten(share)} "
        "alarms would be false."
    )


def _left_open(pooled: PooledScores) -> str:
    """How far the rates may lie from those on other surfaces, and what a claim would take."""
    missed, flagged = pooled.intervals.recall, pooled.intervals.false_positive_rate
    assert missed is not None and flagged is not None
    defective, _ = _totals(pooled)
    few = f"Only {defective} defective surfaces were tested, too few to prove anything. "
    allowed = {0: "none of them missed", 1: "only this one missed"}
    return (
        f"{few * (defective < FEW)}On other surfaces of this kind up to "
        f"{percent_up_to(1 - missed[0])} of the defects may be missed, and up to "
        f"{percent_up_to(flagged[1])} of the good ones flagged. This much is left open by the "
        "number of test surfaces alone (ends of the two-sided 95\N{NO-BREAK SPACE}% intervals). "
        f"To claim fewer than 1\N{NO-BREAK SPACE}% misses with 95\N{NO-BREAK SPACE}% confidence "
        f"(one-sided), {parts_needed(0.01, pooled.fn)} defective surfaces must be tested in all, "
        f"with {allowed.get(pooled.fn, f'only these {pooled.fn} missed')}. "
        f"The {defective} tested here count towards them."
    )


def promised(summary: Summary) -> str:
    """What the thresholds by good surfaces alone promise, fold by fold; "" without any."""
    if not summary.false_alarms:
        return "The threshold is fixed, as no other fold has scored this one's training items."
    each = [
        f"fold {one.fold} flags {one.flagged} of the {one.parts} training parts that set it, so "
        f"fewer than {percent_up_to(one.below)} of all such parts"
        for one in summary.false_alarms
    ]
    wanted = summary.false_alarms[0].wanted
    few = f" More parts are needed to promise {percent(wanted)}."
    few *= any(one.below > wanted for one in summary.false_alarms)
    return (
        "The thresholds come from good surfaces alone. With 95\N{NO-BREAK SPACE}% confidence for "
        f"each: {'; '.join(each)}.{few}"
    )


def promise(rows: Sequence[Prediction]) -> str:
    """What can be promised of the thresholds in use: of all folds together, and of each."""
    folds = sorted({row.fold for row in rows})
    each = [
        f"fold {fold}: {promises.short(promises.of_verdicts([r for r in rows if r.fold == fold]))}"
        for fold in folds
    ]
    by_fold = f" Fold by fold: {'; '.join(each)}." if len(folds) > 1 else ""
    return promises.words(rows) + by_fold


def unlucky_thresholds(summary: Summary) -> str:
    """Which errors come from a fold's threshold alone, as its scores order all surfaces right."""
    told = [
        f"In fold {fold.fold} all defects score above all good surfaces, so its errors "
        f"({fold.fp} FP, {fold.fn} FN) come from its threshold alone, {fold.threshold:.2f}."
        for fold in summary.folds
        if fold.ap is not None and fold.ap > 1 - 1e-9 and fold.fp + fold.fn
    ]
    if not told or len(summary.folds) == 1 or summary.class_scores:
        return ""
    each = ", ".join(f"{fold.threshold:.2f}" for fold in summary.folds)
    return (
        f"{' '.join(told)} The folds' thresholds are {each}. With few defects, a threshold is "
        "uncertain."
    )


def speed(results: Results) -> str:
    """How long judging took, from the run's own times; empty where they are not stored."""
    images, seconds = 0, 0.0
    for row in results.timing:
        if found := re.fullmatch(r"scoring (\d+) images, fold \d+", row.what):
            images, seconds = images + int(found[1]), seconds + row.seconds
    if not images:
        return ""
    facts = results.environment
    gpu, cpu = facts.get("gpu", "none"), facts.get("cpu", "the processor")
    cores = facts.get("cpu_cores", "")
    cores = f"{facts['threads']} of {cores}" if facts.get("threads", cores) != cores else cores
    where = f"{cores} cores of {cpu}".strip() if gpu == "none" else gpu
    return f"Judging took {seconds / images:.2g} s per surface on {where}."


def rates(pooled: PooledScores) -> list[tuple[str, str, float | None, Interval | None]]:
    """(what, k of n, rate, interval) of the pooled verdicts."""
    tp, fp, intervals = pooled.tp, pooled.fp, pooled.intervals
    defective, good = _totals(pooled)
    rates = (
        ("recall: defective surfaces found", tp, defective, intervals.recall),
        ("precision: flagged surfaces that are defective", tp, tp + fp, intervals.precision),
        ("false positive rate: good surfaces flagged", fp, good, intervals.false_positive_rate),
        ("accuracy: right verdicts", tp + pooled.tn, defective + good, intervals.accuracy),
    )
    return [(what, f"{k} of {n}", k / n if n else None, ends) for what, k, n, ends in rates]


def false_share(pooled: PooledScores, defective: float) -> float | None:
    """Which share of the alarms would be false, were this share of the surfaces defective."""
    recall, alarms = pooled.recall, pooled.fp / max(1, pooled.fp + pooled.tn)
    if recall is None or not alarms + recall:
        return None
    return alarms * (1 - defective) / (alarms * (1 - defective) + recall * defective)


def folds_text(results: Results) -> str:
    """ "clean folds, all 3 trained", or which of them are."""
    trained, count = results.summary.folds_trained, len(results.folds.folds)
    which = f"all {count}" if len(trained) == count else f"only {listed(trained)}"
    return f"{results.summary.protocol} folds, {which} trained"


def leak(results: Results) -> str:
    """ "48 of 399 test images (8 of 52 defective)" where the folds leak, else empty."""
    split = (results.data.report.folds or {}).get(results.summary.protocol)
    if not isinstance(split, SplitCounts) or not split.total.leaked_images:
        return ""
    total = split.total
    return (
        f"{total.leaked_images} of {total.test_images} test images "
        f"({total.leaked_defective} of {total.test_defective} defective)"
    )
