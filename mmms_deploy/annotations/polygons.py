"""Polygons with holes, from masks and back.

Coordinates are pixel edges, as in COCO: the pixel in column x and row y covers [x, x + 1] by [y, y + 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.annotations.outlines import Indices, Rings, rings_of
from mmms_deploy.arguments import items, real, shown, whole
from mmms_deploy.errors import AnnotationError
from mmms_deploy.imaging.resize import BoolArray

if TYPE_CHECKING:
    from shapely.geometry import Polygon as ShapelyPolygon

Points = npt.NDArray[np.float64]

_POLYGONS = "polygons with an outer ring and holes, each (N, 2) numbers x and y, N of 3 or more"
_LARGEST = 1 << 30


@dataclass(frozen=True, eq=False)
class Polygon:
    """One connected piece of an object.

    Attributes:
        outer: (N, 2) float64: x and y of the corners of its outline, in pixel edges, 0 to W and 0 to H; clockwise as
            seen on the screen. The first corner is not repeated at the end.
        holes: The outlines of its holes, likewise, counter-clockwise.
    """

    outer: Points
    holes: tuple[Points, ...] = ()

    @property
    def area(self) -> float:
        """What it covers, in pixels."""
        return abs(_area(self.outer)) - sum(abs(_area(hole)) for hole in self.holes)

    def to_shapely(self) -> ShapelyPolygon:
        """Return it as a polygon of shapely, for everything that one can do with polygons."""
        from shapely.geometry import Polygon as ShapelyPolygon

        return ShapelyPolygon(self.outer, self.holes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as ``{"outer": [[x, y], ...], "holes": [[[x, y], ...], ...]}``."""
        return {"outer": plain(self.outer), "holes": [plain(hole) for hole in self.holes]}


def plain(points: Points) -> list[Any]:
    """Return coordinates as lists, whole numbers without a fraction."""
    whole = np.rint(points)
    found: list[Any] = (whole.astype(np.int64) if np.array_equal(whole, points) else points).tolist()
    return found


def polygons_of(mask: npt.NDArray[Any], tolerance: float = 0.0) -> tuple[Polygon, ...]:
    """Return the outlines of a mask along its pixel edges.

    Pixels belong to one polygon when they share edges; pixels that touch at a corner alone are polygons of their own.
    Every polygon is valid as the OGC defines it.

    Args:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.
        tolerance: How far an outline may move, in image pixels, to have fewer corners (Douglas and Peucker's algorithm,
            by shapely; rings neither cross nor disappear). At 0 the polygons cover exactly the mask, and
            :func:`mask_of_polygons` draws it again.

    Returns:
        The polygons, the largest first; none for an empty mask.

    Raises:
        AnnotationError: It is no mask, or the tolerance is no number of 0 or more.
    """
    checked = checked_bool(mask)
    tolerance = checked_tolerance(tolerance)
    rings = rings_of(checked)
    outers = np.flatnonzero(rings.areas > 0)
    holes = np.flatnonzero(rings.areas < 0)
    points = np.stack([rings.x, rings.y], axis=1).astype(np.float64)
    split = np.split(points, rings.starts[1:])
    owners = _owners(rings, outers, holes, split)
    own: dict[int, list[int]] = {}
    for hole, owner in zip(holes.tolist(), owners.tolist(), strict=True):
        own.setdefault(owner, []).append(hole)
    areas = rings.areas.copy()
    np.add.at(areas, owners, rings.areas[holes])
    found = [
        Polygon(split[outer], tuple(split[hole] for hole in own.get(outer, ())))
        for outer in outers[np.argsort(-areas[outers], kind="stable")].tolist()
    ]
    return tuple(_simplified(found, tolerance)) if tolerance else tuple(found)


def mask_of_polygons(polygons: Iterable[Polygon], size: tuple[int, int]) -> BoolArray:
    """Draw polygons: a pixel belongs to a polygon when its centre is inside the outline and in none of the holes.

    Args:
        polygons: Polygons; they may overlap, and reach beyond the image.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        AnnotationError: They are no polygons, or the size is no size.
    """
    height, width = checked_size(size)
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in items("the polygons are", polygons, AnnotationError, expected=_POLYGONS):
        if not isinstance(polygon, Polygon):
            raise AnnotationError(f"a {type(polygon).__qualname__}", expected=_POLYGONS, fix="pass Polygon objects")
        holes = items("the holes are", polygon.holes, AnnotationError, expected=_POLYGONS)
        _draw([_checked_ring(ring) for ring in (polygon.outer, *holes)], mask)
    return mask


def _draw(rings: list[Points], mask: BoolArray) -> None:
    """Add what is inside an odd number of rings to a mask."""
    low = np.min([ring.min(axis=0) for ring in rings], axis=0)
    high = np.max([ring.max(axis=0) for ring in rings], axis=0)
    left, top = (int(np.clip(np.floor(low[axis]), 0, mask.shape[1 - axis])) for axis in (0, 1))
    right, bottom = (int(np.clip(np.ceil(high[axis]), 0, mask.shape[1 - axis])) for axis in (0, 1))
    if right <= left or bottom <= top:
        return
    begin = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    # Each edge crosses the middle of the rows first .. last - 1, every row of pixels at its centre.
    first, last = (
        np.clip(np.ceil(side - 0.5), top, bottom).astype(np.int64)
        for side in (np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1]))
    )
    crossed = last - first
    edges = np.repeat(np.arange(len(begin)), crossed)
    rows = np.arange(edges.size) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edges]
    (x0, y0), (x1, y1) = begin[edges].T, end[edges].T
    at = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    # The first pixel whose centre is at the right of the crossing.
    columns = np.clip(np.ceil(at - 0.5), left, right).astype(np.int64)
    flips = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
    np.add.at(flips, (rows - top, columns - left), 1)
    inside = np.bitwise_xor.accumulate(flips & 1, axis=1)[:, :-1].view(np.bool_)
    mask[top:bottom, left:right] |= inside


def _owners(rings: Rings, outers: Indices, holes: Indices, split: list[Points]) -> Indices:
    """Return the outer ring that every hole belongs to: the smallest one around the pixel to the left of the hole."""
    if not holes.size:
        return holes
    if outers.size == 1:
        return np.full(holes.size, outers[0])
    import shapely

    # The topmost of the leftmost corners of a hole; the pixel at its left, and below it, belongs to the object.
    sizes = np.diff(rings.starts, append=rings.x.size)
    order = np.lexsort((rings.y, rings.x, np.repeat(np.arange(sizes.size), sizes)))
    corner = order[rings.starts[holes]]
    pixels = shapely.points(rings.x[corner] - 0.5, rings.y[corner] + 0.5)
    around = shapely.polygons([shapely.linearrings(split[outer]) for outer in outers])
    outer, hole = shapely.STRtree(pixels).query(around, predicate="contains")
    by_area = np.lexsort((rings.areas[outers[outer]], hole))
    smallest = by_area[np.flatnonzero(np.diff(hole[by_area], prepend=-1))]
    return np.asarray(outers[outer[smallest]])


def _simplified(polygons: list[Polygon], tolerance: float) -> Iterable[Polygon]:
    import shapely

    before = [polygon.to_shapely() for polygon in polygons]
    for one in shapely.simplify(before, tolerance, preserve_topology=True):
        outer, *holes = (shapely.get_coordinates(ring)[:-1] for ring in (one.exterior, *one.interiors))
        yield Polygon(outer, tuple(holes))


def _area(ring: Points) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def checked_tolerance(tolerance: object) -> float:
    """Return how far outlines may move, checked.

    Raises:
        AnnotationError: It is no number of 0 or more.
    """
    number = real(tolerance)
    if number is None or not 0 <= number < _LARGEST:
        raise AnnotationError(
            f"the tolerance is {shown(tolerance)}",
            expected="a number of image pixels, 0 or more",
            fix="pass tolerance=1.0, or 0 for exact outlines",
            command_fix="pass --tolerance 1, or 0 for exact outlines",
        )
    return number


def _checked_ring(ring: object) -> Points:
    try:
        points = np.asarray(ring, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise AnnotationError(f"a ring that is no array: {error}", expected=_POLYGONS, fix="check it") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not (np.abs(points) < _LARGEST).all():
        raise AnnotationError(
            f"a ring of shape {points.shape}", expected=f"{_POLYGONS}, finite", fix="check where it comes from"
        )
    return points


def checked_size(size: object) -> tuple[int, int]:
    """Return the size of an image, checked.

    Raises:
        AnnotationError: It is no pair of whole numbers of 1 or more.
    """
    listed = isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim == 1)
    sides = [whole(side) for side in iter(size)] if listed else []  # type: ignore[call-overload]
    height, width = sides if len(sides) == 2 else (None, None)
    if height is None or width is None or height < 1 or width < 1:
        raise AnnotationError(
            f"the size is {shown(size)}", expected="(H, W): two whole numbers", fix="pass (height, width)"
        )
    return height, width
