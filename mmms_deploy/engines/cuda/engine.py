"""An engine on the GPU, for any library that executes its stages: it opens sessions within a budget of memory."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from mmms_deploy.bundle import Bundle, Role, StageGraph
from mmms_deploy.engines.base import EngineBase
from mmms_deploy.engines.cuda.decider import KERNEL as DECIDING
from mmms_deploy.engines.cuda.executor import Program
from mmms_deploy.engines.cuda.finisher import KERNELS, MODULE, answer_of
from mmms_deploy.engines.cuda.images.preparation import ImageKernels, image_kernels
from mmms_deploy.engines.cuda.kernels.module import Kernel, KernelModules
from mmms_deploy.engines.cuda.layout import lay_out
from mmms_deploy.engines.cuda.memory import Account, DeviceMemory, Use, mebibytes
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.resources import SessionResources
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.engines.cuda.runtime import OUT_OF_MEMORY, Cuda
from mmms_deploy.engines.process import OwnProcess, call
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.errors import (
    CudaError,
    EngineError,
    EngineUnavailableError,
    MMMSDeployWarning,
    PlanBuildError,
    PlanError,
    ResidentBudgetError,
)

_HEADROOM = 64 << 20
"""Free bytes that opening a session leaves to the libraries, which allocate memory of their own."""


class CudaEngine(EngineBase):
    """Executes stages on one GPU; the libraries' engines derive from it.

    Args:
        bundle: The bundle.
        graphs: The ONNX graph of every stage, by name, in the order of the manifest.
        programs: The programs, by stage. The engine closes them.
        info: What the engine is.
        cuda: The GPU.
        options: Settings.
        stream: The one stream on which the library executes, which the engine destroys; None for a library that
            executes on any stream, so that every session has its own.
        keep_resources: Whether to keep a closed session's resources for the next session, because the library does not
            release their addresses.
        capture: Whether to capture a click as a CUDA graph; False for a library that captures its own.

    Raises:
        BundleCorruptError: A program has other inputs or outputs than the manifest says.
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        graphs: Mapping[str, StageGraph],
        programs: Mapping[str, Program],
        info: EngineInfo,
        cuda: Cuda,
        options: CudaOptions,
        stream: Any = None,
        keep_resources: bool = False,
        capture: bool = True,
    ) -> None:
        self._own = OwnProcess("this engine", self)
        self._bundle = bundle
        self._graphs = dict(graphs)
        self._info = info
        self._layout = lay_out(bundle, graphs, programs)
        self._programs = dict(programs)
        self._cuda = cuda
        self._kernels = KernelModules(cuda)
        self._options = options
        self._account = Account(cuda, options.memory_limit)
        self._weights = sum(program.weights for program in programs.values())
        self._account.note(Use.WEIGHTS, self._weights)
        self._stream = stream
        self._guard = nullcontext() if stream is None else threading.RLock()
        self._finishing: dict[str, Kernel] | None = None
        self._deciding: Kernel | None = None
        self._preparing: ImageKernels | None = None
        self._keep = keep_resources
        self._capture = capture
        self._lock = threading.RLock()
        self._open = 0
        self._closed = False
        self._idle: list[SessionResources] = []
        self._unclosed: deque[SessionResources] = deque()
        self._end = weakref.finalize(self, _free_all, self._idle, self._unclosed, self._kernels)
        self._end.atexit = False

    @property
    def options(self) -> CudaOptions:
        """Its settings."""
        return self._options

    @property
    def cuda(self) -> Cuda:
        """The GPU that it works on."""
        return self._cuda

    @call
    def open(self) -> CudaRunner:
        """Return a new runner for one session, warmed up.

        Raises:
            EngineError: The engine is closed, or the GPU failed.
            ResidentBudgetError: There is no memory for another resident image.

        Warns:
            MMMSDeployWarning: A click cannot be captured as a CUDA graph.
        """
        with self._lock:
            self._check_open()
            self._cuda.activate()
            self._reclaim()
            self._check_count()
            self._load_kernels()
            resources = self._idle.pop() if self._idle else self._new_resources()
            self._open += 1
        return CudaRunner(
            resources, self._info.library, check=self._check_open, release=self._release, reclaim=self._reclaim_later
        )

    def _load_kernels(self) -> None:
        """Load the kernels that make masks of answers, decide between objects, and prepare images, once.

        Without them the processor does it.
        """
        if self._finishing is not None:
            return
        if self._options.prepare_images and self._layout.pictures:
            try:
                self._preparing = image_kernels(self._kernels)
            except EngineError as error:
                if self._options.strict:
                    raise
                warnings.warn(
                    f"images are prepared on the CPU, and not on the GPU: {error.given}",
                    MMMSDeployWarning,
                    stacklevel=3,
                )
        if any(spec.role is Role.ROWS for graph in self._graphs.values() for spec in graph.outputs):
            try:
                self._deciding = self._kernels.kernel(DECIDING, DECIDING)
            except EngineError as error:
                if self._options.strict:
                    raise
                warnings.warn(
                    f"label maps are made on the CPU, and not on the GPU: {error.given}",
                    MMMSDeployWarning,
                    stacklevel=3,
                )
        answers = (answer_of(graph) for graph in self._graphs.values())
        kernels: dict[str, Kernel] = {}
        try:
            for dtype in {spec.dtype for spec in answers if spec is not None}:
                kernels[dtype] = self._kernels.kernel(MODULE, KERNELS[dtype])
        except EngineError as error:
            if self._options.strict:
                raise
            kernels = {}
            warnings.warn(
                f"masks are brought to the image's size on the CPU, and not on the GPU: {error.given}",
                MMMSDeployWarning,
                stacklevel=3,
            )
        self._finishing = kernels

    def _new_resources(self) -> SessionResources:
        needed = self._layout.session_bytes(self._options.history_block, prepare=self._preparing is not None)
        free, total = self._cuda.memory()
        if free < needed + _HEADROOM:
            raise self._no_room(
                f"it takes {mebibytes(needed)}, {mebibytes(_HEADROOM)} have to stay free for the libraries, and"
                f" {mebibytes(free)} of {mebibytes(total)} are free"
            )
        try:
            with self._guard:
                return SessionResources(
                    self._cuda,
                    self._account,
                    self._layout,
                    self._programs,
                    self._options,
                    stream=self._stream,
                    guard=self._guard,
                    capture=self._capture,
                    preparing=self._preparing,
                    finishing=self._finishing or {},
                    deciding=self._deciding,
                )
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            raise self._no_room(error.given) from error

    def _check_count(self) -> None:
        limit = self._options.resident_images
        if limit is not None and self._open >= limit:
            raise ResidentBudgetError(
                f"{self._open} sessions are open on this engine, each with an image on the GPU",
                expected=f"at most CudaOptions(resident_images={limit})",
                fix="close a session, or open the engine with a larger resident_images",
            )

    def _no_room(self, why: str) -> ResidentBudgetError:
        held = self._account.held()
        listed = ", ".join(f"{use} {mebibytes(held[use])}" for use in Use if held[use]) or "nothing"
        return ResidentBudgetError(
            f"there is no room on the GPU for another session beside {self._open}: {why}; this engine holds {listed}",
            expected="memory for every resident image",
            fix="close a session or another program on the GPU, or open the engine with a smaller history_block",
            command_fix="close another program on the GPU (nvidia-smi lists them)",
        )

    @call
    def memory(self) -> DeviceMemory:
        """Return what the engine and its sessions hold on the GPU.

        Raises:
            EngineError: The engine is closed, or the GPU failed.
        """
        with self._lock:
            self._check_open()
            self._cuda.activate()
            self._reclaim()
            free, total = self._cuda.memory()
            held = self._account.held()
            return DeviceMemory(
                sessions=self._open,
                resident=self._open + len(self._idle),
                weights=held[Use.WEIGHTS],
                activations=held[Use.ACTIVATIONS],
                inputs=held[Use.INPUTS],
                features=held[Use.FEATURES],
                state=held[Use.STATE],
                history=held[Use.HISTORY],
                masks=held[Use.MASKS],
                pinned=held[Use.PINNED],
                free=free,
                total=total,
            )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")

    # --- resources of sessions that end -----------------------------------------------------------------------------

    def _reclaim_later(self, resources: SessionResources) -> None:
        """Note the resources of a runner that was never closed. Runs in the garbage collector: no lock, no call."""
        self._unclosed.append(resources)

    def _release(self, resources: SessionResources) -> None:
        with self._lock:
            self._open -= 1
            try:
                if self._keep and not self._closed:
                    for buffer in resources.buffers.values():
                        buffer.invalidate()
                    resources.finisher.stop()
                    self._idle.append(resources)
                else:
                    resources.free()
            finally:
                self._finish()

    def _reclaim(self) -> None:
        while self._unclosed:
            self._release(self._unclosed.popleft())

    def close(self) -> None:
        """Release the weights, which are freed once the last runner is closed too; in a forked child, do nothing."""
        if self._own.elsewhere:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while self._unclosed:
                with suppress(CudaError):
                    self._release(self._unclosed.popleft())
            _free_all(self._idle, deque())  # the kernels last: open sessions use them
            for program in self._programs.values():
                program.close()
            self._programs = {}
            self._account.note(Use.WEIGHTS, -self._weights)
            self._finish()

    def _finish(self) -> None:
        """Unload the kernels and destroy the shared stream once the engine and all its sessions are closed."""
        if not self._closed or self._open:
            return
        self._kernels.close()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(CudaError):
                self._cuda.destroy_stream(stream)


def _free_all(
    idle: list[SessionResources], unclosed: deque[SessionResources], kernels: KernelModules | None = None
) -> None:
    """Free the resources that an engine still holds when it ends, and then its kernels."""
    while idle or unclosed:
        with suppress(EngineError):
            (idle or unclosed).pop().free()
    if kernels is not None:
        kernels.close()


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn a failure of the GPU or of a plan, while an engine is opened, into :class:`EngineUnavailableError`.

    Another engine may then take its place, with a warning.
    """
    try:
        yield
    except (CudaError, PlanBuildError, PlanError) as error:
        raise EngineUnavailableError(
            error.given, expected=error.expected, fix=error.fix, command_fix=error.command_fix
        ) from error
