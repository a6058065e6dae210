"""The results as text: numbers and lines as people read them, also in the HTML page, and the tables on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmms_deploy.bench.compare import ReportComparison, Verdict
from mmms_deploy.bench.papers import FIGURES, VRAM, VRAM_HERE, VRAM_METRIC, VRAM_TITLE, papers_heading, sizes_of
from mmms_deploy.bench.report import BundleFacts, EngineFacts, Headline, Metric, Report, WorkloadFacts
from mmms_deploy.engines.machine import machine_lines
from mmms_deploy.reporting.published import PARAMETERS

# --- numbers and lines ------------------------------------------------------------------------------------------------

GROUPS = {
    "start": "Start",
    "image": "Once an image",
    "click": "Every click",
    "list": "Every click, by its list",
    "graph": "A click as one CUDA graph, in the same run, in turns",
    "layout": "A click with both layouts of convolutions, in the same run, in turns",
    "moved": "Between host and GPU",
    "throughput": "Several sessions on one engine",
    "rate": "Many annotators on one engine, clicks of all of them",
    "wait": "Many annotators, a click as one of them sees it, waiting included",
    "each": "Memory that a session adds",
    "alike": "Answers that equal those of a session alone, bit by bit",
    "memory": "Most memory held (RAM) while",
    "vram": "Memory on the GPU",
    "work": "Work",
    "eager": "Beside eager PyTorch, in the same run, in turns",
    "objects": "Clicks on several objects at once, in the same run, in turns",
    "sweep": "Threads",
}
"""Titles of the groups of metrics, in the order in which they are shown."""


def number(value: float, unit: str) -> str:
    """Return a value with about three significant digits; a ratio with three decimals, bytes with none."""
    if unit == "ratio":
        return f"{value:.3f}"
    if unit == "B":
        return f"{value:,.0f}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 3
    return f"{value:,.{digits}f}"


def with_unit(value: float, unit: str) -> str:
    """Return a value with its unit."""
    shown = {"1/s": " clicks/s", "ratio": "", "M": " M"}.get(unit, f" {unit}")
    return f"{number(value, unit)}{shown}"


def missing(metric: Metric) -> str:
    """Return the text that takes the place of a missing number."""
    return f"not measured: {metric.why}"


def memory_rows(report: Report) -> list[tuple[str, str, str]]:
    """Return the paper's memory beside ours: inputs, MiB there, MiB here. Empty for a run on a CPU."""
    if report.metric(VRAM_METRIC) is None:
        return []
    ours = report.value(VRAM_METRIC)
    rows = []
    for figure in VRAM:
        fits = figure.modalities == len(report.bundle.modalities) and ours is not None
        here = number(ours or 0.0, "MiB") if fits else "-"
        rows.append((figure.inputs, number(figure.mebibytes, "MiB"), here))
    return rows


def size_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return published parameters and arithmetic of the measured network beside ours: what, there, here, source."""
    rows = []
    for figure in sizes_of(report.bundle.published):
        if figure.what == PARAMETERS:
            ours, unit = report.value("work.parameters"), "M"
        else:
            found = [report.value(f"work.gflop.{stage}") for stage in report.stages]
            ours, unit = (None if None in found else sum(value or 0.0 for value in found)), "GFLOP"
        here = "not measured" if ours is None else number(ours, unit)
        rows.append((figure.what, number(figure.value, unit), here, figure.source))
    return rows


def sizes_title(report: Report) -> str:
    """Return the heading of these rows."""
    return f"What papers say of {report.bundle.published}, whole; here as exported, all stages"


def bundle_line(bundle: BundleFacts) -> str:
    """Return the network in one line."""
    height, width = bundle.size
    inputs = " + ".join(("RGB", *bundle.modalities))
    weights = "trained" if bundle.trained else "random weights"
    count = len(bundle.rewrites)
    rewrites = f"{count} exact rewrite{'s' if count > 1 else ''}" if count else "no rewrites"
    return f"{bundle.name}: {inputs}, {width} x {height}, {weights}, {rewrites}, {bundle.megabytes:,.0f} MB"


def engine_line(engine: EngineFacts) -> str:
    """Return the engine in one line."""
    return f"{engine} ({engine.evidence})" if engine.evidence else str(engine)


def workload_line(workload: WorkloadFacts) -> str:
    """Return the images and clicks in one line."""
    height, width = workload.image_size
    images, clicks, before = (
        f"{count} {what}{'s' if count != 1 else ''}"
        for count, what in ((workload.images, "image"), (workload.clicks, "click"), (workload.warm_up, "click"))
    )
    return f"{images} of {width} x {height}, {clicks} on each, after {before} of warm-up"


# --- on the terminal --------------------------------------------------------------------------------------------------

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
    parts: list[RenderableType] = [_header(report), *_groups(report), _papers(report)]
    parts += [*_papers_sizes(report), *_papers_memory(report)]
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


def _groups(report: Report) -> Iterator[RenderableType]:
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
        reasons = Counter(metric.why for metric in metrics if metric.summary is None)
        together = [why for why, count in reasons.items() if count > 1]
        for metric in metrics:
            if metric.summary is not None or metric.why not in together:
                table.add_row(escape(metric.title), *_cells(metric, repeated=repeated))
        yield table
        for why in together:
            titles = "; ".join(
                metric.title.strip() for metric in metrics if metric.summary is None and metric.why == why
            )
            yield Text(f"not measured: {why}\n  {titles}", style="dim")


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


def _papers_sizes(report: Report) -> Iterator[Table]:
    """Yield the published parameters and arithmetic of the measured network beside ours."""
    rows = size_rows(report)
    if rows:
        table = Table(box=None, pad_edge=False, padding=(0, 1), title_justify="left", title_style="bold")
        table.title = f"\n{sizes_title(report)}"
        table.add_column("published", header_style="dim")
        for heading in ("there", "here"):
            table.add_column(heading, header_style="dim", justify="right")
        for what, there, here, _ in rows:
            table.add_row(what, there, here)
        yield table


def _papers_memory(report: Report) -> Iterator[Table]:
    """Yield the paper's memory beside ours; nothing for a run on a CPU."""
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


def render_comparison(comparison: ReportComparison) -> RenderableType:
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
