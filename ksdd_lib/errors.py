"""What can go wrong, as typed errors. The text of each is a clear sentence for the user.

Many end with a link to the page of `docs/` that tells more. Which page explains a setting or a
command stands here too.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

EXPLAINED: dict[str, str] = {
    "data": "data layout item image_size fit region tile_size generated_items inspect convert",
    "labels": "incomplete classes labels masks defective_images annotation drawn drawn_kinds "
    "drawn_length drawn_width drawn_contrast harmless label_good",
    "training": "method seed segmentation_loss initialization expected_defect_share mask_norm "
    "weight_averaging rotation flips copy_paste paste_turn segmentation_steps "
    "segmentation_batch_size segmentation_optimizer segmentation_learning_rate "
    "segmentation_schedule decision_steps decision_batch_size decision_optimizer "
    "decision_learning_rate decision_schedule decision_copy_paste train_final",
    "thresholds": "threshold held_out false_alarms score",
    "protocols": "folds fold partition twins",
    "speed": "precision average_flips",
    "runs": "preset checkpoint_steps demo run share options help",
    "study": "study",
    "line": "publish judge",
}
"""Page of `docs/` -> the settings and commands that it explains."""

_PAGES = {name: page for page, names in EXPLAINED.items() for name in names.split()}
_ADDRESS = r"(\S*docs/[\w-]+\.md(?:#[\w-]+)?)"
_LINK = re.compile(rf" \(see {_ADDRESS}\)| See {_ADDRESS}\.")


def page_of(name: str) -> str:
    """Where a setting or a command is explained, as "labels#masks"; "" where there is no such."""
    return f"{_PAGES[name]}#{name}" if name in _PAGES else ""


def address(page: str) -> str:
    """A page as "labels#alpha" -> its path in a checkout, else its address in the repository."""
    name, sign, anchor = page.partition("#")
    path = f"docs/{name}.md"
    is_here = (Path(__file__).resolve().parents[1] / path).exists()
    home = "" if is_here else repository()
    return f"{home}/blob/main/{path}{sign}{anchor}" if home else path + sign + anchor


def sections() -> list[tuple[str, str, str]]:
    """The page, heading and text of each section of `docs/`; none where the pages are not here."""
    found = []
    for path in sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.md")):
        for part in re.split(r"^#+ ", path.read_text("utf-8"), flags=re.M)[1:]:
            heading, _, text = part.partition("\n")
            named = re.match(r'\s*<a id="([\w-]+)"', text)
            made = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            if not heading.startswith("`"):  # a command, which is told already
                text = re.sub(r"^\|.*$", "", part, flags=re.M)  # and so are settings
                found.append((f"{path.stem}#{named[1] if named else made}", heading, text))
    return found


def with_link(text: str, page: str = "", *parts: str) -> str:
    """A text with one link at its end: the one in it and its parts, else that of the page."""
    found = {one or other for part in (text, *parts) for one, other in _LINK.findall(part)}
    text = _LINK.sub("", text)
    link = found.pop() if len(found) == 1 else address(page) if page else ""
    if not link:
        return text
    return f"{text} See {link}." if text.endswith((".", "?")) else f"{text} (see {link})"


def without_link(text: str) -> str:
    """A text without the links of `with_link`."""
    return _LINK.sub("", text)


def repository() -> str:
    """The address in the installed package, https://github.com/OWNER/NAME, or ""."""
    try:
        urls = metadata("ksdd_lib").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Repository", "").rstrip("/").removesuffix(".git")


class KsddError(Exception):
    """Base of every error that a user can cause and correct; its text says what to do.

    Its text ends with a link to the page `see`, as "labels#alpha", or that of an error it tells of.
    """

    see = ""

    def __init__(self, *told: object, see: str = "") -> None:
        super().__init__(*told)
        self.see = see or self.see

    def __str__(self) -> str:
        return with_link(super().__str__(), self.see)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback, which would not help to correct it."""
        return [f"{type(self).__name__}: {self}"]


class SettingsError(KsddError):
    """A hyperparameter is unknown, of the wrong type or out of range.

    A text that begins with the name of a setting leads to that setting.
    """

    def __init__(self, told: str, see: str = "") -> None:
        super().__init__(told, see=see or page_of(told.partition(" ")[0]) or "runs#options")


class DataError(KsddError):
    """The data set is missing, damaged or not in the expected layout."""


class FoldError(KsddError):
    """A split into training and test images is invalid or leaks."""

    see = "protocols#folds"


class CheckpointError(KsddError):
    """A checkpoint is damaged, or belongs to another run, stage, fold or data set."""


class TrainingError(KsddError):
    """Training cannot go on: it diverged, or the machine's memory is too small."""

    see = "training#diverged"


class DiskFullError(KsddError, OSError):
    """The disk has no room for a file; the file that it was to replace is intact."""

    def __str__(self) -> str:
        return str(self.strerror)


class Interrupted(KeyboardInterrupt):
    """The user stopped a training; the text says what is kept and how to go on."""

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self}"]


class RunError(KsddError):
    """A run folder lacks an earlier step, or holds results of something else."""


class MissingError(RunError):
    """There is no run yet, or a part of it is not finished; its text says what to run first."""
