"""Judging pictures of one's own: one that is uploaded, or a whole folder."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.deploy import detection
from ksdd_lib.deploy.detection import Detector, Judged, Verdict, as_pixels
from ksdd_lib.drive import layout, markers
from ksdd_lib.errors import DataError, KsddError
from ksdd_lib.notebook import colab, outputs
from ksdd_lib.notebook.outputs import Widget
from ksdd_lib.reporting import plots, surface_pictures
from ksdd_lib.reporting.surface_pictures import shortened

LABELS = ("unreadable", "not a surface", "defective", "good")

Picture = np.ndarray | bytes | Path
"""A picture as `Detector.judge` takes it."""


def judge_picture(detector: Detector, example: Picture, name: str, is_generated: bool) -> Verdict:
    """Show the verdict on an example, and return it; below it is a button to upload pictures.

    Args:
        name: what stands above the example.
        is_generated: the example is generated, which then stands on it.
    """
    found = _show_verdict(detector, example, name, is_generated)
    widgets = outputs.ipywidgets()
    if widgets is None:
        return found
    button = widgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = widgets.Output()

    def judge(change: Mapping[str, Widget]) -> None:
        with below:
            for title, content in _uploaded(change["new"]):
                try:
                    _show_verdict(detector, content, title)
                except KsddError as error:
                    print(f"{title}: {error}")

    button.observe(judge, names="value")
    outputs.show_controls(button, below)
    return found


def _show_verdict(
    detector: Detector, picture: Picture, name: str, is_generated: bool = False
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
    figure = surface_pictures.gallery(
        [pixels, found.mask], titles=[f"{name}: {found.label}", "output: probability"]
    )
    outputs.show_figure(figure, is_generated)
    return found


def _uploaded(value: Widget) -> list[tuple[str, bytes]]:
    """Names and contents in the value of a FileUpload: a dict in ipywidgets 7, a tuple in 8."""
    if isinstance(value, Mapping):
        return [(name, bytes(one["content"])) for name, one in value.items()]
    return [(one["name"], bytes(one["content"])) for one in value]


def judge_folder(
    detector: Detector, folder: Path | str, out: Path, drive: Path | None = None
) -> list[Judged]:
    """Judge a folder of pictures: a table, a contact sheet, and both as files, also on Drive.

    Args:
        out: in it a folder is made, named after `folder` and the time. It holds `verdicts.csv` and
            `contact_sheet.png`.
        drive: the folder of Drive, which gets both below `ksdd/judged`.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    folder = Path(folder).expanduser()
    rows = detection.judge_folder(detector, folder, outputs.counter("judged"))
    name = f"{folder.resolve().name}-{time.strftime('%Y-%m-%d-%H%M%S')}"
    results = storage.first_free(Path(out), name, lambda place: not place.exists())
    table, sheet = results / "verdicts.csv", results / "contact_sheet.png"
    detection.write_verdicts(table, rows)
    storage.write_bytes(sheet, plots.png(sheet_of(rows, folder), 110))
    counts = {label: sum(row.label == label for row in rows) for label in LABELS}
    print(", ".join(f"{count} {label}" for label, count in counts.items() if count))
    if told := detection.doubts(rows):
        print(told)
    outputs.show_picture(sheet)
    there = _to_drive((table, sheet), drive)
    print(f"{table.name} and {sheet.name} are in {colab.place(results)}{there}")
    if colab.in_colab():
        colab.share(table)
    return rows


def _to_drive(files: Sequence[Path], drive: Path | None) -> str:
    """Copy results to Drive -> where they are there, in a few words; where it fails, a warning."""
    if drive is None:
        return ""
    target = Path(drive) / layout.FOLDER / "judged" / files[0].parent.name
    try:
        for path in files:
            markers.write_unmarked(path.read_bytes(), target / path.name, Path(drive))
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
    shown = rows[: surface_pictures.SHEET]
    count, most = len(rows), len(shown)
    heading = f"the {most} most suspicious of {count}; all are in verdicts.csv"
    titles = [
        f"{row.label}{'' if row.score is None else f' {row.score:.1f}'}\n{shortened(row.image, 20)}"
        for row in shown
    ]
    return surface_pictures.contact_sheet(
        [_read(folder / row.image) for row in shown],
        titles,
        [row.label != "good" for row in shown],
        heading if most < count else "",
    )


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_image(path)
    except DataError:
        return None


def folder_form(detector: Detector, out: Path, drive: Path | None = None) -> None:
    """Show a box for the path of a folder, and a button that judges it below.

    Args: as for `judge_folder`.
    """
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    box = widgets.Text(
        placeholder="a folder of pictures, for example /content/drive/MyDrive/parts",
        layout={"width": "40em"},
    )
    button, below = widgets.Button(description="Judge this folder"), widgets.Output()

    def judge(_: Widget) -> None:
        button.disabled = True
        folder = box.value.strip()
        with below:
            try:
                if folder:  # "" would mean the folder at work
                    judge_folder(detector, folder, out, drive)
                else:
                    print("Type the path of a folder first.")
            except (KsddError, OSError) as error:
                print(error)
        button.disabled = False

    button.on_click(judge)
    outputs.show_controls(box, button, below)
