"""The layout of item folders: `<item>/<part>.jpg` beside `<item>/<part>_label.png`.

An item is one physical object, photographed from several sides: its parts. Any names work;
KolektorSDD's are `kos01/Part5`. Images end in .jpg, .jpeg, .png or .bmp, labels in .bmp or .png.
"""

import itertools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ksdd_lib import formatting, storage
from ksdd_lib.data.dataset import natural_key, read_image, short_path
from ksdd_lib.data.pixels import IMAGE_EXTENSIONS
from ksdd_lib.data.synthetic import MARKER
from ksdd_lib.errors import DataError, with_link

MASK_EXTENSIONS = (".bmp", ".png")
LIKE_A_LABEL = re.compile(r"(.+)[ ._-](?:labels?|masks?)", re.IGNORECASE)  # though not read as one
# Names of what may be a label, or a defect that a black label would make a good surface.
LABELS = r"(?<![^\W\d_])(?:gt|seg|ann)(?![^\W\d_])|(?:ground.?)?(?:mask|label|annot|truth|segment)"
NOT_GOOD = (
    r"(?<![^\W\d_])(?:ng|nok|n\.?i\.?o|ko|bad|not|dent|hole)(?![^\W\d_])"
    r"|defe[ck]t|d[eé]faut|reject|fail|(?<!de)fault|flaw|damage|broken|scrap|crack|scratch"
    r"|stain(?!less)|contamin|anomal|abnormal|fehler|ausschuss|schlecht|不良|缺陷|欠陥|불량"
)
OF_WINDOWS = ("thumbs.db", "desktop.ini")
WRITTEN = ".label_good.json"  # holds `Labels`
LAYOUT = "a folder for each item, in it <name>.jpg beside <name>_label.png"


class Pair(NamedTuple):
    """The two files of a sample, and why a black mask must not be taken for a good surface."""

    image: Path
    mask: Path | None  # None where it is known to be defective, but not where
    doubt: str | None = None


class Files(NamedTuple):
    """What lies below a root by sample name, and what is outside the layout; no hidden files."""

    images: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]
    doubts: Mapping[str, str]  # what is wrong with a file probably meant as the label
    ignored: list[str]

    def pair(self, name: str) -> Pair | str:
        """The files of a sample, or why there is not one image with one mask."""
        images, masks, doubt = self.images[name], self.masks.get(name, []), self.doubts.get(name)
        for kind, paths in (("images", images), ("masks", masks)):
            if len(paths) > 1:
                return f"two {kind} of one name, {' and '.join(map(short_path, paths))}"
        if masks:
            return Pair(images[0], masks[0], doubt)
        missing = f"{short_path(images[0])} has no mask {name}_label.bmp or .png beside it"
        return with_link(doubt or missing, "labels#names")


def list_files(root: Path) -> Files:
    """What lies below `root`, of which no file is opened; DataError where no image is there."""
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist: give the folder of the items.")
    images, masks, others, ignored = defaultdict(list), defaultdict(list), [], []
    for item in _visible(root):
        if not item.is_dir():
            ignored += [item.name] * (item.name != MARKER)
            continue
        for path in _visible(item):
            stem, extension = os.path.splitext(path.name)
            part = stem.removesuffix("_label")
            if path.is_dir():
                ignored.append(f"{item.name}/{path.name}/")
            elif part == stem and extension.lower() in IMAGE_EXTENSIONS:
                images[f"{item.name}/{part}"].append(path)
            elif part != stem and extension.lower() in MASK_EXTENSIONS:
                masks[f"{item.name}/{part}"].append(path)
            else:
                others.append(path)
    doubts: dict[str, str] = {}
    for path in [*itertools.chain(*images.values()), *others]:
        meant = LIKE_A_LABEL.fullmatch(path.stem)
        if meant and (name := f"{path.parent.name}/{meant[1]}") in images:
            found = f"{short_path(path)} looks like the label of {name}"
            read = f"but only {name}_label.png or .bmp is read: save it as that, or take it away"
            doubts.setdefault(name, f"{found}, {read}")
            if images.pop(f"{path.parent.name}/{path.stem}", None):
                others.append(path)
    if not images:
        raise DataError(f"No image in {root}: expected {LAYOUT}.", see="data#layout")
    others += [path for name in masks.keys() - images.keys() for path in masks[name]]
    ignored += map(short_path, others)
    return Files(images, masks, doubts, sorted(ignored, key=natural_key))


class Labels(storage.Record):
    """What `write_labels` has written below a root: the label files by `<item>/<file>`."""

    files: dict[str, storage.FileHash]


def missing_labels(root: Path) -> dict[Path, bytes]:
    """A black label, as path and content, for each image that has none and may be called good.

    DataError where not all below `root` is plainly items with photographs and their labels: what
    else lies there may tell of a defect. Reads every image without a label, and writes nothing.
    """
    files = list_files(root)
    found = [*_strangers(root, files), *files.doubts.values()]
    labels = {}
    for name in sorted(files.images.keys() - files.masks.keys(), key=natural_key):
        image = files.images[name][0]
        pixels = read_image(image)
        if is_like_a_mask(pixels):
            found.append(f"{short_path(image)} {LIKE_A_MASK}")
        content = cv2.imencode(".png", np.zeros(pixels.shape, np.uint8))[1].tobytes()
        labels[image.with_name(f"{image.stem}_label.png")] = content
    if found:
        raise DataError(
            f"Nothing was written. No picture is called good while anything but numbered items with"
            f" photographs and their labels is near: {formatting.listed(found, 5, '; ')}. Take it"
            " away or rename it, or store black labels yourself.",
            see="labels#label_good",
        )
    return labels


LIKE_A_MASK = "has hardly more than two gray levels, as labels have"


def is_like_a_mask(pixels: np.ndarray) -> bool:
    """Whether a picture has hardly more than two gray levels."""
    levels = np.sort(np.bincount(pixels.ravel(), minlength=256))
    return bool(levels[-2:].sum() > 0.9 * pixels.size or np.count_nonzero(levels) <= 8)


def write_labels(root: Path, labels: Mapping[Path, bytes]) -> None:
    """Write these files, after what `remove_labels` needs to take them back."""
    before = _written(root)
    added = {short_path(path): storage.FileHash.of(data) for path, data in labels.items()}
    storage.write_record(root / WRITTEN, Labels(files=before | added))
    for path, data in labels.items():
        storage.write_bytes(path, data)


def remove_labels(root: Path) -> tuple[list[Path], list[Path]]:
    """Remove what `write_labels` wrote -> the files removed, and those that changed and stay."""
    written = _written(root)
    found = [path for path in root.glob("*/*_label.png") if short_path(path) in written]
    removed = [path for path in found if written[short_path(path)].fits(path)]
    kept = [path for path in found if path not in removed]
    for path in removed:
        path.unlink()
    (root / WRITTEN).unlink(missing_ok=True)
    return removed, kept


def _written(root: Path) -> dict[str, storage.FileHash]:
    record = root / WRITTEN
    return dict(storage.read_record(record, Labels).files) if record.exists() else {}


def _strangers(root: Path, files: Files) -> Iterator[str]:
    """What is near that is not plainly a numbered item, its photograph or a photograph's label."""
    place = root.resolve()
    for folder in _visible(place.parent):
        words = f"{LABELS}|{NOT_GOOD}" if folder == place else LABELS
        if folder.is_dir() and re.fullmatch(f"(?:{words})[a-z]*", folder.name, re.IGNORECASE):
            yield f"the folder {folder.name}/"
    for name in files.ignored:
        if Path(name).name.lower() not in OF_WINDOWS:
            yield name
    items: dict[str, list[Path]] = {path.name: [] for path in _visible(root) if path.is_dir()}
    for paths in [*files.images.values(), *files.masks.values()]:
        if len(paths) > 1:
            yield " and ".join(map(short_path, paths))
    for image, *_ in files.images.values():
        items[image.parent.name].append(image)
    for item in items:
        if not re.search("[0-9]", item):
            yield f"{item}/, which has no number"
    for images in items.values():
        yield from not_plain({short_path(path): path.stem for path in images}).values()
    yield from not_plain({f"{item}/": item for item in items}).values()


def not_plain(names: Mapping[str, str]) -> dict[str, str]:
    """Of what stands side by side under these names: what may be no photograph, or of a defect.

    -> those keys, each with what to say of it.
    """
    found = {}
    words = {key: unicodedata.normalize("NFC", name).casefold() for key, name in names.items()}
    for key, word in words.items():
        if re.search(f"{LABELS}|{NOT_GOOD}", word):
            found[key] = key
    for (key, word), (other, longer) in itertools.permutations(words.items(), 2):
        # "Part1" in "Part10" is another number.
        start, end = r"(?<![0-9])" * word[0].isdigit(), "(?![0-9])" * word[-1].isdigit()
        if word in longer and re.search(start + re.escape(word) + end, longer):
            found.setdefault(other, f"{other}, which may belong to {key}")
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
