"""What one session holds on the GPU: a stream, buffers for all tensors, pinned memory, executors, its CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from types import MappingProxyType
from typing import Any

from mmms_deploy.bundle import Role, TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.engines.cuda.decider import LabelDecider
from mmms_deploy.engines.cuda.executor import Program
from mmms_deploy.engines.cuda.finisher import AnswerFinisher, answer_of
from mmms_deploy.engines.cuda.images.plan import Plan, plan_for
from mmms_deploy.engines.cuda.images.preparation import ImageKernels, ImagePreparation
from mmms_deploy.engines.cuda.kernels.module import Kernel
from mmms_deploy.engines.cuda.layout import Layout
from mmms_deploy.engines.cuda.memory import (
    Account,
    DetachedBuffers,
    Moved,
    PinnedBuffer,
    SpareBufferPool,
    Use,
    aligned,
)
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import OUT_OF_MEMORY, Cuda
from mmms_deploy.engines.cuda.stage import CudaStage
from mmms_deploy.engines.cuda.values import BindingBuffer, Tensor
from mmms_deploy.engines.protocol import Array, Finish
from mmms_deploy.errors import CudaError, EngineError, MMMSDeployWarning, ResidentBudgetError
from mmms_deploy.imaging.decision import Enlargement


class SessionResources:
    """One session's resources on the GPU. Used by one thread at a time.

    Args:
        cuda: The GPU.
        account: Allocates memory.
        layout: The tensors to allocate.
        programs: The programs, by stage.
        options: Settings.
        stream: The stream to use, which the caller owns; None to create one.
        guard: Entered while operations are enqueued on the stream; needed when other sessions use the stream too.
        capture: Whether to capture the click stage as a CUDA graph.
        preparing: The kernels that prepare images; None where the processor does.
        finishing: The kernels that make masks of answers, by the answer's dtype; none where the processor makes them.
        deciding: The kernel that decides between objects; None where the processor does.

    Raises:
        EngineError: They cannot be created; nothing is left behind.
    """

    def __init__(
        self,
        cuda: Cuda,
        account: Account,
        layout: Layout,
        programs: Mapping[str, Program],
        options: CudaOptions,
        *,
        stream: Any = None,
        guard: AbstractContextManager[Any] | None = None,
        capture: bool = True,
        preparing: ImageKernels | None = None,
        finishing: Mapping[str, Kernel] = MappingProxyType({}),
        deciding: Kernel | None = None,
    ) -> None:
        self.cuda = cuda
        self.guard: AbstractContextManager[Any] = nullcontext() if guard is None else guard
        self.moved = Moved()
        self._account = account
        self._layout = layout
        self._strict = options.strict
        self._cleanup = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._free_after_error)
            if stream is None:
                stream = cuda.create_stream()
                self._cleanup.callback(cuda.destroy_stream, stream)
            self.stream = stream
            self.buffers = self._allocate_buffers()
            history = layout.blocks(options.history_block)
            self.preparation: ImagePreparation | None = None
            if preparing is not None and layout.pictures:
                self.preparation = ImagePreparation(cuda, preparing, account, stream, self.guard, self._cleanup)
            saved = layout.saved(prepare=self.preparation is not None)
            self.spare_buffers = SpareBufferPool(account, self._cleanup, history, saved)
            self.spare_buffers.reserve()
            self.detached = DetachedBuffers(account, self._cleanup)
            self.finisher = AnswerFinisher(cuda, account, finishing, stream, self.wait, self._cleanup)
            self.decider = LabelDecider(cuda, account, deciding, stream, self.wait, self._cleanup)
            self.stages = self._create_stages(programs, options, capture)
            # Added last, so that it runs first: nothing is freed that the GPU may still use.
            self._cleanup.callback(self._wait_for_pending)
            # The image stage too: at their first run, libraries load kernels and search for the fastest, for seconds.
            self._warm_up_preparation()
            for stage in self.stages.values():
                stage.warm_up()
            self.wait()
            on_error.pop_all()

    def _allocate_buffers(self) -> dict[str, BindingBuffer]:
        layout, buffers = self._layout, {}
        on_host = {name: layout.tensors[name] for name in layout.host_inputs | layout.downloaded}
        total = sum(aligned(spec.nbytes) for spec in on_host.values())
        address = self._account.allocate_host(total) if on_host else 0
        if on_host:
            self._cleanup.callback(self._account.free_host, address, total)
        pinned: dict[str, PinnedBuffer] = {}
        for name in sorted(on_host):
            pinned[name] = PinnedBuffer(address, on_host[name].nbytes)
            address += aligned(on_host[name].nbytes)
        for use in (Use.INPUTS, Use.FEATURES, Use.STATE):
            nbytes = layout.nbytes(use)
            if not nbytes:
                continue
            address = self._account.allocate(use, nbytes)
            self._cleanup.callback(self._account.free, use, address, nbytes)
            # New memory may hold bytes that are no numbers, and the warm-up reads all of it.
            self.cuda.clear(address, nbytes, self.stream)
            for spec in layout.of(use):
                key = layout.key(spec)
                buffers[key] = BindingBuffer(spec, address, pinned.get(key), key)
                # A value may outlive the session: nothing reads it where it was.
                self._cleanup.callback(buffers[key].invalidate)
                address += aligned(spec.nbytes)
        for name in sorted(layout.host_inputs):
            pinned[name].array[:] = 0
        return buffers

    def _create_stages(
        self, programs: Mapping[str, Program], options: CudaOptions, capture: bool
    ) -> dict[str, CudaStage]:
        layout, buffers, stages = self._layout, self.buffers, {}
        scratch = 0
        if any(program.device_memory for program in programs.values()):
            scratch = self._account.allocate(Use.ACTIVATIONS, layout.activations)
            self._cleanup.callback(self._account.free, Use.ACTIVATIONS, scratch, layout.activations)
        for name, graph in layout.graphs.items():
            executor = programs[name].executor()
            with ExitStack() as on_error:
                on_error.callback(executor.close)
                if programs[name].device_memory:
                    executor.set_scratch(scratch)
                click = name in layout.click_stages
                answer = answer_of(graph) if click else None
                stage = CudaStage(
                    name,
                    self.cuda,
                    self.stream,
                    executor,
                    inputs=tuple(buffers[layout.key(spec)] for spec in graph.inputs),
                    outputs=tuple(buffers[layout.key(spec)] for spec in graph.outputs),
                    uploaded=tuple(
                        buffers[layout.key(spec)] for spec in graph.inputs if click and spec.role is Role.CLICK
                    ),
                    state_links=tuple(
                        (buffers[source], buffers[target])
                        for source, target in layout.state_links
                        if source in {spec.name for spec in graph.outputs}
                    ),
                    downloaded=tuple(
                        buffers[layout.key(spec)] for spec in graph.outputs if layout.key(spec) in layout.downloaded
                    ),
                    options=options,
                    cuda_graph=click and capture and options.cuda_graph,
                    answer=None if answer is None else buffers[layout.key(answer)],
                    finisher=self.finisher,
                )
                on_error.pop_all()
            self._cleanup.callback(stage.close)
            stages[name] = stage
        return stages

    def _warm_up_preparation(self) -> None:
        """Run the kernels once: the driver loads each at its first launch."""
        if self.preparation is None:
            return
        for spec in self._layout.pictures:
            self.preparation.warm_up(spec, self.buffers[self.key(spec)].address)

    def key(self, spec: TensorSpec) -> str:
        """Return what a tensor of a stage is called in ``buffers``."""
        return self._layout.key(spec)

    # --- for the runner ---------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until all enqueued operations are done; no pinned memory is busy afterwards."""
        self.cuda.synchronize(self.stream)
        for buffer in self.buffers.values():
            if buffer.pinned is not None:
                buffer.pinned.busy = False
        self.finisher.busy = False
        self.decider.settled()

    def expect(self, finish: Finish) -> bool:
        """Make masks of answers from now on; the CUDA graphs of clicks are recorded anew where they were others.

        Returns:
            Whether they are made; not where there are no kernels, or no memory.

        Raises:
            CudaError: The GPU failed; no mask is made then, or the next run records its CUDA graph itself.
            ResidentBudgetError: There is no memory for it, and the engine is strict.

        Warns:
            MMMSDeployWarning: There is no memory for it.
        """
        finisher = self.finisher
        if finisher.finish == finish:
            return True
        answer = next((stage.answer for stage in self.stages.values() if stage.answer is not None), None)
        if answer is None or finisher.refused == finish or not finisher.kernels:
            return False
        height, width = answer.spec.shape[2:]
        try:
            finisher.expect(finish, (height, width))
        except (ResidentBudgetError, CudaError) as error:
            self._without_memory("masks", finish.size, error)
            finisher.refused = finish
        else:
            finisher.refused = None
            self.moved.up += finisher.uploaded
        for stage in self.stages.values():
            stage.record()
        return finisher.finish is not None

    def expect_labels(self, how: Enlargement, shape: tuple[int, int, int]) -> bool:
        """Have memory, and what else it takes, to decide between maps.

        Returns:
            Whether the GPU decides; not where there is no kernel, or no memory.

        Raises:
            CudaError: The GPU failed.
            ResidentBudgetError: There is no memory for it, and the engine is strict.

        Warns:
            MMMSDeployWarning: There is no memory for it.
        """
        decider = self.decider
        if decider.kernel is None:
            return False
        room = decider.room(how, shape)
        if decider.refused is not None and room >= decider.refused:
            return False
        try:
            decider.expect(how, shape, self.moved)
        except (ResidentBudgetError, CudaError) as error:
            self._without_memory("label maps", how.size, error)
            decider.refused = room
            return False
        return True

    def _without_memory(self, what: str, size: tuple[int, int], error: ResidentBudgetError | CudaError) -> None:
        """Say that the CPU makes something; raise the error where that is not allowed, or is no lack of memory."""
        if self._strict or (isinstance(error, CudaError) and error.code != OUT_OF_MEMORY):
            raise error
        warnings.warn(
            f"{what} of {size[1]} x {size[0]} pixels are made on the CPU and not on the GPU: {error.given}",
            MMMSDeployWarning,
            stacklevel=3,
        )

    def save(self, buffers: Collection[BindingBuffer]) -> None:
        """Copy values in use to spare buffers, where these buffers, about to be overwritten, hold the last copy.

        Raises:
            EngineError: There is no memory for it, or the copy was refused; every value is where it was.
        """
        for buffer in buffers:
            tensor = buffer.content
            if tensor is None or not tensor.lost_with(buffers):
                continue
            self._spare(tensor, buffer.address, self.spare_buffers)

    def detach(self, tensor: Tensor) -> None:
        """Copy a value to memory of its own, unless it is there or can be made again without the GPU.

        Waits for the GPU, and frees the memory of detached values that are gone.

        Raises:
            EngineError: There is no memory for it, or the copy was refused; the value is where it was.
        """
        self.wait()
        self.detached.trim()
        if tensor.host is None and not tensor.zero and tensor.spare is None:
            self._spare(tensor, self.address_of(tensor), self.detached)
            self.wait()

    def plan(self, spec: TensorSpec, array: Array, rule: ImageSpec | ModalitySpec, *, mirrored: bool) -> Plan | None:
        """Return how the GPU prepares an image or a modality; None where the host has to."""
        if self.preparation is None or spec not in self._layout.pictures:
            return None
        plan = plan_for(array, rule, (spec.shape[2], spec.shape[3]), mirrored=mirrored)
        return plan if plan is not None and plan.channels == spec.shape[1] else None

    def prepare(self, tensor: Tensor, array: Array, plan: Plan) -> None:
        """Enqueue the preparation of an image or a modality, into the buffer of the stages that read it.

        Raises:
            EngineError: There is no memory for the value before, or it was refused; that value is still there.
        """
        assert self.preparation is not None
        buffer = self.buffers[self.key(tensor.spec)]
        with self.guard:
            self.cuda.activate()
            self.save((buffer,))
            buffer.invalidate()
        self.moved.up += self.preparation.prepare(array, plan, buffer.address)
        buffer.hold(tensor)

    def _spare(self, tensor: Tensor, address: int, pool: SpareBufferPool | DetachedBuffers) -> None:
        nbytes = tensor.spec.nbytes
        spare = pool.acquire(nbytes)
        try:
            self.cuda.copy(spare.address, address, nbytes, self.stream)
        except BaseException:
            spare.release()
            raise
        tensor.spare = spare

    def move_to(self, buffer: BindingBuffer, tensor: Tensor) -> None:
        """Make a binding buffer hold a value.

        Raises:
            EngineError: It was refused; the buffer holds no value then.
        """
        if buffer.content is tensor:
            return
        self.save((buffer,))
        buffer.invalidate()
        nbytes = buffer.spec.nbytes
        if tensor.host is not None:
            self.moved.up += nbytes
            if buffer.pinned is None:
                self.cuda.upload(buffer.address, tensor.host.ctypes.data, nbytes, self.stream)
                self.wait()  # the host memory may be gone afterwards
            else:
                self.write(tensor, buffer.pinned)
                buffer.pinned.busy = True
                self.cuda.upload(buffer.address, buffer.pinned.address, nbytes, self.stream)
        elif tensor.zero:
            self.cuda.clear(buffer.address, nbytes, self.stream)
        else:
            self.cuda.copy(buffer.address, self.address_of(tensor), nbytes, self.stream)
            if tensor.spare is not None and tensor.spare.owner is not self.spare_buffers:
                self.wait()  # another session frees it, or uses it again, and knows nothing of this stream
        buffer.hold(tensor)

    def write(self, tensor: Tensor, pinned: PinnedBuffer) -> None:
        """Write a value from the host, or zeros, to pinned memory; waits first if the GPU may still use that memory."""
        if pinned.busy:
            self.wait()
        if tensor.host is None:
            pinned.array[:] = 0
        else:
            pinned.array[:] = tensor.host.reshape(-1).view("uint8")

    def address_of(self, tensor: Tensor) -> int:
        """Return the address of a value on the GPU.

        Raises:
            EngineError: It is not there any more, because the operation that overwrote it failed halfway.
        """
        address = tensor.address
        if address is None:
            raise EngineError(
                f"the value of {tensor.spec.name} is not on the GPU any more",
                expected="a value of this session that was not lost when a stage failed, or of an open model",
                fix="set the image again; of encoded images, close the model last",
            )
        return address

    # --- the end ----------------------------------------------------------------------------------------------------

    def _wait_for_pending(self) -> None:
        with suppress(CudaError):
            self.cuda.synchronize(self.stream)

    def _free_after_error(self) -> None:
        """Free what was allocated so far and ignore errors; the caller sees the error that led here."""
        with suppress(EngineError):
            self.free()

    def free(self) -> None:
        """Free everything, whatever else fails. Safe to call twice.

        Raises:
            CudaError: Something could not be freed.
        """
        with self.guard:
            try:
                self.cuda.activate()
            finally:
                self._cleanup.close()
