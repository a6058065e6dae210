"""Compares the position tables of a Hiera by what they add to the tokens.

The table of the whole image and the one of a window share a constant for each channel that no map can tell. So tables
are compared by the maps that they give, and never by their numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmms_deploy.weights.arrays import Array
from mmms_deploy.weights.position_map import position_map

_GAIN = 1.375**2
"""The most that bicubic enlarging makes of an error: the kernel's weights half-way between two positions, added up
without their signs, along both axes."""
_NOISE = 1e-5
"""Part of the largest position by which float32 may differ; sums and the kernel's weights are rounded to 1e-7."""
_HALVES = 2.0
"""Times that a number may have been rounded to float16: in the tables here, and in those of the source."""


def map_of(table: Array, window: Array, grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return what two tables of any floating-point type add to the tokens of the first stage.

    Args:
        table: (1, C, h, w), the table of the whole image.
        window: (1, C, m, m), the table of one window.
        grid: (H, W) of the first stage, multiples of m.

    Returns:
        (1, C, H, W) float32.
    """
    return position_map(np.asarray(table, dtype=np.float32), np.asarray(window, dtype=np.float32), grid)


def same_positions(table: Array, window: Array, other: Array) -> bool:
    """Return whether two tables in float16 give a map, as far as tables that were rounded can.

    Each number of a table is off by at most half a unit in its last place; the largest error of each token follows.

    Args:
        table: (1, C, h, w) float16.
        window: (1, C, m, m) float16.
        other: (1, C, H, W), the map.
    """
    grid = (other.shape[2], other.shape[3])
    if other.shape[1] != table.shape[1] or not all(grid) or any(n % window.shape[2] for n in grid):
        return False
    wanted = map_of(table, window, grid)
    repeats = (1, 1, grid[0] // window.shape[2], grid[1] // window.shape[3])
    limit = _GAIN * _half_units(table).max(axis=(2, 3), keepdims=True) + np.tile(_half_units(window), repeats)
    noise = _NOISE * float(np.abs(wanted).max())
    return bool((np.abs(other - wanted) <= _HALVES * limit + noise).all())


def _half_units(halves: Array) -> npt.NDArray[np.float32]:
    return np.asarray(np.abs(np.spacing(halves)), dtype=np.float32) * np.float32(0.5)
