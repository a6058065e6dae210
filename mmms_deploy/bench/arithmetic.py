"""The arithmetic of a network: parameters, floating-point operations, and the share of this machine's matrix peak.

Operations are counted from the shapes in the ONNX graph (:mod:`mmms_deploy.export.operations`), which needs the onnx
package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.peak import SIZE, measure_peak
from mmms_deploy.bench.report import Better, Headline, Metric
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.export import operations
from mmms_deploy.progress import OnProgress, Progress


def count_flops(path: Path) -> float:
    """Return the floating-point operations of one run of a graph.

    Args:
        path: An ONNX file with static shapes. Weights in a file beside it are not read.

    Raises:
        NotMeasuredError: The onnx package is not installed, a shape is unknown, or an operator cannot be counted.
    """
    try:
        return operations.count_flops(path)
    except operations.UncountedError as error:
        raise NotMeasuredError(str(error)) from error


def size_metrics(bundle: Bundle, engine: Engine) -> list[Metric]:
    """Return parameters, and the floating-point operations of every stage.

    Args:
        bundle: The bundle.
        engine: The engine that executes it, open.
    """
    parameters = bundle.manifest.provenance.parameters
    said = parameters / 1e6 if parameters else NotMeasuredError("the bundle does not say")
    metrics = [_number("work.parameters", "parameters", "M", said)]
    for name, graph in engine.graphs.items():
        try:
            found: float | NotMeasuredError = count_flops(bundle.file(graph.file)) / 1e9
        except NotMeasuredError as error:
            found = error
        metrics.append(_number(f"work.gflop.{name}", f"stage {name}, once", "GFLOP", found))
    return metrics


def peak_metrics(
    engine: Engine, *, with_torch: bool, size: int = SIZE, on_progress: OnProgress | None = None
) -> list[Metric]:
    """Measure how fast this machine multiplies matrices on the engine's threads.

    Args:
        engine: The engine.
        with_torch: Whether PyTorch's products are tried too.
        size: Rows and columns of the matrices.
        on_progress: Receives every precision as it starts.
    """
    info = engine.info
    metrics = []
    precisions = tuple(dict.fromkeys((Precision.FP32, Precision.BF16, info.precision)))
    for number, precision in enumerate(precisions):
        if on_progress is not None:
            on_progress(Progress(f"multiplying matrices in {precision}", number, len(precisions)))
        key = f"work.peak.{precision}"
        title = f"matrix peak of this machine, {precision}"
        try:
            if info.device != "cpu" or info.threads is None:
                raise NotMeasuredError(f"only CPUs are measured, and this engine computes on {info.device}")
            peak = measure_peak(precision, info.threads, size=size, with_torch=with_torch)
        except NotMeasuredError as error:
            metrics.append(_number(key, title, "GFLOP/s", error))
            continue
        metrics.append(
            Metric(
                key=key,
                title=f"{title} ({peak.library})",
                unit="GFLOP/s",
                samples=peak.rates,
                headline=Headline.HIGH,
                better=Better.NEITHER,
            )
        )
    return metrics


def fraction_metrics(engine: Engine, known: Sequence[Metric], stages: Mapping[str, str]) -> list[Metric]:
    """Return the rate of every stage, and its share of the machine's peak in the engine's precision.

    Args:
        engine: The engine.
        known: All metrics so far.
        stages: The key of the metric that has a stage's time, by the stage's name.
    """
    by_key = {metric.key: metric for metric in known}
    precision = engine.info.precision
    peak = by_key[f"work.peak.{precision}"]
    metrics = []
    for name, key in stages.items():
        rate = _rate(by_key[f"work.gflop.{name}"], by_key.get(key))
        share = _share(rate, peak)
        higher = Better.HIGHER
        metrics.append(_number(f"work.rate.{name}", f"stage {name} computes", "GFLOP/s", rate, higher))
        metrics.append(
            _number(f"work.fraction.{name}", f"stage {name} of the {precision} peak", "ratio", share, higher)
        )
    return metrics


def _rate(gflop: Metric, time: Metric | None) -> float | NotMeasuredError:
    if gflop.value is None:
        return NotMeasuredError(gflop.why)
    if time is None or time.value is None:
        return NotMeasuredError("the stage's time was not measured")
    return gflop.value / (1e-3 * time.value)


def _share(rate: float | NotMeasuredError, peak: Metric) -> float | NotMeasuredError:
    if isinstance(rate, NotMeasuredError):
        return rate
    return NotMeasuredError(peak.why) if peak.value is None else rate / peak.value


def _number(
    key: str, title: str, unit: str, value: float | NotMeasuredError, better: Better = Better.NEITHER
) -> Metric:
    """Return a metric of one number, or of the reason why there is none."""
    if isinstance(value, NotMeasuredError):
        return Metric(key=key, title=title, unit=unit, better=better, why=value.given)
    return Metric(key=key, title=title, unit=unit, better=better, samples=(value,))
