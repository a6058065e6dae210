"""The deepest pixel of a region, exactly and without a distance for every pixel.

A pixel's depth is its Euclidean distance to the nearest pixel outside of its region. The annotator needs one number
and one place: the greatest depth, and the first pixel that has it. So regions are kept as bits, 64 pixels a word.
Erosion by three shapes, a whole word at a time, rules out pixels that cannot be deepest:

* squares bound the depth: with a chessboard depth of c it is at least c and at most sqrt(2) c;
* diamonds bound it too: with a city-block depth of t it is at least t / sqrt(2) and at most t;
* disks decide: a pixel is at least sqrt(s) deep when all pixels closer than that belong to the region. Squared depths
  are whole numbers, so the greatest one is found by bisection.

All of it is integer arithmetic, so ties are exact. The cost of a disk grows with its radius: where the bounds allow a
great depth, the remaining pixels are measured instead, by OpenCV's distance transform where it is installed, and
otherwise column by column, which is slower and gives the same pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmms_deploy.evaluation.errors import AnnotatorUnavailableError
from mmms_deploy.installed import pip_install

Mask: TypeAlias = NDArray[np.bool_]
Bits: TypeAlias = NDArray[np.uint64]
"""(H, ceil(W / 64)): bit x % 64 of word x // 64 in row y is pixel (x, y); bits beyond the width are 0."""

_WORD = 64
DISK_LIMIT = 72
"""Radius in pixels from which measuring the remaining pixels is faster than disks of bits."""
_TRIES = 3
"""Pixels that are measured one by one when only one depth is possible."""


def opencv() -> Any:
    """Import OpenCV, for its exact and fast distance transform.

    Raises:
        AnnotatorUnavailableError: It is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise AnnotatorUnavailableError(
            "distances of all pixels need OpenCV, which is not installed",
            expected="the package opencv-python-headless",
            fix=pip_install("eval"),
        ) from error
    return cv2


@cache
def _has_opencv() -> bool:
    try:
        opencv()
    except AnnotatorUnavailableError:
        return False
    return True


def distance_to_border(region: Mask) -> NDArray[np.float32]:
    """Exact Euclidean distance of every pixel of a region to the nearest pixel outside of it.

    Everything beyond the image's border is outside: a region that touches the border has distance 1 there.

    Args:
        region: (H, W) bool.

    Returns:
        (H, W) float32 in pixels, exact to the last bit or the one before it; 0 outside of the region.

    Raises:
        AnnotatorUnavailableError: OpenCV is not installed.
    """
    cv2 = opencv()
    distances = np.zeros(region.shape, np.float32)
    rows = np.flatnonzero(region.any(axis=1))
    if rows.size == 0:
        return distances
    columns = np.flatnonzero(region.any(axis=0))
    # Only the bounding box is transformed. Everything around it is outside, and the outside pixel nearest to a pixel of
    # the box is at most one pixel beyond the box, so a rim of one pixel makes this exact.
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    padded = np.pad(region[box].view(np.uint8), 1)
    transformed = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distances[box] = transformed[1:-1, 1:-1]
    return distances


def pack(mask: Mask) -> Bits:
    """Return a mask (H, W) as bits."""
    packed = np.packbits(mask, axis=1, bitorder="little")
    words = -(-mask.shape[1] // _WORD)
    if packed.shape[1] < 8 * words:
        packed = np.pad(packed, ((0, 0), (0, 8 * words - packed.shape[1])))
    return packed.view("<u8").astype(np.uint64, copy=False)


def unpack(bits: Bits) -> Mask:
    """Return bits as a mask (H, 64 * words) bool; crop it to the width."""
    packed = np.ascontiguousarray(bits).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(packed, axis=1, bitorder="little").view(np.bool_)


def across(bits: Bits, by: int) -> Bits:
    """Return a shifted copy: its pixel (x, y) is pixel (x + by, y) of ``bits``, or 0 outside."""
    shifted = np.zeros_like(bits)
    words, rest = divmod(abs(by), _WORD)
    count = bits.shape[1] - words
    if count <= 0:
        return shifted
    if by >= 0:
        shifted[:, :count] = bits[:, words:] >> np.uint64(rest)
        if rest:
            shifted[:, : count - 1] |= bits[:, words + 1 :] << np.uint64(_WORD - rest)
    else:
        shifted[:, words:] = bits[:, :count] << np.uint64(rest)
        if rest:
            shifted[:, words + 1 :] |= bits[:, : count - 1] >> np.uint64(_WORD - rest)
    return shifted


def and_down(target: Bits, bits: Bits, by: int) -> None:
    """Keep those pixels (x, y) of ``target`` for which (x, y + by) is in ``bits`` and in the image."""
    height = target.shape[0]
    if abs(by) >= height:
        target[:] = 0
    elif by >= 0:
        target[: height - by] &= bits[by:]
        target[height - by :] = 0
    else:
        target[-by:] &= bits[:by]
        target[:-by] = 0


def _wider_square(corners: Bits, by: int) -> Bits:
    """Return the upper left corners of squares of side n + by from those of side n, for by <= n."""
    wider = corners & across(corners, by)
    and_down(wider, wider.copy(), by)
    return wider


def _wider_diamond(diamonds: Bits, by: int) -> Bits:
    """Return the centres of diamonds of radius n + by from those of radius n (1 is a pixel), for by < max(n, 2)."""
    wider = diamonds & across(diamonds, by)
    wider &= across(diamonds, -by)
    and_down(wider, diamonds, by)
    and_down(wider, diamonds, -by)
    return wider


def squares(region: Bits, side: int) -> Bits:
    """Return the centres of the squares of an odd side that lie in the region; beyond the border is outside."""
    corners, size = region, 1
    while size < side:
        step = min(size, side - size)
        corners = _wider_square(corners, step)
        size += step
    half = side // 2
    if not half:
        return region.copy()
    moved = across(corners, -half)
    centres = np.zeros_like(moved)
    centres[half:] = moved[:-half]
    return centres


def _diamonds(region: Bits, radius: int) -> Bits:
    """Return the centres of the diamonds of a radius that lie in the region."""
    centres, size = region, 1
    while size < radius:
        step = min(max(size - 1, 1), radius - size)
        centres = _wider_diamond(centres, step)
        size += step
    return centres


def _largest(region: Bits, wider: Callable[[Bits, int], Bits], overlap: int) -> int:
    """Greatest size at which a shape still fits into the region somewhere; ``wider`` grows it by size - overlap."""
    shapes, size, step = region, 1, 1
    while (grown := wider(shapes, step)).any():
        shapes, size = grown, size + step
        step = max(size - overlap, 1)
    while step > 1:
        step //= 2
        if (grown := wider(shapes, step)).any():
            shapes, size = grown, size + step
    return size


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the greatest depth among the pixels of a region that were not clicked, from squares and diamonds.

    Attributes:
        low: The greatest squared depth is at least this; 0 when there is no such pixel.
        high: It is at most this.
    """

    low: int
    high: int


def bounds(region: Bits, clicked: Bits | None = None) -> Bounds:
    """Bound the greatest depth of a region.

    Args:
        region: The region.
        clicked: Pixels that are left out; ``None`` for none.
    """
    free = region if clicked is None else region & ~clicked
    if not free.any():
        return Bounds(0, 0)
    square = (_largest(region, _wider_square, 0) + 1) // 2
    diamond = _largest(region, _wider_diamond, 1)
    high = min(2 * square**2, diamond**2)
    # The pixel at the centre of the largest shape has at least its depth, and often the greatest one: measure it.
    low = 1
    for shapes in (_diamonds(region, diamond), squares(region, 2 * square - 1)):
        centres = shapes & free
        if centres.any():
            low = max(low, _depth_at(region, *_first(centres), math.isqrt(high)))
    return Bounds(low, high)


def _first(bits: Bits) -> tuple[int, int]:
    """Column and row of the first pixel in raster order."""
    row = int(bits.any(axis=1).argmax())
    return int(unpack(bits[row : row + 1])[0].argmax()), row


def _depth_at(region: Bits, x: int, y: int, reach: int) -> int:
    """Squared depth of one pixel of a region, known to be at most ``reach`` pixels deep."""
    top, bottom = max(y - reach, 0), min(y + reach + 1, region.shape[0])
    left, right = max(x - reach, 0) // _WORD, min((x + reach) // _WORD + 1, region.shape[1])
    inside = unpack(region[top:bottom, left:right])
    squared = min(y - top + 1, bottom - y) ** 2 if top == 0 or bottom == region.shape[0] else (reach + 1) ** 2
    near = x - _WORD * left
    rows = np.arange(top, bottom) - y
    # In each row the nearest outside pixel to either side; where a row has none within the window, the window's edge.
    before = inside[:, near::-1].argmin(axis=1)
    before[inside[:, near::-1].all(axis=1)] = near + 1
    after = inside[:, near:].argmin(axis=1)
    after[inside[:, near:].all(axis=1)] = inside.shape[1] - near
    nearest = np.minimum(before, after).astype(np.int64)
    return int(min(squared, (nearest**2 + rows**2).min()))


def deepest(region: Bits, clicked: Bits | None, found: Bounds, least: int = 1) -> tuple[int, int, int]:
    """The deepest pixel that was not clicked, the first of them in raster order.

    Args:
        region: The region.
        clicked: Pixels that are left out; ``None`` for none.
        found: The region's :func:`bounds`.
        least: Smallest squared depth to look for, at least 1.

    Returns:
        Its squared depth, its column and its row; zeros when there is no pixel as deep as ``least``.
    """
    low = max(found.low, least)
    if found.low == 0 or low > found.high:
        return 0, 0, 0
    candidates = squares(region, 2 * _root_up(-(-low // 2)) - 1)
    candidates &= _diamonds(region, _root_up(low))
    if clicked is not None:
        candidates &= ~clicked
    reach = math.isqrt(found.high)
    if low == found.high:
        # Only one depth is possible, and the first pixel of that depth is usually among the first candidates.
        rest = candidates.copy()
        for _ in range(_TRIES):
            if not rest.any():
                return 0, 0, 0
            x, y = _first(rest)
            if _depth_at(region, x, y, reach) == low:
                return low, x, y
            rest[y, x // _WORD] &= ~(np.uint64(1) << np.uint64(x % _WORD))
    find = _by_disks if reach <= DISK_LIMIT else _by_transform if _has_opencv() else _by_columns
    best = (0, 0, 0)
    # Every window has a fixed cost. For disks it is not worth it to cut one out for every group.
    for top, left, window in _windows(candidates, reach, apart=find is not _by_disks):
        squared, x, y = find(region[window], candidates[window], low, found.high)
        if squared:
            best = min(best, (-squared, y + top, x + _WORD * left))
            low = max(low, squared)
    return -best[0], best[2], best[1]


def _windows(candidates: Bits, reach: int, *, apart: bool) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """Cut out the candidates with everything within reach of them: one window, or one for each group.

    Yields:
        The window's first row and word, and the window; none of its sides is beyond the image.
    """
    margin = -(-reach // _WORD)
    gaps = (reach, margin) if apart else candidates.shape
    for first_row, last_row in _spans(np.flatnonzero(candidates.any(axis=1)), gaps[0]):
        words = np.flatnonzero(candidates[first_row : last_row + 1].any(axis=0))
        for first_word, last_word in _spans(words, gaps[1]):
            top, left = max(first_row - reach, 0), max(first_word - margin, 0)
            window = (slice(top, last_row + reach + 1), slice(left, last_word + margin + 1))
            yield top, left, window


def _spans(places: NDArray[np.intp], gap: int) -> Iterator[tuple[int, int]]:
    """First and last of each group of ascending places; more than ``gap`` places lie between groups."""
    if places.size:
        for group in np.split(places, np.flatnonzero(np.diff(places) > gap + 1) + 1):
            yield int(group[0]), int(group[-1])


def _root_up(value: int) -> int:
    """The least whole number whose square is at least ``value``."""
    root = math.isqrt(value)
    return root if root * root == value else root + 1


def _by_disks(region: Bits, candidates: Bits, low: int, high: int) -> tuple[int, int, int]:
    """Bisect the squared depth by eroding the candidates with disks."""
    reach = math.isqrt(high)
    sums = {x * x + y * y for x in range(reach + 1) for y in range(reach + 1)}
    levels = sorted(level for level in sums if low <= level <= high)
    runs = _runs(region, reach)
    alive, squared = np.pad(candidates, ((0, 0), (0, runs[0].shape[1] - region.shape[1]))), 0
    first, last = 0, len(levels)
    while first < last:
        middle = (first + last) // 2
        kept = _eroded(alive, runs, levels[middle])
        if kept is None:
            last = middle
        else:
            alive, squared, first = kept, levels[middle], middle + 1
    return squared, *_first(alive)


def _runs(region: Bits, reach: int) -> list[Bits]:
    """Return, for w = 0, 1, ... reach, the pixels (x, y) whose row y lies in the region from x - w to x + w.

    Rows get empty words at their ends, as many as pixels can be shifted across. So the words of all rows are shifted as
    one line, which is several times as fast as row by row.
    """
    rows, words = region.shape
    padded = np.zeros((rows, words + -(-reach // _WORD)), np.uint64)
    padded[:, :words] = region
    line, runs = padded.reshape(-1), [padded]
    shifted, carried = np.empty_like(line), np.empty_like(line)
    for width in range(1, reach + 1):
        whole, rest = divmod(width, _WORD)
        near, far, count = np.uint64(rest), np.uint64(_WORD - rest), line.size - whole
        run = runs[-1].copy()
        flat = run.reshape(-1)
        np.right_shift(line[whole:], near, out=shifted[:count])
        shifted[count:] = 0
        if rest:
            shifted[: count - 1] |= np.left_shift(line[whole + 1 :], far, out=carried[: count - 1])
        flat &= shifted
        np.left_shift(line[:count], near, out=shifted[whole:])
        shifted[:whole] = 0
        if rest:
            shifted[whole + 1 :] |= np.right_shift(line[: count - 1], far, out=carried[: count - 1])
        flat &= shifted
        runs.append(run)
    return runs


def _eroded(alive: Bits, runs: list[Bits], squared: int) -> Bits | None:
    """Keep the pixels around which all pixels closer than sqrt(squared) are in the region; None when none is left."""
    kept = alive.copy()
    for down in range(math.isqrt(squared - 1), -1, -1):
        width = math.isqrt(squared - 1 - down * down)
        and_down(kept, runs[width], down)
        if down:
            and_down(kept, runs[width], -down)
        if down % 4 == 0 and not kept.any():
            return None
    return kept


def _by_transform(region: Bits, candidates: Bits, low: int, high: int) -> tuple[int, int, int]:
    """Measure depths with OpenCV's distance transform of the window.

    OpenCV's roots may differ from the true ones, and from call to call, in their last bit (seen with 5.0.0). Squared
    depths are whole numbers, so pixels close to the greatest depth are compared by their rounded squares.
    """
    inside = unpack(region)
    wanted = unpack(candidates)
    cv2 = opencv()
    # The window reaches as far around the candidates as any depth, or to the image's border, where outside begins.
    padded = np.zeros((inside.shape[0] + 2, inside.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = inside
    distances = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    places = np.flatnonzero(wanted)
    depths = distances[np.divmod(places, wanted.shape[1])]
    close = depths >= depths.max() * np.float32(1 - 1e-6)
    squared = np.rint(depths[close].astype(np.float64) ** 2)
    best = int(squared.argmax())
    y, x = divmod(int(places[close][best]), wanted.shape[1])
    return (int(squared[best]), x, y) if squared[best] >= low else (0, 0, 0)


def _by_columns(region: Bits, candidates: Bits, low: int, high: int) -> tuple[int, int, int]:
    """Measure depths in whole numbers: in a pixel's own column, then in those to its left and right."""
    inside = np.pad(unpack(region), 1)
    rows = np.arange(inside.shape[0])[:, None]
    above = np.maximum.accumulate(np.where(inside, 0, rows), axis=0)
    below = np.minimum.accumulate(np.where(inside, inside.shape[0] - 1, rows)[::-1], axis=0)[::-1]
    squares_in_column = np.minimum(rows - above, below - rows).astype(np.int64) ** 2
    y, x = (places + 1 for places in np.nonzero(unpack(candidates)))
    squared = squares_in_column[y, x]
    for away in range(1, math.isqrt(high) + 1):
        for columns in (np.maximum(x - away, 0), np.minimum(x + away, inside.shape[1] - 1)):
            squared = np.minimum(squared, squares_in_column[y, columns] + away * away)
        kept = squared >= low
        if not kept.all():
            y, x, squared = y[kept], x[kept], squared[kept]
        if not squared.size:
            return 0, 0, 0
        if away * away >= squared.max():
            break  # no other column is nearer
    best = int(squared.argmax())
    return (int(squared[best]), int(x[best]) - 1, int(y[best]) - 1) if squared[best] >= low else (0, 0, 0)
