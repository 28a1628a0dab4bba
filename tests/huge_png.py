"""A small file that claims to be a picture of a great many pixels."""

import zlib

import cv2
import numpy as np


def huge_png(side: int) -> bytes:
    """A PNG of 16x16 pixels whose header, with a checksum that fits, claims `side` x `side`."""
    data = cv2.imencode(".png", np.zeros((16, 16), np.uint8))[1].tobytes()
    header = data[12:16] + 2 * side.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
