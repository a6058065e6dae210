"""Decides on the GPU which of several objects has each pixel at the image's size, and brings the map to the host.

A pixel comes down as one byte. The logits go up as they are on the network's grid, where they are a hundredth of what
they would be at the image's size. What enlarges and compares is ``kernels/labels.cu``; the two resizes go up as tables
when an image of another size is set. A large map is made in bands of rows, so that memory does not grow with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.engines.cuda.kernels.module import Argument, Kernel
from mmms_deploy.engines.cuda.memory import Account, Moved, PairedMemory, Use, aligned
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.imaging.decision import Enlargement
from mmms_deploy.imaging.resize_weights import chained_weights

KERNEL = "labels"
"""Name of the kernel, and of its module."""
BAND = 16 << 20
"""Bytes of the map that are made at once, at most: all of it up to 16 megapixels."""
_BLOCK = (32, 8, 1)
_ROWS = 4
"""Rows that a thread of the kernel computes."""
_BACKGROUND_LAST = 256

_Bytes = npt.NDArray[np.uint8]


class _Tables(NamedTuple):
    """How both axes are enlarged.

    Attributes:
        content: All tables, one after the other, as bytes.
        places: Where each of them begins, in bytes: the first pixel of every row (H0) int32 and its weights
            (H0, taps[0]) float32, and the same of the columns.
        taps: Weights of a row, and of a column.
    """

    content: _Bytes
    places: tuple[int, ...]
    taps: tuple[int, int]


@lru_cache(maxsize=16)
def _tables(grid: tuple[int, int], how: Enlargement) -> _Tables:
    parts: list[npt.NDArray[Any]] = []
    for axis in range(2):
        first, weights = chained_weights(
            grid[axis], how.between[axis], how.kept[axis], how.size[axis], how.rule, how.rule
        )
        parts += [first.astype(np.int32), np.ascontiguousarray(weights, dtype=np.float32)]
    ends = np.cumsum([part.nbytes for part in parts]).tolist()
    content = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
    content.setflags(write=False)
    return _Tables(content, (0, *ends[:-1]), (parts[1].shape[1], parts[3].shape[1]))


class _Layout(NamedTuple):
    """What is where in the memory on the GPU, in bytes; a band of the map is at its beginning.

    Attributes:
        band: Rows of a band.
        tables: Where the tables begin.
        listed: Where the list of the objects' rows begins.
        planes: Where the logits begin.
        room: Bytes of all of it.
        pinned: Bytes of a band.
    """

    band: int
    tables: int
    listed: int
    planes: int
    room: int
    pinned: int


class LabelDecider:
    """One session's label maps. Used by one thread at a time.

    Args:
        cuda: The GPU.
        account: Allocates memory.
        kernel: The kernel; None where the processor decides.
        stream: The session's stream.
        wait: Waits for all work on the stream, and calls :meth:`settled`.
        cleanup: Frees the memory in the end.

    Attributes:
        kernel: The kernel.
        rows: How many maps there is memory for, whenever there is any.
        refused: Bytes for which there was no memory, so that they are not tried at every click; None for none.
        busy: Whether the GPU may still write to the pinned memory, or read what goes up.
    """

    def __init__(
        self,
        cuda: Cuda,
        account: Account,
        kernel: Kernel | None,
        stream: Any,
        wait: Callable[[], None],
        cleanup: ExitStack,
    ) -> None:
        self._cuda, self.kernel = cuda, kernel
        self._stream, self._wait = stream, wait
        self.rows = 1
        self.refused: int | None = None
        self.busy = False
        self._warm = False
        self._memory = PairedMemory(account, Use.MASKS, cleanup)
        self._there: _Tables | None = None
        self._sent: list[npt.NDArray[Any]] = []

    def room(self, how: Enlargement, shape: tuple[int, int, int]) -> int:
        """Return the bytes that are needed on the GPU.

        Args:
            how: How maps are enlarged.
            shape: (R, h, w) of them.
        """
        return self._layout(how, shape).room

    def expect(self, how: Enlargement, shape: tuple[int, int, int], moved: Moved) -> None:
        """Have memory and tables, and the kernel ready to run.

        Args:
            how: How maps are enlarged.
            shape: (R, h, w) of them.
            moved: Counts the bytes that are copied.

        Raises:
            ResidentBudgetError: There is no memory for it.
            CudaError: The GPU failed.
        """
        if self.busy:
            self._wait()
        layout, grid = self._layout(how, shape), shape[1:]
        if not self._memory.fits(layout.room, layout.pinned):
            self._there = None
            self._memory.reserve(layout.room, layout.pinned)
        tables = _tables(grid, how)
        if self._there is not tables:
            self._there = None
            self._upload(layout.tables, tables.content, moved)
            self._there = tables
        if not self._warm:
            # The driver loads a kernel at its first launch.
            groups = self._send(layout, np.zeros((1, *grid), np.float32), np.zeros(1, np.uint8), moved)
            self._launch(layout, how, grid, groups, 0, 1)
            self._warm = True

    def decide(
        self, planes: npt.NDArray[np.float32], owners: npt.NDArray[np.uint8], how: Enlargement, moved: Moved
    ) -> _Bytes:
        """Return the owner of the largest map at every pixel. Maps of this shape were expected before.

        Args:
            planes: (R, h, w) float32, finite.
            owners: (R,) the owner of every map; 0 is the background, which wins no tie, and of others the lower one
                wins.
            how: How they are enlarged.
            moved: Counts the bytes that are copied.

        Returns:
            (H0, W0) uint8, a new array.

        Raises:
            CudaError: The GPU failed.
        """
        count, height, width = planes.shape
        rows, columns = how.size
        layout = self._layout(how, (count, height, width))
        groups = self._send(layout, planes, owners, moved)
        found, pinned = np.empty(how.size, dtype=np.uint8), self._memory.pinned
        for top in range(0, rows, layout.band):
            lines = min(layout.band, rows - top)
            self._launch(layout, how, (height, width), groups, top, lines)
            self._cuda.download(pinned.address, self._memory.address, lines * columns, self._stream)
            moved.down += lines * columns
            self._wait()
            found[top : top + lines] = pinned.array[: lines * columns].reshape(lines, columns)
        return found

    def settled(self) -> None:
        """Note that the stream was waited for."""
        self.busy = False
        self._sent = []

    def _layout(self, how: Enlargement, shape: tuple[int, int, int]) -> _Layout:
        count, height, width = shape
        rows, columns = how.size
        # Clicks come one by one: memory for twice as many is allocated at a time.
        count = 1 << (max(count, self.rows) - 1).bit_length()
        band = max(1, min(rows, BAND // columns))
        tables = aligned(band * columns)
        listed = tables + aligned(_tables((height, width), how).content.nbytes)
        planes = listed + aligned(3 * 4 * count)
        return _Layout(band, tables, listed, planes, planes + aligned(4 * count * height * width), band * columns)

    def _send(
        self, layout: _Layout, planes: npt.NDArray[np.float32], owners: npt.NDArray[np.uint8], moved: Moved
    ) -> tuple[int, int]:
        """Enqueue the upload of maps and their owners; return how many maps and owners there are."""
        key = np.where(owners == 0, _BACKGROUND_LAST, owners.astype(np.int32))
        groups, counts = np.unique(key, return_counts=True)
        listed = [np.argsort(key, kind="stable"), np.cumsum(counts), groups % _BACKGROUND_LAST]
        self._upload(layout.listed, np.concatenate(listed).astype(np.int32), moved)
        self._upload(layout.planes, np.ascontiguousarray(planes, dtype=np.float32), moved)
        return len(owners), len(groups)

    def _upload(self, place: int, array: npt.NDArray[Any], moved: Moved) -> None:
        self.busy = True
        self._sent.append(array)  # kept until the GPU has read it
        moved.up += array.nbytes
        self._cuda.upload(self._memory.address + place, array.ctypes.data, array.nbytes, self._stream)

    def _launch(
        self, layout: _Layout, how: Enlargement, grid: tuple[int, int], given: tuple[int, int], top: int, lines: int
    ) -> None:
        """Enqueue the kernel for some rows of the map."""
        assert self._there is not None
        assert self.kernel is not None
        (count, groups), columns, (row_taps, column_taps) = given, how.size[1], self._there.taps
        listed = self._memory.address + layout.listed
        row_first, row_weights, column_first, column_weights = (
            ctypes.c_uint64(self._memory.address + layout.tables + place) for place in self._there.places
        )
        arguments: list[Argument] = [
            ctypes.c_uint64(self._memory.address + layout.planes),
            *map(ctypes.c_int32, grid),
            *(ctypes.c_uint64(listed + 4 * place) for place in (0, count, count + groups)),
            ctypes.c_int32(groups),
            row_first,
            row_weights,
            ctypes.c_int32(row_taps),
            column_first,
            column_weights,
            ctypes.c_int32(column_taps),
            *map(ctypes.c_int32, (top, lines, columns)),
            ctypes.c_uint64(self._memory.address),
        ]
        blocks = (-(-columns // _BLOCK[0]), -(-lines // (_BLOCK[1] * _ROWS)), 1)
        self.kernel.launch(blocks, _BLOCK, arguments, self._stream)
