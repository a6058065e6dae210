"""From rows of points to clicks, and back."""

from __future__ import annotations

import pytest

from mmms_deploy.doors.napari.clicks import clicks_of, rows_of
from mmms_deploy.doors.napari.plane import Plane
from mmms_deploy.errors import ClickError, DoorError
from mmms_deploy.session import Click

FLAT = Plane((0, 1), (0, 0))
STACK = Plane((1, 2), (3, 0, 0))


def test_points_are_row_and_column_and_clicks_are_x_and_y() -> None:
    found = clicks_of([(10.0, 20.5), (1, 2)], ["positive", "negative"], ["1", "1"], FLAT, (90, 160), ["1"])
    assert found == {"1": (Click(20.5, 10.0), Click(2.0, 1.0, False))}


def test_every_object_has_its_own_clicks_in_their_order() -> None:
    points, signs = [(1, 1), (2, 2), (3, 3)], ["positive"] * 3
    found = clicks_of(points, signs, ["b", "a", "b"], FLAT, (90, 160), ["a", "b", "c"])
    assert found == {"a": (Click(2.0, 2.0),), "b": (Click(1.0, 1.0), Click(3.0, 3.0)), "c": ()}


@pytest.mark.parametrize("plane", [FLAT, STACK, Plane((2, 0), (0, 5, 0))])
def test_clicks_come_back_from_their_rows(plane: Plane) -> None:
    clicks = {"1": (Click(20.25, 10.0), Click(3.0, 4.0, False)), "dog": (Click(0.1, 0.2),), "2": ()}
    points, signs, names = rows_of(clicks, plane)
    assert clicks_of(points, signs, names, plane, (90, 160), clicks) == clicks


def test_a_point_on_another_slice_is_refused() -> None:
    with pytest.raises(DoorError, match="a click at 4 on axis 0, and the objects are on another slice") as error:
        clicks_of([(4.0, 1, 1)], ["positive"], ["1"], STACK, (90, 160), ["1"])
    assert "clicks at 3 on axis 0" in str(error.value)
    assert "press Start" in str(error.value)


def test_a_point_within_the_slice_counts() -> None:
    assert clicks_of([(3.4, 1, 2)], ["positive"], ["1"], STACK, (90, 160), ["1"]) == {"1": (Click(2.0, 1.0),)}


def test_a_point_outside_of_the_image_is_refused() -> None:
    with pytest.raises(ClickError, match="outside of the image"):
        clicks_of([(90.0, 1.0)], ["positive"], ["1"], FLAT, (90, 160), ["1"])


@pytest.mark.parametrize("sign", ["maybe", None, float("nan"), 1])
def test_a_point_that_says_something_else_is_refused(sign: object) -> None:
    with pytest.raises(DoorError, match="in the column 'click'"):
        clicks_of([(1, 1)], [sign], ["1"], FLAT, (90, 160), ["1"])


def test_a_point_of_no_object_is_refused() -> None:
    with pytest.raises(DoorError, match="about the object 'cat'"):
        clicks_of([(1, 1)], ["positive"], ["cat"], FLAT, (90, 160), ["1", "dog"])
