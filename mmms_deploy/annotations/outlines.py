"""The rings along the pixel edges of a mask.

A mask has a corner where, of the four pixels around a vertex, an odd number belong to the object, or two that touch at
the vertex alone. In a row of vertices, corners in order are the ends of horizontal edges, two by two; in a column they
are the ends of vertical edges. So every corner knows its two neighbours without a walk along the outline, and only
corners are visited.

Where two pixels of the object touch at a vertex alone, that vertex is two corners, one of each pixel: such pixels do
not belong together. A ring that passes a vertex twice is cut there, because no ring of a valid polygon touches itself;
the two rings may touch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.imaging.resize import BoolArray

_STRIP = 1 << 22
"""Pixels whose corners are found at a time, so that a large mask is not there several times."""

Indices = npt.NDArray[np.int64]


class Rings(NamedTuple):
    """The rings along the pixel edges of a mask, with the object at the right hand.

    Attributes:
        x: Of every corner, ring after ring: its column of vertices, 0 to W.
        y: Its row of vertices, 0 to H.
        starts: Where every ring begins in them.
        areas: Of every ring, the pixels inside; negative for a hole.
    """

    x: Indices
    y: Indices
    starts: Indices
    areas: Indices


class _Corners(NamedTuple):
    """Corners from the top down, and from left to right in a row; a vertex where pixels touch is there twice."""

    x: Indices
    y: Indices
    touching: BoolArray
    """Whether it is one of the two corners at a vertex."""
    falling: BoolArray
    """Whether the pixels that touch there are the upper left and the lower right one."""
    below: BoolArray
    """Whether the edge to the right of the corner, if there is one, has the object below."""


def rings_of(mask: BoolArray) -> Rings:
    """Trace a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Its rings: one around every piece whose pixels share edges, and one around every hole. Corners alternate between
        horizontal and vertical edges.
    """
    corners = _corners(mask)
    count = corners.x.size
    if not count:
        none = np.zeros(0, dtype=np.int64)
        return Rings(none, none, none, none)
    across = np.arange(count) ^ 1
    # Of the two corners at a vertex, the first one has the edge to the left, the second one the edge to the right. The
    # one with the edge upwards comes first in its column: that of the upper left pixel, or of the upper right one.
    second = np.zeros(count, dtype=np.bool_)
    second[1:] = corners.touching[1:] & (corners.x[1:] == corners.x[:-1]) & (corners.y[1:] == corners.y[:-1])
    later = np.where(corners.falling, second, corners.touching & ~second)
    down = np.argsort((corners.x * (mask.shape[0] + 1) + corners.y) * 2 + later)
    along = np.empty(count, dtype=np.int64)
    along[down[0::2]], along[down[1::2]] = down[1::2], down[0::2]
    # The object is at the right hand on the way to the right when it is below, and on the way to the left when above.
    left = np.arange(0, count, 2)
    first = np.where(corners.below[left], left, left + 1)
    order, starts = _walk(first, across, along, corners)
    x, y = corners.x[order], corners.y[order]
    return Rings(x, y, starts, _areas(x, y, starts))


def _corners(mask: BoolArray) -> _Corners:
    height, width = mask.shape
    rows = max(1, _STRIP // (width + 1))
    found = []
    for top in range(0, height + 1, rows):
        bottom = min(top + rows, height + 1)  # rows of vertices
        padded = np.zeros((bottom - top + 1, width + 2), dtype=np.bool_)
        first, last = max(0, top - 1), min(height, bottom)
        padded[first - top + 1 : last - top + 1, 1:-1] = mask[first:last]
        upper = padded[:-1, :-1] ^ padded[:-1, 1:]
        lower = padded[1:, :-1] ^ padded[1:, 1:]
        left = padded[:-1, :-1] ^ padded[1:, :-1]
        places = np.flatnonzero((upper ^ lower) | (upper & lower & left))
        ys, xs = np.divmod(places, width + 1)
        touching = upper.reshape(-1)[places] & lower.reshape(-1)[places]
        falling = padded[ys, xs]
        below = padded[ys + 1, xs + 1]
        found.append((xs, ys + top, touching, falling, below))
    x, y, touching, falling, below = (np.concatenate(parts) for parts in zip(*found, strict=True))
    twice = np.repeat(np.arange(x.size), 1 + touching)
    return _Corners(x[twice], y[twice], touching[twice], falling[twice], below[twice])


def _walk(first: Indices, across: Indices, along: Indices, corners: _Corners) -> tuple[Indices, Indices]:
    """Return the corners in the order of their rings, and where every ring begins."""
    following = np.full(across.size, -1, dtype=np.int64)
    following[first] = along[across[first]]
    step = following.tolist()
    new = bytearray(b"\1") * len(step)
    twice = corners.touching.tolist() if corners.touching.any() else None
    width = int(corners.x.max()) + 1
    vertex = (corners.y * width + corners.x).tolist() if twice else []
    order: list[int] = []
    starts: list[int] = []
    over = across.tolist()
    for begin in first.tolist():
        if not new[begin]:
            continue
        ring: list[int] = []
        touches = False
        corner = begin
        while new[corner]:
            new[corner] = 0
            other = over[corner]
            ring += (corner, other)
            if twice and (twice[corner] or twice[other]):
                touches = True
            corner = step[corner]
        for part in _parts(ring, twice, vertex) if twice and touches else (ring,):
            starts.append(len(order))
            order += part
    return np.array(order, dtype=np.int64), np.array(starts, dtype=np.int64)


def _parts(ring: list[int], twice: list[bool], vertex: list[int]) -> list[list[int]]:
    """Cut a ring wherever it passes a vertex for the second time."""
    parts: list[list[int]] = []
    path: list[int] = []
    passed: dict[int, int] = {}
    for corner in ring:
        if twice[corner]:
            place = vertex[corner]
            since = passed.get(place)
            if since is not None:
                part = path[since:]
                for gone in part:
                    if twice[gone]:
                        passed.pop(vertex[gone], None)
                del path[since:]
                parts.append(part)
            passed[place] = len(path)
        path.append(corner)
    parts.append(path)
    return parts


def _areas(x: Indices, y: Indices, starts: Indices) -> Indices:
    """Return the signed areas of rings by the trapezoids under their horizontal edges."""
    sizes = np.diff(starts, append=x.size)
    last = np.repeat(starts + sizes - 1, sizes)
    following = np.arange(1, x.size + 1)
    following[last[starts]] = starts
    return np.asarray(np.add.reduceat(-(x[following] - x) * y, starts))
