"""The tables of how the recipes were chosen: each one ever scored, and what was tried before."""

from kept import Kept
from pages import in_percent, table
from pydantic import TypeAdapter

from ksdd_lib.storage import Record

RECIPE_COLUMNS = (
    "recipe",
    "what",
    "chosen on",
    "folds",
    "AP",
    "FP / FN, operating threshold",
)

TRY_COLUMNS = (
    "judged on",
    "what was tried",
    "AP of the decision network",
    "of the mask's peak",
    "of both together",
)


class Pooled(Record):
    """What a recipe that was given up had reached."""

    ap: float
    fp: int
    fn: int


class Recipe(Record):
    """A recipe that was ever scored on test images, with its kept run or with its numbers."""

    what: str
    chosen_on: str
    folds: str
    kept: str | None = None
    pooled: Pooled | None = None


class Try(Record):
    """What was tried on a part of the training images."""

    part: str
    what: str
    ap: dict[str, float]


def recipe_table(kept: Kept) -> str:
    """Every recipe that was scored on test images, on its first folds with seed 0, pooled."""
    rows = []
    for place, recipe in enumerate(read_recipes(kept), 1):
        pooled = recipe.pooled or kept.runs[str(recipe.kept)].summary.pooled
        rows.append(
            [
                str(place),
                recipe.what,
                recipe.chosen_on,
                recipe.folds,
                in_percent(pooled.ap),
                f"{pooled.fp} / {pooled.fn}",
            ]
        )
    return table(RECIPE_COLUMNS, rows)


def try_table(kept: Kept) -> str:
    """What was tried inside the training part of clean fold 0, with no test image of it."""
    rows = []
    tries = TypeAdapter(list[Try]).validate_json((kept.folder / "tries.json").read_bytes())
    for one in tries:
        aps = (one.ap.get(score) for score in ("decision", "mask", "both"))
        rows.append([one.part, one.what, *("" if ap is None else in_percent(ap) for ap in aps)])
    return table(TRY_COLUMNS, rows)


def read_recipes(kept: Kept) -> list[Recipe]:
    """The recipes that were ever scored on test images, in the order of their making."""
    text = (kept.folder / "recipes.json").read_bytes()
    return TypeAdapter(list[Recipe]).validate_json(text)
