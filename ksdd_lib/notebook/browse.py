"""Going through the parts of a run, and the labels that may be wrong."""

import html
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from ksdd_lib.data.dataset import Sample, read_image, read_mask
from ksdd_lib.data.kolektorsdd import kolektor_twins
from ksdd_lib.evaluation.predictions import Prediction, failures_first, suspicious, verdict
from ksdd_lib.notebook import outputs
from ksdd_lib.reporting import surface_pictures
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.view import View, region_box

OPACITY = 0.5
ROWS, ACROSS = 10, 8  # parts, and pictures of each, that `items` shows

Surface = Callable[[Prediction], surface_pictures.JudgedSurface]
"""A row of predictions.csv -> all that a picture of it shows; see `report.open_surfaces`."""


def orders(rows: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Ways to go through the parts, each a list; none is empty."""
    ways = {
        "failures first": failures_first(rows),
        "closest calls": sorted(rows, key=lambda row: abs(row.margin)),
        "most suspicious first": sorted(rows, key=lambda row: row.margin, reverse=True),
        "suspicious labels": suspicious(rows, 12),
    }
    return {name: way for name, way in ways.items() if way}


def title(row: Prediction) -> str:
    """One line on a part: verdict, name, score and threshold."""
    return f"{verdict(row)}: {row.image}, score {row.score:.2f}, threshold {row.threshold:.2f}"


def parts(rows: Sequence[Prediction], surface: Surface, is_generated: bool) -> None:
    """Show the first part, and controls to go through all of them: order, part, and opacity."""
    ways = orders(rows)
    first = next(iter(ways.values()))[0]
    print(title(first))
    outputs.show_figure(surface_pictures.overlay(surface(first), OPACITY), is_generated)
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    order = widgets.Dropdown(options=list(ways), description="order", **outputs.LOOK)
    place = widgets.IntSlider(min=1, max=len(ways[order.value]), description="part", **outputs.LOOK)
    opacity = outputs.slider("output", OPACITY, 0, 1, 0.05)

    def reorder(_: outputs.Widget) -> None:
        place.max, place.value = len(ways[order.value]), 1

    def answer() -> tuple[str, Figure]:
        row = ways[order.value][place.value - 1]
        picture = surface_pictures.overlay(surface(row), opacity.value)
        return f"<b>{html.escape(title(row))}</b>", picture

    order.observe(reorder, names="value")
    outputs.show_answers((order, place, opacity), answer, is_generated)


def region(data: DataSet, view: View) -> None:
    """Show what the network looks at on one picture, where the view has a region."""
    if view.region == "none":
        return
    sample = next((one for one in data.samples if one.is_defective), data.samples[0])
    pixels = read_image(sample)
    box = region_box(view.region, pixels)
    inside = np.zeros(pixels.shape, bool)
    box.cut(inside)[:] = True
    title = f"{sample.name}\nregion {box.left},{box.top},{box.width},{box.height}"
    figure = surface_pictures.gallery([pixels], [inside], [title])
    outputs.show_figure(figure, data.is_generated)


def suspicious_labels(rows: Sequence[Prediction], surface: Surface, is_generated: bool) -> None:
    """Show the parts whose label the scores doubt most, by name and as pictures."""
    shown, titles = [], []
    for row in suspicious(rows):
        label = "defective" if row.is_defective else "good"
        numbers = f"score {row.score:6.2f}, threshold {row.threshold:6.2f}"
        print(f"labelled {label:9}  {numbers}  {row.image}")
        shown.append(surface(row))
        titles.append(f"{row.image}\n{label}")
    images, annotations = [one.image for one in shown], [one.annotation for one in shown]
    outputs.show_figure(surface_pictures.gallery(images, annotations, titles), is_generated)


def items(data: DataSet) -> None:
    """Show the pictures of each part in a row, where a name or their looks have put them together.

    Those joined by their looks come first, then the largest. Nothing is shown where folders of the
    user say what a part is, and none looks like another's.
    """
    report, parts = data.record.report, dict[str, list[Sample]]()
    twins = {item: group for group in report.twins or () for item in group}
    for sample in data.samples:
        parts.setdefault(twins.get(sample.item, (sample.item,))[0], []).append(sample)
    several = {name: found for name, found in parts.items() if len(found) > 1}
    is_known = data.is_generated or data.record.is_kolektor or not (report.layout or twins)
    if is_known or not several:
        print("Which pictures show one part is known." if is_known else "Each picture is a part.")
        return
    rows = []
    for name in sorted(several, key=lambda name: (name not in twins, -len(several[name])))[:ROWS]:
        found = several[name]
        shown = sorted(found, key=lambda sample: not sample.is_defective)[:ACROSS]
        title = " = ".join(twins.get(name, (name,))) + " (they look alike)" * (name in twins)
        cut = f", {len(shown)} of {len(found)} pictures" * (len(shown) < len(found))
        pictures = [surface_pictures.small(read_image(sample)) for sample in shown]
        title = surface_pictures.shortened(title, 70) + cut
        rows.append((title, pictures, [sample.is_defective for sample in shown]))
    alone, joined = len(parts) - len(several), len(twins.keys() & several.keys())
    print(
        f"{len(several)} parts have several pictures, {joined} of them because these look alike; "
        f"{alone} have one. Shown: {len(rows)} parts, up to {ACROSS} pictures each, defective ones "
        "framed. Where a row holds different parts, choose another Item or Twins in the form."
    )
    outputs.show_figure(surface_pictures.item_rows(rows))


def second_annotations(data: DataSet) -> None:
    """Show the defective surfaces that are there under two names: how exact a mask can be."""
    pairs = annotated_twice(data)
    if not pairs:
        print("No defective surface of this data set is annotated twice.")
        return
    shown = [(name, overlap) for names, overlap in pairs for name in names]
    pictures, masks = zip(*(data.read_pair(name) for name, _ in shown), strict=True)
    titles = [f"{name}\nIoU {overlap:.2f}" for name, overlap in shown]
    figure = surface_pictures.gallery(pictures, masks, titles)
    outputs.show_figure(figure, data.is_generated)


def annotated_twice(data: DataSet) -> list[tuple[tuple[str, str], float]]:
    """(two names, IoU of their masks) of each defective surface that is there twice.

    In data other than KolektorSDD the two photographs are byte for byte equal.
    """
    if data.record.is_kolektor:
        twins = kolektor_twins()
        return [(pair.surfaces, pair.mask_iou) for pair in twins if pair.mask_iou is not None]
    first: dict[str, Sample] = {}
    pairs = []
    for sample in data.samples:
        other = first.setdefault(sample.image_sha256, sample)
        if other is not sample and (sample.is_defective or other.is_defective):
            one, two = read_mask(other), read_mask(sample)
            names = other.name, sample.name
            pairs.append((names, float((one & two).sum() / (one | two).sum())))
    return pairs
