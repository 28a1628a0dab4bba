"""Judging pictures of one's own: one that is uploaded, or a whole folder."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.deploy import folder_table
from ksdd_lib.deploy.detection import Detector, Verdict, as_pixels
from ksdd_lib.deploy.folder_table import Judged
from ksdd_lib.drive import layout, markers
from ksdd_lib.errors import KsddError
from ksdd_lib.notebook import colab, outputs
from ksdd_lib.notebook.outputs import Widget
from ksdd_lib.reporting import plots, surface_pictures


def judge_picture(
    detector: Detector, example: np.ndarray, name: str, is_generated: bool
) -> Verdict:
    """Show the verdict on an example, and return it; below it is a button to upload pictures."""
    found = _show_verdict(detector, example, name, is_generated)
    widgets = outputs.ipywidgets()
    if widgets is None:
        return found
    button = widgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = widgets.Output()

    def judge(change: Mapping[str, Widget]) -> None:
        with below:
            new = change["new"]  # a dict in ipywidgets 7, a tuple in 8
            files = new.items() if isinstance(new, Mapping) else [(one["name"], one) for one in new]
            for title, file in files:
                try:
                    _show_verdict(detector, bytes(file["content"]), title)
                except KsddError as error:
                    print(f"{title}: {error}")

    button.observe(judge, names="value")
    outputs.show_controls(button, below)
    return found


def _show_verdict(
    detector: Detector, picture: np.ndarray | bytes, name: str, is_generated: bool = False
) -> Verdict:
    """One line and a figure: the picture, and where a defect is seen."""
    pixels = as_pixels(picture)
    found = detector.judge(pixels)
    if found.mask is None:
        print(f"{name}: {found.label}")
        return found
    print(f"{name}: {found.label}, score {found.score:.2f}, threshold {detector.threshold:.2f}")
    if doubt := detector.doubt(pixels.shape):
        print(f"Warning: {doubt}.")
    titles = [f"{name}: {found.label}", "output: probability"]
    outputs.show_figure(surface_pictures.gallery([pixels, found.mask], titles=titles), is_generated)
    return found


def judge_folder(
    detector: Detector, folder: Path | str, out: Path, drive: Path | None = None
) -> list[Judged]:
    """Judge a folder of pictures: a table and a contact sheet, in a new folder in `out` and on
    Drive in `ksdd/judged`; the sheet is shown. Raises DataError where there is no picture."""
    folder = Path(folder).expanduser()
    rows = folder_table.judge_folder(detector, folder, outputs.counter("judged"))
    name = f"{folder.resolve().name}-{time.strftime('%Y-%m-%d-%H%M%S')}"
    results = storage.first_free(out, name, lambda place: not place.exists())
    table, sheet = results / "verdicts.csv", results / "contact_sheet.png"
    folder_table.write_verdicts(table, rows)
    storage.write_bytes(sheet, plots.png(sheet_of(rows, folder), 110))
    print(folder_table.outcome(rows))
    outputs.show_picture(sheet)
    there = _to_drive((table, sheet), drive) if drive else ""
    print(f"{table.name} and {sheet.name} are in {colab.place(results)}{there}")
    if colab.in_colab():
        colab.share(table)
    return rows


def _to_drive(files: Sequence[Path], drive: Path) -> str:
    """Copy results to Drive -> where they are there, in a few words; where it fails, a warning."""
    target = drive / layout.FOLDER / "judged" / files[0].parent.name
    try:
        for path in files:
            markers.write_unmarked(path.read_bytes(), target / path.name, drive)
    except OSError as error:
        warnings.warn(
            f"The results could not be copied to Drive ({layout.reason(error)}): save them from "
            "this machine.",
            stacklevel=2,
        )
        return ""
    return f", and in {colab.place(target)} on Drive"


def sheet_of(rows: Sequence[Judged], folder: Path) -> Figure:
    """The contact sheet of a judged folder: its first pictures, in the order of the table."""
    pictures, titles, marked = [], [], []
    for row in rows[: surface_pictures.SHEET]:
        pictures.append(None if row.label == "unreadable" else read_image(folder / row.image))
        score = "" if row.score is None else f" {row.score:.1f}"
        titles.append(f"{row.label}{score}\n{surface_pictures.shortened(row.image, 20)}")
        marked.append(row.label != "good")
    some = f"the {len(titles)} most suspicious of {len(rows)}; all are in verdicts.csv"
    heading = some if len(titles) < len(rows) else ""
    return surface_pictures.contact_sheet(pictures, titles, marked, heading)


def folder_form(detector: Detector, out: Path, drive: Path | None = None) -> None:
    """Show a box for the path of a folder, and a button that judges it below."""
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    example = "a folder of pictures, for example /content/drive/MyDrive/parts"
    box = widgets.Text(placeholder=example, layout={"width": "40em"})
    button, below = widgets.Button(description="Judge this folder"), widgets.Output()

    def judge(_: Widget) -> None:
        button.disabled = True
        with below:
            try:
                if folder := box.value.strip():  # "" would mean the folder at work
                    judge_folder(detector, folder, out, drive)
                else:
                    print("Type the path of a folder first.")
            except (KsddError, OSError) as error:
                print(error)
        button.disabled = False

    button.on_click(judge)
    outputs.show_controls(box, button, below)
