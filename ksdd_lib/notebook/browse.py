"""Looking at parts with a control in hand: browse a run's, or judge a folder of one's own.

Written, as `controls`, to what ipywidgets 7.7.1 (Colab) and 8 have in common. Every view stands as
plain output first, so that a saved notebook keeps it.
"""

import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib import storage
from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.deploy import detection
from ksdd_lib.deploy.detection import Detector, Judged
from ksdd_lib.drive import upload
from ksdd_lib.errors import DataError, KsddError
from ksdd_lib.evaluation import protocols
from ksdd_lib.evaluation.predictions import Prediction, failures_first, suspicious, verdict
from ksdd_lib.notebook import colab, outputs
from ksdd_lib.reporting import plots, surface_pictures
from ksdd_lib.reporting.surface_pictures import JudgedSurface
from ksdd_lib.runs.prepare import DataSet

OPACITY = 0.5

Surface = Callable[[Prediction], JudgedSurface]
"""A row of predictions.csv -> all that a picture of it shows; see `report.judged_surface`."""


def orders(rows: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Ways to go through the parts, each a list."""
    return {
        "failures first": failures_first(rows),
        "closest calls": sorted(rows, key=lambda row: abs(row.margin)),
        "most suspicious first": sorted(rows, key=lambda row: row.margin, reverse=True),
        "suspicious labels": suspicious(rows, 12),
    }


def title(row: Prediction) -> str:
    """One line on a part: verdict, name, score and threshold."""
    numbers = f"score {row.score:.2f}, threshold {row.threshold:.2f}"
    return f"{verdict(row)}: {row.image}, {numbers}"


def parts(rows: Sequence[Prediction], surface: Surface, is_generated: bool) -> None:
    """Show the first part, and controls to go through all of them, drawn below from the first move.

    One control chooses the order, one the part, one how much of the output covers the surface.

    Args:
        rows: of predictions.csv, with thresholds.
        surface: gives all that is shown of a row.
        is_generated: the data set is generated, which then stands on each picture.
    """
    ways = orders(rows)
    first = (ways["failures first"] or ways["closest calls"])[0]
    print(title(first))
    outputs.show_figure(_picture(surface(first), OPACITY, is_generated), {"is_generated": False})
    try:
        import ipywidgets
    except ImportError:
        return
    if not outputs.in_notebook():
        return
    look = {"style": {"description_width": "8em"}, "layout": ipywidgets.Layout(width="40em")}
    order = ipywidgets.Dropdown(options=[n for n in ways if ways[n]], description="order", **look)
    place = ipywidgets.IntSlider(min=1, max=1, description="part", **look)
    opacity = ipywidgets.FloatSlider(
        value=OPACITY, min=0, max=1, step=0.05, description="output", **look
    )
    opacity.continuous_update = False
    told = ipywidgets.HTML("<i>Move a control: the part that you choose is then shown here.</i>")
    drawn = ipywidgets.HTML()
    place.max = len(ways[order.value])

    def renew(_: Any) -> None:
        row = ways[order.value][place.value - 1]
        told.value = f"<b>{html.escape(title(row))}</b>"
        picture = _picture(surface(row), opacity.value, is_generated)
        drawn.value = outputs.picture_tag(picture, 90)

    def reorder(told: Any) -> None:
        place.max, place.value = len(ways[order.value]), 1
        renew(told)

    order.observe(reorder, names="value")
    for control in (place, opacity):
        control.observe(renew, names="value")
    from IPython.display import display

    display(ipywidgets.VBox([order, place, opacity, told, drawn]))


def _picture(surface: JudgedSurface, opacity: float, is_generated: bool) -> Figure:
    figure = surface_pictures.overlay(surface, opacity)
    return plots.stamp(figure) if is_generated else figure


# A folder of one's own


def judge_folder(
    detector: Detector, folder: Path | str, out: Path, drive: Path | None = None
) -> list[Judged]:
    """Judge a folder of pictures: a table, a contact sheet, and both as files, also on Drive.

    Args:
        out: in it a folder is made, named after `folder` and the time, which holds `verdicts.csv`
            and `contact_sheet.png`.
        drive: the folder of Drive, which gets both below `ksdd/judged`.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    folder = Path(folder).expanduser()
    rows = detection.judge_folder(detector, folder, outputs.counter("judged"))
    name = f"{folder.resolve().name}-{time.strftime('%Y-%m-%d-%H%M%S')}"
    results = upload.first_free(Path(out), name, lambda place: not place.exists())
    table, sheet = results / "verdicts.csv", results / "contact_sheet.png"
    detection.write_verdicts(table, rows)
    storage.write_bytes(sheet, plots.png(sheet_of(rows, folder), 110))
    counts = {label: sum(row.label == label for row in rows) for label in dict.fromkeys(LABELS)}
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
    target = Path(drive) / upload.FOLDER / "judged" / files[0].parent.name
    try:
        for path in files:
            upload.put(path.read_bytes(), target / path.name, Path(drive))
    except OSError as error:
        upload.warn(
            f"The results could not be copied to Drive ({upload.reason(error)}): save them from "
            "this machine."
        )
        return ""
    return f", and in {colab.place(target)} on Drive"


LABELS = ("unreadable", "not a surface", "defective", "good")


def sheet_of(rows: Sequence[Judged], folder: Path) -> Figure:
    """The contact sheet of a judged folder: its first pictures, in the order of the table."""
    shown = rows[: surface_pictures.SHEET]
    pictures = [_read(folder / row.image) for row in shown]
    count, most = len(rows), len(shown)
    heading = f"the {most} most suspicious of {count}; all are in verdicts.csv"
    titles = [
        f"{row.label}{'' if row.score is None else f' {row.score:.1f}'}\n{_short(row.image)}"
        for row in shown
    ]
    alarming = [row.label != "good" for row in shown]
    return surface_pictures.contact_sheet(
        pictures, titles, alarming, heading if most < count else ""
    )


def folder_form(detector: Detector, out: Path, drive: Path | None = None) -> None:
    """Show a box for the path of a folder, and a button that judges it below.

    Args:
        out, drive: as for `judge_folder`.
    """
    try:
        import ipywidgets
    except ImportError:
        return
    if not outputs.in_notebook():
        return
    box = ipywidgets.Text(
        placeholder="a folder of pictures, for example /content/drive/MyDrive/parts",
        layout=ipywidgets.Layout(width="40em"),
    )
    button, below = ipywidgets.Button(description="Judge this folder"), ipywidgets.Output()

    def judge(_: Any) -> None:
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
    from IPython.display import display

    display(ipywidgets.VBox([box, button, below]))


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_image(path)
    except DataError:
        return None


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:9]}…{name[-9:]}"


def suspicious_labels(
    rows: Sequence[Prediction], surface: Surface, record: Mapping[str, Any]
) -> None:
    """Show the parts whose label the scores doubt most, by name and as pictures.

    Args:
        rows, surface: as for `parts`.
        record: what data.json holds.
    """
    doubted = suspicious(rows)
    for row in doubted:
        label = "defective" if row.is_defective else "good"
        numbers = f"score {row.score:6.2f}, threshold {row.threshold:6.2f}"
        print(f"labelled {label:9}  {numbers}  {row.image}")
    shown = [surface(row) for row in doubted]
    pictures = [one.image for one in shown]
    titles = [f"{row.image}\n{'defective' if row.is_defective else 'good'}" for row in doubted]
    figure = surface_pictures.gallery(pictures, [one.annotation for one in shown], titles)
    outputs.show_figure(figure, record)


def second_annotations(data: DataSet) -> None:
    """Show the defective surfaces that the data set holds under two names, each annotated anew.

    How far the two outlines agree tells how exact a mask can be.
    """
    pairs = annotated_twice(data)
    if not pairs:
        print("No defective surface of this data set is annotated twice.")
        return
    pictures, masks, titles = [], [], []
    for names, overlap in pairs:
        for name in names:
            picture, mask = data.read_pair(name)
            pictures.append(picture)
            masks.append(mask)
            titles.append(f"{name}\nIoU {overlap:.2f}")
    outputs.show_figure(surface_pictures.gallery(pictures, masks, titles), data.record)


def annotated_twice(data: DataSet) -> list[tuple[tuple[str, str], float]]:
    """(two names, overlap of their annotations) of each defective surface that is there twice.

    The overlap is the IoU of the two masks: those of KolektorSDD once aligned, those of other data
    where the photographs are byte for byte the same.
    """
    if data.record["is_kolektor"]:
        return [
            (tuple(pair["surfaces"]), pair["mask_iou"])
            for pair in protocols.kolektor_twins()
            if pair["mask_iou"] is not None
        ]
    first: dict[str, Sample] = {}
    pairs = []
    for sample in data.samples:
        other = first.setdefault(sample.image_sha256, sample)
        if other is not sample and (sample.is_defective or other.is_defective):
            one, two = read_mask(other), read_mask(sample)
            overlap = float((one & two).sum() / (one | two).sum())
            pairs.append(((other.name, sample.name), overlap))
    return pairs
