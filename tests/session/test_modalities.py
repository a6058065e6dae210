"""Modalities that arrive later, change, or are absent; on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Click, Session
from mmms_deploy.engines.protocol import Value
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import EngineError, ModalityError, NoImageError
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from tests.support.annotating import GREY, SIZE, check, reference
from tests.support.flaky import Flaky

pytestmark = pytest.mark.usefixtures("every_engine")

DEPTH = np.full(SIZE, 20.0)  # 0.2 in the network's unit
EVENT = np.full((*SIZE, 3), 0.1)
CLICKS = [Click(10, 10), Click(40, 30), Click(12, 14, False)]


@pytest.fixture
def session(modal: Bundle) -> Iterator[Session]:
    with Session(modal) as session:
        yield session


def answer(session: Session, clicks: list[Click]) -> None:
    for click in clicks:
        session.click(click.x, click.y, click.positive)


def test_a_modality_that_comes_later_runs_no_backbone(session: Session, modal: Bundle) -> None:
    session.set_image(GREY, depth=LATER, event=EVENT)
    assert session.runs == {"image": 1, "modality": 0, "click": 0}
    assert session.modalities == {"event"}
    session.set_modalities(depth=DEPTH)
    assert session.runs == {"image": 1, "modality": 1, "click": 0}
    assert session.modalities == {"depth", "event"}
    check(session.click(10, 10), reference(modal, [Click(10, 10)], feature=0.2 + 0.2 + 0.1))


def test_no_click_before_everything_is_there(session: Session) -> None:
    session.set_image(GREY, depth=LATER, event=EVENT)
    with pytest.raises(ModalityError, match="not there yet: depth") as caught:
        session.click(10, 10)
    assert "set_modalities(depth=...)" in str(caught.value.fix)
    session.set_modalities(depth=DEPTH)
    session.click(10, 10)


def test_a_changed_modality_answers_the_clicks_again(session: Session, modal: Bundle) -> None:
    session.set_image(GREY, depth=np.zeros(SIZE), event=EVENT)
    answer(session, CLICKS)
    session.undo()
    check(session.result, reference(modal, CLICKS[:2], feature=0.3))
    session.set_modalities(depth=DEPTH)
    assert session.runs == {"image": 1, "modality": 2, "click": 6}
    # The mask, and what undo and redo lead to, are as if the new map had been there from the start.
    check(session.result, reference(modal, CLICKS[:2], feature=0.5))
    assert session.clicks == tuple(CLICKS[:2])
    check(session.redo(), reference(modal, CLICKS, feature=0.5))
    session.undo()
    check(session.undo(), reference(modal, CLICKS[:1], feature=0.5))
    check(session.click(40, 30), reference(modal, CLICKS[:2], feature=0.5))


def test_a_changed_modality_answers_every_surface_again(session: Session, modal: Bundle) -> None:
    session.set_image(GREY, depth=np.zeros(SIZE), event=EVENT)
    answer(session, CLICKS[:1])
    session.select("other")
    answer(session, CLICKS[1:])
    session.set_modalities(depth=DEPTH)
    assert (session.surface, dict(session.surfaces)) == ("other", {"1": 1, "other": 2})
    check(session.result, reference(modal, CLICKS[1:], feature=0.5))
    owned = session.labels == 2
    np.testing.assert_array_equal(owned, session.mask)
    check(session.undo(), reference(modal, CLICKS[1:2], feature=0.5))
    session.redo()
    expected = reference(modal, CLICKS[:1], feature=0.5)
    session.select("1")
    if (owned & (expected > modal.manifest.clicks.threshold)).any():
        session.undo()  # it continued from the rest of its mask
    check(session.result, expected)


def test_undo_stays_limited_after_a_change(modal: Bundle) -> None:
    with Session(modal, history_limit=1) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        answer(session, CLICKS)
        session.undo()
        session.set_modalities(event=np.zeros((*SIZE, 3)))
        assert session.clicks == tuple(CLICKS[:2])
        assert (session.can_undo, session.can_redo) == (False, True)
        check(session.redo(), reference(modal, CLICKS, feature=0.4))


def test_a_refused_change_changes_nothing(session: Session, modal: Bundle) -> None:
    session.set_image(GREY, depth=DEPTH, event=EVENT)
    answer(session, CLICKS)
    runs, result = session.runs, session.result
    for wrong in (
        {"depth": np.zeros((3, 4))},
        {"thermal": DEPTH},
        {"depth": None},
        {"depth": LATER},
        {},
        {"event": np.full((*SIZE, 3), np.nan), "depth": np.zeros(SIZE)},
    ):
        with pytest.raises(ModalityError):
            session.set_modalities(**wrong)
    assert (session.runs, session.result) == (runs, result)
    check(session.click(60, 40), reference(modal, [*CLICKS, Click(60, 40)], feature=0.5))


def test_a_change_that_fails_half_way_changes_nothing(modal: Bundle) -> None:
    flaky = Flaky(open_engine(modal))
    with Session(modal, engine=flaky) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        answer(session, CLICKS[:2])
        for stage in ("modality", "click"):
            flaky.fail = stage
            with pytest.raises(EngineError):
                session.set_modalities(depth=np.zeros(SIZE))
            flaky.fail = None
        check(session.result, reference(modal, CLICKS[:2], feature=0.5))
        check(session.click(12, 14, False), reference(modal, CLICKS, feature=0.5))
    flaky.close()


def test_before_an_image_there_is_nothing_to_change(session: Session) -> None:
    with pytest.raises(NoImageError):
        session.set_modalities(depth=DEPTH)


def test_missing_and_surplus_names_both_sides(session: Session) -> None:
    with pytest.raises(ModalityError) as caught:
        session.set_image(GREY, thermal=DEPTH, depth=DEPTH)
    assert "given: thermal, depth (surplus: thermal)" in str(caught.value)
    with pytest.raises(ModalityError) as caught:
        session.set_image(GREY, depth=DEPTH)
    assert "missing: event" in str(caught.value)
    assert "modalities of this bundle: depth, event" in str(caught.value.expected)
    assert "set_image(rgb, depth=..., event=...), or event=LATER" in str(caught.value.fix)


def test_an_rgb_bundle_takes_no_modality(paint: Bundle) -> None:
    with Session(paint) as session, pytest.raises(ModalityError, match="it takes RGB alone"):
        session.set_image(GREY, depth=DEPTH)


# --- optional ones ----------------------------------------------------------------------------------------------------


def test_without_any_modality_the_fuser_is_bypassed(optional: Bundle) -> None:
    with Session(optional) as session:
        session.set_image(GREY)
        assert session.runs == {"image": 1, "modality": 0, "click": 0}
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.2))
        assert session.runs == {"image": 1, "modality": 0, "click": 1}


def test_unread_inputs_are_not_uploaded(optional: Bundle, modal: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[str] = []
    put = StagePipeline.set

    def recorded(pipeline: StagePipeline, state: PipelineState, values: Mapping[str, Value]) -> PipelineState:
        fed.extend(values)
        return put(pipeline, state, values)

    monkeypatch.setattr(StagePipeline, "set", recorded)
    with Session(optional) as session:
        for change, expected in (
            (lambda: session.set_image(GREY), ["rgb"]),
            (lambda: session.set_modalities(depth=DEPTH), ["depth", "event", "present"]),
            (lambda: session.set_modalities(depth=None), []),
            (lambda: session.set_image(GREY, depth=LATER), ["rgb"]),
        ):
            fed.clear()
            change()
            assert fed == expected
    with Session(modal) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        fed.clear()
        session.set_image(GREY, depth=LATER, event=EVENT)
        assert fed == ["rgb", "event"]


def test_modalities_come_and_go(optional: Bundle) -> None:
    with Session(optional) as session:
        session.set_image(GREY)
        answer(session, CLICKS)
        features = []
        for change, feature in (
            ({"depth": DEPTH}, 0.4),
            ({"event": EVENT}, 0.5),
            ({"depth": None}, 0.3),
            ({"event": None}, 0.2),
            ({"depth": DEPTH, "event": EVENT}, 0.5),
        ):
            session.set_modalities(**change)
            check(session.result, reference(optional, CLICKS, feature=feature))
            features.append(session.modalities)
        assert features == [{"depth"}, {"depth", "event"}, {"event"}, set(), {"depth", "event"}]
        assert session.runs == {"image": 1, "modality": 4, "click": 18}


def test_the_next_image_does_not_inherit_a_modality(optional: Bundle) -> None:
    with Session(optional) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        session.set_image(GREY, event=EVENT)
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.3))
        session.set_image(GREY)
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.2))
        session.set_image(GREY, depth=DEPTH)
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.4))


def test_an_image_that_fails_leaves_the_modalities_of_the_one_before(optional: Bundle) -> None:
    flaky = Flaky(open_engine(optional))
    with Session(optional, engine=flaky) as session:
        session.set_image(GREY, depth=DEPTH)
        flaky.fail = "image"
        with pytest.raises(EngineError):
            session.set_image(GREY)
        flaky.fail = None
        assert session.modalities == {"depth"}
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.4))
    flaky.close()


def test_an_optional_modality_announced_for_later_does_not_hold_clicks_up(optional: Bundle) -> None:
    with Session(optional) as session:
        session.set_image(GREY, depth=LATER)
        check(session.click(10, 10), reference(optional, CLICKS[:1], feature=0.2))
        session.set_modalities(depth=DEPTH)
        check(session.result, reference(optional, CLICKS[:1], feature=0.4))
