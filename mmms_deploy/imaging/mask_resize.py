"""Enlarges a map in small tiles, so that a mask costs only the tiles on its outline.

A separable resize is two multiplications with sparse, banded matrices. Cut into tiles of some ten pixels a side, the
matrices are small and dense, and every pixel of a tile is a mean of the few input pixels that the tile reads. When all
of these lie on one side of the threshold, the tile is decided without computing it. So only the tiles on the outline of
a mask are computed, typically a fifth of a full-size photograph. Where nearly all tiles are on an outline, whole rows
of tiles are computed together (:mod:`mmms_deploy.imaging.mask_strips`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.mask_strips import TileRows, strips_above
from mmms_deploy.imaging.resize_weights import resampling_weights
from mmms_deploy.imaging.threads import usable
from mmms_deploy.imaging.tiles import COLUMNS, ROWS, Axis, FloatArray, Indices, tile_windows, tiled

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_BATCH = 64
"""How many tiles are computed at a time: their numbers stay in the L2 cache of a core."""
_FULL = 0.6
"""Share of undecided tiles from which on all tiles of some tile rows are computed together."""
_NUMBERS = 1 << 18
"""Pixels of tile rows that are computed together, about: 1 MB, which stays in the L2 cache of a core."""
_WORTH_THREADS = 1 << 20
"""Pixels of a mask from which on it is worth another thread."""
_TRIALS = 1 << 18
"""Products' numbers that are compared to see whether they round alike, about."""
_MARGIN = 2.0**-19
"""Relative distance from the threshold at which rounding cannot move a tile's output across it."""


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
    for row, column, tiles in _computed(plane, size, rule, every[0], every[1]):
        windows[rows.target[row], columns.target[column]] = tiles


def enlarge_above(
    plane: FloatArray, size: tuple[int, int], rule: ResizeRule, threshold: float, threads: int | None = None
) -> BoolArray:
    """Return where a map is above a threshold once it is enlarged.

    Args:
        plane: (H, W), finite.
        size: New (H, W), neither smaller than the old one.
        rule: The resize rule.
        threshold: The limit that every pixel is compared with, as float32.
        threads: How many threads compute; None for as many as the work is worth and this process may use.

    Returns:
        (H, W) bool: the same as ``out > threshold`` after :func:`enlarge`, for any number of threads.
    """
    rows, columns = _axes(plane, size, rule)
    limit = np.float32(threshold)
    margin = abs(limit) * np.float32(_MARGIN)
    above = _all_along(_all_along(plane > limit + margin, rows).T, columns).T
    below = _all_along(_all_along(plane < limit - margin, rows).T, columns).T
    undecided = ~(above | below)
    if threads is None:
        threads = usable() if size[0] * size[1] >= _WORTH_THREADS else 1
    strips = _strips(undecided, size[1], threads)
    whole = sum(stop - start for start, stop in strips) == len(undecided)
    out = np.empty(size, dtype=np.bool_) if whole else _spread(above, rows, columns, size)
    if strips:
        strips_above(plane, limit, rows, columns, _turned(*plane.shape, *size, rule), strips, out, threads)
        for start, stop in strips:
            undecided[start:stop] = False
        if whole:
            return out
    windows = tile_windows(out, rows, columns)
    for row, column, tiles in _computed(plane, size, rule, *np.nonzero(undecided)):
        windows[rows.target[row], columns.target[column]] = tiles > limit
    return out


def _spread(flags: BoolArray, rows: Axis, columns: Axis, size: tuple[int, int]) -> BoolArray:
    """Return flags of tiles (T, T') as flags of their pixels (H', W')."""
    wide = np.repeat(flags, columns.length, axis=1)[:, : size[1]]
    out: BoolArray = np.repeat(wide, rows.length, axis=0)[: size[0]]
    return out


def _strips(undecided: BoolArray, width: int, threads: int) -> list[TileRows]:
    """Return the tile rows where most tiles (T, T') are undecided, in parts; the last two tile rows are in one part."""
    count, across = undecided.shape
    if np.count_nonzero(undecided) < _FULL * across:
        return []
    # Two threads take larger parts: who waits for Python's lock loses more than who leaves the cache.
    parts = -(-count * ROWS * width // (threads * _NUMBERS))
    parts += -parts % threads
    starts = np.arange(0, max(count - 1, 1), -(-count // parts))
    found = np.add.reduceat(np.count_nonzero(undecided, axis=1), starts)
    stops = np.append(starts[1:], count)
    full = found >= _FULL * across * (stops - starts)
    return [TileRows(start, stop) for start, stop in zip(starts[full].tolist(), stops[full].tolist(), strict=True)]


def _computed(
    plane: FloatArray, size: tuple[int, int], rule: ResizeRule, row: Indices, column: Indices
) -> Iterator[tuple[Indices, Indices, FloatArray]]:
    """Yield tiles in batches: their tile rows (N,), their tile columns (N,), their pixels (N, L, L')."""
    rows, columns = _axes(plane, size, rule)
    turned = _turned(*plane.shape, *size, rule)
    windows = sliding_window_view(plane, (rows.reach, columns.reach))
    for start in range(0, len(row), _BATCH):
        i, j = row[start : start + _BATCH], column[start : start + _BATCH]
        yield i, j, rows.weights[i] @ (windows[rows.source[i], columns.source[j]] @ turned[j])


@lru_cache(maxsize=64)
def _turned(height: int, width: int, size_height: int, size_width: int, rule: ResizeRule) -> FloatArray:
    """Return the columns' weights transposed, (T, K, L), in the order in memory that is multiplied fastest.

    With a transposed view a product takes up to twice as long. But some kernels for small matrices round otherwise with
    the one than with the other, and masks stay what they are with a view. It depends on the sizes of the matrices, so
    random numbers show it. Where there are few tiles, nothing is to be gained.
    """
    rows, columns = _axis(height, size_height, ROWS, rule), _axis(width, size_width, COLUMNS, rule)
    view = columns.weights.transpose(0, 2, 1)
    if len(rows.source) * len(view) < _BATCH:
        return view
    turned = np.ascontiguousarray(view)
    turned.setflags(write=False)
    rng = np.random.default_rng(0)
    count = -(-_TRIALS // (_BATCH * rows.reach * columns.length))
    for tiles in np.resize(np.arange(len(view)), (count, _BATCH)):
        read = rng.standard_normal((_BATCH, rows.reach, columns.reach), dtype=np.float32)
        if not np.array_equal(read @ turned[tiles], read @ view[tiles]):
            return view
    return turned


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
