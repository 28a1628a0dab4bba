"""Keeps copies of the executed notebooks and the report, to look at without running anything.

`python tools/executed.py` runs the demo and notebook 0, writes notebooks/executed, and draws the
README's moving picture. `python tools/executed.py RUN_FOLDER` takes a demo that has been run.
`python tools/executed.py --words` takes over what was written anew, where no code has changed.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from address import under_title
from moving_picture import write_picture
from PIL import Image
from run_notebooks import NOTEBOOKS, execute
from share_notebook import MADE, shareable

from ksdd_lib import storage
from ksdd_lib.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks" / "executed"
FIRST = "00_see_it_work"
COPIES = (FIRST, *NOTEBOOKS)
COLOURS = 64

CHANGING = re.compile(
    r", \d+ GB of memory, \d+ GB of disk free|(?: at|, files) [0-9a-f]{12}\+?$", re.M
)
"""What the first line of a notebook says of the machine at that moment."""

NUMBER = re.compile(r"\b[0-9a-f]{12,}\b|-?\d[\d.,]*(?:\s(?:s|min|h)\b)?")
EMBEDDED = re.compile(r"(?<=data:image/)png;base64,([\w+/=]+)")
LINK = re.compile(r"\]\((?!#|[a-z]+:)([^)\s]+)\)")
LEARNED = NOTEBOOKS[3:]
"""Their words depend on scores, which another processor rounds in another way."""

POOLED = r"(?<=\bpooled )[^\\]*?([01]\.\d{4})(?= \(95)"  # a row of the table in notebook 4
NEAR = 0.05  # between average precisions of one demo on two processors

Cell = dict[str, Any]


def write_copies(run_folder: Path, first: Path) -> None:
    """Write the copies anew, from the folder of a finished demo and the executed notebook 0."""
    books = {FIRST: first} | {k: run_folder / "notebooks" / f"{k}.ipynb" for k in NOTEBOOKS}
    for name, book in books.items():
        storage.write_text(FOLDER / f"{name}.ipynb", copy_of(book.read_text(encoding="utf-8")))
    report = (run_folder / "report.html").read_text(encoding="utf-8")
    light = EMBEDDED.sub(lambda one: f"webp;base64,{smaller(one[1], 'WEBP')}", report)
    storage.write_text(FOLDER / "report.html", light)
    storage.write_bytes(FOLDER / "report.png", base64.b64decode(picture_of(FOLDER / "report.html")))


def copy_of(notebook: str) -> str:
    """An executed notebook as it is kept: fit to send, light, with links that hold where it lies.

    Widgets go, as they are nothing without a kernel.
    """
    copy, _ = shareable(json.loads(notebook))
    del copy["metadata"][MADE]
    for cell in copy["cells"]:
        cell["source"] = moved(cell).splitlines(keepends=True)
        for output in cell.get("outputs", []):
            if "text" in output:
                text = CHANGING.sub("", "".join(output["text"]))
                output["text"] = text.splitlines(keepends=True)
            if picture := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = smaller("".join(picture))
    return json.dumps(copy, indent=1, ensure_ascii=False) + "\n"


def moved(cell: Cell) -> str:
    """The text of a cell as the copy holds it: links lead up a folder, and badges go."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "code":
        return text
    return LINK.sub(_led_up, under_title(text, ""))


def _led_up(link: re.Match[str]) -> str:
    place = link[1]
    return link[0] if place.removesuffix(".ipynb") in COPIES else f"](../{place})"


def smaller(picture: str, kind: str = "PNG") -> str:
    """A picture in base64 as a light one: a PNG of few colours, or WEBP; GitHub shows no notebook's
    WEBP."""
    content = io.BytesIO()
    given = Image.open(io.BytesIO(base64.b64decode(picture)))
    if kind == "PNG" and given.mode == "P" and given.getcolors(COLOURS):
        return picture
    image = given.convert("RGB")
    if kind == "PNG":
        image = image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(content, kind, optimize=True, quality=75, method=6)
    made = base64.b64encode(content.getvalue()).decode()
    return made if len(made) < len(picture) or kind != "PNG" else picture


def picture_of(page: Path) -> str:
    """The first page of the report as Chromium shows it, as of `smaller`; RunError without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        raise RunError("There is no Chromium for a picture of the report: install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += [f"--screenshot={shot}", "--window-size=900,1500", page.as_uri()]
        subprocess.run([browser, *words], check=True, capture_output=True)
        return smaller(base64.b64encode(shot.read_bytes()).decode())


def out_of_step(root: Path) -> list[str]:
    """The kept copies whose cells are no longer those of the notebook."""
    return [name for name in COPIES if _cells(root, name) != _cells(root, name, "executed")]


def _cells(root: Path, name: str, *below: str) -> list[str]:
    """The texts of a notebook's cells, as a copy holds them; but for the set-up, which finds the
    package."""
    path = root.joinpath("notebooks", *below, f"{name}.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [cell for cell in cells if not _is_setup(cell)]
    return ["".join(cell["source"]) if below else moved(cell).rstrip("\n") for cell in kept]


def _is_setup(cell: Cell) -> bool:
    return "setup" in cell["metadata"].get("tags", [])


def take_words(root: Path) -> list[str]:
    """Renew the texts of copies whose code is that of the notebook -> the names of the others."""
    others = []
    for name in out_of_step(root):
        book = storage.read_json(root / "notebooks" / f"{name}.ipynb")
        path = root / "notebooks" / "executed" / f"{name}.ipynb"
        codes = [
            [cell for cell in one["cells"] if cell["cell_type"] == "code"]
            for one in (book, storage.read_json(path))
        ]
        ours, theirs = ([moved(cell) for cell in cells if not _is_setup(cell)] for cells in codes)
        if ours != theirs:
            others.append(name)
            continue
        for cell, kept in zip(*codes, strict=True):
            cell |= {part: kept[part] for part in ("outputs", "execution_count")}
        storage.write_text(path, copy_of(json.dumps(book)))
    return others


def differences(root: Path, run_folder: Path) -> list[str]:
    """What the kept copies show otherwise than a demo that has just been run.

    Of every cell the pictures and tables are counted. Of notebooks 1 to 3 the words are compared,
    but for numbers. In 4 and 5 they depend on scores, so that average precision may differ by 0.05.
    """
    kept, fresh = root / "notebooks" / "executed", run_folder / "notebooks"
    changed = out_of_step(root)
    found = [f"{name}: its cells are others than those of the notebook" for name in changed]
    for name in sorted({*NOTEBOOKS} - {*changed}):
        text = (fresh / f"{name}.ipynb").read_text(encoding="utf-8")
        both = storage.read_json(kept / f"{name}.ipynb"), json.loads(copy_of(text))
        for place, pair in enumerate(zip(*(one["cells"] for one in both), strict=True)):
            ours, theirs = ([*_shown(cell, name)] for cell in pair)
            if ours != theirs:
                found.append(f"{name}, cell {place}: {ours} is kept, {theirs} came now")
    before, now = _pooled(kept), _pooled(fresh)
    if abs(before - now) > NEAR:
        found.append(f"AP {before} is kept, {now} came now")
    return found


def _shown(cell: Cell, name: str) -> Iterator[str]:
    """The kinds of what a cell shows, and its words without numbers, times and hashes."""
    said = ""
    for output in cell.get("outputs", []):
        if "data" in output:
            yield "+".join(sorted(output["data"]))
        if output.get("name") != "stderr":  # warnings of libraries come and go
            text = output.get("text") or [*output.get("data", {}).get("text/plain", ""), "\n"]
            said += "".join(text)
    if name not in LEARNED and not said.startswith("Python "):
        yield NUMBER.sub("#", said)


def _pooled(folder: Path) -> float:
    """The average precision over all folds, as notebook 4 shows it in a table."""
    text = (folder / f"{NOTEBOOKS[3]}.ipynb").read_text(encoding="utf-8")
    found = re.search(POOLED, text)
    assert found, f"{folder} shows no average precision"
    return float(found[1])


def main(chosen: str = "") -> None:
    """The commands above."""
    if chosen == "--words":
        left = ", ".join(take_words(ROOT))
        sys.exit(f"The code of {left} has changed: run this without --words." if left else 0)
    with tempfile.TemporaryDirectory() as made:
        demo, first = Path(chosen or f"{made}/runs/demo"), Path(made, "first.ipynb")
        os.environ["PYTHONPATH"] = str(ROOT)
        if not chosen:
            os.environ["KSDD_HOME"] = made
            command = [sys.executable, "-m", "ksdd_lib", "demo", "--out", str(demo)]
            subprocess.run(command, check=True)
        execute(ROOT / "notebooks" / f"{FIRST}.ipynb", first, os.environ)
        write_copies(demo, first)
        write_picture(demo)


if __name__ == "__main__":
    main(*sys.argv[1:])
