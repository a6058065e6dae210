"""Enlarges a map in small tiles, so that a mask costs only the tiles on its outline.

A separable resize is two multiplications with sparse, banded matrices. Cut into tiles of some ten pixels a side, the
matrices are small and dense, and every pixel of a tile is a mean of the few input pixels that the tile reads. When all
of these lie on one side of the threshold, the tile is decided without computing it. So only the tiles on the outline of
a mask are computed, typically a fifth of a full-size photograph.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.resize_weights import ResamplingWeights, resampling_weights

FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
_Indices: TypeAlias = npt.NDArray[np.intp]

ROWS, COLUMNS = 32, 64
"""A tile's size in the enlarged map."""
_BATCH = 64
"""How many tiles are computed at a time: their numbers stay in the L2 cache of a core."""
_MARGIN = 2.0**-19
"""Relative distance from the threshold at which rounding cannot move a tile's output across it."""


class Axis(NamedTuple):
    """One axis in tiles of equal length; the last tile overlaps the one before it.

    Output pixels [target, target + L) of a tile are ``weights`` (L, K) times its input pixels [source, source + K).
    """

    source: _Indices
    target: _Indices
    weights: FloatArray

    @property
    def length(self) -> int:
        """L."""
        return int(self.weights.shape[1])

    @property
    def reach(self) -> int:
        """K."""
        return int(self.weights.shape[2])


def enlarge(plane: FloatArray, size: tuple[int, int], rule: ResizeRule, out: FloatArray) -> None:
    """Enlarge a map.

    Args:
        plane: (H, W), finite.
        size: New (H, W), neither smaller than the old one.
        rule: The resize rule.
        out: (H, W) of the new size, which is written to.
    """
    rows, columns = _axes(plane, size, rule)
    every = np.indices((len(rows.source), len(columns.source))).reshape(2, -1)
    windows = tile_windows(out, rows, columns)
    for row, column, tiles in _computed(plane, rows, columns, every[0], every[1]):
        windows[rows.target[row], columns.target[column]] = tiles


def enlarge_above(plane: FloatArray, size: tuple[int, int], rule: ResizeRule, threshold: float) -> BoolArray:
    """Return where a map is above a threshold once it is enlarged.

    Args:
        plane: (H, W), finite.
        size: New (H, W), neither smaller than the old one.
        rule: The resize rule.
        threshold: The limit that every pixel is compared with, as float32.

    Returns:
        (H, W) bool: the same as ``out > threshold`` after :func:`enlarge`.
    """
    rows, columns = _axes(plane, size, rule)
    limit = np.float32(threshold)
    margin = abs(limit) * np.float32(_MARGIN)
    above = _all_along(_all_along(plane > limit + margin, rows).T, columns).T
    below = _all_along(_all_along(plane < limit - margin, rows).T, columns).T
    wide = np.repeat(above, columns.length, axis=1)[:, : size[1]]
    out: BoolArray = np.repeat(wide, rows.length, axis=0)[: size[0]]
    windows = tile_windows(out, rows, columns)
    undecided = np.nonzero(~(above | below))
    for row, column, tiles in _computed(plane, rows, columns, *undecided):
        windows[rows.target[row], columns.target[column]] = tiles > limit
    return out


def _computed(
    plane: FloatArray, rows: Axis, columns: Axis, row: _Indices, column: _Indices
) -> Iterator[tuple[_Indices, _Indices, FloatArray]]:
    """Yield tiles in batches: their tile rows (N,), their tile columns (N,), their pixels (N, L, L')."""
    windows = sliding_window_view(plane, (rows.reach, columns.reach))
    transposed = columns.weights.transpose(0, 2, 1)
    for start in range(0, len(row), _BATCH):
        i, j = row[start : start + _BATCH], column[start : start + _BATCH]
        yield i, j, rows.weights[i] @ (windows[rows.source[i], columns.source[j]] @ transposed[j])


def tile_windows(out: npt.NDArray[Any], rows: Axis, columns: Axis) -> npt.NDArray[Any]:
    """Return a writable view of an array, indexed by the first pixel of a tile."""
    return sliding_window_view(out, (rows.length, columns.length), writeable=True)


def _all_along(flags: BoolArray, axis: Axis) -> BoolArray:
    """Return whether all rows that a tile reads are true: (H, W) -> (T, W).

    Neighbourhoods of 1, 2, 4 ... rows are combined until two of them cover the rows that a tile reads.
    """
    combined, count = np.ascontiguousarray(flags), 1
    while 2 * count <= axis.reach:
        combined = combined[:-count] & combined[count:]
        count *= 2
    both: BoolArray = combined[axis.source] & combined[axis.source + axis.reach - count]
    return both


def _axes(plane: FloatArray, size: tuple[int, int], rule: ResizeRule) -> tuple[Axis, Axis]:
    height, width = plane.shape
    return _axis(height, size[0], ROWS, rule), _axis(width, size[1], COLUMNS, rule)


@lru_cache(maxsize=64)
def _axis(size_in: int, size_out: int, length: int, rule: ResizeRule) -> Axis:
    return tiled(size_in, resampling_weights(size_in, size_out, rule), length)


def tiled(size_in: int, resampling: ResamplingWeights, length: int) -> Axis:
    """Return an axis in tiles.

    Args:
        size_in: Number of input pixels.
        resampling: The weights of every output pixel.
        length: Output pixels of a tile; all of them where there are fewer.
    """
    first, weight = resampling
    size_out, count = weight.shape
    length = min(length, size_out)
    target = np.minimum(np.arange(0, size_out, length), size_out - length)
    low = first[target]
    reach = int((np.minimum(first[target + length - 1] + count, size_in) - low).max())
    source = np.minimum(low, size_in - reach)
    pixel = target[:, None] + np.arange(length)
    # Places beyond the last input pixel have no weight.
    weights = np.zeros((len(target), length, reach + count))
    index = (first[pixel] - source[:, None])[..., None] + np.arange(count)
    np.put_along_axis(weights, index, weight[pixel], axis=2)
    dense = np.ascontiguousarray(weights[..., :reach], dtype=np.float32)
    dense.setflags(write=False)
    return Axis(source, target, dense)
