"""What a drawn figure shows, for tests."""

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksdd_lib.reporting import plots


def pixels(figure: Figure) -> np.ndarray:
    """The figure as it is stored: uint8 (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(plots.png(figure), np.uint8), cv2.IMREAD_COLOR)


def texts(ax: Axes) -> str:
    """The texts in the axes and in their legend, in one line."""
    legend = ax.get_legend()
    shown = [*ax.texts, *(legend.get_texts() if legend else [])]
    return " | ".join(text.get_text() for text in shown)
