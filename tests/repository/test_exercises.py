"""The exercises of the notebooks: what their answers say is what their lines print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import ksdd_lib as ksdd
from ksdd_lib.presets import resolve

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "notebooks" / "EXERCISES.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## Notebook (\d)\n(.*?)(?=^## )", PAGE, re.M | re.S))


def lines_and_answers(section: str) -> list[tuple[str, str]]:
    """Each block of Python, and the text that the answer below it shows."""
    return re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", section, re.S)


@pytest.mark.fault(82)
@pytest.mark.parametrize("number", SECTIONS)
class TestExercises:
    def test_each_notebook_has_three_with_folded_answers(self, number):
        section = SECTIONS[number]
        asked = re.findall(r"^\*\*(\d\.\d)\*\*", section, re.M)
        assert asked == [f"{number}.{one}" for one in (1, 2, 3)]
        folded = re.findall(
            r"<details><summary>Answer</summary>\n\n.+?\n\n</details>", section, re.S
        )
        assert len(folded) == 3
        [book] = ROOT.glob(f"notebooks/0{number}*.ipynb")
        assert f"EXERCISES.md#notebook-{number}" in book.read_text("utf-8")

    @pytest.mark.slow
    def test_the_answers_are_what_is_printed(self, number, tmp_path, monkeypatch):
        monkeypatch.setenv("KSDD_HOME", str(tmp_path))
        run = ksdd.create(resolve({"preset": "demo"}))
        names = {"ksdd": ksdd, "run": run, "data": ksdd.prepare_data(run)}
        pairs = lines_and_answers(SECTIONS[number])
        assert len(pairs) >= 2
        for lines, answer in pairs:
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(lines, names)
            assert said.getvalue() == answer, lines


def test_all_five_have_exercises():
    assert list(SECTIONS) == list("12345")
