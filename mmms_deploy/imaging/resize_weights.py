"""Which input pixels an output pixel is the mean of, along one axis, for every rule of bilinear resizing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ResizeRule

Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""First input pixel (N,), and the weights (N, K) of it and those that follow; what lies beyond the last has none."""


def taps(size_in: int, size_out: int, rule: ResizeRule) -> Taps:
    """Return the input pixels and weights of every output pixel of an axis, as PyTorch defines them.

    Args:
        size_in: Pixels before.
        size_out: Pixels after.
        rule: The resize rule.
    """
    return _antialiased(size_in, size_out) if rule.antialias else _two(size_in, size_out, rule.align_corners)


def _two(size_in: int, size_out: int, align_corners: bool) -> Taps:
    index = np.arange(size_out, dtype=np.float64)
    if align_corners:
        source = index * ((size_in - 1) / (size_out - 1)) if size_out > 1 else index
    else:
        source = np.maximum((index + 0.5) * (size_in / size_out) - 0.5, 0.0)
    first = np.minimum(source.astype(np.int64), size_in - 1)
    second = np.where(first < size_in - 1, source - first, 0.0)
    return first, np.stack([1.0 - second, second], axis=1)


def _antialiased(size_in: int, size_out: int) -> Taps:
    """Weights of a triangle, which is widened when shrinking."""
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = scale * (np.arange(size_out, dtype=np.float64) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size_in)
    pixel = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(1.0 - np.abs(pixel + 0.5 - centre[:, None]) / support, 0.0)
    weights[pixel >= last[:, None]] = 0.0
    return first, weights / weights.sum(axis=1, keepdims=True)
