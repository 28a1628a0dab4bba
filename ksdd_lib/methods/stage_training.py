"""A stage of one fold: trained, gone on with, and read when it is finished."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ksdd_lib import hardware, presets, storage
from ksdd_lib.data.data_report import DataReport, SplitCounts
from ksdd_lib.data.folds import Fold
from ksdd_lib.errors import CheckpointError, RunError, TrainingError
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import Judge, StagePlan
from ksdd_lib.runs.prepare import DataSet, part_of
from ksdd_lib.runs.run import FINAL, Run, fold_name
from ksdd_lib.setting_rules import Value, ends
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.training import checkpoint, loop
from ksdd_lib.training.batches import Order, Surfaces, load_surfaces, open_tiles
from ksdd_lib.training.checkpoint import Checkpoint, Identity
from ksdd_lib.training.drawn_defects import Ranges
from ksdd_lib.training.loop import Progress, Stage, Watch, read_history
from ksdd_lib.training.memory import explain_memory

SHARED: tuple[str, ...] = ("image_size", "folds", "seed", "rotation", "flips", "weight_averaging")
SHARED += ("copy_paste", "paste_turn", "fit", "region", "tile_size", "labels", "masks")
SHARED += ("drawn", "harmless", "drawn_kinds", "drawn_length", "drawn_width", "drawn_contrast")
"""Settings outside a stage's own group that decide its weights, whatever the method."""

RARELY = 4
"""How often a stage must show each defective picture, or it is told."""

KOLEKTOR = 33
"""About how many defective pictures a fold of KolektorSDD is trained on."""

LARGE = 0.03
"""The share of a picture from which a defect is too large for a normalised mask; KolektorSDD's
largest cover half of it."""


def advised(report: DataReport, settings: Settings) -> DataReport:
    """The report, with advice that asks what a method trains: on steps, drawn defects, the mask."""
    split = (report.folds or {}).get(settings.folds)
    rows = split.folds if isinstance(split, SplitCounts) else ()
    counts = [row.train_defective for row in rows if row.fold in settings.fold_numbers]
    count = min(max(counts, default=0), settings.defective_images or 10**6)
    usual, lines = presets.resolve({"preset": "cpu"}), list(report.advice)
    for stage in method_of(settings).stages if count else ():
        recipe, theirs = stage.recipe(settings), stage.recipe(usual)
        shown = recipe.steps * recipe.batch_size / 2 / count
        often = theirs.steps * theirs.batch_size / 2 / KOLEKTOR
        if shown < RARELY:
            enough = often * count * 2 / recipe.batch_size
            lines.append(
                f"{recipe.steps} {stage.name} steps show each of the {count} defective pictures "
                f"{shown:.1f} times. The preset cpu shows KolektorSDD's {often:.0f} times: "
                f"{stage.name}_steps {max(1, round(enough / 100)) * 100} shows yours as often."
            )
    longest, room = ends(settings.drawn_length)[1], min(settings.size)
    draws = {settings.labels, settings.masks} != {"all"} or settings.drawn > 0
    if draws and longest > room and method_of(settings).stages:
        lines.append(
            f"Drawn defects are up to {longest:g} pixels long, and the network's input is {room} "
            "wide: make drawn_length as long as your defects, in pixels of that input."
        )
    covered = report.defect_widths.share if report.defect_widths else 0.0
    if covered > LARGE and settings.mask_norm and settings.method == "two_stage":
        lines.append(
            f"A tenth of the defective pictures are covered by more than {covered:.0%} of their "
            "pixels. A normalised mask does not learn such defects: set mask_norm to False, and "
            "segmentation_learning_rate to 0.0003."
        )
    return report.model_copy(update={"advice": tuple(lines)})


@explain_memory
def train_stage(
    run: Run,
    data: DataSet,
    fold: int,
    name: str,
    watch: Watch | None = None,
    saved: Callable[[], None] | None = None,
) -> bool:
    """Train a stage of a fold on the finished stages before it, or go on where it stopped.

    Returns False where it had already finished.

    Args:
        watch: told of every new row of the history; once, where the stage had already finished.
        saved: called after each checkpoint, for a copy elsewhere.

    Raises RunError: the run's method has no such stage.
    Raises TrainingError: it diverged, memory is too small, or one kind of image is missing.
    Raises CheckpointError: a stage before it is not finished, or the folder is of another training.
    """
    plan, before, identity = _resolve(run, data, fold, name)
    recipe, folder = plan.recipe(run.settings), run.fold_folder(fold)
    found = checkpoint.load(folder, name, identity) if run.has(name, fold) else None
    if found is not None and found.step >= recipe.steps:
        history = read_history(folder / f"{name}.jsonl")
        if watch and history:
            watch(Progress(name, fold, recipe.steps, recipe.steps, history))
        return False
    part = part_of(run, data, fold)
    surfaces, order = _training_part(part, run.settings, plan, hardware.device(), data.classes)
    stage = Stage(
        **vars(plan.build(run.settings, surfaces, before)),
        name=name,
        fold=fold,
        folder=folder,
        identity=identity,
        recipe=recipe,
        order=order,
        images=tuple(sample.name for sample in part.train),
        average=run.settings.weight_averaging,
        checkpoint_steps=run.settings.checkpoint_steps,
    )
    loop.train(run, stage, watch, saved)
    return True


def load_stage(run: Run, data: DataSet, fold: int, name: str) -> Checkpoint:
    """The finished checkpoint of a stage.

    Raises CheckpointError: the stage is not finished, or belongs to another training.
    """
    plan, _, identity = _resolve(run, data, fold, name)
    found = checkpoint.load(run.fold_folder(fold), name, identity)
    steps = plan.recipe(run.settings).steps
    if found is None or found.step < steps:
        done = 0 if found is None else found.step
        told = f"The {name} stage of {fold_name(fold)} has done {done} of {steps} steps"
        raise CheckpointError(f"{told}; train it first.")
    return found


def trained_judge(run: Run, data: DataSet, fold: int) -> Judge:
    """What judges after a fold's training, on this machine's device.

    Raises CheckpointError: a stage is not finished, or belongs to another training.
    """
    method = method_of(run.settings)
    stages = [load_stage(run, data, fold, plan.name) for plan in method.stages]
    return method.trained(run.settings, stages)


def usual_fold(run: Run) -> int:
    """Whose model is given away unless told otherwise: `FINAL` where it is trained, or the first.

    A method without stages has learned from no item, so that none of its models is of all.
    """
    plans = method_of(run.settings).stages
    has_final = bool(plans) and all(run.has(plan.name, FINAL) for plan in plans)
    return FINAL if has_final else run.settings.fold_numbers[0]


def weights_sha256(run: Run, data: DataSet, fold: int) -> str:
    """What names the weights that judge a fold: its last stage's hash, else that of the method.

    Raises CheckpointError: as `trained_judge`.
    """
    stages = method_of(run.settings).stages
    if not stages:
        return storage.sha256(run.settings.method.encode())
    return load_stage(run, data, fold, stages[-1].name).sha256


def require_trained(run: Run) -> None:
    """Raise RunError, naming what to run first, unless all stages of all folds are finished."""
    for plan in method_of(run.settings).stages:
        run.require(plan.name, plan.notebook)


def _resolve(
    run: Run, data: DataSet, fold: int, name: str
) -> tuple[StagePlan, list[Checkpoint], Identity]:
    """A stage's plan, the finished stages before it, and all that decides its weights."""
    settings, plans = run.settings, method_of(run.settings).stages
    names = [plan.name for plan in plans]
    if name not in names:
        raise RunError(
            f"The method {settings.method} has no {name} stage: go on with the next notebook."
        )
    place = names.index(name)
    before = [load_stage(run, data, fold, earlier) for earlier in names[:place]]
    images = sorted(sample.name for sample in part_of(run, data, fold).train)
    identity: Identity = {
        "stage": name,
        "fold": fold,
        "data": data.fingerprint,
        "training_images": storage.sha256("\n".join(images).encode()),
        "predecessor": before[-1].sha256 if before else None,
    }
    return plans[place], before, identity | deciding(settings, name)


def deciding(settings: Settings, stage: str) -> dict[str, Value]:
    """The settings that decide the weights of a stage, its own and those of the stages before."""
    names = [plan.name for plan in method_of(settings).stages]
    groups = names[: names.index(stage) + 1]
    chosen = [key for key, rule in RULES.items() if rule.group in groups or key in SHARED]
    return {key: getattr(settings, key) for key in chosen}


def _training_part(
    fold: Fold,
    settings: Settings,
    plan: StagePlan,
    where: torch.device,
    classes: Sequence[str] = (),
) -> tuple[Surfaces, Order]:
    """The fold's training images in the device's memory, and the order in which they come."""
    recipe = plan.recipe(settings)
    train, from_good = fold.train, settings.labels == "none"
    good = tuple(row for row, sample in enumerate(train) if not sample.is_defective)
    defective = good if from_good else tuple(sorted({*range(len(train))} - {*good}))
    if not (good and defective):
        told = fold_name(fold.number).capitalize()
        raise TrainingError(
            f"{told} has {len(defective)} defective images among {len(train)} in "
            "training: the networks need defective and good ones. Add what is missing to the data.",
            see="labels#few-labels-or-none",
        )
    unmasked = frozenset(row for row in defective if from_good or not train[row].has_mask)
    is_drawn = from_good or plan.needs_masks or settings.view.tiled
    load = open_tiles if settings.view.tiled else load_surfaces
    surfaces = load(train, settings.view, settings.annotation, classes).to(where)
    surfaces = replace(surfaces, ranges=(ranges := Ranges.of(settings)))
    order = Order(
        defective=defective,
        good=good,
        seed=settings.seed,
        fold=fold.number,
        stage=method_of(settings).stages.index(plan),
        batch_size=recipe.batch_size,
        rotation=settings.rotation,
        flips=settings.flips,
        copy_paste=settings.copy_paste if recipe.pastes else 0.0,
        paste_turn=settings.paste_turn,
        tiles=settings.view.tiled,
        to_draw=unmasked if is_drawn else frozenset(),
        unmasked=unmasked,
        drawn=settings.drawn if plan.needs_masks else 0.0,
        harmless=bool(settings.draws and ranges.harmless) and (plan.needs_masks or from_good),
    )
    return surfaces, order
