"""One session's use of a CUDA engine: a click is one CUDA graph launch and one wait."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.engines.cuda.memory import Moved
from mmms_deploy.engines.cuda.resources import SessionResources
from mmms_deploy.engines.cuda.stage import CudaStage
from mmms_deploy.engines.cuda.values import BindingBuffer, Tensor
from mmms_deploy.engines.process import OwnProcess, call
from mmms_deploy.engines.protocol import Array, Finish, Value, checked_array
from mmms_deploy.errors import EngineError
from mmms_deploy.imaging.decision import Enlargement
from mmms_deploy.imaging.float16 import as_float32


def _unwatched(stage: str, stream: Any) -> AbstractContextManager[object]:
    return nullcontext()


class CudaRunner:
    """Runs stages on the resources of a session.

    Args:
        resources: The resources.
        library: Name of the library, for messages.
        check: Raises when the engine was closed.
        release: Receives the resources when the runner is closed.
        reclaim: Receives them when the runner is garbage collected without having been closed. It may be called in any
            thread, at any moment.
    """

    def __init__(
        self,
        resources: SessionResources,
        library: str,
        *,
        check: Callable[[], None],
        release: Callable[[SessionResources], None],
        reclaim: Callable[[SessionResources], None],
    ) -> None:
        self._own = OwnProcess("this session", self)
        self._resources: SessionResources | None = resources
        self._library = library
        self._check = check
        self._release = release
        # For measurements: a context that is entered while a stage is enqueued; receives its name and the stream.
        self.watch: Callable[[str, Any], AbstractContextManager[object]] = _unwatched
        # The value that pinned memory holds after a download, by the name of its binding buffer.
        self._downloaded: dict[str, weakref.ref[Tensor]] = {}
        # A session that was never closed must not keep its memory on the GPU.
        self._end = weakref.finalize(self, reclaim, resources)
        self._end.atexit = False

    def _open_resources(self) -> SessionResources:
        if self._resources is None:
            raise EngineError("this runner is closed", expected="an open runner", fix="open a new session")
        self._check()
        return self._resources

    @call
    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Keep a copy of an array of the spec's shape; the stage that reads it copies it to the GPU."""
        self._open_resources()
        return Tensor(spec, host=checked_array(spec, array))

    @property
    def prepares_images(self) -> bool:
        """Whether images and modalities are resized and normalised on the GPU."""
        return self._resources is not None and self._resources.preparation is not None

    @call
    def upload_prepared(
        self, spec: TensorSpec, array: Array, rule: ImageSpec | ModalitySpec, *, mirrored: bool = False
    ) -> Value | None:
        """Enqueue the preparation of an image or a modality on the GPU; None where the host has to prepare it.

        Does not wait for it. It waits for an earlier copy only if that may still read pinned memory that is needed now.
        """
        resources = self._open_resources()
        plan = resources.plan(spec, array, rule, mirrored=mirrored)
        if plan is None:
            return None
        tensor = Tensor(spec)
        resources.prepare(tensor, array, plan)
        return tensor

    @call
    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros of the spec's shape and dtype."""
        self._open_resources()
        return Tensor(spec, zero=True)

    @call
    def prepare(self, stage: str) -> float:
        """Do nothing: every stage is ready when a session is opened."""
        self._open_resources()
        return 0.0

    @call
    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Enqueue one run of a stage.

        Does not wait for it. It waits for an earlier run only if that may still read pinned memory that is needed now.
        """
        resources = self._open_resources()
        if stage not in resources.stages:
            raise EngineError(
                f"stage {stage!r} cannot run",
                expected=f"one of the stages {', '.join(resources.stages)}",
                fix="name one",
            )
        return self._run(resources, resources.stages[stage], inputs)

    def _run(self, resources: SessionResources, stage: CudaStage, inputs: Mapping[str, Value]) -> dict[str, Value]:
        given = [(buffer, self._fitting(stage.name, buffer, inputs[buffer.spec.name])) for buffer in stage.inputs]
        with resources.guard:
            resources.cuda.activate()
            for buffer, tensor in given:
                if buffer not in stage.uploaded:
                    if tensor.host is not None and buffer.content is not tensor:
                        self._downloaded.pop(buffer.key, None)  # its pinned memory is written to
                    resources.move_to(buffer, tensor)
                elif buffer.pinned is not None and (tensor.host is not None or tensor.zero):
                    resources.write(tensor, buffer.pinned)
                else:
                    self._write_from_gpu(resources, tensor, buffer)
            resources.save(stage.overwritten)
            for buffer in (*stage.uploaded, *stage.overwritten):
                buffer.invalidate()
            for buffer in (*stage.uploaded, *stage.downloaded):
                self._downloaded.pop(buffer.key, None)
                if buffer.pinned is not None:
                    buffer.pinned.busy = True
            if stage.finishes:
                resources.finisher.forget()
                resources.finisher.busy = True
                resources.moved.down += resources.finisher.nbytes
            with self.watch(stage.name, resources.stream):
                stage.run()
            resources.moved.up += sum(buffer.spec.nbytes for buffer in stage.uploaded)
            resources.moved.down += sum(buffer.spec.nbytes for buffer in stage.downloaded)
        return self._outputs(stage, resources)

    def _fitting(self, name: str, buffer: BindingBuffer, value: Value) -> Tensor:
        spec = buffer.spec
        if not isinstance(value, Tensor) or (value.spec.dtype, value.spec.shape) != (spec.dtype, spec.shape):
            given = f"{value.spec.dtype} {value.spec.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(
                f"{self._library} failed in stage {name!r}: {spec.name} is {given}",
                expected=f"a value of this session, {spec.dtype} {spec.shape}",
                fix="report it: stages are joined by the bundle",
            )
        return value

    def _write_from_gpu(self, resources: SessionResources, tensor: Tensor, buffer: BindingBuffer) -> None:
        """Write a value that is on the GPU to pinned memory: rare, because clicks come from the host."""
        resources.write(Tensor(buffer.spec, host=self._array(resources, tensor)), buffer.pinned)  # type: ignore[arg-type]

    def _outputs(self, stage: CudaStage, resources: SessionResources) -> dict[str, Value]:
        outputs: dict[str, Value] = {}
        for buffer in stage.outputs:
            tensor = Tensor(buffer.spec)
            buffer.hold(tensor)
            for source, target in stage.state_links:
                if source is buffer:
                    target.hold(tensor)
            if buffer in stage.downloaded:
                self._downloaded[buffer.key] = weakref.ref(tensor)
            outputs[buffer.spec.name] = tensor
            if buffer is stage.answer and stage.finishes:
                resources.finisher.hold(tensor)
        return outputs

    @call
    def download(self, value: Value) -> Array:
        """Wait for a value and return a copy, bfloat16 as float32.

        The answer to a click needs no further copy from the GPU: its stage copies it to the host.
        """
        return self._download(value)

    @call
    def download_float32(self, value: Value) -> npt.NDArray[np.float32]:
        """Wait for a value and return its numbers as float32.

        An answer in float16 is converted straight from pinned memory, without a copy in between.
        """
        return self._download(value, wide=True)

    def _download(self, value: Value, *, wide: bool = False) -> Array:
        resources = self._open_resources()
        if not isinstance(value, Tensor):
            raise EngineError(
                f"{type(value).__name__} cannot be downloaded", expected="a value of this session", fix="report it"
            )
        with resources.guard:
            resources.cuda.activate()
            return self._array(resources, value, wide=wide)

    def _array(self, resources: SessionResources, tensor: Tensor, *, wide: bool = False) -> Array:
        """Return a value as an array of its own: bfloat16 as float32, and with ``wide`` float16 too."""
        spec = tensor.spec
        if tensor.host is not None:
            return as_float32(tensor.host.copy()) if wide else tensor.host.copy()
        # NumPy has no bfloat16, which is the upper half of a float32.
        upper = spec.dtype == "bfloat16"
        if tensor.zero:
            return np.zeros(spec.shape, dtype=np.float32 if wide or upper else np.dtype(spec.dtype))
        found, pinned = self._fetched(resources, tensor)
        array = found.view(np.uint16 if upper else np.dtype(spec.dtype)).reshape(spec.shape)
        if upper:
            return (array.astype(np.uint32) << 16).view(np.float32)
        other = as_float32(array) if wide else array
        # The next run writes to pinned memory.
        return other.copy() if pinned and other is array else other

    def _fetched(self, resources: SessionResources, tensor: Tensor) -> tuple[npt.NDArray[np.uint8], bool]:
        """Return the bytes of a value on the GPU, and whether they are in pinned memory, where others follow."""
        spec = tensor.spec
        key = resources.key(spec)
        buffer = resources.buffers.get(key)
        if buffer is None or buffer.pinned is None:
            array = np.empty(spec.nbytes, dtype=np.uint8)
            resources.moved.down += spec.nbytes
            resources.cuda.download(array.ctypes.data, resources.address_of(tensor), spec.nbytes, resources.stream)
            resources.wait()
            return array, False
        downloaded = self._downloaded.get(key)
        if downloaded is None or downloaded() is not tensor:
            if buffer.pinned.busy:
                resources.wait()
            self._downloaded.pop(key, None)
            buffer.pinned.busy = True
            resources.moved.down += spec.nbytes
            source = resources.address_of(tensor)
            resources.cuda.download(buffer.pinned.address, source, spec.nbytes, resources.stream)
            self._downloaded[key] = weakref.ref(tensor)
        if buffer.pinned.busy:
            self._wait_for(resources, key)
        return buffer.pinned.array, True

    def _wait_for(self, resources: SessionResources, key: str) -> None:
        try:
            resources.wait()
        except EngineError:
            # The bytes that arrived may be wrong.
            self._downloaded.pop(key, None)
            raise

    @call
    def expect(self, finish: Finish) -> bool:
        """Make a mask of the answer in every click from now on, in its CUDA graph."""
        resources = self._open_resources()
        with resources.guard:
            resources.cuda.activate()
            resources.finisher.refused = None  # there may be memory by now
            return resources.expect(finish)

    @call
    def finished(self, value: Value, finish: Finish) -> npt.NDArray[np.bool_] | None:
        """Wait for an answer's mask and return it.

        That of the newest answer is on its way to the host already. For an earlier one, which is kept on the GPU, the
        kernel runs again, and no network.
        """
        resources = self._open_resources()
        finisher = resources.finisher
        if not isinstance(value, Tensor) or value.host is not None or value.zero:
            return None
        with resources.guard:
            resources.cuda.activate()
            if not resources.expect(finish) or not finisher.fits(value.spec):
                return None
            if not finisher.holds(value):
                if finisher.busy:
                    resources.wait()
                finisher.forget()
                finisher.busy = True
                resources.moved.down += finisher.nbytes
                finisher.enqueue(resources.address_of(value), value.spec.dtype)
                finisher.hold(value)
            if finisher.busy:
                try:
                    resources.wait()
                except EngineError:
                    finisher.forget()  # the bits that arrived may be wrong
                    raise
            return finisher.mask()

    @call
    def expect_labels(self, how: Enlargement, shape: tuple[int, int, int]) -> bool:
        """Get ready to decide between so many maps, so that no click has to."""
        resources = self._open_resources()
        with resources.guard:
            resources.cuda.activate()
            resources.decider.rows = shape[0]
            resources.decider.refused = None  # there may be memory by now
            return resources.expect_labels(how, shape)

    @call
    def decided(
        self, planes: npt.NDArray[np.float32], owners: npt.NDArray[np.uint8], how: Enlargement
    ) -> npt.NDArray[np.uint8] | None:
        """Decide between maps that are on the host, and wait for it. Nothing of them stays on the GPU."""
        resources = self._open_resources()
        count, height, width = planes.shape
        with resources.guard:
            resources.cuda.activate()
            if not resources.expect_labels(how, (count, height, width)):
                return None
            return resources.decider.decide(planes, owners, how, resources.moved)

    @call
    def detach(self, value: Value) -> Value:
        """Copy a value to memory of its own, where no stage writes, and wait for the copy.

        Other runners copy it from there to their own buffers. The memory is freed after its last handle is gone, and at
        the latest with this runner's.
        """
        resources = self._open_resources()
        if not isinstance(value, Tensor):
            raise EngineError(
                f"{type(value).__name__} cannot be shared", expected="a value of this session", fix="report it"
            )
        with resources.guard:
            resources.cuda.activate()
            resources.detach(value)
        return value

    def take_moved(self) -> Moved:
        """Return how many bytes were copied between the host and the GPU since the last call."""
        resources = self._open_resources()
        moved, resources.moved = resources.moved, Moved()
        return moved

    @property
    def is_cuda_graph(self) -> bool:
        """Whether a click is one CUDA graph."""
        return all(stage.is_cuda_graph for stage in self._open_resources().stages.values() if stage.uploaded)

    @call
    def synchronize(self) -> None:
        """Wait until all enqueued operations are done."""
        resources = self._open_resources()
        with resources.guard:
            resources.cuda.activate()
            resources.wait()

    def close(self) -> None:
        """Free what this session holds on the GPU. Safe to call twice; in a forked child it does nothing."""
        if self._own.elsewhere:
            return
        resources, self._resources = self._resources, None
        self._downloaded = {}
        if resources is not None:
            self._end.detach()
            self._release(resources)
