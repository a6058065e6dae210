"""Clicks on several objects in one call: one by one, in one run where the bundle has a stage for that, and lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Model, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import BundleCorruptError, ClickError, EngineError, HistoryError, SessionError, SurfaceError
from mmms_deploy.session.batch_plan import Used, batches_for
from tests.support.annotating import GREY, SIZE
from tests.support.batched import write_batched
from tests.support.joint import write_joint
from tests.support.standin_engine import StandInEngine
from tests.support.toy import misdescribed, write_toy

PLACES = [Click(8 + 9 * number, 10 + 7 * (number % 5), number % 4 != 3) for number in range(7)]
NAMES = [f"object {number}" for number in range(7)]


@pytest.fixture(scope="module")
def bundle(paint: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_batched(paint, tmp_path_factory.mktemp("bundles") / "batched", (2, 4))


@pytest.fixture(params=[False, True], ids=["one by one", "together"])
def session(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(bundle, threads=1, batch=request.param) as session:
        session.set_image(GREY)
        yield session


@pytest.fixture
def alone(bundle: Bundle) -> Iterator[Session]:
    with Session(bundle, threads=1) as session:
        session.set_image(GREY)
        yield session


def select_and_click(session: Session, clicks: dict[str, Click]) -> None:
    for name, click in clicks.items():
        session.select(name)
        session.click(click.x, click.y, click.positive)


def same(one: Session, other: Session) -> None:
    """All objects have the same masks, probabilities, clicks and label map."""
    assert one.surfaces == other.surfaces
    assert one.all_clicks == other.all_clicks
    np.testing.assert_array_equal(one.labels, other.labels)
    for name in one.surfaces:
        ours, theirs = (s._result_of(s._state.surfaces.all[name]) for s in (one, other))
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_array_equal(ours.network_probability, theirs.network_probability)


@pytest.mark.parametrize("count", range(1, 8))
def test_new_objects_are_as_if_clicked_one_by_one(session: Session, alone: Session, count: int) -> None:
    clicks = dict(zip(NAMES[:count], PLACES[:count], strict=True))
    before = session.surface
    results = session.click_objects(clicks)
    select_and_click(alone, clicks)
    same(session, alone)
    assert (list(results), session.surface) == (list(clicks), before)
    for name, click in clicks.items():
        assert (results[name].click, results[name].index) == (click, 1)
        np.testing.assert_array_equal(session.select(name).mask, results[name].mask)


@pytest.mark.usefixtures("every_engine")
def test_one_by_one_and_together_on_every_engine(bundle: Bundle) -> None:
    with Session(bundle, threads=1, batch=True) as session, Session(bundle, threads=1, batch=False) as alone:
        for one in (session, alone):
            one.set_image(GREY)
            one.click_objects(dict(zip(NAMES, PLACES, strict=True)))
            one.click_objects(dict(zip(NAMES[:3], PLACES[3:6], strict=True)))
        same(session, alone)
        assert (session.runs["click"], session.runs["click_batch_4"]) == (0, 3)
        assert alone.runs["click"] == 10


def test_further_clicks_turn_to_every_object_first(session: Session, alone: Session) -> None:
    """Objects that overlap: ``select`` puts in the rest of a mask from which others took pixels."""
    first = {"one": Click(40, 25), "two": Click(44, 25), "three": Click(46, 28)}
    session.click_objects(first)
    select_and_click(alone, first)
    overlapping = session.labels == session.surfaces["one"]
    mask = session._result_of(session._state.surfaces.all["one"]).mask
    assert not overlapping[mask].all(), "others took pixels from it"
    session.click_objects({"one": Click(41, 20), "two": Click(50, 30, False)})
    alone.select("one")
    alone.click(41, 20)
    kinds = [[type(step) for step in one["interactions"]] for one in session.to_dict()["surfaces"][1:]]
    assert kinds == [[list, dict, list], [list, dict, list], [list]], "a click, the rest of the mask, another click"
    np.testing.assert_array_equal(session._result_of(session._state.surfaces.all["one"]).mask, alone.mask)


def test_every_object_is_undone_by_itself(session: Session) -> None:
    results = session.click_objects(dict(zip(NAMES, PLACES, strict=True)))
    with pytest.raises(HistoryError):
        session.undo()
    session.select(NAMES[2])
    runs = session.runs
    assert not session.undo().mask.any()
    np.testing.assert_array_equal(session.redo().mask, results[NAMES[2]].mask)
    assert session.runs == runs
    session.select(NAMES[3])
    assert session.clicks == (PLACES[3],)


def test_which_stages_run(bundle: Bundle) -> None:
    with Session(bundle, threads=1, batch=True) as session:
        session.set_image(GREY)
        counts = []
        for number in range(1, 8):
            session.click_objects(dict(zip(NAMES[:number], PLACES, strict=False)))
            counts.append(tuple(session.runs[stage] for stage in ("click", "click_batch_2", "click_batch_4")))
        ran = [
            tuple(now - before for before, now in zip(*pair, strict=True)) for pair in pairwise([(0, 0, 0), *counts])
        ]
        # One alone; two; three and four fill a stage for four up; then the rest as before.
        assert ran == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]


def test_the_plan() -> None:
    assert batches_for(0, (4,)) == []
    assert batches_for(2, (4,)) == [], "half of the rows are not enough"
    assert batches_for(3, (4,)) == [Used(4, 3)]
    assert batches_for(21, (4, 16)) == [Used(16, 16), Used(4, 4)]
    assert batches_for(9, (4, 16)) == [Used(16, 9)]
    assert batches_for(8, (4, 16)) == [Used(4, 4), Used(4, 4)]
    assert batches_for(5, ()) == []


def test_a_saved_annotation_is_answered_together(bundle: Bundle) -> None:
    with Session(bundle, threads=1, batch=True) as session, Session(bundle, threads=1) as other:
        for one in (session, other):
            one.set_image(GREY)
        for name, click in zip(NAMES, PLACES, strict=True):
            other.select(name)
            other.add_clicks([click, (click.x + 1, click.y + 1)])
            if name in NAMES[:2]:
                other.undo()
        other.select("object 4")
        saved = json.loads(json.dumps(other.to_dict()))
        result = session.restore(saved)
        np.testing.assert_array_equal(result.mask, other.mask)
        same(session, other)
        assert session.to_dict() == saved
        # Seven objects: four and three, in two rounds.
        assert (session.runs["click"], session.runs["click_batch_4"]) == (0, 4)
        session.select(NAMES[0])
        other.select(NAMES[0])
        np.testing.assert_array_equal(session.redo().mask, other.redo().mask)


def test_a_late_modality_answers_all_objects_together(tmp_path: Path) -> None:
    plain = write_toy(tmp_path / "plain", modalities=(ModalitySpec(name="depth", scale=0.01, optional=True),))
    bundle = write_batched(plain, tmp_path / "batched", (4,))
    depth = np.full(SIZE, 30, np.float32)
    with Session(bundle, threads=1, batch=True) as session, Session(bundle, threads=1) as other:
        for one in (session, other):
            one.set_image(GREY)
            one.click_objects(dict(zip(NAMES, PLACES, strict=True)))
            one.select(NAMES[1])
            one.click(40, 40)
            one.undo()
            one.set_modalities(depth=depth)
        same(session, other)
        assert session.runs["click_batch_4"] == 4
        np.testing.assert_array_equal(session.redo().mask, other.redo().mask)


def test_masks_put_in_by_hand_stay_between_the_rounds(session: Session, alone: Session) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[5:20, 5:30] = True
    for one in (session, alone):
        one.select(NAMES[0])
        one.set_mask(mask)
    session.click_objects(dict(zip(NAMES[:3], PLACES, strict=False)))
    select_and_click(alone, dict(zip(NAMES[:3], PLACES, strict=False)))
    same(session, alone)
    saved = session.to_dict()
    alone.restore(saved)
    same(session, alone)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clicks", "error", "said"),
    [
        ([(5, 5)], ClickError, "a list"),
        ({"one": (5, 5), "two": (500, 5)}, ClickError, "object 'two': click"),
        ({"one": "here"}, ClickError, "object 'one'"),
        ({"one": {"choice": 0}}, ClickError, "choice"),
        ({"": (5, 5)}, SurfaceError, "name"),
        ({3: (5, 5)}, SurfaceError, "name"),
    ],
)
def test_a_bad_one_takes_none(session: Session, clicks: object, error: type[Exception], said: str) -> None:
    session.click(10, 10)
    before = session.to_dict()
    with pytest.raises(error, match=said):
        session.click_objects(clicks)  # type: ignore[arg-type]
    assert session.to_dict() == before


def test_no_click_changes_nothing(session: Session) -> None:
    before = session.to_dict()
    assert session.click_objects({}) == {}
    assert session.to_dict() == before


def test_an_engine_that_fails_on_the_way_takes_none(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(bundle, threads=1, batch=True) as session:
        session.set_image(GREY)
        session.click_objects({"one": (5, 5)})
        before, run, left = session.to_dict(), session._runner.run, [1]

        def failing(*given: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise EngineError("it failed", expected="a run", fix="none")
            return run(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(session._runner, "run", failing)
        with pytest.raises(EngineError):
            session.click_objects(dict(zip(NAMES, PLACES, strict=True)))
        assert session.to_dict() == before


def test_together_needs_a_stage_for_it(paint: Bundle, bundle: Bundle) -> None:
    with pytest.raises(SessionError, match="no click stage for several objects"):
        Session(paint, threads=1, batch=True)
    with pytest.raises(SessionError, match="zoom or flip"):
        Session(bundle, threads=1, batch=True, zoom=True)
    with pytest.raises(SessionError, match="batch is 4"):
        Session(bundle, threads=1, batch=4)  # type: ignore[arg-type]
    with Model(bundle, threads=1) as model, model.session(batch=True) as session:
        session.set_image(GREY)
        assert len(session.click_objects({"one": (5, 5), "two": (30, 30)})) == 2
        assert session.runs["click_batch_2"] == 1


def test_objects_with_crops_of_their_own_run_one_by_one(bundle: Bundle) -> None:
    with Session(bundle, threads=1, zoom=True) as session, Session(bundle, threads=1, zoom=True) as alone:
        clicks = dict(zip(NAMES[:3], PLACES, strict=False))
        for one in (session, alone):
            one.set_image(GREY)
        results = session.click_objects(clicks)
        for name, click in clicks.items():
            alone.select(name)
            np.testing.assert_array_equal(results[name].mask, alone.click(click.x, click.y, click.positive).mask)
        assert session.runs["click_batch_2"] == session.runs["click_batch_4"] == 0


def test_a_stage_that_is_none_for_several_objects_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    copy = write_batched(bundle, tmp_path / "odd", ())
    odd = misdescribed(copy, "inputs", shape=(1, 3, 5, 5))
    with pytest.raises(BundleCorruptError):
        Session(odd, threads=1)


def test_what_a_bundle_without_such_stages_says_stays_the_same(paint: Bundle, bundle: Bundle) -> None:
    assert all("batch" not in stage for stage in msgspec.to_builtins(paint.manifest)["stages"])
    assert [stage.get("batch") for stage in msgspec.to_builtins(bundle.manifest)["stages"]] == [None, None, 2, 4]
    assert paint.manifest.batches == {}
    assert bundle.manifest.batches == {2: "click_batch_2", 4: "click_batch_4"}
    assert {"click_batch_2", "click_batch_4"} <= bundle.manifest.larger


# --- on a GPU, and all objects at once --------------------------------------------------------------------------------


def test_on_a_gpu_they_run_together(bundle: Bundle, alone: Session) -> None:
    engine = StandInEngine(bundle)
    engine._info = replace(engine.info, device="cuda", threads=None)
    with Session(bundle, engine=engine) as session:
        session.set_image(GREY)
        for clicks in (PLACES, PLACES[::-1]):
            session.click_objects(dict(zip(NAMES, clicks, strict=True)))
            for name, click in zip(NAMES, clicks, strict=True):
                alone.select(name)
                alone.click(click.x, click.y, click.positive)
        assert (session.runs["click"], session.runs["click_batch_4"]) == (0, 4)
        for name in NAMES:
            assert session.select(name).index == 2
            session.undo()
            session.undo() if len(session.clicks) == 2 else None
        session.click(5, 5)
    engine.close()


def test_states_of_objects_stay_on_the_gpu(bundle: Bundle) -> None:
    engine = StandInEngine(bundle)
    with (
        Session(bundle, engine=engine, batch=True) as session,
        Session(bundle, engine="onnxruntime", batch=False) as other,
    ):
        spread = {f"far {number}": Click(8 + 16 * number, 8 + 10 * number) for number in range(4)}
        more = {name: Click(click.x + 2, click.y) for name, click in spread.items()}
        for one in (session, other):
            one.set_image(GREY)
            one.click_objects(spread)
        engine.standin.reset()
        session._runner.take_moved()
        session.click_objects(more)
        moved, count = session._runner.take_moved(), engine.standin.count()
        assert count["cudaGraphLaunch"] == 1
        plane = 4 * session.bundle.manifest.size[0] * session.bundle.manifest.size[1]
        assert moved.up == 4 * 16, "the clicks alone"
        bits = 4 * GREY.shape[0] * -(-GREY.shape[1] // 32)
        assert moved.down == 4 * (plane + bits), "the answers, and the bits of their masks"
        other.click_objects(more)
        same(session, other)
    engine.close()


def test_objects_that_are_answered_at_once(tmp_path: Path) -> None:
    joint = write_joint(tmp_path / "joint")
    clicks = {"a": Click(20, 20), "b": Click(40, 30), "c": Click(55, 12)}
    with Session(joint, threads=1) as session, Session(joint, threads=1) as alone:
        for one in (session, alone):
            one.set_image(GREY)
        results = session.click_objects(clicks)
        assert session.runs["click"] == 1
        select_and_click(alone, clicks)
        np.testing.assert_array_equal(session.labels, alone.labels)
        assert session.all_clicks == alone.all_clicks
        assert session.surface == "1"
        for name in clicks:
            np.testing.assert_array_equal(results[name].mask, alone.select(name).mask)
        session.undo()
        alone.undo()
        np.testing.assert_array_equal(session.labels, alone.labels)
        before = session.to_dict()
        with pytest.raises(SurfaceError):
            session.click_objects({"d": (5, 5), "e": (60, 40)})
        assert session.to_dict() == before
