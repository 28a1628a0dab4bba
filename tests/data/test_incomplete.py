"""Pictures without a usable label stop a training, or are left out and named: the user decides."""

from pathlib import Path

import pytest

from ksdd_lib.data.data_report import format_report, inspect_data, obstacles
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import survey
from ksdd_lib.errors import DataError
from ksdd_lib.presets import resolve
from ksdd_lib.runs.prepare import open_data, prepare_data
from ksdd_lib.runs.run import Run


@pytest.fixture
def broken_root(tiny_root: Path) -> Path:
    (tiny_root / "tiny01" / "Part0_label.bmp").unlink()
    (tiny_root / "tiny02" / "Part2.jpg").write_bytes(b"no picture")
    return tiny_root


def run_in(folder: Path, root: Path, **chosen: str) -> Run:
    from ksdd_lib.runs import open as runs

    return runs.create(resolve({"preset": "cpu", "data": str(root), **chosen}), folder)


def test_by_default_nothing_is_trained_without_them(broken_root: Path, tmp_path: Path):
    with pytest.raises(DataError, match="2 of the images cannot be used.*or set incomplete to"):
        prepare_data(run_in(tmp_path / "run", broken_root))


def test_they_are_left_out_where_one_says_so(broken_root: Path, tmp_path: Path):
    run = run_in(tmp_path / "run", broken_root, incomplete="leave_out")
    data = prepare_data(run)
    names = {sample.name for sample in data.samples}
    assert len(names) == 22 and not {"tiny01/Part0", "tiny02/Part2"} & names
    assert sum(len(fold.test) for fold in data.folds) == 22
    assert {one.name for one in data.record.report.unreadable} == {"tiny01/Part0", "tiny02/Part2"}
    again = open_data(run)
    assert again.samples == data.samples and again.folds == data.folds


def test_the_report_names_them_and_goes_on(broken_root: Path):
    settings = resolve({"preset": "cpu", "incomplete": "leave_out"})
    report = inspect_data(survey(broken_root), DataFolder(broken_root, "tiny"), settings)
    assert obstacles(report) == []
    text = format_report(report)
    assert "unreadable: left out" in text and "tiny01/Part0.jpg has no mask" in text
