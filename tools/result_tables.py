"""Writes every table of results into its page, and draws the curve over few defects.

`python tools/keep_results.py` without a run folder does so from what is kept in assets/results.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from choice_tables import recipe_table, try_table
from few_defects import draw_few_defects, few_defects_table
from kept import Kept
from pages import write_page
from protocol_tables import protocol_table, published_table, twin_table, variant_protocol_table
from run_tables import error_table, headline_table, run_table, variant_run_table
from speed_tables import short_speed_table, speed_table

PAGES: dict[str, dict[str, Callable[[Kept], str]]] = {
    "README.md": {
        "headline": headline_table,
        "published": published_table,
        "speed": short_speed_table,
    },
    "assets/results/README.md": {
        "runs": run_table,
        "variant-runs": variant_run_table,
        "protocols": protocol_table,
        "variant-protocols": variant_protocol_table,
        "errors": error_table,
        "recipes": recipe_table,
        "tries": try_table,
        "few": few_defects_table,
        "twins": twin_table,
        "speed": speed_table,
    },
}
"""Page -> the name that marks a table's place in it -> what makes its text."""


def write_tables(root: Path, kept: Kept) -> list[str]:
    """Write every table into its page; returns the pages that this changed."""
    draw_few_defects(kept)
    changed = []
    for page, tables in PAGES.items():
        texts = {name: partial(table, kept) for name, table in tables.items()}
        if write_page(root / page, texts):
            changed.append(page)
    return changed
