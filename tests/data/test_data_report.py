"""The data report: true counts, faults listed, storable anywhere."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ksdd_lib.data.data_report import DataReport, HeldOutCounts, Sizes, format_report, inspect_data
from ksdd_lib.data.dataset import read_image
from ksdd_lib.data.kolektorsdd import ARCHIVE
from ksdd_lib.data.sources import DataFolder, from_folder
from ksdd_lib.data.survey import Duplicate, survey
from ksdd_lib.errors import DataError
from ksdd_lib.presets import resolve
from ksdd_lib.settings import Settings


def report_of(
    root: Path, folder: DataFolder | None = None, settings: Settings | None = None
) -> DataReport:
    """The report of a folder for a run of these settings, or of the preset cpu."""
    return inspect_data(survey(root), folder or from_folder(root), settings or CPU)


def test_the_report_counts_what_is_there(tiny_root: Path):
    report = report_of(tiny_root)
    assert (report.images, report.defective, report.items) == (24, 6, 6)
    assert report.sizes == Sizes(different=1, height=(160, 160), width=(128, 128))
    assert report.twins == () and report.is_kolektor is False
    assert report.folds["clean"].total == HeldOutCounts(
        test_items=6, test_images=24, test_defective=6, leaked_images=0, leaked_defective=0
    )
    assert "choose" in report.folds["official"].refused


def test_the_report_is_json_without_the_place_of_the_data(tiny_root: Path):
    stored = report_of(tiny_root).model_dump_json()
    assert str(tiny_root.parent) not in stored
    moved = tiny_root.parent / "elsewhere" / "tiny"
    shutil.copytree(tiny_root, moved)
    assert report_of(moved).model_dump_json() == stored


def with_exif(path: Path, orientation: int, pixels: np.ndarray | None = None) -> Path:
    """Store an image, by default the one that is there, with a tag that says how to turn it."""
    stored, exif = Image.fromarray(read_image(path) if pixels is None else pixels), Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif)
    return path


@pytest.mark.fault(49)
@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_pixels_that_exif_turns_is_refused_with_that_reason(
    tiny_root: Path, orientation: int, extension: str
):
    image = tiny_root / "tiny01" / "Part1.jpg"
    with_exif(image.rename(image.with_suffix(f".{extension}")), orientation)
    [found] = report_of(tiny_root).unreadable
    assert f"Part1.{extension} is 128x160 but its mask" in found.reason
    assert "is 160x128 (height x width): EXIF turns the picture, turn the mask" in found.reason


@pytest.mark.fault(49)
def test_a_mask_of_another_size_is_not_blamed_on_exif(tiny_root: Path):
    image = tiny_root / "tiny01" / "Part1.jpg"
    for orientation, shape in ((6, (160, 120)), (3, (128, 160)), (1, (128, 160))):
        with_exif(image, orientation, np.zeros(shape, np.uint8))
        [found] = report_of(tiny_root).unreadable
        assert "but its mask" in found.reason and "EXIF" not in found.reason


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("orientation", "side", "is_told"),
    [(1, 160, False), (2, 160, True), (3, 128, True), (4, 160, True), (6, 160, False)]
    + [(n, 128, n > 1) for n in (1, 5, 6, 8)],
)
def test_where_a_mask_fits_a_turned_picture_both_ways_it_is_named(
    make_data_set, tmp_path: Path, orientation: int, side: int, is_told: bool
):
    root = make_data_set(tmp_path / "parts", size=(side, 128))
    image = root / "tiny01" / "Part1.jpg"
    stored = read_image(image)
    with_exif(image, orientation, stored.T.copy() if orientation > 4 else stored)
    report = report_of(root)
    assert not report.unreadable
    text = "EXIF turns tiny01/Part1, and the label fits both ways"
    assert (text in format_report(report)) == is_told


@pytest.mark.fault(49)
@pytest.mark.parametrize(("white", "is_told"), [(255, 1), (1023, 1), (4095, 1), (16_384, 0)])
def test_pictures_that_leave_most_of_their_bits_empty_are_told(
    tiny_root: Path, white: int, is_told: int
):
    assert "16 bits" not in format_report(report_of(tiny_root))
    for path in sorted((tiny_root / "tiny01").glob("*.jpg"))[:3]:
        image = read_image(path).astype(np.float64)
        deep = (image / image.max() * white).astype(np.uint16)
        path.unlink()
        cv2.imwrite(str(path.with_suffix(".png")), deep)
    text = format_report(report_of(tiny_root))
    assert text.count(f"(up to {white} of 65535) in tiny01/Part0, tiny01/Part1, ") == is_told
    assert text.count("16 bits") == is_told


@pytest.mark.fault(11)
def test_faults_are_listed_and_nothing_is_split_while_a_file_is_unreadable(tiny_root: Path):
    (tiny_root / "tiny01" / "Part0.jpg").write_bytes(b"")
    (tiny_root / "tiny02" / "Part1_label.bmp").unlink()
    (tiny_root / "notes.txt").write_text("x")
    shutil.copy(tiny_root / "tiny03" / "Part1.jpg", tiny_root / "tiny03" / "Part9.jpg")
    shutil.copy(tiny_root / "tiny03" / "Part1_label.bmp", tiny_root / "tiny03" / "Part9_label.bmp")
    report = report_of(tiny_root)
    assert [row.name for row in report.unreadable] == ["tiny01/Part0", "tiny02/Part1"]
    assert report.duplicates == (Duplicate(dropped="tiny03/Part9", same_as="tiny03/Part1"),)
    assert report.ignored == ("notes.txt",)
    assert report.twins is None and report.folds is None
    text = format_report(report)
    for expected in (
        "tiny01/Part0.jpg is not a JPEG, PNG or BMP image: it is empty",
        "tiny02/Part1.jpg has no mask",
        "notes.txt",
    ):
        assert expected in text


def test_twins_and_their_folds_are_shown(tiny_root: Path):
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny07")
    report = report_of(tiny_root)
    assert report.twins == (("tiny02", "tiny07"),)
    assert report.folds["clean"].total.test_items == 7
    text = format_report(report)
    assert "tiny02 = tiny07\n  twins stay together, on one side of each clean fold" in text
    clean = report.folds["clean"]
    older = clean.model_copy(update={"total": clean.total.model_copy(update={"test_items": 6})})
    text = format_report(report.model_copy(update={"folds": {"clean": older}}))
    assert "6 of 7 items are in the clean folds: of twins the first is kept" in text


@pytest.mark.fault(37)
def test_the_closest_pairs_that_were_not_joined_are_shown_with_their_correlation(tiny_root: Path):
    report = report_of(tiny_root)
    assert len(report.closest) == 3 and report.twins == ()
    one = report.closest[0]
    line = f"{one.surfaces[0]} and {one.surfaces[1]}: correlation {one.correlation:.2f}"
    assert f"not taken for twins, though the most alike:\n  {line}\n" in format_report(report)
    older = DataReport.model_validate_json(report.model_dump_json(exclude={"closest"}))
    assert "most alike" not in format_report(older)
    for item in range(2, 7):
        shutil.copytree(tiny_root / "tiny01", tiny_root / f"tiny0{item}", dirs_exist_ok=True)
    assert "most alike" not in format_report(report_of(tiny_root))


def test_twins_are_those_of_the_settings(tiny_root: Path):
    shutil.copytree(tiny_root / "tiny02", tiny_root / "tiny07")
    for image in (tiny_root / "tiny07").glob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"\0")
    assert report_of(tiny_root).twins == (("tiny02", "tiny07"),)
    report = report_of(tiny_root, settings=replace(CPU, twins="identical"))
    assert report.twins == ()
    assert report.folds["clean"].total.test_items == 7
    assert "twins stay together" not in format_report(report)


CPU = resolve({"preset": "cpu"})  # 704x256, that is 2.75 times as high as wide
SQUEEZED = (
    "Your pictures are 576x1024 (height x width), the network sees 704x256 and squeezes them: "
    "image_size 320x560 keeps their shape."
)


def test_pictures_that_the_network_squeezes_are_named_with_a_size_that_keeps_their_shape(
    make_data_set, make_surface, tmp_path: Path
):
    root = make_data_set(tmp_path / "wide", size=(576, 1024))
    make_surface(root / "tiny01", "Part9", 9, False, (704, 256))  # one alone does not count
    report = report_of(root, settings=CPU)
    assert report.advice == (SQUEEZED,)
    assert f"\n{SQUEEZED}" in format_report(report)
    fitting = replace(CPU, image_size="320x560")
    assert report_of(root, settings=fitting).advice == ()


def test_small_pictures_keep_their_own_size(make_data_set, tmp_path: Path):
    root = make_data_set(tmp_path / "small", size=(144, 256))
    [advice] = report_of(root, settings=CPU).advice
    assert advice.endswith("squeezes them: image_size 144x256 keeps their shape.")


def test_pictures_of_about_the_networks_shape_are_left_alone(make_data_set, tmp_path: Path):
    root = make_data_set(tmp_path / "high", size=(325, 128))  # KolektorSDD's shape
    assert report_of(root, settings=CPU).advice == ()


@pytest.mark.fault(34)
def test_the_levels_of_the_masks_are_counted_and_labels_of_most_of_a_picture_named(tiny_root: Path):
    for number, mask in enumerate(sorted(tiny_root.glob("*/Part1_label.bmp"))[:3]):
        pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(mask), [pixels // 255, 255 - pixels, 0 * pixels + 255][number])
    report = report_of(tiny_root)
    assert report.mask_levels == {"0": 18, "0, 255": 4, "0, 1": 1, "255": 1}
    text = format_report(report)
    assert "\n  masks       levels 0 in 18; 0, 255 in 4; 0, 1 in 1; 255 in 1\n" in text
    assert (
        "More than half of the picture is marked as a defect in tiny02/Part1, tiny03/Part1:" in text
    )
    stored = report.model_dump_json(exclude={"mask_levels"})
    assert "masks  " not in format_report(DataReport.model_validate_json(stored))


def test_the_preset_demo_is_for_generated_surfaces(tiny_root: Path):
    line = "The preset demo is made for generated surfaces: take cpu for real ones."
    demo = resolve({"preset": "demo"})
    report = report_of(tiny_root, settings=demo)
    assert report.advice == (line,) and line in format_report(report)
    (tiny_root / "generated.json").write_text("{}")
    assert report_of(tiny_root, settings=demo).advice == ()


def test_a_stored_report_without_advice_is_shown_too(tiny_root: Path):
    report = report_of(tiny_root)
    older = DataReport.model_validate_json(
        report.model_dump_json(exclude={"advice", "defect_widths"})
    )
    assert older == report.model_copy(update={"advice": (), "defect_widths": None})
    assert format_report(older).startswith("tiny (data of your own)")


def test_the_origin_is_shown(tiny_root: Path):
    published = DataFolder(tiny_root, "KolektorSDD.zip", ARCHIVE.sha256, ("readme.md",))
    report = report_of(tiny_root, published)
    assert format_report(report).startswith("KolektorSDD.zip (the published file)")
    assert report.ignored == ("readme.md",)
    (tiny_root / "generated.json").write_text("{}")
    assert "tiny (GENERATED)" in format_report(report_of(tiny_root))


def test_a_set_with_nothing_usable_still_gets_its_report(tmp_path: Path):
    (tmp_path / "data" / "item").mkdir(parents=True)
    (tmp_path / "data" / "item" / "part.jpg").write_bytes(b"")
    report = report_of(tmp_path / "data")
    assert report.images == 0 and len(report.unreadable) == 1
    assert "none" in format_report(report)


def test_an_absent_folder_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        report_of(tmp_path / "none")


@pytest.mark.slow
def test_the_report_of_kolektor(kolektor_root: Path):
    report = report_of(kolektor_root)
    assert (report.images, report.defective, report.items) == (399, 52, 50)
    assert report.is_kolektor and not report.unreadable and not report.ignored
    assert report.sizes == Sizes(different=45, height=(1235, 1285), width=(500, 500))
    clean, official = (report.folds[name].total for name in ("clean", "official"))
    assert list(vars(clean).values()) == [47, 375, 48, 0, 0]
    assert list(vars(official).values()) == [50, 399, 52, 48, 8]
    assert "LEAK: 48 test images, 8 of them defective" in format_report(report)
