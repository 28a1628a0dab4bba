"""The five notebooks follow each other, and what they print reaches the terminal."""

from pathlib import Path

import pytest

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.notebook import executor, outputs, series
from ksdd_lib.presets import resolve
from ksdd_lib.runs.run import Run


def ready(run: Run) -> str:
    """The numbers of the notebooks that can be run."""
    return "".join(name[1] for name in series.NOTEBOOKS if series.is_ready_for(run, name))


def test_a_notebook_is_ready_when_all_before_it_is_finished(tmp_path: Path):
    run = Run(tmp_path, resolve({"preset": "demo", "fold": "0"}))
    found = [ready(run)]
    parts = ("data", "fold0/segmentation.done", "fold0/decision.done", "metrics")
    for part in parts:
        storage.write_json(tmp_path / f"{part}.json", {})
        found.append(ready(run))
    assert found == ["1", "12", "123", "1234", "12345"]


def test_a_method_without_stages_is_ready_to_be_evaluated_at_once(tmp_path: Path):
    run = Run(tmp_path, resolve({"preset": "demo", "method": "darkest_pixel"}))
    storage.write_json(tmp_path / "data.json", {})
    assert ready(run) == "1234"


def test_without_the_notebooks_nothing_is_executed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(series, "CHECKOUT", tmp_path)
    with pytest.raises(RunError, match="run this in a checkout"):
        series.check_notebooks()


def test_a_kernel_s_lines_are_printed_and_its_progress_renewed(capsys, monkeypatch):
    said = {"msg_type": "stream", "content": {"text": "fold 0: trained\n"}}
    renewed = {"msg_type": "update_display_data", "content": {"data": {"text/plain": "step 1"}}}
    widget = {"msg_type": "update_display_data", "content": {"data": {"text/plain": "<VBox>"}}}
    line = outputs.ProgressLine(0.0)
    for message in (renewed, widget, said):
        executor.echo(message, line)
    assert capsys.readouterr().out == "step 1\nfold 0: trained\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for message in (renewed, said):
        line._due = 0.0
        executor.echo(message, line)
    assert capsys.readouterr().out == "\r\x1b[Kstep 1\nfold 0: trained\n"


def test_an_error_of_ours_is_told_without_its_class():
    assert {"RunError", "MissingError", "DataError"} <= executor.OUR_ERRORS
    assert "ValueError" not in executor.OUR_ERRORS
