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

WIDGET_NAME, OTHER = "widget", "output that is neither text nor picture"
WIDGET = "application/vnd.jupyter.widget-view+json"

SECRET = "<secret removed>"

NAME = (
    r"(?:token|passw(?:or)?d|passphrase|pwd|secret|credential|signature|authorization|"
    r"(?:api|access|account|private|service)[_-]?key)"
)
"""What a secret is called, wherever this stands in a longer name."""

FOLDER = r"(?:[^\\/\n\"'<>|,;:()]{1,64}(?=[\\/])|[^\\/\s\"'<>]+)"
"""A folder's name in a path, with spaces where a separator follows."""

# A search begins where a word begins, and "++" or "(?>" never tries a word again from its end: so
# the time grows with the length of the text, whatever is in it.
PATTERNS = {
    "secret": (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)|"
        r"(?<=://)[^/\s:@\"'<>]+:[^/\s@\"'<>]+(?=@)|"  # of an address with a password in it
        r"(?i:(?<=\bbearer )[\w.~+/=-]{6,}|(?<=\bbasic )[\w+/=-]{20,})|"
        r"(?<![\w-])(?:(?:gh[pousr]|github_pat|hf|npm|[sr]k_live|[sr]k_test|r8)_\w{12,}|"
        r"(?:sk|glpat|pypi|GOCSPX|xox[a-z]|xapp|dop_v1|ya29|SG)[-_.][\w.-]{10,}|"
        r"AIza[\w-]{30,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}|"
        # Long, of small and capital letters and digits: made by a machine, to be secret.
        r"(?=[\w-]*?[A-Z])(?=[\w-]*?[a-z])(?=(?:[\w-]*?\d){4})[\w-]{28,}+(?![\w.(/]))",
        SECRET,
    ),
    "named secret": (
        rf"(?i)(?<![\w-])((?>[\w-]*?{NAME}[\w-]*+)[\"']?\]?\s*+[=:]\s*+|(?>--[\w-]*?{NAME}[\w-]*+)\s++)"
        r"(?!<|bearer |basic )(\"[^\"\n]+\"|'[^'\n]+'|[^\s\"',;)&]+)",
        rf"\1{SECRET}",
    ),
    "key": (r"(?i)(\bkey[\"']?\s*+[=:]\s*+[\"']?)[\w-]{16,}", rf"\1{SECRET}"),
    "address": (r"(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]*\w", "<address removed>"),
    "link to Drive": (
        r"https?://(?:drive|docs)\.google\.com/[^\s\"'<>)]+|\bdrive:[\w-]{20,}",
        "<link removed>",
    ),
    "folder on Drive": (
        r"(?i)(?:(?<![\w-])(?:/content/)?g?drive/(?!MyDrive/(?:ksdd|ksdd-main)(?:[/\s\"'<>,;)]|$))"
        r"(?:My ?Drive|Shared ?drives|\.[\w-]+)/|\b[A-Z]:\\+(?:My|Shared) drives?\\+)"
        r"[^\n\"'<>`;)]+",
        "<folder on Drive>",
    ),
    "home folder": (
        rf"(?i:(?:/mnt/[a-z]|\b[A-Z]:)[\\/]+Users[\\/]+{FOLDER})|/(?:home|Users)/{FOLDER}|/root\b",
        "~",
    ),
    "other disk": (
        rf"(?<![\w.-])/(?:run/media|media|mnt|Volumes)/{FOLDER}[^\s\"'<>,;)]*|"
        r"(?<![\\\w:])\\{2,4}[\w.-]{2,}\\+[^\s\"'<>,;)]+",
        "<other disk>",
    ),
}
"""Kind -> what is looked for, and what stands there instead."""

MADE = "made_by_ksdd_lib_share"
"""In the metadata of a copy: it may be replaced by a newer one."""

NOTEBOOK = ("cells", "metadata", "nbformat", "nbformat_minor")

FACTS = ("accelerator", "colab", "kernelspec", "language_info", MADE)
"""What stays of a notebook's metadata. Beside it Colab writes who ran a cell, and the places of
files on Drive."""

TEXTS = {"text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml"}
PICTURES = {"image/png", "image/jpeg", "image/gif"}
"""What outputs are shown as; anything else may hold any of these secrets in its own coding."""

EMBEDDED = re.compile(r"(data:image/[\w.+-]+;base64,[\w+/=]++)")
"""A picture inside a text."""


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
    notebook = {name: value for name, value in notebook.items() if name in NOTEBOOK}
    about = notebook.get("metadata", {})
    if about.pop("widgets", None) is not None:
        removed["widget state"] += 1
    if "colab" in about:
        about["colab"] = _known(about["colab"], ("gpuType", "toc_visible"), removed)
    notebook["metadata"] = _known(about, FACTS, removed) | {MADE: True}
    for cell in notebook["cells"]:
        for name, data in cell.get("attachments", {}).items():
            cell["attachments"][name] = _shown(data, removed)
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
    if output["output_type"] in ("stream", "error"):
        return True
    if output["output_type"] not in ("display_data", "execute_result"):
        removed[OTHER] += 1
        return False
    had_widget = WIDGET in output["data"]
    output["data"] = _shown(output["data"], removed)
    # Beside a widget stands the name of its class.
    return bool(output["data"].keys() - ({"text/plain"} if had_widget else set()))


def _shown(data: Node, removed: Counter[str]) -> Node:
    """The texts, cleaned, and the pictures of a MIME bundle; the rest is counted."""
    removed += Counter(
        WIDGET_NAME if kind == WIDGET else OTHER for kind in data.keys() - TEXTS - PICTURES
    )
    texts = {kind: _cleaned(data[kind], removed) for kind in data if kind in TEXTS}
    return {kind: texts.get(kind, data[kind]) for kind in data if kind in TEXTS | PICTURES}


def _cleaned(text: str | list[str], removed: Counter[str]) -> str | list[str]:
    """A text, or its lines, with every pattern replaced; what was found is counted."""
    pieces = EMBEDDED.split("".join(text))  # each other one is a picture
    for place in range(0, len(pieces), 2):
        for kind, (pattern, instead) in PATTERNS.items():
            pieces[place], count = re.subn(pattern, instead, pieces[place])
            removed += Counter({kind: count})
    whole = "".join(pieces)
    return whole if isinstance(text, str) else whole.splitlines(keepends=True)
