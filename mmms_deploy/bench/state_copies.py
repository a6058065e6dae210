"""What copying the state costs a click on a GPU: the most that two CUDA graphs in turns, without copies, could save."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mmms_deploy.bench.report import Metric
from mmms_deploy.bundle import Rate
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.graph import CudaGraph
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import EngineError

_REPEATS = 32
"""How often the copies of a click are in the CUDA graph that is timed, so that its launch counts little."""
_SAMPLES = 20


def state_copy_metrics(engine: CudaEngine) -> list[Metric]:
    """Measure the copies of a click's state from its outputs to its inputs, alone, in a CUDA graph.

    Args:
        engine: The engine, open. The state is copied in memory of its own.

    Returns:
        The GPU's own time for the copies of a click; nothing for a network without state.
    """
    sizes = _state_sizes(engine)
    if not sizes:
        return []
    title = f"GPU's own time, copying the state ({len(sizes)} copies, {sum(sizes) / 1e6:.2f} MB)"
    try:
        samples = _measured(engine.cuda, sizes)
    except EngineError as error:
        return [Metric(key="graph.state_copies", title=title, unit="ms", why=error.given)]
    return [Metric(key="graph.state_copies", title=title, unit="ms", samples=samples)]


def _state_sizes(engine: CudaEngine) -> list[int]:
    """Return the bytes of every state that the stage for one object takes at a click."""
    manifest = engine.bundle.manifest
    (stage, *_) = (one for one in manifest.stages if one.rate is Rate.CLICK and not one.batch)
    states = {link.input for link in manifest.state}
    return [spec.nbytes for spec in engine.graphs[stage.name].inputs if spec.name in states]


def _measured(cuda: Cuda, sizes: list[int]) -> tuple[float, ...]:
    """Return the milliseconds of the copies, each once; one number for every launch."""
    cuda.activate()
    with ExitStack() as stack:

        def allocated(nbytes: int) -> int:
            address = cuda.allocate(nbytes)
            stack.callback(cuda.free, address)
            return address

        def event() -> Any:
            made = cuda.create_event()
            stack.callback(cuda.destroy_event, made)
            return made

        pairs = [(allocated(size), allocated(size), size) for size in sizes]
        stream = cuda.create_stream()
        stack.callback(cuda.destroy_stream, stream)
        start, end = event(), event()

        def copies() -> None:
            for _ in range(_REPEATS):
                for target, source, size in pairs:
                    cuda.copy(target, source, size, stream)

        copies()
        cuda.synchronize(stream)
        captured = CudaGraph(cuda, stream, copies)
        stack.callback(captured.close)
        samples = []
        for _ in range(1 + _SAMPLES):
            cuda.record_event(start, stream)
            captured.launch()
            cuda.record_event(end, stream)
            samples.append(cuda.elapsed(start, end) / _REPEATS)
        return tuple(samples[1:])
