"""Looking into results with a control in hand: a picture judged, of one's own too.

Every view stands as plain output first, so that a saved notebook keeps it.
"""

from collections.abc import Mapping
from typing import Any

from ksdd_lib import outputs, panels
from ksdd_lib.errors import KsddError
from ksdd_lib.predict import Detector, Verdict, as_pixels


def judge_picture(
    detector: Detector, example: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """Show the verdict on an example, and a button to upload pictures, each judged below it.

    Args:
        example: a picture as `Detector.judge` takes it.
        name: what stands above it.
        record: as for `show_figure`.

    Returns:
        The verdict on the example.
    """
    found = _show_verdict(detector, example, name, record)
    try:
        import ipywidgets
    except ImportError:
        return found
    button = ipywidgets.FileUpload(accept=".jpg,.jpeg,.png,.bmp", multiple=False)
    below = ipywidgets.Output()

    def judge(change: Mapping[str, Any]) -> None:
        with below:
            for title, content in _uploaded(change["new"]):
                try:
                    _show_verdict(detector, content, title, {"is_generated": False})
                except KsddError as error:
                    print(f"{title}: {error}")

    button.observe(judge, names="value")
    if outputs.in_notebook():
        from IPython.display import display

        display(ipywidgets.VBox([button, below]))
    return found


def _show_verdict(
    detector: Detector, picture: Any, name: str, record: Mapping[str, Any]
) -> Verdict:
    """One line and a figure: the picture, and where a defect is seen."""
    pixels = as_pixels(picture)
    found = detector.judge(pixels)
    if found.mask is None:
        print(f"{name}: {found.label}")
        return found
    print(f"{name}: {found.label}, score {found.score:.2f}, threshold {detector.threshold:.2f}")
    figure = panels.gallery(
        [pixels, found.mask], titles=[f"{name}: {found.label}", "output: probability"]
    )
    outputs.show_figure(figure, record)
    return found


def _uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Names and contents in the value of a FileUpload: a dict in ipywidgets 7, a tuple in 8."""
    if isinstance(value, Mapping):
        return [(name, bytes(one["content"])) for name, one in value.items()]
    return [(one["name"], bytes(one["content"])) for one in value]
