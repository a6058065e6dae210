"""Where a label map changed, as run lengths; and the area and the box of every label.

A click changes a part of the map, so that only this part is looked at for areas, and is all that is sent.
"""

from __future__ import annotations

from functools import reduce
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
    """How many pixels a label has, at least one, and the rectangle around them."""

    area: int
    box: Changed


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
            self._count(labels, changed)
        return self._known

    def forget(self) -> None:
        """Forget the map."""
        self._labels, self._known = None, {}

    def _count(self, labels: Labels, changed: Changed) -> None:
        """Count the labels anew that may have gained or lost pixels in a rectangle."""
        around, known = changed, self._known
        # Those that had pixels near what changed; then, which is rare, those that came there from elsewhere.
        suspects = {label for label, extent in known.items() if _meet(extent.box, changed)}
        while True:
            around = reduce(_union, (known[label].box for label in suspects), around)
            known = {label: extent for label, extent in known.items() if label not in suspects}
            found = _extents(around, labels)
            suspects = {label for label in known.keys() & found.keys() if _meet(found[label].box, changed)}
            if not suspects:
                break
        # A label that is still known has no pixel in what changed, and may have some outside of what was looked at.
        self._known = {**found, **known}


def _extents(part: Changed, labels: Labels) -> dict[int, Extent]:
    """Return the extents of the labels in a rectangle of a map, without the background's."""
    flat = part.of(labels).ravel()
    # By runs: a map has few of them, and np.unique would sort all pixels.
    starts: npt.NDArray[Any] = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    found = {}
    for label in np.unique(flat[starts]):
        if not label:
            continue
        own = flat[starts] == label
        first, last = starts[own], ends[own] - 1
        top, bottom = int(first[0]) // part.width, int(last[-1]) // part.width
        # A run that goes on in the next row has the last column of one, and the first of the other.
        turns = bool(np.any(first // part.width != last // part.width))
        left = 0 if turns else int((first % part.width).min())
        right = part.width - 1 if turns else int((last % part.width).max())
        box = Changed(part.x + left, part.y + top, right - left + 1, bottom - top + 1)
        found[int(label)] = Extent(int((last - first + 1).sum()), box)
    return found


def _meet(one: Changed, other: Changed) -> bool:
    """Return whether two rectangles have a pixel in common."""
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def _union(one: Changed, other: Changed) -> Changed:
    left, top = min(one.x, other.x), min(one.y, other.y)
    right = max(one.x + one.width, other.x + other.width)
    bottom = max(one.y + one.height, other.y + other.height)
    return Changed(left, top, right - left, bottom - top)
