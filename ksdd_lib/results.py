"""The results that stay in the repository: scores, curves, times, and the README's tables."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ksdd_lib import metrics, protocols, storage
from ksdd_lib.errors import RunError
from ksdd_lib.folds import FOLDS
from ksdd_lib.report import load_results
from ksdd_lib.settings import Settings, to_json

FILES = (
    "settings.json",
    "environment.json",
    "folds.json",
    "timing.json",
    "predictions.csv",
    "metrics.json",
)
CURVES = ("scores", "precision_recall_curve", "roc_curve", "confusion_matrix", "training_curves")
"""The figures that show no surface: pictures of KolektorSDD may not enter the repository."""

COLUMNS = (
    "preset, folds, seed",
    "judged",
    "AP",
    "FP / FN, operating threshold",
    "FP / FN, oracle",
    "AP of the darkest pixel",
    "minutes",
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


def keep(run_folder: Path, root: Path) -> Path:
    """Copy a finished run's scores and curves to `assets/results/<name_of its settings>`.

    What an earlier run of that name left there is replaced: three folds follow upon one.

    Args:
        root: the checkout. Weights, masks and pictures of surfaces are not copied.

    Raises:
        RunError: it is no run on KolektorSDD, or would replace results of other settings, a file is
            missing, or metrics.json was not made from predictions.csv.
    """
    run_folder = Path(run_folder)
    if not (run_folder / "settings.json").exists():
        raise RunError(f"{run_folder.name} is no run folder.")
    stored = load_results(run_folder)
    if not stored.data["is_kolektor"]:
        raise RunError(
            f"assets/results holds results on KolektorSDD, not on {stored.data['name']}."
        )
    settings = _read_settings(run_folder)
    target = root / "assets" / "results" / name_of(settings)
    _require_same_recipe(settings, target)
    sources = [run_folder / file for file in FILES]
    sources += [run_folder / "figures" / f"{curve}.png" for curve in CURVES]
    sources += sorted(run_folder.glob("fold*/*.jsonl"))
    for source in sources:
        if not source.exists():
            raise RunError(f"{source.name} is missing in {run_folder.name}: run 04 and 05 first.")
    report = storage.read_json(run_folder / "data.json")["report"]
    shutil.rmtree(target, ignore_errors=True)
    storage.write_json(target / "data.json", report)
    for source in sources:
        storage.write_bytes(target / source.relative_to(run_folder), source.read_bytes())
    return target


def _read_settings(folder: Path) -> dict[str, Any]:
    """A result's settings; one that is newer than the result has its default."""
    return to_json(Settings()) | storage.read_json(folder / "settings.json")


def name_of(settings: Mapping[str, Any]) -> str:
    """What a result is called: "cpu-clean-seed0", or "cpu-clean-partition1-5defective-seed0"."""
    parts = [settings["preset"], settings["folds"]]
    if settings["partition"]:
        parts.append(f"partition{settings['partition']}")
    if settings["defective_images"]:
        parts.append(f"{settings['defective_images']}defective")
    return "-".join([*parts, f"seed{settings['seed']}"])


def _require_same_recipe(settings: dict[str, Any], target: Path) -> None:
    """Refuse to replace results of other settings; the fold may differ: three follow upon one."""
    if not target.exists():
        return
    kept = _read_settings(target)
    free = ("fold", "data", "checkpoint_steps")
    other = [name for name in settings if name not in free and settings[name] != kept[name]]
    if other:
        raise RunError(
            f"{target.name} holds results of another {', '.join(other)}: keep them under another "
            "preset or seed, or delete that folder first."
        )


def write_tables(root: Path) -> bool:
    """Write every table of kept results into the README; returns whether that changed it."""
    readme = root / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = before
    for name, table in TABLES.items():
        head, tail = place_of(name).split(after)
        after = head + table(root) + tail
    storage.write_text(readme, after)
    return after != before


def place_of(table: str) -> re.Pattern:
    """Where a table stands in the README: between two comments that name it."""
    return re.compile(f"(?<=<!-- {table}:begin -->\n).*?(?=<!-- {table}:end -->)", re.S)


def results_table(root: Path) -> str:
    """All kept results as a Markdown table, a row each."""
    folders = sorted(path.parent for path in (root / "assets" / "results").glob("*/metrics.json"))
    return _line(COLUMNS) + _line(["---"] * len(COLUMNS)) + "".join(map(_row, folders))


def protocol_table(root: Path) -> str:
    """Every kept result of three folds under each protocol, a recipe's seeds together."""
    rows = [row for one in _recipes(root).items() for row in _protocol_rows(*one)]
    return _line(PROTOCOL_COLUMNS) + _line(["---"] * len(PROTOCOL_COLUMNS)) + "".join(rows)


def speed_table(root: Path) -> str:
    """What `benchmarks/speed.py` measured, of every machine, as a Markdown table."""
    rows = []
    for path in sorted((root / "assets" / "results").glob("speed-*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        rows += [_speed_row(path, report, case) for case in report["cases"]]
    return _line(SPEED_COLUMNS) + _line(["---"] * len(SPEED_COLUMNS)) + "".join(rows)


def twin_table(root: Path) -> str:
    """How alike surfaces that are in KolektorSDD twice were judged, of every result that has both.

    One row a pair of items; the seeds of a recipe stand one after the other.
    """
    table = _line(TWIN_COLUMNS) + _line(["---"] * len(TWIN_COLUMNS))
    for recipe, seeds in _recipes(root).items():
        if "official" not in recipe.split("-"):
            continue  # the clean folds keep one of each pair
        judged = [
            protocols.repetitions(
                metrics.read_predictions(seeds[seed] / "predictions.csv"),
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
            table += _line(cells)
    return table


TABLES = {
    "results": results_table,
    "protocols": protocol_table,
    "twins": twin_table,
    "speed": speed_table,
}
"""The name that marks a table's place in the README -> what makes its text."""


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
    return [
        _line([name, *protocol, str(len(judged)), *_over_seeds(judged)])
        for protocol, judged in found.items()
    ]


def _judgements(folder: Path) -> dict[tuple[str, str], protocols.Judgement]:
    """(which test images, how folds are joined) -> one result's numbers."""
    rows = metrics.read_predictions(folder / "predictions.csv")
    folds = storage.read_json(folder / "folds.json")["folds"]
    train_items = {fold["fold"]: fold["train_items"] for fold in folds}
    twins = storage.read_json(folder / "data.json")["twins"]
    clean = protocols.without_leaks(rows, train_items, twins)
    parts = {"all": rows} | ({"without the leaked ones": clean} if len(clean) < len(rows) else {})
    joins = {"pooled": protocols.pooled, "one by one": protocols.by_fold}
    found = {}
    for part, chosen in parts.items():
        for join, judge in joins.items():
            judged = judge(chosen)
            counts = f"{part}: {judged.images}, {judged.defective} defective"
            found[counts, join] = judged
    return found


def _over_seeds(judged: Sequence[protocols.Judgement]) -> list[str]:
    """AP as mean and range, and each seed's errors, in the order of the seeds."""
    aps = [one.ap for one in judged]
    spread = f" ({_percent(min(aps))} to {_percent(max(aps))})" if len(aps) > 1 else ""
    errors = [[one.operating for one in judged], [one.oracle for one in judged]]
    return [
        _percent(sum(aps) / len(aps)) + spread,
        *(", ".join("{} / {}".format(*pair) for pair in pairs) for pairs in errors),
        ", ".join(str(one.fp_at_fn0) for one in judged),
    ]


def _speed_row(path: Path, report: dict[str, Any], case: dict[str, Any]) -> str:
    """One case; a training step also with the memory that it adds to the process."""
    made, medians = report["environment"], case["medians"]
    machine = f"{made['cpu']}, {made['cpu_cores']} cores" if made["gpu"] == "none" else made["gpu"]
    added = {
        one["variant"]: f"{one['growth_bytes'] / 2**30:.1f}"
        for one in report["memory"]
        if case["what"] == "training step"
        and (one["size"], one["batch"]) == (case["size"], case["batch"])
        and one["arithmetic"] in ("float32", case["arithmetic"])
    }
    cells = [
        f"[{machine}](assets/results/{path.name}), {case['arithmetic']}",
        f"{case['what']}, {case['size']}, batch {case['batch']}",
        f"{medians['plain']:.2f}",
        f"{medians['ours']:.2f}",
        f"{medians['plain'] / medians['ours']:.1f}",
        f"{medians['ours'] / medians['floor']:.2f}",
        f"{added['plain']} / {added['ours']}" if added else "",
    ]
    return _line(cells)


def _row(folder: Path) -> str:
    """One result; its counts are computed again from the stored predictions."""
    settings, summary, timing = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("settings", "metrics", "timing")
    )
    rows = metrics.read_predictions(folder / "predictions.csv")
    labels = [row.is_defective for row in rows]
    counts = metrics.error_counts(labels, [row.is_flagged for row in rows])
    oracle = summary["pooled"]["oracle"]
    trained = summary["folds_trained"]
    part = "3 folds, pooled" if len(trained) == 3 else "fold " + ", ".join(map(str, trained))
    name = f"{settings['preset']}, {settings['folds']}, {settings['seed']}"
    cells = [
        f"[{name}](assets/results/{folder.name}/)",
        f"{part}: {len(rows)} surfaces, {sum(labels)} defective, {settings['image_size']}",
        _percent(metrics.average_precision(labels, [row.score for row in rows])),
        f"{counts['fp']} / {counts['fn']}",
        f"{oracle['fp']} / {oracle['fn']}",
        _percent(summary["darkest_pixel"]["ap"]),
        f"{sum(row['seconds'] for row in timing) / 60:.0f}",
    ]
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _percent(value: Any) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"
