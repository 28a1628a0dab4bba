"""What the notebooks use of Colab's own package, for tests: it behaves, and fails, as the real one.

$FAKE_DRIVE is the folder that Drive shows as MyDrive, $FAKE_DOWNLOADS where downloads arrive.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def mount(mountpoint: str, force_remount: bool = False, timeout_ms: int = 120_000) -> None:
    """Show $FAKE_DRIVE as <mountpoint>/MyDrive; without it, the user has refused."""
    if not os.environ.get("FAKE_DRIVE"):
        raise ValueError("mount failed")
    place = Path(mountpoint) / "MyDrive"
    if place.is_symlink() and not force_remount:
        print(f"Drive already mounted at {mountpoint}")
        return
    if place.exists() and not place.is_symlink():
        raise ValueError("Mountpoint must not already contain files")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(os.environ["FAKE_DRIVE"])
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int = 24 * 60 * 60 * 1000) -> None:
    """Nothing is late here, so nothing is to be flushed."""


def download(filename: str) -> None:
    """Offer a file to the browser, which here is a folder."""
    if not os.path.exists(filename):
        raise FileNotFoundError(f"Cannot find file: {filename}")
    if not os.environ.get("FAKE_DOWNLOADS"):
        raise RuntimeError("no browser is listening")
    shutil.copy(filename, os.environ["FAKE_DOWNLOADS"])


def upload() -> dict[str, bytes]:
    """The user has closed the dialogue."""
    return {}


def clear() -> None:
    """Remove what the cell has shown, which nobody sees here."""


def enable_custom_widget_manager() -> None:
    """Allow widgets of other packages."""


CALLBACKS: dict[str, Callable] = {}
"""What the page of a cell can call, by name."""


def register_callback(function_name: str, callback: Callable) -> None:
    """Let JavaScript call a function of the kernel."""
    CALLBACKS[function_name] = callback


def eval_js(script: str, ignore_result: bool = False) -> None:
    """There is no browser to run it."""
    raise RuntimeError("no browser is listening")


def unassign() -> None:
    """Give the machine back: the kernel ends at once."""
    os.kill(os.getpid(), signal.SIGKILL)


class SecretNotFoundError(Exception):
    """No secret of the user has this name."""


def get(key: str) -> str:
    """The user has no secrets."""
    raise SecretNotFoundError(f"Secret {key} does not exist.")


MODULES = {
    "drive": (mount, flush_and_unmount),
    "files": (download, upload),
    "output": (clear, enable_custom_widget_manager, eval_js, register_callback),
    "runtime": (unassign,),
    "userdata": (get, SecretNotFoundError),
}
"""Module of `google.colab` -> what is in it."""


def install() -> None:
    """From now on this process has a `google.colab`."""
    try:
        import google
    except ImportError:
        google = sys.modules["google"] = ModuleType("google")
    google.colab = sys.modules["google.colab"] = ModuleType("google.colab")
    for name, parts in MODULES.items():
        module = ModuleType(f"google.colab.{name}")
        vars(module).update({part.__name__: part for part in parts})
        sys.modules[module.__name__] = module
        setattr(google.colab, name, module)
