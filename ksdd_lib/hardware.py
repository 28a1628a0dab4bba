"""What this machine can do: its device, the arithmetic that is fast on it, its description."""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch

import ksdd_lib
from ksdd_lib.errors import SettingsError

HERE = Path(__file__).resolve().parent

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Options of glibc's `mallopt`."""


def in_colab() -> bool:
    """Whether this is a Google Colab machine."""
    return "COLAB_RELEASE_TAG" in os.environ


def device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    # On newer GPUs float32 would keep 10 bits of 23, and scores would tie.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arithmetic(precision: str, where: torch.device) -> torch.dtype:
    """The type in which the convolutions compute; weights and statistics stay in float32.

    "auto" takes bfloat16 where it is in hardware (GPUs from compute capability 8.0, CPUs with AMX
    or AVX512-BF16), float16 on older GPUs such as the T4, else float32.
    Raises SettingsError for float16 on a CPU, where gradients would underflow.
    """
    if precision == "float16" and where.type == "cpu":
        raise SettingsError("precision float16 needs a GPU; take auto, bfloat16 or float32.")
    if precision != "auto":
        return getattr(torch, precision)
    if where.type == "cuda":
        is_new = torch.cuda.get_device_capability(where) >= (8, 0)
        return torch.bfloat16 if is_new else torch.float16
    has_bfloat16 = {"amx_bf16", "avx512_bf16"} & set(_cpuinfo("flags").split())
    return torch.bfloat16 if has_bfloat16 else torch.float32


def arithmetic_name(precision: str) -> str:
    """`arithmetic` on this machine, as "float32", "bfloat16" or "float16"."""
    return str(arithmetic(precision, device())).removeprefix("torch.")


def slug() -> str:
    """This machine as part of a file's name: its GPU, or its CPU and number of cores."""
    facts = environment()
    name = f"{facts['cpu']} {facts['cpu_cores']} cores" if facts["gpu"] == "none" else facts["gpu"]
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


@contextmanager
def reused_memory(where: torch.device) -> Iterator[None]:
    """Within, on a CPU, memory that is freed stays with the process for the next step's tensors.

    Otherwise glibc returns every large tensor, and the kernel clears its pages anew: a fifth of a
    training step in float32. It takes about 1 GB more at 1408x512. Only glibc is changed.
    """
    libc = _glibc() if where.type == "cpu" else None
    if libc:
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        if libc:
            libc.mallopt(MMAP_MAX, 65536)  # as they are by default
            libc.mallopt(TRIM_THRESHOLD, 64 * 2**20)
            libc.malloc_trim(0)
        elif where.type == "cuda":  # what this process keeps, the next notebook's lacks
            torch.cuda.empty_cache()


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def preflight(folder: Path, drive: str) -> str:
    """One line on this machine for a bug report, with the room left in `folder` for results."""
    facts = environment()
    hardware = f"{facts['cpu_cores']} cores of {facts['cpu']}"
    if facts["gpu"] != "none":
        total = torch.cuda.get_device_properties(device()).total_memory
        hardware = f"{facts['gpu']} with {total / 1e9:.0f} GB"
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return (
        f"Python {facts['python']}, torch {facts['torch']}, {hardware} ({facts['arithmetic']}), "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB of memory, "
        f"{shutil.disk_usage(place).free / 1e9:.0f} GB of disk free, {drive}, "
        f"ksdd_lib {facts['ksdd_lib']}{', ' if COMMIT.startswith('files') else ' at '}{COMMIT}"
    )


def replaced_packages() -> list[str]:
    """Packages of which this process has loaded another version than is installed now."""
    lines = []
    for name in ("numpy", "torch", "scipy", "matplotlib", "ipywidgets"):
        if name in sys.modules:
            loaded, installed = sys.modules[name].__version__, version(name)
            if loaded.split("+")[0] != installed.split("+")[0]:
                lines.append(f"{name} {loaded} is loaded, {installed} is installed")
    return lines


def environment(precision: str = "auto") -> dict[str, str | int]:
    """Versions and hardware, as stored beside a result; `precision` is that of the settings."""
    where = device()
    return {
        "ksdd_lib": ksdd_lib.__version__,
        "commit": COMMIT,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpuinfo("model name") or platform.processor() or "unknown",
        "cpu_cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(where) if where.type == "cuda" else "none",
        "arithmetic": arithmetic_name(precision),
        "command": os.environ.get("KSDD_COMMAND", "the notebooks"),
    }


def _commit() -> str:
    """The checkout's commit, with a "+" where files differ; elsewhere "files 3f2a..." by hash."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    if (HERE.parent / ".git").exists():
        with suppress(OSError, subprocess.TimeoutExpired):
            run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=10)
            if found := run.stdout.strip():
                return found
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.suffix in (".py", ".html", ".json"):
            digest.update(f"{path.relative_to(HERE).as_posix()}\n".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return f"files {digest.hexdigest()[:12]}"


COMMIT = _commit()
"""The commit of the code as it was loaded. The checkout may hold another one later."""


def _cpuinfo(field: str) -> str:
    """What Linux says of the first core; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    match = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else ""
