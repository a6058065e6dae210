"""The results of ``benchmarks/cpu.py``: targets, a table in Markdown, plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from agreement import CLICKS as COMPARED
from agreement import KEEPS
from variants import Row

from mmms_deploy.bench.papers import FIGURES
from mmms_deploy.bench.report import summarise
from mmms_deploy.bench.text import number
from mmms_deploy.engines.machine import MachineFacts, machine_lines
from mmms_deploy.reporting.svg import Bar, bars, standalone

TITLES = {"rgb": "RGB", "rgbd": "RGB + depth", "": "instead"}
TEN = 10
"""Clicks that an annotator makes on an image here, beside waiting for the image itself."""
KINDS = {
    "wait": f"an image and {TEN} clicks, fastest first",
    "click": "a click, by way to run it",
    "image": "an image, by way to run it",
}
"""The plots, in the order in which they are looked at."""


Quantity = Callable[[Row], float | None]
"""What of two variants is compared."""


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


def wait(row: Row) -> float | None:
    """Return what an annotator waits for an image and ten clicks on it, in ms; None without samples.

    For each image: its own time, and that of its first ten clicks; where it has fewer, ten times their mean. Of all
    images the median.

    Args:
        row: The variant.
    """
    each = len(row.click) // len(row.image) if row.image else 0
    if not each:
        return None
    found = []
    for index, image in enumerate(row.image):
        first = row.click[index * each : (index + 1) * each][:TEN]
        found.append(image + TEN * sum(first) / len(first))
    return median(found)


def keeps(row: Row) -> bool:
    """Return whether a variant keeps the masks of its reference, where it was compared with one."""
    return row.iou is not None and row.iou >= KEEPS


def best_peer(rows: Sequence[Row]) -> Row | None:
    """Return the peer in its best engine: the least wait for an image and ten clicks that keeps the masks.

    Args:
        rows: All variants.

    Returns:
        Its row; None where no peer was measured.
    """
    timed = [(spent, row) for row in rows if not row.inputs and keeps(row) and (spent := wait(row)) is not None]
    return min(timed, key=lambda pair: pair[0])[1] if timed else None


def targets(row: Row, rows: Sequence[Row], peaks: dict[str, float]) -> list[Target]:
    """Return the goals on two cores, for one way to deploy the RGB network; a peer counts in its best engine.

    Args:
        row: The variant.
        rows: All variants.
        peaks: Measured GFLOP/s of matrix products, by precision.
    """
    by_key = {each.key: each for each in rows}
    peer = best_peer(rows)
    click, image, waited = _median_click, _median_image, wait

    def against(what: str, limit: float, quantity: Quantity, other: Row | None, without: str) -> Target:
        ours = quantity(row)
        theirs = None if other is None else quantity(other)
        if ours is None or theirs is None:
            why = row.why if ours is None else without if other is None else other.why
            return Target(what, limit, None, why=why)
        return Target(what, limit, ours / theirs)

    left_out = "it was left out"
    no_peer = "no engine was measured that keeps its masks"
    found = [
        against("click / PyTorch eager", 0.12, click, by_key.get("rgb/eager"), left_out),
        against("click / ONNX Runtime as exported", 0.40, click, by_key.get("rgb/ort-as-exported"), left_out),
        Target("host overhead of a click, ms", 3.0, middle(row.host), why=row.why),
        against("click / SAM 2 tiny's, in its best engine", 1.5, click, peer, no_peer),
        against("image part / SAM 2 tiny's, in its best engine", 0.45, image, peer, no_peer),
        against(f"image + {TEN} clicks / SAM 2 tiny's, in its best engine", 0.5, waited, peer, no_peer),
        Target(
            "click stage, share of the matrix peak",
            0.5,
            share_of_peak(row, peaks),
            higher=True,
            why=row.why or "operations or peak are unknown",
        ),
    ]
    if row.precision == "int8":
        float32, bf16 = (in_same_engine(row, rows, precision) for precision in ("fp32", "bf16"))
        without = "this engine does not compute in it"
        found += [
            against("click / BF16's, same engine", 0.78, click, bf16, without),
            against("click / float32's, same engine", 0.45, click, float32, without),
            against("image part / BF16's, same engine", 0.62, image, bf16, without),
            against("size of the graph files / float32's", 0.3, _graph_bytes, float32, without),
        ]
    return found


def _median_click(row: Row) -> float | None:
    return middle(row.click)


def _median_image(row: Row) -> float | None:
    return middle(row.image)


def _graph_bytes(row: Row) -> float | None:
    return row.graph_bytes


def in_same_engine(row: Row, rows: Sequence[Row], precision: str) -> Row | None:
    """Return the row of the same network in the same engine in another precision; None where there is none.

    Args:
        row: A row whose key ends with its precision.
        rows: All variants.
        precision: The other one. A key without a precision is float32's.
    """
    engine = row.key.removesuffix(f"-{row.precision}")
    names = (f"{engine}-{precision}", *([engine] if precision == "fp32" else []))
    return next((other for other in rows if other.key in names), None)


def markdown(rows: Sequence[Row], machine: MachineFacts, peaks: dict[str, Any], conditions: str) -> str:
    """Return the page with the table, in Markdown.

    Args:
        rows: All variants.
        machine: The machine.
        peaks: Measured GFLOP/s, by precision, with the library.
        conditions: How it was measured, in one line.
    """
    known = {precision: peak["gflops"] for precision, peak in peaks.items()}
    lines = ["# CPU", "", conditions, "", f"![{_title('wait')}](cpu-wait.svg)", ""]
    lines += [_about_peer(rows), "", *_table(rows, known), ""]
    lines += [
        f"*image + {TEN} clicks*: the wait for an image and its first {TEN} clicks, median of the images. Of SAM 2's"
        " graphs alone only the graphs count, which favours them. *masks*: median IoU with the masks of the same"
        f" network in ONNX Runtime in float32, after the same {COMPARED} clicks on each of three photographs; ours have"
        " random weights. *off by*: largest difference of a probability from eager PyTorch's, after the last click."
        " *graphs*: the files that the engine executes.",
        "",
    ]
    lines += [line for kind in KINDS if kind != "wait" for line in (f"![{_title(kind)}](cpu-{kind}.svg)", "")]
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


def _about_peer(rows: Sequence[Row]) -> str:
    """Return in a sentence which engine of the peer the ratios use."""
    best = best_peer(rows)
    if best is None:
        return "No engine was measured that keeps SAM 2 tiny's masks."
    lost = [row for row in rows if not row.inputs and row.iou is not None and not keeps(row)]
    said = "".join(f" {row.label} answers other masks (IoU {row.iou:.3f}) and does not count." for row in lost)
    return (
        f"Ratios take SAM 2 tiny in its best engine, the least wait for an image and {TEN} clicks with a median IoU of"
        f" at least {KEEPS:g} with its own masks in ONNX Runtime in float32. Here that is: {best.label}.{said}"
    )


def _table(rows: Sequence[Row], peaks: dict[str, float]) -> list[str]:
    heads = ("network", "how", f"image + {TEN} clicks, ms", "click p50, ms", "p95", "mean", "host, ms")
    heads += ("GFLOP", "of peak", "image p50, ms", "graphs, MB", "masks", "off by")
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for row in rows:
        start = [TITLES[row.inputs], row.label]
        if row.why:
            cells = [f"not measured: {row.why.splitlines()[0]}", *([""] * (len(heads) - 3))]
        else:
            click, spent, share = summarise(row.click), wait(row), share_of_peak(row, peaks)
            cells = [
                "" if spent is None else number(spent, "ms"),
                *(f"{value:.1f}" for value in (click.p50, click.p95, click.mean)),
                f"{summarise(row.host).p50:.2f}" if row.host else "",
                "" if row.gflop is None else f"{row.gflop:.1f}",
                "" if share is None else f"{100 * share:.0f} %",
                number(summarise(row.image).p50, "ms"),
                "" if row.graph_bytes is None else f"{row.graph_bytes / 1e6:.0f}",
                "reference" if row.reference == row.key else "" if row.iou is None else f"{row.iou:.3f}",
                "" if row.difference is None else f"{row.difference:.0e}",
            ]
        lines.append(f"| {' | '.join([*start, *cells])} |")
    return lines


def _title(kind: str) -> str:
    return KINDS[kind][0].upper() + KINDS[kind][1:]


def plot(rows: Sequence[Row], kind: str) -> str:
    """Return medians as a bar chart, an SVG file of its own.

    An image and ten clicks are drawn for the RGB network and the peer alone, fastest first; an engine of the peer that
    does not keep its masks is left out there.

    Args:
        rows: All variants.
        kind: ``wait``, ``click`` or ``image``.
    """
    quantity = {"wait": wait, "click": _median_click, "image": _median_image}[kind]
    drawn = []
    for row in rows:
        value = quantity(row)
        if value is None or (kind == "wait" and (row.inputs == "rgbd" or (not row.inputs and not keeps(row)))):
            continue
        style = "a" if row.ours else "c" if not row.inputs else "b" if row.key.endswith("/eager") else "d"
        label = f"{TITLES[row.inputs]}: {row.label}" if row.inputs and kind != "wait" else row.label
        drawn.append(Bar(label, value, f"{number(value, 'ms')} ms", style))
    if kind == "wait":
        drawn.sort(key=lambda bar: bar.value)
    return standalone(bars(drawn, f"Milliseconds for {KINDS[kind]}"))
