"""Compares the position tables of a Hiera by what they add to the tokens.

The table of the whole image and the one of a window share a constant for each channel that no map can tell. So tables
are compared by the maps that they give, and never by their numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmms_deploy.weights.arrays import Array

_CUBIC = -0.75
"""The parameter of the bicubic kernel, as PyTorch has it (Keys 1981)."""
_NOISE = 1e-5
"""Part of the largest position by which float32 may differ; sums and the kernel's weights are rounded to 1e-7."""
_HALVES = 2.0
"""Times that a number may have been rounded to float16: in the tables here, and in those of the source."""


def position_map(table: Array, window: Array, grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return what a Hiera adds to the tokens of its first stage.

    The table is enlarged (bicubic, corners not aligned, not antialiased), and the window's is repeated over it.

    Args:
        table: (1, C, h, w), the table of the whole image.
        window: (1, C, m, m), the table of one window.
        grid: (H, W) of the first stage, multiples of m.

    Returns:
        (1, C, H, W) float32.
    """
    enlarged = _weighted(table[0].astype(np.float32), grid, signed=True)
    summed: npt.NDArray[np.float32] = (enlarged + _repeated(window[0].astype(np.float32), grid))[None]
    return summed


def same_positions(table: Array, window: Array, other: Array) -> bool:
    """Return whether two tables in float16 give a map, as far as tables that were rounded can.

    Each number of a table is off by at most half a unit in its last place. The largest error of the map follows from
    that, token by token.

    Args:
        table: (1, C, h, w) float16.
        window: (1, C, m, m) float16.
        other: (1, C, H, W), the map.
    """
    grid = (other.shape[2], other.shape[3])
    if other.shape[1] != table.shape[1] or not all(grid) or any(n % window.shape[2] for n in grid):
        return False
    limit = _weighted(_half_units(table[0]), grid, signed=False) + _repeated(_half_units(window[0]), grid)
    wanted = position_map(table, window, grid)
    noise = _NOISE * float(np.abs(wanted).max())
    return bool((np.abs(other - wanted) <= _HALVES * limit + noise).all())


def _half_units(halves: Array) -> npt.NDArray[np.float32]:
    return np.asarray(np.abs(np.spacing(halves)), dtype=np.float32) * np.float32(0.5)


def _repeated(window: npt.NDArray[np.float32], grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.tile(window, (1, grid[0] // window.shape[1], grid[1] // window.shape[2]))


def _weighted(table: npt.NDArray[np.float32], grid: tuple[int, int], *, signed: bool) -> npt.NDArray[np.float32]:
    """(C, h, w) -> (C, H, W), with the kernel's weights or their absolute values."""
    rows, columns = (_kernel(old, new) for old, new in zip(table.shape[1:], grid, strict=True))
    if not signed:
        rows, columns = np.abs(rows), np.abs(columns)
    return np.asarray(rows @ table @ columns.T, dtype=np.float32)


def _kernel(old: int, new: int) -> npt.NDArray[np.float32]:
    """Return the weights (new, old) of bicubic enlarging along an axis."""
    weights = np.zeros((new, old))
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(at).astype(int)
    for tap in range(-1, 3):
        x = np.abs(at - (first + tap))
        near = (_CUBIC + 2) * x**3 - (_CUBIC + 3) * x**2 + 1
        far = _CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
        np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), np.where(x <= 1, near, far))
    return weights.astype(np.float32)
