"""The CUDA runtime, call by call: every return code is checked, and a failure is a named error.

The calls are those of ``cuda.bindings.runtime`` (NVIDIA's cuda-python). It imports on machines without a driver too,
and since 12.9 its calls return a code there. Addresses, streams and CUDA graphs are plain numbers or its own handles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from mmms_deploy.engines.cuda.kernels.driver import Driver, import_driver
from mmms_deploy.engines.imports import import_library, is_absent
from mmms_deploy.engines.wheels import install_command
from mmms_deploy.errors import CudaError, EngineUnavailableError

OUT_OF_MEMORY = 2
_LOST = frozenset({700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721})
"""Codes after which no call works any more on this GPU in this process."""
_FIXES = {
    OUT_OF_MEMORY: "close sessions, or other programs on the GPU (nvidia-smi lists them)",
    35: "install or update the NVIDIA driver; mmms-doctor says which one is there",
    100: "check nvidia-smi and CUDA_VISIBLE_DEVICES",
}


def import_cuda() -> Any:
    """Import ``cuda.bindings.runtime``, lazily.

    Raises:
        EngineUnavailableError: cuda-python is not installed or cannot be loaded.
    """
    expected, fix = "the package cuda-python beside the base install", install_command("cuda")
    needed = ("cudaGetDeviceCount", "cudaRuntimeGetVersion", "cudaDriverGetVersion")
    try:
        return import_library("cuda.bindings.runtime", *needed, called="cuda-python", expected=expected, fix=fix)
    except EngineUnavailableError as error:
        if is_absent(error, "cuda"):
            raise EngineUnavailableError("cuda-python is not installed", expected=expected, fix=fix) from error
        raise


class Cuda:
    """The CUDA runtime on one GPU.

    Args:
        library: The module ``cuda.bindings.runtime``.
        ordinal: Number of the GPU among those that CUDA_VISIBLE_DEVICES leaves.
        driver: The module ``cuda.bindings.driver``; None imports it when a kernel is first needed.
    """

    def __init__(self, library: Any, ordinal: int = 0, driver: Any = None) -> None:
        self._library = library
        self.ordinal = ordinal
        self._driver = driver
        self._here = threading.local()

    @cached_property
    def driver(self) -> Driver:
        """The driver's calls for kernels.

        Raises:
            EngineUnavailableError: cuda-python's calls of the driver cannot be imported.
        """
        return Driver(import_driver() if self._driver is None else self._driver)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime and return its results without the code.

        Raises:
            CudaError: The code is not success.
        """
        code, *values = getattr(self._library, name)(*arguments)
        if int(code) != 0:
            raise self._failure(name, code)
        return values[0] if len(values) == 1 else tuple(values)

    def _failure(self, call: str, code: Any) -> CudaError:
        name = _text(self._library.cudaGetErrorName(code)[1]) or f"error {int(code)}"
        meaning = _text(self._library.cudaGetErrorString(code)[1])
        # Reading the error clears it, so that the next library that checks for errors does not take it for its own.
        self._library.cudaGetLastError()
        number = int(code)
        fix = _FIXES.get(number, "run mmms-doctor, and report the call and the code with what it prints")
        if number in _LOST:
            fix = "start the process again: what this process has on the GPU is lost"
        return CudaError(
            f"{call} failed with {name} ({number})" + (f": {meaning}" if meaning else ""),
            call=call,
            code=number,
            name=name,
            expected="a GPU that answers",
            fix=fix,
        )

    def activate(self) -> None:
        """Make this the current GPU of the calling thread; a new thread or another library may have set another."""
        self._call("cudaSetDevice", self.ordinal)

    def memory(self) -> tuple[int, int]:
        """Return the free bytes and all bytes of the GPU's memory."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    # --- memory -----------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """Return the address of new memory on the GPU, a multiple of 256."""
        return int(self._call("cudaMalloc", nbytes))

    def free(self, address: int) -> None:
        """Free memory on the GPU; waits until the GPU has finished all work."""
        self._call("cudaFree", address)

    def allocate_host(self, nbytes: int) -> int:
        """Return the address of new pinned memory on the host, which the GPU can copy from and to directly."""
        return int(self._call("cudaHostAlloc", nbytes, self._library.cudaHostAllocDefault))

    def free_host(self, address: int) -> None:
        """Free pinned memory."""
        self._call("cudaFreeHost", address)

    def upload(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from the host to the GPU, in stream order."""
        self._copy(target, source, nbytes, self._library.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def download(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from the GPU to the host, in stream order."""
        self._copy(target, source, nbytes, self._library.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy on the GPU, in stream order."""
        self._copy(target, source, nbytes, self._library.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any, stream: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, kind, stream)

    def clear(self, address: int, nbytes: int, stream: Any) -> None:
        """Write zeros, in stream order."""
        self._call("cudaMemsetAsync", address, 0, nbytes, stream)

    # --- streams ----------------------------------------------------------------------------------------------------

    def create_stream(self) -> Any:
        """Return a new stream that does not wait for the default one."""
        return self._call("cudaStreamCreateWithFlags", self._library.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Any) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: Any) -> None:
        """Wait for all work on a stream; an error of an earlier operation may show here."""
        self._call("cudaStreamSynchronize", stream)

    # --- events -----------------------------------------------------------------------------------------------------

    def create_event(self) -> Any:
        """Return a new event, which takes the time on the GPU."""
        return self._call("cudaEventCreate")

    def destroy_event(self, event: Any) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def record_event(self, event: Any, stream: Any) -> None:
        """Take the time on the GPU, in stream order."""
        self._call("cudaEventRecord", event, stream)

    def wait_for_event(self, event: Any) -> None:
        """Wait until all work before a recorded event is done; an error of it may show here."""
        self._call("cudaEventSynchronize", event)

    def elapsed(self, start: Any, end: Any) -> float:
        """Wait for an event and return the milliseconds on the GPU since another."""
        self._call("cudaEventSynchronize", end)
        return float(self._call("cudaEventElapsedTime", start, end))

    # --- CUDA graphs ------------------------------------------------------------------------------------------------

    @property
    def capturing(self) -> bool:
        """Whether this thread is capturing; until it ends, it must not allocate, free or wait."""
        return getattr(self._here, "capturing", False)

    @contextmanager
    def capture(self, stream: Any) -> Iterator[list[Any]]:
        """Capture what the block enqueues on a stream, instead of executing it.

        The mode is thread-local. In the global mode, a call of any other thread that is not allowed during a capture
        fails with error 906 (https://github.com/roboflow/inference/pull/2866).

        Yields:
            A list that holds the CUDA graph after the block, which the caller destroys; empty when the block failed.
        """
        mode = self._library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        captured: list[Any] = []
        try:
            # An interrupt may come at any line, and must not leave the stream in a capture.
            self._here.capturing = True
            self._call("cudaStreamBeginCapture", stream, mode)
            yield captured
            self._here.capturing = False
            captured.append(self._call("cudaStreamEndCapture", stream))
        except BaseException:
            self._here.capturing = False
            self._discard_capture(stream)
            raise

    def _discard_capture(self, stream: Any) -> None:
        """End a capture, if there is one, and ignore its errors; the caller raises the error that led here."""
        code, cuda_graph = self._library.cudaStreamEndCapture(stream)
        self._library.cudaGetLastError()
        if int(code) == 0 and cuda_graph is not None:
            self._library.cudaGraphDestroy(cuda_graph)

    def instantiate(self, cuda_graph: Any) -> Any:
        """Return an executable CUDA graph."""
        return self._call("cudaGraphInstantiate", cuda_graph, 0)

    def upload_executable(self, executable: Any, stream: Any) -> None:
        """Upload an executable CUDA graph to the GPU, so that its first launch takes no longer than the others."""
        self._call("cudaGraphUpload", executable, stream)

    def launch(self, executable: Any, stream: Any) -> None:
        """Launch an executable CUDA graph, in stream order."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_cuda_graph(self, cuda_graph: Any) -> None:
        """Destroy a captured CUDA graph."""
        self._call("cudaGraphDestroy", cuda_graph)

    def destroy_executable(self, executable: Any) -> None:
        """Destroy an executable CUDA graph."""
        self._call("cudaGraphExecDestroy", executable)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
