"""What one looks into with a control in hand is judged and shown as plain output too."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from ksdd_lib import explore
from ksdd_lib.predict import Verdict

REAL = {"is_generated": False}


@dataclass(frozen=True)
class Judge:
    """Judges by the mean gray level, for want of a network."""

    threshold: float = 100.0

    def judge(self, pixels: np.ndarray) -> Verdict:
        if pixels.std() == 0:
            return Verdict("not a surface")
        label = "defective" if pixels.mean() > self.threshold else "good"
        return Verdict(label, float(pixels.mean()), np.zeros(pixels.shape, np.float32))


def picture(level: int) -> np.ndarray:
    pixels = np.full((32, 32), level, np.uint8)
    pixels[0] += 1
    return pixels


def test_a_picture_is_judged_in_one_line_and_one_figure(screen, capsys):
    found = explore.judge_picture(Judge(), picture(120), "mine", REAL)
    assert found.label == "defective"
    assert capsys.readouterr().out == "mine: defective, score 120.03, threshold 100.00\n"
    figure, upload = screen.bundles
    assert figure["image/png"] and type(upload).__name__ == "VBox"
    frame = explore.judge_picture(Judge(), np.zeros((32, 32), np.uint8), "dark", REAL)
    assert frame.label == "not a surface" and capsys.readouterr().out == "dark: not a surface\n"


@pytest.mark.parametrize("version", [7, 8])
def test_uploaded_pictures_are_judged_one_after_the_other(screen, capsys, version):
    content = cv2.imencode(".png", picture(40))[1].tobytes()
    explore.judge_picture(Judge(), picture(120), "example", REAL)
    button = screen.bundles[-1].children[0]
    capsys.readouterr()
    for name, bytes_ in (("a.png", content), ("b.txt", b"no picture")):
        old = {name: {"metadata": {}, "content": bytes_}}
        new = ({"name": name, "content": memoryview(bytes_)},)
        button.notify_change(
            {"name": "value", "new": old if version == 7 else new, "type": "change"}
        )
    said = capsys.readouterr().out
    assert "a.png: good, score 40.03" in said
    assert "b.txt: the image is not a JPEG" in said
