"""One session's use of a CUDA engine: values in homes and slots, one graph launch and one wait a click."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from mmms_deploy.bundle import TensorSpec
from mmms_deploy.engines.cuda.resources import Moved, Seat
from mmms_deploy.engines.cuda.values import Home, Tensor
from mmms_deploy.engines.protocol import Array, Value, checked_array
from mmms_deploy.errors import EngineError


def _unwatched(stage: str, stream: Any) -> AbstractContextManager[object]:
    return nullcontext()


class CudaRunner:
    """Runs stages on a seat.

    Args:
        seat: Where.
        library: Name of the library, for messages.
        check: Raises when the engine was closed.
        retire: Takes the seat when the runner is closed.
        abandon: Takes it when nobody closed the runner and it is garbage collected, in any thread, in the middle of
            anything.
    """

    def __init__(
        self,
        seat: Seat,
        library: str,
        *,
        check: Callable[[], None],
        retire: Callable[[Seat], None],
        abandon: Callable[[Seat], None],
    ) -> None:
        self._seat: Seat | None = seat
        self._library = library
        self._check = check
        self._retire = retire
        # For measurements: what is entered while a stage is asked for, given its name and the session's stream.
        self.watch: Callable[[str, Any], AbstractContextManager[object]] = _unwatched
        # The answer that lies in pinned memory, by the name of its home.
        self._fetched: dict[str, weakref.ref[Tensor]] = {}
        # A session that nobody closed must not keep its memory on the GPU.
        self._end = weakref.finalize(self, abandon, seat)
        self._end.atexit = False

    def _open_seat(self) -> Seat:
        if self._seat is None:
            raise EngineError("this runner is closed", expected="an open runner", fix="open a new session")
        self._check()
        return self._seat

    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Keep a copy of an array of the spec's shape; it goes to the GPU with the stage that reads it."""
        self._open_seat()
        return Tensor(spec, host=checked_array(spec, array))

    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros of the spec's shape and dtype."""
        self._open_seat()
        return Tensor(spec, zero=True)

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Ask for one run of a stage; does not wait for it, unless what it is fed with still waits to be read."""
        seat = self._open_seat()
        if stage not in seat.stages:
            raise EngineError(
                f"stage {stage!r} cannot run", expected=f"one of the stages {', '.join(seat.stages)}", fix="name one"
            )
        plan = seat.stages[stage]
        given = [(home, self._fitting(stage, home, inputs[home.spec.name])) for home in plan.inputs]
        with seat.guard:
            seat.cuda.activate()
            for home, tensor in given:
                if home in plan.fed and home.pinned is not None and (tensor.host is not None or tensor.zero):
                    seat.write(tensor, home.pinned)
                elif home in plan.fed:
                    self._feed(seat, tensor, home)
                else:
                    seat.bring(tensor, home)
            seat.save(plan.overwritten)
            for home in (*plan.fed, *plan.overwritten):
                home.forget()
            for home in (*plan.fed, *plan.fetched):
                self._fetched.pop(home.spec.name, None)
                if home.pinned is not None:
                    home.pinned.busy = True
            with self.watch(stage, seat.stream):
                plan.run()
            seat.moved.up += sum(home.spec.nbytes for home in plan.fed)
            seat.moved.down += sum(home.spec.nbytes for home in plan.fetched)
        return self._outputs(seat, stage)

    def _fitting(self, stage: str, home: Home, value: Value) -> Tensor:
        spec = home.spec
        if not isinstance(value, Tensor) or (value.spec.dtype, value.spec.shape) != (spec.dtype, spec.shape):
            given = f"{value.spec.dtype} {value.spec.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(
                f"{self._library} failed in stage {stage!r}: {spec.name} is {given}",
                expected=f"a value of this session, {spec.dtype} {spec.shape}",
                fix="report it: stages are joined by the bundle",
            )
        return value

    def _feed(self, seat: Seat, tensor: Tensor, home: Home) -> None:
        """Feed a value that is on the GPU through the host: rare, because clicks come from the host."""
        seat.write(Tensor(home.spec, host=self._array(seat, tensor)), home.pinned)  # type: ignore[arg-type]

    def _outputs(self, seat: Seat, stage: str) -> dict[str, Value]:
        plan = seat.stages[stage]
        outputs: dict[str, Value] = {}
        for home in plan.outputs:
            tensor = Tensor(home.spec)
            home.put(tensor)
            for source, target in plan.links:
                if source is home:
                    target.put(tensor)
            if home in plan.fetched:
                self._fetched[home.spec.name] = weakref.ref(tensor)
            outputs[home.spec.name] = tensor
        return outputs

    def download(self, value: Value) -> Array:
        """Wait for a value and return a copy, bfloat16 as float32; the answer to a click is on the host by then."""
        seat = self._open_seat()
        if not isinstance(value, Tensor):
            raise EngineError(
                f"{type(value).__name__} cannot be downloaded", expected="a value of this session", fix="report it"
            )
        with seat.guard:
            seat.cuda.activate()
            return self._array(seat, value)

    def _array(self, seat: Seat, tensor: Tensor) -> Array:
        if tensor.host is not None:
            return tensor.host.copy()
        if tensor.spec.dtype != "bfloat16":
            array = np.zeros(tensor.spec.shape, dtype=np.dtype(tensor.spec.dtype))
            self._fill(seat, tensor, array)
            return array
        # NumPy has no such type: the upper half of a float32.
        upper = np.zeros(tensor.spec.shape, dtype=np.uint16)
        self._fill(seat, tensor, upper)
        return (upper.astype(np.uint32) << 16).view(np.float32)

    def _fill(self, seat: Seat, tensor: Tensor, array: Array) -> None:
        """Write a value to an array of zeros."""
        spec = tensor.spec
        if tensor.zero:
            return
        home = seat.homes.get(spec.name)
        if home is None or home.pinned is None:
            seat.moved.down += spec.nbytes
            seat.cuda.download(array.ctypes.data, seat.whereabouts(tensor), spec.nbytes, seat.stream)
            seat.wait()
            return
        fetched = self._fetched.get(spec.name)
        if fetched is None or fetched() is not tensor:
            if home.pinned.busy:
                seat.wait()
            self._fetched.pop(spec.name, None)
            home.pinned.busy = True
            seat.moved.down += spec.nbytes
            seat.cuda.download(home.pinned.address, seat.whereabouts(tensor), spec.nbytes, seat.stream)
            self._fetched[spec.name] = weakref.ref(tensor)
        if home.pinned.busy:
            self._wait_for(seat, spec.name)
        array.reshape(-1).view(np.uint8)[:] = home.pinned.array

    def _wait_for(self, seat: Seat, name: str) -> None:
        try:
            seat.wait()
        except EngineError:
            # What arrived is not to be trusted.
            self._fetched.pop(name, None)
            raise

    def take_moved(self) -> Moved:
        """Return what was moved between the host and the GPU since the last call."""
        seat = self._open_seat()
        moved, seat.moved = seat.moved, Moved()
        return moved

    @property
    def is_graph(self) -> bool:
        """Whether a click is one CUDA graph."""
        return all(stage.is_graph for stage in self._open_seat().stages.values() if stage.fed)

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""
        seat = self._open_seat()
        with seat.guard:
            seat.cuda.activate()
            seat.wait()

    def close(self) -> None:
        """Free what this session holds on the GPU. Safe to call twice."""
        seat, self._seat = self._seat, None
        self._fetched = {}
        if seat is not None:
            self._end.detach()
            self._retire(seat)
