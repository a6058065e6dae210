"""Resampling weights along one axis, for every rule of bilinear resizing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ResizeRule

ResamplingWeights = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""The first input pixel (N,) of every output pixel, and the weights (N, K) of that pixel and of those after it.

Places beyond the last input pixel have the weight 0.
"""


def resampling_weights(size_in: int, size_out: int, rule: ResizeRule) -> ResamplingWeights:
    """Return the input pixels and weights of every output pixel of an axis, as PyTorch defines them.

    Args:
        size_in: Number of input pixels.
        size_out: Number of output pixels.
        rule: The resize rule.
    """
    return _antialiased(size_in, size_out) if rule.antialias else _two_pixels(size_in, size_out, rule.align_corners)


def joined_weights(size_in: int, size_between: int, first: ResizeRule, second: ResizeRule) -> ResamplingWeights:
    """Return the weights of an axis that is resized to another size and back to its own.

    Args:
        size_in: Number of input pixels, and of output pixels.
        size_between: Number of pixels between the two.
        first: The rule from the axis' own size to the other one.
        second: The rule back.
    """
    return chained_weights(size_in, size_between, size_between, size_in, first, second)


def chained_weights(
    size_in: int, size_between: int, kept: int, size_out: int, first: ResizeRule, second: ResizeRule
) -> ResamplingWeights:
    """Return the weights of an axis that is resized to another size, cut at its end, and resized again.

    Args:
        size_in: Number of input pixels.
        size_between: Number of pixels between the two.
        kept: How many of these the second one takes, from the first on.
        size_out: Number of output pixels.
        first: The rule from the input to the other size.
        second: The rule to the output.
    """
    start, weight = resampling_weights(kept, size_out, second)
    # Places beyond the last pixel have the weight 0.
    pixel = np.minimum(start[:, None] + np.arange(weight.shape[1]), kept - 1)
    inner_start, inner_weight = resampling_weights(size_in, size_between, first)
    low = inner_start[pixel].min(axis=1)
    reach = int((inner_start[pixel].max(axis=1) - low).max()) + inner_weight.shape[1]
    joined = np.zeros((size_out, reach))
    rows = np.arange(size_out)[:, None, None]
    index = inner_start[pixel][:, :, None] - low[:, None, None] + np.arange(inner_weight.shape[1])
    np.add.at(joined, (rows, index), weight[:, :, None] * inner_weight[pixel])
    return low, joined


def _two_pixels(size_in: int, size_out: int, align_corners: bool) -> ResamplingWeights:
    index = np.arange(size_out, dtype=np.float64)
    if align_corners:
        source = index * ((size_in - 1) / (size_out - 1)) if size_out > 1 else index
    else:
        source = np.maximum((index + 0.5) * (size_in / size_out) - 0.5, 0.0)
    first = np.minimum(source.astype(np.int64), size_in - 1)
    second = np.where(first < size_in - 1, source - first, 0.0)
    return first, np.stack([1.0 - second, second], axis=1)


def _antialiased(size_in: int, size_out: int) -> ResamplingWeights:
    """Return the weights of a triangular kernel, which is widened when shrinking."""
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = scale * (np.arange(size_out, dtype=np.float64) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size_in)
    pixel = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(1.0 - np.abs(pixel + 0.5 - centre[:, None]) / support, 0.0)
    weights[pixel >= last[:, None]] = 0.0
    return first, weights / weights.sum(axis=1, keepdims=True)
