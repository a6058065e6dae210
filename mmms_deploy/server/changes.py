"""Where a label map changed, as run lengths; and the area and the box of every label.

A click changes a part of the map, so that only this part is looked at for areas, and is all that is sent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]


class Changed(NamedTuple):
    """A rectangle of a label map, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, labels: Labels) -> Labels:
        """Return its part of a label map."""
        return labels[self.y : self.y + self.height, self.x : self.x + self.width]


def bounds(mask: npt.NDArray[np.bool_]) -> Changed | None:
    """Return the rectangle around the true pixels of a mask (H, W); None where there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Changed(left, top, right - left, bottom - top)


def runs(labels: Labels) -> bytes:
    """Return a label map, row by row, as pairs of label and run length: uint32, little-endian.

    Args:
        labels: (h, w) of any size, also without a pixel.
    """
    flat = labels.ravel()
    if not flat.size:
        return b""
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    pairs = np.empty((len(starts), 2), dtype="<u4")
    pairs[:, 0] = flat[starts]
    pairs[:-1, 1] = np.diff(starts)
    pairs[-1, 1] = flat.size - starts[-1]
    return pairs.tobytes()


class Seen:
    """The label map that a client saw last."""

    def __init__(self) -> None:
        self._labels: Labels | None = None

    def update(self, labels: Labels, *, whole: bool = False) -> Changed | None:
        """Note a new map, and return where it differs from the one before; all of it where there was none.

        Args:
            labels: (H0, W0).
            whole: Whether all of it counts as changed.
        """
        before, self._labels = self._labels, labels
        height, width = labels.shape
        if whole or before is None or before.shape != labels.shape:
            return Changed(0, 0, width, height)
        return None if before is labels else bounds(before != labels)

    def forget(self) -> None:
        """Forget the map, so that the next one is sent whole."""
        self._labels = None


class Extent(NamedTuple):
    """How many pixels a label has, and the rectangle around them; None where it has none."""

    area: int
    box: Changed | None


_NONE = Extent(0, None)


class Extents:
    """Areas and boxes of the labels of a map, counted again where it changed and nowhere else."""

    def __init__(self) -> None:
        self._labels: Labels | None = None
        self._known: dict[int, Extent] = {}

    def of(self, labels: Labels) -> dict[int, Extent]:
        """Return the extent of every label of a map that has pixels, without the background's.

        Args:
            labels: (H0, W0); its labels are not negative.
        """
        before, self._labels = self._labels, labels
        if before is labels:
            return self._known
        if before is None or before.shape != labels.shape:
            before, self._known = np.zeros_like(labels), {}
        changed = bounds(before != labels)
        if changed is not None:
            self._count(before, labels, changed)
        return self._known

    def forget(self) -> None:
        """Forget the map."""
        self._labels, self._known = None, {}

    def _count(self, before: Labels, labels: Labels, changed: Changed) -> None:
        areas = _counts(changed.of(labels))
        for label, lost in _counts(changed.of(before)).items():
            areas[label] = areas.get(label, 0) - lost
        known = dict(self._known)
        for label, more in areas.items():
            old = known.get(label, _NONE)
            area = old.area + more
            if not area:
                known.pop(label, None)
                continue
            around = changed if old.box is None else _union(old.box, changed)
            found = bounds(around.of(labels) == label)
            known[label] = Extent(area, found and found._replace(x=found.x + around.x, y=found.y + around.y))
        self._known = known


def _counts(labels: Labels) -> dict[int, int]:
    """Return how many pixels every label has, without the background's."""
    flat = labels.ravel()
    # By runs: a map has few of them, and np.unique would sort all pixels.
    starts: npt.NDArray[Any] = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    found, where = np.unique(flat[starts], return_inverse=True)
    sums = np.bincount(where, weights=lengths).astype(np.int64)
    return {int(label): int(total) for label, total in zip(found, sums, strict=True) if label}


def _union(one: Changed, other: Changed) -> Changed:
    left, top = min(one.x, other.x), min(one.y, other.y)
    right = max(one.x + one.width, other.x + other.width)
    bottom = max(one.y + one.height, other.y + other.height)
    return Changed(left, top, right - left, bottom - top)
