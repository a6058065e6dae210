"""The results on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmms_deploy.bench.compare import Comparison, Verdict
from mmms_deploy.bench.papers import FIGURES, VRAM_HERE, VRAM_TITLE, papers_heading
from mmms_deploy.bench.report import Headline, Metric, Report
from mmms_deploy.bench.text import (
    GROUPS,
    bundle_line,
    engine_line,
    machine_lines,
    memory_rows,
    missing,
    number,
    with_unit,
    workload_line,
)

_TITLE = 38
"""Width of the titles, so that the groups line up and 80 columns are enough."""
_UNITS = {"1/s": "clicks/s"}
_STATISTICS = ("p50", "p95", "p99", "mean", "spread", "n")
_COLOURS = {
    Verdict.BETTER: "green",
    Verdict.SAME: "dim",
    Verdict.WORSE: "yellow",
    Verdict.REGRESSION: "bold red",
    Verdict.UNKNOWN: "dim",
}


def render(report: Report) -> RenderableType:
    """Return a report for the terminal."""
    parts: list[RenderableType] = [_header(report), *_groups(report), _papers(report), *_papers_memory(report)]
    parts += [Text(f"\n{note}", style="yellow") for note in report.notes]
    return Group(*parts)


def _header(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    pairs = [
        ("network", bundle_line(report.bundle)),
        ("engine", engine_line(report.engine)),
        ("measured", workload_line(report.workload)),
        *machine_lines(report.machine),
    ]
    for heading, text in pairs:
        table.add_row(Text(heading, style="bold"), Text(text))
    return table


def _groups(report: Report) -> Iterator[Table]:
    for group, heading in GROUPS.items():
        metrics = list(report.group(group))
        if not metrics:
            continue
        repeated = any(_repeated(metric) for metric in metrics)
        columns = _STATISTICS if repeated else ("",)
        table = Table(box=None, pad_edge=False, padding=(0, 1), title_justify="left", title_style="bold")
        table.show_header = repeated
        table.title = f"\n{heading}" + (f", {_UNITS.get(metrics[0].unit, metrics[0].unit)}" if repeated else "")
        table.add_column("", width=_TITLE)
        for column in columns:
            table.add_column(column, justify="right", header_style="dim")
        for metric in metrics:
            table.add_row(escape(metric.title), *_cells(metric, repeated=repeated))
        yield table


def _repeated(metric: Metric) -> bool:
    return len(metric.samples) > 1 and metric.headline is not Headline.HIGH


def _cells(metric: Metric, *, repeated: bool) -> list[str]:
    summary = metric.summary
    if summary is None:
        return [escape(missing(metric))]
    shown = number(float(metric.value or 0.0), metric.unit)
    if not repeated:
        return [with_unit(float(metric.value or 0.0), metric.unit)]
    if not _repeated(metric):
        return [shown]
    values = (summary.p50, summary.p95, summary.p99, summary.mean, summary.spread)
    return [*(number(value, metric.unit) for value in values), str(summary.count)]


def _papers(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), title_justify="left", title_style="bold")
    table.title = f"\n{papers_heading(report.value('work.parameters'))}, in ms"
    for heading in ("published", "on"):
        table.add_column(heading, header_style="dim")
    for heading in ("there", "here"):
        table.add_column(heading, header_style="dim", justify="right")
    table.add_column("what", header_style="dim")
    for figure in FIGURES:
        ours = report.value(figure.metric)
        table.add_row(
            figure.network,
            figure.hardware,
            number(figure.milliseconds, "ms"),
            "-" if ours is None else number(ours, "ms"),
            figure.short,
        )
    return table


def _papers_memory(report: Report) -> Iterator[Table]:
    """The paper's memory, beside that of a run on a GPU."""
    rows = memory_rows(report)
    if rows:
        table = Table(box=None, pad_edge=False, padding=(0, 1), title_justify="left", title_style="bold")
        table.title = f"\n{VRAM_TITLE}"
        table.add_column("published", header_style="dim")
        for heading in ("there", VRAM_HERE):
            table.add_column(heading, header_style="dim", justify="right")
        for row in rows:
            table.add_row(*row)
        yield table


def render_comparison(comparison: Comparison) -> RenderableType:
    """Return a comparison for the terminal."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Now against then", title_justify="left", title_style="bold"
    )
    table.add_column("")
    for heading in ("then", "now", "now / then"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in comparison.rows:
        metric = row.metric
        shown = ["-" if value is None else with_unit(value, metric.unit) for value in (row.old, row.new)]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        verdict = Text(str(row.verdict), style=_COLOURS[row.verdict])
        table.add_row(escape(metric.title), *(escape(text) for text in shown), ratio, verdict)
    parts: list[RenderableType] = [table]
    parts += [Text(f"not comparable: {text}", style="yellow") for text in comparison.differences]
    parts += [Text(f"changed: {text}", style="dim") for text in comparison.changes]
    return Group(*parts)
