"""Judging pictures of one's own: one that is uploaded, or a whole folder."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_image
from ksdd_lib.deploy import folder_table
from ksdd_lib.deploy.detection import Detector, Verdict, as_pixels, doubt_of_file
from ksdd_lib.deploy.folder_table import Judged
from ksdd_lib.drive import layout, markers
from ksdd_lib.formatting import printable, unquoted
from ksdd_lib.notebook import colab, outputs
from ksdd_lib.notebook.outputs import Widget
from ksdd_lib.reporting import plots, surface_pictures

WORDS = {
    (True, True): "crack found",
    (True, False): "CRACK MISSED",
    (False, True): "FALSE ALARM",
    (False, False): "good, and passed",
}
"""Whether a surface is defective, and is called so -> the verdict in words."""


def compare(
    detector: Detector, surfaces: Mapping[str, np.ndarray], is_defective: Sequence[bool]
) -> None:
    """Judge generated surfaces, and show what is seen on each, its verdict and the truth."""
    words, outputs_of, is_right = [], [], []
    for (name, pixels), truth in zip(surfaces.items(), is_defective, strict=True):
        found = detector.judge(pixels)
        flagged = found.label == "defective"
        words.append(WORDS[truth, flagged])
        is_right.append(truth == flagged)
        outputs_of.append(np.zeros(pixels.shape) if found.mask is None else found.mask)
        score = "" if found.score is None else f"score {found.score:.1f}, "
        print(f"{name}: {words[-1]} ({score}threshold {found.threshold:.1f})")
    titles, pictures = list(surfaces), list(surfaces.values())
    figure = surface_pictures.verdicts(pictures, outputs_of, titles, words, is_right)
    outputs.show_figure(figure, is_generated=True)


def judge_picture(
    detector: Detector, example: np.ndarray, name: str, is_generated: bool
) -> Verdict:
    """Show the verdict on an example, and return it; below it is a button to upload pictures."""
    found, figure = _verdict(detector, example, name)
    if figure is not None:
        outputs.show_figure(figure, is_generated)
    upload(detector)
    return found


def upload(detector: Detector) -> None:
    """Show a button to upload pictures; each is judged, and its verdict stands below."""
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    button = widgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = outputs.Answer()

    def judge(change: Mapping[str, Widget]) -> None:
        new = change["new"]  # a dict in ipywidgets 7, a tuple in 8
        files = new.items() if isinstance(new, Mapping) else [(one["name"], one) for one in new]
        for title, file in files:
            with below.told():
                _, figure = _verdict(detector, bytes(file["content"]), title)
                if figure is not None:
                    below.draw(figure)

    button.observe(judge, names="value")
    outputs.show_controls(button, below.text, below.picture)


def _verdict(
    detector: Detector, picture: np.ndarray | bytes, name: str
) -> tuple[Verdict, Figure | None]:
    """Print a line -> the verdict, and the picture beside where a defect is seen, if it is one."""
    pixels = as_pixels(picture)
    found = detector.judge(pixels)
    if isinstance(picture, bytes) and (doubt := doubt_of_file(picture)):
        print(f"Warning: {doubt}.")
    if found.mask is None:
        print(f"{name}: {found.label}")
        return found, None
    label = found.label + f" ({', '.join(found.classes)})" * bool(found.classes)
    print(f"{name}: {label}, score {found.score:.2f}, threshold {found.threshold:.2f}")
    for doubt in filter(None, (detector.doubt(pixels.shape), folder_table.unmarked(found))):
        print(f"Warning: {doubt}.")
    titles = [f"{name}: {label}", "output: probability"]
    return found, surface_pictures.gallery([pixels, found.mask], titles=titles)


def judge_folder(
    detector: Detector,
    folder: Path | str,
    out: Path,
    drive: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> tuple[list[Judged], Figure]:
    """Judge a folder of pictures -> the rows of its table, and their contact sheet.

    Both are stored in a new folder in `out`, and on Drive in `ksdd/judged`. DataError where there
    is no picture. `watch` takes (files done, files in all).
    """
    folder = Path(folder).expanduser()
    rows = folder_table.judge_folder(detector, folder, watch)
    name = f"{printable(folder.resolve().name)[:50]}-{time.strftime('%Y-%m-%d-%H%M%S')}"
    results = storage.first_free(out, name, lambda place: not place.exists())
    table, sheet = results / "verdicts.csv", results / "contact_sheet.png"
    folder_table.write_verdicts(table, rows)
    figure = sheet_of(rows, folder)
    storage.write_bytes(sheet, plots.png(figure, 110))
    print(folder_table.outcome(rows))
    there = _to_drive((table, sheet), drive) if drive else ""
    print(f"{table.name} and {sheet.name} are in {colab.place(results)}{there}")
    if colab.in_colab():
        colab.share(table)
    return rows, figure


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
    """The contact sheet of a judged folder or file: its first pictures, as the table has them."""
    folder = folder if folder.is_dir() else folder.parent
    pictures, titles, marked = [], [], []
    for row in rows[: surface_pictures.SHEET]:
        pictures.append(None if row.label == "unreadable" else read_image(folder / row.image))
        score = "" if row.score is None else f" {row.score:.1f}"
        label = printable(row.classes or row.label)
        titles.append(f"{label}{score}\n{surface_pictures.shortened(printable(row.image), 20)}")
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
    button, below = widgets.Button(description="Judge this folder"), outputs.Answer()
    download = widgets.Output()  # takes the program by which Colab offers the table

    def watch(done: int, total: int) -> None:
        below.text.value = f"judged: {done} of {total} images"

    def judge(_: Widget) -> None:
        button.disabled = True
        download.clear_output()
        with download, below.told():
            if folder := unquoted(box.value):  # "" would mean the folder at work
                _, sheet = judge_folder(detector, folder, out, drive, watch)
                below.draw(sheet)
            else:
                print("Type the path of a folder first.")
        button.disabled = False

    button.on_click(judge)
    outputs.show_controls(box, button, below.text, below.picture, download)
