"""What one session holds on the GPU: a stream, homes for all tensors, pinned memory, executors, the click's graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from mmms_deploy.bundle import Role
from mmms_deploy.engines.cuda.executor import Program
from mmms_deploy.engines.cuda.layout import Layout
from mmms_deploy.engines.cuda.memory import Account, Pinned, SlotPool, Use, aligned
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.cuda.stage import CudaStage
from mmms_deploy.engines.cuda.values import Home, Tensor
from mmms_deploy.errors import CudaError, EngineError


@dataclass
class Moved:
    """Bytes that a session's runner moved between the host and the GPU since it was asked last.

    Attributes:
        up: To the GPU.
        down: From it.
    """

    up: int = 0
    down: int = 0


class Seat:
    """A session's place on the GPU. Used by one thread at a time.

    Args:
        cuda: The GPU.
        account: Where memory comes from.
        layout: What has to be there.
        programs: What executes the stages, by name.
        options: Settings.
        stream: The stream to use, which somebody else owns; None for one of its own.
        guard: Held while something is asked of the stream; needed when others use the stream too.
        record: Whether the click stage becomes a CUDA graph of ours.

    Raises:
        EngineError: It cannot be made; nothing is left behind.
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
        record: bool = True,
    ) -> None:
        self.cuda = cuda
        self.guard: AbstractContextManager[Any] = nullcontext() if guard is None else guard
        self.moved = Moved()
        self._account = account
        self._layout = layout
        self._resources = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._abandon)
            if stream is None:
                stream = cuda.create_stream()
                self._resources.callback(cuda.destroy_stream, stream)
            self.stream = stream
            self.homes = self._settle()
            self.slots = SlotPool(account, self._resources, layout.blocks(options.history_block), layout.spare)
            self.slots.reserve()
            self.stages = self._stages(programs, options, record)
            # Pushed last, so that it comes first: nothing is freed that the GPU may still use.
            self._resources.callback(self._drain)
            # The image's too: libraries load kernels and look for the fastest at the first run, which takes seconds.
            for stage in self.stages.values():
                stage.warm_up()
            self.wait()
            on_error.pop_all()

    def _settle(self) -> dict[str, Home]:
        layout, homes = self._layout, {}
        pinned = {name: layout.tensors[name] for name in layout.given | layout.answers}
        room = sum(aligned(spec.nbytes) for spec in pinned.values())
        place = self._account.allocate_host(room) if pinned else 0
        if pinned:
            self._resources.callback(self._account.free_host, place, room)
        places: dict[str, Pinned] = {}
        for name in sorted(pinned):
            places[name] = Pinned(place, pinned[name].nbytes)
            place += aligned(pinned[name].nbytes)
        for use in (Use.INPUTS, Use.FEATURES, Use.STATE):
            nbytes = layout.nbytes(use)
            if not nbytes:
                continue
            address = self._account.allocate(use, nbytes)
            self._resources.callback(self._account.free, use, address, nbytes)
            # Whatever lay there is no number; the first run, which warms up, reads all of it.
            self.cuda.clear(address, nbytes, self.stream)
            for spec in layout.of(use):
                homes[spec.name] = Home(spec, address, places.get(spec.name))
                address += aligned(spec.nbytes)
        for name in sorted(layout.given):
            places[name].array[:] = 0
        return homes

    def _stages(self, programs: Mapping[str, Program], options: CudaOptions, record: bool) -> dict[str, CudaStage]:
        layout, homes, stages = self._layout, self.homes, {}
        scratch = 0
        if any(program.device_memory for program in programs.values()):
            scratch = self._account.allocate(Use.ACTIVATIONS, layout.activations)
            self._resources.callback(self._account.free, Use.ACTIVATIONS, scratch, layout.activations)
        for name, graph in layout.graphs.items():
            executor = programs[name].executor()
            with ExitStack() as on_error:
                on_error.callback(executor.close)
                if programs[name].device_memory:
                    executor.lend(scratch)
                click = name in layout.clicks
                stage = CudaStage(
                    name,
                    self.cuda,
                    self.stream,
                    executor,
                    inputs=tuple(homes[spec.name] for spec in graph.inputs),
                    outputs=tuple(homes[spec.name] for spec in graph.outputs),
                    fed=tuple(homes[spec.name] for spec in graph.inputs if click and spec.role is Role.CLICK),
                    links=tuple(
                        (homes[source], homes[target])
                        for source, target in layout.links
                        if source in {spec.name for spec in graph.outputs}
                    ),
                    fetched=tuple(homes[spec.name] for spec in graph.outputs if spec.name in layout.answers),
                    options=options,
                    graph=click and record and options.graph,
                )
                on_error.pop_all()
            self._resources.callback(stage.close)
            stages[name] = stage
        return stages

    # --- what a runner does with it ---------------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until everything that was asked for is done; the one moment at which the host waits."""
        self.cuda.synchronize(self.stream)
        for home in self.homes.values():
            if home.pinned is not None:
                home.pinned.busy = False

    def save(self, homes: Collection[Home]) -> None:
        """Copy what somebody still holds and is only in these homes to slots, because they are about to be written to.

        Raises:
            EngineError: There is no room, or the copy was refused; everything is where it was.
        """
        for home in homes:
            tensor = home.content
            if tensor is None or tensor.leaves(homes) is None:
                continue
            slot = self.slots.take(home.spec.nbytes)
            try:
                self.cuda.copy(slot.address, home.address, home.spec.nbytes, self.stream)
            except BaseException:
                slot.release()
                raise
            tensor.slot = slot

    def bring(self, tensor: Tensor, home: Home) -> None:
        """Bring a value to a home.

        Raises:
            EngineError: It was refused; the home holds no value then.
        """
        if home.content is tensor:
            return
        self.save((home,))
        home.forget()
        nbytes = home.spec.nbytes
        if tensor.host is not None:
            self.moved.up += nbytes
            if home.pinned is None:
                self.cuda.upload(home.address, tensor.host.ctypes.data, nbytes, self.stream)
                self.wait()  # its memory may be gone afterwards
            else:
                self.write(tensor, home.pinned)
                home.pinned.busy = True
                self.cuda.upload(home.address, home.pinned.address, nbytes, self.stream)
        elif tensor.zero:
            self.cuda.clear(home.address, nbytes, self.stream)
        else:
            self.cuda.copy(home.address, self.whereabouts(tensor), nbytes, self.stream)
        home.put(tensor)

    def write(self, tensor: Tensor, pinned: Pinned) -> None:
        """Write a value that the host knows to pinned memory, once the GPU is done with what lies there."""
        if pinned.busy:
            self.wait()
        if tensor.host is None:
            pinned.array[:] = 0
        else:
            pinned.array[:] = tensor.host.reshape(-1).view("uint8")

    def whereabouts(self, tensor: Tensor) -> int:
        """Return the address of a value on the GPU.

        Raises:
            EngineError: It is not there any more, because what overwrote it failed halfway.
        """
        address = tensor.address
        if address is None:
            raise EngineError(
                f"the value of {tensor.spec.name} is not on the GPU any more",
                expected="a value of this session that was not lost when a stage failed",
                fix="set the image again",
            )
        return address

    # --- the end ----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        with suppress(CudaError):
            self.cuda.synchronize(self.stream)

    def _abandon(self) -> None:
        """Free what is there already; the error that led here is the one to tell."""
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
                self._resources.close()
