"""The measures of an evaluation as a table on the console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmms_deploy.evaluation.comparison import Comparison
from mmms_deploy.evaluation.report.published import HEADS, differences, published_heading, published_rows
from mmms_deploy.evaluation.report.text import (
    VISIBLE,
    difference_heads,
    difference_row,
    measure_rows,
    milliseconds,
    seen_line,
    surface_rows,
)
from mmms_deploy.evaluation.results import RunFacts
from mmms_deploy.evaluation.summary import DatasetSummary


def render(summaries: Sequence[DatasetSummary], facts: RunFacts | None = None) -> RenderableType:
    """Return a table: a row for each measure, a column for each data set, and the comparisons below it.

    Args:
        summaries: The measures of each data set.
        facts: What was evaluated, for what papers published about it; None leaves that out.
    """
    table = Table("", box=box.SIMPLE)
    for summary in summaries:
        table.add_column(escape(summary.name), justify="right")
    table.add_row("objects", *(f"{summary.objects:,}" for summary in summaries))
    table.add_row("images", *(f"{summary.scenes:,}" for summary in summaries), end_section=True)
    columns = [[*measure_rows(summary), *surface_rows(summary)] for summary in summaries]
    for rows in zip(*columns, strict=True):
        table.add_row(rows[0][0], *(value for _, value, _ in rows))
    table.add_row("a click", *(milliseconds(summary.time.click) for summary in summaries))
    table.add_row("with simulation", *(milliseconds(summary.time.click_with_simulation) for summary in summaries))
    table.add_row("an image", *(milliseconds(summary.time.image) for summary in summaries))
    parts: list[RenderableType] = [table]
    for summary in summaries:
        if summary.comparison is not None:
            parts.append(_compared(summary.name, summary.comparison))
        if facts is not None:
            parts += _published(facts, summary)
    return Group(*parts)


def _published(facts: RunFacts, summary: DatasetSummary) -> Iterator[RenderableType]:
    rows = published_rows(facts, summary)
    if rows:
        table = Table(*map(escape, HEADS), box=box.SIMPLE, title=escape(published_heading(facts, summary)))
        for column in table.columns[1:3]:
            column.justify = "right"
        for row in rows:
            table.add_row(*map(escape, row.cells))
        yield table
        yield Text(differences(facts, summary), style="dim")


def _compared(name: str, comparison: Comparison) -> RenderableType:
    # The sentence below the table has the smallest visible difference; with its column, 80 characters are too few.
    heads = difference_heads()
    shown = [column for column, head in enumerate(heads) if head != VISIBLE]
    table = Table(*(heads[column] for column in shown), box=box.SIMPLE, title=escape(f"{name}: this against the other"))
    for column in table.columns[1:]:
        column.justify = "right"
    for difference in comparison.differences:
        cells = difference_row(difference)
        table.add_row(*(cells[column] for column in shown), style="bold" if difference.certain else None)
    worst = min(comparison.worst_agreement)
    columns = comparison.agreement
    mean = sum(columns) / len(columns) if comparison.mean_agreement is None else comparison.mean_agreement
    return Group(
        table,
        Text(seen_line(comparison)),
        Text(
            f"masks: {comparison.identical:,} of {comparison.objects:,} objects the same to the last pixel; after the"
            f" same clicks their IoU is {100 * mean:.3f} % on average,"
            f" {100 * worst:.3f} % at worst"
        ),
    )
