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
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import ksdd_lib
from ksdd_lib.errors import SettingsError

HERE = Path(__file__).resolve().parent

TRIM_THRESHOLD, MMAP_MAX = -1, -4
REUSING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
RETURNING = {MMAP_MAX: 65536, TRIM_THRESHOLD: 64 * 2**20}
"""Options of glibc's `mallopt`, and what they are otherwise, once large blocks have been freed."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def in_colab() -> bool:
    """Whether this is a Google Colab machine."""
    return "COLAB_RELEASE_TAG" in os.environ


def device() -> torch.device:
    """The first GPU, or the CPU where there is none; float32 is float32 there from then on."""
    torch.backends.cudnn.allow_tf32 = False  # 10 bits instead of 23 on newer GPUs: scores would tie
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arithmetic(precision: str, where: torch.device) -> torch.dtype:
    """The type in which the convolutions compute; weights and statistics stay in float32.

    Args:
        precision: "auto" takes bfloat16 where it is in hardware (GPUs from compute capability 8.0,
            CPUs with AMX or AVX512-BF16), float16 on older GPUs such as the T4, else float32.

    Raises:
        SettingsError: float16 on a CPU, where gradients would underflow.
    """
    if precision == "float16" and where.type == "cpu":
        raise SettingsError("precision float16 needs a GPU; take auto, bfloat16 or float32.")
    if precision != "auto":
        return DTYPES[precision]
    if where.type == "cuda":
        modern = torch.cuda.get_device_capability(where) >= (8, 0)
        return torch.bfloat16 if modern else torch.float16
    return torch.bfloat16 if _cpu_flags() & {"amx_bf16", "avx512_bf16"} else torch.float32


def arithmetic_name(precision: str) -> str:
    """`arithmetic` on this machine, as "float32", "bfloat16" or "float16"."""
    return str(arithmetic(precision, device())).removeprefix("torch.")


def slug() -> str:
    """This machine in a file's name: its GPU, or its CPU and number of cores."""
    made = environment()
    name = f"{made['cpu']} {made['cpu_cores']} cores" if made["gpu"] == "none" else made["gpu"]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def reused_memory(where: torch.device) -> Iterator[None]:
    """Within, on a CPU, memory that is freed stays with the process for the next step's tensors.

    glibc else hands every large tensor back, and the kernel clears its pages anew: in float32 a
    fifth of a training step. The price is memory: at 1408x512 about 1 GB more. At the end all of it
    is handed back. With another C library nothing changes.
    """
    libc = _glibc() if where.type == "cpu" else None
    if libc is None:
        try:
            yield
        finally:
            if where.type == "cuda":  # what this notebook's kernel keeps, the next one's lacks
                torch.cuda.empty_cache()
        return
    for option, value in REUSING.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in RETURNING.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def preflight(folder: Path, drive: str) -> str:
    """One line on this machine, to read before a training and to paste into a bug report.

    Args:
        folder: where results will go; how much room is left there.
        drive: what is known of Drive, in a few words.
    """
    facts = environment()
    hardware = f"{facts['cpu_cores']} cores of {facts['cpu']}"
    if facts["gpu"] != "none":
        total = torch.cuda.get_device_properties(device()).total_memory
        hardware = f"{facts['gpu']} with {total / 1e9:.0f} GB"
    place = next(place for place in (folder, *folder.parents) if place.exists())
    parts = [
        f"Python {facts['python']}",
        f"torch {facts['torch']}",
        f"{hardware} ({facts['arithmetic']})",
        f"{_ram():.0f} GB of memory",
        f"{shutil.disk_usage(place).free / 1e9:.0f} GB of disk free",
        drive,
        f"ksdd_lib {facts['ksdd_lib']}"
        + (", " if facts["commit"].startswith("files") else " at ")
        + facts["commit"],
    ]
    return ", ".join(parts)


def replaced_packages() -> list[str]:
    """Packages of which another version was installed after this kernel had loaded them."""
    lines = []
    for name in ("numpy", "torch", "scipy", "matplotlib", "ipywidgets"):
        if name not in sys.modules:
            continue
        loaded = sys.modules[name].__version__.split("+")[0]
        installed = version(name).split("+")[0]
        if loaded != installed:
            lines.append(f"{name} {loaded} is loaded, {installed} is installed")
    return lines


def _ram() -> float:
    """This machine's memory in GB, as far as it says; 0 where it does not."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return 0.0


def environment(precision: str = "auto") -> dict[str, Any]:
    """Versions and hardware, as stored beside a result; `precision` is that of the settings."""
    where = device()
    gpu = torch.cuda.get_device_name(where) if where.type == "cuda" else "none"
    return {
        "ksdd_lib": ksdd_lib.__version__,
        "commit": COMMIT,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "arithmetic": arithmetic_name(precision),
        "command": os.environ.get("KSDD_COMMAND", "the notebooks"),
    }


def _commit() -> str:
    """The checkout's commit, "+" behind it where files differ; else a fingerprint of the files."""
    if not (HERE.parent / ".git").exists():
        return _fingerprint()
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return _fingerprint()
    return found.stdout.strip() or _fingerprint()


def _fingerprint() -> str:
    """ "files 3f2a...", equal for two copies of the package that are equal, without a checkout."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.suffix in (".py", ".html", ".json"):
            digest.update(f"{path.relative_to(HERE).as_posix()}\n".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return f"files {digest.hexdigest()[:12]}"


COMMIT = _commit()
"""Of the code as it was loaded; what the checkout holds when a training ends may be another one."""


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    match = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or "unknown"
