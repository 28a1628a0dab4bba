"""The methods by name."""

from ksdd_lib.methods.darkest_pixel import DarkestPixel
from ksdd_lib.methods.local_contrast import LocalContrast
from ksdd_lib.methods.protocol import Method
from ksdd_lib.methods.two_stage import TwoStage
from ksdd_lib.settings import Settings

METHODS: dict[str, Method] = {
    "two_stage": TwoStage(),
    "darkest_pixel": DarkestPixel(),
    "local_contrast": LocalContrast(),
}
"""Name, as of the setting `method` -> the method."""


def method_of(settings: Settings) -> Method:
    """The method that these settings choose."""
    return METHODS[settings.method]
