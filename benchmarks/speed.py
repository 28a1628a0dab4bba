"""How fast ksdd_lib trains and scores, beside the plain formulation and the bare convolutions.

    python benchmarks/speed.py [--sizes 1408x512 704x256] [--rounds 5] [--data PATH] [--out FILE]

All variants run in one process, one after another in every round, after a round to warm up. Ours
takes a batch image by image, as training and scoring do; plain and floor take it whole. Ours and
floor run in memory that stays with the process (`machine.reused_memory`), as every training and
scoring of ours does; plain runs as PyTorch comes. Memory is that of a new process for each variant.
Writes JSON and prints the same as Markdown tables.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import plain
import torch
from markdown_report import speed_report

from ksdd_lib import hardware, storage
from ksdd_lib.data import synthetic
from ksdd_lib.data.dataset import Sample
from ksdd_lib.data.sources import obtain
from ksdd_lib.data.survey import find_samples
from ksdd_lib.methods.two_stage import TwoStage, segmentation_loss_of, untrained_segmentation
from ksdd_lib.models.two_stage import SegmentationNet
from ksdd_lib.presets import resolve
from ksdd_lib.settings import Settings
from ksdd_lib.settings_io import data_name
from ksdd_lib.training.batches import Order, Surfaces, load_surfaces
from ksdd_lib.training.loop import Session, Stage

ROOT = Path(__file__).resolve().parent.parent

FOURIER = "floor, 15x15 by spectra"
COMPILED = "ours, torch.compile"
REUSING = ("ours", COMPILED, "floor", FOURIER)
"""Variants whose memory stays with the process, as in every training and scoring of ours."""
RATIOS = [("plain", "ours"), ("ours", "floor"), ("ours", FOURIER), ("ours", COMPILED)]
BATCHES = sorted({1, resolve({"preset": "cpu"}).segmentation_batch_size})
IMPORTS = {
    "ksdd_lib": "import time; t = time.perf_counter(); import ksdd_lib",
    "what a training imports, on top of torch": "import time, torch; t = time.perf_counter(); "
    "import ksdd_lib.training.loop, ksdd_lib.evaluation.scoring",
}
Case = dict[str, Any]


def trainer(surfaces: Surfaces, order: Order, settings: Settings, compiled: bool = False):
    """A function that takes the next step exactly as a training does -> its loss (a Tensor)."""
    where = surfaces.images.device
    model = untrained_segmentation(settings)
    model.to(where, memory_format=torch.channels_last)
    loss_of = segmentation_loss_of(model, surfaces, settings)
    names = tuple(sample.name for sample in surfaces.samples)
    recipe = TwoStage().stages[0].recipe(settings)
    stage = Stage(
        model,
        loss_of,
        scale_gradients=hardware.arithmetic(settings.precision, where) == torch.float16,
        name="segmentation",
        fold=0,
        folder=Path(),
        identity={},
        recipe=recipe,
        order=order,
        images=names,
        average=False,
        checkpoint_steps=recipe.steps,
    )
    if compiled:
        compile_network(model)
    session, steps = Session(stage), itertools.count()
    return lambda: session.take_step(next(steps), settings.segmentation_learning_rate)


def compile_network(model: SegmentationNet) -> None:
    """torch.compile on the layers before the 15x15 one, in place; on a GPU on that one too.

    On a CPU a compiled graph would take that layer directly, which costs more than is gained.
    """
    layers = list(model.features)
    on_cpu = model.mask.weight.device.type == "cpu"
    first = torch.nn.Sequential(*(layers[:-1] if on_cpu else layers))
    first.compile(dynamic=False)
    model.features = torch.nn.Sequential(first, *layers[len(first) :])


def scorer(
    surfaces: Surfaces, batch: int, settings: Settings, compiled: bool = False, whole: bool = False
):
    """A function that scores the next `batch` surfaces -> score logits (batch,) on the CPU.

    One by one, as `evaluate.score_images` does; with `whole` in one forward.
    """
    where = surfaces.images.device
    dtype = hardware.arithmetic(settings.precision, where)
    model = plain.first_weights(settings)
    model.to(where, memory_format=torch.channels_last).requires_grad_(False)
    if compiled:
        compile_network(model.segmentation)
    rows = itertools.cycle(range(len(surfaces.samples)))

    def forward(images: torch.Tensor) -> torch.Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(where.type, dtype, enabled=dtype != torch.float32),
        ):
            return model(images)[1][:, 0]

    def score() -> torch.Tensor:
        images = [surfaces.image(row) for row in itertools.islice(rows, batch)]
        groups = [torch.cat(images)] if whole else images
        return torch.cat([forward(group) for group in groups]).double().cpu()

    return score


def measure(
    variants: dict[str, Callable[[], Any]],
    rounds: int,
    where: torch.device,
    images: int = 1,
    repeats: int = 1,
) -> Case:
    """Each variant once a round, in turn -> raw seconds per image, medians, ratios, warm-up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, work in variants.items():
            times[name].append(_seconds_in_turn(name, work, repeats, where))
    raw = {name: [total / repeats / images for total in all_[1:]] for name, all_ in times.items()}
    medians = {name: statistics.median(values) for name, values in raw.items()}
    ratios = {f"{a}/{b}": medians[a] / medians[b] for a, b in RATIOS if {a, b} <= set(medians)}
    warm_up = {name: totals[0] for name, totals in times.items()}
    return {"seconds": raw, "medians": medians, "ratios": ratios, "warm_up_seconds": warm_up}


def _seconds_in_turn(
    name: str, work: Callable[[], Any], repeats: int, where: torch.device
) -> float:
    """Seconds of a variant's calls in the memory it has in practice: ours once it is at hand."""
    with memory_of(name, where) as reused:
        if reused:
            work()  # the others' turns have handed all memory back
        return _seconds(work, repeats, where)


@contextmanager
def memory_of(variant: str, where: torch.device) -> Iterator[bool]:
    """The variant's way with memory -> whether what is freed stays with the process."""
    reused = variant in REUSING and where.type == "cpu"
    with hardware.reused_memory(where) if reused else nullcontext():
        yield reused


def _seconds(work: Callable[[], Any], repeats: int, where: torch.device) -> float:
    """Seconds of all calls together, the device's work included."""
    synchronize = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return time.perf_counter() - began


def timed_case(
    what: str, surfaces: Surfaces, batch: int, settings: Settings, options: argparse.Namespace
) -> Case:
    """All variants of "training step" or "scoring" at one size, batch and precision."""
    samples, where, training = surfaces.samples, surfaces.images.device, what == "training step"
    if training:
        order = order_of(samples, batch, settings)
        a = plain.trainer(samples, order, settings, options.workers, where)
        b = partial(trainer, surfaces, order, settings)
    else:
        a = plain.scorer(samples, batch, settings, options.workers, where)
        b = partial(scorer, surfaces, batch, settings)
    dtype = hardware.arithmetic(settings.precision, where)
    bare = (settings.size, batch, dtype, where, training)
    variants = {"plain": a, "ours": b(), "floor": plain.bare_convolutions(*bare)}
    if where.type == "cpu":
        variants[FOURIER] = plain.bare_convolutions(*bare, fourier=True)
    if options.compile:
        variants[COMPILED] = b(compiled=True)
    repeats = 10 if where.type == "cuda" else 1  # too short there to be timed one by one
    measured = measure(variants, options.rounds, where, batch, repeats)
    return {
        "what": what,
        "size": settings.image_size,
        "batch": batch,
        "arithmetic": hardware.arithmetic_name(settings.precision),
    } | measured


def throughput(surfaces: Surfaces, settings: Settings, rounds: int) -> Case:
    """Images per second of ours when scoring 1 to 16 as one forward, on a GPU."""
    where = surfaces.images.device
    found = {}
    for batch in (1, 2, 4, 8, 16):
        work = {"ours": scorer(surfaces, batch, settings, whole=True)}
        found[str(batch)] = 1 / measure(work, rounds, where, batch, 10)["medians"]["ours"]
    known = {
        "size": settings.image_size,
        "arithmetic": hardware.arithmetic_name(settings.precision),
    }
    return known | {"images_per_second": found}


def order_of(samples: Sequence[Sample], batch: int, settings: Settings) -> Order:
    """The order in which a training sees these samples."""
    defective = tuple(row for row, sample in enumerate(samples) if sample.is_defective)
    good = tuple(row for row, sample in enumerate(samples) if not sample.is_defective)
    return Order(defective, good, settings.seed, 0, 0, batch)


def few(samples: Sequence[Sample]) -> list[Sample]:
    """The first eight samples of each kind: enough to time steps."""
    kinds = [[s for s in samples if s.is_defective is kind] for kind in (True, False)]
    return kinds[0][:8] + kinds[1][:8]


def memory_here(variant: str, root: Path, batch: int, settings: Settings, workers: int) -> Case:
    """Peak bytes of three training steps in this process, and their growth over what was before."""
    where, samples = hardware.device(), few(find_samples(root))
    order = order_of(samples, batch, settings)
    surfaces = load_surfaces(samples, settings.size, settings.annotation).to(where)
    before = _memory(where, "VmRSS")
    if variant == "plain":
        step = plain.trainer(samples, order, settings, workers, where)
    else:
        step = trainer(surfaces, order, settings)
    with memory_of(variant, where):
        for _ in range(3):
            step()
    peak = _memory(where, "VmHWM")
    return {"growth_bytes": max(0, peak - before), "peak_bytes": peak}


def _memory(where: torch.device, name: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most; on a GPU what PyTorch has allocated."""
    if where.type == "cuda":
        peak = name == "VmHWM"
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    try:  # not ru_maxrss where this exists: that also counts the parent, before the new program
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{name}:\s*(\d+) kB", status)[1]) * 1024
    except OSError:
        import resource  # absent on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def memory_case(variant: str, root: Path, batch: int, settings: Settings, workers: int) -> Case:
    """`memory_here` in a new process."""
    words = ["--memory", variant, settings.image_size, str(batch), "--data", str(root)]
    words += ["--precision", settings.precision, "--workers", str(workers)]
    found = json.loads(_python(__file__, *words))
    name = "float32" if variant == "plain" else hardware.arithmetic_name(settings.precision)
    case = {"variant": variant, "size": settings.image_size, "batch": batch, "arithmetic": name}
    return case | found


def import_seconds(repeats: int = 5) -> Case:
    """Median seconds of importing ksdd_lib, each time in a new process, and the raw ones."""
    found = {}
    for name, code in IMPORTS.items():
        line = f"{code}; print(time.perf_counter() - t)"
        raw = [float(_python("-c", line)) for _ in range(repeats)]
        found[name] = {"seconds": raw, "median": statistics.median(raw)}
    return found


def _python(*words: str) -> str:
    """The last line that a new Python process prints."""
    line = [sys.executable, *words]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        line, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    return done.stdout.splitlines()[-1]


def loading(root: Path, settings: Settings, rounds: int) -> Case:
    """Seconds to find and to load all images below `root`, which the file cache already holds."""
    samples = find_samples(root)
    work = {
        "find_samples": lambda: find_samples(root),
        "load_surfaces": lambda: load_surfaces(samples, settings.size, settings.annotation),
    }
    measured = measure(work, rounds, torch.device("cpu"))
    return {"size": settings.image_size, "images": len(samples)} | measured


def benchmark(options: argparse.Namespace, folder: Path) -> Case:
    """Everything at every size and precision, as it is stored; `folder` is for temporary files."""
    report = {
        "environment": hardware.environment() | {"command": "python benchmarks/speed.py"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "workers_of_plain": options.workers,
        "data": data_name(options.data or "generated"),
        "import": import_seconds(),
        **{name: [] for name in ("memory", "loading", "cases", "throughput")},
    }
    for size in options.sizes:
        root = data_root(options.data, size, folder)
        for precision in options.precision:
            settings = settings_of(size, precision)
            variants = ("plain", "ours") if precision == options.precision[0] else ("ours",)
            for batch, variant in itertools.product(BATCHES, variants):
                found = memory_case(variant, root, batch, settings, options.workers)
                report["memory"].append(found)
        report["loading"].append(loading(root, settings, options.rounds))
        for precision in options.precision:
            timed = timed_cases(root, settings_of(size, precision), options)
            report["cases"] += timed["cases"]
            report["throughput"] += timed["throughput"]
    return report | {"cost_of_size": cost_of_size(report["cases"])}


def timed_cases(root: Path, settings: Settings, options: argparse.Namespace) -> Case:
    """Training step and scoring for each batch, and the throughput where there is a GPU."""
    surfaces = load_surfaces(few(find_samples(root)), settings.size, settings.annotation)
    surfaces = surfaces.to(hardware.device())
    found: Case = {"cases": [], "throughput": []}
    for what, batch in itertools.product(("training step", "scoring"), BATCHES):
        found["cases"].append(timed_case(what, surfaces, batch, settings, options))
        print(what, settings.image_size, batch, found["cases"][-1]["medians"], file=sys.stderr)
    if surfaces.images.is_cuda:
        found["throughput"].append(throughput(surfaces, settings, options.rounds))
    return found


def cost_of_size(cases: Sequence[Case]) -> list[Case]:
    """How many times longer ours takes per image at the first size than at each other one."""
    found = []
    for one, other in itertools.combinations(cases, 2):
        alike = all(one[key] == other[key] for key in ("what", "batch", "arithmetic"))
        if alike and one["size"] != other["size"]:
            ratio = one["medians"]["ours"] / other["medians"]["ours"]
            kept = {key: one[key] for key in ("what", "batch", "arithmetic")}
            found.append(kept | {"sizes": f"{one['size']}/{other['size']}", "ratio": ratio})
    return found


def settings_of(size: str, precision: str = "auto") -> Settings:
    """The preset `cpu` at this size and precision."""
    return resolve({"preset": "cpu", "image_size": size, "precision": precision})


def data_root(data: str | None, size: str, folder: Path) -> Path:
    """The data set that was named, or generated surfaces of this size: 2 items of 8 parts."""
    if data:
        return obtain(data, folder).root
    return synthetic.generate(folder / size, items=2, size=settings_of(size).size)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--memory VARIANT SIZE BATCH` measures one training in this process."""
    precisions = ["auto"]
    if torch.cuda.is_available():
        modern = torch.cuda.is_bf16_supported(including_emulation=False)
        precisions = ["float32", "float16", *(["bfloat16"] if modern else [])]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["1408x512", "704x256"], metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=precisions)
    parser.add_argument("--data", help="folder or zip archive; default: generated surfaces")
    parser.add_argument("--out", type=Path, help="default: assets/results/speed-<machine>.json")
    workers = max(0, min(2, (os.cpu_count() or 1) - 2))
    parser.add_argument("--workers", type=int, default=workers, help="of plain's data loader")
    parser.add_argument("--compile", action="store_true", help="also ours with torch.compile")
    parser.add_argument("--memory", nargs=3, metavar=("VARIANT", "SIZE", "BATCH"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    options = parse(words)
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            variant, size, batch = options.memory
            root = data_root(options.data, size, Path(folder))
            settings = settings_of(size, options.precision[0])
            print(json.dumps(memory_here(variant, root, int(batch), settings, options.workers)))
            return
        report = benchmark(options, Path(folder))
    storage.write_json(options.out or ROOT / f"assets/results/speed-{hardware.slug()}.json", report)
    print(speed_report(report))


if __name__ == "__main__":
    main()
