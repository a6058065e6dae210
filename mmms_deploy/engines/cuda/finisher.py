"""Brings an answer to the image's size on the GPU, and to the host as the bits of a mask.

The bytes of a mask are eight times as many as its bits, and a map of float32 thirty-two times: at 1920 x 1080 pixels
0.26 MB come down. What enlarges is ``kernels/answer.cu``; the resize rule goes up as two small tables when an image of
another size is set.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Role, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda.kernels.module import Argument, Kernel
from mmms_deploy.engines.cuda.memory import Account, PairedMemory, Use, aligned
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.cuda.values import Tensor
from mmms_deploy.engines.protocol import Finish
from mmms_deploy.imaging.resize_weights import resampling_weights

MODULE = "answer"
"""The module of kernels."""
KERNELS = {dtype: f"answer_{dtype}" for dtype in ("float32", "float16", "bfloat16")}
"""Name of the kernel by the dtype of the answer."""
_ROLES = frozenset({Role.PROBABILITY, Role.LOGITS})
_BLOCK = (32, 8, 1)
_ROWS = 4
"""Rows that a thread of the kernel computes."""

_Table = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def answer_of(graph: StageGraph) -> TensorSpec | None:
    """Return the output of a stage that a mask can be made of: its only answer, (1, 1, h, w); None without one."""
    found = [spec for spec in graph.outputs if spec.role in _ROLES]
    return found[0] if len(found) == 1 and makes_mask(found[0]) else None


def makes_mask(spec: TensorSpec) -> bool:
    """Return whether a mask can be made of a tensor: it is an answer, (1, 1, h, w), of a dtype that a kernel reads."""
    return spec.role in _ROLES and len(spec.shape) == 4 and spec.shape[:2] == (1, 1) and spec.dtype in KERNELS


@lru_cache(maxsize=64)
def _table(size_in: int, size_out: int, rule: ResizeRule) -> _Table:
    """Return the first input pixel (N,) of every output pixel of an axis, and the weights (N, K) from there on."""
    first, weights = resampling_weights(size_in, size_out, rule)
    return first.astype(np.int32), np.ascontiguousarray(weights, dtype=np.float32)


class AnswerFinisher:
    """One session's masks at the image's size. Used by one thread at a time.

    Args:
        cuda: The GPU.
        account: Allocates memory.
        kernels: The kernels by the dtype of the answer.
        stream: The session's stream.
        wait: Waits for all work on the stream.
        cleanup: Frees the memory in the end.

    Attributes:
        kernels: The kernels.
        uploaded: Bytes of the tables that went up.
        finish: What is made of an answer; None for nothing.
        version: Another number whenever that or an address has changed, so that a CUDA graph has to be recorded anew.
        refused: What there was no memory for, so that it is not tried at every click.
        busy: Whether the GPU may still write to the pinned memory, or read it.
    """

    def __init__(
        self,
        cuda: Cuda,
        account: Account,
        kernels: Mapping[str, Kernel],
        stream: Any,
        wait: Callable[[], None],
        cleanup: ExitStack,
    ) -> None:
        self._cuda, self.kernels = cuda, kernels
        self._stream, self._wait = stream, wait
        self.finish: Finish | None = None
        self.refused: Finish | None = None
        self.version = self.uploaded = 0
        self.busy = False
        self._answer_size = (0, 0)
        self._offsets: tuple[int, ...] = ()
        self._memory = PairedMemory(account, Use.MASKS, cleanup)
        self._content: weakref.ref[Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of a mask, as they come down."""
        return 0 if self.finish is None else self.finish.size[0] * self._words * 4

    @property
    def _words(self) -> int:
        """Words of 32 pixels in a row of a mask."""
        return 0 if self.finish is None else -(-self.finish.size[1] // 32)

    def stop(self) -> None:
        """Make no mask of an answer any more. The memory stays for the next image."""
        self.forget()
        self.version += 1  # first: whatever is interrupted below, what was recorded is out of date
        self.finish = None

    def expect(self, finish: Finish, answer_size: tuple[int, int]) -> None:
        """Make masks of answers from now on.

        Args:
            finish: What is made of an answer.
            answer_size: (h, w) of the answers.

        Raises:
            ResidentBudgetError: There is no memory for it; no mask is made then.
            CudaError: The GPU failed; likewise.
        """
        self.stop()
        if self.busy:
            self._wait()
        tables = [
            array
            for size_in, size_out in zip(answer_size, finish.size, strict=True)
            for array in _table(size_in, size_out, finish.rule)
        ]
        bits = finish.size[0] * -(-finish.size[1] // 32) * 4
        ends = np.cumsum([aligned(bits), *(aligned(table.nbytes) for table in tables)]).tolist()
        self._memory.reserve(ends[-1], ends[-1])
        pinned = self._memory.pinned
        for start, table in zip(ends, tables, strict=False):
            pinned.array[start : start + table.nbytes] = table.reshape(-1).view(np.uint8)
        self.busy = True
        self.uploaded = ends[-1] - ends[0]
        self._cuda.upload(self._memory.address + ends[0], pinned.address + ends[0], self.uploaded, self._stream)
        self._offsets = tuple(ends[:-1])
        self._taps = tables[1].shape[1], tables[3].shape[1]
        self._answer_size = answer_size
        self.finish = finish

    def fits(self, spec: TensorSpec) -> bool:
        """Whether the tables are those of a tensor's size."""
        return makes_mask(spec) and spec.shape[2:] == self._answer_size and spec.dtype in self.kernels

    def enqueue(self, address: int, dtype: str) -> None:
        """Enqueue the kernel and the download of its bits; in a capture, both become part of the CUDA graph.

        Args and errors are those of :meth:`launch`.
        """
        self.launch(address, dtype)
        self._cuda.download(self._memory.pinned.address, self._memory.address, self.nbytes, self._stream)

    def launch(self, address: int, dtype: str) -> None:
        """Enqueue the kernel alone.

        Args:
            address: Where the answer is on the GPU.
            dtype: Its dtype.

        Raises:
            CudaError: It was refused.
        """
        finish = self.finish
        assert finish is not None
        rows, columns = finish.size
        grid = (-(-columns // _BLOCK[0]), -(-rows // (_BLOCK[1] * _ROWS)), 1)
        row_first, row_weights, column_first, column_weights = (
            ctypes.c_uint64(self._memory.address + offset) for offset in self._offsets
        )
        arguments: list[Argument] = [
            ctypes.c_uint64(address),
            *map(ctypes.c_int32, self._answer_size),
            row_first,
            row_weights,
            ctypes.c_int32(self._taps[0]),
            column_first,
            column_weights,
            ctypes.c_int32(self._taps[1]),
            ctypes.c_int32(rows),
            ctypes.c_int32(columns),
            ctypes.c_float(finish.limit),
            ctypes.c_uint64(self._memory.address),
            ctypes.c_int32(self._words),
        ]
        self.kernels[dtype].launch(grid, _BLOCK, arguments, self._stream)

    def forget(self) -> None:
        """Note that the pinned memory holds no mask, because it is about to be overwritten."""
        self._content = None

    def hold(self, tensor: Tensor) -> None:
        """Note of which answer the pinned memory holds the mask, once the stream is waited for."""
        self._content = weakref.ref(tensor)

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is this one."""
        return self._content is not None and self._content() is tensor

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return the mask that the pinned memory holds, (H0, W0), a new array."""
        assert self.finish is not None
        rows, columns = self.finish.size
        bits = self._memory.pinned.array[: self.nbytes].reshape(rows, 4 * self._words)
        return np.unpackbits(bits, axis=1, count=columns, bitorder="little").view(np.bool_)
