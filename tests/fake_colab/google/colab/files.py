"""Files between the machine and the browser, which here is a folder."""

import os
import shutil


def download(filename: str) -> None:
    """Offer a file to the browser."""
    if not os.path.exists(filename):
        raise FileNotFoundError(f"Cannot find file: {filename}")
    if not os.environ.get("FAKE_DOWNLOADS"):
        raise RuntimeError("no browser is listening")
    shutil.copy(filename, os.environ["FAKE_DOWNLOADS"])


def upload() -> dict[str, bytes]:
    """The user has closed the dialogue."""
    return {}
