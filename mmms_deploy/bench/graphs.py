"""A click as one CUDA graph against the same operations asked for one by one, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.probe import ClickSample, Probe
from mmms_deploy.bench.report import Metric
from mmms_deploy.bench.workload import Picture
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.errors import MMMSDeployError

_WARM_UP = 3
_CLOCKS = {"click": "host", "device": "GPU"}


def graph_metrics(engine: CudaEngine, picture: Picture, tell: Callable[[], None]) -> list[Metric]:
    """Measure clicks with and without a CUDA graph, on two engines of the same stages.

    Args:
        engine: The engine, open; another one without graphs is opened beside it for as long as this takes.
        picture: An image with its clicks.
        tell: Called after every click of both.
    """
    try:
        with ExitStack() as stack:
            on, off = _both(engine, stack)
            samples = _turns((on, off), picture, tell)
    except MMMSDeployError as error:
        return [
            Metric(key=f"graph.{key}_ratio", title=_ratio(clock), unit="ratio", why=error.given)
            for key, clock in _CLOCKS.items()
        ]
    metrics = []
    for key, clock in _CLOCKS.items():
        ours, theirs = (tuple(_time(sample, key) for sample in row) for row in samples)
        metrics += [
            Metric(key=f"graph.{key}", title=f"{clock}, click as one CUDA graph", unit="ms", samples=ours),
            Metric(key=f"graph.{key}_off", title=f"{clock}, its operations one by one", unit="ms", samples=theirs),
            Metric(
                key=f"graph.{key}_ratio",
                title=_ratio(clock),
                unit="ratio",
                samples=tuple(a / b for a, b in zip(ours, theirs, strict=True)),
                gated=True,
            ),
        ]
    return metrics


def graph_steps(clicks: int) -> int:
    """Return how often :func:`graph_metrics` tells."""
    return _WARM_UP + clicks


def _ratio(clock: str) -> str:
    return f"{clock}, one graph / one by one"


def _time(sample: ClickSample, key: str) -> float:
    return sample.total if key == "click" else sample.engine


def _both(engine: CudaEngine, stack: ExitStack) -> tuple[Probe, Probe]:
    on = stack.enter_context(Probe(engine, watched=True))
    if not on.is_graph:
        raise NotMeasuredError("a click is not one CUDA graph on this engine; a warning said why when it was opened")
    # All engines of this package are opened with these arguments. Compiled plans come from the cache, if there is one.
    factory: Any = type(engine)
    options = replace(engine.options, cuda_graph=False)
    other: CudaEngine = factory(engine.bundle, engine.info.precision, None, "without a CUDA graph", options=options)
    stack.callback(other.close)
    return on, stack.enter_context(Probe(other, watched=True))


def _turns(probes: Sequence[Probe], picture: Picture, tell: Callable[[], None]) -> tuple[list[ClickSample], ...]:
    rows: tuple[list[ClickSample], ...] = ([], [])
    for probe in probes:
        probe.set_image(picture)
    for number in range(_WARM_UP):
        for probe in probes:
            probe.click(picture.clicks[number % len(picture.clicks)])
        tell()
    for number, point in enumerate(picture.clicks):
        pairs = list(zip(probes, rows, strict=True))
        for probe, row in pairs if number % 2 else reversed(pairs):
            row.append(probe.click(point))
        tell()
    return rows
