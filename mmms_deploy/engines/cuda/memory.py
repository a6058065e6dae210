"""Memory on the GPU and pinned memory on the host, with an account of what it is for and a budget."""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from mmms_deploy.engines.cuda.runtime import OUT_OF_MEMORY, Cuda
from mmms_deploy.errors import CudaError, ResidentBudgetError

ALIGNMENT = 256
"""Every buffer starts at a multiple of this: what TensorRT and the GPU's copies want."""


class Use(StrEnum):
    """What memory is for."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    INPUTS = "inputs"
    FEATURES = "features"
    STATE = "state"
    HISTORY = "history"
    PINNED = "pinned"


@dataclass(frozen=True)
class DeviceMemory:
    """What an engine holds on the GPU, in bytes.

    Attributes:
        sessions: Open sessions.
        resident: Images that are resident: open sessions, and seats kept for the next ones.
        weights: The stages' weights, as far as the library tells; shared by the sessions.
        activations: Scratch memory that stages run in; 0 when the library takes care of it itself.
        inputs: Images and modalities.
        features: What the click stage reads of an image.
        state: Clicks, state and answers.
        history: What can be undone and redone, and room kept for it.
        pinned: On the host: what is copied to and from the GPU.
        free: Free memory of the GPU, whoever holds the rest.
        total: All memory of the GPU.
    """

    sessions: int
    resident: int
    weights: int
    activations: int
    inputs: int
    features: int
    state: int
    history: int
    pinned: int
    free: int
    total: int

    @property
    def held(self) -> int:
        """What this engine holds on the GPU, in bytes."""
        return self.weights + self.activations + self.inputs + self.features + self.state + self.history

    def __str__(self) -> str:
        parts = ", ".join(
            f"{use} {mebibytes(getattr(self, use))}" for use in Use if use is not Use.PINNED and getattr(self, use)
        )
        return f"{self.resident} resident images, {mebibytes(self.held)} ({parts or 'nothing'})"


def mebibytes(nbytes: int) -> str:
    """Write a number of bytes for a reader."""
    return f"{nbytes / 2**20:.1f} MiB"


class Account:
    """Who holds how much; shared by all sessions of an engine, and by threads.

    Args:
        cuda: The GPU.
        limit: The most bytes that may be held on the GPU, weights included; None for no limit.
    """

    def __init__(self, cuda: Cuda, limit: int | None = None) -> None:
        self._cuda = cuda
        self._limit = limit
        self._lock = threading.Lock()
        self._held: Counter[Use] = Counter()

    def held(self) -> dict[Use, int]:
        """Return the bytes held, by use."""
        with self._lock:
            return {use: self._held[use] for use in Use}

    def note(self, use: Use, nbytes: int) -> None:
        """Count memory that a library allocated, or gave back when negative."""
        with self._lock:
            self._held[use] += nbytes

    def allocate(self, use: Use, nbytes: int) -> int:
        """Return the address of new memory on the GPU.

        Raises:
            ResidentBudgetError: It would be more than the limit, or than there is.
            CudaError: The GPU failed otherwise.
        """
        with self._lock:
            on_gpu = sum(count for kind, count in self._held.items() if kind is not Use.PINNED)
            if self._limit is not None and on_gpu + nbytes > self._limit:
                raise self._too_much(use, nbytes, f"{mebibytes(self._limit - on_gpu)} are left of the limit")
            self._held[use] += nbytes
        try:
            return self._cuda.allocate(nbytes)
        except CudaError as error:
            self.note(use, -nbytes)
            if error.code == OUT_OF_MEMORY:
                raise self._too_much(use, nbytes, "the GPU's memory is used up") from error
            raise

    def free(self, use: Use, address: int, nbytes: int) -> None:
        """Give memory on the GPU back."""
        self.note(use, -nbytes)
        self._cuda.free(address)

    def allocate_host(self, nbytes: int) -> int:
        """Return the address of new pinned memory.

        Raises:
            CudaError: There is none.
        """
        address = self._cuda.allocate_host(nbytes)
        self.note(Use.PINNED, nbytes)
        return address

    def free_host(self, address: int, nbytes: int) -> None:
        """Give pinned memory back."""
        self.note(Use.PINNED, -nbytes)
        self._cuda.free_host(address)

    def _too_much(self, use: Use, nbytes: int, why: str) -> ResidentBudgetError:
        held = ", ".join(f"{kind} {mebibytes(count)}" for kind, count in sorted(self._held.items()) if count)
        return ResidentBudgetError(
            f"{mebibytes(nbytes)} more are needed on the GPU ({use}): {why}; this engine holds {held or 'nothing'}",
            expected="memory for every resident image and its history",
            fix="close a session, lower its history_limit, or raise CudaOptions(memory_limit=...) when that is the"
            " limit",
        )


def aligned(nbytes: int) -> int:
    """Return the bytes that a buffer takes with the gap to the next one."""
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Slot:
    """Memory on the GPU that belongs to one value at a time.

    Attributes:
        address: Where it is.
        nbytes: How large it is.
        free: Where it goes when its value dies.
    """

    address: int
    nbytes: int
    free: deque[Slot]

    def release(self) -> None:
        """Give it back; appending to a deque is atomic, so that the garbage collector may do it in any thread."""
        self.free.append(self)


class SlotPool:
    """Slots of one session. They come in blocks, so that a click allocates nothing while its block lasts.

    A slot may be given back while operations on it are still waiting on the session's stream: whoever takes it next
    uses the same stream, and so comes after them.

    Args:
        account: Where the memory comes from.
        resources: What frees the memory in the end.
        block: How many slots of a size to allocate at once, by size in bytes; 1 for other sizes.
        spare: How many slots of a size to allocate beside the first block.
    """

    def __init__(
        self, account: Account, resources: ExitStack, block: Mapping[int, int], spare: Mapping[int, int]
    ) -> None:
        self._account = account
        self._resources = resources
        self._block = block
        self._spare = spare
        self._free: dict[int, deque[Slot]] = {}

    def reserve(self) -> None:
        """Allocate what is needed from the first click on.

        Raises:
            ResidentBudgetError: There is no memory for it.
        """
        for nbytes in sorted({*self._block, *self._spare}):
            self._grow(nbytes, self._block.get(nbytes, 0) + self._spare.get(nbytes, 0))

    def take(self, nbytes: int) -> Slot:
        """Return a slot.

        Raises:
            ResidentBudgetError: There is no memory for a new one.
        """
        try:
            return self._free[nbytes].pop()
        except (KeyError, IndexError):
            pass
        try:
            self._grow(nbytes, self._block.get(nbytes, 1))
        except ResidentBudgetError:
            self._grow(nbytes, 1)
        return self._free[nbytes].pop()

    def _grow(self, nbytes: int, count: int) -> None:
        step = aligned(nbytes)
        address = self._account.allocate(Use.HISTORY, count * step)
        self._resources.callback(self._account.free, Use.HISTORY, address, count * step)
        free = self._free.setdefault(nbytes, deque())
        free.extend(Slot(address + index * step, nbytes, free) for index in range(count))


class Pinned:
    """A part of the pinned memory of a session.

    Attributes:
        address: Where it is.
        array: (nbytes,) uint8 view of it.
        busy: Whether the GPU may still read or write it.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.array: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        self.busy = False
