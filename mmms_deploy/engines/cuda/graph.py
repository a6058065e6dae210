"""A CUDA graph: a sequence of stream operations, recorded once and launched with one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import CudaError


class CudaGraph:
    """Records a sequence of operations on a stream. Addresses are frozen: what they point to has to outlive the graph.

    Args:
        cuda: The GPU.
        stream: The stream to record and to launch on.
        sequence: Asks for the operations. Everything in it must have run once before, because libraries load and
            allocate at the first run, which cannot be recorded (https://github.com/NVIDIA/TensorRT/issues/2603).

    Raises:
        EngineError: It cannot be recorded; nothing is left behind, and the stream is as it was.
    """

    def __init__(self, cuda: Cuda, stream: Any, sequence: Callable[[], None]) -> None:
        self._cuda = cuda
        self._stream = stream
        self._executable: Any = None
        with cuda.recorded(stream) as recorded:
            sequence()
        (graph,) = recorded
        try:
            executable = cuda.instantiate(graph)
        finally:
            with suppress(CudaError):
                cuda.destroy_graph(graph)
        try:
            cuda.prepare(executable, stream)
        except CudaError:
            with suppress(CudaError):
                cuda.destroy_executable(executable)
            raise
        self._executable = executable

    def launch(self) -> None:
        """Do what was recorded, in stream order."""
        self._cuda.launch(self._executable, self._stream)

    def close(self) -> None:
        """Give the graph back. Safe to call twice."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._cuda.destroy_executable(executable)
