"""Several clicks at once: one call, one answer; on every engine, and with networks that take clicks as a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.errors import ChoiceError, ClickError, EngineError, NoImageError
from tests.support.annotating import GREY, check, reference
from tests.support.joint import write_joint
from tests.support.proposing import write_proposing

CLICKS = [Click(10, 10), Click(60.25, 40.5), Click(14, 12, False)]
LISTED = [Click(20, 20), Click(40, 30), Click(30, 25, False), Click(12, 30)]


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


@pytest.fixture(scope="module")
def proposing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_proposing(tmp_path_factory.mktemp("bundles") / "proposing")


@pytest.mark.usefixtures("every_engine")
def test_they_are_as_one_click_after_the_other(session: Session, paint: Bundle) -> None:
    session.click(CLICKS[0].x, CLICKS[0].y)
    result = session.add_clicks(CLICKS[1:])
    check(result, reference(paint, CLICKS))
    assert (result.index, result.click, session.clicks) == (3, CLICKS[-1], tuple(CLICKS))
    assert session.result is result
    assert session.runs["click"] == 3, "this network keeps the previous mask: a run for each click"
    check(session.undo(), reference(paint, CLICKS[:2]))
    check(session.undo(), reference(paint, CLICKS[:1]))
    check(session.redo(), reference(paint, CLICKS[:2]))
    assert session.runs["click"] == 3


def test_no_click_leaves_everything(session: Session) -> None:
    session.add_clicks(CLICKS)
    before = session.undo()
    assert session.add_clicks([]) is before
    assert session.can_redo


def test_they_forget_what_was_undone(session: Session) -> None:
    session.add_clicks(CLICKS)
    session.undo()
    session.add_clicks(CLICKS[2:])
    assert session.clicks == tuple(CLICKS)
    assert not session.can_redo
    assert session.runs["click"] == 4, "as a click, and not as redo"


@pytest.mark.parametrize("bad", [[(5, 5), (500, 5)], [(5, 5), "no click"], [(5, 5), (float("nan"), 1)], 7])
def test_a_bad_one_takes_none(session: Session, bad: object) -> None:
    before = session.add_clicks(CLICKS)
    with pytest.raises(ClickError):
        session.add_clicks(bad)  # type: ignore[arg-type]
    assert session.result is before
    assert session.runs["click"] == 3


def test_an_engine_that_fails_on_the_way_takes_none(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = session.add_clicks(CLICKS)
    run, left = session._after_click, [1]

    def failing(*given: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise EngineError("it failed", expected="a run", fix="none")
        return run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_after_click", failing)
    with pytest.raises(EngineError):
        session.add_clicks([(5, 5), (6, 6)])
    assert session.result is before
    assert session.clicks == tuple(CLICKS)


def test_they_need_an_image(paint: Bundle) -> None:
    with Session(paint, threads=1) as session, pytest.raises(NoImageError):
        session.add_clicks([(5, 5)])


# --- networks that take all clicks as a list --------------------------------------------------------------------------


def one_by_one(bundle: Bundle, clicks: Sequence[Click]) -> list[np.ndarray]:
    """The mask after every click, and before the first one."""
    with Session(bundle, threads=1) as session:
        session.set_image(GREY)
        masks = [session.mask]
        for click in clicks:
            masks.append(session.click(click.x, click.y, click.positive).mask)
        return masks


@pytest.mark.parametrize("bundle", ["joint", "proposing"])
def test_a_list_is_one_run(bundle: str, request: pytest.FixtureRequest) -> None:
    listed: Bundle = request.getfixturevalue(bundle)
    expected = one_by_one(listed, LISTED)
    with Session(listed, threads=1) as session:
        session.set_image(GREY)
        result = session.add_clicks(LISTED)
        np.testing.assert_array_equal(result.mask, expected[-1])
        runs = dict(session.runs)
        assert sum(runs[stage] for stage in runs if stage.startswith("click")) == 1
        saved = session.to_dict()
        for number in (3, 2, 1, 0):
            np.testing.assert_array_equal(session.undo().mask, expected[number])
        # The answer to the first click of a network with proposals was there already.
        between = 2 if bundle == "proposing" else 3
        ran = {stage: count - runs[stage] for stage, count in session.runs.items()}
        assert sum(ran[stage] for stage in ran if stage.startswith("click")) == between
        again = dict(session.runs)
        for number in (1, 2, 3, 4):
            np.testing.assert_array_equal(session.redo().mask, expected[number])
        session.undo()
        assert dict(session.runs) == again, "every answer is computed once"
        session.redo()
        assert session.to_dict() == {**saved, "surfaces": session.to_dict()["surfaces"]}


@pytest.mark.parametrize("bundle", ["joint", "proposing"])
@pytest.mark.parametrize("undone", [0, 1, 3])
def test_a_saved_list_is_one_run(bundle: str, undone: int, request: pytest.FixtureRequest) -> None:
    listed: Bundle = request.getfixturevalue(bundle)
    expected = one_by_one(listed, LISTED)
    with Session(listed, threads=1) as session, Session(listed, threads=1) as other:
        session.set_image(GREY)
        other.set_image(GREY)
        session.add_clicks(LISTED)
        for _ in range(undone):
            session.undo()
        result = other.restore(session.to_dict())
        np.testing.assert_array_equal(result.mask, expected[len(LISTED) - undone])
        ran = sum(count for stage, count in other.runs.items() if stage.startswith("click"))
        assert ran == (0 if (bundle, undone) == ("proposing", 3) else 1)
        for number in range(len(LISTED) - undone + 1, len(LISTED) + 1):
            np.testing.assert_array_equal(other.redo().mask, expected[number])
        other.set_clicks(LISTED[:2])
        np.testing.assert_array_equal(other.mask, expected[2])


@pytest.mark.parametrize("write", [write_joint, write_proposing])
def test_an_undo_that_fails_changes_nothing(
    write: Callable[[Path], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(write(tmp_path / "listed"), threads=1) as session:
        session.set_image(GREY)
        result = session.add_clicks(LISTED)

        def failing(*given: object, **named: object) -> object:
            raise EngineError("it failed", expected="a run", fix="none")

        with monkeypatch.context() as patched:
            patched.setattr(session._pipeline, "run", failing)
            with pytest.raises(EngineError):
                session.undo()
        assert session.result is result
        assert len(session.undo().clicks) == 3


def test_more_than_the_longest_list_takes_none(joint: Bundle) -> None:
    with Session(joint, threads=1) as session:
        session.set_image(GREY)
        before = session.add_clicks(LISTED)
        with pytest.raises(ClickError, match="click 9"):
            session.add_clicks([(5 + n, 5) for n in range(5)])
        assert session.result is before


def test_choices_among_them(proposing: Bundle) -> None:
    steps = [LISTED[0].to_list(), {"choice": 0}, *[click.to_list() for click in LISTED[1:]]]
    with Session(proposing, threads=1) as session, Session(proposing, threads=1) as other:
        session.set_image(GREY)
        other.set_image(GREY)
        result = session.add_clicks(steps)
        np.testing.assert_array_equal(result.mask, other.set_clicks(steps).mask)
        assert not np.array_equal(result.mask, one_by_one(proposing, LISTED)[-1])
        with pytest.raises(ChoiceError):
            session.add_clicks([(5, 5), {"choice": 1}])
        assert session.result is result


def test_an_answer_that_was_never_given_is_no_mask_input(proposing: Bundle) -> None:
    with Session(proposing, threads=1) as session:
        session.set_image(GREY)
        coordinates = [(click.x, click.y) for click in LISTED]
        labels = [int(click.positive) for click in LISTED]
        _, _, logits = session.predict(coordinates, labels)
        _, _, again = session.predict([*coordinates, (50, 20)], [*labels, 1], mask_input=logits)
        assert len(session.clicks) == 5
        assert dataclasses.is_dataclass(session.clicks[0])
        assert not np.array_equal(logits, again)
