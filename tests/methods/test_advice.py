"""The report says where a training shows its defective pictures too rarely."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_data import data_record

from ksdd_lib import pipeline
from ksdd_lib.__main__ import main
from ksdd_lib.data.data_report import (
    DataReport,
    DefectWidths,
    FoldCounts,
    HeldOutCounts,
    Refusal,
    SplitCounts,
    inspect_data,
)
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import survey
from ksdd_lib.methods.stage_training import advised
from ksdd_lib.presets import resolve
from ksdd_lib.runs.open import open_run


def report_of(*defective: int, protocol: str = "clean") -> DataReport:
    """Of data whose folds are trained on so many defective images each."""
    tested = {name: 0 for name in HeldOutCounts.model_fields}
    rows = tuple(
        FoldCounts(**tested | {"fold": n, "train_images": 900, "train_defective": count})
        for n, count in enumerate(defective)
    )
    split = SplitCounts(folds=rows, total=HeldOutCounts(**tested))
    return data_record().report.model_copy(
        update={"advice": ("An older line.",), "folds": {protocol: split}}
    )


def told(report: DataReport, preset: str = "cpu", **chosen: Any) -> list[str]:
    first, *lines = advised(report, resolve({"preset": preset} | chosen)).advice
    assert first == "An older line."
    return lines


def test_the_sentence_has_the_numbers_and_the_steps_that_are_enough() -> None:
    sentence = (
        "400 segmentation steps show each of the 235 defective pictures 1.7 times. The preset cpu "
        "shows KolektorSDD's 12 times: segmentation_steps 2800 shows yours as often."
    )
    assert told(report_of(235, 234, 235)) == [sentence]
    assert told(report_of(235, 234, 235), segmentation_steps=2800) == []


@pytest.mark.parametrize(
    ("counts", "chosen", "lines"),
    [
        ((33, 33, 32), {}, []),  # KolektorSDD
        ((100, 100, 100), {}, []),  # 4 times
        ((101, 100, 100), {}, ["each of the 101 defective pictures 4.0 times"]),
        ((101, 100, 100), {"fold": "1"}, []),
        ((235, 234, 235), {"defective_images": 33}, []),
        ((235, 234, 235), {"defective_images": 999}, ["each of the 235 "]),
        ((235,), {"segmentation_batch_size": 8}, []),
        ((235,), {"segmentation_batch_size": 1}, ["0.9 times", "segmentation_steps 5700 "]),
        ((33, 33, 32), {"segmentation_steps": 100}, ["3.0 times", "segmentation_steps 400 "]),
        ((33, 33, 32), {"decision_steps": 20}, ["20 decision steps", "decision_steps 200 "]),
        ((2000,), {"preset": "paper"}, ["6600 segmentation", "6600 decision"]),
        ((235,), {"method": "local_contrast"}, []),
        ((0, 0, 0), {}, []),
        ((235,), {"folds": "published"}, []),  # the report has no such folds
    ],
)
def test_it_is_told_only_where_they_are_shown_rarely(
    counts: tuple[int, ...], chosen: dict[str, Any], lines: list[str]
) -> None:
    found = " ".join(told(report_of(*counts), **chosen))
    assert all(words in found for words in lines) and bool(found) == bool(lines)


def test_the_folds_of_the_settings_count_and_data_without_folds_is_left_alone() -> None:
    published = report_of(235, protocol="published")
    assert len(told(published, folds="published")) == 1 and told(published) == []
    without = report_of(235)
    for folds in (None, {"clean": Refusal(refused="too few")}):
        assert told(without.model_copy(update={"folds": folds})) == []


@pytest.mark.parametrize(
    ("share", "chosen", "is_told"),
    [
        (0.0144, {}, False),  # KolektorSDD's largest
        (0.03, {}, False),
        (0.031, {}, True),
        (0.31, {"preset": "paper"}, True),
        (0.31, {"mask_norm": False}, False),
        (0.31, {"method": "darkest_pixel"}, False),
    ],
)
def test_large_defects_ask_for_a_mask_without_normalisation(
    share: float, chosen: dict[str, Any], is_told: bool
) -> None:
    widths = DefectWidths(image_size="704x256", pixels=(2, 90), share=share)
    report = report_of(33).model_copy(update={"defect_widths": widths})
    lines = told(report, **chosen)
    assert len(lines) == is_told and all(f"than {share:.0%} of" in line for line in lines)


@pytest.mark.parametrize(
    ("chosen", "is_told"),
    [
        ({"labels": "none"}, True),
        ({"masks": "5"}, True),
        ({"drawn": 0.5}, True),
        ({}, False),
        ({"labels": "none", "drawn_length": "12 to 128"}, False),
        ({"labels": "none", "image_size": "704x256"}, False),
        ({"labels": "none", "method": "local_contrast"}, False),
    ],
)
def test_what_is_drawn_longer_than_the_picture_is_told(
    chosen: dict[str, Any], is_told: bool
) -> None:
    lines = told(report_of(33), **{"image_size": "192x128"} | chosen)
    assert len(lines) == is_told
    assert all("up to 200 pixels long, and the network's input is 128 wide" in x for x in lines)


def test_the_share_is_that_of_the_largest_tenth(tmp_path: Path) -> None:
    for number in range(12):
        mask = np.zeros((128, 128), np.uint8)
        mask[: 4 if number < 9 else 64] = 255 if number < 10 else 0
        for name, pixels in (("", np.full_like(mask, 90) + number), ("_label", mask)):
            path = tmp_path / f"part{number}" / f"a{name}.{'bmp' if name else 'jpg'}"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), pixels)
    settings = resolve({"preset": "cpu", "image_size": "128x128"})
    report = inspect_data(survey(tmp_path), DataFolder(tmp_path, "x"), settings)
    assert report.defect_widths and report.defect_widths.share == 0.5


def test_the_commands_tell_it(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    words = "7 segmentation steps show each of the 4 defective pictures 1.8 times"
    few = ["inspect", "--data", str(tiny_root), "--set", "segmentation_steps=7"]
    assert main(few) == 0 and words in capsys.readouterr().out
    assert main([*few, "--json"]) == 0
    assert words in json.loads(capsys.readouterr().out)["advice"][-1]
    assert main(few[:3]) == 0 and "steps show" not in capsys.readouterr().out
    monkeypatch.setattr(pipeline, "train", lambda *_: exit(3))
    run = open_run(tmp_path / "run", {"data": str(tiny_root), "segmentation_steps": 7})
    with pytest.raises(SystemExit):
        pipeline.run_series(run)
    assert "The preset cpu shows KolektorSDD's 12 times" in capsys.readouterr().out
