"""Adaptive pooling to any number of windows, in operators that ONNX has.

Window k of n over a side of h covers the places from floor(k h / n) to ceil((k + 1) h / n), so windows overlap where n
does not divide h. ONNX has no operator for that. Both poolings are separable: rows first, then columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def windows(side: int, count: int) -> list[tuple[int, int]]:
    """Return the first place of every window, and the first after it.

    Args:
        side: h, the places.
        count: n, the windows; at least 1 and at most h.
    """
    return [(k * side // count, -(-(k + 1) * side // count)) for k in range(count)]


def adaptive_max_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maximum in every window, (B, C, H, W) -> (B, C, *size).

    The rows and columns of all windows are gathered, shorter windows with their last place repeated, so that they can
    be reduced together.
    """
    return _max_along(_max_along(x, 2, size[0]), 3, size[1])


def _max_along(x: Tensor, axis: int, count: int) -> Tensor:
    side = x.shape[axis]
    if side == count:
        return x
    if side % count:
        spans = windows(side, count)
        longest = max(stop - start for start, stop in spans)
        places = [min(start + step, stop - 1) for start, stop in spans for step in range(longest)]
        x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]).amax(axis + 1)


def adaptive_mean_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the mean of every window, (B, C, H, W) -> (B, C, *size): a matrix product from either side."""
    rows, columns = (mean_matrix(side, count).to(x) for side, count in zip(x.shape[2:], size, strict=True))
    means: Tensor = rows @ (x @ columns.T)
    return means


def mean_matrix(side: int, count: int) -> Tensor:
    """Return the mean over windows along one axis as a (count, side) matrix; its rows sum to one."""
    matrix = torch.zeros(count, side)
    for row, (start, stop) in zip(matrix, windows(side, count), strict=True):
        row[start:stop] = 1.0 / (stop - start)
    return matrix
