"""The goals of a click on a data-centre GPU, and how near the runs of ``mmms-bench`` in a GPU check come to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mmms_deploy.bench.report import Report
from mmms_deploy.bundle.packed import NAMES
from mmms_deploy.engines.tensorrt.inspect import UNPROVEN

PAPER_MIB = 1474
"""MiB that MMMS on RGB takes on a V100, by the paper (table VI)."""
CLICK_MS = {"tensorrt": 0.8, "onnxruntime-cuda": 1.8}
IMAGE_MS, TIMES_FASTER, VRAM_MIB = 4.0, 4.0, 450
_CLICK_BYTES = 16
_PARAMETERS = (119.0, 132.0)
"""Millions: MMMS on DINOv2-B14 without modalities, plus or minus 5 %."""
_EAGER = ("eager.eager_fp16", "eager.eager_fp16_weights")
_GRAPHS = "eager.compiled_graphs_fp16_weights"
_DISC = "click.compact.total"


@dataclass(frozen=True)
class Target:
    """One goal, and the value that a run reached.

    Attributes:
        what: The goal.
        goal: Its bound, as text.
        shown: The value, as text; empty when it was not measured.
        met: Whether it is reached; None when it was not measured, or when there is no goal.
        why: Why it was not, or ``reported``.
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
    """Return whether a run measured full-size MMMS on RGB alone."""
    low, high = _PARAMETERS
    found = report.value("work.parameters")
    fits = found is not None and low <= found <= high
    return fits and report.bundle.size == (448, 448) and not report.bundle.modalities


def is_judged(report: Report) -> bool:
    """Return whether the goals are for a run: in float16, on the full-size network or on a trained demo."""
    demo = report.bundle.trained and report.bundle.name in NAMES
    return report.engine.precision == "fp16" and (demo or is_full_size(report))


def beside_compiled(report: Report, compiled: Iterable[Report]) -> Report | None:
    """Return the run that measured the same bundle, engine and precision beside ``torch.compile``; None without one."""
    facts = (report.bundle.digest, report.engine.name, report.engine.precision)
    found = (run for run in compiled if (run.bundle.digest, run.engine.name, run.engine.precision) == facts)
    return next(found, None)


def targets(report: Report, compiled: Report | None = None) -> list[Target]:
    """Return every goal for one run.

    Args:
        report: A report of ``mmms-bench``.
        compiled: The same engine's report beside ``torch.compile``; None without one.
    """
    height, width = report.bundle.size
    tall, wide = report.workload.image_size
    click = CLICK_MS.get(report.engine.name, max(CLICK_MS.values()))
    mask = 4 * height * width
    disc = ", the mask a disc" if report.metric(_DISC) is not None else ""
    return [
        _judge(
            report,
            f"Session.click, host wall time, p50, images of {wide} x {tall}{disc}",
            f"at most {click:g} ms",
            _ms(_click),
            lambda v: v <= click,
        ),
        _judge(
            report,
            f"set_image, host wall time, p50, images of {wide} x {tall}",
            f"at most {IMAGE_MS:g} ms",
            _ms(lambda r: _value(r, "image.total")),
            lambda v: v <= IMAGE_MS,
        ),
        _judge(
            report,
            "faster than PyTorch eager FP16, same run",
            f"at least {TIMES_FASTER:g} times",
            (_times_faster, lambda v: f"{v:.1f} times"),
            lambda v: v >= TIMES_FASTER,
        ),
        _judge(
            compiled,
            "beside PyTorch compiled with CUDA graphs, same run",
            "not slower",
            (lambda r: 1 / _value(r, f"{_GRAPHS}.click_ratio"), lambda v: f"{v:.2f} times as fast"),
            lambda v: v >= 1,
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
            f"at most one mask, {mask:,}",
            (lambda r: _largest(r, "moved.click_down"), lambda v: f"{v:,.0f}"),
            lambda v: v <= mask,
        ),
        _vram(report),
    ]


def _vram(report: Report) -> Target:
    """Return memory on the GPU: judged with TensorRT, and reported where ONNX Runtime has arenas of its own."""
    what, paper = "VRAM beyond the CUDA context", f"paper, V100: {PAPER_MIB:,} MiB"
    measure: _Measure = (lambda r: _value(r, "vram.taken"), lambda v: f"{v:.0f} MiB")
    if report.engine.name == "tensorrt":
        return _judge(report, what, f"at most {VRAM_MIB} MiB ({paper})", measure, lambda v: v <= VRAM_MIB)
    found = _judge(report, what, paper, measure, lambda v: True)
    return found if found.met is None else replace(found, met=None, why="reported")


_Measure = tuple[Callable[[Report], float], Callable[[float], str]]


def _judge(report: Report | None, what: str, goal: str, measure: _Measure, met: Callable[[float], bool]) -> Target:
    of, written = measure
    if report is None:
        return Target(what, goal, "", None, "not measured: no step beside torch.compile was run")
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
    return _value(report, "click.total" if report.metric(_DISC) is None else _DISC)


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


def lines(reports: Mapping[str, Report], compiled: Iterable[Report] = ()) -> Sequence[str]:
    """Return the verdicts as lines of text, one for each goal and engine, on each network that the goals are for."""
    beside = list(compiled)
    return [
        f"{target.verdict if target.shown else 'unknown':<8} {name}, {column(run)}: {target.what}:"
        f" {target.shown or target.why} ({target.goal})"
        for name, runs in by_bundle(reports).items()
        for run in runs
        if is_judged(run)
        for target in targets(run, beside_compiled(run, beside))
    ]
