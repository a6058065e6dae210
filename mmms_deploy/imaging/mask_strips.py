"""Enlarges whole rows of tiles and compares them with a threshold, for masks with outlines everywhere.

Where most tiles may be on an outline (:mod:`mmms_deploy.imaging.mask_resize`), gathering weights and scattering pixels
for each tile costs more than its products. Here the tiles of some tile rows are computed by a few calls of NumPy, on
views, in memory that is kept: the columns into lines, the lines into pixels, and these are compared where they lie.
Threads share the tile rows.

Every tile is still the product of the same matrices, of the same sizes and in the same order. So a mask is the same bit
for bit as tile by tile: what a library's product rounds depends on the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.imaging.scratch import scratch
from mmms_deploy.imaging.threads import shared
from mmms_deploy.imaging.tiles import Axis, FloatArray, Indices

BoolArray: TypeAlias = npt.NDArray[np.bool_]


class TileRows(NamedTuple):
    """Tile rows [start, stop)."""

    start: int
    stop: int


def strips_above(
    plane: FloatArray,
    limit: np.float32,
    rows: Axis,
    columns: Axis,
    transposed: FloatArray,
    strips: Sequence[TileRows],
    out: BoolArray,
    threads: int,
) -> None:
    """Decide where a map is above a threshold once it is enlarged, in some tile rows.

    Args:
        plane: (H, W), finite.
        limit: The threshold.
        rows: The rows in tiles.
        columns: The columns in tiles.
        transposed: (T, K, L) the weights of the columns.
        strips: The tile rows, in parts that are computed at once. The last two of a map overlap, and are in one part.
        out: (H', W') of the new size; the pixels of these tile rows are written to.
        threads: How many threads share them.
    """
    windows = sliding_window_view(plane, (rows.reach, columns.reach))
    height = max(strip.stop - strip.start for strip in strips)
    width = out.shape[1]
    count, length = len(columns.source), columns.length
    even = width // length
    read = (height, count, rows.reach, columns.reach)
    needs = (int(np.prod(read)), height * rows.reach * width, height * rows.length * width)

    def work(some: Iterator[TileRows]) -> None:
        with scratch(sum(needs)) as memory:
            windows_read, lines, pixels = np.split(memory[: sum(needs)], np.cumsum(needs)[:-1])
            windows_read = windows_read.reshape(read)
            lines = lines.reshape(height, rows.reach, width)
            pixels = pixels.reshape(height, rows.length, width)
            for start, stop in some:
                tall = stop - start
                windows_read[:tall] = windows[rows.source[start:stop, None], columns.source]
                weights = rows.weights[start:stop]
                for first, last, tiles in ((0, even, even), (count - 1, count, count - even)):
                    if not tiles:
                        continue
                    part = slice(first * length, last * length) if last <= even else slice(width - length, width)
                    here = _in_tiles(lines[:tall, :, part], length)
                    np.matmul(windows_read[:tall, first:last], transposed[first:last], out=here)
                    np.matmul(weights[:, None], here, out=_in_tiles(pixels[:tall, :, part], length))
                _compare(pixels[:tall], limit, rows.target[start:stop], out)

    shared(work, strips, threads)


def _in_tiles(array: FloatArray, length: int) -> FloatArray:
    """Return a view (N, M, T * L) -> (N, T, M, L)."""
    return array.reshape(*array.shape[:2], -1, length).transpose(0, 2, 1, 3)


def _compare(pixels: FloatArray, limit: np.float32, target: Indices, out: BoolArray) -> None:
    """Compare tile rows (N, L, W) with the threshold."""
    count, length, width = pixels.shape
    even = count if target[-1] - target[0] == (count - 1) * length else count - 1
    top = int(target[0])
    np.greater(pixels[:even].reshape(-1, width), limit, out=out[top : top + even * length])
    if even < count:
        np.greater(pixels[-1], limit, out=out[-length:])
