"""Memory on the GPU: what the engine accounts for, part by part, and what CUDA says is gone."""

from __future__ import annotations

from mmms_deploy.bench.report import Better, Metric
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.memory import Use
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda

_PARTS = {
    Use.WEIGHTS: "  weights, as the library tells",
    Use.ACTIVATIONS: "  activations",
    Use.INPUTS: "  image and modalities",
    Use.FEATURES: "  features",
    Use.STATE: "  clicks, state, answers",
    Use.HISTORY: "  undo and redo, with spare room",
}


class Vram:
    """Memory of the GPU in the course of a run. Made before the engine is opened; it starts CUDA.

    Args:
        ordinal: Number of the GPU.

    Raises:
        EngineError: There is no CUDA, or the GPU failed.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._cuda = Cuda(import_cuda(), ordinal)
        self._cuda.activate()
        self._before, self._total = self._cuda.memory()
        self._loaded = self._before

    def loaded(self) -> None:
        """Note that the engine is open."""
        self._loaded, _ = self._cuda.memory()

    def metrics(self, engine: CudaEngine) -> list[Metric]:
        """Return what is held now, with one session that has an image and clicks.

        Args:
            engine: The engine, open.

        Raises:
            EngineError: The GPU failed.
        """
        memory = engine.memory()
        taken = self._before - memory.free
        metrics = [
            _mib("before", "CUDA context and other programs", self._total - self._before),
            _mib("taken", "engine and one session, of free memory", taken, gated=True),
            _mib("session", "  of that, opening a session, clicking", self._loaded - memory.free),
        ]
        for use, title in _PARTS.items():
            nbytes = getattr(memory, use)
            if use is Use.ACTIVATIONS and not nbytes:
                why = "the library keeps its scratch memory itself; it is among the rest"
                metrics.append(Metric(key=f"vram.{use}", title=title, unit="MiB", why=why))
            else:
                metrics.append(_mib(str(use), title, nbytes, gated=True))
        metrics += [
            _mib("rest", "  in no account: libraries, contexts", taken - memory.held),
            _mib("pinned", "pinned, on the host", memory.pinned),
        ]
        return metrics


def _mib(key: str, title: str, nbytes: int, *, gated: bool = False) -> Metric:
    return Metric(
        key=f"vram.{key}", title=title, unit="MiB", samples=(nbytes / 2**20,), better=Better.LOWER, gated=gated
    )
