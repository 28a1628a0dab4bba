"""The executed copies of the notebooks: light, fit to send, and in step with the notebooks."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import executed
import numpy as np
import pytest
from executed import COPIES, FOLDER, NOTEBOOKS
from PIL import Image
from share_notebook import shareable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the notebooks and of their executed copies."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def change(path: Path, how: Callable[[list[dict]], object]) -> None:
    stored = json.loads(path.read_text("utf-8"))
    how(stored["cells"])
    path.write_text(json.dumps(stored), "utf-8")


def first(cells: list[dict], kind: str) -> dict:
    return next(cell for cell in cells if cell["cell_type"] == kind)


def last(cells: list[dict], kind: str) -> dict:
    return first(cells[::-1], kind)


def with_ap(text: str, value: str) -> str:
    """Notebook 4 with another average precision over all folds."""
    found = re.search(executed.POOLED, text)
    return text[: found.start(1)] + value + text[found.end(1) :]


@pytest.mark.fault(94)
class TestTheyAreInStep:
    def test_each_copy_holds_the_cells_of_its_notebook(self):
        """`python tools/executed.py` makes them anew."""
        assert executed.out_of_step(ROOT) == []

    @pytest.mark.parametrize("name", COPIES[::3])
    @pytest.mark.parametrize(
        "edit",
        [
            lambda cells: first(cells, "markdown")["source"].append("\nOne sentence more."),
            lambda cells: last(cells, "code")["source"].append("\nx = 1"),
            lambda cells: cells.pop(),
            lambda cells: cells.insert(3, {"cell_type": "raw", "metadata": {}, "source": ["x"]}),
            lambda cells: cells.reverse(),
        ],
        ids=["a word", "a line of code", "one less", "one more", "another order"],
    )
    def test_an_edit_of_a_notebook_is_seen(self, root, name, edit):
        change(root / "notebooks" / f"{name}.ipynb", edit)
        assert executed.out_of_step(root) == [name]

    @pytest.mark.parametrize("name", COPIES[::2])
    def test_what_was_written_anew_is_taken_over_with_the_outputs(self, root, name):
        def outputs() -> list:
            path = root / "notebooks" / "executed" / f"{name}.ipynb"
            cells = json.loads(path.read_text("utf-8"))["cells"]
            return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]

        before = outputs()

        def write(cells: list[dict]) -> None:
            first(cells, "markdown")["source"].append("\n\nSee [the guide](README.md).")
            text = {"cell_type": "markdown", "metadata": {}, "id": "new", "source": ["## New"]}
            cells.insert(4, text)

        change(root / "notebooks" / f"{name}.ipynb", write)
        assert executed.out_of_step(root) == [name]
        assert executed.take_words(root) == [] == executed.out_of_step(root)
        assert outputs() == before
        book = root / "notebooks" / f"{name}.ipynb"
        change(book, lambda cells: last(cells, "code")["source"].append("\nx = 1"))
        assert executed.take_words(root) == [name] == executed.out_of_step(root)

    def test_an_address_changes_nothing_as_no_copy_has_badges(self, root):
        for name in COPIES:
            book = root / "notebooks" / f"{name}.ipynb"
            badge = "[![Colab](https://a.b/c.svg)](https://a.b/notebooks/x.ipynb)"

            def add(cells: list[dict], badge: str = badge) -> None:
                title = first(cells, "markdown")
                head, *rest = "".join(title["source"]).split("\n\n")
                title["source"] = ["\n\n".join([head, badge, *rest])]
                [setup] = [c for c in cells if "setup" in c["metadata"].get("tags", [])]
                setup["source"] = ["ADDRESS = 'https://a.b'"]

            change(book, add)
        assert executed.out_of_step(root) == []


@pytest.mark.fault(94)
class TestAFreshDemoIsCompared:
    @pytest.fixture
    def run(self, root: Path, tmp_path: Path) -> Path:
        """Stands for a demo that has just been run: it shows what is kept."""
        folder = tmp_path / "run"
        shutil.copytree(root / "notebooks" / "executed", folder / "notebooks")
        return folder

    def test_the_same_is_the_same_and_times_and_scores_may_differ(self, root, run):
        assert executed.differences(root, run) == []
        book = run / "notebooks" / f"{NOTEBOOKS[1]}.ipynb"
        text = book.read_text("utf-8")
        assert "loss 0.0" in text and re.search(r"done in [\d.]+ min", text)
        text = re.sub(r"(?<=[ ,])[\d.]+ min\b", "40 s", text).replace("loss 0.0", "loss 0.9")
        book.write_text(text, "utf-8")
        book = run / "notebooks" / f"{NOTEBOOKS[3]}.ipynb"
        text = book.read_text("utf-8")
        book.write_text(with_ap(text, "0.9731"), "utf-8")
        assert executed.differences(root, run) == []

    @pytest.mark.parametrize("name", NOTEBOOKS[::4])
    def test_a_picture_that_is_missing_is_named(self, root, run, name):
        def drop(cells: list[dict]) -> None:
            outputs = [c["outputs"] for c in cells if c.get("outputs")]
            shown = next(o for o in outputs if any("image/png" in one.get("data", {}) for one in o))
            shown[:] = [one for one in shown if "image/png" not in one.get("data", {})]

        change(run / "notebooks" / f"{name}.ipynb", drop)
        [told] = executed.differences(root, run)
        assert told.startswith(f"{name}, cell ")

    @pytest.mark.parametrize("name", NOTEBOOKS[:3])
    def test_other_words_are_named_where_no_score_decides_them(self, root, run, name):
        book = run / "notebooks" / f"{name}.ipynb"
        book.write_text(book.read_text("utf-8").replace('"Next: ', '"And now: '), "utf-8")
        [told] = executed.differences(root, run)
        assert told.startswith(f"{name}, cell ") and "And now" in told

    def test_another_average_precision_is_named(self, root, run):
        book = run / "notebooks" / f"{NOTEBOOKS[3]}.ipynb"
        book.write_text(with_ap(book.read_text("utf-8"), "0.8500"), "utf-8")
        [told] = executed.differences(root, run)
        assert told.endswith("is kept, 0.85 came now")

    def test_other_cells_are_named_once(self, root, run):
        change(root / "notebooks" / f"{NOTEBOOKS[0]}.ipynb", lambda cells: cells.pop())
        [told] = executed.differences(root, run)
        assert told.startswith(NOTEBOOKS[0])


class TestWhatIsKept:
    def test_it_is_light(self):
        sizes = [path.stat().st_size for path in FOLDER.iterdir()]
        assert sum(sizes) < 3_000_000

    @pytest.mark.parametrize("name", COPIES)
    def test_nothing_personal_and_no_widget_is_in_it(self, name):
        text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
        again, removed = shareable(json.loads(text))
        assert not removed
        assert "/tmp/" not in text and str(ROOT) not in text and "GB of disk" not in text
        assert any(cell.get("outputs") for cell in again["cells"])
        for cell in again["cells"]:
            assert not any(one["output_type"] == "error" for one in cell.get("outputs", []))

    def test_the_report_needs_no_other_file(self):
        text = (FOLDER / "report.html").read_text("utf-8")
        assert "GENERATED" in text and "/tmp/" not in text and "image/png" not in text
        assert not re.search(r'src="(?!data:)', text)


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("[2](02_train_segmentation.ipynb)", "[2](02_train_segmentation.ipynb)"),
        (
            "[0](00_see_it_work.ipynb) and [x](y.md#a)",
            "[0](00_see_it_work.ipynb) and [x](../y.md#a)",
        ),
        ("[guide](README.md#in-colab)", "[guide](../README.md#in-colab)"),
        ("[kept](../assets/results/README.md)", "[kept](../../assets/results/README.md)"),
        ("[page](https://a.org/b) [here](#part)", "[page](https://a.org/b) [here](#part)"),
        ("[study](07_study.ipynb)", "[study](../07_study.ipynb)"),
        ("![p](../a.png)", "![p](../../a.png)"),
    ],
)
def test_links_hold_in_the_folder_of_the_copies(link, kept):
    cell = {"cell_type": "markdown", "source": [f"# T\n\n{link}"]}
    assert executed.moved(cell) == f"# T\n\n{kept}"
    assert executed.moved({"cell_type": "code", "source": [link]}) == link


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (120, 120)])
def test_a_picture_becomes_light_and_keeps_its_look(shape):
    rows, columns = np.indices(shape)
    pixels = ((rows + columns) % 256).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(np.stack([pixels] * 3, -1)).save(content, "PNG")
    given = base64.b64encode(content.getvalue()).decode()
    for kind in ("PNG", "WEBP"):
        made = Image.open(io.BytesIO(base64.b64decode(executed.smaller(given, kind))))
        assert made.size == shape[::-1] and made.format == kind
        assert np.abs(np.asarray(made.convert("L")).astype(int) - pixels).mean() < 6
