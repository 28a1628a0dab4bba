"""Data of any layout as item folders, which all that follows reads."""

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from ksdd_lib import storage
from ksdd_lib.data import item_folders
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.item_folders import LABELS, LIKE_A_MASK, NOT_GOOD, is_like_a_mask, not_plain
from ksdd_lib.data.layout_note import CLASSES, NOTE, LayoutNote, read_note, write_classes
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.zips import PLAIN
from ksdd_lib.errors import DataError, with_link
from ksdd_lib.formatting import listed, printable
from ksdd_lib.layouts.catalog import LAYOUTS, recognise
from ksdd_lib.layouts.found import OTHER_KINDS, Found, Picture, Tree, are_items, nothing
from ksdd_lib.settings import Settings

VERSION = 11  # raise it whenever the readers may answer otherwise: the data is then read anew


def as_item_folders(folder: DataFolder, home: Path, settings: Settings) -> DataFolder:
    """The data as item folders: as it lies, or else written below `home`/data if need be.

    Raises DataError as `catalog.recognise` and `write`.
    """
    asked = [settings.layout, settings.item, *["good"] * (settings.incomplete == "good")]
    has_classes = settings.classes == "one" or (folder.root / NOTE).exists()
    if asked == ["auto", "auto"] and has_classes and is_item_folders(folder.root):
        return folder
    tree = Tree(_inner(folder.root))
    facts = [(name, *_facts(tree.path(name))) for name in tree.files]
    digest = storage.sha256(json.dumps([VERSION, asked, facts]).encode())
    target = Path(home).resolve() / "data" / f"{_plain(folder.name)}-items-{digest[:12]}"
    if not (target / NOTE).exists():
        with storage.whole_folder(target, (target / NOTE).exists) as made:
            write(tree, made, settings)
    note = read_note(target)
    assert note is not None
    return replace(folder, root=target, layout=note.layout, notes=note.notes)


def convert(root: Path, target: Path, settings: Settings) -> LayoutNote:
    """Write the data in `root` as item folders into `target`, which must be new; as `write`."""
    if target.exists():
        raise DataError(f"{target.name} is there already: name a new folder.")
    with storage.whole_folder(target, target.exists) as made:
        return write(Tree(_inner(root)), made, settings)


def is_item_folders(root: Path) -> bool:
    """Whether a folder is read as it lies: parts in folders of their own, labels beside them."""
    try:
        files = item_folders.list_files(root)
    except DataError:
        return False
    items = {name.partition("/")[0] for name in files.images}
    labelled = {name.partition("/")[0] for name in files.masks.keys() & files.images.keys()}
    return are_items(items) and are_items(labelled)


def write(tree: Tree, target: Path, settings: Settings) -> LayoutNote:
    """Write what a folder holds as item folders into `target`, and the note beside them.

    Pictures are copied as they are. One without a label, or with one that cannot be read, is copied
    too, and named in the notes: training refuses it until it has one. Raises DataError where two
    pictures would have one name, or the rest is not plainly good though it is said to be.
    """
    layout, found = recognise(tree, settings.layout, settings.incomplete == "good")
    if settings.incomplete == "good":
        found = _rest_is_good(tree, found)
    places = _places(found.pictures, settings.item)
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda one: _write_one(one[0], target, one[1]), places.items()))
    told = [LAYOUTS[layout].lack if one == Picture.lack else one for one in told]
    names = {picture: _sample_name(place) for picture, place in places.items()}
    lacks = {picture: lack for picture, lack in zip(places, told, strict=True) if lack}
    note = LayoutNote(
        layout=layout,
        notes=_notes(tree, found, lacks, settings.item),
        sides={names[one]: one.side for one in found.pictures if one.side},
        classes={names[one]: one.classes for one in found.pictures if one.classes},
        defective=tuple(names[one] for one in found.pictures if one.is_defective),
        lacks={names[one]: printable(lack) for one, lack in lacks.items()},
    )
    storage.write_record(target / NOTE, note)
    return note


def part_of(picture: Picture, rule: str) -> str | None:
    """The part that a picture shows by the setting `item`; None where that does not tell."""
    path = PurePosixPath(picture.name)
    if rule in ("auto", "picture"):
        return picture.item if rule == "auto" else picture.name
    if rule == "folder":
        return path.parent.as_posix() if len(path.parts) > 1 else None
    match = re.fullmatch(rule, path.name)
    return match and (match[1] if match.re.groups else match[0])


def item_of(picture: Picture, rule: str) -> str:
    """The item that a picture belongs to, by the setting `item`: its own where that tells none."""
    return part_of(picture, rule) or picture.name


def propose(names: Sequence[str]) -> str:
    """A sentence on the items that folders or names suggest; "" where they suggest none."""
    folders = {part for name in names for part in PurePosixPath(name).parts[:-1]}
    patterns = [r"(.+)[ _.-].+", r"(.*[^0-9])[0-9]+", r"(.+?)[ _.-].+"]
    for rule in ["folder"] * are_items(folders) + patterns:
        found = Counter(item_of(Picture(name, Path(), None), rule) for name in names)
        if 3 <= len(found) <= len(names) / 1.5 and max(found.values()) <= len(names) / 3:
            where = "each folder shows one" if rule == "folder" else "their names tell the"
            return (
                f"Where {where} part, --set 'item={rule}' makes {len(found)} parts of "
                f"{len(names)} pictures, as {listed(list(found), 3)}"
            )
    return ""


def _on_parts(pictures: Sequence[Picture], rule: str) -> str:
    """What to say of the pictures whose part is not known, or "".

    Raises DataError where a rule that was given tells the part of none.
    """
    names = [one.name for one in pictures]
    alone = [one.name for one in pictures if not part_of(one, rule)]
    if not alone:
        return ""
    if len(alone) < len(names):
        told = f"{len(alone)} of {len(names)} pictures are taken for parts of their own"
        return f"{told}, as item={rule} does not tell theirs: {listed(alone, 5)}"
    if rule != "auto":
        last = PurePosixPath(names[0]).name
        hint = f"the whole of a name without its ending must match, as {last}"
        hint = "none lies in a folder below" if rule == "folder" else hint
        raise DataError(f"item={rule} tells the part of no picture: {hint}.", see="data#item")
    return ". ".join(filter(None, ["Each picture is taken for a part of its own", propose(names)]))


def _places(pictures: Sequence[Picture], rule: str) -> dict[Picture, PurePosixPath]:
    """Each picture -> where it goes, `<item>/<name>.<ending>`."""
    places: dict[Picture, PurePosixPath] = {}
    taken: dict[str, Picture] = {}
    for one in pictures:
        part = _plain(PurePosixPath(one.name).name)
        place = PurePosixPath(_plain(item_of(one, rule)), part + one.path.suffix.lower())
        if _sample_name(place).casefold() in taken:  # of another folder
            place = place.with_name(_plain(one.name) + place.suffix)
        if other := taken.get(_sample_name(place).casefold()):
            told = f"{one.path.name} and {other.path.name} would both be {place}: rename one."
            raise DataError(told, see="data#item")
        taken[_sample_name(place).casefold()] = one
        places[one] = place
    return places


def _write_one(picture: Picture, target: Path, name: PurePosixPath) -> str:
    """Copy a picture and write its label -> why there is none, or ""."""
    place = target / name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture.path, place)
    if picture.mask is None:
        return picture.lack
    try:
        size = read_image(picture.path).shape
        mask = picture.mask(size)
        each = [one(size) for one in picture.class_masks]
    except DataError as error:
        return str(error)
    label = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
    place.with_name(f"{place.stem}_label.png").write_bytes(label)
    if each:
        write_classes(target / CLASSES / name.with_suffix(".png"), np.stack(each))
    return ""


def _rest_is_good(tree: Tree, found: Found) -> Found:
    """The same, where pictures that no label names show no defect.

    Raises DataError where a file near may be the label of one, or a name tells of a defect.
    """
    rest = [one for one in found.pictures if one.is_open]
    names = defaultdict[Path, dict[str, str]](dict)
    for one in found.pictures:
        names[one.path.parent][one.name] = one.path.stem
    doubts = {key: told for side in names.values() for key, told in not_plain(side).items()}
    unread = [name for name in _not_understood(tree, found) if not PLAIN.fullmatch(name)]
    near = [doubts[one.name] for one in rest if one.name in doubts]
    near += [one.name for one in rest if re.search(f"{LABELS}|{NOT_GOOD}", one.name, re.IGNORECASE)]
    with ThreadPoolExecutor() as pool:
        alike = pool.map(lambda one: is_like_a_mask(read_image(one.path)), rest)
        near += [
            f"{one.name} {LIKE_A_MASK}" for one, is_mask in zip(rest, alike, strict=True) if is_mask
        ]
    if told := [*unread, *dict.fromkeys(near)]:
        raise DataError(
            f"No picture is called good while this is near: {listed(told, 5, '; ')}. "
            "Take it away or rename it, or leave incomplete at refuse.",
            see="labels#incomplete",
        )
    good = [replace(one, mask=nothing) if one in rest else one for one in found.pictures]
    said = f"{len(rest)} pictures without a label are good, as set"
    return Found(good, found.used, [*found.notes, *[said] * bool(rest)])


def _not_understood(tree: Tree, found: Found) -> list[str]:
    known = {picture.path for picture in found.pictures}
    return [n for n in tree.files if n not in found.used and tree.path(n) not in known]


def _notes(tree: Tree, found: Found, lacks: dict[Picture, str], rule: str) -> tuple[str, ...]:
    """What a user must know of the files: a sentence for each kind."""
    notes = list(found.notes)
    kinds: dict[str, list[str]] = {}
    for picture, lack in lacks.items():
        kinds.setdefault(lack, []).append(picture.name)
    for lack, names in sorted(kinds.items()):
        if len(names) > 1:
            notes.append(f"{len(names)} without a label, {lack}: {listed(names, 5)}")
    if single := [f"{names[0]}, {lack}" for lack, names in kinds.items() if len(names) == 1]:
        notes.append(f"{len(single)} without a label: {listed(single, 5, '; ')}")
    if rest := _not_understood(tree, found):
        hint = ". Save pictures as PNG or JPEG" * bool(tree.ending(*OTHER_KINDS))
        notes.append(f"{len(rest)} files not understood: {tree.listed(rest)}{hint}")
    notes.append(_on_parts(found.pictures, rule))
    return tuple(with_link(printable(note)) for note in notes if note)


def _inner(root: Path) -> Path:
    """The folder below which the data begins: a lone folder without files beside it is left out."""
    inside = [path for path in root.iterdir() if not path.name.startswith((".", "__"))]
    return _inner(inside[0]) if len(inside) == 1 and inside[0].is_dir() else root


def _facts(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "_", name.replace("/", "__")).strip("._") or "x"


def _sample_name(place: PurePosixPath) -> str:
    return place.with_suffix("").as_posix()
