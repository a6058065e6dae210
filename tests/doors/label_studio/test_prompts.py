"""Points and boxes in per cent, as clicks in pixels."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.doors.label_studio.prompts import percent_of, prompts_of
from mmms_deploy.doors.label_studio.shapes import Region
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click
from mmms_deploy.session.result import checked_click
from tests.support.labelling import point

SIZE = (480, 854)


def region(fields: dict[str, Any]) -> Region:
    return msgspec.convert(fields, Region)


def placed(x: float, y: float, size: tuple[int, int] = SIZE) -> Click:
    """A point at these per cents, as a click."""
    fields = point(Click(0, 0), size)
    fields["value"] |= {"x": x, "y": y}
    (prompts,) = prompts_of([region(fields)])
    return prompts.clicks[0]


def box(x: float, y: float, width: float, height: float, **more: Any) -> Region:
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": ["object"], **more}
    return region(point(Click(0, 0), SIZE, type="rectanglelabels", value=value))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12000), st.integers(1, 12000), st.data())
def test_a_pixel_comes_back_exactly(height: int, width: int, data: st.DataObject) -> None:
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    click = Click(column, row)
    assert placed(*percent_of(click, (height, width)), (height, width)) == click


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12000), st.integers(1, 12000), st.floats(0, 100), st.floats(0, 100))
def test_every_place_on_the_picture_is_a_click_on_it(height: int, width: int, x: float, y: float) -> None:
    click = placed(x, y, (height, width))
    checked_click(click.x, click.y, True, (height, width))
    assert abs(click.x + 0.5 - x * width / 100) < 1e-5
    assert abs(click.y + 0.5 - y * height / 100) < 1e-5


def test_the_edges_are_those_of_the_first_and_the_last_pixel() -> None:
    assert placed(0, 0) == Click(-0.5, -0.5)
    far = placed(100, 100)
    assert (round(far.x), round(far.y)) == (853, 479)
    assert placed(100 + 1e-12, -1e-12).x == far.x
    # A centre of 854 pixels: snap="pixel" with the mode of centres gives it.
    assert placed(100 * 427.5 / 854, 50) == Click(427, 239.5)


@pytest.mark.parametrize("place", [(100.1, 5), (5, -0.1), (float("nan"), 5), (5, float("inf")), (None, 5), ("5", 5)])
def test_a_place_beyond_the_picture_is_refused(place: Any) -> None:
    with pytest.raises(DoorError, match="region 1"):
        placed(*place)


def test_the_order_of_clicks_is_that_of_the_list() -> None:
    clicks = [Click(5, 6), Click(1, 2, False), Click(3, 4)]
    (prompts,) = prompts_of([region(point(one, SIZE)) for one in clicks])
    assert prompts.clicks == tuple(clicks)
    assert (prompts.picture, prompts.labels, prompts.size, prompts.box) == ("pic", ("object",), SIZE, None)


def test_a_point_without_a_sign_is_on_the_object() -> None:
    fields = point(Click(5, 6, False), SIZE)
    del fields["is_positive"]
    assert prompts_of([region(fields)])[0].clicks == (Click(5, 6),)


def test_labels_and_pictures_are_objects_of_their_own() -> None:
    regions = [
        point(Click(1, 1), SIZE, "car"),
        point(Click(2, 2), SIZE, "road"),
        point(Click(3, 3), SIZE, "car", to_name="other"),
        point(Click(4, 4), SIZE, "car"),
    ]
    found = prompts_of([region(one) for one in regions])
    assert [(one.picture, one.labels, [click.x for click in one.clicks]) for one in found] == [
        ("pic", ("car",), [1, 4]),
        ("pic", ("road",), [2]),
        ("other", ("car",), [3]),
    ]


def test_a_tag_without_labels_has_none() -> None:
    (prompts,) = prompts_of([region(point(Click(5, 6), SIZE, type="keypoint", value={"x": 1, "y": 1}))])
    assert prompts.labels == ()


def test_a_box_is_counted_as_clicks_are_and_comes_first() -> None:
    (prompts,) = prompts_of([region(point(Click(5, 6), SIZE)), box(0, 25, 50, 75)])
    assert prompts.box == (-0.5, 119.5, 426.5, 479.5)
    assert prompts.clicks == (Click(5, 6),)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([point(Click(1, 1), SIZE, image_rotation=90)], "turned by 90 degrees"),
        ([point(Click(1, 1), SIZE, item_index=2)], "picture 3 of several"),
        ([point(Click(1, 1), SIZE, type="ellipselabels")], "neither a point nor a box"),
        ([point(Click(1, 1), SIZE, type="labels")], "neither a point nor a box"),
        ([point(Click(1, 1), SIZE, original_width=0)], "0 x 480 pixels"),
        ([point(Click(1, 1), SIZE, value={"x": 1, "y": 1})], r"has the labels \[\]"),
        ([point(Click(1, 1), SIZE, value={"x": 1, "y": 1, "keypointlabels": "a"})], "has the labels 'a'"),
        ([point(Click(1, 1), SIZE), point(Click(1, 1), (9, 9))], "is of a picture of 9 x 9 pixels"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(regions: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DoorError, match=said):
        prompts_of([region(one) for one in regions])


def test_boxes_that_cannot_be_taken_are_refused_by_name() -> None:
    with pytest.raises(DoorError, match="a second box"):
        prompts_of([box(0, 0, 5, 5), box(1, 1, 5, 5)])
    with pytest.raises(DoorError, match="is turned by 12 degrees"):
        prompts_of([box(0, 0, 5, 5, rotation=12)])
    with pytest.raises(DoorError, match=r"110 as x \+ width"):
        prompts_of([box(60, 0, 50, 5)])
