"""The commands of the README, as a user types them."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import executed
import moving_picture
import numpy as np
import pytest
import torch

from ksdd_lib.__main__ import main
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.methods import stage_training
from ksdd_lib.notebook import controls
from ksdd_lib.runs import open as runs
from ksdd_lib.runs import prepare
from ksdd_lib.runs.open import open_run
from ksdd_lib.training import loop

ROOT = Path(__file__).resolve().parents[2]
FEW = [f"--set={stage}_steps=2" for stage in ("segmentation", "decision")]


def command(*words: str | Path, home: Path) -> subprocess.CompletedProcess:
    """`python -m ksdd_lib` in a process of its own, with data and runs below `home`."""
    environment = os.environ | {"KSDD_HOME": str(home)}
    line = [sys.executable, "-m", "ksdd_lib", *map(str, words)]
    return subprocess.run(line, cwd=home, env=environment, capture_output=True, text=True)


def stored_text(folder: Path) -> str:
    """All text that a run folder holds."""
    kinds = (".json", ".jsonl", ".csv", ".html", ".ipynb")
    files = [path for path in folder.rglob("*") if path.suffix in kinds]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


class TestWhatTheUserDoesWrong:
    """One clear sentence, the exit status 2, and nothing begun."""

    @pytest.fixture
    def said(self, tmp_path, monkeypatch, capsys):
        def run(*words: str) -> str:
            monkeypatch.setenv("KSDD_HOME", str(tmp_path))
            assert main(words) == 2
            assert not (tmp_path / "out").exists()
            return capsys.readouterr().err

        return run

    def test_a_setting_out_of_range(self, said, tmp_path):
        out = str(tmp_path / "out")
        text = said("run", "--data", "generated", "--out", out, "--set", "fold=7")
        told = "error: fold is '7'; it must be one of all, 0, 1, 2."
        assert text == f"{told} See docs/protocols.md#fold.\n"

    def test_a_misspelt_setting(self, said, tmp_path):
        out = str(tmp_path / "out")
        text = said("run", "--data", "generated", "--out", out, "--set", "segmentation_step=7")
        assert "no setting 'segmentation_step': did you mean segmentation_steps?" in text

    def test_a_model_of_a_run_that_is_not_there(self, said, tmp_path):
        text = said("publish", str(tmp_path / "out"), str(tmp_path / "model.safetensors"))
        assert text.startswith("error: There is no run in ") and "settings.json" not in text
        assert not (tmp_path / "runs").exists()

    def test_an_unknown_environment_name(self, said, tmp_path, monkeypatch):
        monkeypatch.setenv("KSDD_SEEED", "1")
        text = said("demo", "--out", str(tmp_path / "out"))
        assert "KSDD_SEEED is no setting" in text

    def test_data_that_is_not_there(self, said, tmp_path):
        text = said("inspect", "--data", str(tmp_path / "absent.zip"))
        assert "absent.zip" in text

    @pytest.mark.fault(30)
    def test_weights_that_are_not_there(self, said, tmp_path):
        assert "mine.safetensors" in said("judge", str(tmp_path), "--weights=mine.safetensors")

    def test_a_run_or_a_checkpoint_given_as_weights(self, said, tmp_path):
        (tmp_path / "decision-000250.pt").write_bytes(b"x")
        for name in (tmp_path, tmp_path / "decision-000250.pt"):
            text = said("judge", str(tmp_path), "--weights", str(name))
            assert "write its model as one file first, with `publish RUN" in text

    def test_a_table_is_never_written_over_a_file(self, said, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        text = said("judge", str(tmp_path), "--out", str(tmp_path / "notes.txt"))
        assert "is there already: name another file" in text
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_places_where_nothing_can_be_written(self, said, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        text = said("judge", str(tmp_path), "--out", str(tmp_path / "notes.txt" / "table.csv"))
        assert text.startswith("error: Nothing can be written in ") and "notes.txt" in text
        text = said("run", "--data", "generated", "--out", str(tmp_path / "notes.txt"))
        assert text.startswith("error: ") and "notes.txt" in text and text.count("\n") == 1
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_folder_with_settings_of_something_else(self, said, tmp_path):
        mine = tmp_path / "mine" / "settings.json"
        mine.parent.mkdir()
        mine.write_text('{"mine": 1}')
        text = said("run", "--data", "generated", "--out", str(mine.parent))
        assert "The settings.json in mine is not that of a run" in text
        assert mine.read_text() == '{"mine": 1}'

    def test_settings_are_checked_before_an_earlier_attempt_is_forgotten(self, said, tmp_path):
        first = open_run(tmp_path / "first", {"preset": "demo"}).folder
        said("run", "--data", "generated", "--out", str(first), "--set", "image_size=125x50")
        assert (first / "settings.json").exists()

    def test_a_notebook_that_leads_elsewhere(self, said, tmp_path, monkeypatch):
        shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
        book = tmp_path / "notebooks" / "04_evaluate.ipynb"
        stored = json.loads(book.read_text())
        stored["cells"][2]["source"] = ["%env KSDD_RUN=/elsewhere\n"]
        book.write_text(json.dumps(stored))
        (tmp_path / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "run_notebooks.py", tmp_path / "tools")
        monkeypatch.setattr(runs, "CHECKOUT", tmp_path)
        text = said("demo", "--out", str(tmp_path / "out"))
        assert "notebooks/04_evaluate.ipynb holds a cell with %env KSDD_" in text

    def test_no_notebooks_beside_the_package(self, said, tmp_path, monkeypatch):
        checkout = tmp_path / "checkout"
        monkeypatch.setattr(runs, "CHECKOUT", checkout)
        sentence = "error: The notebooks are not beside ksdd_lib: run this in a checkout.\n"
        assert said("demo", "--out", str(tmp_path / "out")) == sentence
        (checkout / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "run_notebooks.py", checkout / "tools")
        assert said("demo", "--out", str(tmp_path / "out")) == sentence

    def test_data_on_which_nothing_can_be_learned(self, said, tiny_root):
        for path in tiny_root.rglob("*_label.bmp"):
            cv2.imwrite(str(path), np.full((160, 128), 255, np.uint8))
        text = said("inspect", "--data", str(tiny_root), "--set", "twins=identical")
        assert "Fold 0 has no good surface to train on." in text
        assert "Every label has white in it" in text


def test_inspect_reports_for_people_and_for_machines(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    assert main(["inspect", "--data", str(tiny_root)]) == 0
    said = capsys.readouterr().out
    assert "24 images" in said and "the network sees 704x256 and squeezes them" in said
    assert "official" not in said and "pixels wide at image_size 704x256" in said
    assert main(["inspect", "--data", str(tiny_root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 24
    assert f"next: run --data {tiny_root} --out runs/cpu-" in said
    chosen = ["--set", "drawn_length=30 to 90", "--set", "image_size=128x128"]
    assert main(["inspect", "--data", str(tiny_root), *chosen]) == 0
    last = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert last[-4:] == chosen and last[:4] == ["next:", "run", "--data", str(tiny_root)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["image_size=128x128"],
            r"400 segmentation steps and 250 decision steps a fold\. 3 folds: ",
        ),
        (
            ["image_size=160x128", "fold=1", "decision_steps=40"],
            r"400 .* and 40 .* One fold: about",
        ),
        (["method=darkest_pixel"], r"time: This method needs no training\.$"),
    ],
)
def test_inspect_tells_steps_and_minutes(tiny_root, tmp_path, monkeypatch, capsys, given, told):
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    chosen = [word for one in given for word in ("--set", one)]
    assert main(["inspect", "--data", str(tiny_root), *chosen]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.search(told, said[-2]) and said[-2].startswith("time: ")
    assert "darkest" in given[0] or re.search(r"about [\d.]+ (s|min|h) in all", said[-2])


def test_inspect_reports_where_the_time_cannot_be_measured(
    tiny_root, tmp_path, monkeypatch, capsys
):
    def fails(settings):
        raise RuntimeError("out of memory")

    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    monkeypatch.setattr(controls, "measure_pace", fails)
    assert main(["inspect", "--data", str(tiny_root)]) == 0
    said = capsys.readouterr().out
    assert "400 segmentation steps" in said and "in all" not in said and "GB of memory" in said


@pytest.mark.fault(47)
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
def test_every_letter_can_be_said_whatever_the_terminal_can_show(
    tiny_root, tmp_path, monkeypatch, encoding
):
    said = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in said.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    odd = tiny_root / "Te\u0161t \u00fc\u20ac\U0001f600"
    (tiny_root / "tiny02").rename(odd)
    (tiny_root / os.fsdecode(b"notes\xff.txt")).touch()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(odd / "Part1.jpg", pictures / os.fsdecode(b"crack\xff \xc5\xa1.jpg"))
    shutil.copy(odd / "Part1.jpg", pictures / os.fsdecode(b"crack\xff.tx\xfft"))
    assert main(["options"]) == main(["inspect", "--data", str(tiny_root)]) == 0
    assert main(["inspect", "--json", "--data", str(tiny_root)]) == 0
    assert main(["judge", str(pictures), "--out", str(tmp_path / "\u0161.csv")]) in (0, 1)
    assert main(["inspect", "--data", str(tmp_path / os.fsdecode(b"gone\xff\xc5\xa1"))]) == 2
    assert main(["run", "--data=generated", f"--out={tmp_path}/\udcff"]) == 2
    for stream in said.values():
        stream.flush()
    text = {name: stream.buffer.getvalue().decode(encoding) for name, stream in said.items()}
    assert ("\u0161.jpg: the picture" in text["stdout"]) == (encoding in ("utf-8", "cp1252"))
    assert r"notes\xff.txt" in text["stdout"] and "gone" in text["stderr"]
    assert r"\xff holds letters that are not text: give the run another name" in text["stderr"]


@pytest.mark.slow
@pytest.mark.fault(20)
@pytest.mark.fault(94)
def test_the_demo_finds_generated_cracks_and_leaves_a_report(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    done = command("demo", "--out", out, home=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    wanted = r"demo/report.html: pooled AP (0\.9[5-9]|1\.0)\d* over 96 images, \d+ of 24 missed"
    assert re.match(wanted, last)
    assert "demo/notebooks" in last

    summary = json.loads((out / "metrics.json").read_text())
    assert summary["folds_trained"] == [0, 1, 2]
    assert summary["darkest_pixel"]["ap"] < 0.8 < 0.95 < summary["pooled"]["ap"]
    assert summary["pooled"]["images"] == 96 and summary["pooled"]["defective"] == 24
    assert len(read_predictions(out / "predictions.csv")) == 96
    assert len(list((out / "notebooks").glob("*.ipynb"))) == 5
    assert "GENERATED" in (out / "report.html").read_text()
    assert str(tmp_path) not in stored_text(out)
    assert executed.differences(ROOT, out) == [], "`python tools/executed.py` keeps what it shows"
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    assert len([*moving_picture.frames(out)]) > 25

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = command("demo", "--out", out, home=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "already finished: nothing was changed" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    (out / "report.html").unlink()
    again = command("demo", "--out", out, home=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("was already finished") == 6
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert (out / "report.html") in changed and not [p for p in changed if p.suffix == ".pt"]


@pytest.mark.slow
@pytest.mark.fault(18)
@pytest.mark.fault(20)
def test_a_run_that_the_user_interrupts_goes_on_exactly_and_repeated_changes_nothing(
    tiny_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads decide the last bits
    out = tmp_path / "out"
    words = ["run", "--data", tiny_root, "--out", out, "--preset=demo", "--set=fold=0"]
    words += ["--set=image_size=128x128", "--set=checkpoint_steps=2"]
    words += ["--set=segmentation_steps=30", "--set=decision_steps=4"]
    line = [sys.executable, "-m", "ksdd_lib", *map(str, words)]
    environment = os.environ | {"KSDD_HOME": str(tmp_path)}
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (out / "fold0" / "segmentation-000002.json").exists():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert b"stopped; the same command goes on where this one stopped" in errors
    assert not (out / "owner.json").exists()

    done = command(*words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    stopped = int(re.search(r"segmentation, fold 0 .went on after step (\d+)", done.stdout)[1])
    assert 2 <= stopped < 30
    rows = loop.read_history(out / "fold0" / "segmentation.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 31))

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = command(*words, home=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "threshold: a logit of 0.0, fixed in advance" in again.stdout  # of a single fold
    assert re.search(
        r"(?m)^out/report.html: pooled AP .*; already finished: nothing was chan", again.stdout
    )
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = open_run(
        tmp_path / "alone", asdict(open_run(out, {}).settings) | {"data": str(tiny_root)}
    )
    data = prepare.prepare_data(alone)
    stage_training.train_stage(alone, data, 0, "segmentation")
    stage_training.train_stage(alone, data, 0, "decision")
    torch.set_num_threads(threads)
    for stage in ("segmentation", "decision"):
        runs = alone, open_run(out, {})
        ends = [stage_training.load_stage(run, data, 0, stage).sha256 for run in runs]
        assert ends[0] == ends[1]


@pytest.mark.slow
def test_the_series_runs_on_the_real_data_from_the_zip_to_the_report(kolektor_archive, tmp_path):
    words = ["run", "--data", kolektor_archive, "--out", tmp_path / "real", "--preset", "cpu"]
    words += ["--set=fold=0", "--set=folds=official", "--set=image_size=128x128", *FEW]
    done = command(*words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "LEAK: 48 test images, 8 of them defective, have a twin in training" in done.stdout
    summary = json.loads((tmp_path / "real" / "metrics.json").read_text())
    assert summary["protocol"] == "official"
    assert [fold["images"] for fold in summary["folds"]] == [135]
    assert summary["folds"][0]["threshold"] == 0.0
    assert str(tmp_path) not in stored_text(tmp_path / "real")

    refused = command(*words, "--set=seed=1", home=tmp_path)
    assert refused.returncode == 2
    assert "seed is 0 there, 1 here" in refused.stderr
