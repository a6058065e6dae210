"""Memory: the most RAM that this process held in each phase of a run, and what an engine takes on the GPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.report import Better, Metric
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.memory import Use
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda

# --- RAM --------------------------------------------------------------------------------------------------------------

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class MemoryPhases:
    """The peak of this process's resident memory in each phase of a run."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    @contextmanager
    def phase(self, key: str, title: str) -> Iterator[None]:
        """Record the most memory held at any moment of the block.

        Args:
            key: Key of the metric, without its group.
            title: Name of the phase in reports.
        """
        samples: tuple[float, ...] = ()
        why = ""
        try:
            reset_peak()
        except NotMeasuredError as error:
            why = error.given
        yield
        if not why:
            try:
                samples = (peak_mib(),)
            except NotMeasuredError as error:
                why = error.given
        self.metrics.append(Metric(key=f"memory.{key}", title=title, unit="MiB", samples=samples, gated=True, why=why))


def reset_peak() -> None:
    """Let the peak start anew at what the process holds now.

    Raises:
        NotMeasuredError: This system cannot do that.
    """
    try:
        _CLEAR.write_text("5")
    except OSError as error:
        raise NotMeasuredError(f"{sys.platform} cannot restart its record of the peak ({error.strerror})") from error


def peak_mib() -> float:
    """Return the most memory this process held in RAM since :func:`reset_peak`, in MiB.

    Raises:
        NotMeasuredError: This system does not say.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found is None:
        raise NotMeasuredError(f"{sys.platform} does not say how much memory a process held")
    return int(found[1]) / 1024


# --- on the GPU -------------------------------------------------------------------------------------------------------

_PARTS = {
    Use.WEIGHTS: "  weights, as the library says",
    Use.ACTIVATIONS: "  activations",
    Use.INPUTS: "  image and modalities",
    Use.FEATURES: "  features",
    Use.STATE: "  clicks, state, answers",
    Use.HISTORY: "  undo and redo, with spare room",
    Use.MASKS: "  masks at the image's size",
}


class GpuMemory:
    """Memory of the GPU in the course of a run: the engine's account, and what CUDA says is free.

    Create it before the engine is opened. It starts CUDA.

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
