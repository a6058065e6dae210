"""Two reports side by side: the ratio of every metric, and which metrics became worse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmms_deploy.bench.errors import BenchError, IncomparableError
from mmms_deploy.bench.report import Better, Metric, Report

THRESHOLD = 1.15
"""Factor by which a gated metric may become worse before the comparison fails."""


class Verdict(StrEnum):
    """How a metric changed."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    REGRESSION = "regression"
    UNKNOWN = "not in both"


@dataclass(frozen=True)
class Row:
    """One metric in both runs.

    Attributes:
        metric: The metric of the new run, or of the old run when the new one does not have it.
        old: Its headline then; None when it was not measured.
        new: Its headline now; None when it was not measured.
        verdict: How it changed.
    """

    metric: Metric
    old: float | None
    new: float | None
    verdict: Verdict

    @property
    def ratio(self) -> float | None:
        """New over old; None without both."""
        return None if self.old is None or self.new is None or self.old == 0 else self.new / self.old


@dataclass(frozen=True)
class ReportComparison:
    """A new run compared with an old one.

    Attributes:
        rows: Every metric, in the new run's order.
        differences: What makes the runs hard to compare (machine, network, workload); empty for a fair comparison.
        changes: What else is different (engine, precision, versions); usually the reason to compare.
        threshold: Factor by which a gated metric may become worse.
    """

    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    changes: tuple[str, ...]
    threshold: float

    @property
    def regressions(self) -> tuple[Row, ...]:
        """The gated metrics that became worse by more than the threshold."""
        return tuple(row for row in self.rows if row.verdict is Verdict.REGRESSION)

    def raise_for_differences(self) -> None:
        """Raise :class:`~mmms_deploy.bench.errors.IncomparableError` when the runs are of different things."""
        if self.differences:
            raise IncomparableError(
                "the two runs cannot be compared: " + "; ".join(self.differences),
                expected="the same machine, network and workload",
                fix="measure both here, or use the ratios without this check",
                command_fix="measure both here, or pass --anyway to see the ratios nonetheless",
            )

    def raise_for_regressions(self) -> None:
        """Raise :class:`~mmms_deploy.bench.errors.BenchError` when a gated metric became worse."""
        if self.regressions:
            listed = ", ".join(f"{row.metric.title.strip()} ({row.ratio:.2f} x)" for row in self.regressions)
            raise BenchError(
                f"{len(self.regressions)} of the measured quantities became worse: {listed}",
                expected=f"at most a factor of {self.threshold:g}",
                fix="measure again on a quiet machine; if it stays, look at what changed between the two runs",
            )


def compare(new: Report, old: Report, threshold: float = THRESHOLD) -> ReportComparison:
    """Compare two runs.

    Args:
        new: The new run.
        old: The run that it is compared with.
        threshold: Factor by which a gated metric may become worse, at least 1.

    Raises:
        BenchError: The threshold is below 1.
    """
    if not threshold >= 1:
        raise BenchError(f"threshold {threshold:g}", expected="a factor of at least 1", fix="pass threshold=1.15")
    keys = [metric.key for metric in new.metrics]
    gone = [metric for metric in old.metrics if metric.key not in keys]
    rows = [_row(metric, old.metric(metric.key), metric, threshold) for metric in new.metrics]
    rows += [_row(metric, metric, None, threshold) for metric in gone]
    return ReportComparison(tuple(rows), _differences(new, old), _changes(new, old), threshold)


def _row(shown: Metric, old: Metric | None, new: Metric | None, threshold: float) -> Row:
    before = None if old is None else old.value
    after = None if new is None else new.value
    if not before or not after:
        same = before == after and before is not None
        return Row(shown, before, after, Verdict.SAME if same else Verdict.UNKNOWN)
    if shown.better is Better.NEITHER:
        return Row(shown, before, after, Verdict.SAME)
    worse = after / before if shown.better is Better.LOWER else before / after
    if worse > threshold:
        return Row(shown, before, after, Verdict.REGRESSION if shown.gated else Verdict.WORSE)
    return Row(shown, before, after, Verdict.BETTER if worse < 1 / threshold else Verdict.SAME)


def _differences(new: Report, old: Report) -> tuple[str, ...]:
    pairs = (
        ("processor", old.machine.cpu, new.machine.cpu),
        ("cores", old.machine.cores, new.machine.cores),
        ("GPU", _gpu(old), _gpu(new)),
        ("network", f"{old.bundle.name} ({old.bundle.network[:8]})", f"{new.bundle.name} ({new.bundle.network[:8]})"),
        ("device", old.engine.device, new.engine.device),
        ("threads", old.engine.threads, new.engine.threads),
        ("clicks on an image", old.workload.clicks, new.workload.clicks),
        ("image size", old.workload.image_size, new.workload.image_size),
    )
    return tuple(
        f"{name}: {before} then, {after} now"
        for name, before, after in pairs
        if before != after and not (name == "network" and old.bundle.network == new.bundle.network)
    )


def _changes(new: Report, old: Report) -> tuple[str, ...]:
    pairs = [
        ("engine", old.engine.name, new.engine.name),
        ("precision", old.engine.precision, new.engine.precision),
        ("export", old.bundle.digest[:8], new.bundle.digest[:8]),
        ("rewrites", ", ".join(old.bundle.rewrites) or "none", ", ".join(new.bundle.rewrites) or "none"),
        ("GPU driver", _driver(old), _driver(new)),
        ("system", old.machine.system, new.machine.system),
        ("Python", old.machine.python, new.machine.python),
    ]
    packages = sorted({*old.machine.packages, *new.machine.packages})
    pairs += [(p, old.machine.packages.get(p, "none"), new.machine.packages.get(p, "none")) for p in packages]
    return tuple(f"{name}: {before} then, {after} now" for name, before, after in pairs if before != after)


def _gpu(report: Report) -> str:
    gpu = report.machine.gpu
    return f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory_gib:.0f} GiB" if gpu else "none"


def _driver(report: Report) -> str:
    gpu = report.machine.gpu
    return f"{gpu.driver or 'unknown'} for CUDA {gpu.cuda}" if gpu else "none"
