"""Drive is a folder beside the machine; mounting shows it, unmounting hides it."""

import os
from pathlib import Path


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
