"""Pascal VOC's masks, in which each class has a colour, are read with their classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts.conftest import same, write
from PIL import Image

from ksdd_lib.data.layout_note import class_names, read_classes
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import find_samples
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.presets import resolve

VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]  # as its paper's code has
VOID = (224, 224, 192)
OWN = [(0, 0, 0), (250, 50, 83), (36, 179, 83), (1, 2, 3), (240, 120, 240)]
CVAT = (
    "# label:color_rgb:parts:actions\nbackground:0,0,0::\nscratch:250,50,83::\n"
    "my dent:36,179,83::\nspot:240, 120, 240::\n"
)


def indices(mask: np.ndarray, several: bool = True, void: bool = True) -> np.ndarray:
    """Index 1 where the mask is, in its lower half 2, and 255 around it."""
    found = mask.astype(np.uint8)
    if several and mask.any():
        found[(np.arange(len(mask))[:, None] > np.argwhere(mask)[:, 0].mean()) & mask] = 2
    around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    found[around & ~mask] = 255 * void
    return found


def save(path: Path, found: np.ndarray, mode: str, colours: list[tuple[int, int, int]]) -> None:
    """Write indices as a picture with VOC's palette, or in colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)], table[255] = colours, VOID
    if mode == "P":
        image = Image.fromarray(found)
        image.putpalette(table.ravel().tolist())
    else:
        image = Image.fromarray(table[found])
    image.save(path)


@pytest.fixture
def laid(surfaces, tmp_path: Path):
    """Lays the surfaces out as VOC does, with their masks by `indices`."""

    def lay(mode: str = "P", colours=VOC, names: str = "", called: str = "labelmap.txt", **how):
        root = tmp_path / "data"
        for name, (image, mask) in surfaces.items():
            write(root / "VOC" / "JPEGImages" / f"{name}.png", image)
            found = indices(mask, **how)
            save(root / "VOC" / "SegmentationClass" / f"{name}.png", found, mode, colours)
            save(root / "VOC" / "SegmentationObject" / f"{name}.png", found, mode, colours)
        if names:
            (root / "VOC" / called).write_text(names, "utf-8")
        return root

    return lay


@pytest.fixture
def classes_of(tmp_path: Path):
    """A folder -> the names of its classes, and the samples with a mask for each."""

    def read(root: Path):
        settings = resolve({"preset": "cpu", "classes": "each"})
        folder = as_item_folders(DataFolder(root, root.name), tmp_path / "home", settings)
        samples = find_samples(folder.root)
        names = class_names(samples)
        masks = {one.name.rpartition("/")[2]: read_classes(one, names) for one in samples}
        return names, masks, folder.notes

    return read


@pytest.fixture
def lacks(tmp_path: Path):
    """A folder -> why pictures have no label, as the user is told."""

    def read(root: Path) -> str:
        folder = DataFolder(root, root.name)
        return " ".join(
            as_item_folders(folder, tmp_path / "home", resolve({"preset": "cpu"})).notes
        )

    return read


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("mode", "colours", "names", "called", "wanted"),
    [
        ("P", VOC, "", "", ("class 1", "class 2")),
        ("P", OWN, "", "", ("class 1", "class 2")),
        ("RGB", VOC, "", "", ("class 1", "class 2")),
        ("P", OWN, CVAT, "labelmap.txt", ("scratch", "my dent")),
        (
            "RGB",
            OWN,
            CVAT + f"ignored:{VOID[0]},{VOID[1]},{VOID[2]}::\n",
            "classes.txt",
            ("scratch", "my dent"),
        ),
        ("P", VOC, "_background_\nrust\npit\n", "class_names.txt", ("rust", "pit")),
        ("RGB", VOC, "rust\npit\n", "classes.txt", ("rust", "pit")),
    ],
)
def test_each_colour_is_a_class_and_void_is_none(
    mode, colours, names, called, wanted, laid, classes_of, surfaces
):
    void = colours is VOC or mode == "P" or bool(names)  # its colour needs no name
    found, masks, notes = classes_of(laid(mode, colours, names, called, void=void))
    assert found == tuple(sorted(wanted)) and masks.keys() == surfaces.keys()
    for name, (_, mask) in surfaces.items():
        theirs = indices(mask)
        for number, kind in enumerate(wanted, start=1):
            assert (masks[name][found.index(kind)] == (theirs == number)).all(), (name, kind)
    assert not any("not understood" in note for note in notes), notes


@pytest.mark.parametrize("mode", ["P", "RGB"])
@pytest.mark.parametrize("several", [False, True])
def test_as_one_class_all_colours_are_the_defect(mode, several, laid, read_back, surfaces):
    same(read_back(laid(mode, several=several)), surfaces)


def test_one_class_needs_no_masks_of_its_own(laid, classes_of, surfaces):
    found, masks, _ = classes_of(laid("P", OWN, CVAT, several=False, void=False))
    assert found == ("scratch",)
    assert all((masks[name][0] == mask).all() for name, (_, mask) in surfaces.items())


@pytest.mark.fault(73)
@pytest.mark.parametrize("names", ["", "# nothing\n", "background:0,0,0::\ncrack:255,255,255::\n"])
def test_black_and_white_masks_are_read_as_before(names, surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / "JPEGImages" / f"{name}.png", image)
        write(root / "SegmentationClass" / f"{name}.png", mask)
    (root / "labelmap.txt").write_text(names)
    same(read_back(root), surfaces)


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("mode", "colours", "names", "told"),
    [
        ("P", OWN, "background:0,0,0\nscratch:250,50,83\n", "the colour 36, 179, 83"),
        ("RGB", OWN, CVAT.replace("36,179,83", "36,179,84"), "the colour 36, 179, 83"),
        ("RGB", OWN, "", "the colour 36, 179, 83"),
    ],
)
def test_a_colour_without_a_class_is_no_label(mode, colours, names, told, laid, lacks, read_back):
    root = laid(mode, colours, names, void=False)
    assert f"SegmentationClass/part0_0.png has {told} (red, green, blue)" in lacks(root)
    with pytest.raises(DataError, match="cannot be used"):
        read_back(root)


@pytest.mark.fault(73)
def test_a_mask_of_void_alone_and_one_of_another_size_are_no_labels(laid, lacks, surfaces):
    root = laid("P")
    path = root / "VOC" / "SegmentationClass" / "part0_0.png"
    whole = indices(surfaces["part0_0"][1])
    for found, told in ((255 * (whole > 0), "marks nothing but void"), (whole[:-1], "159x128")):
        save(path, found.astype(np.uint8), "P", VOC)
        assert told in lacks(root)


@pytest.mark.fault(73)
def test_colours_elsewhere_are_no_masks_as_before(surfaces, lacks, tmp_path: Path):
    root = tmp_path / "data"
    for name, (image, mask) in surfaces.items():
        write(root / "images" / f"{name}.png", image)
        save(root / "masks" / f"{name}.png", indices(mask), "P", VOC)
    assert "no mask of two levels" in lacks(root)


def test_masks_of_objects_are_named_as_not_read(laid, classes_of) -> None:
    _, _, notes = classes_of(laid())
    [told] = [note for note in notes if "single objects" in note]
    assert told.startswith("6 masks of single objects are not read: ")
    assert "SegmentationObject/part0_0.png" in told
