"""The project's documents, as they lie in its repository, so that every install has them: their links lead somewhere.

The files are links to those of the repository; a wheel holds copies.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
"""The root of the documents: README.md, and docs/ below it."""

_LINE = re.compile(r"^\| \[[^\]]*\]\((?P<file>[\w.-]+\.md)\).*?\| (?P<says>.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def document(name: str) -> str:
    """Return the path of a document, for messages.

    Args:
        name: Its name in ``docs/`` without ``.md``, e.g. ``engines``; with ``#`` and a heading where that helps.
    """
    name, _, heading = name.partition("#")
    path = FOLDER / "docs" / f"{name}.md"
    try:
        path = path.resolve(strict=True)
    except OSError:
        path = path.absolute()
    return f"{path}#{heading}" if heading else str(path)


def documents() -> dict[str, str]:
    """Return what every document in ``docs/`` says, by name and in reading order; empty when they were left out."""
    try:
        text = (FOLDER / "docs" / "README.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {match["file"].removesuffix(".md"): _LINK.sub(r"\1", match["says"]) for match in _LINE.finditer(text)}
