"""A stand-in of the CUDA runtime, on host memory: the module ``cuda.bindings.runtime`` of cuda-python, 12 and 13.

It is as strict as the real one can be. An operation on a stream runs when the stream is waited for, not before. New
memory is full of garbage, and freed memory is gone. Addresses are checked when an operation runs. A call that a thread
may not make while it captures fails and spoils the capture. Arguments have exactly the types that the bindings take,
and streams, events and CUDA graphs are handles. Every call is counted, and any call can be made to fail.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from mmms_deploy.errors import EngineError
from tests.standins.cuda_driver import DriverStandIn

GARBAGE = 0xCD
_CAPTURE_SECONDS = 2e-3
"""How long a capture in the global mode takes at least."""
DEFAULT_STREAM = 0


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorUnknown = 999


class Kind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class Mode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


Operation = Callable[[], None]


@dataclass
class Stream:
    pending: list[Operation] = field(default_factory=list)
    capture: list[Operation] | None = None
    spoiled: bool = False
    failed: Error = Error.cudaSuccess


@dataclass
class GlobalCapture:
    """A capture in the global mode, by a library.

    Attributes:
        thread: The thread that captures.
        spoiled: Whether another thread made a call that is forbidden meanwhile.
    """

    thread: int
    spoiled: bool = False


@dataclass(eq=False)
class CudaGraph:
    operations: list[Operation]


@dataclass(frozen=True)
class Properties:
    name: bytes = b"Stand-in GPU"
    major: int = 9
    minor: int = 0
    totalGlobalMem: int = 1 << 40


@dataclass(eq=False)
class Event:
    """A moment on the GPU.

    Attributes:
        at: When it was, in milliseconds; None before its stream came to it.
    """

    at: float | None = None


class Handle:
    """A stream, event or CUDA graph as the bindings hand it out: it converts to a number, but is not an int."""

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
    """Return the number of a handle. As the bindings do, take the handle itself, a number, or None for 0."""
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


class CudaStandIn:
    """Stands in for the module ``cuda.bindings.runtime``.

    Args:
        room: Bytes that all allocations together may take.
        properties: What the GPU says of itself.
        reserved: Bytes that are not free from the start; see :meth:`reserve`.
        default_stream: Whether work on the default stream is allowed. Our engines never use it.
    """

    cudaMemcpyKind = Kind
    cudaStreamCaptureMode = Mode
    cudaError_t = Error
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1

    def __init__(
        self,
        room: int = 1 << 40,
        properties: Properties = Properties(),
        *,
        reserved: int = 0,
        default_stream: bool = False,
    ) -> None:
        self.calls: list[str] = []
        self.fail_at: dict[int, Error] = {}
        self.fail_always: dict[str, Error] = {}
        self.room = room
        self.properties = properties
        self.reserved = reserved
        self.devices = 1
        self.driver = 13000
        self.runtime = 13000
        self.unusable: Error = Error.cudaSuccess
        self.live: dict[int, tuple[Any, int, bool]] = {}
        self.streams: set[int] = set()
        self.cuda_graphs: set[CudaGraph] = set()
        self.executables: set[CudaGraph] = set()
        self.events: set[Event] = set()
        self.clock: Callable[[], float] = lambda: 1e3 * time.perf_counter()
        self.copied: Counter[Kind] = Counter()
        self._streams: dict[int, Stream] = {}
        self._objects: dict[int, Any] = {}
        self._numbers = iter(range(1 << 20, 1 << 60))
        self._lock = threading.RLock()
        self._capturing = threading.local()
        self._everywhere: GlobalCapture | None = None
        self._current = threading.local()
        self.driver_calls = DriverStandIn(self)
        if default_stream:
            self._streams[DEFAULT_STREAM] = Stream()
            self.streams.add(DEFAULT_STREAM)

    # --- counting and failing ---------------------------------------------------------------------------------------

    def count(self) -> Counter[str]:
        return Counter(self.calls)

    def reset(self) -> None:
        self.calls.clear()
        self.copied.clear()

    def _enter(self, name: str) -> Error:
        number = len(self.calls)
        self.calls.append(name)
        return self.fail_at.pop(number, self.fail_always.get(name, Error.cudaSuccess))

    def _unsafe(self) -> Error:
        """Return the error of a call that a capturing thread may not make, and in the global mode no other either."""
        stream: Stream | None = getattr(self._capturing, "stream", None)
        if stream is not None:
            stream.spoiled = True
            return Error.cudaErrorStreamCaptureUnsupported
        if (other := self._everywhere) is not None and other.thread != threading.get_ident():
            other.spoiled = True
            return Error.cudaErrorStreamCaptureUnsupported
        return Error.cudaSuccess

    @contextmanager
    def global_capture(self) -> Iterator[GlobalCapture]:
        """Capture as a library does in the global mode: calls that a capture forbids fail in all other threads, too."""
        capture = GlobalCapture(threading.get_ident())
        self._everywhere = capture
        try:
            time.sleep(_CAPTURE_SECONDS)  # other threads go on meanwhile
            yield capture
        finally:
            self._everywhere = None

    @property
    def capturing(self) -> bool:
        """Whether the calling thread records a CUDA graph."""
        return getattr(self._capturing, "stream", None) is not None

    # --- handles ----------------------------------------------------------------------------------------------------

    def _named(self, kind: type[Handle], thing: Any) -> Any:
        if thing is None:
            return None
        handle = kind(next(self._numbers))
        self._objects[int(handle)] = thing
        return handle

    def _thing(self, kind: type[Handle], handle: Any) -> Any:
        return self._objects[_handle(kind, handle)]

    def _forget(self, kind: type[Handle], handle: Any) -> Any:
        return self._objects.pop(_handle(kind, handle))

    # --- what is left -----------------------------------------------------------------------------------------------

    @property
    def leaked(self) -> dict[str, int]:
        """What was not freed or destroyed."""
        left = {
            "device": sum(1 for _, _, on_device in self.live.values() if on_device),
            "pinned": sum(1 for _, _, on_device in self.live.values() if not on_device),
            "streams": len(self.streams),
            "graphs": len(self.cuda_graphs),
            "executables": len(self.executables),
            "events": len(self.events),
            "modules": self.driver_calls.loaded,
        }
        return {kind: number for kind, number in left.items() if number}

    def device_bytes(self) -> int:
        return sum(size for _, size, on_device in self.live.values() if on_device)

    def reserve(self, nbytes: int) -> None:
        """Take memory that no account of the runtime shows, as libraries do, or give it back when negative."""
        self.reserved += nbytes

    # --- errors -----------------------------------------------------------------------------------------------------

    def cudaGetErrorName(self, error: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, _enum(Error, error).name.encode()

    def cudaGetErrorString(self, error: Error) -> tuple[Error, bytes]:
        _enum(Error, error)
        return Error.cudaSuccess, b"what it means"

    def cudaGetLastError(self) -> tuple[Error]:
        return (Error.cudaSuccess,)

    # --- the GPU ----------------------------------------------------------------------------------------------------

    def cudaDriverGetVersion(self) -> tuple[Error, int]:
        return Error.cudaSuccess, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[Error, int]:
        return Error.cudaSuccess, self.runtime

    def cudaGetDeviceCount(self) -> tuple[Error, int | None]:
        return (self.unusable, None) if self.unusable else (Error.cudaSuccess, self.devices)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Error, Properties | None]:
        return Error.cudaSuccess, self.properties

    def cudaSetDevice(self, device: int) -> tuple[Error]:
        error = self._enter("cudaSetDevice") or self.unusable
        if not error and not 0 <= _number(device) < self.devices:
            error = Error.cudaErrorInvalidValue
        if not error:
            self._current.context = True
        return (error,)

    @property
    def is_current(self) -> bool:
        """Whether the calling thread chose the GPU, so that the driver's calls find its context."""
        return getattr(self._current, "context", False)

    def cudaMemGetInfo(self) -> tuple[Error, int | None, int | None]:
        error = self._enter("cudaMemGetInfo")
        return (error, None, None) if error else (error, self.room - self.device_bytes() - self.reserved, self.room)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _new(self, size: int, on_device: bool) -> int:
        memory = (ctypes.c_uint8 * (size + 512))()
        address = -(-ctypes.addressof(memory) // 256) * 256
        ctypes.memset(address, GARBAGE, size)
        with self._lock:
            self.live[address] = (memory, size, on_device)
        return address

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        _number(size)
        error = self._enter("cudaMalloc") or self._unsafe()
        if not error and self.device_bytes() + size > self.room:
            error = Error.cudaErrorMemoryAllocation
        return (error, None) if error else (error, self._new(size, True))

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Error, int | None]:
        _number(size)
        _number(flags)
        error = self._enter("cudaHostAlloc") or self._unsafe()
        return (error, None) if error else (error, self._new(size, False))

    def _release(self, name: str, address: int, on_device: bool) -> tuple[Error]:
        _number(address)
        error = self._enter(name) or self._unsafe()
        for stream in list(self._streams.values()):
            self._work(stream)
        known = self.live.get(address)
        if known is None or known[2] is not on_device:
            return (Error.cudaErrorInvalidValue,)
        with self._lock:
            # Given back even when the call is made to fail: an error here tells of earlier work, not of the memory.
            del self.live[address]
        return (error,)

    def cudaFree(self, devPtr: int) -> tuple[Error]:
        return self._release("cudaFree", devPtr, True)

    def cudaFreeHost(self, ptr: int) -> tuple[Error]:
        return self._release("cudaFreeHost", ptr, False)

    def on_device(self, address: int, size: int) -> bool | None:
        """Whether an address is on the GPU (True), pinned (False), or neither (None); fails across a border."""
        with self._lock:
            regions = [(base, *known) for base, known in self.live.items()]
        for base, _, length, on_device in regions:
            if base <= address < base + length:
                if address + size > base + length:
                    raise MemoryError("beyond its end")
                return on_device
        return None

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Kind, stream: Any) -> tuple[Error]:
        target, source, size = _number(dst), _number(src), _number(count)
        _enum(Kind, kind)
        error = self._enter("cudaMemcpyAsync")
        if error:
            return (error,)
        wanted = {Kind.cudaMemcpyHostToDevice: (True, False), Kind.cudaMemcpyDeviceToHost: (False, True)}
        to_device, from_device = wanted.get(kind, (True, True))

        def copy() -> None:
            if bool(self.on_device(target, size)) != to_device or bool(self.on_device(source, size)) != from_device:
                raise MemoryError(f"{kind.name} between the wrong memories")
            ctypes.memmove(target, source, size)
            self.copied[kind] += size

        return (self.submit(stream, copy),)

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> tuple[Error]:
        address, size = _number(devPtr), _number(count)
        _number(value)
        error = self._enter("cudaMemsetAsync")
        if error:
            return (error,)

        def fill() -> None:
            if not self.on_device(address, size):
                raise MemoryError("not on the GPU")
            ctypes.memset(address, value, size)

        return (self.submit(stream, fill),)

    # --- streams ----------------------------------------------------------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, cudaStream_t | None]:
        _number(flags)
        error = self._enter("cudaStreamCreateWithFlags") or self._unsafe()
        if error:
            return error, None
        assert flags == self.cudaStreamNonBlocking
        with self._lock:
            handle = 1 + len(self._streams)
            self._streams[handle] = Stream()
            self.streams.add(handle)
        return error, cudaStream_t(handle)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Error]:
        number = _handle(cudaStream_t, stream)
        error = self._enter("cudaStreamDestroy")
        self._work(self._streams[number])
        self.streams.discard(number)
        return (error,)

    def submit(self, stream: Any, operation: Operation) -> Error:
        """Put an operation on a stream; an executor's run is one, too."""
        number = _handle(cudaStream_t, stream)
        assert number in self.streams, "a stream that was destroyed, or the default one"
        state = self._streams[number]
        if state.capture is not None:
            if getattr(self._capturing, "stream", None) is not state:
                state.spoiled = True
                return Error.cudaErrorStreamCaptureUnsupported
            state.capture.append(operation)
        else:
            state.pending.append(operation)
        return Error.cudaSuccess

    def _work(self, state: Stream) -> None:
        with self._lock:
            pending, state.pending = state.pending, []
            for operation in pending:
                try:
                    operation()
                except MemoryError:
                    state.failed = Error.cudaErrorIllegalAddress
                except EngineError:
                    state.failed = Error.cudaErrorLaunchFailure

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Error]:
        state = self._streams[_handle(cudaStream_t, stream)]
        error = self._enter("cudaStreamSynchronize") or self._unsafe()
        if error:
            return (error,)
        self._work(state)
        failed, state.failed = state.failed, Error.cudaSuccess
        return (failed,)

    # --- events -----------------------------------------------------------------------------------------------------

    def cudaEventCreate(self) -> tuple[Error, cudaEvent_t | None]:
        error = self._enter("cudaEventCreate") or self._unsafe()
        if error:
            return error, None
        event = Event()
        self.events.add(event)
        return error, self._named(cudaEvent_t, event)

    def cudaEventDestroy(self, event: Any) -> tuple[Error]:
        self.events.remove(self._forget(cudaEvent_t, event))
        return (self._enter("cudaEventDestroy"),)

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[Error]:
        moment: Event = self._thing(cudaEvent_t, event)
        error = self._enter("cudaEventRecord")
        assert moment in self.events
        moment.at = None

        def record() -> None:
            moment.at = self.clock()

        return (error or self.submit(stream, record),)

    def cudaEventSynchronize(self, event: Any) -> tuple[Error]:
        self._thing(cudaEvent_t, event)
        error = self._enter("cudaEventSynchronize")
        for stream in list(self._streams.values()):
            self._work(stream)
        return (error,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Error, float | None]:
        first, last = self._thing(cudaEvent_t, start), self._thing(cudaEvent_t, end)
        error = self._enter("cudaEventElapsedTime")
        if first.at is None or last.at is None:
            return Error.cudaErrorInvalidResourceHandle, None
        return error, last.at - first.at

    # --- CUDA graphs --------------------------------------------------------------------------------------------------

    def cudaStreamBeginCapture(self, stream: Any, mode: Mode) -> tuple[Error]:
        state = self._streams[_handle(cudaStream_t, stream)]
        _enum(Mode, mode)
        error = self._enter("cudaStreamBeginCapture")
        if error:
            return (error,)
        assert mode is Mode.cudaStreamCaptureModeThreadLocal
        assert state.capture is None
        state.capture, state.spoiled = [], False
        self._capturing.stream = state
        return (error,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Error, cudaGraph_t | None]:
        state = self._streams[_handle(cudaStream_t, stream)]
        error = self._enter("cudaStreamEndCapture")
        operations, state.capture = state.capture, None
        self._capturing.stream = None
        if error or operations is None:
            return error or Error.cudaErrorInvalidValue, None
        if state.spoiled:
            return Error.cudaErrorStreamCaptureInvalidated, None
        cuda_graph = CudaGraph(operations)
        self.cuda_graphs.add(cuda_graph)
        return error, self._named(cudaGraph_t, cuda_graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Error, cudaGraphExec_t | None]:
        cuda_graph: CudaGraph = self._thing(cudaGraph_t, graph)
        _number(flags)
        error = self._enter("cudaGraphInstantiate")
        if error:
            return error, None
        assert cuda_graph in self.cuda_graphs
        executable = CudaGraph(list(cuda_graph.operations))
        self.executables.add(executable)
        return error, self._named(cudaGraphExec_t, executable)

    def cudaGraphUpload(self, graphExec: Any, stream: Any) -> tuple[Error]:
        assert self._thing(cudaGraphExec_t, graphExec) in self.executables
        _handle(cudaStream_t, stream)
        return (self._enter("cudaGraphUpload"),)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Error]:
        executable: CudaGraph = self._thing(cudaGraphExec_t, graphExec)
        error = self._enter("cudaGraphLaunch")
        assert executable in self.executables
        if error:
            return (error,)
        for operation in executable.operations:
            self.submit(stream, operation)
        return (error,)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Error]:
        self.cuda_graphs.discard(self._forget(cudaGraph_t, graph))
        return (self._enter("cudaGraphDestroy"),)

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Error]:
        self.executables.discard(self._forget(cudaGraphExec_t, graphExec))
        return (self._enter("cudaGraphExecDestroy"),)


# --- the GPU of a rehearsed host --------------------------------------------------------------------------------------

MEMORY = int(os.environ.get("MMMS_REHEARSAL_MIB", "144384")) << 20
CONTEXT = 520 << 20
"""What the CUDA context of a process takes."""
GPU = CudaStandIn(
    MEMORY,
    Properties(name=b"NVIDIA H200 (rehearsal)", totalGlobalMem=MEMORY),
    reserved=CONTEXT,
    default_stream=True,
)
"""The one GPU of a process of its own: an H200 as far as its name and memory go."""
FAILS = frozenset(filter(None, os.environ.get("MMMS_REHEARSAL_FAILS", "").split(",")))
"""What fails on this host: calls of the CUDA runtime, ``onnxruntime-graph``, ``tensorrt-build``."""
GPU.fail_always |= {name: Error.cudaErrorUnknown for name in FAILS if name.startswith("cu")}
