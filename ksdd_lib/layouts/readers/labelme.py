"""labelme: a JSON file for each picture, with the shapes that somebody drew on it.

The picture is the one that the file names, or else the one called like the file. No shape is a good
surface. The picture in the file itself (`imageData`) is not read.
"""

import base64
import io
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import Found, Labels, Shape, Tree, stated
from ksdd_lib.layouts.readers import polygons

OUTLINES = ("polygon", "rotation", "oriented_rectangle")
LINES = ("line", "linestrip")
COPY = "mask_file"
"""The key under which a file names the mask beside it that shows the same; labelme keeps it."""


def find(tree: Tree) -> Found | None:
    """The pictures with their shapes; None where no file is labelme's."""
    labels, copies = [], 0
    for file in tree.ending(".json"):
        data = tree.json(file)
        raws, named = (isinstance(data, dict) and data.get(key) for key in ("shapes", "imagePath"))
        if not isinstance(raws, list) or not isinstance(named, str):
            continue
        if not tree.image(named, file):  # its picture was renamed together with it
            named = file if tree.image(file) else named
        shapes, lack = polygons.shapes_of(file, raws, shape_of)
        mask = str(PurePosixPath(file).with_name(str(data.get(COPY) or "_")))
        copies += mask in tree.images
        size = stated(data.get("imageHeight"), data.get("imageWidth"))
        labels.append(Labels(file, named, shapes, lack, size))
    found = polygons.found(tree, labels)
    return found and replace(found, is_copy=copies == len(labels))


def shape_of(raw: Any) -> Shape | str | None:
    """A shape as `polygons.Reader` answers; what is not as labelme has it raises any error."""
    kind, points = raw.get("shape_type") or "polygon", raw["points"]
    label = polygons.class_name(raw.get("label"))
    if label in ("_background_", "__ignore__"):
        return None
    if kind in OUTLINES:
        return Shape(label, polygons.outline(points))
    if kind in LINES:
        return Shape(label, polygons.line(points), polygons.LINES)
    if kind == "rectangle":  # two corners, or four
        (x, y), (other_x, other_y) = np.min(points, axis=0), np.max(points, axis=0)
        return Shape(label, polygons.box(x, y, other_x, other_y), polygons.RECTANGLES)
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = float(np.hypot(edge_x - x, edge_y - y))
        return Shape(label, polygons.ellipse(x, y, radius, radius))
    if kind == "mask":
        left, top = map(int, points[0])
        return Shape(label, lambda canvas: _stamp(canvas, raw["mask"], left, top))
    return f"it has a shape of the kind {polygons.class_name(kind)!r}, which outlines nothing"


def _stamp(canvas: np.ndarray, png: str, left: int, top: int) -> None:
    """Set the pixels of a PNG in base64, which has the size of what it covers."""
    data = base64.b64decode(png)
    try:
        width, height = PngImageFile(io.BytesIO(data)).size
    except SyntaxError:
        raise DataError("has a mask that is no PNG") from None
    if height > canvas.shape[0] or width > canvas.shape[1]:
        raise DataError(f"has a mask of {height}x{width} pixels, more than its picture")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    polygons.stamp(canvas, np.asarray(pixels) > 0, left, top)
