"""The results as one self-contained HTML page with plots. It has no script and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator

from mmms_deploy.bench.compare import ReportComparison
from mmms_deploy.bench.papers import FIGURES, VRAM_HERE, VRAM_TITLE, papers_heading
from mmms_deploy.bench.report import Headline, Metric, Report
from mmms_deploy.bench.text import (
    GROUPS,
    bundle_line,
    engine_line,
    memory_rows,
    missing,
    number,
    size_rows,
    sizes_title,
    with_unit,
    workload_line,
)
from mmms_deploy.engines.machine import machine_lines
from mmms_deploy.reporting.html import document
from mmms_deploy.reporting.svg import Bar, bars, curve, stack, strip
from mmms_deploy.reporting.visible import escape


def render_page(report: Report, comparison: ReportComparison | None = None) -> str:
    """Return a report as an HTML page that is also well-formed XML.

    Args:
        report: The results.
        comparison: Their comparison with older results; None when they were not compared.
    """
    parts = [
        f"<h1>{escape(report.bundle.name)}</h1>",
        f"<p>{escape(bundle_line(report.bundle))}</p>",
        f"<p>{escape(engine_line(report.engine))}. {escape(workload_line(report.workload))}.</p>",
        f'<p class="faint">{escape(report.created)}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        _heads(report),
        *_plots(report),
    ]
    if comparison is not None:
        parts.append(_compared(comparison))
    parts += [*_tables(report), _papers(report), *_papers_sizes(report), *_papers_memory(report), _machine(report)]
    return document(f"{report.bundle.name}: mmms-bench", parts)


def _heads(report: Report) -> str:
    """Return the few numbers that matter most, in large type."""
    chosen = (
        ("click.total", "a click, p50"),
        ("image.total", "an image, p50"),
        ("click.host", "of a click beside the engine"),
        ("eager.click_ratio", "of eager PyTorch's click"),
        ("graph.click_ratio", "of a click without a CUDA graph"),
        ("vram.taken", "on the GPU, engine and one session"),
        (f"work.fraction.{report.stages[-1]}", "of this machine's matrix peak, click stage"),
    )
    boxes = []
    for key, label in chosen:
        metric = report.metric(key)
        if metric is not None and metric.value is not None:
            shown = f"{100 * metric.value:.0f} %" if metric.unit == "ratio" else with_unit(metric.value, metric.unit)
            boxes.append(f'<div class="head"><b>{escape(shown)}</b>{escape(label)}</div>')
    return f'<div class="heads">{"".join(boxes)}</div>'


def _plots(report: Report) -> Iterator[str]:
    click = report.metric("click.total")
    summary = click.summary if click else None
    if click and summary:
        marks = [(f"{p} {number(getattr(summary, p), 'ms')}", getattr(summary, p)) for p in ("p50", "p95", "p99")]
        yield _figure("Every click", strip(click.samples, marks, "ms", "Time of every click"))
        shown = [
            (label, value, with_unit(value, "ms"))
            for key, label in (
                ("click.engine", "click stage"),
                ("click.transfer", "click in, answer out"),
                ("click.mask", "mask to the image's size"),
                ("click.rest", "checks, state, history"),
            )
            if (value := report.value(key)) is not None
        ]
        yield _figure("Where a click's time goes", stack(shown, "Parts of a click"))
    for group, heading in (
        ("throughput", "Clicks a second, several sessions on one engine"),
        ("rate", "Clicks a second of many annotators on one engine"),
        ("memory", "Memory"),
        ("vram", "Memory on the GPU"),
    ):
        rows = [
            Bar(metric.title, metric.value, with_unit(metric.value, metric.unit))
            for metric in report.group(group)
            if metric.value is not None and metric.value >= 0
        ]
        if rows:
            yield _figure(heading, bars(rows, heading))
    swept = [(int(m.key.rpartition(".")[2]), m.value) for m in report.group("sweep") if m.value is not None]
    if swept:
        labels = [number(value, "ms") for _, value in swept]
        points = [(float(count), value) for count, value in swept]
        yield _figure("Threads", curve(points, labels, "threads", "ms a click", "Click by number of threads"))
    heading = "Beside others: ms a click, logarithmic; grey is published, on other hardware"
    yield _figure(heading, bars(_beside(report), heading, log=True))


def _beside(report: Report) -> list[Bar]:
    rows = []
    for key, label, style in (
        ("click.mean", "this engine, a click", "a"),
        ("click.amortised", "this engine, image spread over clicks", "a"),
        ("eager.click", "PyTorch eager, this machine", "b"),
        ("eager.eager_fp16.click", "PyTorch eager fp16, this machine", "b"),
        ("eager.eager_fp16_weights.click", "PyTorch eager fp16 weights", "b"),
        ("eager.compiled.click", "PyTorch compiled, this machine", "b"),
        ("eager.compiled_fp16_weights.click", "PyTorch compiled fp16 weights", "b"),
        ("eager.compiled_graphs.click", "PyTorch compiled, CUDA graphs", "b"),
        ("eager.compiled_graphs_fp16_weights.click", "PyTorch compiled fp16, CUDA graphs", "b"),
    ):
        value = report.value(key)
        if value is not None:
            rows.append(Bar(label, value, with_unit(value, "ms"), style))
    for figure in FIGURES:
        spread = ", amortised" if figure.metric == "click.amortised" else ""
        label = f"{figure.network}, {figure.hardware.partition(',')[0]}{spread}"
        rows.append(Bar(label, figure.milliseconds, with_unit(figure.milliseconds, "ms"), "d"))
    return rows


def _figure(heading: str, svg: str) -> str:
    return f'<h2>{escape(heading)}</h2><div class="scroll">{svg}</div>'


def _tables(report: Report) -> Iterator[str]:
    for group, heading in GROUPS.items():
        rows = [_row(metric) for metric in report.group(group)]
        if rows:
            heads = "".join(f"<th>{h}</th>" for h in ("", "unit", "p50", "p95", "p99", "mean", "spread", "samples"))
            body = "".join(rows)
            yield (
                f'<h2>{escape(heading)}</h2><div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead>'
                f"<tbody>{body}</tbody></table></div>"
            )


def _row(metric: Metric) -> str:
    summary = metric.summary
    start = f"<tr><td>{escape(metric.title)}</td><td>{escape(metric.unit)}</td>"
    if summary is None:
        return f'{start}<td class="text faint" colspan="6">{escape(missing(metric))}</td></tr>'
    if metric.headline is Headline.HIGH:
        shown = f"{number(summary.high, metric.unit)}, the fastest"
        return f'{start}<td class="text" colspan="5">{shown}</td><td>{summary.count}</td></tr>'
    if summary.count == 1:
        return f"{start}<td>{number(summary.p50, metric.unit)}</td><td></td><td></td><td></td><td></td><td>1</td></tr>"
    columns = (summary.p50, summary.p95, summary.p99, summary.mean, summary.spread)
    cells = "".join(f"<td>{number(value, metric.unit)}</td>" for value in columns)
    return f"{start}{cells}<td>{summary.count}</td></tr>"


def _papers(report: Report) -> str:
    rows = []
    for figure in FIGURES:
        ours = report.value(figure.metric)
        here = "not measured" if ours is None else number(ours, "ms")
        rows.append(
            f'<tr><td>{escape(figure.network)}</td><td class="text">{escape(figure.hardware)}</td>'
            f"<td>{number(figure.milliseconds, 'ms')}</td><td>{here}</td>"
            f'<td class="text">{escape(figure.what)}; {escape(figure.source)}</td></tr>'
        )
    return (
        f"<h2>{escape(papers_heading(report.value('work.parameters')))}</h2>"
        '<div class="scroll"><table><thead><tr><th>network</th><th class="text">on</th><th>ms</th>'
        f'<th>here, ms</th><th class="text">what</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _papers_sizes(report: Report) -> Iterator[str]:
    """Yield the published parameters and arithmetic of the measured network beside ours."""
    rows = "".join(
        f'<tr><td>{escape(what)}</td><td>{there}</td><td>{escape(here)}</td><td class="text">{escape(source)}</td></tr>'
        for what, there, here, source in size_rows(report)
    )
    if rows:
        yield (
            f'<h2>{escape(sizes_title(report))}</h2><div class="scroll"><table><thead><tr><th></th>'
            f'<th>there</th><th>here</th><th class="text">source</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )


def _papers_memory(report: Report) -> Iterator[str]:
    """Yield the paper's memory beside ours; nothing for a run on a CPU."""
    rows = "".join(
        f"<tr><td>{escape(inputs)}</td><td>{there}</td><td>{here}</td></tr>"
        for inputs, there, here in memory_rows(report)
    )
    if rows:
        yield (
            f'<h2>{escape(VRAM_TITLE)}</h2><div class="scroll"><table><thead><tr><th>published</th>'
            f"<th>there</th><th>{VRAM_HERE}</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )


def _machine(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(heading)}</td><td class="text">{escape(text)}</td></tr>'
        for heading, text in machine_lines(report.machine)
    )
    return f'<h2>Machine</h2><table class="plain"><tbody>{rows}</tbody></table>'


def _compared(comparison: ReportComparison) -> str:
    rows = []
    for row in comparison.rows:
        shown = ["-" if value is None else with_unit(value, row.metric.unit) for value in (row.old, row.new)]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        cells = "".join(f"<td>{escape(text)}</td>" for text in (*shown, ratio))
        verdict = f'<td class="text {row.verdict.name.lower()}">{escape(str(row.verdict))}</td>'
        rows.append(f"<tr><td>{escape(row.metric.title)}</td>{cells}{verdict}</tr>")
    notes = "".join(
        f"<p>{escape(text)}</p>"
        for text in (
            *(f"Not comparable: {text}" for text in comparison.differences),
            *(f"Changed: {text}" for text in comparison.changes),
        )
    )
    return (
        '<h2>Now against then</h2><div class="scroll"><table><thead><tr><th></th><th>then</th><th>now</th>'
        f"<th>now / then</th><th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )
