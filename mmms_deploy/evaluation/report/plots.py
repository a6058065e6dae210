"""Plots of an evaluation as SVG: quality by clicks, and how many clicks objects took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmms_deploy.reporting.svg import WIDTH, draw_line, draw_text, drawing, ticks
from mmms_deploy.reporting.visible import escape

STYLE = """
.plot .series { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.plot .sa { stroke: var(--a); } .plot .sb { stroke: var(--b); } .plot .sc { stroke: var(--c); }
.plot .sd { stroke: var(--d); } .plot .dashed { stroke-dasharray: 5 4; }
.plot .band { fill: var(--a); fill-opacity: 0.14; }
"""
"""The style of these plots, in addition to that of all plots."""

CLASSES = ("a", "b", "c", "d")
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 190, 14, 44


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        label: Its label.
        values: One for each click, from the first on, 0..1.
        style: ``a``, ``b``, ``c`` or ``d``.
        dashed: Whether it is drawn with dashes.
        low: Lower edge of a band around it; empty for none.
        high: Upper edge.
    """

    label: str
    values: Sequence[float]
    style: str = "a"
    dashed: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def by_clicks(series: Sequence[Series], marks: Sequence[float], title: str, floor: float = 0.0) -> str:
    """Return lines over the number of clicks, in percent.

    Args:
        series: At least one, each with a value or more.
        marks: Heights of horizontal marks (targets), 0..1.
        title: What is shown, for screen readers.
        floor: Where the vertical axis starts, below 1.
    """
    height = 340
    count = max(len(one.values) for one in series)

    def place(k: int, value: float) -> tuple[float, float]:
        x = _LEFT + 14 + (WIDTH - _LEFT - _RIGHT - 28) * ((k / (count - 1)) if count > 1 else 0.5)
        share = (value - floor) / (1 - floor)
        return x, _TOP + (height - _TOP - _BOTTOM) * (1 - share)

    parts = []
    for tick in ticks(1 - floor + 1e-9):
        y = place(0, floor + tick)[1]
        parts.append(draw_line(_LEFT, y, WIDTH - _RIGHT, y))
        parts.append(draw_text(_LEFT - 8, y + 4, f"{100 * (floor + tick):.4g}", anchor="end", faint=True))
    for mark in marks:
        if mark > floor:
            y = place(0, mark)[1]
            parts.append(draw_line(_LEFT, y, WIDTH - _RIGHT, y, "mark"))
    step = max(1, round(count / 20))
    for k in range(0, count, step):
        parts.append(draw_text(place(k, floor)[0], height - _BOTTOM + 18, str(k + 1), anchor="middle", faint=True))
    for one in series:
        if one.low:
            edge = [place(k, value) for k, value in enumerate(one.low)]
            edge += [place(k, value) for k, value in reversed(list(enumerate(one.high)))]
            parts.append(f'<polygon class="band" points="{_points(edge)}"/>')
    for one in series:
        points = [place(k, value) for k, value in enumerate(one.values)]
        dashed = " dashed" if one.dashed else ""
        if len(points) == 1:
            parts.append(f'<circle class="{one.style}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="4"/>')
        else:
            parts.append(f'<polyline class="series s{one.style}{dashed}" points="{_points(points)}"/>')
    parts += _legend(series, [place(len(one.values) - 1, one.values[-1])[1] for one in series], height)
    parts.append(draw_text(_LEFT, height - 6, "percent, by number of clicks", faint=True))
    return drawing(parts, height, title)


def _legend(series: Sequence[Series], ends: Sequence[float], height: int) -> list[str]:
    """Return labels at the ends of the lines, kept apart, each with a piece of its line."""
    order = sorted(range(len(series)), key=lambda i: ends[i])
    parts, previous = [], 0.0
    for rank, i in enumerate(order):
        below = 17 * (len(order) - rank - 1)
        y = max(min(ends[i] + 4, height - _BOTTOM - below), previous + 17)
        previous = y
        x = WIDTH - _RIGHT + 10
        dashed = " dashed" if series[i].dashed else ""
        swatch = f'<path class="series s{series[i].style}{dashed}" d="M{x} {y - 4:.1f}h18"/>'
        parts += [swatch, draw_text(x + 24, y, series[i].label)]
    return parts


def histogram(clicks: Sequence[int], failed: int, title: str) -> str:
    """Return how many objects took 1, 2, ... clicks, and how many failed.

    Args:
        clicks: Objects that took 1, 2, ... clicks.
        failed: Objects that failed.
        title: What is shown, for screen readers.
    """
    height, high = 220, max(*clicks, failed, 1)
    slots = len(clicks) + 1.6
    width = (WIDTH - _LEFT - 20) / slots
    parts = []
    for tick in ticks(high, 4):
        if tick == int(tick):
            y = _TOP + (height - _TOP - _BOTTOM) * (1 - tick / high)
            parts.append(draw_line(_LEFT, y, WIDTH - 20, y))
            parts.append(draw_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end", faint=True))
    labels = [*(str(k) for k in range(1, len(clicks) + 1)), "failed"]
    crowded = max(1, round(len(clicks) / 25))
    for k, (value, label) in enumerate(zip((*clicks, failed), labels, strict=True)):
        lost = k == len(clicks)
        x = _LEFT + width * (k + (0.6 if lost else 0))
        tall = (height - _TOP - _BOTTOM) * value / high
        y = height - _BOTTOM - tall
        style = "b" if lost else "a"
        if value:
            parts.append(
                f'<rect class="{style}" x="{x + 0.12 * width:.1f}" y="{y:.1f}" width="{0.76 * width:.1f}"'
                f' height="{tall:.1f}" rx="2"><title>{escape(label)}: {value}</title></rect>'
            )
        if lost or k % crowded == 0:
            parts.append(draw_text(x + width / 2, height - _BOTTOM + 18, label, anchor="middle", faint=True))
    parts.append(draw_text(_LEFT, height - 6, "objects, by number of clicks", faint=True))
    return drawing(parts, height, title)


def sparkline(values: Sequence[float], target: float) -> str:
    """Return a small curve of an object's IoU by clicks, with its target."""
    width, height = 150, 34
    step = width / max(len(values) - 1, 1)
    points = [(step * k, height - 2 - (height - 4) * value) for k, value in enumerate(values)]
    mark = height - 2 - (height - 4) * target
    last = values[-1]
    return (
        f'<svg class="plot spark" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>IoU by clicks, {100 * last:.1f} % in the end</title>"
        f'<line class="mark" x1="0" y1="{mark:.1f}" x2="{width}" y2="{mark:.1f}"/>'
        f'<polyline class="series sa" points="{_points(points)}"/></svg>'
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
