"""COCO: a JSON file lists pictures and the instances in them, by polygons or runs of pixels.

A listed picture without annotations is a good surface. Several files, as `instances_train.json`
beside `instances_val.json`, keep their sides. Boxes alone outline nothing.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ksdd_lib.errors import DataError
from ksdd_lib.layouts.found import BOXES, Found, Labels, Shape, Tree, side_of, stated
from ksdd_lib.layouts.readers import polygons


def find(tree: Tree) -> Found | None:
    """The pictures with their instances; None where no file is COCO's.

    Raises DataError where masks are compressed and pycocotools is missing.
    """
    labels, notes = list[Labels](), list[str]()
    for file in tree.ending(".json"):
        data = tree.json(file)
        if _is_of_instances(data):
            if any(map(_is_compressed, data["annotations"])):
                _pycocotools(file)
            labels += _labels(file, data, notes)
    return polygons.found(tree, labels, notes)


def _is_of_instances(data: Any) -> bool:
    """Whether a JSON value has COCO's lists, with boxes or outlines rather than captions."""
    if not isinstance(data, dict):
        return False
    images, annotations = data.get("images"), data.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return False
    known = [one for one in annotations if isinstance(one, dict)]
    is_known = any("segmentation" in one or "bbox" in one for one in known) or not annotations
    return is_known and any(isinstance(one, dict) and "file_name" in one for one in images)


def _labels(file: str, data: Any, notes: list[str]) -> Iterator[Labels]:
    """What the file says of each picture; `notes` get what belongs to none."""
    listed = [one for one in data["images"] if isinstance(one, dict)]
    images = [one for one in listed if isinstance(one.get("file_name"), str)]
    times = Counter(_number(one.get("id")) for one in images)
    of_image: dict[Any, list[Any]] = {}
    for one in data["annotations"]:
        number = _number(one.get("image_id")) if isinstance(one, dict) else None
        of_image.setdefault(number if times[number] == 1 else None, []).append(one)
    strays = of_image.pop(None, [])
    if strays:
        notes.append(f"{len(strays)} annotations of {file} belong to no picture, or to two")
    if len(images) < len(data["images"]):
        notes.append(f"{len(data['images']) - len(images)} pictures of {file} have no file_name")
    categories = data.get("categories")
    known = [one for one in categories if isinstance(one, dict)] if categories else []
    names = {_number(one.get("id")): polygons.class_name(one.get("name")) for one in known}
    for image in images:
        name, own = image["file_name"], of_image.get(_number(image.get("id")), [])
        shapes, lack = polygons.shapes_of(f"{name} in {file}", own, partial(_shape, names))
        if strays and not own:
            lack = f"annotations of {file} may belong to it"
        size = stated(image.get("height"), image.get("width"))
        yield Labels(file, name, shapes, lack, size, side_of(file))


def _number(value: Any) -> int | str | None:
    """What a file counts by; None where it is something else."""
    return value if isinstance(value, int | str) else None


def _shape(names: dict[Any, str], raw: Any) -> Shape | str:
    label, outlines = names.get(_number(raw.get("category_id")), ""), raw.get("segmentation")
    if isinstance(outlines, dict) and outlines:
        (height, width), counts = outlines["size"], outlines["counts"]
        return Shape(label, lambda canvas: _stamp(canvas, counts, (height, width)))
    if not outlines:
        return BOXES if raw.get("bbox") else "it has an annotation without an outline"
    parts = [polygons.outline(np.reshape(part, (-1, 2))) for part in outlines]
    return Shape(label, lambda canvas: [draw(canvas) for draw in parts])


def _stamp(canvas: np.ndarray, counts: Any, size: tuple[int, int]) -> None:
    """Set the pixels in these runs, column by column."""
    if size != canvas.shape:
        raise DataError("has a mask of {}x{} pixels, other than its picture".format(*size))
    if isinstance(counts, str):
        library, code = _pycocotools(), counts.encode()
        pixels = library.decode({"size": list(size), "counts": code})
        if library.encode(pixels)["counts"] != code:  # it does not tell of an end that is missing
            raise DataError(f"has runs that do not fill its {canvas.size:,} pixels")
    else:
        pixels = polygons.runs(counts, size[::-1]).T
    polygons.stamp(canvas, np.asarray(pixels) > 0)


def _is_compressed(annotation: Any) -> bool:
    outlines = annotation.get("segmentation") if isinstance(annotation, dict) else None
    return isinstance(outlines, dict) and isinstance(outlines.get("counts"), str)


def _pycocotools(file: str = "a file") -> ModuleType:
    """What reads compressed runs; a package that only they need."""
    try:
        from pycocotools import mask
    except ImportError:
        raise DataError(
            f"{file} has compressed masks, which pycocotools reads: install it by"
            " `pip install pycocotools`."
        ) from None
    return mask
