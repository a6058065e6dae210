"""An engine on the GPU, whatever library executes its stages: seats for sessions, their budget, and their account."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from mmms_deploy.bundle import Bundle, StageGraph
from mmms_deploy.engines.base import EngineBase
from mmms_deploy.engines.cuda.executor import Program
from mmms_deploy.engines.cuda.layout import lay_out
from mmms_deploy.engines.cuda.memory import Account, DeviceMemory, Use, mebibytes
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.resources import Seat
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.engines.cuda.runtime import OUT_OF_MEMORY, Cuda
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.errors import (
    CudaError,
    EngineError,
    EngineUnavailableError,
    PlanBuildError,
    PlanError,
    ResidentBudgetError,
)

_HEADROOM = 64 << 20
"""Free bytes that opening a session leaves to the libraries, which allocate for themselves too."""


class CudaEngine(EngineBase):
    """Executes stages on one GPU; the libraries' engines derive from it.

    Args:
        bundle: The bundle.
        graphs: The graph of every stage, by name, in the order of the manifest.
        programs: What executes it. The engine closes them.
        info: What the engine is.
        cuda: The GPU.
        options: Settings.
        stream: The one stream on which the library executes, which the engine destroys; None when it takes any, so that
            every session has its own.
        keep_seats: Whether a seat is kept for the next session, because the library cannot forget its addresses.
        record: Whether to make a click one CUDA graph of ours.

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
        keep_seats: bool = False,
        record: bool = True,
    ) -> None:
        self._bundle = bundle
        self._graphs = dict(graphs)
        self._info = info
        self._layout = lay_out(bundle, graphs, programs)
        self._programs = dict(programs)
        self._cuda = cuda
        self._options = options
        self._account = Account(cuda, options.memory_limit)
        self._weights = sum(program.weights for program in programs.values())
        self._account.note(Use.WEIGHTS, self._weights)
        self._stream = stream
        self._guard = nullcontext() if stream is None else threading.RLock()
        self._keep = keep_seats
        self._record = record
        self._lock = threading.RLock()
        self._open = 0
        self._closed = False
        self._idle: list[Seat] = []
        self._abandoned: deque[Seat] = deque()
        self._end = weakref.finalize(self, _free_all, self._idle, self._abandoned)
        self._end.atexit = False

    @property
    def options(self) -> CudaOptions:
        """How it works."""
        return self._options

    @property
    def cuda(self) -> Cuda:
        """The GPU that it works on."""
        return self._cuda

    def open(self) -> CudaRunner:
        """Return a new runner, for one session, ready to answer without delay.

        Raises:
            EngineError: The engine is closed, or the GPU failed.
            ResidentBudgetError: There is no room for another resident image.

        Warns:
            MMMSDeployWarning: A click cannot be one CUDA graph.
        """
        with self._lock:
            self._check_open()
            self._cuda.activate()
            self._sweep()
            self._check_count()
            seat = self._idle.pop() if self._idle else self._new_seat()
            self._open += 1
        return CudaRunner(
            seat, self._info.library, check=self._check_open, retire=self._retire, abandon=self._abandoned_seat
        )

    def _new_seat(self) -> Seat:
        needed = self._layout.session_bytes(self._options.history_block)
        free, total = self._cuda.memory()
        if free < needed + _HEADROOM:
            raise self._no_room(
                f"it takes {mebibytes(needed)}, {mebibytes(_HEADROOM)} have to stay free for the libraries, and"
                f" {mebibytes(free)} of {mebibytes(total)} are free"
            )
        try:
            with self._guard:
                return Seat(
                    self._cuda,
                    self._account,
                    self._layout,
                    self._programs,
                    self._options,
                    stream=self._stream,
                    guard=self._guard,
                    record=self._record,
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
        )

    def memory(self) -> DeviceMemory:
        """Return what the engine and its sessions hold on the GPU.

        Raises:
            EngineError: The engine is closed, or the GPU failed.
        """
        with self._lock:
            self._check_open()
            self._cuda.activate()
            self._sweep()
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
                pinned=held[Use.PINNED],
                free=free,
                total=total,
            )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")

    # --- seats that come back ---------------------------------------------------------------------------------------

    def _abandoned_seat(self, seat: Seat) -> None:
        """Take the seat of a runner that nobody closed. Runs in the garbage collector: no lock, no call."""
        self._abandoned.append(seat)

    def _retire(self, seat: Seat) -> None:
        with self._lock:
            self._open -= 1
            try:
                if self._keep and not self._closed:
                    for home in seat.homes.values():
                        home.forget()
                    self._idle.append(seat)
                else:
                    seat.free()
            finally:
                self._finish()

    def _sweep(self) -> None:
        while self._abandoned:
            self._retire(self._abandoned.popleft())

    def close(self) -> None:
        """Let go of the weights; they are freed when the last runner is closed too."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while self._abandoned:
                with suppress(CudaError):
                    self._retire(self._abandoned.popleft())
            _free_all(self._idle, deque())
            for program in self._programs.values():
                program.close()
            self._programs = {}
            self._account.note(Use.WEIGHTS, -self._weights)
            self._finish()

    def _finish(self) -> None:
        """Destroy the stream when nobody can use it any more."""
        if self._closed and not self._open and self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(CudaError):
                self._cuda.destroy_stream(stream)


def _free_all(idle: list[Seat], abandoned: deque[Seat]) -> None:
    """Free what an engine that nobody closed still holds."""
    while idle or abandoned:
        with suppress(EngineError):
            (idle or abandoned).pop().free()


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn a failure of the GPU or of a plan while an engine is opened into :class:`EngineUnavailableError`.

    Another engine may then be taken in its place, aloud.
    """
    try:
        yield
    except (CudaError, PlanBuildError, PlanError) as error:
        raise EngineUnavailableError(error.given, expected=error.expected, fix=error.fix) from error
