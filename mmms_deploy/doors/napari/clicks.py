"""From the rows of a Points layer to the clicks on every object, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from mmms_deploy.arguments import shown
from mmms_deploy.doors.napari.plane import Plane
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click
from mmms_deploy.session.click_list import checked_clicks


class Sign(StrEnum):
    """What a click says; a row of the Points layer has it in the column :data:`SIGN`."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


SIGN = "click"
"""Column of the Points layer's features: whether the click is on the object or off it."""
OBJECT = "object"
"""Column of the Points layer's features: the name of the object that the click is about."""

Clicks: TypeAlias = Mapping[str, tuple[Click, ...]]
"""The clicks on every object by its name, oldest first."""


def clicks_of(
    points: Iterable[Sequence[float]],
    signs: Iterable[Any],
    names: Iterable[Any],
    plane: Plane,
    size: tuple[int, int],
    objects: Iterable[str],
) -> dict[str, tuple[Click, ...]]:
    """Return the clicks that rows of a Points layer say.

    Args:
        points: (N, n) coordinates in the image layer, oldest first.
        signs: What :data:`SIGN` is in every row.
        names: What :data:`OBJECT` is in every row.
        plane: The plane of the image that the objects are on.
        size: (H0, W0) of the plane.
        objects: The names of all objects.

    Returns:
        The clicks on every object, none included.

    Raises:
        DoorError: A row is on another slice, is of no object, or says neither positive nor negative.
        ClickError: A click is outside of the image.
    """
    found: dict[str, list[Click]] = {name: [] for name in objects}
    for point, sign, name in zip(points, signs, names, strict=True):
        row, column = plane.pixel(point)
        if sign not in tuple(Sign):
            raise DoorError(
                f"a point says {shown(sign, 80)} in the column {SIGN!r}",
                expected=f"{Sign.POSITIVE} or {Sign.NEGATIVE}",
                fix="put one of them there",
            )
        if name not in found:
            raise DoorError(
                f"a point is about the object {shown(name, 80)}",
                expected=f"one of {', '.join(map(repr, found))}",
                fix="correct it, or make that object first",
            )
        found[name].append(Click(column, row, sign == Sign.POSITIVE))
    for clicks in found.values():
        checked_clicks(clicks, size)
    return {name: tuple(clicks) for name, clicks in found.items()}


def rows_of(clicks: Clicks, plane: Plane) -> tuple[list[tuple[float, ...]], list[str], list[str]]:
    """Return clicks as rows of a Points layer: coordinates in the image layer, signs, and names of objects.

    Args:
        clicks: The clicks.
        plane: The plane of the image that the objects are on.
    """
    rows = [(name, click) for name, every in clicks.items() for click in every]
    points = [plane.point(click.y, click.x) for _, click in rows]
    signs = [str(Sign.POSITIVE if click.positive else Sign.NEGATIVE) for _, click in rows]
    return points, signs, [name for name, _ in rows]
