"""The tables of results and the curve over few defects, from what is kept in assets/results."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.data.folds import FOLDS
from ksdd_lib.evaluation import metrics, protocols
from ksdd_lib.evaluation.predictions import failures_first, read_predictions, verdict
from ksdd_lib.reporting import plots

FEW = re.compile(r"(?P<recipe>.+)-(?P<count>[0-9]+)defective")

PLAIN = re.compile(r"[a-z]+-(clean|official)")
"""A preset with nothing changed, on the folds that are fixed: what the README shows."""

UNCHANGED = re.compile(r"[a-z]+-(official|clean(-partition[0-9]+)?)")
"""A preset with nothing changed, on any folds; every other recipe is a variant."""

PUBLISHED_FEW = {
    "Tabernik 2019": {33: 99.9, 25: 99.2, 20: 98.1, 15: 98.5, 10: 96.7, 5: 96.1},
    "Cognex ViDi 2.1": {33: 99.0, 25: 97.4, 20: 95.7, 15: 97.1, 10: 95.6, 5: 89.2},
    "DeepLabv3+": {33: 98.0, 25: 92.0, 20: 98.6, 15: 98.3, 10: 46.5, 5: 16.5},
    "U-Net": {33: 96.1, 25: 74.6, 20: 84.6, 15: 84.0, 10: 91.9, 5: 69.8},
}
"""AP in percent by the number of defective training items, each with its defective image (Tabernik
2019)."""

HEADLINE_COLUMNS = (
    "preset, folds",
    "surfaces, all three folds pooled",
    "seeds",
    "AP: mean (range)",
    "FP / FN, operating threshold",
    "FP / FN, oracle",
    "FP at FN = 0",
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

PUBLISHED_COLUMNS = ("", "three folds pooled: AP", "FP / FN", "mean of folds: AP")

ERROR_COLUMNS = (
    "preset, folds, seed",
    "missed, operating (score; threshold)",
    "false alarms, operating (score; threshold)",
    "wrong at the oracle",
)

WRONG = ("missed", "false alarm")

RECIPE_COLUMNS = (
    "recipe",
    "what",
    "chosen on",
    "folds",
    "AP",
    "FP / FN, operating threshold",
)

TRY_COLUMNS = (
    "judged on",
    "what was tried",
    "AP of the decision network",
    "of the mask's peak",
    "of both together",
)

PROTOCOL_COLUMNS = (
    "preset, folds",
    "test images",
    "joined",
    "seeds",
    "AP: mean (range)",
    "FP / FN, operating threshold",
    "FP / FN, oracle",
    "FP at FN = 0",
)

FEW_COLUMNS = (
    "preset, folds",
    "defective images in training",
    "draws or seeds",
    "AP: mean (range)",
    "FP at FN = 0",
)

TWIN_COLUMNS = (
    "preset, folds",
    "one part",
    "IoU of its two annotations",
    "scores differ by, mean / most",
    "verdicts differ",
)

SPEED_COLUMNS = (
    "machine",
    "what",
    "plain, s an image",
    "ours, s an image",
    "plain / ours",
    "ours / bare convolutions",
    "memory, plain / ours, GiB",
)


def write_tables(root: Path) -> bool:
    """Write every table of kept results into its page; returns whether that changed any."""
    changed = False
    for page, tables in PAGES.items():
        before = after = (root / page).read_text(encoding="utf-8")
        for name, table in tables.items():
            head, tail = place_of(name).split(after)
            after = head + table(root) + tail
        if after != before:
            storage.write_text(root / page, after)
            changed = True
    return changed


def place_of(table: str) -> re.Pattern:
    """Where a table stands in its page: between two comments that name it."""
    return re.compile(f"(?<=<!-- {table}:begin -->\n).*?(?=<!-- {table}:end -->)", re.S)


def headline_table(root: Path) -> str:
    """The kept results of the presets as they are, all three folds pooled, seeds together."""
    rows = []
    for recipe, seeds in _recipes(root).items():
        if not PLAIN.fullmatch(recipe):
            continue
        judged = _pooled(seeds)
        cells = [
            recipe.replace("-", ", "),
            f"{judged[0].images}, {judged[0].defective} defective",
            str(len(judged)),
            *_over_seeds(judged),
            _minutes([seeds[seed] for seed in sorted(seeds)]),
        ]
        rows.append(_line(cells))
    return _table(HEADLINE_COLUMNS, rows)


def run_table(root: Path) -> str:
    """Each kept result of the presets as they are, with the intervals of one run."""
    return _table(RUN_COLUMNS, map(_run_row, _kept(root, variants=False)))


def variant_run_table(root: Path) -> str:
    """The same of every other recipe, but for those with few defects."""
    return _table(RUN_COLUMNS, map(_run_row, _kept(root, variants=True)))


def _kept(root: Path, variants: bool) -> list[Path]:
    """The folders of kept results with all defects, of the presets or of their variants."""
    folders = sorted(path.parent for path in (root / "assets" / "results").glob("*/metrics.json"))
    recipes = {folder: folder.name.rpartition("-seed")[0] for folder in folders}
    return [
        folder
        for folder, recipe in recipes.items()
        if not FEW.fullmatch(recipe) and variants == (UNCHANGED.fullmatch(recipe) is None)
    ]


def error_table(root: Path) -> str:
    """The errors of each result of the presets by name, worst first, pooled."""
    lines = []
    for folder in _kept(root, variants=False):
        rows = read_predictions(folder / "predictions.csv")
        best = metrics.oracle([row.is_defective for row in rows], [row.score for row in rows])
        cells = [_run_name(folder)]
        for kind in WRONG:
            wrong = [row for row in failures_first(rows) if verdict(row) == kind]
            cells.append(
                ", ".join(f"{row.image} ({row.score:.1f}; {row.threshold:.1f})" for row in wrong)
            )
        judged = [replace(row, is_flagged=row.score > best["threshold"]) for row in rows]
        wrong = [one for one in failures_first(judged) if verdict(one) in WRONG]
        cells.append(", ".join(f"{one.image} ({verdict(one)})" for one in wrong))
        lines.append(_line(cells))
    return _table(ERROR_COLUMNS, lines)


def _run_name(folder: Path) -> str:
    """ "best, clean, 0" of "best-clean-seed0"."""
    return folder.name.replace("-", ", ").replace("seed", "")


def recipe_table(root: Path) -> str:
    """Every recipe that was ever scored on test images, on the folds where that was first, seed 0,
    pooled: from the result that is kept, or, of a recipe given up, from its entry."""
    listed = storage.read_json(root / "assets" / "results" / "recipes.json")
    rows = []
    for number, one in enumerate(listed, 1):
        pooled = one.get("pooled") or _kept_pooled(root, one["kept"])
        cells = [str(number), one["what"], one["chosen_on"], one["folds"], _percent(pooled["ap"])]
        rows.append(_line([*cells, f"{pooled['fp']} / {pooled['fn']}"]))
    return _table(RECIPE_COLUMNS, rows)


def try_table(root: Path) -> str:
    """What was tried inside the training part of clean fold 0, with no test image of it."""
    lines = []
    for one in storage.read_json(root / "assets" / "results" / "tries.json"):
        aps = (one["ap"].get(score) for score in ("decision", "mask", "both"))
        told = ("" if ap is None else _percent(ap) for ap in aps)
        lines.append(_line([one["part"], one["what"], *told]))
    return _table(TRY_COLUMNS, lines)


def _kept_pooled(root: Path, name: str) -> Mapping[str, Any]:
    return storage.read_json(root / "assets" / "results" / name / "metrics.json")["pooled"]


def published_table(root: Path) -> str:
    """What the literature reports, which no result here changes."""
    return _table(
        PUBLISHED_COLUMNS,
        [
            _line(
                [
                    one.name,
                    "" if one.pooled is None else f"{one.pooled:.1f}",
                    "" if one.errors is None else "{} / {}".format(*one.errors),
                    "" if one.fold_mean is None else f"{one.fold_mean:.1f}",
                ]
            )
            for one in protocols.PUBLISHED
        ],
    )


def protocol_table(root: Path) -> str:
    """The presets' results of three folds under each protocol, a recipe's seeds together."""
    return _under_each_protocol(root, variants=False)


def variant_protocol_table(root: Path) -> str:
    """The same of every other recipe, but for those with few defects."""
    return _under_each_protocol(root, variants=True)


def _under_each_protocol(root: Path, variants: bool) -> str:
    shown = {folder.name.rpartition("-seed")[0] for folder in _kept(root, variants)}
    recipes = {name: seeds for name, seeds in _recipes(root).items() if name in shown}
    rows = [row for one in recipes.items() for row in _protocol_rows(*one)]
    return _table(PROTOCOL_COLUMNS, rows)


def speed_table(root: Path) -> str:
    """What `benchmarks/speed.py` measured, of every machine, as a Markdown table."""
    return _table(SPEED_COLUMNS, [_speed_row(*one, "") for one in _speed_cases(root)])


def short_speed_table(root: Path) -> str:
    """The same of single images, as the README shows it."""
    cases = [one for one in _speed_cases(root) if one[2]["batch"] == 1]
    return _table(SPEED_COLUMNS, [_speed_row(*one, "assets/results/") for one in cases])


def _speed_cases(root: Path) -> Iterator[tuple[Path, Mapping[str, Any], Mapping[str, Any]]]:
    """(file, report, case) of all that was timed, machine by machine."""
    for path in sorted((root / "assets" / "results").glob("speed-*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        yield from ((path, report, case) for case in report["cases"])


def twin_table(root: Path) -> str:
    """How alike surfaces that are in KolektorSDD twice were judged, of every result that has both.

    One row a pair of items; the seeds of a recipe stand one after the other.
    """
    rows = []
    for recipe, seeds in _recipes(root).items():
        if not recipe.endswith("-official"):
            continue  # the clean folds keep one of each pair
        judged = [
            protocols.repetitions(
                read_predictions(seeds[seed] / "predictions.csv"),
                protocols.kolektor_twins(),
            )
            for seed in sorted(seeds)
        ]
        for same in zip(*judged, strict=True):
            first = same[0]
            differences = [one.differences for one in same]
            cells = [
                recipe.replace("-", ", "),
                " = ".join(first.items),
                ", ".join(f"{iou:.2f}" for iou in first.mask_ious),
                ", ".join(f"{sum(d) / len(d):.1f} / {max(d):.1f}" for d in differences),
                ", ".join(f"{one.disagreements} of {len(one.differences)}" for one in same),
            ]
            rows.append(_line(cells))
    return _table(TWIN_COLUMNS, rows)


def few_defects_table(root: Path) -> str:
    """What each number of defective training images comes to, beside the published AP."""
    rows, found = [], _few_defects(root)
    if not found:
        return ""
    for recipe, counts in found.items():
        for count, judged in sorted(counts.items(), reverse=True):
            cells = [
                recipe.replace("-", ", "),
                str(count),
                str(len(judged)),
                _mean_and_range([one.ap for one in judged]),
                ", ".join(str(one.fp_at_fn0) for one in judged),
            ]
            rows.append(_line([*cells, *(_published_near(count, one) for one in PUBLISHED_FEW)]))
    return _table([*FEW_COLUMNS, *PUBLISHED_FEW], rows)


def _published_near(count: int, method: str) -> str:
    """The published AP with so many defective items, or, of all of them, with their number."""
    published = PUBLISHED_FEW[method]
    most = max(published)
    if count in published:
        return f"{published[count]}"
    return f"{published[most]} (of {most})" if count > sorted(published)[-2] else ""


def draw_few_defects(root: Path) -> None:
    """Draw `assets/few_defects.png` from the kept results, where there are any."""
    found = _few_defects(root)
    if not found:
        return
    ours = {
        recipe.replace("-", ", "): {
            count: [100 * one.ap for one in judged] for count, judged in few.items()
        }
        for recipe, few in found.items()
    }
    published = {name: {n: [ap] for n, ap in few.items()} for name, few in PUBLISHED_FEW.items()}
    figure = plots.few_defects_curve(ours, published)
    storage.write_bytes(root / "assets" / "few_defects.png", plots.png(figure))


def _few_defects(root: Path) -> dict[str, dict[int, list[protocols.Judgement]]]:
    """Recipe -> number of defective training images -> each draw, its folds pooled.

    Where a recipe was trained with few, its trainings with all are there too, under the mean number
    of defective images in its folds.
    """
    found: dict[str, dict[int, list[protocols.Judgement]]] = {}
    recipes = _recipes(root)
    for name, seeds in recipes.items():
        if match := FEW.fullmatch(name):
            found.setdefault(match["recipe"], {})[int(match["count"])] = _pooled(seeds)
    for name, few in found.items():
        if name in recipes:
            few[_training_defects(recipes[name])] = _pooled(recipes[name])
    return found


def _pooled(seeds: Mapping[int, Path]) -> list[protocols.Judgement]:
    return [_judgements(seeds[seed])["all", "pooled"] for seed in sorted(seeds)]


def _training_defects(seeds: Mapping[int, Path]) -> int:
    """The mean number of defective images in the training parts of a recipe's folds."""
    folder = next(iter(seeds.values()))
    protocol = storage.read_json(folder / "folds.json")["protocol"]
    folds = storage.read_json(folder / "data.json")["folds"][protocol]["folds"]
    return round(sum(fold["train_defective"] for fold in folds) / len(folds))


PAGES = {
    "README.md": {
        "headline": headline_table,
        "published": published_table,
        "speed": short_speed_table,
    },
    "assets/results/README.md": {
        "runs": run_table,
        "variant-runs": variant_run_table,
        "protocols": protocol_table,
        "variant-protocols": variant_protocol_table,
        "errors": error_table,
        "recipes": recipe_table,
        "tries": try_table,
        "few": few_defects_table,
        "twins": twin_table,
        "speed": speed_table,
    },
}
"""Page -> the name that marks a table's place in it -> what makes its text."""


def _recipes(root: Path) -> dict[str, dict[int, Path]]:
    """Recipe -> seed -> folder, of the kept results of all three folds."""
    recipes: dict[str, dict[int, Path]] = {}
    for path in sorted((root / "assets" / "results").glob("*/metrics.json")):
        recipe, _, seed = path.parent.name.rpartition("-seed")
        if len(storage.read_json(path)["folds_trained"]) == FOLDS:
            recipes.setdefault(recipe, {})[int(seed)] = path.parent
    return recipes


def _protocol_rows(recipe: str, seeds: Mapping[int, Path]) -> list[str]:
    """One recipe, with and, where there are any, without its leaked test images."""
    found: dict[tuple[str, str], list[protocols.Judgement]] = {}
    for seed in sorted(seeds):
        for protocol, judged in _judgements(seeds[seed]).items():
            found.setdefault(protocol, []).append(judged)
    name = recipe.replace("-", ", ")
    lines = []
    for (part, join), judged in found.items():
        images = f"{part}: {judged[0].images}, {judged[0].defective} defective"
        lines.append(_line([name, images, join, str(len(judged)), *_over_seeds(judged)]))
    return lines


def _judgements(folder: Path) -> dict[tuple[str, str], protocols.Judgement]:
    """(which test images, how folds are joined) -> one result's numbers."""
    rows = read_predictions(folder / "predictions.csv")
    folds = storage.read_json(folder / "folds.json")["folds"]
    train_items = {fold["fold"]: fold["train_items"] for fold in folds}
    twins = storage.read_json(folder / "data.json")["twins"]
    clean = protocols.without_leaks(rows, train_items, twins)
    parts = {"all": rows} | ({"without the leaked ones": clean} if len(clean) < len(rows) else {})
    parts["without two doubtful labels"] = protocols.without_doubtful(rows)
    joins = {"pooled": protocols.pooled, "one by one": protocols.by_fold}
    found = {}
    for part, chosen in parts.items():
        for join, judge in joins.items():
            found[part, join] = judge(chosen)
    return found


def _over_seeds(judged: Sequence[protocols.Judgement]) -> list[str]:
    """AP as mean and range, and each seed's errors, in the order of the seeds."""
    errors = [[one.operating for one in judged], [one.oracle for one in judged]]
    return [
        _mean_and_range([one.ap for one in judged]),
        *(", ".join("{} / {}".format(*pair) for pair in pairs) for pairs in errors),
        ", ".join(str(one.fp_at_fn0) for one in judged),
    ]


def _mean_and_range(values: Sequence[float]) -> str:
    """ "99.1 (98.9 to 99.3)" of shares; of one value alone that value."""
    mean = _percent(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({_percent(min(values))} to {_percent(max(values))})"


def _speed_row(path: Path, report: Mapping[str, Any], case: Mapping[str, Any], place: str) -> str:
    """One case; a training step also with the memory that it adds to the process.

    Args:
        place: where a page finds the file, "" beside it.
    """
    made, medians = report["environment"], case["medians"]
    added = {
        one["variant"]: f"{one['growth_bytes'] / 2**30:.1f}"
        for one in report["memory"]
        if case["what"] == "training step"
        and (one["size"], one["batch"]) == (case["size"], case["batch"])
        and one["arithmetic"] in ("float32", case["arithmetic"])
    }
    cells = [
        f"[{_machine(made)}]({place}{path.name}), {case['arithmetic']}",
        f"{case['what']}, {case['size']}, batch {case['batch']}",
        f"{medians['plain']:.2f}",
        f"{medians['ours']:.2f}",
        f"{medians['plain'] / medians['ours']:.1f}",
        f"{medians['ours'] / medians['floor']:.2f}",
        f"{added['plain']} / {added['ours']}" if added else "",
    ]
    return _line(cells)


def _run_row(folder: Path) -> str:
    """One result; its counts are computed again from the stored predictions."""
    settings, summary = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("settings", "metrics")
    )
    rows = read_predictions(folder / "predictions.csv")
    labels = [row.is_defective for row in rows]
    counts = metrics.error_counts(labels, [row.is_flagged for row in rows])
    oracle, intervals = summary["pooled"]["oracle"], summary["pooled"]["intervals"]
    trained = summary["folds_trained"]
    part = "3 folds, pooled" if len(trained) == 3 else "fold " + ", ".join(map(str, trained))
    name = _run_name(folder)
    ap = metrics.average_precision(labels, [row.score for row in rows])
    found, alarms = intervals["recall"], intervals["false_positive_rate"]
    cells = [
        f"[{name}]({folder.name}/)",
        f"{part}: {len(rows)} surfaces, {sum(labels)} defective, {settings['image_size']}",
        f"{_percent(ap)} {_interval(intervals['ap'])}",
        f"{counts['tp']} of {sum(labels)} {_interval(found)}",
        f"{counts['fp']} of {len(labels) - sum(labels)} {_interval(alarms)}",
        ", ".join(f"{fold['threshold']:.2f}" for fold in summary["folds"]),
        f"{oracle['fp']} / {oracle['fn']}",
        # Folds that were kept one by one have none: it would need the images of all.
        _percent(summary["darkest_pixel"]["ap"]) if "darkest_pixel" in summary else "",
        _minutes([folder]),
    ]
    return _line(cells)


def _minutes(folders: Iterable[Path]) -> str:
    """What training and scoring of results took, and where: "24, 23 on AMD EPYC, 2 cores"."""
    of_machine: dict[str, list[str]] = {}
    for folder in folders:
        made = storage.read_json(folder / "environment.json")
        spent: dict[str, float] = {}
        for row in storage.read_json(folder / "timing.json"):
            name = _machine(made, row["what"])
            spent[name] = spent.get(name, 0) + row["seconds"] / 60
        for name, minutes in spent.items():
            of_machine.setdefault(name, []).append(f"{minutes:.0f}")
    return "; ".join(f"{', '.join(times)} on {name}" for name, times in of_machine.items())


def _machine(made: Mapping[str, Any], work: str = "") -> str:
    """The GPU, or the CPU and its cores, of an environment.json.

    Args:
        work: a line of timing.json, "segmentation stage, fold 0": where that was trained, where the
            environment has it; the rest is of the machine that judged, of joined folds the last.
    """
    cpu, gpu = made["cpu"], made["gpu"]
    trained = re.match(r"(.*), GPU (.*), \w+, at ", made.get(work.replace(", ", " of "), ""))
    if trained:
        cpu, gpu = trained.groups()
    if gpu != "none":
        return gpu
    name = cpu.replace("(R)", "").replace(" Processor", "")
    return f"{name}, {made['cpu_cores']} cores" if cpu == made["cpu"] else name


def _interval(ends: Sequence[float] | None) -> str:
    """ "[97.7, 99.9]" in percent; "" where there is none."""
    return "[{}, {}]".format(*map(_percent, ends)) if ends else ""


def _table(columns: Sequence[str], rows: Iterable[str]) -> str:
    return _line(columns) + _line(["---"] * len(columns)) + "".join(rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _percent(value: Any) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"
