"""The text below the options of ``--help``, fitted to the terminal: examples that can be copied, and tables."""

from __future__ import annotations

import re
import textwrap

_CONTINUED = " \\"
_INDENT = 4
_UNITS = re.compile(r"-\S+(?: (?!-)\S+)?|\S+")
"""An option with its value, or a word: what stays on one line."""


def fitted(text: str, width: int) -> str:
    r"""Break the lines that are wider than a terminal.

    A command goes on behind a backslash, so that it can be copied as it is; the second column of a table (two spaces
    or more before it) goes on below itself, and a sentence, which is not indented, at the left. Other lines stay as
    they are.

    Args:
        text: The text, with lines of ``\b`` before paragraphs that click keeps.
        width: The most columns of a line.
    """
    return "\n".join(part for line in text.splitlines() for part in _parts(line, width))


def _parts(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip())
    if line.lstrip().startswith("mmms-"):
        return _command(line.lstrip(), indent, width)
    if (column := re.match(r" *\S+ {2,}", line)) is not None:
        return textwrap.wrap(
            line[column.end() :],
            width,
            initial_indent=column[0],
            subsequent_indent=" " * column.end(),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [line] if indent else textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def _command(command: str, indent: int, width: int) -> list[str]:
    lines: list[str] = []
    for unit in _UNITS.findall(command):
        if lines and len(lines[-1]) + 1 + len(unit) + len(_CONTINUED) <= width:
            lines[-1] += f" {unit}"
        elif lines:
            lines[-1] += _CONTINUED
            lines.append(" " * (indent + _INDENT) + unit)
        else:
            lines.append(" " * indent + unit)
    return lines
