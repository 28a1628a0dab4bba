"""The platform: Google Colab, Drive and downloads there, the same calls everywhere else."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ksdd_lib import hardware, storage
from ksdd_lib.drive import layout, recovery
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.errors import RunError
from ksdd_lib.hardware import in_colab
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.runs import run as runs
from ksdd_lib.runs.open import CHECKOUT, home
from ksdd_lib.runs.run import Run

MOUNT = Path("/content/drive")

NO_GPU = (
    "There is no GPU. To train (notebooks 2 and 3) choose Runtime, Change runtime type, T4 GPU, "
    "Save, and run all cells again (where a training is at work, stop it first and wait for 'safe "
    "on Drive'); the others need none. If Colab has none for you now, go on without: all works, "
    "slower (presets demo and cpu), and a training begun on a GPU goes on here."
)


def begin(needs_run: bool = True) -> Path | None:
    """Start a notebook: mount Drive, bring back the last run on a new machine, say where we are.

    A run's copy on Drive that `$KSDD_RUN` names is brought here. Returns the folder of Drive, or
    None. Raises RunError where another machine works on the last run and the notebook `needs_run`,
    or where `$KSDD_RUN` names a folder of Drive that holds no copy of a run.
    """
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"  # no path of the machine
    drive = _drive_folder()
    named = Path(os.environ.get("KSDD_RUN", "")).expanduser()
    if drive and in_colab():
        print("Looking for your last run on Drive (up to 5 minutes) ...")
    if not os.environ.get("KSDD_RUN"):
        try:
            recovery.restore(home(), drive)
        except RunError as busy:
            if needs_run:
                raise
            warnings.warn(f"The last run is not brought here. {busy}", stacklevel=2)
    elif drive and layout.is_on(drive, named):
        named, here = named.resolve(), home() / "runs"
        brought = recovery.restore(home(), drive, named=named)
        if brought is None:
            raise RunError(
                f"KSDD_RUN names {named.name} on Drive, where no run is worked on, and no whole "
                f'run could be brought from there: copy its folder, !mkdir -p "{here}" && '
                f'cp -r "{named}" "{here}", then run %env KSDD_RUN={here / named.name} in a cell '
                "of its own.",
                see="runs#drive",
            )
        os.environ["KSDD_RUN"] = str(brought)
    folder = Path(os.environ.get("KSDD_RUN") or home() / "runs")
    print(hardware.preflight(folder, "Drive is mounted" if drive else "no Drive"))
    for line in hardware.replaced_packages():
        print(f"{line}: restart the kernel (in Colab: Runtime, Restart session), then run all.")
    if in_colab() and hardware.device().type == "cpu":
        print(NO_GPU)
    copied = ", and are copied to MyDrive/ksdd/runs" if drive and in_colab() else ""
    print(f"Results go to {place(folder)}{copied}.")
    return drive


def leave(run: Run | None, drive: Path | None, following: str = "") -> None:
    """End a notebook: copy what is new to Drive, and say whether it is safe and what follows."""
    safe = BackgroundCopy(run, drive, downloads=home() / "downloads").finish() if run else True
    if not in_colab():
        said = f"Next: {following}" if following else "The series ends here."
    elif drive is None:
        said = (
            "Drive is not connected: what is here ends with this machine. Download what you need."
        )
    elif not safe:
        said = "Not all is safe on Drive yet: run this cell again in a minute, before you leave."
    elif run and following and not is_ready_for(run, following.removesuffix(".ipynb")):
        said = "This notebook is not finished: open it again and Run all; it goes on where it was."
    else:
        said = (
            "Now wait a minute, save (Ctrl+S), and choose Runtime, Disconnect and delete runtime."
        )
        where = " in Drive's folder ksdd-main/notebooks" if layout.is_on(drive, CHECKOUT) else ""
        said += f" Then open {following}{where}." * bool(following)
    print(said)


def share(path: Path, name: str | None = None) -> None:
    """Offer a file for download in Colab, called `name`; elsewhere say where it is."""
    if in_colab():
        try:
            from google.colab import files

            offered = home() / "downloads" / name if name else path
            if name:
                storage.write_bytes(offered, path.read_bytes())
            files.download(str(offered))
            return
        except Exception as error:  # no browser, a blocked download, a file too large
            warnings.warn(f"The download could not be offered: {error}", stacklevel=2)
    print(f"{path.name} is in {place(path.parent)}")


def let_call(name: str, answer: Callable[[str], dict[str, Any]]) -> None:
    """Let a page that a cell of Colab shows call `answer` with a text, for what JSON holds."""
    from google.colab import output
    from IPython.display import JSON

    output.register_callback(name, lambda text: JSON(answer(text)))


def is_ready_for(run: Run, notebook: str) -> bool:
    """Whether all is finished that comes before the notebook of this name."""
    makers = runs.NOTEBOOKS | {plan.name: plan.notebook for plan in method_of(run.settings).stages}
    return all(run.has(part) for part, maker in makers.items() if maker < notebook)


def _drive_folder() -> Path | None:
    """The folder of Drive, mounted if need be; None, with a warning, where it cannot be had."""
    given = os.environ.get("KSDD_DRIVE")
    if given == "" or (given is None and not in_colab()):
        return None
    folder = Path(given).expanduser() if given else MOUNT / "MyDrive"
    reason = f"{folder} is no folder"
    try:
        if not given and not folder.is_dir():
            from google.colab import drive

            drive.mount(str(MOUNT))
        if folder.is_dir():
            return folder
    except Exception as error:  # refused by the user, no browser, a mount that died
        reason = str(error)
    warnings.warn(
        f"Drive is not mounted ({reason}): results stay on this machine and may be lost with it.",
        stacklevel=3,
    )
    return None


def place(folder: Path) -> str:
    """Where a folder is: in Colab its path, elsewhere the end of it, which is not personal."""
    if in_colab():
        return str(folder)
    *_, above, name = folder.resolve().parts
    return f"{name} (in {above})"
