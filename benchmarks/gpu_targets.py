"""The goals of a click on a data-centre GPU, and how near the runs of ``mmms-bench`` in a GPU check come to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec

from mmms_deploy.bench.report import Report
from mmms_deploy.engines.tensorrt.inspect import UNPROVEN

PAPER_MIB = 1474
"""MiB that MMMS on RGB takes on a V100, by the paper (table VI)."""
CLICK_MS = {"tensorrt": 0.8, "onnxruntime-cuda": 2.5}
_CLICK_BYTES = 16
_PARAMETERS = (119.0, 132.0)
"""Millions: MMMS on DINOv2-B14 without modalities, plus or minus 5 %."""
_EAGER = ("eager.eager_fp16", "eager.eager_fp16_weights")


@dataclass(frozen=True)
class Target:
    """One goal, and the value that a run reached.

    Attributes:
        what: The goal.
        goal: Its bound, as text.
        shown: The value, as text; empty when it was not measured.
        met: Whether it is reached; None when it was not measured.
        why: Why it was not.
    """

    what: str
    goal: str
    shown: str
    met: bool | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or why neither."""
        return self.why if self.met is None else "met" if self.met else "missed"


class _MissingError(Exception):
    """The run does not have a number; the message says why."""


def benchmarks(entries: Sequence[Mapping[str, Any]], kind: str = "bench") -> dict[str, Report]:
    """Return the reports of ``mmms-bench``, by the name of the step.

    Args:
        entries: The steps of a report.
        kind: The start of their names.
    """
    return {
        entry["name"]: msgspec.convert(entry["results"], Report)
        for entry in entries
        if entry["name"].startswith(f"{kind}:") and entry["state"] == "passed" and entry["results"]
    }


def is_full_size(report: Report) -> bool:
    """Return whether a run measured the network that the goals are for: full size, RGB alone."""
    low, high = _PARAMETERS
    found = report.value("work.parameters")
    fits = found is not None and low <= found <= high
    return fits and report.bundle.size == (448, 448) and not report.bundle.modalities


def targets(report: Report) -> list[Target]:
    """Return every goal for one run.

    Args:
        report: A report of ``mmms-bench`` on the full-size network.
    """
    height, width = report.bundle.size
    tall, wide = report.workload.image_size
    click = CLICK_MS.get(report.engine.name, max(CLICK_MS.values()))
    mask = 4 * height * width
    return [
        _judge(
            report,
            f"Session.click, host wall time, p50, images of {wide} x {tall}",
            f"at most {click:g} ms",
            _ms(_click),
            lambda v: v <= click,
        ),
        _judge(
            report,
            "the same, without enlarging the mask to the image",
            f"at most {click:g} ms",
            _ms(_click_alone),
            lambda v: v <= click,
        ),
        _judge(report, "image part, GPU's own time, p50", "at most 4 ms", _ms(_image), lambda v: v <= 4),
        _judge(
            report,
            "faster than PyTorch eager FP16, same run",
            "at least 8 times",
            (_times_faster, lambda v: f"{v:.1f} times"),
            lambda v: v >= 8,
        ),
        _judge(
            report,
            "bytes up per click",
            f"{_CLICK_BYTES}",
            (lambda r: _largest(r, "moved.click_up"), lambda v: f"{v:,.0f}"),
            lambda v: v == _CLICK_BYTES,
        ),
        _judge(
            report,
            "bytes down per click",
            f"one mask, {mask:,}",
            (lambda r: _largest(r, "moved.click_down"), lambda v: f"{v:,.0f}"),
            lambda v: v <= mask,
        ),
        _judge(
            report,
            "VRAM beyond the CUDA context",
            f"at most 450 MiB (paper: {PAPER_MIB:,})",
            (lambda r: _value(r, "vram.taken"), lambda v: f"{v:.0f} MiB"),
            lambda v: v <= 450,
        ),
    ]


_Measure = tuple[Callable[[Report], float], Callable[[float], str]]


def _judge(report: Report, what: str, goal: str, measure: _Measure, met: Callable[[float], bool]) -> Target:
    of, written = measure
    try:
        value = of(report)
    except _MissingError as error:
        return Target(what, goal, "", None, f"not measured: {error}")
    return Target(what, goal, written(value), met(value))


def _ms(of: Callable[[Report], float]) -> _Measure:
    return of, lambda value: f"{value:.2f} ms"


def _value(report: Report, key: str) -> float:
    metric = report.metric(key)
    if metric is None or metric.value is None:
        raise _MissingError(metric.why if metric else f"the run has no {key}")
    return metric.value


def _largest(report: Report, key: str) -> float:
    _value(report, key)
    metric = report.metric(key)
    return max(metric.samples) if metric else 0.0


def _click(report: Report) -> float:
    return _value(report, "click.total")


def _click_alone(report: Report) -> float:
    """Return the median without enlarging the mask from the network's size to the image's, which the CPU does."""
    _value(report, "click.mask")
    total, mask = report.metric("click.total"), report.metric("click.mask")
    assert total is not None
    assert mask is not None
    return median(all_of_it - part for all_of_it, part in zip(total.samples, mask.samples, strict=True))


def _image(report: Report) -> float:
    return sum(_value(report, f"image.stage.{name}") for name in report.stages[:-1])


def _times_faster(report: Report) -> float:
    """Return how many times faster a click is than in the faster of PyTorch's two ways to compute in float16."""
    ratios, reasons = [], []
    for key in _EAGER:
        try:
            ratios.append(_value(report, f"{key}.click_ratio"))
        except _MissingError as error:
            reasons.append(str(error))
    if not ratios:
        raise _MissingError(reasons[0])
    return 1 / max(ratios)


def column(report: Report) -> str:
    """Return the heading of a run in a table, e.g. ``TensorRT fp16``."""
    doubt = f", {UNPROVEN}" if UNPROVEN in report.engine.evidence else ""
    return f"{report.engine.library} {report.engine.precision}{doubt}"


def by_bundle(reports: Mapping[str, Report]) -> dict[str, list[Report]]:
    """Return the runs of each bundle, full size first, float16 before float32.

    Args:
        reports: The runs, by the name of their step.
    """
    found: dict[str, list[Report]] = {}
    for report in sorted(reports.values(), key=lambda r: (not is_full_size(r), r.bundle.name)):
        found.setdefault(report.bundle.name, []).append(report)
    return {name: sorted(runs, key=_order) for name, runs in found.items()}


def _order(report: Report) -> tuple[int, int]:
    engines, precisions = list(CLICK_MS), ["fp16", "bf16", "fp32"]
    return precisions.index(report.engine.precision), engines.index(report.engine.name)


def lines(reports: Mapping[str, Report]) -> Sequence[str]:
    """Return the verdicts as lines of text, one for each goal, engine and precision of the full-size network."""
    return [
        f"{target.verdict if target.met is not None else 'unknown':<8} {name}, {column(run)}: {target.what}:"
        f" {target.shown or target.why} ({target.goal})"
        for name, runs in by_bundle(reports).items()
        for run in runs
        if is_full_size(run)
        for target in targets(run)
    ]
