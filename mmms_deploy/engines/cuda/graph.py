"""A CUDA graph: a sequence of stream operations, captured once and launched with one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import CudaError


class CudaGraph:
    """Captures a sequence of operations on a stream.

    Addresses are frozen: the memory that they point to has to outlive the CUDA graph.

    Args:
        cuda: The GPU.
        stream: The stream to capture and to launch on.
        sequence: Enqueues the operations. It must have run once before, because libraries load and allocate at the
            first run, which cannot be captured (https://github.com/NVIDIA/TensorRT/issues/2603).

    Raises:
        EngineError: It cannot be captured; nothing is left behind, and the stream is as it was.
    """

    def __init__(self, cuda: Cuda, stream: Any, sequence: Callable[[], None]) -> None:
        self._cuda = cuda
        self._stream = stream
        self._executable: Any = None
        with cuda.capture(stream) as captured:
            sequence()
        (cuda_graph,) = captured
        try:
            executable = cuda.instantiate(cuda_graph)
        finally:
            with suppress(CudaError):
                cuda.destroy_cuda_graph(cuda_graph)
        try:
            cuda.upload_executable(executable, stream)
        except CudaError:
            with suppress(CudaError):
                cuda.destroy_executable(executable)
            raise
        self._executable = executable

    def launch(self) -> None:
        """Enqueue the captured operations."""
        self._cuda.launch(self._executable, self._stream)

    def close(self) -> None:
        """Destroy the CUDA graph. Safe to call twice."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._cuda.destroy_executable(executable)
