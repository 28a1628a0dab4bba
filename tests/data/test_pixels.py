"""Pixels: one rule from a file's bytes to gray or boolean pixels, and a bound before decoding."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from small_data import huge_png

from ksdd_lib.data.pixels import decode_image, decode_mask
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
        palette_bmp(np.where(LEVELS == 3, 1, LEVELS // 128 * 2), [0, 85, 255]),
        palette_png(LEVELS // 128, [0, 255]),
        palette_png(1 - LEVELS // 128, [255, 0]),
        palette_png(LEVELS // 128, [0, 1]),
        palette_png(LEVELS // 128, [0, 255], bits=1),
        palette_png(np.where(LEVELS == 3, 1, LEVELS // 128 * 2), [0, 85, 255], bits=2),
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
    with pytest.raises(DataError, match="Part1_label.png.*brightest of 255 is 100"):
        decode_mask(encode(".png", LEVELS // 128 * 100), "Part1_label.png")


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
