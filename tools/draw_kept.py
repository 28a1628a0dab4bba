"""Draws the figures of a kept run into a folder, but for those that show surfaces.

python tools/draw_kept.py NAME FOLDER
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kept import ROOT, read_kept, write_run_folder

from ksdd_lib import storage
from ksdd_lib.errors import KsddError, RunError
from ksdd_lib.reporting.report import make_figures


def draw(name: str, folder: Path, root: Path) -> list[Path]:
    """Draw the figures of a checkout's kept run; returns the PNG files.

    Raises:
        RunError: there is no kept run of that name.
    """
    runs = read_kept(root).runs
    if name not in runs:
        raise RunError(f"There is no kept run {name!r}; there are {', '.join(runs)}.")
    drawn = []
    with tempfile.TemporaryDirectory() as scratch:
        write_run_folder(runs[name], Path(scratch))
        for figure in make_figures(Path(scratch)).values():
            storage.write_bytes(folder / figure.name, figure.read_bytes())
            drawn.append(folder / figure.name)
    return drawn


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on what is wrong."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(words)
    try:
        for figure in draw(chosen.name, chosen.folder, ROOT):
            print(figure)
    except KsddError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
