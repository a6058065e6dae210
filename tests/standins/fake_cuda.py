"""The CUDA runtime on host memory, as unkind as the real one may be.

Nothing that is asked of a stream happens before somebody waits for it, memory is full of garbage when it is new and
gone when it is freed, addresses are checked when an operation runs, and what a thread may not do while it captures
fails and spoils the capture. Every call is counted, and any call can be made to fail.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from mmms_deploy.bundle import StageGraph
from mmms_deploy.engines.cuda.executor import TensorIO
from mmms_deploy.errors import EngineError

GARBAGE = 0xCD


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


@dataclass(eq=False)
class Graph:
    operations: list[Operation]


@dataclass(frozen=True)
class Properties:
    name: bytes = b"Fake GPU"
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


class FakeCuda:
    """Stands for the module ``cuda.bindings.runtime``."""

    cudaMemcpyKind = Kind
    cudaStreamCaptureMode = Mode
    cudaError_t = Error
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1

    def __init__(self, room: int = 1 << 40) -> None:
        self.calls: list[str] = []
        self.fail_at: dict[int, Error] = {}
        self.fail_always: dict[str, Error] = {}
        self.room = room
        self.devices = 1
        self.driver = 13000
        self.runtime = 13000
        self.unusable: Error = Error.cudaSuccess
        self.live: dict[int, tuple[Any, int, bool]] = {}
        self.streams: set[int] = set()
        self.graphs: set[Graph] = set()
        self.executables: set[Graph] = set()
        self.events: set[Event] = set()
        self.clock: Callable[[], float] = lambda: 1e3 * time.perf_counter()
        self.copied: Counter[Kind] = Counter()
        self._streams: dict[int, Stream] = {}
        self._lock = threading.RLock()
        self._capturing = threading.local()

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
        """For what a capturing thread may not call."""
        stream: Stream | None = getattr(self._capturing, "stream", None)
        if stream is None:
            return Error.cudaSuccess
        stream.spoiled = True
        return Error.cudaErrorStreamCaptureUnsupported

    # --- what is left -----------------------------------------------------------------------------------------------

    @property
    def leaked(self) -> dict[str, int]:
        """What was not given back."""
        left = {
            "device": sum(1 for _, _, on_device in self.live.values() if on_device),
            "pinned": sum(1 for _, _, on_device in self.live.values() if not on_device),
            "streams": len(self.streams),
            "graphs": len(self.graphs),
            "executables": len(self.executables),
            "events": len(self.events),
        }
        return {kind: number for kind, number in left.items() if number}

    def device_bytes(self) -> int:
        return sum(size for _, size, on_device in self.live.values() if on_device)

    # --- errors -----------------------------------------------------------------------------------------------------

    def cudaGetErrorName(self, code: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, Error(code).name.encode()

    def cudaGetErrorString(self, code: Error) -> tuple[Error, bytes]:
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

    def cudaGetDeviceProperties(self, ordinal: int) -> tuple[Error, Properties | None]:
        return Error.cudaSuccess, Properties()

    def cudaSetDevice(self, ordinal: int) -> tuple[Error]:
        return (self._enter("cudaSetDevice") or self.unusable,)

    def cudaMemGetInfo(self) -> tuple[Error, int | None, int | None]:
        error = self._enter("cudaMemGetInfo")
        return (error, None, None) if error else (error, self.room - self.device_bytes(), self.room)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _new(self, size: int, on_device: bool) -> int:
        memory = (ctypes.c_uint8 * (size + 512))()
        address = -(-ctypes.addressof(memory) // 256) * 256
        ctypes.memset(address, GARBAGE, size)
        with self._lock:
            self.live[address] = (memory, size, on_device)
        return address

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        error = self._enter("cudaMalloc") or self._unsafe()
        if not error and self.device_bytes() + size > self.room:
            error = Error.cudaErrorMemoryAllocation
        return (error, None) if error else (error, self._new(size, True))

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Error, int | None]:
        error = self._enter("cudaHostAlloc") or self._unsafe()
        return (error, None) if error else (error, self._new(size, False))

    def _release(self, name: str, address: int, on_device: bool) -> tuple[Error]:
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

    def cudaFree(self, address: int) -> tuple[Error]:
        return self._release("cudaFree", address, True)

    def cudaFreeHost(self, address: int) -> tuple[Error]:
        return self._release("cudaFreeHost", address, False)

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

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Kind, stream: int) -> tuple[Error]:
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

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[Error]:
        error = self._enter("cudaMemsetAsync")
        if error:
            return (error,)

        def fill() -> None:
            if not self.on_device(address, size):
                raise MemoryError("not on the GPU")
            ctypes.memset(address, value, size)

        return (self.submit(stream, fill),)

    # --- streams ----------------------------------------------------------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int | None]:
        error = self._enter("cudaStreamCreateWithFlags") or self._unsafe()
        if error:
            return error, None
        assert flags == self.cudaStreamNonBlocking
        with self._lock:
            handle = 1 + len(self._streams)
            self._streams[handle] = Stream()
            self.streams.add(handle)
        return error, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:
        error = self._enter("cudaStreamDestroy")
        self._work(self._streams[stream])
        self.streams.discard(stream)
        return (error,)

    def submit(self, stream: int, operation: Operation) -> Error:
        """Ask a stream for an operation; what an executor's run is, too."""
        assert stream in self.streams, "a stream that was destroyed, or the default one"
        state = self._streams[stream]
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

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        error = self._enter("cudaStreamSynchronize") or self._unsafe()
        state = self._streams[stream]
        if error:
            return (error,)
        self._work(state)
        failed, state.failed = state.failed, Error.cudaSuccess
        return (failed,)

    # --- events -----------------------------------------------------------------------------------------------------

    def cudaEventCreate(self) -> tuple[Error, Event | None]:
        error = self._enter("cudaEventCreate") or self._unsafe()
        if error:
            return error, None
        event = Event()
        self.events.add(event)
        return error, event

    def cudaEventDestroy(self, event: Event) -> tuple[Error]:
        self.events.remove(event)
        return (self._enter("cudaEventDestroy"),)

    def cudaEventRecord(self, event: Event, stream: int) -> tuple[Error]:
        error = self._enter("cudaEventRecord")
        assert event in self.events
        event.at = None

        def record() -> None:
            event.at = self.clock()

        return (error or self.submit(stream, record),)

    def cudaEventSynchronize(self, event: Event) -> tuple[Error]:
        error = self._enter("cudaEventSynchronize")
        for stream in list(self._streams.values()):
            self._work(stream)
        return (error,)

    def cudaEventElapsedTime(self, start: Event, end: Event) -> tuple[Error, float | None]:
        error = self._enter("cudaEventElapsedTime")
        if start.at is None or end.at is None:
            return Error.cudaErrorInvalidResourceHandle, None
        return error, end.at - start.at

    # --- graphs -----------------------------------------------------------------------------------------------------

    def cudaStreamBeginCapture(self, stream: int, mode: Mode) -> tuple[Error]:
        error = self._enter("cudaStreamBeginCapture")
        if error:
            return (error,)
        assert mode is Mode.cudaStreamCaptureModeThreadLocal
        state = self._streams[stream]
        assert state.capture is None
        state.capture, state.spoiled = [], False
        self._capturing.stream = state
        return (error,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, Graph | None]:
        error = self._enter("cudaStreamEndCapture")
        state = self._streams[stream]
        operations, state.capture = state.capture, None
        self._capturing.stream = None
        if error or operations is None:
            return error or Error.cudaErrorInvalidValue, None
        if state.spoiled:
            return Error.cudaErrorStreamCaptureInvalidated, None
        graph = Graph(operations)
        self.graphs.add(graph)
        return error, graph

    def cudaGraphInstantiate(self, graph: Graph, flags: int) -> tuple[Error, Graph | None]:
        error = self._enter("cudaGraphInstantiate")
        if error:
            return error, None
        assert graph in self.graphs
        executable = Graph(list(graph.operations))
        self.executables.add(executable)
        return error, executable

    def cudaGraphUpload(self, executable: Graph, stream: int) -> tuple[Error]:
        assert executable in self.executables
        return (self._enter("cudaGraphUpload"),)

    def cudaGraphLaunch(self, executable: Graph, stream: int) -> tuple[Error]:
        error = self._enter("cudaGraphLaunch")
        assert executable in self.executables
        if error:
            return (error,)
        for operation in executable.operations:
            self.submit(stream, operation)
        return (error,)

    def cudaGraphDestroy(self, graph: Graph) -> tuple[Error]:
        self.graphs.discard(graph)
        return (self._enter("cudaGraphDestroy"),)

    def cudaGraphExecDestroy(self, executable: Graph) -> tuple[Error]:
        self.executables.discard(executable)
        return (self._enter("cudaGraphExecDestroy"),)


class FakeProgram:
    """A stage that ONNX Runtime executes on the CPU, on the fake's memory: what TensorRT's plan is on a GPU.

    It insists on what TensorRT insists on: every tensor bound, scratch memory lent, and one run before it is captured.
    """

    def __init__(self, cuda: FakeCuda, session: Any, graph: StageGraph, scratch: int = 4096) -> None:
        self.cuda = cuda
        self.session = session
        self.graph = graph
        self.scratch = scratch
        self.executors = 0
        self.fail: str | None = None

    @property
    def io_spec(self) -> Mapping[str, TensorIO]:
        return {
            spec.name: TensorIO(spec.dtype, spec.shape, spec in self.graph.inputs)
            for spec in (*self.graph.inputs, *self.graph.outputs)
        }

    @property
    def weights(self) -> int:
        return 1000

    @property
    def device_memory(self) -> int:
        return self.scratch

    def executor(self) -> FakeExecutor:
        if self.fail == "executor":
            raise EngineError("no execution context")
        self.executors += 1
        return FakeExecutor(self)

    def close(self) -> None:
        pass


class FakeExecutor:
    def __init__(self, program: FakeProgram) -> None:
        self.program = program
        self.binding = program.session.io_binding()
        self.bound: dict[str, int] = {}
        self.lent: int | None = None
        self.ran = False
        self.open = True

    def set_scratch(self, address: int) -> None:
        self.lent = address

    def bind(self, name: str, address: int) -> None:
        spec = next(s for s in (*self.program.graph.inputs, *self.program.graph.outputs) if s.name == name)
        bind = self.binding.bind_input if spec in self.program.graph.inputs else self.binding.bind_output
        assert self.program.cuda.on_device(address, spec.nbytes)
        assert address % 256 == 0
        bind(name, "cpu", 0, spec.dtype, spec.shape, address)
        self.bound[name] = address

    def enqueue(self, stream: int) -> None:
        program, cuda = self.program, self.program.cuda
        assert self.open
        assert set(self.bound) == set(program.io_spec)
        assert not program.scratch or (self.lent is not None and cuda.on_device(self.lent, program.scratch))
        if program.fail == "enqueue":
            raise EngineError("the library refuses")
        if getattr(cuda._capturing, "stream", None) is not None and not self.ran:
            raise EngineError("captured before its first run was done")

        def run() -> None:
            for name, address in self.bound.items():
                io = program.io_spec[name]
                if not cuda.on_device(address, 1):
                    raise MemoryError(f"{io} is gone")
            if self.lent is not None:
                ctypes.memset(self.lent, GARBAGE, program.scratch)
            program.session.run_with_iobinding(self.binding)
            self.ran = True

        cuda.submit(stream, run)

    def close(self) -> None:
        if self.open:
            self.program.executors -= 1
        self.open = False
