"""Lists of clicks: set_clicks, and clicks as plain data; on every engine."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.errors import ClickError, NoImageError
from tests.support.annotating import check, reference

CLICKS = [Click(10, 10), Click(60.25, 40.5), Click(14, 12, False)]


@pytest.mark.usefixtures("every_engine")
def test_a_list_is_as_one_click_after_the_other(session: Session, paint: Bundle) -> None:
    result = session.set_clicks(CLICKS)
    check(result, reference(paint, CLICKS))
    assert (result.index, result.click, session.clicks) == (3, CLICKS[-1], tuple(CLICKS))
    assert session.result is result
    check(session.undo(), reference(paint, CLICKS[:2]))
    check(session.set_clicks(CLICKS[1:]), reference(paint, CLICKS[1:]))
    assert session.runs["click"] == 5


@pytest.mark.parametrize(
    "written",
    [
        lambda: CLICKS,
        lambda: tuple(CLICKS),
        lambda: iter(CLICKS),
        lambda: [click.to_list() for click in CLICKS],
        lambda: [(click.x, click.y, click.positive) for click in CLICKS],
        lambda: np.array([click.to_list() for click in CLICKS]),
        lambda: np.array([click.to_list() for click in CLICKS]).tolist(),
        lambda: [dataclasses.asdict(click) for click in CLICKS],
        lambda: [{"x": click.x, "y": click.y, "positive": float(click.positive)} for click in CLICKS],
        lambda: json.loads(json.dumps([click.to_list() for click in CLICKS])),
        lambda: json.loads(json.dumps([dataclasses.asdict(click) for click in CLICKS])),
    ],
)
def test_ways_to_write_a_list(session: Session, written) -> None:
    session.set_clicks(written())
    assert session.clicks == tuple(CLICKS)
    assert all(type(click.x) is float and type(click.positive) is bool for click in session.clicks)


def test_clicks_without_a_label_are_positive(session: Session) -> None:
    session.set_clicks([(3, 4), {"x": 5, "y": 6}, np.array([7, 8])])
    assert session.clicks == (Click(3, 4), Click(5, 6), Click(7, 8))


def test_no_clicks(session: Session) -> None:
    session.set_clicks(CLICKS)
    result = session.set_clicks([])
    assert not result.mask.any()
    assert session.clicks == ()
    assert session.redo().index == 1, "nothing was run, so the clicks can be redone"


def test_numbers_survive_json_exactly(session: Session) -> None:
    session.click(np.float32(0.1), 1 / 3, np.bool_(False))
    click = session.clicks[0]
    assert click.to_list() == [float(np.float32(0.1)), 1 / 3, 0]
    assert [type(number) for number in click.to_list()] == [float, float, int]
    session.set_clicks(json.loads(json.dumps([click.to_list()])))
    assert session.clicks == (click,)
    assert session.runs["click"] == 1, "they are the same click"


def test_times_are_plain_numbers(session: Session) -> None:
    timings = session.click(10, 10).timings
    times = json.loads(json.dumps(timings.to_dict()))
    assert times == dataclasses.asdict(timings)
    assert set(times) == {"engine", "mask", "total", "compile"}


@pytest.mark.parametrize(
    ("clicks", "given", "fix"),
    [
        (None, "the clicks are a NoneType", "pass a list"),
        ("10,10", "the clicks are a str", "pass a list"),
        ({"x": 1, "y": 2}, "the clicks are a dict", "pass a list"),
        (Click(3, 4), "the clicks are a Click", "pass a list"),
        (3, "the clicks are a int", "pass a list"),
        (np.array(3), "the clicks are a ndarray", "pass a list"),
        ([Click(3, 4), 5], "click 2 of the list is 5", "[[x, y, 1]]"),
        ([3, 4, 1], "click 1 of the list is 3", "also for a single one: [[x, y, 1]]"),
        ([[1]], "click 1 of the list is [1]", "[x, y, 1]"),
        ([[1, 2, 1, 1]], "click 1 of the list is", "[x, y, 1]"),
        ([{"x": 1, "y": 2, "z": 1}], "click 1 of the list is", "[x, y, 1]"),
        (["12"], "click 1 of the list is '12'", "[x, y, 1]"),
        ([[3, 4], [1, 2, 2]], "click 2 of the list", "inside the box"),
        ([[3, 4], [70, 2]], "click 2 of the list", "inside the image"),
        ([["3", 4]], "click 1 of the list", "click(x, y)"),
        ([Click("3", 4)], "click 1 of the list", "click(x, y)"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_list_of_clicks_changes_nothing(session: Session, clicks: object, given: str, fix: str) -> None:
    before = session.click(10, 10)
    with pytest.raises(ClickError) as caught:
        session.set_clicks(clicks)  # type: ignore[arg-type]
    assert given in caught.value.given
    assert fix in str(caught.value.fix)
    assert session.result is before
    assert session.runs["click"] == 1


def test_without_an_image(paint: Bundle) -> None:
    with Session(paint, threads=1) as session, pytest.raises(NoImageError):
        session.set_clicks(CLICKS)
