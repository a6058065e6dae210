"""Small plots as SVG, drawn without a library: they have no script, and suit light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmms_deploy.reporting.visible import escape

STYLE = """
.plot { font: 13px system-ui, sans-serif; }
.plot text { fill: var(--ink); }
.plot .faint { fill: var(--faint); }
.plot .rule { stroke: var(--rule); stroke-width: 1; }
.plot .mark { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
.plot .a { fill: var(--a); } .plot .b { fill: var(--b); } .plot .c { fill: var(--c); } .plot .d { fill: var(--d); }
.plot .line { fill: none; stroke: var(--a); stroke-width: 2; }
.plot .dot { fill: var(--a); fill-opacity: 0.55; }
"""
"""Style of the plots; its variables are the names in the palettes."""

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1d2733",
    "faint": "#66717f",
    "rule": "#dde2e8",
    "a": "#2f6fde",
    "b": "#d9822b",
    "c": "#3a9d6e",
    "d": "#97a1ad",
}
DARK = {
    "paper": "#12171e",
    "ink": "#e4e9ef",
    "faint": "#94a0ae",
    "rule": "#2c3540",
    "a": "#6ea3ff",
    "b": "#f0a45d",
    "c": "#63c596",
    "d": "#6c7785",
}


def _variables(palette: Mapping[str, str]) -> str:
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in palette.items())} }}"


COLOURS = f"\n{_variables(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {_variables(DARK)} }}\n"
"""The palette, light and dark."""

WIDTH = 860
_LABEL = 300
_RIGHT = 110
_ROW = 30
_CLASSES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: Text on its left.
        value: Its length; 0 or more.
        text: Text at its end.
        style: ``a`` (ours), ``b``, ``c`` or ``d`` (context).
    """

    label: str
    value: float
    text: str
    style: str = "a"


def bars(rows: Sequence[Bar], title: str, *, log: bool = False) -> str:
    """Return a horizontal bar chart.

    Args:
        rows: At least one, from top to bottom.
        title: Description for readers who cannot see the plot.
        log: Whether the scale is logarithmic, from a power of ten below the smallest value. Then dots are drawn and no
            bars, because the length of a bar would mean nothing.
    """
    positive = [row.value for row in rows if row.value > 0]
    high = max(positive, default=1.0)
    low = 10 ** math.floor(math.log10(min(positive, default=1.0))) if log else 0.0
    span = WIDTH - _LABEL - _RIGHT
    height = _ROW * len(rows) + (24 if log else 8)

    def place(value: float) -> float:
        if not log:
            return span * value / high
        top = max(math.log10(high) - math.log10(low), 1e-9)
        return span * (math.log10(max(value, low)) - math.log10(low)) / top

    parts = []
    if log:
        for power in range(round(math.log10(low)), math.floor(math.log10(high)) + 1):
            x = _LABEL + place(10.0**power)
            parts.append(draw_line(x, 0, x, height - 20))
            parts.append(draw_text(x, height - 5, f"{10.0**power:g}", anchor="middle", faint=True))
    for index, row in enumerate(rows):
        y = _ROW * index + 4
        end = _LABEL + place(row.value)
        parts.append(draw_text(_LABEL - 10, y + 15, row.label, anchor="end"))
        if log:
            parts.append(f'<circle class="{row.style}" cx="{end:.1f}" cy="{y + 10}" r="6"/>')
        else:
            parts.append(draw_rect(_LABEL, y, max(end - _LABEL, 1.0), 20, row.style))
        parts.append(draw_text(end + 12, y + 15, row.text))
    return drawing(parts, height, title)


def stack(parts: Sequence[tuple[str, float, str]], title: str) -> str:
    """Return one bar made of parts, with a legend.

    Args:
        parts: Label, length and text of each part, at most four.
        title: Description for readers who cannot see the plot.
    """
    total = sum(value for _, value, _ in parts) or 1.0
    x, drawn = 0.0, []
    for style, (_, value, _) in zip(_CLASSES, parts, strict=False):
        width = (WIDTH - 2) * value / total
        drawn.append(draw_rect(x, 4, max(width - 1, 0.5), 30, style))
        x += width
    for index, (style, (label, _, text)) in enumerate(zip(_CLASSES, parts, strict=False)):
        y = 54 + 22 * index
        drawn.append(draw_rect(0, y - 11, 12, 12, style))
        drawn.append(draw_text(20, y, f"{label}: {text}"))
    return drawing(drawn, 54 + 22 * len(parts), title)


def strip(samples: Sequence[float], marks: Sequence[tuple[str, float]], unit: str, title: str) -> str:
    """Return every sample as a dot, in the order of measuring, with horizontal marks.

    Args:
        samples: At least one.
        marks: Label and height of each mark.
        unit: Unit of the samples.
        title: Description for readers who cannot see the plot.
    """
    height, left, right, top, bottom = 260, 60, 150, 12, 28
    high = 1.08 * max(*samples, *(value for _, value in marks), 1e-9)

    def y_of(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / high)

    drawn = []
    for tick in ticks(high):
        drawn.append(draw_line(left, y_of(tick), WIDTH - right, y_of(tick)))
        drawn.append(draw_text(left - 8, y_of(tick) + 4, f"{tick:g}", anchor="end", faint=True))
    step = (WIDTH - left - right - 20) / max(len(samples) - 1, 1)
    for index, value in enumerate(samples):
        drawn.append(f'<circle class="dot" cx="{left + 10 + step * index:.1f}" cy="{y_of(value):.1f}" r="3.5"/>')
    previous = math.inf
    for label, value in sorted(marks, key=lambda mark: mark[1]):
        drawn.append(draw_line(left, y_of(value), WIDTH - right, y_of(value), "mark"))
        y = min(y_of(value) + 4, previous - 15)  # labels of marks that lie close are kept apart
        previous = y
        drawn.append(draw_text(WIDTH - right + 8, y, label))
    drawn.append(draw_text(left, height - 6, f"{unit}, every sample in the order of measuring", faint=True))
    return drawing(drawn, height, title)


def curve(points: Sequence[tuple[float, float]], labels: Sequence[str], x_name: str, unit: str, title: str) -> str:
    """Return a line through points, from zero upwards.

    Args:
        points: (x, y), ascending in x, at least one.
        labels: Text at each point.
        x_name: Name of x.
        unit: Unit of y.
        title: Description for readers who cannot see the plot.
    """
    height, left, right, top, bottom = 240, 60, 60, 24, 40
    high = 1.1 * max(*(y for _, y in points), 1e-9)
    first, last = points[0][0], points[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        share = 0.5 if last == first else (x - first) / (last - first)
        return left + 20 + (WIDTH - left - right - 40) * share, top + (height - top - bottom) * (1 - y / high)

    drawn = []
    for tick in ticks(high):
        y = place(first, tick)[1]
        drawn.append(draw_line(left, y, WIDTH - right, y))
        drawn.append(draw_text(left - 8, y + 4, f"{tick:g}", anchor="end", faint=True))
    placed = [place(x, y) for x, y in points]
    drawn.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>')
    for (x, y), (value, _), label in zip(placed, points, labels, strict=True):
        drawn.append(f'<circle class="a" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        drawn.append(draw_text(x, y - 10, label, anchor="middle"))
        drawn.append(draw_text(x, height - 22, f"{value:g}", anchor="middle", faint=True))
    drawn.append(draw_text(left, height - 4, f"{unit}, by {x_name}", faint=True))
    return drawing(drawn, height, title)


def ticks(high: float, count: int = 5) -> list[float]:
    """Return round numbers from 0 up to ``high``, about ``count`` of them."""
    rough = high / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [step * index for index in range(int(high / step) + 1)]


def standalone(svg: str) -> str:
    """Return a plot as a file of its own, with its style and a background.

    Its colours are written as numbers, because some viewers of SVG files do not support variables.
    """
    head, _, body = svg.partition(">")
    style = f"<style>{_written_out(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {_written_out(DARK)} }}</style>"
    paper = '<rect class="paper" width="100%" height="100%"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{paper}{body}\n'


def _written_out(palette: Mapping[str, str]) -> str:
    style = STYLE + ".plot .paper { fill: var(--paper); }"
    for name, colour in palette.items():
        style = style.replace(f"var(--{name})", colour)
    return style


def drawing(parts: Sequence[str], height: float, title: str) -> str:
    """Return a plot of full width made of parts, with a title for readers who cannot see it."""
    inside = "".join(parts)
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )


def draw_text(x: float, y: float, text: str, *, anchor: str = "start", faint: bool = False) -> str:
    """Return a line of text; ``anchor`` says which part of it lies at x: ``start``, ``middle`` or ``end``."""
    style = ' class="faint"' if faint else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def draw_rect(x: float, y: float, width: float, height: float, style: str) -> str:
    """Return a rectangle with round corners."""
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" rx="3"/>'


def draw_line(x1: float, y1: float, x2: float, y2: float, style: str = "rule") -> str:
    """Return a straight line; ``style`` is ``rule`` or ``mark``."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
