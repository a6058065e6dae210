"""The results on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmms_deploy.bench.compare import Comparison, Verdict
from mmms_deploy.bench.papers import FIGURES
from mmms_deploy.bench.report import Metric, Report
from mmms_deploy.bench.text import (
    GROUPS,
    bundle_line,
    engine_line,
    machine_lines,
    missing,
    number,
    with_unit,
    workload_line,
)

_COLOURS = {
    Verdict.BETTER: "green",
    Verdict.SAME: "dim",
    Verdict.WORSE: "yellow",
    Verdict.REGRESSION: "bold red",
    Verdict.UNKNOWN: "dim",
}


def render(report: Report) -> RenderableType:
    """Return a report for the terminal."""
    parts: list[RenderableType] = [_header(report), _times(report), _others(report), _papers(report)]
    parts += [Text(note, style="yellow") for note in report.notes]
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


def _times(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("milliseconds")
    for heading in ("p50", "p95", "p99", "mean", "spread", "samples"):
        table.add_column(heading, justify="right")
    for group in ("start", "image", "click", "sweep", "eager"):
        metrics = [metric for metric in report.group(group) if metric.unit == "ms"]
        if metrics:
            table.add_section()
            table.add_row(Text(GROUPS[group], style="bold"))
        for metric in metrics:
            table.add_row(*_time_row(metric))
    return table


def _time_row(metric: Metric) -> list[str]:
    summary = metric.summary
    title = escape(f"  {metric.title}")
    if summary is None:
        return [title, escape(missing(metric))]
    if summary.count == 1:
        return [title, number(summary.p50, "ms"), "", "", "", "", "1"]
    shown = (summary.p50, summary.p95, summary.p99, summary.mean, summary.spread)
    return [title, *(number(value, "ms") for value in shown), str(summary.count)]


def _others(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for group, heading in GROUPS.items():
        metrics = [metric for metric in report.group(group) if metric.unit != "ms"]
        if metrics:
            table.add_section()
            table.add_row(Text(heading, style="bold"), "")
        for metric in metrics:
            shown = missing(metric) if metric.value is None else with_unit(metric.value, metric.unit)
            table.add_row(escape(f"  {metric.title}"), escape(shown))
    return table


def _papers(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    table.title = "The papers' figures, on other hardware than this"
    table.add_column("published")
    table.add_column("on")
    table.add_column("ms", justify="right")
    table.add_column("here, ms", justify="right")
    table.add_column("what")
    for figure in FIGURES:
        ours = report.value(figure.metric)
        table.add_row(
            figure.network,
            figure.hardware,
            number(figure.milliseconds, "ms"),
            "not measured" if ours is None else number(ours, "ms"),
            figure.what,
        )
    return table


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
