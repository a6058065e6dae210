"""Decides at the image's size which of several owners has the largest map, without computing most of the maps there.

The maps are enlarged, cut and resized again, which is linear: one sparse, banded matrix for each axis. In tiles, as in
:mod:`mmms_deploy.imaging.mask_resize`, every pixel is a mean of the few input pixels that its tile reads, and so lies
between their least and their greatest. A map that cannot be the largest in a tile is left out there, and a tile where
one owner is left is decided. So a label map costs the tiles along its outlines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.resize_weights import chained_weights
from mmms_deploy.imaging.tiles import COLUMNS, ROWS, Axis, FloatArray, tile_windows, tiled

_BATCH = 64
"""How many tiles are computed at a time."""
_MARGIN = 2.0**-18
"""Share of the largest number by which rounding cannot change the order of two maps."""

_Indices = npt.NDArray[np.intp]


class Enlargement(NamedTuple):
    """How maps become as large as the image.

    Attributes:
        between: (H', W') to which they are enlarged first.
        kept: (H, W) of it, from the top left, that is resized to the image.
        size: (H0, W0) of the image.
        rule: The rule of both.
    """

    between: tuple[int, int]
    kept: tuple[int, int]
    size: tuple[int, int]
    rule: ResizeRule


class LargestMap:
    """Maps of several owners, compared at the image's size.

    Args:
        planes: (R, h, w) float32, finite.
        owners: (R,) the owner of every map; 0 or more.
        how: How they are enlarged.
    """

    def __init__(self, planes: FloatArray, owners: npt.NDArray[np.int32], how: Enlargement) -> None:
        self._planes, self._owners, self._size = planes, owners, how.size
        height, width = planes.shape[1:]
        self._rows = _axis(height, how.between[0], how.kept[0], how.size[0], ROWS, how.rule)
        self._columns = _axis(width, how.between[1], how.kept[1], how.size[1], COLUMNS, how.rule)
        self._margin = np.float32(_MARGIN * max(1.0, float(np.abs(planes).max())))
        self._high = self._extreme(np.max)
        self._low = self._extreme(np.min)

    def labels(self) -> npt.NDArray[np.int32]:
        """Return the owner of the largest map at every pixel, (H0, W0) int32.

        The lowest of the owners above 0 wins a tie between them, and any of them a tie with 0.
        """
        owners = np.unique(self._owners)
        # 0 comes last, so that a later owner must be larger to win.
        ordered = [int(owner) for owner in (*owners[owners > 0], *owners[owners == 0])]
        rows = [np.flatnonzero(self._owners == owner) for owner in ordered]
        high = np.stack([self._high[place].max(axis=0) for place in rows])
        low = np.stack([self._low[place].max(axis=0) for place in rows])
        floor = low.max(axis=0) - self._margin
        possible = high >= floor
        first = np.array(ordered, dtype=np.int32)[possible.argmax(axis=0)]
        wide = np.repeat(first, self._columns.length, axis=1)[:, : self._size[1]]
        out: npt.NDArray[np.int32] = np.repeat(wide, self._rows.length, axis=0)[: self._size[0]]
        windows = tile_windows(out, self._rows, self._columns)
        for i, j in _batches(*np.nonzero(possible.sum(axis=0) > 1)):
            best = np.full((len(i), self._rows.length, self._columns.length), -np.inf, dtype=np.float32)
            found = np.zeros(best.shape, dtype=np.int32)
            for owner, place in zip(ordered, rows, strict=True):
                most = self._most(place, i, j, floor)
                np.copyto(found, owner, where=most > best)
                np.maximum(best, most, out=best)
            windows[self._rows.target[i], self._columns.target[j]] = found
        return out

    def margin(self, owner: int) -> FloatArray:
        """Return the largest of an owner's maps minus the largest of all others, (H0, W0) float32.

        Args:
            owner: It has a map. Where no other has one, the margin is infinite.
        """
        own, others = np.flatnonzero(self._owners == owner), np.flatnonzero(self._owners != owner)
        out = np.empty(self._size, dtype=np.float32)
        windows = tile_windows(out, self._rows, self._columns)
        every = np.indices((len(self._rows.target), len(self._columns.target))).reshape(2, -1)
        floors = [self._low[place].max(axis=0, initial=-np.inf) - self._margin for place in (own, others)]
        for i, j in _batches(every[0], every[1]):
            mine, theirs = (self._most(p, i, j, floor) for p, floor in zip((own, others), floors, strict=True))
            windows[self._rows.target[i], self._columns.target[j]] = mine - theirs
        return out

    def _most(self, rows: Sequence[int] | _Indices, i: _Indices, j: _Indices, floor: FloatArray) -> FloatArray:
        """Return the largest of some maps in tiles, (N, L, L'); -inf where none of them reaches the floor there."""
        most = np.full((len(i), self._rows.length, self._columns.length), -np.inf, dtype=np.float32)
        transposed = self._columns.weights.transpose(0, 2, 1)
        for row in rows:
            there = np.flatnonzero(self._high[row, i, j] >= floor[i, j])
            if not len(there):
                continue
            tiles, others = i[there], j[there]
            plane = np.lib.stride_tricks.sliding_window_view(self._planes[row], (self._rows.reach, self._columns.reach))
            read = plane[self._rows.source[tiles], self._columns.source[others]]
            most[there] = np.maximum(most[there], self._rows.weights[tiles] @ (read @ transposed[others]))
        return most

    def _extreme(self, of: Callable[..., FloatArray]) -> FloatArray:
        """Return the greatest or the least number that every tile reads of every map, (R, T, T')."""
        first = [of(self._planes[:, s : s + self._rows.reach], axis=1) for s in self._rows.source]
        lines = np.stack(first, axis=1)
        return np.stack([of(lines[:, :, s : s + self._columns.reach], axis=2) for s in self._columns.source], axis=2)


def _batches(i: _Indices, j: _Indices) -> Iterator[tuple[_Indices, _Indices]]:
    for start in range(0, len(i), _BATCH):
        yield i[start : start + _BATCH], j[start : start + _BATCH]


@lru_cache(maxsize=64)
def _axis(size_in: int, between: int, kept: int, size_out: int, length: int, rule: ResizeRule) -> Axis:
    return tiled(size_in, chained_weights(size_in, between, kept, size_out, rule, rule), length)
