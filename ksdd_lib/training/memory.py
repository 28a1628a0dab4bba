"""How much memory a training step needs, and one clear sentence where there is too little."""

import os
import re
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch

from ksdd_lib import machine
from ksdd_lib.errors import TrainingError
from ksdd_lib.image_size import parse_size
from ksdd_lib.models.fourier import is_direct

Work = TypeVar("Work", bound=Callable[..., Any])

SIZES = ("1408x512", "1024x384", "704x256", "352x128", "192x128", "128x128")
"""Image sizes to fall back on, largest first."""

STATE = 760
"""MB: weights, gradients, AdamW's two moments and an average of 15.4 million weights in float32,
and what the process adds around them. Measured at 128x128, where images count for little."""

SPECTRA = {"float32": 940, "bfloat16": 320, "float16": 320}
"""MB that the 15x15 layer takes more where it is computed by spectra (a CPU, maps not small)."""

PER_PIXEL = {"float32": 2.2e-3, "bfloat16": 1.2e-3, "float16": 1.2e-3}
"""MB for each pixel of the input. A batch is trained image by image and takes no more."""

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells a container its limits."""

SIGNS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|bad_alloc|could not create a (memory|"
    r"primitive)|cannot allocate memory|ALLOC_FAILED|ALLOCATION_FAILED",
    re.IGNORECASE,
)
"""What libraries say for want of memory, where they raise no error of its own kind."""


def step_megabytes(size: tuple[int, int], arithmetic: str, where: torch.device) -> float:
    """About how many MB a training step of the first stage adds to the process.

    Fitted to the peak of new processes on two CPU cores, five sizes from 128x128 to 1408x512 in
    float32 and bfloat16, and within 25 % of each; not measured on a GPU, where float16 is taken to
    cost as much as bfloat16 here.

    Args:
        size: of the input, (H, W) in pixels.
        arithmetic: "float32", "bfloat16" or "float16".
    """
    height, width = size
    spectra = 0 if is_direct((height // 8) * (width // 8), where.type) else SPECTRA[arithmetic]
    return STATE + spectra + PER_PIXEL[arithmetic] * height * width


def free_megabytes(where: torch.device) -> float | None:
    """How many MB this process may still take on its device; None where nobody can tell."""
    if where.type == "cuda":
        kept = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        return (torch.cuda.mem_get_info(where)[0] + kept) / 1e6
    limits = _available(), _contained(), _limited()
    return min((limit for limit in limits if limit is not None), default=None)


def explain_memory(work: Work) -> Work:
    """Decorate a function whose first argument is a run: full memory becomes one clear sentence."""

    @wraps(work)
    def explained(run: Any, *others: Any, **named: Any) -> Any:
        try:
            return work(run, *others, **named)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not SIGNS.search(str(error)):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
            raise TrainingError(_sentence(run.settings, machine.device())) from error

    return explained


def _sentence(settings: Any, where: torch.device) -> str:
    arithmetic = machine.arithmetic_name(settings.precision)
    needed, free = step_megabytes(settings.size, arithmetic, where), free_megabytes(where)
    room = "" if free is None else f", and {free / 1000:.1f} GB are free now"
    return (
        f"The memory is too small for a training step at {settings.image_size} in {arithmetic}, "
        f"which takes about {needed / 1000:.1f} GB{room}. {_advice(settings, arithmetic, where)} "
        "The last checkpoint is intact."
    )


def _advice(settings: Any, arithmetic: str, where: torch.device) -> str:
    """The sizes that fit, or what else may help."""
    free = free_megabytes(where)
    smaller = [size for size in SIZES if _pixels(size) < _pixels(settings.image_size)]
    costs = {size: step_megabytes(parse_size(size), arithmetic, where) for size in smaller}
    fitting = [size for size, cost in costs.items() if free is None or cost < free]
    if not fitting:
        return "Close what else runs here, or restart the runtime, and run this again."
    listed = ", ".join(f"{size} ({costs[size] / 1000:.1f} GB)" for size in fitting[:3])
    return f"What fits, as image_size of a new run: {listed}."


def _pixels(size: str) -> int:
    height, width = parse_size(size)
    return height * width


def _available() -> float | None:
    """MB that Linux can still give."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) / 1e3 if found else None


def _contained() -> float | None:
    """MB up to the limit of the container (control group, version 2) that this runs in, if any;
    cached files count as free."""
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
        cached = re.search(r"^file (\d+)", (CONTAINER / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # none, or no limit: "max"
        return None
    return max(0.0, (limit - used + (int(cached[1]) if cached else 0)) / 1e6)


def _limited() -> float | None:
    """MB up to this process's own limit of address space, where it has one."""
    if os.name != "posix":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0.0, (limit - pages * resource.getpagesize()) / 1e6)
