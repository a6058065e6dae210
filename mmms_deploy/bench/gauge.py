"""What a session's runner does on the GPU: its stages' time by CUDA events, and the bytes it moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.protocol import Engine, Runner
from mmms_deploy.errors import CudaError


@dataclass(frozen=True)
class DeviceSpent:
    """What was done since the last question.

    Attributes:
        stages: Milliseconds on the GPU of each stage that ran, by name: from the moment its first operation could start
            to the end of its last. A click stage's copies in and out, and gaps that the host leaves, are part of it.
        up: Bytes to the GPU.
        down: Bytes from the GPU.
    """

    stages: dict[str, float]
    up: int
    down: int


class Gauge:
    """Watches one session's runner. Two events are recorded around every stage, which takes microseconds.

    Args:
        cuda: The GPU.
        runner: The runner; it is left alone again when the gauge is closed.
    """

    def __init__(self, cuda: Cuda, runner: CudaRunner) -> None:
        self._cuda = cuda
        self._runner = runner
        self._usual = runner.watch
        self._spare: list[tuple[Any, Any]] = []
        self._pending: list[tuple[str, tuple[Any, Any]]] = []
        runner.watch = self._watch

    @property
    def is_graph(self) -> bool:
        """Whether a click is one CUDA graph."""
        return self._runner.is_cuda_graph

    @contextmanager
    def _watch(self, stage: str, stream: Any) -> Iterator[None]:
        cuda = self._cuda
        pair = self._spare.pop() if self._spare else (cuda.create_event(), cuda.create_event())
        try:
            cuda.record_event(pair[0], stream)
            yield
            cuda.record_event(pair[1], stream)
        except BaseException:
            self._spare.append(pair)
            raise
        self._pending.append((stage, pair))

    def take(self) -> DeviceSpent:
        """Wait for what was asked for, and return what it took since the last call.

        Raises:
            CudaError: The GPU failed.
        """
        self._cuda.activate()
        stages: dict[str, float] = defaultdict(float)
        while self._pending:
            stage, pair = self._pending.pop(0)
            self._spare.append(pair)
            stages[stage] += self._cuda.elapsed(*pair)
        moved = self._runner.take_moved()
        return DeviceSpent(dict(stages), moved.up, moved.down)

    def close(self) -> None:
        """Give the events back. Safe to call twice."""
        self._runner.watch = self._usual
        pairs = [*self._spare, *(pair for _, pair in self._pending)]
        self._spare, self._pending = [], []
        for pair in pairs:
            for event in pair:
                with suppress(CudaError):
                    self._cuda.destroy_event(event)


def gauge_of(engine: Engine, runner: Runner) -> Gauge | None:
    """Return a gauge of a runner that works on a GPU; None of any other."""
    if isinstance(engine, CudaEngine) and isinstance(runner, CudaRunner):
        return Gauge(engine.cuda, runner)
    return None
