"""Many sessions on one engine, from many threads and from asyncio: every answer is that of a session alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mmms_deploy import AsyncSession, Bundle, Features, Model, Session, Workers
from mmms_deploy.errors import EngineError, SessionClosedError, SessionError
from tests.support.flaky import Flaky

LIMIT = 60.0
IMAGES = [
    np.full((height, width, 3), grey, np.uint8) for height, width, grey in ((50, 70, 51), (20, 90, 140), (64, 64, 9))
]
every_engine = pytest.mark.usefixtures("every_engine")

Step = tuple[str, Any]


@pytest.fixture
def model(paint: Bundle) -> Iterator[Model]:
    with Model(paint, threads=1) as model:
        yield model


def annotator(seed: int, steps: int = 30) -> list[Step]:
    """What an annotator does: clicks, undo and redo, other images and objects, features of encoded images."""
    rng = random.Random(seed)
    drawn: list[Step] = [("image", rng.randrange(3))]
    kinds = ("click", "undo", "redo", "image", "use", "select", "labels")
    for kind in rng.choices(kinds, (12, 3, 1, 1, 2, 2, 1), k=steps):
        given: dict[str, Any] = {
            "click": (rng.randrange(60), rng.randrange(20), rng.random() < 0.7),
            "image": rng.randrange(3),
            "use": rng.randrange(3),
            "select": rng.choice(("1", "dog")),
        }
        drawn.append((kind, given.get(kind)))
    return drawn


def done(session: Session, step: Step, features: list[Features]) -> bytes:
    """Do a step, and return every bit of what it answered."""
    kind, given = step
    if kind == "image":
        session.set_image(IMAGES[given])
    elif kind == "use":
        session.use(features[given])
    elif kind == "select":
        session.select(given)
    elif kind == "labels":
        return session.labels.tobytes()
    elif kind == "click":
        session.click(*given)
    elif session.can_undo if kind == "undo" else session.can_redo:
        session.undo() if kind == "undo" else session.redo()
    result = session.result
    return result.network_probability.tobytes() + result.mask.tobytes()


def alone(model: Model, script: list[Step], features: list[Features]) -> list[bytes]:
    with model.session() as session:
        return [done(session, step, features) for step in script]


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call functions in a thread each, all at once, and return their answers or errors."""
    gate = threading.Barrier(len(functions))

    def called(function: Callable[[], Any]) -> Any:
        gate.wait(LIMIT)
        try:
            return function()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result(LIMIT) for future in [threads.submit(called, function) for function in functions]]


# --- threads ----------------------------------------------------------------------------------------------------------


@every_engine
def test_answers_from_many_threads_are_those_of_a_session_alone(model: Model) -> None:
    features = [model.encode(image) for image in IMAGES]
    scripts = [annotator(seed) for seed in range(8)]
    expected = [alone(model, script, features) for script in scripts]
    known = [{name: array.tobytes() for name, array in one.on_host().arrays.items()} for one in features]

    def encoded() -> bool:
        for number in (0, 1, 2, 1, 0):
            again = model.encode(IMAGES[number]).on_host()
            assert {name: array.tobytes() for name, array in again.arrays.items()} == known[number]
        return True

    answers = at_once(*(lambda s=script: alone(model, s, features) for script in scripts), encoded, encoded)  # type: ignore[misc]
    assert answers[-2:] == [True, True]
    assert answers[:-2] == expected


@every_engine
def test_threads_on_one_session_never_mix_its_answers(model: Model) -> None:
    """Each answer is that of the click it was asked for, and the clicks are all there."""
    with model.session() as session:
        session.set_image(IMAGES[0])
        clicks = [(x, 10) for x in range(6)]
        results = at_once(*(lambda c=click: session.click(*c) for click in clicks))  # type: ignore[misc]
        assert [(r.click.x, r.click.y) for r in results] == clicks
        assert sorted(r.index for r in results) == [1, 2, 3, 4, 5, 6]
        order = [r for _, r in sorted((r.index, r) for r in results)]
        with model.session() as other:
            other.set_image(IMAGES[0])
            for result in order:
                again = other.click(result.click.x, result.click.y)
                assert again.network_probability.tobytes() == result.network_probability.tobytes()


@every_engine
@pytest.mark.parametrize("stage", ["click", "image", "download"])
def test_a_session_that_fails_says_so_and_others_go_on(model: Model, stage: str) -> None:
    features = [model.encode(image) for image in IMAGES]
    scripts = [annotator(seed) for seed in range(4)]
    expected = [alone(model, script, features) for script in scripts]
    flaky = Flaky(model.opened)
    before, failed = threading.Event(), threading.Event()

    def failing() -> list[str]:
        errors = []
        with Session(model.bundle, engine=flaky) as session:
            session.set_image(IMAGES[0])
            kept = session.click(10, 10)
            before.wait(LIMIT)
            flaky.fail = stage
            for _ in range(5):
                for call in (lambda: session.click(20, 15), lambda: session.set_image(IMAGES[1])):
                    last = session.result
                    try:
                        call()
                    except EngineError as error:
                        errors.append(str(error))
                        assert session.result is last
            flaky.fail = None
            failed.set()
            session.set_image(IMAGES[0])
            assert session.click(10, 10).mask.tobytes() == kept.mask.tobytes()
        return errors

    def going_on(script: list[Step]) -> list[bytes]:
        with model.session() as session:
            answers = [done(session, script[0], features)]
            before.set()
            answers += [done(session, step, features) for step in script[1:15]]
            failed.wait(LIMIT)
            return answers + [done(session, step, features) for step in script[15:]]

    errors, *answers = at_once(failing, *(lambda s=script: going_on(s) for script in scripts))  # type: ignore[misc]
    assert len(errors) >= 5
    assert all("out of memory" in error or "device lost" in error for error in errors)
    assert answers == expected


@every_engine
def test_closing_one_stops_no_other(model: Model) -> None:
    features = [model.encode(image) for image in IMAGES]
    scripts = [annotator(seed) for seed in range(4)]
    expected = [alone(model, script, features) for script in scripts]
    closed = model.session()
    closed.set_image(IMAGES[0])

    def clicking() -> str:
        count = 0
        while True:
            try:
                closed.click(count % 60, 10)
            except SessionClosedError as error:
                return str(error)
            count += 1

    def closing() -> None:
        for _ in range(5):
            with model.session() as session:
                session.use(features[1])
                session.click(3, 3)
        closed.close()

    said, none, *answers = at_once(clicking, closing, *(lambda s=one: alone(model, s, features) for one in scripts))  # type: ignore[misc]
    assert "closed" in said
    assert none is None
    assert answers == expected


# --- asyncio ----------------------------------------------------------------------------------------------------------


async def annotate(session: AsyncSession, script: list[Step], features: list[Features], seed: int) -> list[bytes]:
    """Do the same from asyncio, with hardly any time to think."""
    rng, answers = random.Random(seed), []
    for step in script:
        await asyncio.sleep(rng.expovariate(2000.0))
        answers.append(await session.call(lambda s, step=step: done(s, step, features)))  # type: ignore[misc]
        if step[0] == "click":
            assert (
                session.result.network_probability.tobytes() == answers[-1][: session.result.network_probability.nbytes]
            )
    return answers


@every_engine
@pytest.mark.parametrize("at_once", [None, 8])
def test_thirty_two_annotators_get_the_answers_of_one(model: Model, at_once: int | None) -> None:
    features = [model.encode(image) for image in IMAGES]
    scripts = [annotator(seed, steps=8) for seed in range(8)]
    expected = [alone(model, script, features) for script in scripts]

    async def main() -> None:
        workers = None if at_once is None else Workers(at_once)
        sessions = [AsyncSession(model, workers=workers) for _ in range(32)]
        async with asyncio.timeout(LIMIT):
            answers = await asyncio.gather(
                *(annotate(session, scripts[n % 8], features, n) for n, session in enumerate(sessions))
            )
            await asyncio.gather(*(session.close() for session in sessions))
        for number, answer in enumerate(answers):
            assert answer == expected[number % 8]
        if workers is not None:
            workers.close()

    asyncio.run(main())


def test_one_of_many_that_fails_leaves_the_others(model: Model) -> None:
    features = [model.encode(image) for image in IMAGES]
    script = annotator(3)
    expected = alone(model, script, features)
    flaky = Flaky(model.opened)

    async def failing(session: AsyncSession) -> int:
        failures = 0
        await session.set_image(IMAGES[0])
        flaky.fail = "click"
        for _ in range(20):
            try:
                await session.click(10, 10)
            except EngineError:
                failures += 1
        return failures

    async def main() -> None:
        with Workers(2) as workers:
            broken = AsyncSession(model.bundle, engine=flaky, workers=workers)
            sessions = [AsyncSession(model, workers=workers) for _ in range(6)]
            failures, *answers = await asyncio.gather(
                failing(broken), *(annotate(session, script, features, n) for n, session in enumerate(sessions))
            )
            assert failures == 20
            assert answers == [expected] * 6
            await asyncio.gather(*(session.close() for session in (*sessions, broken)))
            with pytest.raises(SessionError):
                await broken.click(1, 1)

    asyncio.run(main())
