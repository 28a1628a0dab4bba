"""One image in; score, verdict and mask out."""

import csv
import io
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_data import huge_png
from small_results import Judge
from tiny_training import tiny_data, tiny_run

from ksdd_lib import storage
from ksdd_lib.data import synthetic
from ksdd_lib.deploy import detection, folder_table, weights
from ksdd_lib.deploy.detection import Detector
from ksdd_lib.errors import CheckpointError, DataError
from ksdd_lib.evaluation import scoring
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.methods.stage_training import train_stage
from ksdd_lib.methods.two_stage import TwoStageJudge
from ksdd_lib.models.two_stage import TwoStageNet, initialize
from ksdd_lib.settings import Settings


@pytest.fixture(scope="module")
def model():
    model = TwoStageNet()
    initialize(model, "kaiming", 0)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def surface():
    """A gray surface (200, 140)."""
    image, _ = synthetic.render((200, 144), 0, 0, 0, False)
    return np.ascontiguousarray(image[:, :140])


def detector_of(model, threshold, size="192x128", **chosen):
    settings = Settings(image_size=size, **chosen)
    return Detector(TwoStageJudge(model, settings), settings, threshold)


def test_the_score_is_the_networks_and_the_mask_has_the_images_size(model, surface):
    detector = detector_of(model, 0.0, precision="float32")
    found = detector.judge(surface)
    resized = cv2.resize(surface, (128, 192), interpolation=cv2.INTER_AREA)
    mask, score = model(torch.from_numpy(resized)[None, None] / 255)
    assert found.score == pytest.approx(score.item(), abs=1e-3)
    assert found.mask.shape == (200, 140) and found.mask.dtype == np.float32
    assert 0 <= found.mask.min() <= found.mask.max() <= 1
    assert found.mask.max() == pytest.approx(mask.sigmoid().max().item(), abs=0.05)


def test_the_threshold_decides_and_equality_is_good(model, surface):
    score = detector_of(model, 0.0, precision="float32").judge(surface).score
    labels = [
        detector_of(model, threshold, precision="float32").judge(surface).label
        for threshold in (score - 1, score, score + 1)
    ]
    assert labels == ["defective", "good", "good"]


def test_averaged_over_flips_a_mirror_image_is_judged_alike(model, surface):
    detector = detector_of(model, 0.0, average_flips=True, precision="float32")
    straight, mirrored = detector.judge(surface), detector.judge(surface[:, ::-1])
    assert straight.score == pytest.approx(mirrored.score, abs=1e-3)
    np.testing.assert_allclose(straight.mask, mirrored.mask[:, ::-1], atol=1e-2)


@pytest.mark.parametrize("level", [0, 127, 255])
@pytest.mark.fault(12)
def test_a_frame_without_contrast_is_not_a_surface(model, level):
    noise = np.random.default_rng(0).integers(0, 2, (200, 140))
    frame = np.clip(level + noise, 0, 255).astype(np.uint8)
    found = detector_of(model, 0.0).judge(frame)
    assert (found.label, found.score, found.mask) == ("not a surface", None, None)


@pytest.mark.fault(12)
@pytest.mark.parametrize("level", [0, 127, 255])
def test_the_networks_answer_a_constant_picture_with_finite_numbers(model, level):
    """Feature normalisation divides by a deviation that is 0 there."""
    pixels = torch.full((1, 1, 192, 128), level, dtype=torch.uint8)
    for precision in ("float32", "bfloat16"):
        score, mask = TwoStageJudge(
            model, Settings(precision=precision, average_flips=True, score="both")
        ).judge(pixels)
        assert score.isfinite() and mask.isfinite().all()


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("part", "kind"), [("segmentation", "mask"), ("segmentation", "decision"), ("decision", "both")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_whose_numbers_are_not_finite_never_judges(surface, part, kind, value, tmp_path):
    broken = TwoStageNet()
    initialize(broken, "kaiming", 0)
    with torch.no_grad():
        for parameter in getattr(broken, part).parameters():
            parameter.fill_(value)
    detector = detector_of(broken, 0.0, precision="float32", score=kind)
    with pytest.raises(CheckpointError, match="not finite"):
        detector.judge(surface)
    cv2.imwrite(str(tmp_path / "part.png"), surface)
    with pytest.raises(CheckpointError, match="not finite"):
        folder_table.judge_folder(detector, tmp_path)


def test_a_file_is_judged_as_its_pixels(model, surface, tmp_path):
    cv2.imwrite(str(tmp_path / "part.png"), surface)
    detector = detector_of(model, 0.0)
    assert detector.judge(tmp_path / "part.png").score == detector.judge(surface).score


def test_the_bytes_of_a_file_are_judged_too(model, surface):
    detector = detector_of(model, 0.0)
    content = cv2.imencode(".png", surface)[1].tobytes()
    assert detector.judge(content).score == detector.judge(surface).score
    with pytest.raises(DataError, match="the image is not a JPEG"):
        detector.judge(b"no picture")


ARRAYS = {
    "colour": (np.zeros((20, 20, 3), np.uint8), "cv2.COLOR_BGR2GRAY"),
    "with alpha": (np.zeros((20, 20, 4), np.uint8), "cv2.COLOR_BGRA2GRAY"),
    "colour, float": (np.zeros((20, 20, 3)), "cv2.COLOR_BGR2GRAY"),
    "one channel": (np.zeros((20, 20, 1), np.uint8), "image.squeeze()"),
    "channels first": (np.zeros((3, 20, 20), np.uint8), "image.squeeze()"),
    "a batch": (np.zeros((1, 1, 20, 20), np.uint8), "image.squeeze()"),
    "flat": (np.zeros(400, np.uint8), "image.squeeze()"),
    "a number": (np.zeros((), np.uint8), "image.squeeze()"),
    "empty": (np.zeros((0, 20), np.uint8), "image.squeeze()"),
    "float": (np.zeros((20, 20), np.float32), "(255 / white * image)"),
    "16 bits": (np.zeros((20, 20), np.uint16), "(255 / white * image)"),
    "signed": (np.zeros((20, 20), np.int64), "(255 / white * image)"),
    "a mask": (np.zeros((20, 20), bool), "255 * image.astype(np.uint8)"),
    "objects": (np.zeros((20, 20), object), "uint8"),
}


@pytest.mark.fault(48)
@pytest.mark.parametrize("image, way", ARRAYS.values(), ids=ARRAYS)
def test_anything_but_gray_bytes_is_refused_with_the_way_to_them(model, image, way):
    with pytest.raises(DataError, match=r"must be uint8 \(H, W\), gray. Give ") as refused:
        detector_of(model, 0.0).judge(image)
    assert way in str(refused.value)


@pytest.mark.fault(48)
@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (400, 2)])
def test_an_array_that_is_too_small_to_judge_is_refused(model, shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with pytest.raises(DataError, match="The image is {}x{} .*sides from 16".format(*shape)):
        detector_of(model, 0.0).judge(image)


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    "image", [[[0, 1], [2, 3]], None, 7, torch.zeros(20, 20), io.BytesIO(b"x"), (1, 2)], ids=type
)
def test_what_is_no_picture_is_refused_by_its_type(model, image):
    with pytest.raises(DataError, match=f"of the type {type(image).__name__}: give a path"):
        detector_of(model, 0.0).judge(image)


@pytest.mark.fault(48)
@pytest.mark.parametrize("path", ["", ".", "absent.png", "a\0b.png", "x" * 300])
def test_a_path_of_no_file_is_refused(model, path):
    with pytest.raises(DataError, match="cannot be read"):
        detector_of(model, 0.0).judge(path)


@pytest.mark.fault(48)
def test_the_bytes_of_a_file_may_be_of_any_type(surface):
    content = cv2.imencode(".png", surface)[1]
    for image in (content.tobytes(), bytearray(content), memoryview(content.tobytes())):
        assert np.array_equal(detection.as_pixels(image), surface)
    for image in (b"", bytearray(), memoryview(surface)):
        with pytest.raises(DataError, match="the image is not a JPEG"):
            detection.as_pixels(image)


@pytest.mark.fault(48)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pil_image_is_read_as_its_file_would_be(mode, tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    image = Image.fromarray(random).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image.save(tmp_path / "x.png")
    read = detection.as_pixels(tmp_path / "x.png")
    assert read.shape == (40, 30) and read.std() > 30
    assert np.array_equal(detection.as_pixels(image), read)
    with Image.open(tmp_path / "x.png") as opened:
        assert np.array_equal(detection.as_pixels(opened), read)


@pytest.mark.fault(48)
def test_a_pil_image_is_turned_upright_as_its_file_is(surface, tmp_path):
    image, exif = Image.fromarray(surface), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "x.jpg") as opened:
        assert np.array_equal(detection.as_pixels(opened), detection.as_pixels(tmp_path / "x.jpg"))
        assert detection.as_pixels(opened).shape == surface.shape[::-1]


@pytest.mark.fault(48)
@pytest.mark.parametrize("mode, size", [("F", (20, 20)), ("CMYK", (20, 20)), ("L", (0, 0))])
def test_a_pil_image_that_no_file_holds_is_refused(mode, size):
    with pytest.raises(DataError, match=rf"mode {mode} .*of image.convert\('RGB'\)"):
        detection.as_pixels(Image.new(mode, size))


@pytest.mark.fault(48)
def test_a_pil_image_of_a_cut_file_is_refused(surface):
    content = cv2.imencode(".jpg", surface)[1].tobytes()
    with Image.open(io.BytesIO(content[:-2000])) as image, pytest.raises(DataError, match="cannot"):
        detection.as_pixels(image)


@pytest.mark.fault(11)
@pytest.mark.fault(12)
def test_a_folder_becomes_a_table_in_which_no_damaged_file_is_good(model, surface, tmp_path):
    content = cv2.imencode(".jpg", surface)[1].tobytes()
    files = {
        "a/=cmd.jpg": content,
        "cut.jpg": content[:-400],
        "empty.png": b"",
        "text.jpg": b"no picture",
        "pixel.png": cv2.imencode(".png", surface[:1, :1])[1].tobytes(),
        "huge.png": huge_png(30_000),
        "black.bmp": cv2.imencode(".bmp", np.zeros_like(surface))[1].tobytes(),
        "=1+1 ü <img onerror=alert(1)>.jpg": cv2.imencode(".jpg", surface[::-1])[1].tobytes(),
        "a/=cmd_label.bmp": b"a mask",
        "notes.txt": b"no image",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    rows = folder_table.judge_folder(detector_of(model, -100.0), tmp_path)
    unreadable = ["cut.jpg", "empty.png", "huge.png", "pixel.png", "text.jpg"]
    assert [(row.image, row.label) for row in rows[:6]] == [
        *((name, "unreadable") for name in unreadable),
        ("black.bmp", "not a surface"),
    ]
    assert all(row.reason and row.score is None for row in rows[:5])
    assert "huge.png is 30000x30000" in rows[2].reason
    assert [row.label for row in rows[6:]] == ["defective"] * 2
    assert rows[6].score >= rows[7].score
    folder_table.write_verdicts(tmp_path / "verdicts.csv", rows)
    with open(tmp_path / "verdicts.csv", newline="", encoding="utf-8") as file:
        header, *stored = csv.reader(file)
    assert header[:7] == ["image", "label", "score", "threshold", "x", "y", "reason"]
    assert len({row[0] for row in stored}) == 8 and {row[3] for row in stored[6:]} == {"-100.0"}
    height, width = surface.shape
    assert all(0 <= row.x < width and 0 <= row.y < height for row in rows[6:])
    names = {row[0] for row in stored}
    assert "'=1+1 ü <img onerror=alert(1)>.jpg" in names and "a/=cmd.jpg" in names


def test_the_place_in_the_table_is_where_the_mask_is_highest(model, surface, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), surface)
    detector = detector_of(model, 0.0)
    [row] = folder_table.judge_folder(detector, tmp_path)
    mask = detector.judge(tmp_path / "a.png").mask
    assert mask[row.y, row.x] == mask.max()


def test_what_is_not_there_is_said(model, tmp_path):
    with pytest.raises(DataError, match="gone does not exist"):
        folder_table.judge_folder(detector_of(model, 0.0), tmp_path / "gone")


def test_a_picture_of_another_shape_is_judged_with_a_warning(model, surface, tmp_path):
    detector = detector_of(model, 0.0, "128x128")
    wide = cv2.resize(surface, (300, 128))
    assert detector.doubt((128, 128)) == detector.doubt((160, 128)) == ""
    assert detector.doubt(wide.shape).startswith("the picture is 128x300 (height x width)")
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    cv2.imwrite(str(tmp_path / "like.png"), cv2.resize(surface, (128, 128)))
    rows = folder_table.judge_folder(detector, tmp_path)
    reasons = {row.image: row.reason for row in rows}
    assert reasons["like.png"] == "" and "squeezed to 128x128" in reasons["wide.png"]
    assert all(row.label in ("good", "defective") for row in rows)
    assert "\nWarning for 1, named in the table: wide.png" in folder_table.outcome(rows)
    assert "Warning" not in folder_table.outcome([row for row in rows if not row.reason])


def rows_by_name(folder, threshold=100.0):
    """The rows of a folder, judged by its mean gray levels."""
    return {row.image: row for row in folder_table.judge_folder(Judge(threshold), folder)}


@pytest.mark.fault(41)
def test_files_of_other_kinds_are_counted_and_named(surface, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "good.png"), surface)
    assert list(rows_by_name(tmp_path)) == ["good.png"]
    assert capsys.readouterr().out == ""
    others = "a/one.tif two.TIF three.heic two_label.tif photo.pgm raw.nef BMW.txt nothing".split()
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"BMW and others, " * 9)
    assert list(rows_by_name(tmp_path)) == ["good.png"]
    kinds = "1 .heic, 1 .nef, 1 .pgm, 3 .tif, 1 .txt, 1 without ending"
    names = "BMW.txt, a/one.tif, nothing, photo.pgm, raw.nef and 3 more"
    said = f"Not judged, files of other kinds ({kinds}): 8 ({names}). Save pictures as PNG or JPEG."
    assert capsys.readouterr().out == f"{said}\n"
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match=re.escape(said)):
        rows_by_name(tmp_path)


@pytest.mark.fault(41)
def test_a_picture_is_known_by_its_content_whatever_its_ending(surface, tmp_path, capsys):
    jpeg, png, bmp = (cv2.imencode(kind, surface)[1].tobytes() for kind in (".jpg", ".png", ".bmp"))
    files = {
        **dict.fromkeys(["a.jfif", "a.JFIF", "b.jpe", "c.mpo", "d.jpg_large", "e"], jpeg),
        **dict.fromkeys(["f.dib", "g.BMP "], bmp),
        **dict.fromkeys(["h.apng", "i.tif", "j.pn"], png),
        "k.jpg": png,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    rows = rows_by_name(tmp_path)
    assert set(rows) == set(files) and {row.label for row in rows.values()} == {"defective"}
    assert capsys.readouterr().out == ""


@pytest.mark.fault(41)
def test_only_a_label_beside_its_picture_is_left_out_and_it_is_counted(surface, tmp_path, capsys):
    pictures = [
        "bottle_label.jpg",
        "_label.png",
        "a.jpg",
        "b/c.jpeg",
        "d_label.png",
        "e/a_label.png",
    ]
    labels = ["a_label.bmp", "b/c_label.jpg"]
    for name in pictures + labels:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), surface)
    (tmp_path / "d.txt").write_text("of no picture")
    assert set(rows_by_name(tmp_path)) == set(pictures)
    said = capsys.readouterr().out
    assert "Not judged, labels beside their pictures: 2 (a_label.bmp, b/c_label.jpg).\n" in said
    assert "files of other kinds (1 .txt): 1 (d.txt)" in said


@pytest.mark.fault(41)
def test_what_systems_put_beside_pictures_is_passed_over(surface, tmp_path, capsys):
    own = [".hidden.png", "a.png", "Trashes/b.png"]
    systems = [".Trashes/old.png", ".Trash-1000/c.png", "__MACOSX/x/a.png", "@eaDir/THUMB.png"]
    for name in own + systems:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(tmp_path / name), surface)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert set(rows_by_name(tmp_path)) == set(own)
    assert capsys.readouterr().out == ""


@pytest.mark.fault(41)
def test_linked_and_closed_folders_are_told_and_links_to_files_judged(
    surface, tmp_path, monkeypatch, capsys
):
    for name in ("in/a.png", "in/closed/b.png", "elsewhere/c.png", "in/folder.jpg/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(tmp_path / name), surface)
    folder = tmp_path / "in"
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    (folder / "broken.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "camera.png")
    os.mkfifo(folder / "pipe")
    look = os.scandir

    def scandir(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = rows_by_name(folder)
    labels = {name: row.label for name, row in rows.items()}
    judged = dict.fromkeys(["a.png", "link.png", "folder.jpg/d.png"], "defective")
    assert labels == judged | dict.fromkeys(["broken.png", "camera.png"], "unreadable")
    assert "broken link" in rows["broken.png"].reason
    said = capsys.readouterr().out
    assert "Not judged, links to folders: 2 (linked, round)." in said
    assert "Not judged, folders that cannot be opened: 1 (closed).\n" in said
    assert "files of other kinds (1 without ending): 1 (pipe)" in said


@pytest.mark.fault(49)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_that_leaves_most_of_its_bits_empty_is_told(surface, tmp_path, bits, channels):
    deep = (surface.astype(np.float64) / surface.max() * (2**bits - 1)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([deep] * channels))
    cv2.imwrite(str(tmp_path / "plain.png"), surface)
    rows = rows_by_name(tmp_path)
    assert "bits" not in rows["plain.png"].reason
    share = {8: "0.4", 10: "1.6", 12: "6.2", 14: "25.0"}.get(bits)
    if share is None:
        assert "bits" not in rows["deep.png"].reason
        return
    said = f"it uses {share}\u00a0% of its 16 bits (up to {2**bits - 1} of 65535): scale it"
    assert rows["deep.png"].reason.startswith(said)
    assert rows["deep.png"].label in ("good", "not a surface")
    told = folder_table.outcome([rows["deep.png"]])
    assert "\nWarning for 1, named in the table: deep.png: it uses" in told


@pytest.mark.fault(47)
def test_names_of_any_bytes_are_judged_and_written_escaped(surface, tmp_path, capsys):
    shown = {
        b"pr\xfcf.jpg": r"pr\xfcf.jpg",
        b"sub\xff/a.jpg": r"sub\xff/a.jpg",
        b"a\rb.jpg": r"a\rb.jpg",
        b"a\nb.jpg": r"a\nb.jpg",
        b"a\x1bb.jpg": r"a\x1bb.jpg",
        b" lead.jpg": " lead.jpg",
        b"trail.jpg ": "trail.jpg ",
        b"x" * 247 + b".jpg": "x" * 247 + ".jpg",
        "Foto\u202f3 \u00fc\u20ac\U0001f600.jpg".encode(): "Foto\u202f3 \u00fc\u20ac\U0001f600.jpg",
        b"broken\xfe.jpg": r"broken\xfe.jpg",
    }
    content = cv2.imencode(".jpg", cv2.resize(surface, (64, 32)))[1].tobytes()
    for name in shown:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name))
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"no picture" if name.startswith(b"broken") else content)
    (tmp_path / "in" / os.fsdecode(b"notes\xff.tx\xfft")).write_bytes(b"x")
    rows = folder_table.judge_folder(Judge(), tmp_path / "in")
    assert r"(1 .tx\xfft): 1 (notes\xff.tx\xfft)" in capsys.readouterr().out
    assert all(row.reason for row in rows)  # wider than high
    folder_table.outcome(rows).encode()
    out = tmp_path / ("v" * 251 + ".csv")
    folder_table.write_verdicts(out, rows)
    with open(out, newline="", encoding="utf-8") as file:
        stored = list(csv.DictReader(file))
    assert {row["image"] for row in stored} == set(shown.values())
    assert r"broken\xfe.jpg is not a JPEG" in stored[0]["reason"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


def test_a_folder_without_images_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="There is no image"):
        folder_table.judge_folder(detector_of(model, 0.0), tmp_path)


def test_a_published_file_says_how_to_judge(model, monkeypatch):
    data = weights.TrainedOn(name="parts", fingerprint="f" * 64)
    how = {"average_flips": True, "segmentation_loss": "mean_squared_error", "score": "decision"}
    card = weights.Card(
        file="given.safetensors",
        sha256="",
        image_size="704x256",
        threshold=1.5,
        mask_threshold=0.25,
        data=data,
        **how,
    )
    judge = TwoStageJudge(model, card.judging_settings())
    monkeypatch.setattr(detection.weights, "load", lambda path: (judge, card))
    detector = detection.load("given.safetensors")
    assert detector.size == (704, 256) and detector.threshold == 1.5
    assert detector.mask_threshold == 0.25
    assert {name: getattr(detector.settings, name) for name in how} == how
    assert detector.origin.startswith("given.safetensors, trained on parts (on other kinds of")


def test_a_fold_of_a_run_judges_as_its_evaluation_did(narrow, tmp_path):
    data = tiny_data(tmp_path / "data")
    run = tiny_run(tmp_path / "run", segmentation_steps=1, decision_steps=1, score="both")
    storage.write_record(run.folder / "data.json", data.record)
    train_stage(run, data, 0, "segmentation")
    train_stage(run, data, 0, "decision")
    scoring.evaluate(run, data)
    record = data.record.model_copy(update={"name": "generated surfaces", "is_generated": True})
    data = replace(data, record=record)
    detector = detection.of_run(run, data, 0)
    assert detector.origin.startswith("run, fold 0, trained on generated surfaces (on real")
    for row in read_predictions(run.folder / "predictions.csv"):
        found = detector.judge(data.read_pair(row.image)[0])
        assert found.score == pytest.approx(row.score)
        assert (found.label == "defective") == row.is_flagged
