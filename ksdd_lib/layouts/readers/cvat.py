"""CVAT for images 1.1: an XML file lists pictures with the shapes that somebody drew on them.

A listed picture without shapes is a good surface. A file with a DTD is not read.
"""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import GOOD, Found, Labels, Shape, Tree, side_of, stated
from ksdd_lib.layouts.readers import polygons


def find(tree: Tree) -> Found | None:
    """The pictures with their shapes; None where no file is CVAT's."""
    labels = []
    for file in tree.ending(".xml"):
        root = _parsed(tree, file)
        if root is None or root.tag != "annotations":
            continue
        if root.find("track") is not None:
            tree.damaged[file] = "CVAT for video: export CVAT for images"
        for image in root.findall("image"):
            name, side = image.get("name") or "one without a name", side_of(image.get("subset", ""))
            shapes, lack = polygons.shapes_of(f"{name} in {file}", image, _shape)
            size = stated(image.get("height"), image.get("width"))
            labels.append(Labels(file, name, shapes, lack, size, side))
    return polygons.found(tree, labels)


def _parsed(tree: Tree, file: str) -> Element | None:
    """The root of an XML file; None, with the reason in `tree.damaged`, where it cannot be read."""
    try:
        text = tree.text(file)
        if "<!DOCTYPE" in text:
            raise DataError("it has a DTD, which is not read")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        tree.damaged[file] = "no valid XML"
    except DataError as error:
        tree.damaged[file] = str(error)
    return None


def _shape(raw: Element) -> Shape | str | None:
    label = polygons.class_name(raw.get("label"))
    if raw.tag == "tag":
        return (
            None if GOOD.fullmatch(label) else f"it has the tag {label!r}, which outlines nothing"
        )
    if raw.tag == "polygon":
        return Shape(label, polygons.outline(_points(raw)))
    if raw.tag == "polyline":
        return Shape(label, polygons.line(_points(raw)), polygons.LINES)
    if raw.tag == "box":
        corners = _numbers(raw, "xtl", "ytl", "xbr", "ybr")
        return Shape(label, polygons.box(*corners, degrees=_turn(raw)), polygons.RECTANGLES)
    if raw.tag == "ellipse":
        axes = _numbers(raw, "cx", "cy", "rx", "ry")
        return Shape(label, polygons.ellipse(*axes, degrees=_turn(raw)))
    if raw.tag == "mask":
        left, top, width, height = map(int, _numbers(raw, "left", "top", "width", "height"))
        counts = raw.attrib["rle"]
        return Shape(label, lambda canvas: _stamp(canvas, counts, (height, width), left, top))
    return f"it has a shape of the kind {raw.tag!r}, which outlines nothing"


def _points(raw: Element) -> list[list[str]]:
    return [point.split(",") for point in raw.attrib["points"].split(";")]


def _numbers(raw: Element, *names: str) -> list[float]:
    return [float(raw.attrib[name]) for name in names]


def _turn(raw: Element) -> float:
    return float(raw.get("rotation", 0))


def _stamp(canvas: np.ndarray, counts: str, size: tuple[int, int], left: int, top: int) -> None:
    pixels = polygons.runs([int(count) for count in counts.split(",")], size)
    polygons.stamp(canvas, pixels, left, top)
