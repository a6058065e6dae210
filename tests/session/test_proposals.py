"""Networks that answer a first click with proposals: the choice of one, and every call around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.errors import ChoiceError, ClickError, SessionError
from tests.support.annotating import GREY, SIZE
from tests.support.proposing import RADII, SCORES, expected_logits, write_proposing

FIRST, SECOND, THIRD = (35, 25, 1), (60, 40, 1), (34, 24, 0)
BEST, OTHER = 1, 2
"""The proposals of the largest score: the session takes the first of them."""


@pytest.fixture(scope="module")
def proposing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy with proposals."""
    return write_proposing(tmp_path_factory.mktemp("bundles") / "proposing")


@pytest.fixture
def session(proposing: Bundle) -> Iterator[Session]:
    """A session on it, with an image."""
    with Session(proposing, threads=1) as opened:
        opened.set_image(GREY)
        yield opened


def check(session: Session, choice: int, *clicks: tuple[float, float, int]) -> None:
    """Check that the session stands where these clicks and this choice lead."""
    result = session.result
    np.testing.assert_allclose(result.answer.numbers, expected_logits(choice, clicks, SIZE), atol=1e-3)
    assert [click.to_list() for click in result.clicks] == [list(click) for click in clicks]
    assert [one.taken for one in result.candidates] == ([n == choice for n in range(3)] if len(clicks) == 1 else [])
    assert np.array_equal(session.labels > 0, result.mask)
    assert result.mask.any()


@pytest.mark.usefixtures("every_engine")
def test_the_first_click_proposes_and_the_choice_is_refined(session: Session) -> None:
    first = session.click(*FIRST)
    check(session, BEST, FIRST)
    assert [one.score for one in first.candidates] == list(SCORES)
    small, large, middle = (one.area for one in first.candidates)
    assert small < middle < large
    assert session.runs == {"image": 1, "first_click": 1, "click": 0}
    session.choose(OTHER)
    check(session, OTHER, FIRST)
    assert session.runs == {"image": 1, "first_click": 1, "click": 0}
    session.click(*SECOND)
    check(session, OTHER, FIRST, SECOND)
    session.click(*THIRD)
    check(session, OTHER, FIRST, SECOND, THIRD)
    assert session.runs == {"image": 1, "first_click": 1, "click": 2}


@pytest.mark.usefixtures("every_engine")
def test_undo_and_redo_over_a_choice_run_nothing(session: Session) -> None:
    session.click(*FIRST)
    session.choose(OTHER)
    session.click(*SECOND)
    runs = session.runs
    session.undo()
    check(session, OTHER, FIRST)
    session.undo()
    check(session, BEST, FIRST)
    session.redo()
    check(session, OTHER, FIRST)
    session.redo()
    check(session, OTHER, FIRST, SECOND)
    assert session.runs == runs
    session.undo()
    session.undo()
    session.click(*SECOND)
    check(session, BEST, FIRST, SECOND)
    session.reset()
    assert session.result.candidates == ()
    session.click(*SECOND)
    check(session, BEST, SECOND)


def test_after_further_clicks_there_is_nothing_to_choose_from(session: Session) -> None:
    session.click(*FIRST)
    session.click(*SECOND)
    before = session.result
    with pytest.raises(ChoiceError, match="after 2 clicks, and proposing gives several answers to the first one alone"):
        session.choose(OTHER)
    assert session.result is before
    session.undo()
    session.choose(OTHER)
    session.click(*SECOND)
    check(session, OTHER, FIRST, SECOND)


def test_a_first_negative_click_is_refused(session: Session) -> None:
    for _ in range(2):
        with pytest.raises(ClickError, match="a positive one: proposing proposes objects at the first click"):
            session.click(10, 10, False)
    with pytest.raises(ClickError, match="is negative"):
        session.set_clicks([(10, 10, 0), FIRST])
    assert session.clicks == ()
    session.click(*FIRST)
    session.click(*THIRD)
    check(session, BEST, FIRST, THIRD)


def test_lists_of_clicks_go_on_from_what_is_there(session: Session) -> None:
    chosen: list[Any] = [FIRST, {"choice": OTHER}]
    session.set_clicks([*chosen, SECOND])
    check(session, OTHER, FIRST, SECOND)
    session.set_clicks([*chosen, SECOND, THIRD])
    check(session, OTHER, FIRST, SECOND, THIRD)
    assert session.runs == {"image": 1, "first_click": 1, "click": 2}
    session.set_clicks([FIRST, SECOND])
    check(session, BEST, FIRST, SECOND)
    assert session.runs == {"image": 1, "first_click": 1, "click": 3}
    with pytest.raises(ChoiceError):
        session.set_clicks([FIRST, SECOND, {"choice": OTHER}])
    check(session, BEST, FIRST, SECOND)


def test_predict_gives_proposals_and_takes_one_back(session: Session) -> None:
    points, labels = [list(FIRST[:2]), list(SECOND[:2])], [1, 1]
    masks, scores, logits = session.predict(points[:1], labels[:1])
    assert (masks.shape, scores.tolist(), logits.shape[0]) == ((3, *SIZE), list(SCORES), 3)
    one, score, _ = session.predict(points[:1], labels[:1], multimask_output=False)
    assert np.array_equal(one, masks[[BEST]])
    assert score.tolist() == [SCORES[BEST]]
    for place in range(len(RADII)):
        found, _, _ = session.predict(points, labels, mask_input=logits[place][None])
        check(session, place, FIRST, SECOND)
        assert np.array_equal(found, [session.mask]), "after the first click there is one answer"
    with pytest.raises(SessionError, match="feeds no previous mask back"):
        session.predict(points, labels, mask_input=np.zeros((1, 4, 4), np.float32))


def test_surfaces_have_choices_of_their_own_and_are_saved(session: Session) -> None:
    session.click(*FIRST)
    session.choose(OTHER)
    session.click(*SECOND)
    session.select("other")
    session.click(5, 5)
    session.choose(0)
    session.undo()
    text = json.dumps(session.to_dict())
    session.set_image(GREY)
    session.restore(json.loads(text))
    assert session.result.candidates[BEST].taken
    assert session.redo().candidates[0].taken
    session.select("1")
    np.testing.assert_allclose(session.result.answer.numbers, expected_logits(OTHER, [FIRST, SECOND], SIZE), atol=1e-3)
    session.undo()
    session.undo()
    assert session.result.candidates[BEST].taken


def test_what_needs_a_previous_mask_is_refused(session: Session) -> None:
    result = session.click(*FIRST)
    for call in (lambda: session.set_mask(result.mask), lambda: session.load_labels(session.labels)):
        with pytest.raises(SessionError, match="feeds no previous mask back"):
            call()
    assert session.result is result


@pytest.mark.parametrize("asked", ["zoom", "flip"])
def test_other_views_are_refused_by_name(proposing: Bundle, asked: str) -> None:
    with pytest.raises(SessionError, match=f"{asked} was asked of proposing") as caught:
        Session(proposing, **{asked: True})  # type: ignore[arg-type]
    assert "takes all clicks as a list" in str(caught.value)
