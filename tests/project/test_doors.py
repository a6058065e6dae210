"""Errors say what to do in the words of the door: Python's keywords for callers, options for the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "mmms_deploy"
FILES = sorted(PACKAGE.rglob("*.py"))

OPTION = re.compile(r"(?<![\w-])--[a-z]")
"""An option of a command."""
KEYWORD = re.compile(
    r"\b[a-z_]+=(None|True|False|[\"'(\[]|\.\.\.)|\b(set_image|set_features|set_modalities|click|ensure)\("
)
"""A keyword or a call of Python."""
DOORS = ("fix", "command_fix")
PROGRAM = re.compile(r"\b(pip|mmms-[a-z]+|container|docker)\b[^;]*--")
"""A whole command line, which is right at both doors."""


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the constant texts of an expression, in order."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def fixes() -> Iterator[tuple[str, str, str, bool]]:
    """Yield (place, door, text, whether the other door has its own words) of every way out in the package."""
    for file in FILES:
        command = file.is_relative_to(PACKAGE / "commands")
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            said = {word.arg: "".join(texts(word.value)) for word in node.keywords if word.arg in DOORS}
            for name, text in said.items():
                door = "command line" if command or name == "command_fix" else "python"
                yield f"{file.relative_to(ROOT)}:{node.lineno}", door, text, len(said) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(Path(file).relative_to(PACKAGE)))
def test_the_two_doors_keep_their_words(file: Path) -> None:
    name = str(file.relative_to(ROOT))
    for place, door, text, _ in fixes():
        if place.rpartition(":")[0] != name:
            continue
        if door == "python":
            assert not OPTION.search(text) or PROGRAM.search(text), f"{place} tells a caller in Python: {text}"
        else:
            assert not KEYWORD.search(text), f"{place} tells a user of the command line: {text}"
