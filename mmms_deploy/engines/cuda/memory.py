"""Memory on the GPU and pinned memory on the host, with an account by use and a budget."""

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
"""Every buffer starts at a multiple of this, as TensorRT and the GPU's copies need."""


class Use(StrEnum):
    """What memory is for."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    INPUTS = "inputs"
    FEATURES = "features"
    STATE = "state"
    HISTORY = "history"
    MASKS = "masks"
    PINNED = "pinned"


@dataclass
class Moved:
    """Bytes that a session's runner copied between the host and the GPU since they were last read.

    Attributes:
        up: To the GPU.
        down: From it.
    """

    up: int = 0
    down: int = 0


@dataclass(frozen=True)
class DeviceMemory:
    """What an engine holds on the GPU, in bytes.

    Attributes:
        sessions: Open sessions.
        resident: Images that are resident: those of open sessions, and resources kept for the next sessions.
        weights: The stages' weights, as far as the library reports them; shared by the sessions.
        activations: Scratch memory that stages run in; 0 when the library allocates its own.
        inputs: Images and modalities.
        features: Features of the images, which the click stage reads.
        state: Clicks, state and answers.
        history: Clicks that can be undone and redone, and memory reserved for more of them.
        masks: Masks and label maps at the images' sizes, and what they are made with.
        pinned: Pinned memory on the host, for copies to and from the GPU.
        free: Free memory of the GPU, which other programs use too.
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
    masks: int
    pinned: int
    free: int
    total: int

    @property
    def held(self) -> int:
        """What this engine holds on the GPU, in bytes."""
        on_images = self.inputs + self.features + self.state + self.history + self.masks
        return self.weights + self.activations + on_images

    def __str__(self) -> str:
        parts = ", ".join(
            f"{use} {mebibytes(getattr(self, use))}" for use in Use if use is not Use.PINNED and getattr(self, use)
        )
        return f"{self.resident} resident images, {mebibytes(self.held)} ({parts or 'nothing'})"


def mebibytes(nbytes: int) -> str:
    """Write a number of bytes for a reader."""
    return f"{nbytes / 2**20:.1f} MiB"


class Account:
    """How many bytes are held for what; shared by all sessions of an engine, and by threads.

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
        """Count memory that a library allocated, or freed when negative."""
        with self._lock:
            self._held[use] += nbytes

    def allocate(self, use: Use, nbytes: int) -> int:
        """Return the address of new memory on the GPU.

        Raises:
            ResidentBudgetError: It is more than the limit leaves, or than is free.
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
        """Free memory on the GPU."""
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
        """Free pinned memory."""
        self.note(Use.PINNED, -nbytes)
        self._cuda.free_host(address)

    def _too_much(self, use: Use, nbytes: int, why: str) -> ResidentBudgetError:
        held = ", ".join(f"{kind} {mebibytes(count)}" for kind, count in sorted(self._held.items()) if count)
        return ResidentBudgetError(
            f"{mebibytes(nbytes)} more are needed on the GPU ({use}): {why}; this engine holds {held or 'nothing'}",
            expected="memory for every resident image and its history",
            fix="close a session, lower its history_limit, or raise CudaOptions(memory_limit=...) when that is the"
            " limit",
            command_fix="close other programs on the GPU (nvidia-smi lists them)",
        )


def aligned(nbytes: int) -> int:
    """Return the bytes that a buffer takes, including the gap to the next one."""
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


class BufferOwner:
    """What allocates spare buffers.

    Attributes:
        closed: Whether their memory was freed.
    """

    closed = False


@dataclass(frozen=True)
class SpareBuffer:
    """Memory on the GPU that holds one value at a time, away from the binding buffers.

    Attributes:
        address: Its address.
        nbytes: Its size.
        free: The free buffers of its size, to which it returns when its value is gone.
    """

    address: int
    nbytes: int
    free: deque[SpareBuffer]
    owner: BufferOwner

    @property
    def lost(self) -> bool:
        """Whether its memory was freed, with the session that it belongs to."""
        return self.owner.closed

    def release(self) -> None:
        """Return it to the pool. Appending to a deque is atomic, so the garbage collector may do it in any thread."""
        self.free.append(self)


class SpareBufferPool(BufferOwner):
    """Spare buffers of one session. They are allocated in blocks; a click allocates nothing while its block lasts.

    A buffer may be released while operations on it are still waiting on the session's stream. Its next user enqueues on
    the same stream, and so comes after them.

    Args:
        account: Allocates the memory.
        cleanup: Frees the memory in the end.
        block: How many buffers of a size to allocate at once, by size in bytes; 1 for other sizes.
        extra: How many buffers of a size to add to the first block.
    """

    def __init__(
        self, account: Account, cleanup: ExitStack, block: Mapping[int, int], extra: Mapping[int, int]
    ) -> None:
        self._account = account
        self._cleanup = cleanup
        self._block = block
        self._extra = extra
        self._free: dict[int, deque[SpareBuffer]] = {}
        cleanup.callback(self._close)

    def _close(self) -> None:
        self.closed = True

    def reserve(self) -> None:
        """Allocate the first block, which the first click needs.

        Raises:
            ResidentBudgetError: There is no memory for it.
        """
        for nbytes in sorted({*self._block, *self._extra}):
            self._grow(nbytes, self._block.get(nbytes, 0) + self._extra.get(nbytes, 0))

    def acquire(self, nbytes: int) -> SpareBuffer:
        """Return a free buffer.

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
        self._cleanup.callback(self._account.free, Use.HISTORY, address, count * step)
        free = self._free.setdefault(nbytes, deque())
        free.extend(SpareBuffer(address + index * step, nbytes, free, self) for index in range(count))


class DetachedBuffers(BufferOwner):
    """Memory of values that other sessions use, too: it is freed after the last handle is gone, and at the latest here.

    A handle goes in any thread, in which nothing may be freed. So that happens when the next value is detached.

    Args:
        account: Allocates the memory.
        cleanup: Frees what is left in the end.
    """

    def __init__(self, account: Account, cleanup: ExitStack) -> None:
        self._account = account
        self._held: dict[int, SpareBuffer] = {}
        self._gone: deque[SpareBuffer] = deque()
        cleanup.callback(self._close)

    def acquire(self, nbytes: int) -> SpareBuffer:
        """Return memory for a value.

        Raises:
            ResidentBudgetError: There is none.
        """
        address = self._account.allocate(Use.FEATURES, aligned(nbytes))
        buffer = SpareBuffer(address, nbytes, self._gone, self)
        self._held[address] = buffer
        return buffer

    def trim(self) -> None:
        """Free the memory of values that are gone; nothing on the GPU may still use it."""
        while self._gone:
            self._free(self._gone.popleft())

    def _free(self, buffer: SpareBuffer) -> None:
        if self._held.pop(buffer.address, None) is not None:
            self._account.free(Use.FEATURES, buffer.address, aligned(buffer.nbytes))

    def _close(self) -> None:
        self.closed = True
        with ExitStack() as every:  # whatever else fails
            for buffer in self._held.values():
                every.callback(self._account.free, Use.FEATURES, buffer.address, aligned(buffer.nbytes))
            self._held = {}


class PinnedBuffer:
    """A part of the pinned memory of a session.

    Attributes:
        address: Its address on the host.
        array: (nbytes,) uint8 view of it.
        busy: Whether the GPU may still read or write it.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.array: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        self.busy = False


class PairedMemory:
    """Memory on the GPU and pinned memory on the host, for what goes up or comes down: they grow and end together.

    Args:
        account: Allocates it.
        use: What the memory on the GPU is for.
        cleanup: Frees both in the end.

    Attributes:
        address: The address on the GPU; 0 while there is none.
    """

    def __init__(self, account: Account, use: Use, cleanup: ExitStack) -> None:
        self._account, self._use = account, use
        self._nbytes = self._pinned_nbytes = self.address = self._host = 0
        self._pinned: PinnedBuffer | None = None
        cleanup.callback(self._free)

    @property
    def pinned(self) -> PinnedBuffer:
        """The pinned memory, once some was reserved."""
        assert self._pinned is not None
        return self._pinned

    def fits(self, nbytes: int, pinned: int) -> bool:
        """Whether there are so many bytes on the GPU and on the host."""
        return nbytes <= self._nbytes and pinned <= self._pinned_nbytes

    def reserve(self, nbytes: int, pinned: int) -> None:
        """Have so many bytes on the GPU and on the host; what they held is lost where they grow.

        Raises:
            ResidentBudgetError: There is no memory for it; none is left then.
            CudaError: The GPU failed; likewise.
        """
        if self.fits(nbytes, pinned):
            return
        wanted = max(nbytes, self._nbytes), max(pinned, self._pinned_nbytes)
        self._free()
        self._nbytes, self._pinned_nbytes = wanted
        try:
            self.address = self._account.allocate(self._use, self._nbytes)
            self._host = self._account.allocate_host(self._pinned_nbytes)
            self._pinned = PinnedBuffer(self._host, self._pinned_nbytes)
        except BaseException:
            self._free()
            raise

    def _free(self) -> None:
        address, nbytes, host, pinned = self.address, self._nbytes, self._host, self._pinned_nbytes
        self._pinned = None
        self._nbytes = self._pinned_nbytes = self.address = self._host = 0
        with ExitStack() as both:  # whatever else fails
            if host:
                both.callback(self._account.free_host, host, pinned)
            if address:
                both.callback(self._account.free, self._use, address, nbytes)
