"""Points and boxes of CVAT, which counts from pixel edges, in a session's pixels, which count from pixel centres."""

from __future__ import annotations

import math

import pytest

from mmms_deploy.doors.cvat.prompts import MOST_POINTS, as_box, as_click, as_point, checked_prompts
from mmms_deploy.errors import ClickError, DoorError
from mmms_deploy.session import Click
from mmms_deploy.session.result import checked_click

SIZE = (40, 60)


def test_the_centre_of_a_pixel_is_half_a_pixel_from_its_edge() -> None:
    assert as_click((0.5, 0.5), True, SIZE) == Click(0.0, 0.0)
    assert as_click((12.25, 39.5), False, SIZE) == Click(11.75, 39.0, False)
    assert as_point(Click(11.75, 39.0, False)) == (12.25, 39.5)


@pytest.mark.parametrize("x", [-0.5, -0.25, 0.0, 59.9, 60.0, 60.25, 60.5])
@pytest.mark.parametrize("y", [-0.5, 0.0, 40.0, 40.5])
def test_a_click_up_to_half_a_pixel_outside_is_on_the_edge(x: float, y: float) -> None:
    click = as_click((x, y), True, SIZE)
    assert checked_click(click.x, click.y, True, SIZE) == click
    assert abs(click.x - (x - 0.5)) <= 0.5 + 1e-9
    assert abs(click.y - (y - 0.5)) <= 0.5 + 1e-9


@pytest.mark.parametrize("x", [-0.75, 61.0])
def test_a_click_further_outside_is_refused_by_the_session(x: float) -> None:
    click = as_click((x, 5.0), True, SIZE)
    with pytest.raises(ClickError):
        checked_click(click.x, click.y, True, SIZE)


@pytest.mark.parametrize("corners", [((10, 5), (30, 20)), ((30, 20), (10, 5)), ((30, 5), (10, 20))])
def test_the_corners_of_a_box_come_in_any_order(corners: tuple) -> None:
    assert as_box(corners, SIZE) == (9.5, 4.5, 29.5, 19.5)


def test_a_box_is_cut_to_the_picture() -> None:
    assert as_box(((-3, -1), (100, 100)), SIZE) == (-0.5, -0.5, 59.5, 39.5)


@pytest.mark.parametrize("box", [None, [], ()])
def test_no_box_has_several_forms(box: object) -> None:
    assert checked_prompts([[1, 2]], [], box).box is None


def test_points_are_numbers() -> None:
    prompts = checked_prompts([[1, 2.5], (3, 4)], [], [[1, 2], [3, 4]])
    assert prompts.positives == ((1.0, 2.5), (3.0, 4.0))
    assert prompts.box == ((1.0, 2.0), (3.0, 4.0))


@pytest.mark.parametrize(
    "points", [None, "12", 5, [1, 2], [[1]], [[1, 2, 3]], [["1", "2"]], [[1, None]], [[math.nan, 1]], [[1, math.inf]]]
)
def test_other_things_are_refused_by_name(points: object) -> None:
    for positives, negatives in ((points, []), ([], points)):
        with pytest.raises(DoorError, match=r"(pos|neg)_points of a request"):
            checked_prompts(positives, negatives, None)


@pytest.mark.parametrize("box", [[[1, 2]], [[1, 2], [3, 4], [5, 6]], "box", [1, 2, 3, 4]])
def test_a_box_of_another_form_is_refused_by_name(box: object) -> None:
    with pytest.raises(DoorError, match="box"):
        checked_prompts([], [], box)


def test_too_many_points_are_refused_by_name() -> None:
    with pytest.raises(DoorError, match=f"{MOST_POINTS + 1} points"):
        checked_prompts([[1, 2]] * MOST_POINTS, [[1, 2]], None)
