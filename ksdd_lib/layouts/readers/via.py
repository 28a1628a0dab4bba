"""VGG Image Annotator 2: a JSON file, project or exported annotations, with regions of pictures.

A listed picture without regions is a good surface.
"""

from typing import Any

import numpy as np

from ksdd_lib.layouts.found import Found, Labels, Shape, Tree
from ksdd_lib.layouts.readers import polygons

PROJECT = "_via_img_metadata"


def find(tree: Tree) -> Found | None:
    """The pictures with their regions; None where no file is VIA's."""
    labels, notes = [], []
    for file in tree.ending(".json"):
        data = tree.json(file)
        entries = data.get(PROJECT, data) if isinstance(data, dict) else None
        if not isinstance(entries, dict):
            continue
        known = [one for one in entries.values() if _is_known(one)]
        if known and len(known) < len(entries):
            notes.append(f"{len(entries) - len(known)} entries of {file} are damaged")
        for one in known:
            regions, name = one["regions"], one["filename"]
            listed = regions.values() if isinstance(regions, dict) else regions  # as VIA 1 did
            shapes, lack = polygons.shapes_of(f"{name} in {file}", listed, _shape)
            labels.append(Labels(file, name, shapes, lack))
    return polygons.found(tree, labels, notes)


def _is_known(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and isinstance(entry.get("regions"), list | dict)
    )


def _shape(raw: Any) -> Shape | str:
    form, label = raw["shape_attributes"], _label(raw.get("region_attributes"))
    kind = form["name"]
    if kind in ("polygon", "polyline"):
        points = list(zip(form["all_points_x"], form["all_points_y"], strict=True))
        if kind == "polygon":
            return Shape(label, polygons.outline(points))
        return Shape(label, polygons.line(points), polygons.LINES)
    if kind == "rect":
        x, y = form["x"], form["y"]
        filled = polygons.box(x, y, x + form["width"], y + form["height"])
        return Shape(label, filled, polygons.RECTANGLES)
    if kind == "circle":
        return Shape(label, polygons.ellipse(form["cx"], form["cy"], form["r"], form["r"]))
    if kind == "ellipse":
        degrees = float(np.rad2deg(form.get("theta", 0)))
        axes = form["cx"], form["cy"], form["rx"], form["ry"]
        return Shape(label, polygons.ellipse(*axes, degrees=degrees))
    return f"it has a region of the kind {polygons.class_name(kind)!r}, which outlines nothing"


def _label(attributes: Any) -> str:
    """The first attribute that says something: a text, or the options that are ticked."""
    for value in attributes.values() if isinstance(attributes, dict) else ():
        ticked = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
        if label := " and ".join(filter(None, map(polygons.class_name, ticked))):
            return label
    return ""
