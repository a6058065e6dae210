"""What a notebook shows of an object: a small table, and a picture beside it.

Notebooks set their own fonts and colours, and remove style sheets and scripts from pages that they do not trust. So a
view is a plain table with few inline styles, well-formed, and loads nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mmms_deploy.reporting.visible import escape

_LEFT = ' style="text-align: left; vertical-align: top"'


class Markup(str):
    """Well-formed markup, which is not escaped again."""

    __slots__ = ()


def view(title: str, rows: Sequence[tuple[str, str]], picture: Markup | None = None, note: str = "") -> str:
    """Return the view of an object as HTML.

    Args:
        title: What it is, plain text.
        rows: Name and value of each line; plain text, or :class:`Markup`.
        picture: A picture below the table; None for none.
        note: What the user should know at once, such as why there is no picture; plain text.
    """
    parts = [f"<div><b>{escape(title)}</b>"]
    if note:
        parts.append(f"<p>{lines(note.splitlines())}</p>")
    if rows:
        parts.append(f"<table>{''.join(_row(name, value) for name, value in rows)}</table>")
    return "\n".join([*parts, *([picture] if picture else []), "</div>"])


def _row(name: str, value: str) -> str:
    shown = value if isinstance(value, Markup) else escape(value)
    return f"<tr><th{_LEFT}>{escape(name)}</th><td{_LEFT}>{shown}</td></tr>"


def folded(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table that shows its summary until it is opened.

    Args:
        summary: The line that always shows, plain text.
        head: Names of the columns.
        rows: The cells, plain text.
    """
    lines = [
        "<tr>" + "".join(f"<{tag}{_LEFT}>{escape(text)}</{tag}>" for text in line) + "</tr>"
        for tag, line in [("th", head), *(("td", row) for row in rows)]
    ]
    return Markup(f"<details><summary>{escape(summary)}</summary><table>{''.join(lines)}</table></details>")


def swatch(colour: tuple[int, int, int], text: str) -> Markup:
    """Return text with a square of a colour before it.

    Args:
        colour: Red, green and blue, 0 to 255.
        text: Plain text.
    """
    return Markup(f'<span style="color: rgb{colour}">&#9632;</span> {escape(text)}')


def lines(parts: Sequence[str]) -> Markup:
    """Return parts below each other; plain text, or :class:`Markup`."""
    return Markup("<br/>".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def inline_picture(data: bytes, kind: str, description: str) -> Markup:
    """Return a picture that is part of the page.

    Args:
        data: The file's bytes.
        kind: Its type, such as ``image/jpeg``.
        description: What it shows, plain text, for those who do not see it.
    """
    text = base64.b64encode(data).decode()
    return Markup(f'<img src="data:{kind};base64,{text}" alt="{escape(description)}"/>')
