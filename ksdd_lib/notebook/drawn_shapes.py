"""Shapes that somebody draws on a picture, the mask that they give, and labelme's list of them."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from ksdd_lib.layouts.readers.labelme import shape_of
from ksdd_lib.layouts.readers.polygons import FAR
from ksdd_lib.storage import Record

Point = Annotated[tuple[float, float], Field(strict=False)]


class Shape(Record):
    """An outline, or with a width a stroke, through pixels (x, y).

    "erase" takes away what is below a stroke, or within an outline but not on it.
    """

    kind: Literal["polygon", "brush", "erase"]
    points: list[Point] = Field(min_length=1)
    width: int = Field(default=0, ge=0, le=5000)
    label: str = "defect"  # "" erases of any label


def drawn(size: tuple[int, int], shapes: Sequence[Shape]) -> tuple[np.ndarray, list[Any]]:
    """The mask bool (H, W) that shapes draw one after the other, and labelme's shapes of it.

    An outline from which nothing was erased stays as it was drawn.
    """
    mask, raws = np.zeros(size, bool), list[Any]()
    for label in dict.fromkeys(shape.label for shape in shapes if shape.kind != "erase"):
        mine = [s for s in shapes if s.label == label or (s.kind == "erase" and not s.label)]
        canvas = _painted(size, mine)
        rest = canvas.copy()
        for are_contours in (False, True):
            for shape in shapes_of(rest, label) if are_contours else mine:
                own = _painted(size, [shape])
                is_whole = shape.kind == "polygon" and not (own & ~canvas).any()
                if is_whole and (own & rest).any():
                    raws.append(_raw(label, shape.points))
                    rest &= ~own
        if rest.any():  # what has holes
            left, top, width, height = cv2.boundingRect(rest.astype(np.uint8))
            cut = rest[top : top + height, left : left + width].astype(np.uint8) * 255
            png = b64encode(cv2.imencode(".png", cut)[1].tobytes()).decode()
            corners = [(left, top), (left + width - 1, top + height - 1)]
            raws.append(_raw(label, corners) | {"shape_type": "mask", "mask": png})
        mask |= canvas
    return mask, raws


def shapes_of(mask: np.ndarray, label: str = "defect", slack: float = 0) -> list[Shape]:
    """Outlines that draw a mask (H, W), each before its holes; with `slack`, so many pixels off."""
    way = cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    lines, tree = cv2.findContours(mask.astype(np.uint8), *way)
    outer = [n if tree[0, n, 3] < 0 else tree[0, n, 3] for n in range(len(lines))]
    sizes = [int(np.prod(np.ptp(lines[n][:, 0], axis=0) + 1)) for n in outer]
    shapes = []
    for number in sorted(range(len(lines)), key=lambda n: (-sizes[n], outer[n] != n)):
        line = cv2.approxPolyDP(lines[number], slack, True) if slack else lines[number]
        points: Any = np.resize(line[:, 0], (max(3, len(line)), 2)).tolist()  # labelme wants three
        kind: Any = "polygon" if outer[number] == number else "erase"
        shapes.append(Shape(kind=kind, points=points, label=label))
    return shapes


def stored_shapes(raws: Sequence[Any], size: tuple[int, int]) -> list[Shape]:
    """The shapes in a labelme file of a picture (H, W); what outlines nothing is left out."""
    outlines, others = list[Shape](), dict[str, np.ndarray]()
    for raw in raws:
        found = shape_of(raw)
        if found is None or isinstance(found, str):
            continue
        label = found.label or "defect"
        if (raw.get("shape_type") or "polygon") == "polygon":
            outlines.append(Shape(kind="polygon", points=raw["points"], label=label))
        else:
            found.draw(others.setdefault(label, np.zeros(size, np.uint8)))
    return [one for label in others for one in shapes_of(others[label], label)] + outlines


def _painted(size: tuple[int, int], shapes: Sequence[Shape]) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    for shape in shapes:
        points = np.rint(np.clip(shape.points, -FAR, FAR)).astype(np.int32)
        level = int(shape.kind != "erase")
        if shape.width:  # a lone point is a line of no length
            line = np.concatenate([points[:1], points])
            cv2.polylines(canvas, [line], False, level, shape.width)
        else:
            cv2.fillPoly(canvas, [points], level)
            if not level:
                cv2.polylines(canvas, [points], True, 1)
    return canvas > 0


def _raw(label: str, points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """An outline as labelme writes it."""
    own = {"label": label, "points": [list(point) for point in points], "shape_type": "polygon"}
    return own | {"group_id": None, "description": "", "flags": {}}
