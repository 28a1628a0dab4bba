"""The platform: Google Colab, Drive and downloads there, the same calls everywhere else.

Also the one text that every notebook begins with, and the repository's address in it.
"""

import json
import os
import re
import tomllib
import warnings
from pathlib import Path

from ksdd_lib import machine, storage
from ksdd_lib.drive import recovery, upload
from ksdd_lib.drive.background import BackgroundCopy
from ksdd_lib.errors import RunError, SettingsError
from ksdd_lib.machine import in_colab
from ksdd_lib.runs.open import home
from ksdd_lib.runs.run import Run

MOUNT = Path("/content/drive")

SETUP_CELL = """\
import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ADDRESS = ""  # written by `python -m ksdd_lib address`
if importlib.util.find_spec("ksdd_lib") is None:
    with contextlib.suppress(Exception):  # not in Colab, or Drive was refused
        importlib.import_module("google.colab.drive").mount("/content/drive")
    places = [Path.cwd(), *Path.cwd().parents]
    places += [Path("/content/drive/MyDrive", name) for name in ("ksdd-main", "ksdd")]
    found = [str(place) for place in places if (place / "ksdd_lib" / "__init__.py").is_file()]
    sys.path[:0] = found[:1]
    if not found and not ADDRESS:
        raise RuntimeError("ksdd_lib is not here: allow Drive, or put it into MyDrive/ksdd-main.")
    if not found:
        install = [sys.executable, "-m", "pip", "install", "--no-deps", f"git+{ADDRESS}"]
        subprocess.run(install, check=True)
"""
"""The first code cell of every notebook: finds ksdd_lib where it is installed, in a checkout above
the notebook, in a copy in Drive, or at the repository's address. pip is not quiet: Colab reads its
last line."""

NO_GPU = (
    "There is no GPU. To train (notebooks 2 and 3) choose Runtime, Change runtime type, T4 GPU, "
    "Save, and run all cells again (where a training is at work, stop it first and wait for 'safe "
    "on Drive'); the others need none. If Colab has none for you now, go on without: all works, "
    "slower (presets demo and cpu), and a training begun on a GPU goes on here."
)

BADGE_START = "[![Open in Colab]"
README_TABLE = re.compile(r"(?<=<!-- notebooks:begin -->\n).*?(?=<!-- notebooks:end -->)", re.S)


def begin(needs_run: bool = True) -> Path | None:
    """Start a notebook: mount Drive, bring back the last run on a new machine, say where we are.

    The line on the machine holds no path and no name, so it can go into a bug report as it is.

    Args:
        needs_run: False: where another machine is at work on the last run, warn and go on without.

    Returns:
        The Drive folder for `mailbox`, or None: outside Colab, or where Drive was refused.
        `$KSDD_DRIVE` names another folder; empty, it means no Drive. Where `$KSDD_RUN` names a
        run's copy on Drive, the run is brought here, and `$KSDD_RUN` names it here from then on.

    Raises:
        RunError: another machine is at work on the run, see `recovery.restore`; or `$KSDD_RUN`
            names a folder on Drive that holds no copy of a run.
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
    elif drive and upload.is_on(drive, named):
        os.environ["KSDD_RUN"] = str(_bring(named.resolve(), drive))
    copied = ", and are copied to MyDrive/ksdd/runs" if drive and in_colab() else ""
    folder = Path(os.environ.get("KSDD_RUN") or home() / "runs")
    print(machine.preflight(folder, "Drive is mounted" if drive else "no Drive"))
    for line in machine.replaced_packages():
        print(f"{line}: restart the kernel (in Colab: Runtime, Restart session), then run all.")
    if in_colab() and machine.device().type == "cpu":
        print(NO_GPU)
    print(f"Results go to {place(folder)}{copied}.")
    return drive


def _bring(named: Path, drive: Path) -> Path:
    """The folder here of a run that is named by its folder on Drive."""
    folder = recovery.restore(home(), drive, named=named)
    if folder is None:
        here = home() / "runs"
        raise RunError(
            f"KSDD_RUN names {named.name} on Drive, where no run is worked on, and no whole run "
            f'could be brought from there: copy its folder, !mkdir -p "{here}" && cp -r "{named}" '
            f'"{here}", then run %env KSDD_RUN={here / named.name} in a cell of its own.'
        )
    return folder


def leave(run: Run | None, drive: Path | None, following: str = "") -> None:
    """End a notebook: copy what is new to Drive, and say whether it is safe and what to do next.

    Args:
        run: whose files go to Drive; None: there is none.
        drive: as `begin` returns it.
        following: the file name of the next notebook; "" after the last.
    """
    safe = BackgroundCopy(run, drive, downloads=home() / "downloads").finish() if run else True
    if not in_colab():
        print(f"Next: {following}" if following else "The series ends here.")
        return
    if drive is None:
        print(
            "Drive is not connected: what is here ends with this machine. Download what you need."
        )
        return
    if not safe:
        print("Not all is safe on Drive yet: run this cell again in a minute, before you leave.")
        return
    if run and following and not run.is_ready_for(following):
        print("This notebook is not finished: open it again and Run all; it goes on where it was.")
        return
    print(
        "Now wait a minute, save (Ctrl+S), and choose Runtime, Disconnect and delete runtime."
        + f" Then open {following} in Drive's folder ksdd-main/notebooks." * bool(following)
    )


def share(path: Path, name: str | None = None) -> None:
    """Offer a file for download in Colab; elsewhere say where it is.

    Args:
        name: what the downloaded file is called; by default as here.
    """
    path = Path(path)
    if in_colab():
        try:
            from google.colab import files

            offered = path if name is None else home() / "downloads" / name
            if offered != path:
                storage.write_bytes(offered, path.read_bytes())
            files.download(str(offered))
            return
        except Exception as error:  # no browser, a blocked download, a file too large
            warnings.warn(f"The download could not be offered: {error}", stacklevel=2)
    print(f"{path.name} is in {place(path.parent)}")


def badges(notebook: str, address: str) -> str:
    """One line of Markdown that opens a notebook in Colab and on GitHub; "" without an address.

    Args:
        notebook: its file name without the ending.
        address: https://github.com/OWNER/NAME, or "".
    """
    if not address:
        return ""
    place = address.removeprefix("https://github.com/") + f"/blob/main/notebooks/{notebook}.ipynb"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    github = "https://img.shields.io/badge/view_on-GitHub-555?logo=github"
    return (
        f"{BADGE_START[:-1]}]({picture})](https://colab.research.google.com/github/{place}) "
        f"[![View on GitHub]({github})](https://github.com/{place})"
    )


def repository_address(root: Path) -> str:
    """The address in pyproject.toml's [project.urls], "" while it is unset.

    Raises:
        SettingsError: it is no address that Colab can open.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise SettingsError(
            f"Repository in pyproject.toml is {address!r}; "
            "Colab opens notebooks from https://github.com/OWNER/NAME."
        )
    return address


def write_address(root: Path) -> list[str]:
    """Write the repository's address into every notebook's set-up cell and badges, and the README.

    Returns:
        The names of the files that changed; none the second time.
    """
    wanted = _with_address(Path(root))
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return [path.name for path in wanted]


def check_address(root: Path) -> list[str]:
    """The names of the files that `write_address` would change."""
    return [path.name for path in _with_address(Path(root))]


def _with_address(root: Path) -> dict[Path, str]:
    """File -> new text, where that differs from what is there."""
    address = repository_address(root)
    texts = {
        path: _notebook_text(path, address) for path in sorted((root / "notebooks").glob("*.ipynb"))
    }
    readme = root / "README.md"
    if readme.exists():
        texts[readme] = README_TABLE.sub(
            lambda table: _table_with_badges(table[0], address), readme.read_text(encoding="utf-8")
        )
    return {path: new for path, new in texts.items() if path.read_text(encoding="utf-8") != new}


def _notebook_text(path: Path, address: str) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    title = next(cell for cell in cells if cell["cell_type"] == "markdown")
    title["source"] = _with_badges("".join(title["source"]), badges(path.stem, address))
    for cell in cells:
        if "setup" in cell["metadata"].get("tags", []):
            cell["source"] = SETUP_CELL.rstrip("\n").replace(
                'ADDRESS = ""', f'ADDRESS = "{address}"'
            )
    for cell in cells:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _with_badges(text: str, line: str) -> str:
    """A title cell with this badge line under its title, instead of the one there may be."""
    parts = text.split("\n\n")
    parts = [part for part in parts if not part.startswith(BADGE_START)]
    return "\n\n".join([parts[0], line, *parts[1:]] if line else parts)


def _table_with_badges(table: str, address: str) -> str:
    """The README's table with badges in the last column of each notebook's row."""
    lines = []
    for line in table.splitlines(keepends=True):
        link = re.search(r"\(notebooks/(\w+)\.ipynb\)", line)
        if link:
            kept = line.rstrip().removesuffix("|").rpartition("|")[0]
            line = f"{kept}| {badges(link[1], address)} |\n"
        lines.append(line)
    return "".join(lines)


def _drive_folder() -> Path | None:
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
    """Where a folder is. In Colab its path; elsewhere the end of it, which is enough to find it and
    puts no path of this machine into a notebook."""
    if in_colab():
        return str(folder)
    *_, above, name = folder.resolve().parts
    return f"{name} (in {above})"
