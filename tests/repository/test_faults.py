"""Every line of faults.md has a test, and every mark a line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
TABLE = (TESTS / "faults.md").read_text("utf-8")
LINES = [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.M)]


def marks(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(fault, test) for each `@pytest.mark.fault(number)`, of functions and their classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for call in node.decorator_list:
                if ast.unparse(call).startswith("pytest.mark.fault("):
                    yield ast.literal_eval(call.args[0]), node.name


@pytest.fixture(scope="module")
def proofs() -> dict[int, list[str]]:
    """The tests of each fault."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for number, name in marks(ast.parse(path.read_text("utf-8"))):
            found.setdefault(number, []).append(f"{path.name}::{name}")
    return found


def test_the_lines_are_numbered():
    assert LINES == list(range(1, len(LINES) + 1))


@pytest.mark.parametrize("number", LINES)
def test_each_line_has_a_test(proofs: dict[int, list[str]], number: int):
    names = [name.partition("::")[2].lower() for name in proofs.get(number, [])]
    assert names and all(name.startswith("test") for name in names)


def test_each_mark_has_a_line(proofs: dict[int, list[str]]):
    assert set(proofs) <= set(LINES)
