"""Kill a training again and again, and see whether anything is lost.

    python tests/kills.py --kills 50 --seed 0 --out assets/results/kills.json

A child process trains both stages of a tiny series and copies each checkpoint to a folder that
stands for Drive. It is killed with SIGKILL: anywhere, inside the write of a checkpoint (half
written, written but not yet named, named but without its marker), or inside a copy to Drive.
Sometimes its disk is lost too, and only Drive is left. Then it is started again. A series that
finishes is compared, bit for bit, with one that nobody killed, and the next begins.
"""

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_training import TINY, tiny_data

from ksdd_lib import storage
from ksdd_lib.drive import background, layout, markers, recovery
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.hardware import environment
from ksdd_lib.methods.stage_training import load_stage, train_stage
from ksdd_lib.models import two_stage
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.run import Run
from ksdd_lib.training.loop import read_history

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("segmentation", "decision")
FEATURES = 16
"""Channels of the 15x15 layer instead of 1024, so that a child trains for a second or two."""

SETTINGS = TINY | {
    "precision": "bfloat16",
    "segmentation_steps": 24,
    "decision_steps": 24,
    "checkpoint_steps": 2,
    "weight_averaging": True,
    "copy_paste": 0.5,
    "flips": True,
}
CHECKPOINT = re.compile(r"\.?(segmentation|decision)-\d{6}\.(pt|json)")


@dataclass(frozen=True)
class Kill:
    """One kill to come.

    Attributes:
        kind: "anywhere", "checkpoint" or "drive".
        when: seconds after the start of training ("anywhere"), or the number of the file operation.
        disk_is_lost: whether only Drive is left after it.
    """

    kind: str
    when: float
    disk_is_lost: bool


def plan(kills: int, seed: int) -> list[Kill]:
    """Kills drawn with a seed; the first three are one of each kind, the third loses the disk."""
    draw, planned = random.Random(seed), []
    for number in range(kills):
        kind = ("anywhere", "checkpoint", "drive")[number % 3 if number < 3 else draw.randrange(3)]
        when = draw.uniform(0, 1.5) if kind == "anywhere" else float(draw.randint(1, 24))
        planned.append(Kill(kind, when, number == 2 or draw.random() < 0.25))
    return planned


# The child


def train(home: Path, drive: Path, data_folder: Path, log: Path, kill: Kill | None) -> None:
    """Train both stages of fold 0, or go on with them, as the notebooks do on one machine."""
    os.environ["KSDD_HOME"] = str(home)
    torch.set_num_threads(1)  # the threads decide the order of sums, and so the last bits
    two_stage.FEATURES = FEATURES
    background.EVERY = 0
    handle = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    if kill:
        _arm(kill, drive if kill.kind == "drive" else home, handle)
    recovery.restore(home, drive)
    run, data = open_run(home / "runs" / "tiny", SETTINGS), tiny_data(data_folder)

    def watch(progress: Any) -> None:
        os.write(handle, f"step {progress.stage} {progress.step}\n".encode())

    with BackgroundCopy(run, drive) as copies:
        os.write(handle, b"began\n")
        train_stage(run, data, 0, "segmentation", watch, copies.start_if_due)
        train_stage(run, data, 0, "decision", watch, copies.start_if_due)


def _arm(kill: Kill, place: Path, log: int) -> None:
    """Let this process die at the n-th file operation of `storage` below `place`."""
    if kill.kind == "anywhere":
        return
    fsync, replace, left = os.fsync, os.replace, [int(kill.when)]

    def count(path: Path, what: str, before: Any = lambda: None) -> None:
        is_ours = path.is_relative_to(place) and (
            kill.kind == "drive" or CHECKPOINT.match(path.name)
        )
        left[0] -= bool(is_ours)
        if is_ours and left[0] == 0:
            before()
            os.write(log, f"died {what}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def armed_fsync(handle: int) -> None:
        def halve() -> None:
            os.ftruncate(handle, os.fstat(handle).st_size // 2)

        count(Path(os.readlink(f"/proc/self/fd/{handle}")), "half written", halve)
        fsync(handle)

    def armed_replace(source: Any, target: Any) -> None:
        count(Path(target), "written, not yet named")
        replace(source, target)
        count(Path(target), "named")

    os.fsync, os.replace = armed_fsync, armed_replace


# The parent


class Series:
    """One training, killed now and then, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.drive, self.data = (folder / name for name in ("home", "Drive", "data"))
        self.log = folder / "log.txt"
        self.drive.mkdir(parents=True)
        self.log.touch()
        self.seen: set[str] = set()

    def live(self, kill: Kill | None = None) -> bool:
        """Start the child and let it die; True where it finished."""
        began = len(self.lines())
        command = [sys.executable, str(Path(__file__)), "--child", str(self.home)]
        command += [str(self.drive), str(self.data), str(self.log)]
        if kill:
            command += [kill.kind, str(kill.when)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kill and kill.kind == "anywhere":
            while process.poll() is None and "began" not in self.lines()[began:]:
                time.sleep(0.02)
            time.sleep(kill.when)
            process.kill()
        _, errors = process.communicate()
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"The child failed: {errors.decode()}")
        return process.returncode == 0

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def repeated(self) -> int:
        """How many steps the last life took again."""
        *before, last = "\n".join(self.lines()).split("began")
        lives = [set(re.findall(r"step (\w+ \d+)", life)) for life in (*before, last)]
        return len(lives[-1] & set().union(*lives[:-1]))

    def leftovers(self) -> list[str]:
        """Temporary files here and on Drive, and files there that no marker names."""
        there = markers.walk(self.drive)
        records = markers.read_markers(there)
        whole = {path.with_name(record.file) for path in records for record in records[path]}
        allowed = whole | {path for path in there if path.suffix == ".ok"}
        left = {path for path in there if path not in allowed and path.name != layout.LAST_COPY}
        return sorted(path.name for path in left | set(self.home.rglob("*.tmp")))

    def result(self) -> dict[str, Any]:
        """The hash of each stage's last checkpoint, and its history without the time."""
        run, data = Run(self.home / "runs" / "tiny", _settings()), tiny_data(self.data)
        rows = {s: read_history(run.fold_folder(0) / f"{s}.jsonl") for s in STAGES}
        return {
            stage: (
                load_stage(run, data, 0, stage).sha256,
                [(row["step"], row["loss"], row["lr"]) for row in rows[stage]],
            )
            for stage in STAGES
        }


def _settings() -> Any:
    from ksdd_lib.presets import resolve

    return resolve(SETTINGS)


def _lives(kills: list[Kill], folder: Path) -> Iterator[tuple[Series, Kill | None, bool]]:
    """(series, what killed it, whether it finished) of each life, until all kills are done."""
    left, number = list(kills), 0
    while left or number == 0:
        series, finished = Series(folder / f"series{number}"), False
        number += 1
        while not finished:
            kill = left[0] if left else None
            finished = series.live(kill)
            if not finished:
                left.pop(0)
                if kill.disk_is_lost:
                    shutil.rmtree(series.home, ignore_errors=True)
            yield series, kill, finished


def harness(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill, compare, and count.

    Args:
        folder: an empty folder to work in.

    Returns:
        What was done and found; "equal" tells whether every series ended as the one left alone.
    """
    alone = Series(folder / "alone")
    if not alone.live():
        raise RuntimeError("The series that nobody kills did not finish.")
    expected, equal, leftovers = alone.result(), [], []
    where: Counter[str] = Counter()
    repeated, lost = [], 0
    for series, kill, finished in _lives(plan(kills, seed), folder):
        if series.lines().count("began"):
            repeated.append(series.repeated())
        if finished:
            equal.append(series.result() == expected)
            leftovers += series.leftovers()
            continue
        died = [line.removeprefix("died ") for line in series.lines() if line.startswith("died")]
        where[kill.kind if kill.kind == "anywhere" else f"{kill.kind}: {died[-1]}"] += 1
        lost += kill.disk_is_lost
    return {
        "kills": sum(where.values()),
        "seed": seed,
        "where": dict(sorted(where.items())),
        "lost_disks": lost,
        "series": len(equal),
        "steps_of_a_series": SETTINGS["segmentation_steps"] + SETTINGS["decision_steps"],
        "checkpoint_every": SETTINGS["checkpoint_steps"],
        "steps_repeated": sum(repeated),
        "most_repeated_after_a_kill": max(repeated),
        "equal": all(equal),
        "leftovers": leftovers,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        home, drive, data, log, *rest = asked.child
        kill = Kill(rest[0], float(rest[1]), False) if rest else None
        train(Path(home), Path(drive), Path(data), Path(log), kill)
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = harness(asked.kills, asked.seed, Path(folder))
    found |= {"minutes": round((time.monotonic() - began) / 60, 1)}
    facts = environment(SETTINGS["precision"])
    found |= {name: facts[name] for name in ("commit", "python", "torch", "cpu", "arithmetic")}
    found |= {"system": platform.system(), "features": FEATURES}
    print(json.dumps(found, indent=1))
    if asked.out:
        storage.write_json(asked.out, found)
    return 0 if found["equal"] and not found["leftovers"] else 1


if __name__ == "__main__":
    sys.exit(main())
