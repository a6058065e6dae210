"""What a request of CVAT says: points and a box, checked, and brought into a session's pixels.

CVAT counts positions in pixel edges: the first column reaches from 0 to 1, and a click on its centre is 0.5. A session
counts from pixel centres, so that half a pixel is subtracted. CVAT's canvas takes clicks up to half a pixel outside of
the picture; these are moved to its edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmms_deploy.arguments import real, shown
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click

Point = tuple[float, float]
"""x to the right and y downwards, in pixel edges."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as ``Session.set_box`` takes them."""

HALF = 0.5
"""From a pixel's edge to its centre."""
MOST_POINTS = 1000
"""The most points of a request: each may cost a run of the network."""


@dataclass(frozen=True)
class Prompts:
    """The points and the box of a request, as CVAT counts.

    Attributes:
        positives: Points on the object, oldest first.
        negatives: Points off it, oldest first.
        box: Two opposite corners; None for no box.
    """

    positives: tuple[Point, ...]
    negatives: tuple[Point, ...]
    box: tuple[Point, Point] | None = None


def checked_prompts(positives: object, negatives: object, box: object) -> Prompts:
    """Return what a request says, checked.

    Args:
        positives: Pairs of numbers.
        negatives: Pairs of numbers.
        box: Two pairs of numbers; None or nothing in it for no box.

    Raises:
        DoorError: They are something else, or more than :data:`MOST_POINTS`.
    """
    taken = Prompts(_points("pos_points", positives), _points("neg_points", negatives))
    count = len(taken.positives) + len(taken.negatives)
    if count > MOST_POINTS:
        raise DoorError(
            f"a request has {count} points",
            expected=f"at most {MOST_POINTS} points",
            fix="finish the object, and correct its mask with the brush",
        )
    corners = () if box is None else _points("the box", box)
    if len(corners) not in (0, 2):
        raise DoorError(
            f"the box of a request is {shown(box, 80)}",
            expected="two corners, [[x, y], [x, y]], or none",
            fix="draw the box again",
        )
    return Prompts(taken.positives, taken.negatives, (corners[0], corners[1]) if corners else None)


def as_click(point: Point, positive: bool, size: tuple[int, int]) -> Click:
    """Return a point as a click.

    Args:
        point: The point.
        positive: Whether it is on the object.
        size: (H0, W0) of the picture.
    """
    height, width = size
    return Click(_centred(point[0], width), _centred(point[1], height), positive)


def as_box(corners: tuple[Point, Point], size: tuple[int, int]) -> Box:
    """Return a box with its corners in order, cut to the picture.

    Args:
        corners: Two opposite corners.
        size: (H0, W0) of the picture.
    """
    height, width = size
    (ax, ay), (bx, by) = corners
    x0, x1 = sorted(min(max(x, 0.0), float(width)) - HALF for x in (ax, bx))
    y0, y1 = sorted(min(max(y, 0.0), float(height)) - HALF for y in (ay, by))
    return x0, y0, x1, y1


def as_point(click: Click) -> Point:
    """Return where CVAT says that a click is."""
    return click.x + HALF, click.y + HALF


def _centred(position: float, length: int) -> float:
    """Return a position from pixel centres; half a pixel outside counts as the edge, more is left to be refused."""
    if -HALF <= position < 0:
        position = 0.0
    if length <= position <= length + HALF:
        position = math.nextafter(length, 0.0)
    return position - HALF


def _points(name: str, given: object) -> tuple[Point, ...]:
    pairs = given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else None
    found = () if pairs is None else tuple(_point(pair) for pair in pairs)
    points = tuple(point for point in found if point is not None)
    if pairs is None or len(points) < len(found):
        raise DoorError(
            f"{name} of a request: {shown(given, 80)}",
            expected="a list of [x, y], finite numbers in the picture's pixels",
            fix="send the points as CVAT's canvas gives them",
        )
    return points


def _point(pair: object) -> Point | None:
    if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
        return None
    x, y = (real(number) for number in pair)
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    return x, y
