"""An executed notebook made fit to send: outputs stay; widgets, personal places and secrets go."""

import re
from collections import Counter
from collections.abc import Collection
from copy import deepcopy
from typing import Any

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
