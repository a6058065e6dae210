"""The documents, and the Python and the commands in them."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(
        part.startswith(".") or part in {"runs", "build", "dist", "shared"} for part in path.relative_to(ROOT).parts
    )
)
"""Every document of the project, also where a link leads to one."""

ORIGINALS = [path for path in DOCUMENTS if path.resolve().relative_to(ROOT.resolve()) == path.relative_to(ROOT)]
"""Every document, once."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_STATEMENT = ("from ", "import ", "with ", ">>> ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        document: The document's path from the top of the repository.
        language: What stands behind the fence; empty for nothing.
        line: Number of its first line in the document.
        text: What stands in it, without the indentation of the fence.
    """

    document: str
    language: str
    line: int
    text: str

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.document}:{self.line}"


def blocks(path: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a document in some languages, from top to bottom."""
    text = path.read_text()
    return [
        Block(
            path.relative_to(ROOT).as_posix(),
            match[2],
            text.count("\n", 0, match.start(3)) + 1,
            textwrap.dedent(match[3]),
        )
        for match in _FENCED.finditer(text)
        if match[2] in languages
    ]


def docstring_examples() -> list[Block]:
    """The examples in docstrings of the package: paragraphs below each other that are statements of Python."""
    found = []
    for file in sorted((ROOT / "mmms_deploy").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            paragraphs = (ast.get_docstring(node) or "").split("\n\n")
            for is_code, group in itertools.groupby(paragraphs, _is_code):
                if is_code:
                    line = 1 if isinstance(node, ast.Module) else node.lineno
                    text = "\n\n".join(textwrap.dedent(paragraph) for paragraph in group) + "\n"
                    found.append(Block(file.relative_to(ROOT).as_posix(), "python", line, text))
    return found


def _is_code(paragraph: str) -> bool:
    text = textwrap.dedent(paragraph)
    if not text.startswith(_STATEMENT):
        return False
    try:
        ast.parse(text)
    except SyntaxError:
        return text.startswith(">>> ")
    return True


def command_lines(text: str) -> list[list[str]]:
    """The commands in lines of a shell: words, without comments, pipes and redirections."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if not set(word) <= set("();<>|&"):
                words += [] if redirected else [word]
                redirected = False
            elif "<" in word or ">" in word:
                redirected = True
            elif words:
                found.append(words)
                words = []
    return found


def inline_code(path: Path) -> list[str]:
    """What stands between single backticks in a document, outside of fenced blocks."""
    return [" ".join(match.split()) for match in _INLINE.findall(_FENCED.sub("", path.read_text()))]
