"""Bilinear resizing, equal to ``torch.nn.functional.interpolate`` and fast.

Image libraries disagree about "bilinear" (where pixel centres are, whether the kernel widens when shrinking), and a
mask shifted by half a pixel is the most common fault of a deployed model. So the checkpoint defines the rule
(:class:`~mmms_deploy.bundle.contract.ResizeRule`), and this module does the arithmetic.

A separable resize is two multiplications with sparse, banded matrices. Each band is cut into blocks small enough to be
dense. So all work is matrix products on blocks that stay in the cache. Each product is too small for the BLAS library
to spread over threads, because its threads and the engine's, on the same cores, can stall each other for a time slice.
Maps that only grow, such as masks, are computed in tiles (:mod:`mmms_deploy.imaging.mask_resize`), and images in pieces
that threads share (:mod:`mmms_deploy.imaging.image_resize`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.image_resize import resize_channels_last
from mmms_deploy.imaging.mask_resize import BoolArray, enlarge, enlarge_above
from mmms_deploy.imaging.resize_weights import ResamplingWeights, joined_weights, resampling_weights
from mmms_deploy.imaging.tiles import FloatArray

__all__ = ["BoolArray", "FloatArray", "resize", "resize_above", "resize_image"]

# Multiplications in one matrix product. OpenBLAS uses a second thread from twice this number on (SMP_THRESHOLD_MIN
# times GEMM_MULTITHREAD_THRESHOLD in its interface/gemm.c).
_PRODUCT = 1 << 18


class _Band(NamedTuple):
    """Output pixels [start, stop) are ``weights`` (stop - start, last - first) times input pixels [first, last)."""

    start: int
    stop: int
    first: int
    last: int
    weights: FloatArray


def resize(array: npt.NDArray[Any], size: tuple[int, int], rule: ResizeRule) -> FloatArray:
    """Resize maps; the aspect ratio is not kept.

    Args:
        array: (..., H, W), any real dtype, finite.
        size: New (H, W), each at least 1.
        rule: The resize rule.

    Returns:
        (..., H, W) float32.
    """
    height, width = array.shape[-2:]
    _check(height, width, size)
    planes = array.reshape(-1, height, width)
    out = np.empty((len(planes), *size), dtype=np.float32)
    for plane, target in zip(planes, out, strict=True):
        if (height, width) == size:
            target[:] = plane
        elif _enlarges(plane, size):
            enlarge(plane.astype(np.float32, copy=False), size, rule, target)
        else:
            for start, stop, block in _row_blocks(plane, size, rule):
                target[start:stop] = block
    return out.reshape(*array.shape[:-2], *size)


def resize_image(image: npt.NDArray[Any], size: tuple[int, int], rule: ResizeRule) -> FloatArray:
    """Resize an image with its channels last, and put the channels first.

    Args:
        image: (H, W, C), any real dtype, finite.
        size: New (H, W), each at least 1.
        rule: The resize rule.

    Returns:
        (C, H, W) float32.
    """
    height, width, _ = image.shape
    _check(height, width, size)
    return resize_channels_last(image, size, rule)


def resize_above(array: npt.NDArray[Any], size: tuple[int, int], rule: ResizeRule, threshold: float) -> BoolArray:
    """Return ``resize(array, size, rule) > threshold`` without ever holding the resized map in float32.

    Args:
        array: (H, W), any real dtype, finite.
        size: New (H, W), each at least 1.
        rule: The resize rule.
        threshold: The limit that every pixel is compared with.

    Returns:
        (H, W) bool.
    """
    height, width = array.shape
    _check(height, width, size)
    limit = np.float32(threshold)
    if (height, width) == size:
        return array.astype(np.float32, copy=False) > limit
    if _enlarges(array, size):
        return enlarge_above(array.astype(np.float32, copy=False), size, rule, threshold)
    out = np.empty(size, dtype=np.bool_)
    for start, stop, block in _row_blocks(array, size, rule):
        np.greater(block, limit, out=out[start:stop])
    return out


def through_image(array: FloatArray, size: tuple[int, int], up: ResizeRule, down: ResizeRule) -> FloatArray:
    """Return ``resize(resize(array, size, up), (H, W), down)`` without ever holding the resized map.

    Both resizes are linear, and so one matrix for each axis, whose few diagonals are independent of ``size``.

    Args:
        array: (H, W) float32, finite.
        size: The size between, such as the image's (H0, W0), each at least 1.
        up: The rule from (H, W) to that size.
        down: The rule back.

    Returns:
        (H, W) float32; it differs from the two resizes by rounding alone.
    """
    height, width = array.shape
    _check(height, width, size)
    if (height, width) == size:
        return array.astype(np.float32)
    out = np.empty_like(array, dtype=np.float32)
    columns = _bands_through(width, size[1], up, down)
    for band in _bands_through(height, size[0], up, down):
        block = _apply_rows(band.weights, array[band.first : band.last])
        out[band.start : band.stop] = _apply_columns(block, columns, width)
    return out


def _check(height: int, width: int, size: tuple[int, int]) -> None:
    if min(height, width, *size) < 1:
        raise ValueError(f"cannot resize ({height}, {width}) to {size}: every side must be at least 1")


def _enlarges(plane: npt.NDArray[Any], size: tuple[int, int]) -> bool:
    height, width = plane.shape
    return bool(height <= size[0] and width <= size[1])


def _row_blocks(
    plane: npt.NDArray[Any], size: tuple[int, int], rule: ResizeRule
) -> Iterator[tuple[int, int, FloatArray]]:
    """Yield (start, stop, resized rows [start, stop)) of one (H, W) plane, from top to bottom."""
    columns = _bands(plane.shape[1], size[1], rule)
    for band in _bands(plane.shape[0], size[0], rule):
        block = _apply_rows(band.weights, plane[band.first : band.last])
        yield band.start, band.stop, _apply_columns(block, columns, size[1])


def _apply_rows(weights: FloatArray, rows: npt.NDArray[Any]) -> FloatArray:
    """Return weights (M, N) times rows (N, W) of any real dtype."""
    width = rows.shape[1]
    out = np.empty((len(weights), width), dtype=np.float32)
    step = max(1, _PRODUCT // weights.size)
    for start in range(0, width, step):
        part = slice(start, start + step)
        np.matmul(weights, rows[:, part].astype(np.float32, copy=False), out=out[:, part])
    return out


def _apply_columns(rows: FloatArray, bands: tuple[_Band, ...], width: int) -> FloatArray:
    """Return rows (M, W) with every row resized to ``width``."""
    out = np.empty((len(rows), width), dtype=np.float32)
    for band in bands:
        columns = slice(band.start, band.stop)
        step = max(1, _PRODUCT // band.weights.size)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            np.matmul(rows[part, band.first : band.last], band.weights.T, out=out[part, columns])
    return out


@lru_cache(maxsize=64)
def _bands(size_in: int, size_out: int, rule: ResizeRule) -> tuple[_Band, ...]:
    """Return the interpolation along one axis as dense blocks of its banded matrix."""
    return _dense(size_in, resampling_weights(size_in, size_out, rule))


@lru_cache(maxsize=64)
def _bands_through(size_in: int, size_between: int, up: ResizeRule, down: ResizeRule) -> tuple[_Band, ...]:
    """Return the same for an axis that is resized and brought back."""
    return _dense(size_in, joined_weights(size_in, size_between, up, down))


def _dense(size_in: int, resampling: ResamplingWeights) -> tuple[_Band, ...]:
    first, weight = resampling
    size_out, count = weight.shape
    # Longer blocks multiply more zeros, the more so the wider the kernel is; shorter ones have more overhead.
    scale = size_out / size_in
    step = int(np.clip(48 * scale * min(scale, 1.0), 8, 96))
    bands = []
    for start in range(0, size_out, step):
        stop = min(start + step, size_out)
        low = int(first[start])
        last = min(int(first[stop - 1]) + count, size_in)
        weights = np.zeros((stop - start, last - low + count), dtype=np.float64)
        index = first[start:stop, None] - low + np.arange(count)
        np.put_along_axis(weights, index, weight[start:stop], axis=1)
        dense = np.ascontiguousarray(weights[:, : last - low], dtype=np.float32)
        dense.setflags(write=False)
        bands.append(_Band(start, stop, low, last, dense))
    return tuple(bands)
