"""Values of the CUDA engines: tensors that keep their contents while the buffer that they are in is used again.

Stages read and write fixed addresses, the binding buffers, but a value may never change once it was returned. So a
value stays in the binding buffer that it was written to until the next run needs that buffer. If its handle is still
alive by then, the value is copied to a spare buffer of its own. A value that came from the host needs no spare buffer,
because it can be uploaded again.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection

from mmms_deploy.bundle import TensorSpec
from mmms_deploy.engines.cuda.memory import PinnedBuffer, SpareBuffer
from mmms_deploy.engines.protocol import Array


class Tensor:
    """Handle of a tensor; a runner returns it and takes it.

    Attributes:
        spec: Its name, dtype and shape.
        host: Its numbers, if it came from the host.
        zero: Whether it is all zeros.
        spare: Its own memory, once it had to leave its binding buffer.
        buffers: The binding buffers that it was written to; it is still in those whose ``content`` it is.
    """

    __slots__ = ("__weakref__", "buffers", "host", "spare", "spec", "zero")

    def __init__(self, spec: TensorSpec, host: Array | None = None, zero: bool = False) -> None:
        self.spec = spec
        self.host = host
        self.zero = zero
        self.spare: SpareBuffer | None = None
        self.buffers: list[BindingBuffer] = []

    def __del__(self) -> None:
        if getattr(self, "spare", None) is not None:
            self.spare.release()  # type: ignore[union-attr]

    def lost_with(self, buffers: Collection[BindingBuffer]) -> bool:
        """Return whether its last copy is overwritten when all of ``buffers`` are."""
        if self.host is not None or self.zero or self.spare is not None:
            return False
        holding = [buffer for buffer in self.buffers if buffer.content is self]
        return bool(holding) and all(buffer in buffers for buffer in holding)

    @property
    def address(self) -> int | None:
        """Its address on the GPU; None when it is not there."""
        if self.spare is not None and not self.spare.lost:
            return self.spare.address
        return next((buffer.address for buffer in self.buffers if buffer.content is self), None)


class BindingBuffer:
    """The fixed address on the GPU that one tensor of the stages is bound to.

    Attributes:
        spec: The tensor.
        address: The address.
        pinned: The host memory to and from which it is copied; None for a tensor that stays on the GPU.
        key: What the layout calls it: the tensor's name, but for a tensor that comes in several sizes.
    """

    def __init__(self, spec: TensorSpec, address: int, pinned: PinnedBuffer | None = None, key: str = "") -> None:
        self.spec = spec
        self.key = key or spec.name
        self.address = address
        self.pinned = pinned
        self._content: weakref.ref[Tensor] | None = None

    @property
    def content(self) -> Tensor | None:
        """The value that it holds; None when it holds none, or when the handle of the value is gone."""
        return None if self._content is None else self._content()

    def hold(self, tensor: Tensor) -> None:
        """Note that it holds a value from now on."""
        self._content = weakref.ref(tensor)
        # A value that many sessions use would remember the buffers of all of them.
        tensor.buffers = [
            *(buffer for buffer in tensor.buffers if buffer.content is tensor and buffer is not self),
            self,
        ]

    def invalidate(self) -> None:
        """Note that it holds no value any more, because it is about to be overwritten."""
        self._content = None
