"""What this machine can do is said truly."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ksdd_lib
from ksdd_lib import hardware
from ksdd_lib.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[2]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_named_precision_is_taken_at_its_word() -> None:
    assert hardware.arithmetic("float32", CPU) is torch.float32
    assert hardware.arithmetic("bfloat16", CPU) is torch.bfloat16
    assert hardware.arithmetic("float16", GPU) is torch.float16


def test_float16_on_a_cpu_is_refused_with_what_to_take() -> None:
    with pytest.raises(SettingsError, match="auto, bfloat16 or float32"):
        hardware.arithmetic("float16", CPU)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "amx_bf16"}, torch.bfloat16),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"avx2", "avx512f"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_auto_on_a_cpu_takes_bfloat16_only_where_it_is_in_hardware(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: torch.dtype
) -> None:
    monkeypatch.setattr(hardware, "_cpuinfo", lambda field: " ".join(flags))
    assert hardware.arithmetic("auto", CPU) is expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_auto_on_a_gpu_follows_its_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert hardware.arithmetic("auto", GPU) is expected


def test_the_environment_can_be_stored_and_names_no_place() -> None:
    text = json.dumps(hardware.environment())
    assert torch.__version__ in text and "/root" not in text and "/home" not in text


def test_the_line_for_a_bug_report_names_what_matters_and_no_place(tmp_path: Path) -> None:
    line = hardware.preflight(tmp_path / "not" / "there yet", "no Drive")
    for part in (
        "Python 3.",
        f"torch {torch.__version__}",
        " GB of memory",
        " GB of disk free",
        "no Drive",
        "ksdd_lib ",
    ):
        assert part in line
    assert "\n" not in line and str(tmp_path) not in line and str(Path.home()) not in line


def test_without_a_checkout_the_files_of_the_package_say_which_version_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ksdd_lib"
    package.mkdir()
    (package / "model.py").write_text("one = 1\n")
    monkeypatch.setattr(hardware, "HERE", package)
    first = hardware._commit()
    assert re.fullmatch("files [0-9a-f]{12}", first)
    (package / "model.py").write_bytes(b"one = 1\r\n")
    assert hardware._commit() == first, "line ends are no other version"
    (package / "model.py").write_text("one = 2\n")
    assert hardware._commit() != first
    monkeypatch.setattr(hardware, "COMMIT", first)
    assert hardware.environment()["commit"] == first, "of the code that was loaded"
    assert f"ksdd_lib {ksdd_lib.__version__}, {first}" in hardware.preflight(tmp_path, "no Drive")


def test_no_package_of_this_kernel_has_been_replaced() -> None:
    assert hardware.replaced_packages() == []


PEAK = """
import resource, sys, torch
import ksdd_lib
from ksdd_lib import hardware

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with hardware.reused_memory(torch.device(sys.argv[1])):
    for step in range(12):
        if step == 6:
            before = faults()
        [torch.ones(2**24) for _ in range(4)]
    print(faults() - before)
"""


@pytest.mark.slow
def test_memory_once_touched_is_not_cleared_again_while_a_cpu_works():
    """Each page that the kernel gives is a fault; small pages and huge ones differ 512 times."""
    if hardware._glibc() is None:
        pytest.skip("not glibc")
    faults = {
        where: int(subprocess.check_output([sys.executable, "-c", PEAK, where], cwd=REPOSITORY))
        for where in ("cpu", "meta")
    }
    assert 10 * faults["cpu"] < faults["meta"]
