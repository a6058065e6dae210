"""Networks that answer a first click with proposals: the choice of one, and every call around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ClickContract
from mmms_deploy.errors import ChoiceError, ClickError, ImageError, NoImageError, SessionError
from mmms_deploy.session.answers import Candidates
from mmms_deploy.session.overlay import POSITIVE
from mmms_deploy.session.sheet import draw_sheet
from tests.support.annotating import GREY, SIZE
from tests.support.proposing import RADII, SCORES, expected_logits, write_proposing

FIRST, SECOND, THIRD = (35, 25, 1), (60, 40, 1), (34, 24, 0)
CONTRACT = ClickContract()
BEST, OTHER = 1, 2
"""The proposals of the largest score: the session takes the first of them."""


@pytest.fixture
def session(proposing: Bundle) -> Iterator[Session]:
    """A session on it, with an image."""
    with Session(proposing, threads=1) as opened:
        opened.set_image(GREY)
        yield opened


def ran(session: Session) -> dict[str, int]:
    """How often the stages ran that did."""
    return {name: times for name, times in session.runs.items() if times}


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
    assert ran(session) == {"image": 1, "first_click": 1}
    session.choose(OTHER)
    check(session, OTHER, FIRST)
    assert ran(session) == {"image": 1, "first_click": 1}
    session.click(*SECOND)
    check(session, OTHER, FIRST, SECOND)
    session.click(*THIRD)
    check(session, OTHER, FIRST, SECOND, THIRD)
    assert ran(session) == {"image": 1, "first_click": 1, "click": 2}


@pytest.mark.usefixtures("every_engine")
def test_longer_lists_run_a_larger_stage(session: Session) -> None:
    clicks = [FIRST, SECOND, THIRD, (5, 5, 1), (50, 10, 1), (20, 40, 1)]
    session.click(*FIRST)
    session.choose(OTHER)
    results = [session.click(*click) for click in clicks[1:]]
    check(session, OTHER, *clicks)
    assert ran(session) == {"image": 1, "first_click": 1, "click": 2, "click_6": 3}
    assert all(result.timings.compile >= 0 for result in results)
    assert [result.timings.compile for result in results if result.index != 4] == [0] * 4
    with pytest.raises(ClickError, match="click 7"):
        session.click(1, 1)
    session.undo()
    check(session, OTHER, *clicks[:5])


def test_more_clicks_take_a_larger_stage(tmp_path: Path) -> None:
    clicks = [FIRST, SECOND, THIRD, (20, 20, 1)]
    with Session(write_proposing(tmp_path / "sized", (2, 4)), threads=1) as session:
        session.set_image(GREY)
        compiled = [session.click(*click).timings.compile > 0 for click in clicks]
        assert compiled == [False, False, True, False]
        check(session, BEST, *clicks)
        assert session.runs == {"image": 1, "first_click": 1, "click": 1, "click_4": 2}
        with pytest.raises(ClickError, match="at most 4"):
            session.click(10, 10)
        session.undo()
        session.set_clicks([(30, 30, 1), *clicks[:2]])
        check(session, BEST, (30, 30, 1), *clicks[:2])


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
    assert ran(session) == {"image": 1, "first_click": 1, "click": 2}
    session.set_clicks([FIRST, SECOND])
    check(session, BEST, FIRST, SECOND)
    assert ran(session) == {"image": 1, "first_click": 1, "click": 3}
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


def test_results_show_all_answers(session: Session) -> None:
    first = session.click(*FIRST)
    assert "candidate 1 (of 0 to 2, score 0.750)" in repr(first)
    chosen = session.choose(OTHER)
    assert "candidate 2 (of 0 to 2, score 0.750)" in repr(chosen)
    assert chosen.to_dict()["scores"] == list(SCORES)
    assert (first.to_dict()["taken"], chosen.to_dict()["taken"]) == (BEST, OTHER)
    sheets = [np.asarray(result.candidate_sheet()) for result in (first, chosen)]
    assert sheets[0].shape == sheets[1].shape
    width = sheets[0].shape[1]
    for place, sheet in zip((BEST, OTHER), sheets, strict=True):
        _, columns = np.nonzero((sheet[:3] == POSITIVE).all(axis=2))
        assert place * width / 3 - 6 <= columns.min() <= columns.max() < (place + 1) * width / 3 + 6
    again = first.candidate_sheet(GREY[:, :, ::-1], channel_order="bgr")
    assert np.array_equal(np.asarray(again), sheets[0])
    with pytest.raises(ImageError, match="the image has 10 rows"):
        first.candidate_sheet(GREY[:10])
    without = session.click(*SECOND)
    assert "candidate" not in repr(without)
    assert "scores" not in without.to_dict()
    with pytest.raises(ChoiceError, match="no candidates to draw"):
        without.candidate_sheet()
    with Session(session.bundle, keep_image=False) as other:
        other.set_image(GREY)
        with pytest.raises(NoImageError):
            other.click(*FIRST).candidate_sheet()


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (7, (3, 3))])
def test_many_answers_are_laid_out_in_rows(count: int, shape: tuple[int, int]) -> None:
    candidates = Candidates(np.ones((count, 4, 6), np.float32), (0.5,) * count, 0)
    single = draw_sheet(GREY, Candidates(np.ones((1, 4, 6), np.float32), (0.5,), 0).listed(CONTRACT, SIZE), [])
    sheet = draw_sheet(GREY, candidates.listed(CONTRACT, SIZE), [])
    rows, columns = shape
    assert sheet.size == (columns * (single.width + 6) - 6, rows * (single.height + 6) - 6)
