"""Values of the CUDA engines: tensors that stay what they are while their home on the GPU is used again.

Plans and graphs read and write fixed addresses, the homes, but a value may never change once it was returned. So a
value lives in the home that it was written to until the next run needs the home; only then, and only when somebody
still holds it, it moves to a slot of its own. What came from the host needs no slot, it can be written again.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection

from mmms_deploy.bundle import TensorSpec
from mmms_deploy.engines.cuda.memory import Pinned, Slot
from mmms_deploy.engines.protocol import Array


class Tensor:
    """Handle of a tensor: what a runner returns and takes.

    Attributes:
        spec: What it is.
        host: Its numbers, when it came from the host.
        zero: Whether it is all zeros.
        slot: Its own memory, once it had to leave its home.
        homes: Where it was written to; it is still in those whose ``content`` it is.
    """

    __slots__ = ("__weakref__", "homes", "host", "slot", "spec", "zero")

    def __init__(self, spec: TensorSpec, host: Array | None = None, zero: bool = False) -> None:
        self.spec = spec
        self.host = host
        self.zero = zero
        self.slot: Slot | None = None
        self.homes: list[Home] = []

    def __del__(self) -> None:
        if getattr(self, "slot", None) is not None:
            self.slot.release()  # type: ignore[union-attr]

    def leaves(self, homes: Collection[Home]) -> Home | None:
        """Return a home from which it has to be saved when all of ``homes`` are written to; None when it is safe."""
        if self.host is not None or self.zero or self.slot is not None:
            return None
        here = [home for home in self.homes if home.content is self]
        return None if any(home not in homes for home in here) or not here else here[0]

    @property
    def address(self) -> int | None:
        """Where it is on the GPU; None when it is not there."""
        if self.slot is not None:
            return self.slot.address
        return next((home.address for home in self.homes if home.content is self), None)


class Home:
    """A fixed address on the GPU: one tensor of the stages, by name.

    Attributes:
        spec: The tensor.
        address: Where it is.
        pinned: The place on the host to and from which it is copied; None for tensors that stay on the GPU.
    """

    def __init__(self, spec: TensorSpec, address: int, pinned: Pinned | None = None) -> None:
        self.spec = spec
        self.address = address
        self.pinned = pinned
        self._content: weakref.ref[Tensor] | None = None

    @property
    def content(self) -> Tensor | None:
        """The value that is here; None when there is none, or nobody holds it any more."""
        return None if self._content is None else self._content()

    def put(self, tensor: Tensor) -> None:
        """Say that a value is here now."""
        self._content = weakref.ref(tensor)
        if self not in tensor.homes:
            tensor.homes.append(self)

    def forget(self) -> None:
        """Say that what is here is no value any more, because it is about to be written to."""
        self._content = None
