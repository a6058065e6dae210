"""The page of a run: losses and held-out IoU over the steps, and what the finished network can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmms_deploy.evaluation.report.plots import STYLE as PLOT_STYLE
from mmms_deploy.evaluation.report.plots import Series, by_clicks
from mmms_deploy.evaluation.summary import DatasetSummary
from mmms_deploy.reporting.files import write_text
from mmms_deploy.reporting.html import document
from mmms_deploy.reporting.svg import WIDTH, draw_line, draw_text, drawing, ticks
from mmms_deploy.reporting.visible import escape
from mmms_deploy.training.measure import GuardSummary

PAGE_FILE = "report.html"
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 14, 40
_HEIGHT = 260
_STYLES = "abcd"


def over_steps(lines: Sequence[tuple[str, Sequence[tuple[int, float]]]], title: str) -> str:
    """Return lines over the steps.

    Args:
        lines: Label and points (step, value) of each line, at most four; a line has one point or more.
        title: What is shown, for screen readers.
    """
    last = max(step for _, points in lines for step, _ in points)
    high = max(*(value for _, points in lines for _, value in points), 1e-9) * 1.05

    def place(step: int, value: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * step / max(last, 1)
        return x, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / high)

    parts = []
    for tick in ticks(high):
        y = place(0, tick)[1]
        parts.append(draw_line(_LEFT, y, WIDTH - _RIGHT, y))
        parts.append(draw_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end", faint=True))
    for tick in ticks(float(last)):
        x = place(int(tick), 0)[0]
        parts.append(draw_text(x, _HEIGHT - _BOTTOM + 18, f"{tick:g}", anchor="middle", faint=True))
    parts.append(draw_text(_LEFT, _HEIGHT - 6, "steps", faint=True))
    below = 0.0
    ends = sorted(lines, key=lambda line: place(*line[1][-1])[1])
    for label, points in ends:
        style = _STYLES[[name for name, _ in lines].index(label) % len(_STYLES)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline class="series s{style}" points="{drawn}"/>')
        x, y = place(*points[-1])
        below = max(y + 4, below + 16)
        parts.append(draw_text(x + 8, below, label))
    return drawing(parts, _HEIGHT, title)


def write_page(
    folder: Path,
    facts: Sequence[tuple[str, str]],
    log: Sequence[dict[str, Any]],
    summaries: Sequence[DatasetSummary],
    guards: GuardSummary | None,
) -> Path:
    """Write the page of a run.

    Args:
        folder: The run's folder.
        facts: Names and values that describe the run.
        log: The run's log.
        summaries: The measures of the finished network, one a data set; empty without held-out scenes.
        guards: What guard clicks do; None when they were not measured.

    Returns:
        The page.
    """
    parts = [f"<h1>{escape(folder.absolute().name)}</h1>", '<p class="faint">a training run of mmms-deploy</p>']
    rows = "".join(f"<tr><td>{escape(name)}</td><td class='text'>{escape(value)}</td></tr>" for name, value in facts)
    parts.append(f'<table class="plain">{rows}</table>')
    steps = [line for line in log if "loss" in line]
    if steps:
        parts.append("<h2>Training</h2>")
        parts.append(over_steps([("loss", [(one["step"], one["loss"]) for one in steps])], "loss by step"))
        shown = [
            ("first click", [(one["step"], one["first"]) for one in steps]),
            ("last click", [(one["step"], one["last"]) for one in steps]),
        ]
        parts.append(over_steps(shown, "IoU of training clicks by step"))
    measured = [line for line in log if "measured" in line]
    if measured:
        parts.append("<h2>Some held-out objects, during training</h2>")
        clicks = (1, 3, 5)
        shown = [
            (f"click {k}", [(one["step"], one["measured"]["iou"][k - 1]) for one in measured])
            for k in clicks
            if all(len(one["measured"]["iou"]) >= k for one in measured)
        ]
        if shown:
            parts.append(over_steps(shown, "IoU of held-out objects by step"))
    for summary in summaries:
        parts += _measures(summary)
    if guards is not None and guards.cases:
        parts.append("<h2>Negative clicks on background</h2>")
        parts.append(
            f"<p>{100 * guards.enlarged:.1f} % of {guards.cases} masks grew by more than 2 %;"
            f" the mean growth is {100 * guards.growth:.2f} %.</p>"
        )
    page = folder / PAGE_FILE
    write_text(page, document(folder.absolute().name, parts, PLOT_STYLE).encode())
    return page


def _measures(summary: DatasetSummary) -> list[str]:
    parts = [f"<h2>{escape(summary.name)}, held out: {summary.objects} objects of {summary.scenes} pictures</h2>"]
    if summary.curve is not None:
        curve = summary.curve
        parts.append(by_clicks([Series("mean IoU", curve.iou, low=curve.low, high=curve.high)], (), "IoU by clicks"))
    cells = "".join(
        f"<tr><td>NoC@{100 * one.target:g}</td><td>{one.noc:.2f}</td><td>{100 * one.failure_rate:.1f} %</td></tr>"
        for one in summary.targets
    )
    parts.append(f"<table><tr><th></th><th>clicks</th><th>failed</th></tr>{cells}</table>")
    return parts
