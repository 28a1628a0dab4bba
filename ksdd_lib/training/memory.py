"""How much memory a training step needs, and one clear sentence where there is too little."""

import math
import os
import re
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import psutil
import torch

from ksdd_lib import hardware
from ksdd_lib.errors import TrainingError
from ksdd_lib.image_size import parse_size
from ksdd_lib.models.fourier_conv import is_direct
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SIZES = ("1408x512", "1024x384", "704x256", "352x128", "192x128", "128x128")
"""Image sizes to suggest, largest first."""

STATE = 760
"""MB for 15.4 million weights in float32, their gradients, AdamW's two moments and their average,
and for what the process adds. Measured at 128x128, where images count for little."""

SPECTRA = {"float32": 940, "bfloat16": 320, "float16": 320}
"""More MB for the 15x15 layer where it is computed by spectra: on a CPU, unless maps are small."""

PER_PIXEL = {"float32": 2.2e-3, "bfloat16": 1.2e-3, "float16": 1.2e-3}
"""MB for each pixel of the input. A batch is trained image by image and takes no more."""

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux shows a container its limits (control groups, version 2)."""

SIGNS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|bad_alloc|could not create a (memory|"
    r"primitive)|cannot allocate memory|ALLOC_FAILED|ALLOCATION_FAILED",
    re.IGNORECASE,
)
"""What libraries say when memory is full and they raise no MemoryError."""


def step_megabytes(size: tuple[int, int], arithmetic: str, where: torch.device) -> float:
    """About how many MB a training step at `size` (H, W) adds to the process.

    Fitted to the peaks of new processes on two CPU cores, for five sizes from 128x128 to 1408x512
    in float32 and bfloat16, and within 25 % of each. It was not measured on a GPU, where float16
    is taken to cost as much as bfloat16 does here.
    """
    height, width = size
    spectra = 0 if is_direct((height // 8) * (width // 8), where.type) else SPECTRA[arithmetic]
    return STATE + spectra + PER_PIXEL[arithmetic] * height * width


def free_megabytes(where: torch.device) -> float:
    """How many MB this process may still take on its device."""
    if where.type == "cuda":
        kept = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        return (torch.cuda.mem_get_info(where)[0] + kept) / 1e6
    limits = psutil.virtual_memory().available / 1e6, _contained(), _limited()
    return min(limit for limit in limits if limit is not None)


def explain_memory(
    work: Callable[Concatenate[Run, Arguments], Result],
) -> Callable[Concatenate[Run, Arguments], Result]:
    """Decorate a function whose first argument is a run: full memory becomes one clear sentence."""

    @wraps(work)
    def explained(run: Run, *others: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return work(run, *others, **named)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not SIGNS.search(str(error)):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
            told = _sentence(run.settings, hardware.device())
            raise TrainingError(told, see="training#memory") from error

    return explained


def _sentence(settings: Settings, where: torch.device) -> str:
    """What a step needs, what is free, and the sizes that fit or what else may help."""
    arithmetic = hardware.arithmetic_name(settings.precision)
    needed, free = step_megabytes(settings.size, arithmetic, where), free_megabytes(where)
    smaller = [size for size in SIZES if math.prod(parse_size(size)) < math.prod(settings.size)]
    costs = {size: step_megabytes(parse_size(size), arithmetic, where) for size in smaller}
    fitting = [f"{size} ({cost / 1000:.1f} GB)" for size, cost in costs.items() if cost < free]
    advice = "Close what else runs here, or restart the runtime, and run this again."
    if fitting:
        name = "tile_size" if settings.view.tiled else "image_size"
        advice = f"What fits, as {name} of a new run: {', '.join(fitting[:3])}."
    size = "{}x{}".format(*settings.size)
    return (
        f"The memory is too small for a training step at {size} in {arithmetic}, "
        f"which takes about {needed / 1000:.1f} GB, and {free / 1000:.1f} GB are free now. "
        f"{advice} The last checkpoint is intact."
    )


def _contained() -> float | None:
    """MB up to the limit of the container that this runs in, if any; cached files count as free."""
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
        cached = re.search(r"^file (\d+)", (CONTAINER / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no container, or its limit is "max"
        return None
    return max(0.0, (limit - used + (int(cached[1]) if cached else 0)) / 1e6)


def _limited() -> float | None:
    """MB up to this process's own limit of address space, if it has one."""
    if os.name != "posix":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0.0, (limit - psutil.Process().memory_info().vms) / 1e6)
