"""Tables on terminals of any width: no number is ever cut, and a word only where it is longer than a whole line.

A table that fits is printed as it is. In one that is too wide, texts wrap at words. Where even that is too wide, each
row becomes a block of lines, one for each column.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from mmms_deploy.commands.common import console

_WIDE = 10_000
_SHORT = 20
"""Columns of a cell that stays on one line before a heading does."""


def print_tables(shown: RenderableType) -> None:
    """Print a table, a group of tables and texts, or a text."""
    if isinstance(shown, Group):
        for part in shown.renderables:
            print_tables(part)
    elif isinstance(shown, Table):
        print_table(shown)
    else:
        console.print(shown)


def print_table(table: Table) -> None:
    """Print a table."""
    natural = Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum
    if natural <= console.width or not table.columns:
        console.print(table)
        return
    overhead = natural - sum(_whole(column) if column.width is None else column.width for column in table.columns)
    widths = _widths(table, console.width - overhead)
    if widths is None:
        _print_rows(table)
        return
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    console.print(table)


def _widths(table: Table, room: int) -> list[int] | None:
    """Return a width for every column, so that texts wrap at words; None when there is not room enough."""
    widths = [_least(column, shown=table.show_header) for column in table.columns]
    if sum(widths) > room:
        return None
    # Short cells first, then the narrowest column: short names stay on one line, headings and long texts wrap.
    short = [min(_widest(column.cells), _SHORT) for column in table.columns]
    for wanted in (short, [_whole(column) for column in table.columns]):
        for _ in range(room - sum(widths)):
            lacking = [index for index, want in enumerate(wanted) if widths[index] < want]
            if not lacking:
                break
            widths[min(lacking, key=widths.__getitem__)] += 1
    return widths


def _whole(column: Column) -> int:
    """Return the width in which nothing of a column wraps."""
    return _widest([column.header, *column.cells])


def _widest(cells: Iterable[RenderableType]) -> int:
    return max((text.cell_len for text in _texts(cells)), default=0)


def _least(column: Column, *, shown: bool) -> int:
    """Return the width in which nothing of a column is cut: that of a number, or of the longest word."""
    cells = list(column.cells)
    numbers = [text.plain for text in _texts(cells)] if column.justify == "right" else []
    words = [word for text in _texts([*([column.header] if shown else []), *cells]) for word in text.plain.split()]
    return max(map(cell_len, (*numbers, *words)), default=0)


def _texts(cells: Iterable[RenderableType]) -> list[Text]:
    return [line for cell in cells for line in _text(cell).split("\n")]


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))


def _print_rows(table: Table) -> None:
    """Print each row as a block: its first cell, and below it a line for each other cell that is not empty."""
    if table.title is not None:
        title = _text(table.title)
        title.stylize("bold")
        console.print(title)
    if not table.show_header and len(table.columns) == 2:
        _print_pairs(table)
        return
    first, *others = table.columns
    rows = zip(_texts_of(first), *map(_texts_of, others), strict=True)
    for row, (name, *cells) in zip(table.rows, rows, strict=True):
        console.print(name, style=row.style or "bold")
        said = [(column, cell) for column, cell in zip(others, cells, strict=True) if cell.plain]
        headings = [_text(column.header) if table.show_header else Text() for column, _ in said]
        widest = max((heading.cell_len for heading in headings), default=0)
        block = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
        if widest:
            block.add_column(width=min(widest, console.width // 2))
        block.add_column(overflow="fold")
        for heading, (_, cell) in zip(headings, said, strict=True):
            block.add_row(*([heading] if widest else []), cell)
        if said:
            console.print(block)


def _print_pairs(table: Table) -> None:
    """Print names and values in two columns without lines between them."""
    names, values = table.columns
    pairs = Table.grid(padding=(0, 2, 0, 0))
    pairs.add_column(width=min(_whole(names), console.width // 2))
    pairs.add_column(overflow="fold")
    for name, value in zip(names.cells, values.cells, strict=True):
        pairs.add_row(name, value)
    console.print(pairs)


def _texts_of(column: Column) -> list[Text]:
    return [_text(cell) for cell in column.cells]
