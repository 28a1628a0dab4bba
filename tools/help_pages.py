"""Writes every setting and command into the pages of `docs/`: `python tools/help_pages.py`."""

import argparse
import inspect
from collections.abc import Callable
from functools import partial

from kept import ROOT
from pages import table, write_page

from ksdd_lib.__main__ import commands
from ksdd_lib.errors import EXPLAINED
from ksdd_lib.presets import PRESETS
from ksdd_lib.setting_rules import Value
from ksdd_lib.settings import RULES, Settings

DOCS = ROOT / "docs"

TOPICS = {
    "data": "Sources, layouts, parts, sizes and tiles",
    "labels": "Masks, what a picture may lack, and how to do with few",
    "training": "The method, the recipe, and what is done to the pictures",
    "thresholds": "What counts as defective, and what can be promised",
    "protocols": "Folds, leaks, and which numbers may be compared",
    "speed": "How long it takes, and what makes it faster",
    "runs": "Run folders, going on after a stop, Drive, and the commands for a whole run",
    "study": "Many settings, on one machine or many",
    "line": "A trained model in use",
}
"""Page -> what it is about, in the order of the index."""


def settings_table(page: str) -> str:
    """The settings that a page explains; each row can be linked to by the setting's name."""
    rows = [_setting(name) for name in EXPLAINED[page].split() if name in RULES]
    return table(("setting", "what it is", "values", "default", "presets"), rows)


def commands_text(page: str) -> str:
    """The commands that a page explains, each with its arguments."""
    found = {name: commands()[name] for name in EXPLAINED[page].split() if name in commands()}
    return "\n".join(_command(name, made) for name, made in found.items())


def index() -> str:
    """Each topic, command and setting, with the page that explains it."""
    rows = [[f"**[{page}]({page}.md)**", "topic", words] for page, words in TOPICS.items()]
    rows += [[_link(name), "command", _about(commands()[name])[0]] for name in sorted(commands())]
    rows += [[_link(name), "setting", _sentence(RULES[name].reason)] for name in sorted(RULES)]
    return table(("name", "kind", "what it is"), rows)


def _about(made: argparse.ArgumentParser) -> list[str]:
    """What a command does: the lines of its explanation."""
    return inspect.cleandoc(made.description or "").splitlines()


def _link(name: str) -> str:
    [page] = [page for page, names in EXPLAINED.items() if name in names.split()]
    return f"[`{name}`]({page}.md#{name})"


def _setting(name: str) -> list[str]:
    rule = RULES[name]
    unit = f" ({rule.unit})" * (rule.low is not None or "pixels" in rule.unit)
    about = rule.allowed.removeprefix("one of ") + unit
    own = [
        f"{preset} {_shown(values[name])}" for preset, values in PRESETS.items() if name in values
    ]
    default = _shown(getattr(Settings, name))
    return [f'<a id="{name}"></a>`{name}`', _sentence(rule.reason), about, default, ", ".join(own)]


def _shown(value: Value) -> str:
    return f"`{int(value) if isinstance(value, bool) else value}`"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _command(name: str, made: argparse.ArgumentParser) -> str:
    arguments = [one for one in made._actions if one.dest != "help"]
    rows = [[f"`{' '.join(one.option_strings) or one.dest}`", one.help or ""] for one in arguments]
    given = table(("argument", "what it is"), rows) if rows else "It takes no arguments.\n"
    return f"### `{name}`\n\n{chr(10).join(_about(made))}\n\n{given}"


def texts(page: str) -> dict[str, Callable[[], str]]:
    """The places of a page of `docs/` -> what makes their text."""
    if page == "README":
        return {"index": index}
    names, made = set(EXPLAINED[page].split()), dict[str, Callable[[], str]]()
    if RULES.keys() & names:
        made["settings"] = partial(settings_table, page)
    if commands().keys() & names:
        made["commands"] = partial(commands_text, page)
    return made


if __name__ == "__main__":
    changed = [
        page for page in ("README", *EXPLAINED) if write_page(DOCS / f"{page}.md", texts(page))
    ]
    print("\n".join(changed) or "nothing to write")
