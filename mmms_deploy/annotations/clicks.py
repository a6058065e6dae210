"""The clicks that go along with an annotation, so that it can be continued."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from mmms_deploy.arguments import items, real, shown
from mmms_deploy.errors import AnnotationError

Point: TypeAlias = tuple[float, float, bool]
"""A click: x, y in image pixels with pixel centres at integers, and whether it is on the object."""


class HasPoint(Protocol):
    """A click of a session."""

    @property
    def x(self) -> float:
        """Column."""

    @property
    def y(self) -> float:
        """Row."""

    @property
    def positive(self) -> bool:
        """Whether it is on the object."""


ClickLike: TypeAlias = "Point | HasPoint"
"""A click as (x, y, positive), or a ``Click`` of a session."""


def points_of(clicks: Iterable[ClickLike]) -> tuple[Point, ...]:
    """Return clicks as (x, y, positive), checked.

    Args:
        clicks: (x, y, positive), or ``Click`` objects of a session.

    Raises:
        AnnotationError: One is something else, or not finite.
    """
    points = []
    for click in items("the clicks are", clicks, AnnotationError, expected="a list of clicks"):
        try:
            x, y, positive = click if isinstance(click, tuple | list) else (click.x, click.y, click.positive)
            column, row = real(x), real(y)
            if column is None or row is None or not (math.isfinite(column) and math.isfinite(row)):
                raise ValueError
            if positive not in (0, 1):
                raise ValueError
            points.append((column, row, bool(positive)))
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise AnnotationError(
                f"a click is {shown(click, 80)}",
                expected="(x, y, True) or (x, y, False), or a Click; x and y are finite",
                fix="pass the clicks of a result: result.clicks",
            ) from None
    return tuple(points)


def clicks_to_json(clicks: Iterable[ClickLike]) -> list[list[float]]:
    """Return clicks as ``[[x, y, 1 or 0], ...]``.

    Raises:
        AnnotationError: One is none.
    """
    return [[x, y, int(positive)] for x, y, positive in points_of(clicks)]
