"""Pixels: one rule from a file's bytes to gray or boolean pixels, and a bound before decoding."""

import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from small_data import huge_png

from ksdd_lib.data.pixels import decode_image, decode_levels, decode_mask
from ksdd_lib.errors import DataError

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encode(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def palette_bmp(indices: np.ndarray, palette: list[int]) -> bytes:
    """An 8-bit BMP as KolektorSDD's masks are: indices into a palette of grays."""
    height, width = indices.shape
    colours = b"".join(bytes([gray, gray, gray, 0]) for gray in palette)
    start = 14 + 40 + len(colours)
    header = struct.pack("<2sIHHI", b"BM", start + indices.size, 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, len(palette), 0)
    return header + info + colours + indices[::-1].astype(np.uint8).tobytes()


def palette_png(indices: np.ndarray, palette: list[int], bits: int = 8) -> bytes:
    """A PNG of indices with `bits` bits each into a palette of grays."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    height, width = indices.shape
    planes = np.unpackbits(indices.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(planes.reshape(height, -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # each behind its filter, none
    header = struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)
    colours = b"".join(bytes([gray] * 3) for gray in palette)
    parts = chunk(b"IHDR", header), chunk(b"PLTE", colours), chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.fault(10)
def test_sixteen_bits_are_scaled_and_keep_256_levels():
    sixteen = encode(".png", LEVELS.astype(np.uint16) * 257)
    assert np.array_equal(decode_image(sixteen, "x.png"), LEVELS)


@pytest.mark.fault(10)
def test_colour_and_transparency_become_one_gray_channel():
    colour = np.zeros((16, 16, 4), np.uint8)
    colour[..., 2], colour[..., 3] = 200, 7  # red, almost transparent
    expected = round(0.299 * 200)
    for channels in (3, 4):
        gray = decode_image(encode(".png", colour[..., :channels]), "x.png")
        assert gray.shape == (16, 16)
        assert abs(int(gray[0, 0]) - expected) <= 1


@pytest.mark.fault(10)
def test_exif_rotation_is_applied():
    upright = np.zeros((32, 48), np.uint8)
    upright[:16] = 255  # the upper half is bright
    turned = decode_image(with_orientation(encode(".jpg", upright), 6), "x.jpg")
    assert turned.shape == (48, 32)
    assert turned[:, 16:].mean() > 250 and turned[:, :16].mean() < 5


@pytest.mark.parametrize(
    "data",
    [
        encode(".png", LEVELS // 128),
        encode(".png", (LEVELS // 128).astype(np.uint16)),
        encode(".png", LEVELS // 128 * 255),
        encode(".png", (LEVELS // 128).astype(np.uint16) * 65535),
        encode(".bmp", LEVELS // 128 * 255),
        palette_bmp(LEVELS // 128, [0, 255]),
        palette_bmp(np.where(LEVELS == 115, 1, LEVELS // 128 * 2), [0, 85, 255]),
        palette_png(LEVELS // 128, [0, 255]),
        palette_png(1 - LEVELS // 128, [255, 0]),
        palette_png(LEVELS // 128, [0, 1]),
        palette_png(LEVELS // 128, [0, 255], bits=1),
        palette_png(np.where(LEVELS == 115, 1, LEVELS // 128 * 2), [0, 85, 255], bits=2),
    ],
    ids=[
        *("01", "01 16-bit", "0255", "0 65535", "bmp", "palette 01", "palette 012"),
        *("png palette", "reversed", "of 0 and 1", "1 bit", "2 bits"),
    ],
)
@pytest.mark.fault(8)
def test_every_way_to_store_a_mask_gives_the_same_booleans(data: bytes):
    mask = decode_mask(data, "mask")
    assert mask.dtype == bool
    assert np.array_equal(mask, LEVELS >= 128)


@pytest.mark.fault(8)
def test_a_mask_of_unclear_levels_is_never_taken_for_empty():
    with pytest.raises(DataError, match="Part1_label.png.* holds levels 0, 100: store good as 0"):
        decode_mask(encode(".png", LEVELS // 128 * 100), "Part1_label.png")


def drawn(white: int = 255, width: int = 9, scale: int = 1, smooth: bool = False) -> np.ndarray:
    """A mask with a blob and a crack of this width, enlarged `scale` times."""
    mask = np.zeros((200 * scale, 160 * scale), np.uint8)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    centre, axes = (80 * scale, 70 * scale), (40 * scale, 20 * scale)
    cv2.ellipse(mask, centre, axes, 30, 0, 360, white, -1, line)
    cv2.line(mask, (20 * scale, 130 * scale), (130 * scale, 180 * scale), white, width, line)
    return mask


def outlined(inside: int, outline: int, width: int) -> np.ndarray:
    mask = drawn(inside)
    edge = cv2.dilate(mask, np.ones((2 * width + 1,) * 2)) > mask
    return np.where(edge, outline, mask).astype(np.uint8)


def beside(first: int, second: int) -> np.ndarray:
    """A thin crack of the first level and a larger blob of the second."""
    mask = np.zeros((200, 160), np.uint8)
    cv2.ellipse(mask, (80, 70), (40, 20), 30, 0, 360, second, -1)
    cv2.line(mask, (20, 130), (130, 180), first, 2)
    return mask


BLACK = np.zeros_like(drawn())
PHOTOGRAPH = np.random.default_rng(0).integers(3, 252, BLACK.shape).astype(np.uint8)
INDICES = drawn(1)


def layers(blue, green, red, alpha=None) -> bytes:
    return encode(".png", cv2.merge([blue, green, red] + [alpha] * (alpha is not None)))


def saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


REFUSED = {
    "the crack is in alpha": (layers(*[BLACK + 255] * 3, drawn()), "alpha 0 to 255"),
    "black on transparent": (layers(*[BLACK] * 3, drawn()), "alpha 0 to 255"),
    "white, see-through": (layers(*[drawn()] * 3, BLACK), "alpha 0 to 0"),
    "half transparent": (layers(*[drawn()] * 3, BLACK + 128), "alpha 128 to 128"),
    "gray and alpha": (saved(Image.merge("LA", [Image.fromarray(drawn())] * 2)), "alpha"),
    "a transparent gray": (saved(Image.fromarray(drawn()), transparency=0), "transparency"),
    "a transparent index": (
        saved(Image.fromarray(INDICES).convert("P"), transparency=1),
        "alpha 0 to 255",
    ),
    "one colour": (layers(BLACK, drawn(), BLACK), r"\(0, 255, 0\)"),
    "two colours": (layers(beside(0, 255), beside(0, 255), beside(255, 255)), "255, 0, 0"),
    "nearly black": (layers(INDICES, BLACK, BLACK), r"\(0, 0, 1\)"),
    "gray classes": (encode(".png", beside(85, 255)), "levels 0, 85, 255"),
    "lighter classes": (encode(".png", beside(170, 255)), "levels 0, 170, 255"),
    "numbered classes": (encode(".png", beside(1, 2)), "levels 0, 1, 2"),
    "one and 255": (encode(".png", beside(1, 255)), "levels 0, 1, 255"),
    "a thin void outline": (encode(".png", outlined(255, 128, 1)), "levels 0, 128, 255"),
    "a void outline": (encode(".png", outlined(255, 200, 5)), "levels 0, 200, 255"),
    "white void": (encode(".png", outlined(1, 255, 2)), "levels 0, 1, 255"),
    "nearly white": (encode(".png", drawn(250)), "levels 0, 250"),
    "no black": (encode(".png", drawn(1) + 254), "levels 254, 255"),
    "16-bit classes": (encode(".png", beside(1, 2).astype(np.uint16)), "levels 0, 1, 2"),
    "16-bit gray": (encode(".png", drawn().astype(np.uint16) * 128), "levels 0, 32640"),
    "a black palette": (palette_png(INDICES, [0, 0]), "indices 0, 1, some of the same"),
    "a black palette in a bmp": (palette_bmp(INDICES, [0, 0, 255]), "indices 0, 1, some"),
    "one index merged": (palette_png(beside(1, 2), [0, 0, 255]), "indices 0, 1, 2"),
    "a photograph": (encode(".png", PHOTOGRAPH), "249 levels from 3 to 251"),
    "painted over": (encode(".png", np.maximum(PHOTOGRAPH, drawn())), "levels from 3 to 255"),
    "blurred": (encode(".png", cv2.GaussianBlur(drawn(), (0, 0), 3)), "levels from 0 to"),
}


@pytest.mark.fault(34)
@pytest.mark.parametrize(("data", "found"), REFUSED.values(), ids=REFUSED)
def test_whatever_is_no_mask_of_two_levels_is_refused_with_what_it_holds(data: bytes, found: str):
    with pytest.raises(DataError, match=f"^it1/a_label.png is no mask.*{found}.*: store good as 0"):
        decode_mask(data, "it1/a_label.png")


@pytest.mark.fault(34)
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("width", [3, 5, 9])
def test_the_smoothing_of_an_outline_is_cut_in_the_middle(width: int, scale: int):
    smooth = drawn(width=width * scale, scale=scale, smooth=True)
    mask, levels = decode_levels(encode(".png", smooth), "x")
    assert levels == "0, 255, smoothed"
    assert np.array_equal(mask, smooth > 127)
    fine = drawn(width=width * 4, scale=4)
    smaller = cv2.resize(fine, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    assert np.array_equal(decode_mask(encode(".png", smaller), "x"), smaller > 127)


@pytest.mark.fault(34)
@pytest.mark.parametrize("quality", [75, 95])
def test_a_mask_that_was_stored_with_loss_is_what_was_drawn(quality: int):
    """Nearly black and nearly white are near the outline alone, as a JPEG leaves them."""
    stored = cv2.imencode(".jpg", drawn(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    mask, levels = decode_levels(encode(".png", cv2.imdecode(stored, 0)), "x")
    assert levels == "0, 255, smoothed"
    assert np.array_equal(mask, drawn() > 0)


@pytest.mark.fault(34)
@pytest.mark.parametrize("level", [1, 20, 50, 100, 200])
@pytest.mark.parametrize("pixels", [1, 12])
def test_a_speck_of_another_level_beside_a_large_white_area_is_refused(level: int, pixels: int):
    mask = np.zeros((300, 300), np.uint8)
    mask[20:120, 20:120] = 255
    mask[200, 100 : 100 + pixels] = level
    with pytest.raises(DataError, match=f"levels 0, {level}, 255"):
        decode_mask(encode(".png", mask), "x")


@pytest.mark.fault(34)
def test_a_smooth_line_is_read_unless_the_cut_would_break_it():
    fine = cv2.resize(BLACK, None, fx=8, fy=8)
    for start, end, width in ((80, 400, 24), (400, 440, 3), (440, 1000, 24)):
        fine[304 : 304 + width, start:end] = 255
    line = cv2.resize(fine, BLACK.shape[::-1], interpolation=cv2.INTER_AREA)
    assert cv2.connectedComponents((line > 127).astype(np.uint8))[0] == 3, "it breaks"
    with pytest.raises(DataError, match="levels from 0 to 255|levels 0, "):
        decode_mask(encode(".png", line), "x")
    whole = drawn(width=1, smooth=True)
    assert np.array_equal(decode_mask(encode(".png", whole), "x"), whole > 127)


@pytest.mark.fault(34)
def test_a_smooth_mask_that_lost_a_part_is_refused():
    """One crack is whole, and the other is so thin that it is nowhere white."""
    mask = drawn(smooth=True)
    cv2.line(mask, (10, 10), (150, 17), 200, 1, cv2.LINE_AA)
    with pytest.raises(DataError, match="levels from 0 to 255"):
        decode_mask(encode(".png", mask), "x")


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        (encode(".png", BLACK), "0"),
        (encode(".png", BLACK + 255), "255"),
        (encode(".png", drawn(1)), "0, 1"),
        (encode(".bmp", drawn()), "0, 255"),
        (encode(".png", drawn().astype(np.uint16) * 257), "0, 65535"),
        (encode(".png", drawn().astype(np.uint16)), "0, 255"),
        (layers(*[drawn()] * 3), "0, 255"),
        (layers(*[drawn()] * 3, BLACK + 255), "0, 255"),
        (palette_png(INDICES, [0, 255, 0, 0]), "0, 255"),
    ],
)
def test_the_levels_of_a_mask_are_told(data: bytes, levels: str):
    mask, told = decode_levels(data, "x")
    assert told == levels
    assert np.array_equal(mask, BLACK == 0 if levels == "255" else drawn() * (levels != "0") > 0)


def test_a_bmp_stored_top_down_is_read_upright():
    upright = palette_bmp(LEVELS, list(range(256)))
    top_down = palette_bmp(LEVELS[::-1], list(range(256)))
    top_down = top_down[:22] + struct.pack("<i", -16) + top_down[26:]
    assert np.array_equal(decode_image(upright, "x.bmp"), LEVELS)
    assert np.array_equal(decode_image(top_down, "x.bmp"), LEVELS)


TEXTURE = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.98])
@pytest.mark.fault(11)
def test_a_cut_file_is_damaged_wherever_it_is_cut(extension: str, share: float):
    data = encode(extension, TEXTURE)
    with pytest.raises(DataError, match="kos01/x"):
        decode_image(data[: int(len(data) * share)], "kos01/x")


@pytest.mark.fault(11)
def test_a_jpeg_without_its_end_is_damaged_even_if_a_thumbnail_has_one():
    data = with_orientation(encode(".jpg", TEXTURE), 1)
    thumbnail = data[:4] + struct.pack(">H", 6) + b"\xff\xd8\xff\xd9" + data[2:-2]
    with pytest.raises(DataError, match="damaged"):
        decode_image(thumbnail, "x.jpg")


def jpeg(kind: str, pixels: np.ndarray) -> bytes:
    """The pixels as a JPEG of another make; flat ones are stored in few bytes."""
    file, image = io.BytesIO(), Image.fromarray(pixels)
    options = {"progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}
    image.convert("RGB" if kind == "colour" else "L").save(file, "JPEG", **options.get(kind, {}))
    return file.getvalue()


def cut_and_closed(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + b"\xff\xd9"


DAMAGES = {
    "zeros": lambda data, start, size: data[:start] + bytes(size) + data[start + size :],
    "ones": lambda data, start, size: data[:start] + b"\xff" * size + data[start + size :],
    "another part": lambda data, start, size: data[:start] + data[-size - 2 : -2] * 2 + b"\xff\xd9",
    "lost": lambda data, start, size: data[:start] + data[start + size :],
    "cut and closed": cut_and_closed,
    "a marker": lambda data, start, size: data[:start] + b"\xff\xd3" + data[start + 2 :],
}


@pytest.mark.fault(44)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("kind", ["plain", "progressive", "restarts", "colour"])
def test_a_jpeg_damaged_inside_is_damaged_though_it_has_its_end(kind: str, damage, capfd):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    data = jpeg(kind, pixels)
    assert decode_image(data, "kos01/x.jpg").shape == pixels.shape
    begin = data.index(b"\xff\xda") + 20
    for share in (0.1, 0.5, 0.8):
        changed = damage(data, begin + int(share * (len(data) - begin)), 2000)
        assert changed.endswith(b"\xff\xd9")
        with pytest.raises(DataError, match="kos01/x.jpg is damaged"):
            decode_image(changed, "kos01/x.jpg")
    assert capfd.readouterr().err == ""


@pytest.mark.fault(44)
def test_many_threads_never_take_the_damage_of_another_image_for_their_own(capfd):
    whole = encode(".jpg", TEXTURE)
    damaged = whole[:1000] + bytes(2000) + whole[3000:]

    def is_damaged(number: int) -> bool:
        os.write(2, f"line {number}\n".encode())
        try:
            decode_image(damaged if number % 3 == 0 else whole, "x.jpg")
        except DataError as error:
            assert "damaged inside (Corrupt JPEG data" in str(error)
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(is_damaged, range(300)))
    assert found == [number % 3 == 0 for number in range(300)]
    # What else is written to the error output meanwhile is not lost.
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(f"line {n}" for n in range(300))


@pytest.mark.fault(11)
def test_text_named_jpg_says_how_it_starts():
    with pytest.raises(DataError, match="x.jpg is not a JPEG.*starts with b'hello"):
        decode_image(b"hello, I am a text", "x.jpg")


@pytest.mark.fault(11)
def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(DataError, match="is empty"):
        decode_image(b"", "x.jpg")


@pytest.mark.parametrize("side", [1, 30_000])
@pytest.mark.fault(11)
def test_pixels_are_capped_from_the_header_before_decoding(side: int, monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    bmp = encode(".bmp", LEVELS)
    jpeg = bytearray(encode(".jpg", LEVELS))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    for data in (
        huge_png(side),
        bmp[:18] + struct.pack("<ii", side, -side) + bmp[26:],
        bytes(jpeg),
    ):
        with pytest.raises(DataError, match=f"{side}x{side}.*allowed"):
            decode_image(data, "x")


@pytest.mark.fault(11)
@pytest.mark.parametrize("extension", [".png", ".bmp"])
@pytest.mark.parametrize("height, width", [(1_000_001, 16), (16, 1_000_001), (16, 2**21)])
def test_a_side_longer_than_the_decoder_takes_is_named(extension: str, height: int, width: int):
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, extension[1:])
    with pytest.raises(DataError, match=rf"x is {height}x{width} .*sides from 16 to 1,000,000 px"):
        decode_image(file.getvalue(), "x")


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_a_side_as_long_as_the_decoder_takes_is_read(extension: str):
    file = io.BytesIO()
    Image.new("L", (16, 1_000_000)).save(file, extension[1:])
    assert decode_image(file.getvalue(), "x").shape == (1_000_000, 16)


@pytest.mark.fault(44)
def test_what_the_decoder_refuses_is_damaged(monkeypatch):
    def refuse(*_):
        raise cv2.error("its own limits")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    for extension in (".jpg", ".png", ".bmp"):
        with pytest.raises(DataError, match="x is damaged"):
            decode_image(encode(extension, LEVELS), "x")


@pytest.mark.fault(44)
@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp"])
def test_pixels_of_another_size_than_the_header_says_are_refused(extension: str, monkeypatch):
    """Readers of headers and decoders have disagreed on what hides the true one."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((64, 48), np.uint8))
    assert decode_image(encode(extension, np.zeros((48, 64), np.uint8)), "x").shape == (64, 48)
    with pytest.raises(DataError, match="another size than its header says"):
        decode_image(encode(extension, np.zeros((64, 64), np.uint8)), "x")


@pytest.mark.fault(44)
@pytest.mark.parametrize("hiding", [b"\xff\x01", b"\xff\xd0", b"\xff\xd7\xff\x01", b"\xff\xff\xd5"])
def test_marks_before_the_header_hide_no_size(hiding: bytes):
    data = encode(".jpg", LEVELS)
    frame = data.index(b"\xff\xc0")
    huge = data[: frame + 5] + struct.pack(">HH", 9000, 9000) + data[frame + 9 :]
    for changed in (huge[:2] + hiding + huge[2:], huge[:frame] + hiding + huge[frame:]):
        with pytest.raises(DataError, match="x is (9000x9000|damaged)"):
            decode_image(changed, "x")


@pytest.mark.fault(44)
def test_without_an_error_output_images_are_decoded_too(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode(".jpg", TEXTURE))
    program = "import os, sys; os.close(2); from ksdd_lib.data.dataset import read_image\n"
    program += "print(read_image(sys.argv[1]).shape)"
    root = Path(__file__).resolve().parents[2]
    line = [sys.executable, "-c", program, str(tmp_path / "x.jpg")]
    assert subprocess.check_output(line, cwd=root, text=True) == "(64, 64)\n"
