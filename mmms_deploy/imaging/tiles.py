"""One axis of a resize in tiles: small dense pieces of its sparse, banded matrix."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.imaging.resize_weights import ResamplingWeights

FloatArray: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.intp]

ROWS, COLUMNS = 32, 64
"""A tile's size in the enlarged map."""


class Axis(NamedTuple):
    """One axis in T tiles of equal length; the last tile overlaps the one before it.

    Output pixels [target, target + L) of a tile are ``weights`` (L, K) times its input pixels [source, source + K).
    """

    source: Indices
    target: Indices
    weights: FloatArray

    @property
    def length(self) -> int:
        """L."""
        return int(self.weights.shape[1])

    @property
    def reach(self) -> int:
        """K."""
        return int(self.weights.shape[2])


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


def tile_windows(out: npt.NDArray[Any], rows: Axis, columns: Axis) -> npt.NDArray[Any]:
    """Return a writable view of an array, indexed by the first pixel of a tile."""
    return sliding_window_view(out, (rows.length, columns.length), writeable=True)
