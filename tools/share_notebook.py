"""Makes an executed notebook fit to send: outputs stay; widgets, personal places and secrets go.

The command `share` of `python -m ksdd_lib` loads this file.
"""

import json
import re
from collections import Counter
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Any

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.hardware import in_colab

Node = dict[str, Any]
"""JSON of Jupyter: a notebook, a cell, an output, metadata, or a kernel's message."""

WIDGET = "application/vnd.jupyter.widget-view+json"

PATTERNS = {
    "secret": (
        r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|hf_\w{20,}|AIza[\w-]{30,}|sk-[\w-]{20,}|"
        r"ya29\.[\w-]{10,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})",
        "<secret removed>",
    ),
    "named secret": (
        r"(?i)\b((?:[\w-]*(?:token|password|passwd|secret|api_?key))[\"']?\s*[=:]\s*)"
        r"(\"[^\"\n]+\"|'[^'\n]+'|[^\s\"',;)]+)",
        r"\1<secret removed>",
    ),
    "address": (r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w", "<address removed>"),
    "folder on Drive": (
        r"(/content/drive)/(?!MyDrive/(?:ksdd|ksdd-main)(?:[/\s\"'<>,;)]|$))"
        r"(?:MyDrive|Shareddrives|\.[\w-]+)/[^\n\"'<>`;)]+",
        r"\1/…",
    ),
    "home folder": (
        r"(?:/home/[^/\s\"'<>]+|/Users/[^/\s\"'<>]+|[A-Z]:\\+Users\\+[^\\\s\"'<>]+|/root)\b",
        "~",
    ),
}
"""Kind -> what is looked for, and what stands there instead."""

MADE = "made_by_ksdd_lib_share"
"""In the metadata of a copy: it may be replaced by a newer one."""

FACTS = ("accelerator", "colab", "kernelspec", "language_info", MADE)
"""What stays of a notebook's metadata. Beside it Colab writes who ran a cell, and the places of
files on Drive."""

TEXTS = {"text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml"}
"""Outputs that can hold words; pictures stay as they are."""


def share_notebook(path: Path, out: Path | None = None) -> str:
    """Write what may be sent of an executed notebook -> one sentence on what was removed.

    The copy is `out`, or else lies beside the notebook. RunError where the file is no notebook, has
    no outputs, or the place of the copy holds another file.
    """
    out = out or path.with_stem(f"{path.stem}-shared")
    is_ours = f'"{MADE}": true'  # in a JSON file a key: a newer copy may replace it
    if out.exists() and is_ours not in out.read_text(encoding="utf-8", errors="replace"):
        raise RunError(f"{out} is there already: name another file with --out.")
    try:
        copy, removed = shareable(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{storage.relative(path)} is no notebook ({error}).") from None
    cells = [cell for cell in copy["cells"] if cell["cell_type"] == "code"]
    with_outputs = sum(bool(cell.get("outputs")) for cell in cells)
    if not with_outputs:
        wait = ", wait a minute until Drive has it" * in_colab()
        raise RunError(
            f"{path.name} has no outputs, so nothing was written: run it, save it{wait}, and run "
            "this again."
        )
    storage.write_text(out, json.dumps(copy, indent=1, ensure_ascii=False) + "\n")
    listed = ", ".join(f"{count} x {kind}" for kind, count in removed.items()) or "nothing"
    return (
        f"{out}: {with_outputs} of {len(cells)} code cells have outputs; removed {listed}. Look "
        "through it before you send it."
    )


def shareable(notebook: Node) -> tuple[Node, Counter[str]]:
    """A copy of a notebook (version 4), and how many of which kind were removed from it."""
    notebook, removed = deepcopy(notebook), Counter[str]()
    about = notebook.get("metadata", {})
    if about.pop("widgets", None) is not None:
        removed["widget state"] += 1
    if "colab" in about:
        about["colab"] = _known(about["colab"], ("gpuType", "toc_visible"), removed)
    notebook["metadata"] = _known(about, FACTS, removed) | {MADE: True}
    for cell in notebook["cells"]:
        cell["source"] = _cleaned(cell["source"], removed)
        cell["metadata"] = _known(cell.get("metadata", {}), ("tags",), removed)
        if "outputs" in cell:
            cell["outputs"] = [one for one in cell["outputs"] if _clean_output(one, removed)]
    return notebook, removed


def _known(about: Node, names: Collection[str], removed: Counter[str]) -> Node:
    """Metadata of these names alone; the rest may tell who ran the notebook, and counts."""
    if any(value and name not in names for name, value in about.items()):
        removed["note on who ran it, or where"] += 1
    return {name: value for name, value in about.items() if name in names}


def _clean_output(output: Node, removed: Counter[str]) -> bool:
    """Take out of an output what must go; False where nothing of it is left to see."""
    for part in {"text", "evalue"} & output.keys():
        output[part] = _cleaned(output[part], removed)
    if "traceback" in output:
        output["traceback"] = [_cleaned(line, removed) for line in output["traceback"]]
    if "metadata" in output:  # of a picture its size stays
        sizes = [name for name in output["metadata"] if name.startswith("image/")]
        output["metadata"] = _known(output["metadata"], sizes, removed)
    data = output.get("data", {})
    if data.pop(WIDGET, None) is not None:
        removed["widget"] += 1
        if set(data) <= {"text/plain"}:  # the name of its class
            return False
    for kind in TEXTS & data.keys():
        data[kind] = _cleaned(data[kind], removed)
    return True


def _cleaned(text: str | list[str], removed: Counter[str]) -> str | list[str]:
    """A text, or its lines, with every pattern replaced; what was found is counted."""
    whole = "".join(text)
    for kind, (pattern, instead) in PATTERNS.items():
        whole, count = re.subn(pattern, instead, whole)
        removed += Counter({kind: count})
    return whole if isinstance(text, str) else whole.splitlines(keepends=True)
