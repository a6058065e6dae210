"""Errors say what to do in the words of the door: Python's keywords for callers, options for the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "mmms_deploy"

OPTION = re.compile(r"(?<![\w-])--[a-z]")
"""An option of a command."""
PROGRAM = re.compile(r"\b(pip|mmms-[a-z]+|container|docker)\b[^;]*--")
"""A whole command line, which is right at both doors."""
KEYWORD = re.compile(
    r"\b[a-z_]+=(None|True|False|[\"'(\[]|\.\.\.)|\b(set_image|set_features|set_modalities|click|ensure)\("
)
"""A keyword or a call of Python."""
PYTHON_ONLY = ("session/", "store/", "engines/explain.py")
"""Where only a caller in Python can make some mistakes: calls in a wrong order, an open engine that does not fit."""


def texts(node: ast.expr) -> str:
    """Return the constant texts of an expression, in order."""
    parts = (child.value for child in ast.walk(node) if isinstance(child, ast.Constant))
    return "".join(part for part in parts if isinstance(part, str))


def fixes(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line and texts, by door, of every way out in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            said = {word.arg: texts(word.value) for word in node.keywords if word.arg in ("fix", "command_fix")}
            if said:
                yield node.lineno, {str(name): text for name, text in said.items()}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_two_doors_keep_their_words(file: Path) -> None:
    name = str(file.relative_to(PACKAGE))
    for line, said in fixes(file):
        python, command = said.get("fix", ""), said.get("command_fix", "")
        if name.startswith("commands/"):
            python, command = "", python or command
        given = f"{name}:{line}: {said}"
        assert not OPTION.search(python) or PROGRAM.search(python), f"an option for a caller in Python at {given}"
        assert not KEYWORD.search(command), f"a keyword for a user of the command line at {given}"
        if not command and not name.startswith(PYTHON_ONLY):
            assert not KEYWORD.search(python), f"no words for the command line at {given}"
