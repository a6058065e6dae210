"""The position map of a Hiera at a grid, with the very bits that PyTorch computes on a CPU.

A Hiera adds to its tokens a table of the whole image, resized to the grid, and the table of one window, repeated over
it (Ravi et al. 2024, section 4; :func:`mmms_deploy.models.hiera.position_map`). Exports fold the sum into a constant.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_A = -0.75
"""Parameter of PyTorch's cubic convolution (Keys 1981, equation 4)."""


def position_map(table: FloatArray, window: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """Return the sum of a resized table and a repeated one.

    Every step rounds as PyTorch's kernel for CPUs does: columns first, then rows; of four products the second is
    rounded, and the first, the third and the fourth are added to it without being rounded before (fused). The same bits
    come out on every machine, because NumPy rounds each operation by itself.

    Args:
        table: (1, C, h, w) float32, resized bicubically, corners not aligned, not antialiased.
        window: (1, C, m, n) float32.
        grid: (H, W), multiples of (m, n).

    Returns:
        (1, C, H, W) float32.

    Raises:
        ValueError: The shapes do not fit.
    """
    repeats = grid[0] // window.shape[2], grid[1] // window.shape[3]
    columns = _resized(table, grid[1])
    rows = _resized(columns.swapaxes(2, 3), grid[0]).swapaxes(2, 3)
    return rows + np.tile(window, (1, 1, *repeats))


def _resized(table: FloatArray, size: int) -> FloatArray:
    """Resize the last axis."""
    length = table.shape[3]
    source = np.float32(length / size) * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    low = np.floor(source)
    right = (source - low).astype(np.float64)
    weights = [_far(right + 1), _near(right), _near(1 - right), _far(2 - right)]
    places = [np.clip(low.astype(np.int64) + step, 0, length - 1) for step in (-1, 0, 1, 2)]
    total = table[..., places[1]] * weights[1]
    for step in (0, 2, 3):
        exact = table[..., places[step]].astype(np.float64) * weights[step].astype(np.float64)
        total = (exact + total).astype(np.float32)
    return total


def _near(x: npt.NDArray[np.float64]) -> FloatArray:
    return (((_A + 2) * x - (_A + 3)) * x * x + 1).astype(np.float32)


def _far(x: npt.NDArray[np.float64]) -> FloatArray:
    return (((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A).astype(np.float32)
