"""How an image or a modality is prepared on the GPU: tables of weights, and bands of rows.

The kernels of ``image.cu`` do the arithmetic of :func:`mmms_deploy.imaging.preprocess.prepare` on float32, with the
same weights (:mod:`mmms_deploy.imaging.resize_weights`). Only the order of the sums is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.imaging.resize_weights import resampling_weights

BAND = 1 << 20
"""Bytes of the image's rows that go up at once, at most."""
NARROWED = 2 << 20
"""Bytes of a band's rows at the width of the result, at most."""
TABLES = 1 << 19
"""Bytes of the tables, at most: of pictures whose sides together have about 60,000 pixels."""
_ROWS = 1 << 16
"""Rows of a band, at most: a grid of blocks has no more along y."""
_NUMBERS = 1 << 31
"""The kernels count the numbers of a result in 32 bits."""


class Band(NamedTuple):
    """Rows of the image, and the lines of the result that they add to.

    Attributes:
        top: The first row.
        rows: How many.
        begin: The first line.
        lines: How many; 0 for rows that no line takes.
    """

    top: int
    rows: int
    begin: int
    lines: int


@dataclass(frozen=True, eq=False)
class Plan:
    """How images of one size are prepared.

    Attributes:
        size: (H0, W0) of the image.
        channels: C.
        dtype: Of its numbers: uint8 or float32.
        result: (H, W) of the result.
        taps: Weights of a line, and of a column.
        tables: All tables, one after the other, as bytes.
        places: Where each of them begins, in bytes: the first row of every line (H) int32 and its weights
            (H, taps[0]) float32; the first pixel of every column (W) int32 and its weights (taps[1], W) float32;
            factor, mean and standard deviation (3, C) float32.
        band: Rows of a band.
        reach: (H, 2): the first row of every line, and the one after its last.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    result: tuple[int, int]
    taps: tuple[int, int]
    tables: npt.NDArray[np.uint8]
    places: tuple[int, int, int, int, int]
    band: int
    reach: npt.NDArray[np.int64]

    def bands(self) -> Iterator[Band]:
        """Yield the bands, from top to bottom."""
        for top in range(0, self.size[0], self.band):
            bottom = min(top + self.band, self.size[0])
            begin = int(np.searchsorted(self.reach[:, 1], top, side="right"))
            end = int(np.searchsorted(self.reach[:, 0], bottom, side="left"))
            yield Band(top, bottom - top, begin, max(0, end - begin))


def plan_for(
    array: npt.NDArray[Any], rule: ImageSpec | ModalitySpec, result: tuple[int, int], *, mirrored: bool
) -> Plan | None:
    """Return how an image is prepared.

    Args:
        array: (H0, W0, C): uint8 of an image, or float32 of a modality in the network's unit.
        rule: The checkpoint's preparation.
        result: (H, W) of the network.
        mirrored: Whether the result is its mirror image.

    Returns:
        The plan; None for what the host has to prepare: other numbers than these, and pictures with a side that is
        longer than the memory for bands and tables allows.
    """
    height, width, channels = array.shape
    dtype = array.dtype.name
    scale = rule.scale if isinstance(rule, ImageSpec) else 1.0
    assert isinstance(scale, float | int)
    if dtype != ("uint8" if isinstance(rule, ImageSpec) else "float32") or len(rule.mean) != channels:
        return None
    longest = max(height, width)
    few = longest <= TABLES and channels * result[0] * result[1] < _NUMBERS
    if not few or width * channels * array.dtype.itemsize > BAND or channels * result[1] * 4 > NARROWED:
        return None
    plan = _plan((height, width), dtype, result, rule.resize, float(scale), rule.mean, rule.std, mirrored)
    return plan if len(plan.tables) <= TABLES else None


@lru_cache(maxsize=32)
def _plan(
    size: tuple[int, int],
    dtype: str,
    result: tuple[int, int],
    resize: ResizeRule,
    scale: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mirrored: bool,
) -> Plan:
    channels = len(mean)
    first_row, row_weights = resampling_weights(size[0], result[0], resize)
    first_pixel, pixel_weights = resampling_weights(size[1], result[1], resize)
    if mirrored:
        first_pixel, pixel_weights = first_pixel[::-1], pixel_weights[::-1]
    parts = (
        first_row.astype(np.int32),
        row_weights.astype(np.float32),
        first_pixel.astype(np.int32),
        np.ascontiguousarray(pixel_weights.T, dtype=np.float32),
        np.array([(scale,) * channels, mean, std], dtype=np.float32),
    )
    ends = np.cumsum([part.nbytes for part in parts])
    tables = np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])
    tables.setflags(write=False)
    row_bytes, narrow_bytes = size[1] * channels * np.dtype(dtype).itemsize, channels * result[1] * 4
    return Plan(
        size=size,
        channels=channels,
        dtype=dtype,
        result=result,
        taps=(row_weights.shape[1], pixel_weights.shape[1]),
        tables=tables,
        places=(0, *(int(end) for end in ends[:-1])),  # type: ignore[arg-type]
        band=max(1, min(BAND // row_bytes, NARROWED // narrow_bytes, _ROWS, size[0])),
        reach=np.stack([first_row, np.minimum(first_row + row_weights.shape[1], size[0])], axis=1),
    )
