"""Text from outside, such as the name of a file, so that it shows and does nothing.

A terminal obeys escape sequences, a browser turns the direction of text around, XML allows few control characters, and
a spreadsheet computes cells that begin like formulas. A name may hold all of these.
"""

from __future__ import annotations

import re
from html import escape as html_escape
from typing import Any

_KEPT = "\t\n"
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
"""Control characters, marks that turn the direction of text, and what is no character."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def visible(text: str, kept: str = _KEPT) -> str:
    r"""Return text with every control character written out, such as ``\x1b``.

    Args:
        text: Any text.
        kept: Characters that stay; line ends and tabs unless given.
    """
    return _HIDDEN.sub(lambda match: match[0] if match[0] in kept else _written(match[0]), text)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def escape(text: str) -> str:
    """Return text for HTML, SVG and other XML, with control characters written out."""
    return html_escape(visible(text))


def cell(value: Any) -> Any:
    """Return a value for a cell of a CSV file, so that no spreadsheet computes it.

    Text that begins like a formula gets an apostrophe in front, which spreadsheets take as "this is text". Numbers stay
    numbers, and so does text that is one.

    Args:
        value: Text, a number, a bool or None.
    """
    if not isinstance(value, str):
        return value
    shown = visible(value, kept="")
    return f"'{shown}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else shown
