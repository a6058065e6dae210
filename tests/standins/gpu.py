"""The fake CUDA runtime as ``cuda.bindings.runtime`` of cuda-python, 12 and 13, takes its calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from tests.standins.fake_cuda import Error, Event, FakeCuda, Graph, Kind, Mode, Properties, Stream

MEMORY = int(os.environ.get("MMMS_REHEARSAL_MIB", "144384")) << 20
CONTEXT = 520 << 20
"""What the CUDA context of a process takes."""
DEFAULT_STREAM = 0


class Handle:
    """What the runtime names a stream, event or graph by: a number in an object that is none."""

    def __init__(self, number: int = 0) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and int(other) == self._number

    def __hash__(self) -> int:
        return hash(self._number)


class cudaStream_t(Handle):
    pass


class cudaEvent_t(Handle):
    pass


class cudaGraph_t(Handle):
    pass


class cudaGraphExec_t(Handle):
    pass


def _handle(kind: type[Handle], given: Any) -> int:
    """As the bindings do: the handle itself, a number, or None for nothing."""
    if given is None:
        return 0
    if type(given) is int or isinstance(given, kind):
        return int(given)
    raise TypeError(f"Argument has incorrect type (expected {kind.__name__}, got {type(given).__name__})")


def _number(given: Any) -> int:
    if type(given) is not int:
        raise TypeError(f"Provided argument is of type {type(given)} but expected Type None, int or object with Buffer")
    return given


def _enum(kind: type, given: Any) -> Any:
    if type(given) is not kind:
        raise TypeError(f"Argument has incorrect type (expected {kind.__name__}, got {type(given).__name__})")
    return given


class Gpu(FakeCuda):
    """One H200 as far as its name goes. Checks every argument, and hands out handles."""

    def __init__(self) -> None:
        super().__init__(room=MEMORY)
        self.reserved = CONTEXT
        self._objects: dict[int, Any] = {}
        self._numbers = iter(range(1 << 20, 1 << 60))
        self._streams[DEFAULT_STREAM] = Stream()
        self.streams.add(DEFAULT_STREAM)
        self._started = threading.Event()

    # --- what libraries hold ----------------------------------------------------------------------------------------

    def reserve(self, nbytes: int) -> None:
        """Take memory for a library, or give it back when negative."""
        self.reserved += nbytes

    def cudaMemGetInfo(self) -> tuple[Error, int | None, int | None]:
        error, free, total = super().cudaMemGetInfo()
        return error, None if free is None else free - self.reserved, total

    # --- the GPU ----------------------------------------------------------------------------------------------------

    def cudaGetDeviceProperties(self, device: int) -> tuple[Error, Properties | None]:
        return Error.cudaSuccess, Properties(name=b"NVIDIA H200 (rehearsal)", totalGlobalMem=MEMORY)

    def cudaSetDevice(self, device: int) -> tuple[Error]:
        return super().cudaSetDevice(_number(device)) if device == 0 else (Error.cudaErrorInvalidValue,)

    def cudaGetErrorName(self, error: Error) -> tuple[Error, bytes]:
        return super().cudaGetErrorName(_enum(Error, error))

    def cudaGetErrorString(self, error: Error) -> tuple[Error, bytes]:
        return super().cudaGetErrorString(_enum(Error, error))

    # --- memory -----------------------------------------------------------------------------------------------------

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        return super().cudaMalloc(_number(size))

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Error, int | None]:
        return super().cudaHostAlloc(_number(size), _number(flags))

    def cudaFree(self, devPtr: int) -> tuple[Error]:
        return super().cudaFree(_number(devPtr))

    def cudaFreeHost(self, ptr: int) -> tuple[Error]:
        return super().cudaFreeHost(_number(ptr))

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Kind, stream: Any) -> tuple[Error]:
        _enum(Kind, kind)
        number = _handle(cudaStream_t, stream)
        return super().cudaMemcpyAsync(_number(dst), _number(src), _number(count), kind, number)

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> tuple[Error]:
        number = _handle(cudaStream_t, stream)
        return super().cudaMemsetAsync(_number(devPtr), _number(value), _number(count), number)

    # --- streams ----------------------------------------------------------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, cudaStream_t | None]:
        error, number = super().cudaStreamCreateWithFlags(_number(flags))
        return error, None if number is None else cudaStream_t(number)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Error]:
        return super().cudaStreamDestroy(_handle(cudaStream_t, stream))

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Error]:
        return super().cudaStreamSynchronize(_handle(cudaStream_t, stream))

    # --- events and graphs ------------------------------------------------------------------------------------------

    def _named(self, kind: type[Handle], thing: Any) -> Any:
        if thing is None:
            return None
        handle = kind(next(self._numbers))
        self._objects[int(handle)] = thing
        return handle

    def _thing(self, kind: type[Handle], handle: Any) -> Any:
        return self._objects[_handle(kind, handle)]

    def _forget(self, kind: type[Handle], handle: Any, destroy: Callable[[Any], tuple[Error]]) -> tuple[Error]:
        return destroy(self._objects.pop(_handle(kind, handle)))

    def cudaEventCreate(self) -> tuple[Error, Event | None]:
        error, event = super().cudaEventCreate()
        return error, self._named(cudaEvent_t, event)

    def cudaEventDestroy(self, event: Any) -> tuple[Error]:
        return self._forget(cudaEvent_t, event, super().cudaEventDestroy)

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[Error]:
        return super().cudaEventRecord(self._thing(cudaEvent_t, event), _handle(cudaStream_t, stream))

    def cudaEventSynchronize(self, event: Any) -> tuple[Error]:
        return super().cudaEventSynchronize(self._thing(cudaEvent_t, event))

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Error, float | None]:
        return super().cudaEventElapsedTime(self._thing(cudaEvent_t, start), self._thing(cudaEvent_t, end))

    def cudaStreamBeginCapture(self, stream: Any, mode: Mode) -> tuple[Error]:
        return super().cudaStreamBeginCapture(_handle(cudaStream_t, stream), _enum(Mode, mode))

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Error, Graph | None]:
        error, graph = super().cudaStreamEndCapture(_handle(cudaStream_t, stream))
        return error, self._named(cudaGraph_t, graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Error, Graph | None]:
        error, executable = super().cudaGraphInstantiate(self._thing(cudaGraph_t, graph), _number(flags))
        return error, self._named(cudaGraphExec_t, executable)

    def cudaGraphUpload(self, graphExec: Any, stream: Any) -> tuple[Error]:
        return super().cudaGraphUpload(self._thing(cudaGraphExec_t, graphExec), _handle(cudaStream_t, stream))

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Error]:
        return super().cudaGraphLaunch(self._thing(cudaGraphExec_t, graphExec), _handle(cudaStream_t, stream))

    def cudaGraphDestroy(self, graph: Any) -> tuple[Error]:
        return self._forget(cudaGraph_t, graph, super().cudaGraphDestroy)

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Error]:
        return self._forget(cudaGraphExec_t, graphExec, super().cudaGraphExecDestroy)


GPU = Gpu()
"""The one of this process."""
FAILS = frozenset(filter(None, os.environ.get("MMMS_REHEARSAL_FAILS", "").split(",")))
"""What fails on this host: calls of the CUDA runtime, ``onnxruntime-graph``, ``tensorrt-build``."""
GPU.fail_always |= {name: Error.cudaErrorUnknown for name in FAILS if name.startswith("cuda")}
