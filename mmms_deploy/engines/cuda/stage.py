"""A stage on fixed addresses: a sequence of operations on a stream; the click stage is one CUDA graph."""

from __future__ import annotations

import warnings
from typing import Any

from mmms_deploy.engines.cuda.executor import Executor
from mmms_deploy.engines.cuda.finisher import AnswerFinisher
from mmms_deploy.engines.cuda.graph import CudaGraph
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.cuda.values import BindingBuffer
from mmms_deploy.errors import EngineError, MMMSDeployWarning


class CudaStage:
    """One session's stage.

    Args:
        name: Name of the stage.
        cuda: The GPU.
        stream: The session's stream.
        executor: Executes it. The stage closes the executor.
        inputs: Binding buffers of its inputs.
        outputs: Binding buffers of its outputs.
        uploaded: Those inputs that every run copies from their pinned memory first.
        state_links: Pairs of an output and the input that it becomes at the next run; every run copies them.
        downloaded: Those outputs that every run copies to their pinned memory.
        options: Settings.
        cuda_graph: Whether to capture it as a CUDA graph.
        answer: The output that is the answer, of which every run makes a mask when one is expected; None for none.
        finisher: Makes the mask.
    """

    def __init__(
        self,
        name: str,
        cuda: Cuda,
        stream: Any,
        executor: Executor,
        *,
        inputs: tuple[BindingBuffer, ...],
        outputs: tuple[BindingBuffer, ...],
        uploaded: tuple[BindingBuffer, ...] = (),
        state_links: tuple[tuple[BindingBuffer, BindingBuffer], ...] = (),
        downloaded: tuple[BindingBuffer, ...] = (),
        options: CudaOptions,
        cuda_graph: bool,
        answer: BindingBuffer | None = None,
        finisher: AnswerFinisher | None = None,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.uploaded = uploaded
        self.state_links = state_links
        self.downloaded = downloaded
        self._cuda = cuda
        self._stream = stream
        self._executor = executor
        self._options = options
        self.answer = answer
        self._finisher = finisher
        self._to_capture = cuda_graph
        self._cuda_graph: CudaGraph | None = None
        self._bound: tuple[int, ...] = ()
        self._captured: tuple[int, ...] = ()
        self._bind()

    @property
    def overwritten(self) -> tuple[BindingBuffer, ...]:
        """The buffers that a run overwrites, without those it uploads: their contents can be uploaded again."""
        return (*self.outputs, *(target for _, target in self.state_links))

    @property
    def is_cuda_graph(self) -> bool:
        """Whether it runs as a CUDA graph, captured by this package or by the library itself."""
        return self._cuda_graph is not None or getattr(self._executor, "is_cuda_graph", False)

    @property
    def finishes(self) -> bool:
        """Whether a run makes a mask of its answer."""
        finisher = self._finisher
        wanted = finisher is not None and finisher.finish is not None and self.answer is not None
        return wanted and finisher.fits(self.answer.spec)  # type: ignore[union-attr]

    def run(self) -> None:
        """Enqueue one run.

        Raises:
            EngineError: It was refused.
        """
        if self._addresses() != self._bound:
            self._bind()
        if self._cuda_graph is not None and self._captured == self._recorded():
            self._cuda_graph.launch()
            return
        self._enqueue()
        self._capture()

    def warm_up(self) -> None:
        """Run once on whatever the buffers hold, wait, and capture the CUDA graph, so that no click has to.

        Raises:
            EngineError: It was refused.

        Warns:
            MMMSDeployWarning: It cannot be captured and stays a sequence.
        """
        self._enqueue()
        self._capture()

    def record(self) -> None:
        """Capture the CUDA graph anew, where it is one and the mask that is expected has changed.

        Raises:
            EngineError: It was refused.

        Warns:
            MMMSDeployWarning: As for :meth:`warm_up`.
        """
        if self._cuda_graph is None or self._captured == self._recorded():
            return
        if self.finishes:
            assert self._finisher is not None
            assert self.answer is not None
            # Once before the capture, as everything in it.
            self._finisher.launch(self.answer.address, self.answer.spec.dtype)
        self._capture()

    def _recorded(self) -> tuple[int, ...]:
        """Return what a CUDA graph depends on."""
        return (*self._bound, 0 if self._finisher is None else self._finisher.version)

    def _addresses(self) -> tuple[int, ...]:
        return tuple(buffer.address for buffer in (*self.inputs, *self.outputs))

    def _bind(self) -> None:
        self._bound = ()
        for buffer in (*self.inputs, *self.outputs):
            self._executor.bind(buffer.spec.name, buffer.address)
        self._bound = self._addresses()

    def _enqueue(self) -> None:
        cuda, stream = self._cuda, self._stream
        for buffer in self.uploaded:
            assert buffer.pinned is not None
            cuda.upload(buffer.address, buffer.pinned.address, buffer.spec.nbytes, stream)
        self._executor.enqueue(stream)
        # Two CUDA graphs in turns, each writing what the other reads, would need no copies of the state. Every address,
        # undo and new capture would come twice; mmms-bench measures what the copies cost (graph.state_copies).
        for source, target in self.state_links:
            cuda.copy(target.address, source.address, target.spec.nbytes, stream)
        for buffer in self.downloaded:
            assert buffer.pinned is not None
            cuda.download(buffer.pinned.address, buffer.address, buffer.spec.nbytes, stream)
        if self.finishes:
            self._finish()

    def _finish(self) -> None:
        assert self._finisher is not None
        assert self.answer is not None
        self._finisher.enqueue(self.answer.address, self.answer.spec.dtype)

    def _capture(self) -> None:
        """Capture the run that was just enqueued, after waiting for it: a library may allocate and load in it."""
        self._destroy_cuda_graph()
        if not self._to_capture:
            return
        self._cuda.synchronize(self._stream)
        try:
            self._cuda_graph = CudaGraph(self._cuda, self._stream, self._enqueue)
        except EngineError as error:
            self._to_capture = False
            if self._options.strict:
                raise
            warnings.warn(
                f"stage {self.name!r} runs as a sequence of operations, not as one CUDA graph: {error.given}",
                MMMSDeployWarning,
                stacklevel=2,
            )
        self._captured = self._recorded()

    def _destroy_cuda_graph(self) -> None:
        cuda_graph, self._cuda_graph = self._cuda_graph, None
        if cuda_graph is not None:
            cuda_graph.close()

    def close(self) -> None:
        """Destroy the CUDA graph and close the executor. Safe to call twice."""
        try:
            self._destroy_cuda_graph()
        finally:
            self._executor.close()
