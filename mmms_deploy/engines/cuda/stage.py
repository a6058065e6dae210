"""A stage on fixed addresses, as one sequence of operations on a stream; for the click stage, as one CUDA graph."""

from __future__ import annotations

import warnings
from typing import Any

from mmms_deploy.engines.cuda.executor import Executor
from mmms_deploy.engines.cuda.graph import CudaGraph
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.cuda.values import Home
from mmms_deploy.errors import EngineError, MMMSDeployWarning


class CudaStage:
    """One session's stage.

    Args:
        name: Name of the stage.
        cuda: The GPU.
        stream: The session's stream.
        executor: What runs. The stage closes it.
        inputs: Homes of its inputs.
        outputs: Homes of its outputs.
        fed: Those inputs that are copied from their pinned place with every run.
        links: Pairs of an output and the input that it becomes at the next run.
        fetched: Those outputs that are copied to their pinned place with every run.
        options: Settings.
        graph: Whether it is to become a CUDA graph.
    """

    def __init__(
        self,
        name: str,
        cuda: Cuda,
        stream: Any,
        executor: Executor,
        *,
        inputs: tuple[Home, ...],
        outputs: tuple[Home, ...],
        fed: tuple[Home, ...] = (),
        links: tuple[tuple[Home, Home], ...] = (),
        fetched: tuple[Home, ...] = (),
        options: CudaOptions,
        graph: bool,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.fed = fed
        self.links = links
        self.fetched = fetched
        self.refused: str | None = None
        self._cuda = cuda
        self._stream = stream
        self._executor = executor
        self._options = options
        self._wanted = graph
        self._graph: CudaGraph | None = None
        self._bound: tuple[int, ...] = ()
        self._recorded: tuple[int, ...] = ()
        self._bind()

    @property
    def overwritten(self) -> tuple[Home, ...]:
        """The homes that a run writes to; what it is fed with can be written again and does not count."""
        return (*self.outputs, *(target for _, target in self.links))

    @property
    def is_graph(self) -> bool:
        """Whether it runs as a CUDA graph, of ours or of the library's own."""
        return self._graph is not None or getattr(self._executor, "is_graph", False)

    def run(self) -> None:
        """Ask for one run.

        Raises:
            EngineError: It was refused.
        """
        if self._addresses() != self._bound:
            self._bind()
        if self._graph is not None and self._recorded == self._bound:
            self._graph.launch()
            return
        self._sequence()
        self._record()

    def warm_up(self) -> None:
        """Run once on whatever lies in the homes, wait, and record the graph: so that nobody's first click pays for it.

        Raises:
            EngineError: It was refused.

        Warns:
            MMMSDeployWarning: It cannot be recorded and stays a sequence.
        """
        self._sequence()
        self._record()

    def _addresses(self) -> tuple[int, ...]:
        return tuple(home.address for home in (*self.inputs, *self.outputs))

    def _bind(self) -> None:
        self._bound = ()
        for home in (*self.inputs, *self.outputs):
            self._executor.bind(home.spec.name, home.address)
        self._bound = self._addresses()

    def _sequence(self) -> None:
        cuda, stream = self._cuda, self._stream
        for home in self.fed:
            assert home.pinned is not None
            cuda.upload(home.address, home.pinned.address, home.spec.nbytes, stream)
        self._executor.enqueue(stream)
        for source, target in self.links:
            cuda.copy(target.address, source.address, target.spec.nbytes, stream)
        for home in self.fetched:
            assert home.pinned is not None
            cuda.download(home.pinned.address, home.address, home.spec.nbytes, stream)

    def _record(self) -> None:
        """Record what just ran; a library may have allocated and loaded in that run, so it is waited for first."""
        self._forget()
        if not self._wanted:
            return
        self._cuda.synchronize(self._stream)
        try:
            self._graph = CudaGraph(self._cuda, self._stream, self._sequence)
        except EngineError as error:
            self._wanted = False
            self.refused = error.given
            if self._options.strict:
                raise
            warnings.warn(
                f"stage {self.name!r} runs as a sequence of operations, not as one CUDA graph: {error.given}",
                MMMSDeployWarning,
                stacklevel=2,
            )
        self._recorded = self._bound

    def _forget(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def close(self) -> None:
        """Give the graph and the executor back. Safe to call twice."""
        try:
            self._forget()
        finally:
            self._executor.close()
