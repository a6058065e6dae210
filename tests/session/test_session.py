from __future__ import annotations

import copy
import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmms_deploy import Bundle, Click, ClickResult, Session
from mmms_deploy.bundle import Precision
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    ClickError,
    EngineError,
    HistoryError,
    ImageError,
    MMMSDeployError,
    MMMSDeployWarning,
    ModalityError,
    NoImageError,
    SessionClosedError,
    SessionError,
)
from mmms_deploy.session import HISTORY_LIMIT
from tests.support.annotating import GREY, SIZE, check, recorded_outputs, reference
from tests.support.flaky import Flaky
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("every_engine")


# --- what a click answers ---------------------------------------------------------------------------------------------


def test_clicks_equal_numpy(session: Session) -> None:
    clicks = [Click(10, 10), Click(60.25, 40.5), Click(14, 12, False), Click(-0.5, -0.5), Click(69.4, 49.4, False)]
    for count, click in enumerate(clicks, start=1):
        result = session.click(click.x, click.y, click.positive)
        check(result, reference(session.bundle, clicks[:count]))
        assert result.click == click
        assert result.index == count
        assert session.result is result
        assert session.mask is result.mask
    assert session.clicks == tuple(clicks)


def test_shapes_and_dtypes(session: Session) -> None:
    result = session.click(5, 6)
    assert (result.mask.shape, result.mask.dtype) == (SIZE, np.bool_)
    assert (result.probability.shape, result.probability.dtype) == (SIZE, np.float32)
    assert (result.network_probability.shape, result.network_probability.dtype) == ((64, 96), np.float32)
    assert result.probability is result.probability
    assert not result.mask.flags.writeable
    assert not result.probability.flags.writeable
    assert session.image_size == SIZE
    assert result.timings.engine > 0
    assert result.timings.total >= result.timings.engine + result.timings.mask - 1e-6


def test_network_mask_equals_thresholded_probability(paint: Bundle) -> None:
    """The graph's own mask and the session's agree when nothing is resized."""
    with Session(paint) as session:
        session.set_image(np.full((64, 96, 3), 51, dtype=np.uint8))
        outputs = recorded_outputs(session)
        result = session.click(30, 20)
        inside = session._runner.download(outputs["mask"])[0, 0]
        np.testing.assert_array_equal(result.mask, inside.astype(bool))


def test_before_the_first_click(session: Session) -> None:
    assert session.clicks == ()
    result = session.result
    assert not result.mask.any()
    assert result.mask.shape == SIZE
    assert not result.probability.any()
    assert (result.click, result.index) == (None, 0)
    assert session.runs == {"image": 1, "click": 0}


def test_image_stage_runs_once_an_image(session: Session) -> None:
    for x in range(5):
        session.click(x, 3)
    assert session.runs == {"image": 1, "click": 5}
    timings = session.set_image(GREY)
    assert session.runs == {"image": 2, "click": 5}
    assert timings.total == pytest.approx(timings.prepare + timings.engine)


def test_a_new_image_forgets_clicks_and_features(session: Session) -> None:
    session.click(10, 10)
    session.set_image(np.full((*SIZE, 3), 102, dtype=np.uint8))
    assert session.clicks == ()
    assert not session.can_undo
    check(session.click(20, 20), reference(session.bundle, [Click(20, 20)], feature=0.4))


def test_image_sizes_may_change(session: Session) -> None:
    session.click(10, 10)
    session.set_image(np.zeros((20, 30, 3), dtype=np.uint8))
    assert session.click(29, 19).mask.shape == (20, 30)


def test_modalities(modal: Bundle) -> None:
    depth = np.full(SIZE, 20, dtype=np.uint16)
    event = np.full((*SIZE, 3), 0.1, dtype=np.float64)
    with Session(modal) as session:
        session.set_image(GREY, event=event, depth=depth)
        assert session.runs == {"image": 1, "modality": 1, "click": 0}
        check(session.click(10, 10), reference(modal, [Click(10, 10)], feature=0.2 + 0.2 + 0.1))
        assert session.runs == {"image": 1, "modality": 1, "click": 1}


# --- undo, redo, reset ------------------------------------------------------------------------------------------------


def test_undo_and_redo_run_nothing(session: Session) -> None:
    first = session.click(10, 10)
    second = session.click(40, 30, positive=False)
    runs = session.runs
    back = session.undo()
    np.testing.assert_array_equal(back.mask, first.mask)
    assert (back.click, back.index) == (first.click, 1)
    empty = session.undo()
    assert not empty.mask.any()
    assert (empty.click, empty.index) == (None, 0)
    np.testing.assert_array_equal(session.redo().mask, first.mask)
    forward = session.redo()
    np.testing.assert_array_equal(forward.mask, second.mask)
    np.testing.assert_array_equal(forward.probability, second.probability)
    assert session.runs == runs


def test_click_after_undo_uses_the_state_there(session: Session) -> None:
    session.click(10, 10)
    session.click(60, 40)
    session.undo()
    check(session.click(30, 20), reference(session.bundle, [Click(10, 10), Click(30, 20)]))
    assert not session.can_redo
    with pytest.raises(HistoryError, match="nothing to redo"):
        session.redo()


def test_reset(session: Session) -> None:
    session.click(10, 10)
    session.click(20, 20)
    session.undo()
    session.reset()
    assert session.clicks == ()
    assert not session.can_undo
    assert not session.can_redo
    assert not session.mask.any()
    with pytest.raises(HistoryError, match="nothing to undo"):
        session.undo()
    check(session.click(30, 20), reference(session.bundle, [Click(30, 20)]))
    assert session.runs == {"image": 1, "click": 3}


def test_history_limit(paint: Bundle) -> None:
    with Session(paint, history_limit=2) as session:
        session.set_image(GREY)
        for x in (10, 20, 30):
            session.click(x, 10)
        session.undo()
        session.undo()
        assert session.clicks == (Click(10, 10),)
        with pytest.raises(HistoryError, match="within the limit of 2"):
            session.undo()


def test_the_history_is_bounded_by_default(paint: Bundle) -> None:
    """Ten thousand clicks must not fill the memory."""
    for limit, undone in (({}, HISTORY_LIMIT), ({"history_limit": None}, HISTORY_LIMIT + 5)):
        with Session(paint, **limit) as session:
            session.set_image(GREY)
            for _ in range(HISTORY_LIMIT + 5):
                session.click(10, 10)
            count = 0
            while session.can_undo:
                session.undo()
                count += 1
            assert count == undone


CLICKS = st.builds(
    Click,
    st.floats(-0.5, SIZE[1] - 0.5, exclude_max=True),
    st.floats(-0.5, SIZE[0] - 0.5, exclude_max=True),
    st.booleans(),
)
STEPS = st.lists(st.one_of(CLICKS, st.sampled_from(["undo", "redo", "reset"])), max_size=12)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_walk_through_history(session: Session, steps: list[Click | str]) -> None:
    """Against two plain lists: what was clicked and what was undone."""
    session.reset()
    clicks: list[Click] = []
    undone: list[Click] = []
    for step in steps:
        before = session.runs["click"]
        if isinstance(step, Click):
            result = session.click(step.x, step.y, step.positive)
            clicks, undone = [*clicks, step], []
            assert session.runs["click"] == before + 1
        elif step == "reset":
            session.reset()
            clicks, undone = [], []
            result = session.result
        else:
            source, target = (clicks, undone) if step == "undo" else (undone, clicks)
            if not source:
                with pytest.raises(HistoryError):
                    getattr(session, step)()
                continue
            result = getattr(session, step)()
            target.append(source.pop())
            assert session.runs["click"] == before
        assert session.clicks == tuple(clicks)
        assert (session.can_undo, session.can_redo) == (bool(clicks), bool(undone))
        assert session.runs["image"] == 1
        if clicks:
            check(result, reference(session.bundle, clicks))
        else:
            assert not result.mask.any()


# --- what callers do wrong --------------------------------------------------------------------------------------------


def use(session: Session, call: str) -> None:
    value = getattr(session, call)
    if callable(value):
        value(*{"click": (1, 1), "set_image": (GREY,)}.get(call, ()))


@pytest.mark.parametrize("call", ["click", "undo", "redo", "reset", "mask", "result", "image_size"])
def test_before_set_image(paint: Bundle, call: str) -> None:
    with Session(paint) as session, pytest.raises(NoImageError, match=r"call set_image\(...\) first"):
        use(session, call)


@pytest.mark.parametrize(
    "call", ["set_image", "click", "undo", "redo", "reset", "mask", "result", "image_size", "__enter__"]
)
def test_after_close(paint: Bundle, call: str) -> None:
    session = Session(paint)
    session.set_image(GREY)
    result = session.click(3, 3)
    session.close()
    session.close()
    with pytest.raises(SessionClosedError, match="is closed"):
        use(session, call)
    assert result.probability.shape == SIZE, "a result outlives its session"
    assert "closed" in repr(session)


@pytest.mark.parametrize(
    ("x", "y", "fix"),
    [
        (70, 10, "inside the image"),
        (69.5, 10, "inside the image"),
        (10, 49.5, "inside the image"),
        (-0.51, 10, "inside the image"),
        (10, -1, "inside the image"),
        (20, 60, "not (row, column)"),
        (math.nan, 10, "how the click was computed"),
        (10, math.inf, "how the click was computed"),
        ("10", 10, "click(x, y)"),
        (None, 10, "click(x, y)"),
        (True, 10, "click(x, y)"),
        (np.array([1, 2]), 10, "click(*point)"),
        ((10, 20), True, "click(*point)"),
        ([10, [20, 30]], 1, "click(*point)"),
        (1 + 2j, 10, "click(x, y)"),
    ],
)
def test_bad_clicks_change_nothing(session: Session, x: float, y: float, fix: str) -> None:
    before = session.click(10, 10)
    runs = session.runs
    with pytest.raises(ClickError) as caught:
        session.click(x, y)
    assert fix in str(caught.value.fix)
    assert caught.value.expected
    assert session.result is before
    assert session.clicks == (Click(10, 10),)
    assert session.runs == runs


def test_bad_polarity(session: Session) -> None:
    for wrong in (-1, 4, 0.5, float("nan"), "no", "positive", None, np.array([1])):
        with pytest.raises(ClickError, match="True or 1 on the object") as caught:
            session.click(10, 10, wrong)  # type: ignore[arg-type]
        assert caught.value.fix == "pass positive=True or positive=False"
    for corner in (2, np.int64(3)):
        with pytest.raises(ClickError, match=r"corner of a box to SAM[\s\S]*takes clicks, no boxes"):
            session.click(10, 10, corner)  # type: ignore[arg-type]


def test_one_and_zero_are_polarities(session: Session) -> None:
    for label, positive in (
        (1, True),
        (0, False),
        (np.int64(1), True),
        (np.uint8(0), False),
        (1.0, True),
        (np.float32(0), False),
    ):
        click = session.click(10, 10, label).click  # type: ignore[arg-type]
        assert click == Click(10, 10, positive)
        assert type(click.positive) is bool


def test_numpy_numbers_are_numbers(session: Session) -> None:
    result = session.click(np.int64(10), np.float32(11.5), np.bool_(False))
    assert result.click == Click(10.0, 11.5, False)
    assert type(result.click.x) is float
    assert type(result.click.positive) is bool


def test_a_refused_image_changes_nothing(modal: Bundle) -> None:
    depth, event = np.zeros(SIZE), np.zeros((*SIZE, 3))
    with Session(modal) as session:
        session.set_image(GREY, depth=depth, event=event)
        result = session.click(10, 10)
        runs = session.runs
        refused: list[tuple[type[MMMSDeployError], tuple[object, ...], dict[str, object]]] = [
            (ImageError, (GREY[0, 0],), {"depth": depth, "event": event}),
            (ModalityError, (GREY,), {}),
            (ModalityError, (GREY,), {"depth": depth, "event": event, "thermal": depth}),
            (ModalityError, (GREY,), {"depth": np.full(SIZE, np.nan), "event": event}),
            (ModalityError, (GREY[:-1],), {"depth": depth, "event": event}),
        ]
        for error, images, modalities in refused:
            with pytest.raises(error):
                session.set_image(*images, **modalities)  # type: ignore[arg-type]
        assert session.result is result
        assert session.runs == runs
        np.testing.assert_array_equal(session.click(20, 20).mask.shape, SIZE)
        session.undo()
        session.undo()


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        Session(tmp_path / "nothing")


# --- engines that fail, and engines that are shared -------------------------------------------------------------------


def test_a_session_that_cannot_be_opened_leaves_nothing_open(paint: Bundle) -> None:
    bundle = Bundle(paint.path)
    flaky = Flaky(open_engine(bundle))
    bundle.manifest = msgspec.structs.replace(bundle.manifest, state=())
    with pytest.raises(SessionError, match="wants maps, prev"):
        Session(bundle, engine=flaky)
    (runner,) = flaky.opened
    with pytest.raises(EngineError, match="runner is closed"):
        runner.run("click", {})
    flaky.engine.open().close()
    flaky.close()


def test_a_failing_stage_changes_nothing(modal: Bundle) -> None:
    flaky = Flaky(open_engine(modal))
    depth, event = np.zeros(SIZE), np.zeros((*SIZE, 3))
    with Session(modal, engine=flaky) as session:
        session.set_image(GREY, depth=depth, event=event)
        first = session.click(10, 10)
        for stage in ("image", "modality"):
            flaky.fail = stage
            with pytest.raises(EngineError, match="out of memory"):
                session.set_image(GREY[:30] * 2, depth=depth[:30], event=event[:30])
            assert session.image_size == SIZE
        for stage in ("click", "download"):
            flaky.fail = stage
            with pytest.raises(EngineError):
                session.click(30, 30)
            assert session.clicks == (Click(10, 10),)
            assert session.result is first
        flaky.fail = None
        second = session.click(40, 20)
        check(second, reference(modal, [Click(10, 10), Click(40, 20)]))
        flaky.fail = "download"
        with pytest.raises(EngineError, match="device lost"):
            session.undo()
        assert session.result is second
        flaky.fail = None
        np.testing.assert_array_equal(session.undo().mask, first.mask)
        assert session.clicks == (Click(10, 10),)


def test_shared_engine_is_not_closed(paint: Bundle) -> None:
    engine = open_engine(paint)
    with Session(paint, engine=engine) as first:
        first.set_image(GREY)
        first.click(3, 3)
    with Session(paint, engine=engine, device="cpu", precision=engine.info.precision) as second:
        second.set_image(GREY)
        second.click(3, 3)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        Session(paint, engine=engine)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_neither_pickled_nor_copied(session: Session, copied: Callable[[Session], object]) -> None:
    with pytest.raises(SessionError, match="neither pickled nor copied"):
        copied(session)


@pytest.mark.parametrize("limit", ["3", -1, 2.5, True])
def test_wrong_history_limits(paint: Bundle, limit: Any) -> None:
    with pytest.raises(HistoryError, match="history_limit is"):
        Session(paint, history_limit=limit)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), "3", None, 1j, True, [1]])
def test_coordinates_that_are_no_place(session: Session, value: Any) -> None:
    for point in ((value, 3), (3, value)):
        with pytest.raises(ClickError):
            session.click(*point)
    assert session.clicks == ()


def test_an_engine_that_is_none(paint: Bundle) -> None:
    with pytest.raises(EngineError, match=r"engine=3 \(int\) was given"):
        Session(paint, engine=3)  # type: ignore[arg-type]


def test_own_engine_is_closed(paint: Bundle) -> None:
    session = Session(paint)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session._engine.open()


def test_closing_a_shared_engine_under_a_session(paint: Bundle) -> None:
    engine = open_engine(paint)
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            session.click(3, 3)


def test_shared_engine_must_fit(paint: Bundle, echo: Bundle) -> None:
    engine = open_engine(paint, threads=1)
    with pytest.raises(EngineError, match="an engine of the same bundle"):
        Session(echo, engine=engine)
    for wrong in ({"device": "cuda"}, {"precision": "fp16"}, {"threads": 7}):
        with pytest.raises(EngineError, match="were requested of an open engine"):
            Session(paint, engine=engine, **wrong)  # type: ignore[arg-type]
    engine.close()


def test_sessions_on_one_engine_do_not_mix(paint: Bundle) -> None:
    engine = open_engine(paint, threads=1)

    def annotate(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        masks = []
        with Session(paint, engine=engine) as session:
            session.set_image(np.full((*SIZE, 3), rng.integers(0, 120), dtype=np.uint8))
            for x, y, positive in rng.uniform((0, 0, 0), (69, 49, 1), (12, 3)):
                masks.append(session.click(x, y, bool(positive > 0.3)).mask)
        return masks

    alone = [annotate(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(annotate, range(4)))
    engine.close()
    np.testing.assert_array_equal(alone, together)


def test_threads_on_one_session_wait_for_each_other(session: Session) -> None:
    answers: list[ClickResult] = []
    barrier = threading.Barrier(4)

    def annotate(number: int) -> None:
        barrier.wait()
        for step in range(8):
            answers.append(session.click(number * 15 + step, step))

    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_index = sorted(answers, key=lambda answer: answer.index)
    assert [answer.index for answer in by_index] == list(range(1, 33))
    assert session.clicks == tuple(answer.click for answer in by_index)
    for count in (1, 17, 32):
        check(by_index[count - 1], reference(session.bundle, list(session.clicks[:count])))


# --- bundles that do not fit ------------------------------------------------------------------------------------------


def test_fp16_only_bundle_opens_with_a_warning(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "half", precisions=(Precision.FP16,))
    with pytest.warns(MMMSDeployWarning, match="in fp16 instead of fp32"), Session(bundle) as session:
        assert session.engine.precision is Precision.FP16
    with pytest.raises(EngineError, match="fp32 is not possible"):
        Session(bundle, strict=True)
    with Session(bundle, precision="fp16", strict=True):
        pass


def test_a_bundle_without_a_click_stage(paint: Bundle) -> None:
    def changed(**changes: object) -> Bundle:
        bundle = Bundle(paint.path)
        bundle.manifest = msgspec.structs.replace(bundle.manifest, **changes)
        return bundle

    with pytest.raises(BundleCorruptError, match="0 click inputs and 0 probability outputs"):
        Session(changed(stages=paint.manifest.stages[:1]))
    with pytest.raises(BundleCorruptError, match="gives a probability of shape"):
        Session(changed(size=(32, 32)))
    with pytest.raises(SessionError, match="wants maps, prev"):
        Session(changed(state=()))
    link = msgspec.structs.replace(paint.manifest.state[0], output="nothing")
    with pytest.raises(BundleCorruptError, match="links nothing to maps"):
        Session(changed(state=(link,)))
