"""What results say, in words: for somebody who decides, and with all that must be known first.

And numbers as text, the same everywhere.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ksdd_lib.evaluation.predictions import Prediction, failures_first, verdict
from ksdd_lib.evaluation.results import Results
from ksdd_lib.evaluation.threshold_costs import parts_needed
from ksdd_lib.text import listed, of_ten, percent_up_to, whole_percent

FEW = 20
"""Defective test surfaces under which the first sentences warn of the number."""

NAMED = 6
"""Surfaces that the first sentences name, of each kind of error."""

CHOSEN_ON_KOLEKTOR = ("cpu", "best")
"""Presets whose values were chosen with KolektorSDD's images, which a reader must know."""


def conclusion(pooled: Mapping[str, Any], is_generated: bool) -> str:
    """The one sentence for who has no time for more; "" where the data allow none."""
    tp, fp, fn, tn = (pooled[name] for name in ("tp", "fp", "fn", "tn"))
    if not tp + fn or not fp + tn:
        return ""
    counts = (
        f"In short: {tp} of {tp + fn} defects were found, and {fp} of {fp + tn} good surfaces were "
        "flagged by mistake."
    )
    if is_generated:
        return f"{counts} The surfaces are generated: this says nothing about real parts."
    missed = percent_up_to(1 - pooled["intervals"]["recall"][0])
    return (
        f"{counts} At most something to try beside an inspection, not to replace one: with so few "
        f"defects tested, up to {missed} may be missed."
    )


def in_words(pooled: Mapping[str, Any], rows: Sequence[Prediction]) -> list[str]:
    """What the pooled verdicts say to somebody who decides, as sentences.

    Args:
        pooled: of metrics.json.
        rows: of predictions.csv.
    """
    tp, fp, fn, tn = (pooled[name] for name in ("tp", "fp", "fn", "tn"))
    if not tp + fn or not fp + tn:
        return ["The test surfaces are all of one kind, so nothing can be said of the verdicts."]
    few = f"Only {tp + fn} defective surfaces were tested: so few prove nothing yet. "
    needed = parts_needed(0.01, fn)
    missed = 1 - pooled["intervals"]["recall"][0]
    flagged = pooled["intervals"]["false_positive_rate"][1]
    rare, share = "", false_share(pooled, 0.001)
    if fp and share is not None:
        here = whole_percent((tp + fn) / (tp + fn + fp + tn))
        rare = (
            f" Here {here} of the surfaces are defective; were it 1 in 1,000, "
            f"{of_ten(share)} alarms would be false."
        )
    sentences = [
        f"{tp} of {tp + fn} defective surfaces were found; {fp} of {fp + tn} good ones were "
        f"flagged. {_by_item(rows)}{rare}",
        f"{few * (tp + fn < FEW)}On other surfaces of this kind up to {percent_up_to(missed)} of "
        f"the defects may be missed, and up to {percent_up_to(flagged)} of the good ones flagged: so "
        "much is left open by the number of test surfaces alone (ends of the two-sided "
        f"95\N{NO-BREAK SPACE}% intervals). To claim fewer than 1\N{NO-BREAK SPACE}% misses "
        f"with 95\N{NO-BREAK SPACE}% confidence (one-sided), {needed} defective surfaces would "
        f"have to be tested in all, these {tp + fn} included, with {_no_more(fn)}. Each network "
        "was trained once, from one random start (seed); how others come out is not in this file.",
    ]
    if pooled["ap"] > 1 - 1e-9 and fp + fn:
        sentences.append(
            "All defects score above all good surfaces (average precision 1), so some threshold "
            "would make no error; those in use were each set without the scores of their own fold."
        )
    failures = failures_first(rows)
    named = [
        f"{name}: {listed(found, NAMED)}."
        for kind, name in (("missed", "Missed"), ("false alarm", "False alarms"))
        if (found := [row.image for row in failures if verdict(row) == kind])
    ]
    if named:
        sentences.append(" ".join([*named, "They are shown first below."]))
    return sentences


def unlucky_thresholds(summary: Mapping[str, Any]) -> str:
    """Which errors come from a fold's threshold alone, since its scores order all surfaces right;
    "" where none do.

    Args:
        summary: of metrics.json.
    """
    told = [
        f"In fold {fold['fold']} all defects score above all good surfaces, so its "
        f"errors ({fold['fp']} FP, {fold['fn']} FN) come from its threshold alone, "
        f"{fold['threshold']:.2f}"
        for fold in summary["folds"]
        if fold["ap"] is not None and fold["ap"] > 1 - 1e-9 and fold["fp"] + fold["fn"]
    ]
    if not told or len(summary["folds"]) == 1:
        return ""
    each = ", ".join(f"{fold['threshold']:.2f}" for fold in summary["folds"])
    return (
        f"{'. '.join(told)}. The folds' thresholds are {each}: with few defects, a limit is unsure."
    )


def _no_more(misses: int) -> str:
    """ "no miss", or none but those that were."""
    if not misses:
        return "no miss"
    return f"no miss but {'this one' if misses == 1 else f'these {misses}'}"


def _by_item(rows: Sequence[Prediction]) -> str:
    """What the verdicts on surfaces mean for whole items, where one flagged surface flags it."""
    flagged, defective, alarmed = defaultdict(bool), defaultdict(bool), set()
    for row in rows:
        flagged[row.item] |= row.is_flagged
        defective[row.item] |= row.is_defective
        if row.is_flagged and not row.is_defective:
            alarmed.add(row.item)
    bad = [flagged[item] for item in flagged if defective[item]]
    good = [flagged[item] for item in flagged if not defective[item]]
    text = f"By item, {sum(bad)} of {len(bad)} defective ones have a flagged surface"
    if good:
        return f"{text}; so have {sum(good)} of {len(good)} good ones."
    return (
        f"{text}. Every item here has a defect; a good surface was flagged on {len(alarmed)} of "
        f"{len(bad)}, about the share of good items to be stopped."
    )


def speed(results: Results) -> str:
    """How long judging took, from the run's own times; empty where they are not stored."""
    scored = [
        re.fullmatch(r"scoring (\d+) images, fold \d+", row["what"]) for row in results.timing
    ]
    pairs = [
        (int(found[1]), row["seconds"])
        for found, row in zip(scored, results.timing, strict=True)
        if found
    ]
    if not pairs:
        return ""
    images, seconds = map(sum, zip(*pairs, strict=True))
    facts = results.environment
    gpu, cpu = facts.get("gpu", "none"), facts.get("cpu", "the processor")
    cores = facts.get("cpu_cores", "")
    cores = f"{facts['threads']} of {cores}" if facts.get("threads", cores) != cores else cores
    where = f"{cores} cores of {cpu}".strip() if gpu == "none" else gpu
    return f"Judging took {seconds / images:.2g} s a surface on {where}."


def rates(pooled: Mapping[str, Any]) -> list[tuple[str, str, float | None, list | None]]:
    """(what, k of n, rate, interval) of the pooled verdicts."""
    tp, fp, fn, tn = (pooled[name] for name in ("tp", "fp", "fn", "tn"))
    intervals = pooled["intervals"]
    rates = (
        ("recall: defective surfaces found", tp, tp + fn, "recall"),
        ("precision: flagged surfaces that are defective", tp, tp + fp, "precision"),
        ("false positive rate: good surfaces flagged", fp, fp + tn, "false_positive_rate"),
        ("accuracy: right verdicts", tp + tn, tp + fp + fn + tn, "accuracy"),
    )
    return [
        (what, f"{k} of {n}", k / n if n else None, intervals[name]) for what, k, n, name in rates
    ]


def false_share(pooled: Mapping[str, Any], defective: float) -> float | None:
    """Which share of the alarms would be false, were this share of the surfaces defective."""
    recall, alarms = pooled["recall"], pooled["fp"] / max(1, pooled["fp"] + pooled["tn"])
    if recall is None or not alarms + recall:
        return None
    return alarms * (1 - defective) / (alarms * (1 - defective) + recall * defective)


def cautions(results: Results) -> list[str]:
    """What a reader must know before using the numbers."""
    trained, data = results.metrics["folds_trained"], results.data
    cautions = []
    if data["is_generated"]:
        cautions.append(
            "The surfaces are GENERATED by a program. The numbers show that the series works; "
            "they say nothing about real parts."
        )
    if leaked := leak(results):
        cautions.append(
            f"The {results.metrics['protocol']} folds leak: over all of them, {leaked} show an "
            "item that is also in training. Such numbers compare with published ones; what to "
            "expect on new items only a run with folds clean tells, which this file does not hold."
        )
    if len(trained) < len(results.folds["folds"]):
        cautions.append(
            f"Only {len(trained)} of the {len(results.folds['folds'])} folds {_is_are(trained)} "
            "trained: the others may come out differently."
        )
    if few := results.settings.get("defective_images"):
        cautions.append(
            f"Each network learned from at most {few} defective images, but its limit was set with "
            f"{_most_used(results)}, scored by networks that had learned from others again. With "
            f"only {few} in all it would be less sure, and errors could exceed even the ranges "
            "above; by how much was not tested."
        )
    cautions.append(
        "The networks find what resembles the defects that they learned from: another kind may "
        "pass, however plain it looks. Good and defective is what the data's annotation says."
    )
    if data["is_kolektor"] and results.settings.get("preset") in CHOSEN_ON_KOLEKTOR:
        cautions.append(
            f"The settings (preset {results.settings['preset']}) were chosen on training images of "
            "clean fold 0, which other folds test, by people who knew on which images earlier "
            "settings had erred. So the numbers are somewhat favourable; only new items give an "
            "untouched test."
        )
    if data["is_kolektor"]:
        cautions.append(
            "These are commutators of KolektorSDD, not your parts, camera and light: try it beside "
            "your inspection before you rely on it. Its pictures are licensed for non-commercial "
            "use, so train a network for a production line on pictures of your own."
        )
    return cautions


def _most_used(results: Results) -> str:
    """ "up to 32 defective ones": how many defective images a fold's threshold was set with."""
    used = [
        (fold.get("threshold_from") or {}).get("defective", 0) for fold in results.metrics["folds"]
    ]
    return f"up to {max(used)} defective ones"


def folds_text(results: Results) -> str:
    """ "clean folds, all 3 trained", or which of them are."""
    trained, count = results.metrics["folds_trained"], len(results.folds["folds"])
    which = f"all {count}" if len(trained) == count else f"only {listed(trained)}"
    return f"{results.metrics['protocol']} folds, {which} trained"


def _is_are(values: Sequence[Any]) -> str:
    return "is" if len(values) == 1 else "are"


def leak(results: Results) -> str:
    """ "48 of 399 test images (8 of 52 defective)" where the folds leak, else empty."""
    counts = (results.data["report"]["folds"] or {}).get(results.metrics["protocol"], {})
    total = counts.get("total", {})
    if not total.get("leaked_images"):
        return ""
    return (
        f"{total['leaked_images']} of {total['test_images']} test images "
        f"({total['leaked_defective']} of {total['test_defective']} defective)"
    )


def published_note(results: Results) -> str:
    """How far the published results are of the same test as this run's."""
    published = (
        "The published rows are of the official folds, each of a single training as far as their "
        "papers say, with the threshold chosen on the test scores."
    )
    if len(results.metrics["folds_trained"]) < len(results.folds["folds"]):
        return f"{published} This run judged only a part of those surfaces, so no row compares."
    if results.metrics["protocol"] == "official":
        return f"{published} So is this run's row: the rows compare, within what seeds change."
    return (
        f"{published} Those folds test some parts that are also in training; this run's folds do "
        "not, and hold fewer surfaces, so rows compare roughly."
    )
