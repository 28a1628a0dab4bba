"""Labels drawn in the browser: shapes become a mask and a labelme file beside their picture.

The page `draw_labels.html` asks `Drawer.answer` through a callback of Colab's, or elsewhere through
two hidden text boxes.
"""

import html
import json
import os
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_file, read_image, short_path
from ksdd_lib.data.duplicates import reduced
from ksdd_lib.data.item_folders import Labels
from ksdd_lib.data.pixels import decode_mask
from ksdd_lib.deploy import detection
from ksdd_lib.errors import DataError
from ksdd_lib.formatting import listed, printable, unquoted
from ksdd_lib.layouts import catalog
from ksdd_lib.layouts.found import Found, Picture, Tree, naming, nothing, without_ending
from ksdd_lib.layouts.readers import labelme, masks_beside
from ksdd_lib.notebook import colab, outputs
from ksdd_lib.notebook.drawn_shapes import Shape, drawn, shapes_of, stored_shapes

PAGE = Path(__file__).with_suffix(".html")
WRITTEN = ".drawn_labels.json"  # in the folder of the labels: which were written here
ELSEWHERE = ("kolektorsdd2", "mvtec", "table", "coco", "cvat", "via", "yolo")
SHOWN = 6_000_000  # pixels on the screen; only the view of a larger picture is reduced


class Asked(storage.Record):
    """What the page asks of a picture, by its number; without one, of the first without a label."""

    what: Literal["show", "save", "propose"]
    at: int | None = None
    shapes: list[Shape] = []
    is_good: bool = False
    is_agreed: bool = False  # that an earlier label is put aside


class Drawer:
    """The pictures of a folder and below, and their labels.

    Raises DataError: there is no picture, or labels lie elsewhere than beside their pictures.
    """

    def __init__(self, root: Path, weights: Path | None = None) -> None:
        tree, self.weights = Tree(root), weights
        if not tree.images:
            raise DataError(f"There is no picture in {root.name}: name a folder of pictures.")
        for layout in (catalog.LAYOUTS[name] for name in ELSEWHERE):
            if layout.find(tree):
                raise DataError(
                    f"{root.name} is labelled as {layout.words}. To draw there, write it as item "
                    "folders first: python -m ksdd_lib convert FOLDER NEW_FOLDER"
                )
        bare = [Picture(without_ending(name), tree.path(name), None) for name in tree.images]
        found = catalog.with_good(masks_beside.find(tree) or Found(bare))
        others = labelme.find(tree) or Found([])
        self.named = {p.name for p in [*found.pictures, *others.pictures] if p.is_named}
        self.labelled = self.named | {p.name for p in found.pictures if p.mask is nothing}
        self.pictures = found.pictures
        self.detector: detection.Detector | None = None

    def answer(self, text: str) -> dict[str, Any]:
        """What a message of the page comes to; with "error", in words, where nothing does."""
        at, one = 0, self.pictures[0]
        try:
            asked = storage.parse_record(text, Asked, "What was drawn")
            free = (n for n, p in enumerate(self.pictures) if p.name not in self.labelled)
            at = next(free, 0) if asked.at is None else asked.at % len(self.pictures)
            one = self.pictures[at]
            told = getattr(self, asked.what)(one, asked)
        except Exception as error:  # the page waits for an answer
            told = {"error": str(error) or type(error).__name__}
        place = {"at": at, "count": len(self.pictures), "name": printable(one.path.name)}
        done = {"labelled": len(self.labelled), "is_labelled": one.name in self.labelled}
        return place | done | told

    def show(self, one: Picture, _: Asked) -> dict[str, Any]:
        """The picture as a JPEG, its size (H, W), and what is drawn on it already."""
        pixels, beside = read_image(one.path), _labels(one.path)
        shapes = list[Shape]()
        for path in beside[:1]:  # labelme's, if it is there
            with naming(short_path(path)):
                if path.suffix == ".json":
                    shapes = stored_shapes(storage.read_json(path).get("shapes", []), pixels.shape)
                else:
                    shapes = shapes_of(decode_mask(read_file(path), path.name))
        seen = reduced(pixels, min(1.0, (SHOWN / pixels.size) ** 0.5))
        low, high = np.percentile(seen, (0.1, 99.9))
        seen = ((seen - low) * (255 / max(1.0, high - low))).clip(0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        picture = f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
        drawn_here = [shape.model_dump() for shape in shapes]
        return {"size": pixels.shape, "picture": picture, "shapes": drawn_here}

    def save(self, one: Picture, asked: Asked) -> dict[str, Any]:
        """Write both files; or a "question", where that would replace what was not drawn here."""
        path, size = one.path, read_image(one.path).shape
        mask, raws = drawn(size, asked.shapes)
        if mask.any() == asked.is_good:
            raise DataError("Nothing is drawn. If the surface is good, press No defect.")
        alike = [p.path for p in self.pictures if p.name.casefold() == one.name.casefold()]
        beside, ours = _labels(path), _written(path.parent)
        if len(alike) > 1 or printable(path.name) != path.name:
            names = " and ".join(printable(p.name) for p in alike)
            raise DataError(f"{names} cannot have a label of its own: rename it.")
        if one.name in self.named and not beside:
            raise DataError(f"{path.name} has a label that is not beside it: correct it there.")
        earlier = [p for p in beside if p.name not in ours or not ours[p.name].fits(p)]
        if earlier and not asked.is_agreed:
            names = listed([printable(p.name) for p in earlier], 3)
            return {"question": f"Not drawn here: {names}. Put it aside and save yours?"}
        for old in earlier:
            name = f"{old.name}.earlier"
            kept = storage.first_free(path.parent, name, lambda p: not os.path.lexists(p))
            os.replace(old, kept)
        label = path.with_name(f"{path.stem}_label.png")
        about: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": raws}
        about |= {"imagePath": path.name, "imageData": None, labelme.COPY: label.name}
        about |= dict(zip(("imageHeight", "imageWidth"), size, strict=True))
        png = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
        made = {path.with_suffix(".json"): storage.json_text(about).encode(), label: png}
        hashes = {p.name: storage.FileHash.of(data) for p, data in made.items()}
        storage.write_record(path.parent / WRITTEN, Labels(files=ours | hashes))
        for place, data in made.items():
            storage.write_bytes(place, data)
        self.named.add(one.name)
        self.labelled.add(one.name)
        return {"told": f"Saved: {label.name} ({'good' if asked.is_good else 'defective'})."}

    def propose(self, one: Picture, _: Asked) -> dict[str, Any]:
        """What a trained model takes for a defect, as outlines, and its verdict in words."""
        self.detector = self.detector or detection.load(self.weights)
        found = self.detector.judge(read_image(one.path))
        if found.mask is None:
            return {"told": "The model sees no surface here.", "shapes": []}
        slack = max(1.0, max(found.mask.shape) / 500)  # its map is coarser than the picture
        seen = shapes_of(found.mask >= found.mask_threshold, slack=slack)
        score = f"{found.label}, score {found.score:.2f}, threshold {found.threshold:.2f}"
        told = f"{self.detector.origin}: {score}."
        return {"told": told, "shapes": [shape.model_dump() for shape in seen]}


def form(folder: str = "") -> None:
    """Show boxes for a folder and a weights file, and a button that opens the page below."""
    widgets = outputs.ipywidgets()
    if widgets is None:
        return
    example = "a folder of pictures, for example /content/drive/MyDrive/parts"
    start = folder if Path(folder).expanduser().is_dir() else ""
    box = widgets.Text(
        value=start, placeholder=example, description="Folder to label", **outputs.LOOK
    )
    other = "a weights file; empty: the published model"
    weights = widgets.Text(placeholder=other, description="Proposals by", **outputs.LOOK)
    button, below = widgets.Button(description="Draw labels"), outputs.Answer()
    page, place = widgets.VBox(), widgets.Output()  # one for Jupyter, one for Colab

    def start_drawing(_: outputs.Widget) -> None:
        page.children = ()
        place.clear_output()
        with below.told():
            if not unquoted(box.value):  # "" would mean the folder at work
                raise DataError("Type the path of a folder first.")
            root, model = (Path(unquoted(one.value)).expanduser() for one in (box, weights))
            drawer = Drawer(root, model if unquoted(weights.value) else None)
            if colab.in_colab():
                key = f"ksdd-{uuid.uuid4().hex}"
                colab.let_call(key, lambda text: drawer.answer(text.partition(" ")[2]))
                with place:
                    outputs.show_table(_page(key), "")
            else:
                page.children = _page_of_jupyter(widgets, drawer)

    button.on_click(start_drawing)
    outputs.show_controls(box, weights, button, below.text, page, place)


def _page_of_jupyter(widgets: outputs.Widget, drawer: Drawer) -> list[outputs.Widget]:
    """The page in a frame of its own, whose keys and style are not the notebook's."""
    key = f"ksdd-{uuid.uuid4().hex}"
    asks, answers = boxes = [widgets.Textarea(layout={"display": "none"}) for _ in range(2)]
    asks.add_class(f"{key}-asks")
    answers.add_class(f"{key}-answers")

    def hear(change: outputs.Widget) -> None:
        number, _, text = change["new"].partition(" ")
        answers.value = json.dumps({"id": number} | drawer.answer(text))

    asks.observe(hear, names="value")
    source = html.escape(_page(key))
    style = "width: 100%; height: 44em; border: 0"
    return [widgets.HTML(f'<iframe title="Draw labels" style="{style}" srcdoc="{source}">'), *boxes]


def _page(key: str) -> str:
    return PAGE.read_text("utf-8").replace("THE_KEY", key)


def _labels(picture: Path) -> list[Path]:
    """The files beside a picture that may be its label: labelme's first."""
    found = []
    for path in picture.parent.iterdir():
        kind, word = path.suffix.lower(), masks_beside.MASK_WORD.fullmatch(path.stem)
        is_mask = kind in masks_beside.MASK_ENDINGS and path != picture
        stem = word["stem"] if word and is_mask else path.stem
        if (is_mask or kind == ".json") and stem.casefold() == picture.stem.casefold():
            found.append(path)
    return sorted(found, key=lambda path: (path.suffix != ".json", path.name))


def _written(folder: Path) -> dict[str, storage.FileHash]:
    record = folder / WRITTEN
    return dict(storage.read_record(record, Labels).files) if record.exists() else {}
