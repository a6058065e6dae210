"""The results of ``benchmarks/cpu.py``: targets, a table in Markdown, plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from variants import Row

from mmms_deploy.bench.papers import FIGURES
from mmms_deploy.bench.report import summarise
from mmms_deploy.bench.text import number
from mmms_deploy.engines.machine import MachineFacts, machine_lines
from mmms_deploy.reporting.svg import Bar, bars, standalone

TITLES = {"rgb": "RGB", "rgbd": "RGB + depth", "": "instead"}


@dataclass(frozen=True)
class Target:
    """One goal, and how near a variant comes to it.

    Attributes:
        what: The goal.
        limit: Its bound.
        value: The value that was reached; None when it could not be measured.
        higher: Whether the value has to be above the bound instead of below.
        why: Why there is no value.
    """

    what: str
    limit: float
    value: float | None
    higher: bool = False
    why: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None when that is unknown."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.higher else self.value <= self.limit

    def __str__(self) -> str:
        sign = "at least" if self.higher else "at most"
        if self.value is None:
            return f"  unknown  {self.what}: {sign} {self.limit:g} (not measured: {self.why})"
        word = "met" if self.met else "MISSED"
        return f"  {word:<7}  {self.what}: {self.value:.3f} ({sign} {self.limit:g})"


def middle(samples: Sequence[float]) -> float | None:
    """Return the median; None without samples."""
    return median(samples) if samples else None


def share_of_peak(row: Row, peaks: dict[str, float]) -> float | None:
    """Return the share of the measured matrix peak that a click stage reaches; None when something is unknown.

    Args:
        row: The variant.
        peaks: Measured GFLOP/s of matrix products, by precision.
    """
    engine, peak = middle(row.engine), peaks.get(row.precision)
    if engine is None or row.gflop is None or peak is None:
        return None
    return row.gflop / (1e-3 * engine) / peak


def targets(row: Row, rows: Sequence[Row], peaks: dict[str, float]) -> list[Target]:
    """Return the goals of a click on two cores, for one way to deploy the RGB network.

    Args:
        row: The variant.
        rows: All variants.
        peaks: Measured GFLOP/s of matrix products, by precision.
    """
    by_key = {each.key: each for each in rows}
    click, image = middle(row.click), middle(row.image)

    def against(what: str, limit: float, ours: float | None, key: str, kind: str) -> Target:
        other = by_key.get(key)
        theirs = None if other is None else middle(other.click if kind == "click" else other.image)
        if ours is None or theirs is None:
            why = row.why if ours is None else "it was left out" if other is None else other.why
            return Target(what, limit, None, why=why)
        return Target(what, limit, ours / theirs)

    return [
        against("click / PyTorch eager", 0.12, click, "rgb/eager", "click"),
        against("click / ONNX Runtime as exported", 0.40, click, "rgb/ort-as-exported", "click"),
        Target("host overhead of a click, ms", 3.0, middle(row.host), why=row.why),
        against("click / SAM 2 tiny decoder", 1.5, click, "sam2", "click"),
        against("image part / SAM 2 tiny encoder", 0.45, image, "sam2", "image"),
        Target(
            "click stage, share of the matrix peak",
            0.5,
            share_of_peak(row, peaks),
            higher=True,
            why=row.why or "operations or peak are unknown",
        ),
    ]


def markdown(rows: Sequence[Row], machine: MachineFacts, peaks: dict[str, Any], conditions: str) -> str:
    """Return the page with the table, in Markdown.

    Args:
        rows: All variants.
        machine: The machine.
        peaks: Measured GFLOP/s, by precision, with the library.
        conditions: How it was measured, in one line.
    """
    lines = [
        "# CPU",
        "",
        conditions,
        "",
        "| network | how | click p50, ms | p95 | mean | host, ms | GFLOP | of peak | image p50, ms | off by |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    known = {precision: peak["gflops"] for precision, peak in peaks.items()}
    for row in rows:
        start = f"| {TITLES[row.inputs]} | {row.label} |"
        if row.why:
            lines.append(f"{start} not measured: {row.why.splitlines()[0]} | | | | | | | |")
            continue
        click = summarise(row.click)
        host = "" if not row.host else f"{summarise(row.host).p50:.2f}"
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        share = share_of_peak(row, known)
        lines.append(
            f"{start} {click.p50:.1f} | {click.p95:.1f} | {click.mean:.1f} | {host} |"
            f" {'' if row.gflop is None else f'{row.gflop:.1f}'} | {'' if share is None else f'{100 * share:.0f} %'} |"
            f" {number(summarise(row.image).p50, 'ms')} | {difference} |"
        )
    lines += ["", "*off by*: largest difference of a probability from eager PyTorch's, after the last click."]
    lines += ["", "![A click, by way to run it](cpu-click.svg)", "", "![An image, by way to run it](cpu-image.svg)", ""]
    lines += ["## Targets", "", "For the RGB network, medians of this run.", ""]
    for row in rows:
        if row.ours and row.inputs == "rgb" and not row.why:
            lines += [f"### {row.label}", "", "| target | bound | reached | |", "|---|---:|---:|---|"]
            for target in targets(row, rows, known):
                value = f"not measured: {target.why}" if target.value is None else f"{target.value:.3f}"
                word = {True: "met", False: "**missed**", None: ""}[target.met]
                sign = "≥" if target.higher else "≤"
                lines.append(f"| {target.what} | {sign} {target.limit:g} | {value} | {word} |")
            lines.append("")
    lines += ["## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {heading} | {text} |" for heading, text in machine_lines(machine)]
    lines += [
        f"| matrix products, {precision} | {peak['gflops']:.0f} GFLOP/s ({peak['library']}) |"
        for precision, peak in peaks.items()
    ]
    lines += ["", "## Published, on other hardware", "", "| network | on | ms | what | by |", "|---|---|---:|---|---|"]
    lines += [f"| {f.network} | {f.hardware} | {f.milliseconds:g} | {f.what} | {f.source} |" for f in FIGURES]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], kind: str) -> str:
    """Return medians as a bar chart, an SVG file of its own.

    Args:
        rows: All variants.
        kind: ``click`` or ``image``.
    """
    drawn = []
    for row in rows:
        value = middle(row.click if kind == "click" else row.image)
        if value is not None:
            style = "a" if row.ours else "c" if not row.inputs else "b" if row.key.endswith("/eager") else "d"
            label = f"{TITLES[row.inputs]}: {row.label}" if row.inputs else row.label
            drawn.append(Bar(label, value, f"{number(value, 'ms')} ms", style))
    return standalone(bars(drawn, f"Milliseconds a{'n' if kind == 'image' else ''} {kind}, by way to run it"))
