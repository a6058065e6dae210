"""Calls from asyncio: their order, what is cancelled or superseded, what attributes show, opening and closing."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import typing
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import AsyncSession, Bundle, Model, Session, Workers
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import (
    ClickError,
    EngineError,
    HistoryError,
    NoImageError,
    SessionClosedError,
    SessionError,
    SupersededError,
)
from mmms_deploy.journal import Images, Outcome, replay_journal
from mmms_deploy.session import asynchronous
from mmms_deploy.session.turns import Call
from tests.support.annotating import GREY, SIZE
from tests.support.flaky import Flaky
from tests.support.held import LIMIT, Held

COMPUTED = {"features", "labels"}
"""Properties of a session that compute or copy."""
LATEST = {"click", "predict", "set_clicks"}
OWN = {"call", "of", "supersede", "waiting"}


def run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await main

    asyncio.run(limited())


def opened(bundle: Bundle | Engine, image: np.ndarray = GREY) -> Session:
    """A session with an image."""
    session = Session(bundle, threads=1) if isinstance(bundle, Bundle) else Session(bundle.bundle, engine=bundle)
    session.set_image(image)
    return session


def public(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


# --- the same calls ---------------------------------------------------------------------------------------------------


def test_no_call_is_left_out() -> None:
    assert public(AsyncSession) - OWN == public(Session) - {"renew_lock"}


@pytest.mark.parametrize("name", sorted(public(Session) - {"renew_lock"}))
def test_signatures_and_summaries_agree(name: str) -> None:
    ours, theirs = (inspect.getattr_static(of, name) for of in (AsyncSession, Session))
    assert ours.__doc__.splitlines()[0] == theirs.__doc__.splitlines()[0]
    if isinstance(theirs, property) and name not in COMPUTED:
        assert isinstance(ours, property)
        ours, theirs = ours.fget, theirs.fget
    else:
        assert inspect.iscoroutinefunction(ours)
        theirs = theirs.fget if isinstance(theirs, property) else theirs
    left, right = inspect.signature(ours), inspect.signature(theirs)
    added = set(left.parameters) - set(right.parameters)
    assert added == ({"latest"} if name in LATEST else set())
    parameters = [parameter for parameter in left.parameters.values() if parameter.name not in added]
    assert parameters == list(right.parameters.values())
    assert left.return_annotation == right.return_annotation
    assert len(typing.get_overloads(ours)) == len(typing.get_overloads(theirs))
    for mine, other in zip(typing.get_overloads(ours), typing.get_overloads(theirs), strict=True):
        assert inspect.signature(mine) == inspect.signature(other)


def test_options_agree() -> None:
    ours, theirs = (inspect.signature(of.__init__).parameters for of in (AsyncSession, Session))
    assert set(ours) - set(theirs) == {"workers"}
    assert [p.default for n, p in ours.items() if n in theirs] == [p.default for p in theirs.values()]


async def every_call(session: AsyncSession) -> list[object]:
    answers: list[object] = [(await session.set_image(rgb=GREY)).found]
    answers += [(await session.click(x, 10, x != 30)).mask.tolist() for x in (10, 30, 60)]
    answers += [(await session.undo()).index, session.can_redo, (await session.redo()).index, session.can_undo]
    answers += [(await session.select("dog")).index, session.surface]
    answers += [(await session.set_clicks([[10, 40, 1], [20, 40]])).area, session.clicks, session.all_clicks]
    await session.rename("dog", "cat")
    answers += [session.surfaces, (await session.labels()).tolist(), session.mask.tolist(), session.image_size]
    answers += [(await session.to_coco())["annotations"], (await session.detections()).xyxy.tolist()]
    kept, features = await session.to_dict(), await session.features()
    answers.append(kept)
    await session.remove("cat")
    answers += [session.surface, session.result.index, (await session.predict([[5, 5]], [1]))[0].tolist()]
    await session.reset()
    answers += [session.clicks, session.result.area, (await session.set_mask(np.eye(*SIZE, dtype=bool))).area]
    answers += [await session.load_labels(np.eye(*SIZE, dtype=np.int32)), session.result.area]
    await session.use(features)
    answers += [(await session.restore(kept)).mask.tolist(), session.modalities, dict(session.runs)]
    return answers


class Alone:
    """A session as if its calls were coroutines."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._session, name)
        if name not in COMPUTED and not callable(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            return value(*args, **kwargs) if callable(value) and name not in COMPUTED else value

        return call


@pytest.mark.usefixtures("every_engine")
def test_answers_are_those_of_a_session(paint: Bundle) -> None:
    async def main() -> None:
        with Session(paint, threads=1) as alone:
            expected = await every_call(Alone(alone))  # type: ignore[arg-type]
        async with AsyncSession(paint, threads=1) as session:
            assert await every_call(session) == expected
            assert session.bundle is paint
            assert session.engine.threads == 1
            assert session.keep_image

    run(main())


# --- order ------------------------------------------------------------------------------------------------------------


def test_calls_run_in_the_order_in_which_they_were_made(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            calls = [session.click(10, 10), session.click(20, 20), session.undo(), session.set_image(GREY // 2)]
            tasks = [asyncio.create_task(call) for call in (*calls, session.click(30, 30))]
            await held.begun(1)
            assert session.waiting == 5
            held.free()
            answers = await asyncio.gather(*tasks)
            assert [answers[i].index for i in (0, 1, 2, 4)] == [1, 2, 1, 1]
            assert [(c.x, c.y) for c in session.clicks] == [(30, 30)]
            assert session.waiting == 0

    run(main())


def test_the_loop_goes_on_and_attributes_show_what_was_answered(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            first = await session.click(10, 10)
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            task = asyncio.create_task(session.set_image(GREY[:20, :30]))
            await held.begun(1)
            for _ in range(50):
                await asyncio.sleep(0)
                assert not task.done()
                assert session.result is first
                assert session.mask is first.mask
                assert (session.image_size, len(session.clicks), session.can_undo) == (SIZE, 1, True)
            held.free()
            await task
            assert (session.image_size, session.clicks, session.can_undo) == ((20, 30), (), False)
            assert not session.mask.any()

    run(main())


def test_compound_calls_happen_whole_or_not_at_all(paint: Bundle) -> None:
    def moved(session: Session, y: float) -> int:
        session.undo()
        return session.click(20, y).index

    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            before = await session.click(10, 10)
            with pytest.raises(ClickError):
                await session.call(lambda s: moved(s, 1e6))
            assert session.result is before
            assert await session.call(lambda s: s.result) is before
            assert await session.call(lambda s: moved(s, 20)) == 1
            assert [click.x for click in session.clicks] == [20]

    run(main())


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_call_that_is_cancelled_before_it_begins_never_runs(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            first, second, third = (asyncio.create_task(session.click(x, x)) for x in (10, 20, 30))
            await held.begun(1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            held.free()
            assert [(await first).index, (await third).index] == [1, 2]
            assert held.ran == ["click", "click"]
            assert [click.x for click in session.clicks] == [10, 30]

    run(main())


@pytest.mark.usefixtures("every_engine")
@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.click(40, 40),
        lambda s: s.set_image(GREY[:20, :30]),
        lambda s: s.set_clicks([[1, 1, 1], [2, 2, 0]]),
        lambda s: s.call(lambda session: (session.undo(), session.set_image(GREY // 3), session.click(3, 3))),
    ],
    ids=["click", "set_image", "set_clicks", "call"],
)
def test_a_call_that_is_cancelled_while_it_runs_is_taken_back(
    paint: Bundle, call: Callable[[AsyncSession], Coroutine[Any, Any, object]]
) -> None:
    async def main() -> None:
        with opened(paint) as alone:
            alone.click(10, 10)
            kept = alone.to_dict()
            expected = alone.click(20, 30, False)
        async with AsyncSession.of(opened(paint)) as session:
            before = await session.click(10, 10)
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            task = asyncio.create_task(call(session))
            await held.begun(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task  # at once: the stage still waits
            assert session.result is before
            after = asyncio.create_task(session.to_dict())
            await asyncio.sleep(0.01)
            assert not after.done(), "calls keep their order"
            held.free()
            assert await after == kept
            result = await session.click(20, 30, False)
            np.testing.assert_array_equal(result.network_probability, expected.network_probability)
            np.testing.assert_array_equal(result.mask, expected.mask)

    run(main())


@pytest.mark.parametrize("how", ["cancel", "supersede"])
def test_a_call_whose_answer_is_on_its_way_is_taken_back_too(
    paint: Bundle, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            await session.click(10, 10)
            task = asyncio.create_task(session.click(20, 20))
            wake = Call.wake

            def late(call: Call) -> None:
                wake(call)  # the answer is there, and its coroutine has not gone on yet
                if how == "cancel":
                    task.cancel()
                else:
                    assert session.supersede() == 1

            with monkeypatch.context() as patch:
                patch.setattr(Call, "wake", late)
                with pytest.raises(asyncio.CancelledError if how == "cancel" else SupersededError):
                    await task
            assert len(session.clicks) == 1
            assert await session.call(lambda s: len(s.clicks)) == 1
            assert (await session.click(30, 30)).index == 2

    run(main())


def test_a_coroutine_that_is_thrown_away_is_cancelled(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            call = session.click(10, 10)
            call.send(None)  # it waits for its answer
            call.close()
            assert (await session.click(20, 20)).index == 1

    run(main())


def test_a_time_limit_cancels(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.click(10, 10), 0.01)
            held.free()
            assert (await session.click(20, 20)).index == 1

    run(main())


def test_a_journal_has_what_was_taken_back(paint: Bundle, tmp_path: Path) -> None:
    photo, other = tmp_path / "photo.png", tmp_path / "other.png"
    Image.fromarray(GREY).save(photo)
    Image.fromarray(GREY[:20, :30]).save(other)

    async def main() -> None:
        async with AsyncSession(paint, threads=1, journal=tmp_path / "work.journal") as session:
            await session.set_image(photo)
            await session.click(10, 10)
            held = Held(session._session)  # type: ignore[arg-type]
            for call in (session.click(40, 40), session.set_image(other)):
                held.hold()
                ran = len(held.ran)
                task = asyncio.create_task(call)  # type: ignore[arg-type]
                await held.begun(ran + 1)
                task.cancel()
                held.free()
                await asyncio.gather(task, return_exceptions=True)
            assert (await session.click(20, 30, False)).index == 2

    run(main())
    replayed = replay_journal(tmp_path / "work.journal", paint, Images([tmp_path]))
    outcomes = [row.outcome for row in replayed.rows]
    assert set(outcomes) <= {Outcome.SAME, Outcome.DONE}
    assert outcomes.count(Outcome.SAME) >= 5
    assert (replayed.lost, replayed.open) == (0, 0)


# --- superseding ------------------------------------------------------------------------------------------------------


def test_what_is_superseded_has_not_happened(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            await session.click(10, 10)
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            late = [asyncio.create_task(session.click(x, x)) for x in (20, 30, 40)]
            await held.begun(1)
            assert session.supersede() == 3
            assert session.supersede() == 0
            assert all(isinstance(e, SupersededError) for e in await asyncio.gather(*late, return_exceptions=True))
            undone = asyncio.create_task(session.undo())
            await asyncio.sleep(0.01)
            held.free()
            assert (await undone).index == 0, "the first click is undone, and no late answer is in its place"
            assert held.ran == ["click"]
            assert (session.clicks, session.can_undo) == ((), False)

    run(main())


def test_a_late_click_does_not_reach_a_newer_image(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            late = asyncio.create_task(session.click(60, 40))
            await held.begun(1)
            session.supersede()
            newer = asyncio.create_task(session.set_image(GREY[:20, :30]))
            click = asyncio.create_task(session.click(25, 15))
            with pytest.raises(SupersededError):
                await late
            held.free()
            await newer
            assert (await click).mask.shape == (20, 30)
            assert len(session.clicks) == 1

    run(main())


def test_only_the_newest_of_waiting_clicks_runs(paint: Bundle) -> None:
    async def main() -> None:
        async with AsyncSession.of(opened(paint)) as session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()

            def make(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                return asyncio.create_task(call)

            tasks = [make(session.click(x, 5, latest=True)) for x in (1, 2, 3)]
            tasks += [make(session.undo()), make(session.click(4, 5, latest=True)), make(session.click(5, 5))]
            tasks += [make(session.click(6, 5, latest=True)), make(session.click(7, 5, latest=True))]
            tasks += [make(session.set_clicks([[x, 5, 1]], latest=True)) for x in (8, 9)]
            await held.begun(1)
            held.free()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            dropped = [number for number, answer in enumerate(answers) if isinstance(answer, SupersededError)]
            assert dropped == [1, 6, 8], "the running one, those before an undo or a plain click, and other calls stay"
            assert [answer.index for answer in answers if not isinstance(answer, BaseException)] == [
                1,
                2,
                1,
                2,
                3,
                4,
                1,
            ]
            assert [click.x for click in session.clicks] == [9]

    run(main())


# --- any mixture ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_engine")
@pytest.mark.parametrize("seed", range(4))
def test_a_session_is_what_its_answered_calls_made_it(paint: Bundle, seed: int) -> None:
    """Calls, cancels and supersedes in a drawn order; then the answered calls alone give the same session."""
    rng = random.Random(seed)

    def drawn() -> Callable[[Any], Any]:
        x, y, positive = rng.randrange(30), rng.randrange(20), rng.random() < 0.7
        image = GREY[:20, :30] // rng.choice((1, 2, 3))
        latest = {"latest": True} if rng.random() < 0.3 else {}
        calls: list[Callable[[Any], Any]] = [
            lambda s: s.click(x, y, positive, **(latest if isinstance(s, AsyncSession) else {})),
            lambda s: s.undo(),
            lambda s: s.redo(),
            lambda s: s.set_image(image),
            lambda s: s.select(str(x % 2)),
            lambda s: s.set_clicks([[x, y, 1], [y, x % 20, 0]]),
            lambda s: s.reset(),
        ]
        return rng.choices(calls, [8, 2, 1, 1, 1, 1, 1])[0]

    async def main() -> None:
        taken: list[Callable[[Any], Any]] = []

        async def made(call: Callable[[Any], Any], session: AsyncSession) -> None:
            await call(session)
            taken.append(call)

        async with AsyncSession.of(opened(paint, GREY[:20, :30])) as session:
            tasks: list[asyncio.Task[None]] = []
            for _ in range(60):
                tasks.append(asyncio.create_task(made(drawn(), session)))
                if rng.random() < 0.3:
                    rng.choice(tasks).cancel()
                if rng.random() < 0.08:
                    session.supersede()
                if rng.random() < 0.6:
                    await asyncio.sleep(rng.choice((0, 0, 0.0005, 0.002)))
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} <= {
                *(type(None), asyncio.CancelledError, SupersededError, HistoryError),
            }
            assert 5 < len(taken) < 60
            kept, labels, last = await session.to_dict(), await session.labels(), session.result
        with opened(paint, GREY[:20, :30]) as alone:
            for call in taken:
                call(alone)
            assert alone.to_dict() == kept
            np.testing.assert_array_equal(alone.labels, labels)
            np.testing.assert_array_equal(alone.result.network_probability, last.network_probability)

    run(main())


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_changes_nothing_and_stops_no_call(paint: Bundle) -> None:
    async def main() -> None:
        engine = Flaky(open_engine(paint, threads=1))
        async with AsyncSession(paint, engine=engine) as session:
            await session.set_image(GREY)
            first = await session.click(10, 10)
            engine.fail = "click"
            tasks = [asyncio.create_task(call) for call in (session.click(20, 20), session.undo(), session.redo())]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(errors[0], EngineError)
            assert [answer.index for answer in errors[1:]] == [0, 1]  # type: ignore[union-attr]
            engine.fail = None
            np.testing.assert_array_equal(session.mask, first.mask)
            with pytest.raises(ClickError):
                await session.click(1e9, 0)
            assert (await session.click(20, 20)).index == 2
        engine.close()

    run(main())


def test_a_call_whose_answer_cannot_be_fetched_has_not_happened(paint: Bundle) -> None:
    async def main() -> None:
        engine = Flaky(open_engine(paint, threads=1))
        async with AsyncSession(paint, engine=engine) as session:
            await session.set_image(GREY)
            await session.click(10, 10)
            kept = await session.to_dict()
            await session.select("dog")
            await session.click(20, 20)
            restored = await session.to_dict()
            engine.fail = "download"
            with pytest.raises(EngineError):
                await session.restore(kept)
            engine.fail = None
            assert await session.to_dict() == restored
            assert session.surface == "dog"
        engine.close()

    run(main())


def test_calls_come_from_one_loop(paint: Bundle) -> None:
    session = AsyncSession.of(opened(paint))
    asyncio.run(session.click(10, 10))  # type: ignore[arg-type]
    with pytest.raises(SessionError, match="another event loop"):
        asyncio.run(session.click(10, 10))  # type: ignore[arg-type]
    assert len(session.clicks) == 1
    assert session._session is not None
    session._session.close()


def test_before_it_is_open_it_says_so(paint: Bundle) -> None:
    session = AsyncSession(paint, threads=1)
    for name in ("clicks", "bundle", "runs", "result"):
        with pytest.raises(SessionError, match="not open yet"):
            getattr(session, name)
    assert "not open" in repr(session)

    async def main() -> None:
        with pytest.raises(NoImageError):
            await session.click(1, 1)
        async with session:
            assert session.clicks == ()
            with pytest.raises(NoImageError):
                _ = session.result

    run(main())


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_closing_waits_for_the_calls_before_it(paint: Bundle) -> None:
    async def main() -> None:
        session = AsyncSession.of(opened(paint))
        held = Held(session._session)  # type: ignore[arg-type]
        held.hold()
        click = asyncio.create_task(session.click(10, 10))
        await held.begun(1)
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(0)
        with pytest.raises(SessionClosedError):
            await session.click(20, 20)
        held.free()
        assert (await click).index == 1
        await closing
        await session.close()
        assert session._session is not None
        assert session._session._closed
        assert session.clicks == ()
        for name in ("result", "image_size", "modalities", "mask"):
            with pytest.raises(SessionClosedError):
                getattr(session, name)
        assert "closed" in repr(session)

    run(main())


def test_an_error_in_the_block_drops_what_waits(paint: Bundle) -> None:
    session = AsyncSession.of(opened(paint))
    tasks: list[asyncio.Task[Any]] = []

    async def failing() -> None:
        async with session:
            held = Held(session._session)  # type: ignore[arg-type]
            held.hold()
            tasks.extend(asyncio.create_task(session.click(x, x)) for x in (10, 20))
            await held.begun(1)
            asyncio.get_running_loop().call_later(0.01, held.free)
            raise KeyError

    async def main() -> None:
        with pytest.raises(KeyError):
            await failing()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, SupersededError) for end in ends)
        assert session._session is not None
        assert session._session._closed

    run(main())


@pytest.mark.parametrize("alone", [True, False])
def test_a_session_whose_opening_or_closing_is_cancelled_is_closed(
    paint: Bundle, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    opening, go_on, made = threading.Event(), threading.Event(), []

    class Slow(Session):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            opening.set()
            assert go_on.wait(LIMIT)
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(asynchronous, "Session", Slow)

    async def main() -> None:
        session = AsyncSession(paint, threads=1)
        task = asyncio.create_task(session.__aenter__())
        while not opening.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if alone:
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0)
            closing.cancel()
            go_on.set()
            await session.close()
            assert made[0]._closed

    # Where the loop ends first, its tasks are cancelled, and the thread closes the session.
    threading.Timer(0.2, go_on.set).start()
    run(main())
    for _ in range(1000):
        if made and made[0]._closed:
            break
        threading.Event().wait(0.01)
    assert made[0]._closed


# --- a model and its workers ------------------------------------------------------------------------------------------


def test_many_sessions_share_a_model_and_few_threads(paint: Bundle) -> None:
    async def main() -> None:
        with Model(paint, threads=1) as model, Workers(3) as workers:
            sessions = [AsyncSession(model, workers=workers) for _ in range(8)]
            await asyncio.gather(*(session.set_image(GREY) for session in sessions))
            held = Held(*(session._session for session in sessions))  # type: ignore[arg-type]
            held.hold()
            clicks = [asyncio.create_task(session.click(10, 10)) for session in sessions for _ in range(2)]
            await held.begun(3)
            await asyncio.sleep(0.02)
            assert len(held.ran) == 3
            held.free()
            await asyncio.gather(*clicks)
            assert held.most == 3
            assert len(held.ran) == 16
            assert len(workers._threads._threads) == 3
            await asyncio.gather(*(session.close() for session in sessions))
            assert all(session._session._closed for session in sessions)  # type: ignore[union-attr]
            async with AsyncSession.of(model.session()) as left, AsyncSession(model) as right:
                assert left._workers is right._workers, "sessions on an engine share its threads"
                assert left._workers is not workers
                await right.use(model.encode(GREY))
                assert right.image_size == SIZE

    run(main())


def test_a_model_has_an_engine(paint: Bundle) -> None:
    with Model(paint, threads=1) as model, pytest.raises(SessionError, match="a model and an engine"):
        AsyncSession(model, engine="onnxruntime")


@pytest.mark.parametrize("at_once", [0, -1, True, 1.5, "2"])
def test_workers_are_a_number(at_once: Any) -> None:
    with pytest.raises(SessionError, match="at_once"):
        Workers(at_once)


def test_a_session_closes_without_its_workers_and_from_another_loop(paint: Bundle) -> None:
    async def main() -> None:
        workers = Workers(1)
        async with AsyncSession(paint, threads=1, workers=workers) as session:
            workers.close()
            with pytest.raises(SessionError, match="workers are closed"):
                await session.set_image(GREY)
        assert session._session is not None
        assert session._session._closed

    run(main())
    session = AsyncSession.of(opened(paint))
    asyncio.run(session.click(10, 10))  # type: ignore[arg-type]
    asyncio.run(session.close())  # type: ignore[arg-type]
    assert session._session is not None
    assert session._session._closed
