"""Too little memory is one sentence that names what fits, and costs no step that was saved."""

import re
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ksdd_lib.image_size import parse_size
from ksdd_lib.training import memory

TESTS = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")

MEASURED = {
    ("128x128", "float32"): 815,
    ("352x128", "float32"): 890,
    ("704x256", "float32"): 2095,
    ("1024x384", "float32"): 2241,
    ("1408x512", "float32"): 3284,
    ("128x128", "bfloat16"): 780,
    ("352x128", "bfloat16"): 819,
    ("704x256", "bfloat16"): 1286,
    ("1024x384", "bfloat16"): 1340,
    ("1408x512", "bfloat16"): 1894,
}
"""MB that new processes took at most for three steps with AdamW and an average, torch 2.15, on two
cores of an AMD EPYC."""


@pytest.mark.parametrize(("size", "arithmetic"), MEASURED)
def test_the_estimate_is_near_what_was_measured(size: str, arithmetic: str):
    estimate = memory.step_megabytes(parse_size(size), arithmetic, CPU)
    assert estimate == pytest.approx(MEASURED[size, arithmetic], rel=0.25)


def test_on_a_gpu_no_spectra_are_counted():
    size = (704, 256)
    on_gpu = memory.step_megabytes(size, "float16", torch.device("cuda"))
    assert on_gpu < memory.step_megabytes(size, "bfloat16", CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
@pytest.mark.fault(17)
def test_whoever_runs_out_of_memory_it_is_one_sentence_with_the_sizes_that_fit(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "free_megabytes", lambda where: 2600.0)

    def fail(run: Run) -> None:
        raise error

    with pytest.raises(memory.TrainingError) as told:
        memory.explain_memory(fail)(Run("1408x512"))
    fitting = re.findall(r"(\d+x\d+) \(", str(told.value))
    assert fitting == ["1024x384", "704x256", "352x128"]
    assert "2.6 GB are free" in str(told.value) and "checkpoint is intact" in str(told.value)


def test_the_failed_step_gives_its_memory_back_with_the_sentence():
    kept = []

    def fail(run: Run) -> None:
        activations = torch.zeros(1000)
        kept.append(weakref.ref(activations))
        raise MemoryError

    with pytest.raises(memory.TrainingError):
        memory.explain_memory(fail)(Run("704x256"))
    assert kept[0]() is None


def test_what_pytorch_keeps_of_a_gpu_for_itself_is_free_to_be_used_again(
    monkeypatch: pytest.MonkeyPatch,
):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100e6, 15800e6))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 15000e6)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2000e6)
    assert memory.free_megabytes(gpu) == 13100


@pytest.mark.parametrize(
    ("limit", "expected"), [("2000000000\n", 1300.0), ("max\n", None), ("500000000\n", 0.0)]
)
def test_a_container_has_what_its_limit_leaves_and_its_cached_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: float | None
):
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory._contained() is None, "in none"
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1000000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000000\nfile 300000000\n")
    assert memory._contained() == expected
    machine = SimpleNamespace(available=64000e6)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "_limited", lambda: None)
    assert memory.free_megabytes(CPU) == (64000.0 if expected is None else expected)


def test_another_error_stays_what_it_is():
    def fail(run: Run) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        memory.explain_memory(fail)(Run("704x256"))


class Run:
    """What `explain_memory` reads of a run."""

    def __init__(self, image_size: str) -> None:
        from ksdd_lib.presets import resolve

        self.settings = resolve({"image_size": image_size, "precision": "float32"})


COMMON = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from tiny_training import tiny_data, tiny_run
from ksdd_lib.models import two_stage
from ksdd_lib.errors import TrainingError
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.training.loop import read_history

torch.set_num_threads(1)
two_stage.FEATURES = 64
data = tiny_data(Path({folder!r}) / "data")
settings = dict(segmentation_steps=3, checkpoint_steps=1, precision="float32")
run = tiny_run(Path({folder!r}) / "run", image_size="704x256", **settings)
"""

BEGIN = """
def stop():
    raise KeyboardInterrupt

try:
    train_stage(run, data, 0, "segmentation", saved=stop)
except KeyboardInterrupt:
    print("saved after a step")
"""

GO_ON = """
small = tiny_run(Path({folder!r}) / "small", **settings)
assert train_stage(small, data, 0, "segmentation")  # what a process takes once, it has taken now
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 60 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    train_stage(run, data, 0, "segmentation")
    message = "trained"
except TrainingError as error:
    message = str(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(message)
assert train_stage(run, data, 0, "segmentation")
print([row["step"] for row in read_history(run.fold_folder(0) / "segmentation.jsonl")])
"""


@pytest.mark.slow
@pytest.mark.fault(17)
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_that_may_take_no_more_says_so_and_goes_on_later(tmp_path: Path):
    """The limit is real: the process may take 60 MB more, and a step wants hundreds.

    The first step is another process's: what it took, its process would keep for the next.
    """

    def output(program: str) -> str:
        text = (COMMON + program).format(tests=str(TESTS), folder=str(tmp_path))
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert output(BEGIN) == "saved after a step"
    message, steps = output(GO_ON).splitlines()
    assert steps == "[1, 2, 3]"
    assert message.startswith("The memory is too small for a training step at 704x256 in float32")
    assert "The last checkpoint is intact." in message
