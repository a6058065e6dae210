"""Encoded images on the device: sessions of one engine share them, and never read them once freed. On stand-ins."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import EngineError, FeatureError
from mmms_deploy.session import Model, Session
from mmms_deploy.session.features import Features
from tests.support.annotating import SIZE
from tests.support.standin_engine import StandInEngine

CLICKS = ((20, 20, True), (60, 30, True), (41, 22, False))


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def alone(paint: Bundle) -> Callable[[int], list[np.ndarray]]:
    """What a session of its own answers for an image."""
    kept: dict[int, list[np.ndarray]] = {}

    def answers(seed: int) -> list[np.ndarray]:
        if seed not in kept:
            with Session(paint, engine=(one := StandInEngine(paint))) as session:
                session.set_image(image(seed))
                kept[seed] = clicked(session)
            one.close()
        return kept[seed]

    return answers


def clicked(session: Session) -> list[np.ndarray]:
    return [session.click(*click).network_probability for click in CLICKS]


def encoded(model: Model, count: int) -> list[Features]:
    return [model.encode(image(seed)) for seed in range(count)]


def test_features_stay_right_while_the_model_encodes_more(
    engine: StandInEngine, alone: Callable[[int], list[np.ndarray]]
) -> None:
    with Model(engine.bundle, engine=engine) as model, model.session() as one, model.session() as other:
        every = encoded(model, 4)
        for seed in (2, 0, 3, 1, 0):
            one.use(every[seed])
            first = [one.click(*CLICKS[0]).network_probability]
            model.encode(image(99))
            other.use(every[(seed + 1) % 4])
            np.testing.assert_array_equal(clicked(other), alone((seed + 1) % 4))
            first += [one.click(*click).network_probability for click in CLICKS[1:]]
            np.testing.assert_array_equal(first, alone(seed))


def test_their_numbers_are_those_of_a_session(engine: StandInEngine) -> None:
    with Model(engine.bundle, engine=engine) as model, model.session() as session:
        every = encoded(model, 3)
        for seed, features in enumerate(every):
            session.set_image(image(seed))
            assert features.content == session.features.content
            for name, array in session.features.arrays.items():
                np.testing.assert_array_equal(features.arrays[name], array)


def test_nothing_is_uploaded_to_start_on_features_of_the_same_engine(engine: StandInEngine) -> None:
    with Model(engine.bundle, engine=engine) as model, model.session() as session:
        features = model.encode(image(0))
        session.set_image(image(1))
        clicked(session)
        runs = session.runs["image"]
        session.use(features)
        clicked(session)
        assert session.runs["image"] == runs


@pytest.mark.parametrize("used", ["set", "clicked"])
def test_a_closed_model_is_never_read(
    engine: StandInEngine, used: str, alone: Callable[[int], list[np.ndarray]]
) -> None:
    """A click fails by name, or the memory lives on in the engine; it never finds other numbers."""
    model = Model(engine.bundle, engine=engine)
    features = model.encode(image(0))
    with Session(engine.bundle, engine=engine) as session:
        session.use(features)
        if used == "clicked":
            clicked(session)
            session.reset()
        model.close()
        # Other values take the memory that is free now.
        with Session(engine.bundle, engine=engine, history_limit=None) as other:
            other.set_image(image(5))
            clicked(other)
            before = session.to_dict()
            # A shared stream's engine keeps a closed session's memory; a session that clicked has a copy of its own.
            if engine.info.name == "standin-shared" or used == "clicked":
                np.testing.assert_array_equal(clicked(session), alone(0))
            else:
                with pytest.raises(EngineError, match="not on the GPU any more") as caught:
                    clicked(session)
                assert "close the model last" in str(caught.value.fix)
                assert session.to_dict() == before
        with pytest.raises(FeatureError, match="model that is closed"):
            session.use(features)
        session.set_image(image(0))
        np.testing.assert_array_equal(clicked(session), alone(0))


def test_a_freed_value_has_no_address(paint: Bundle) -> None:
    engine = StandInEngine(paint)
    model = Model(paint, engine=engine)
    features = model.encode(image(0))
    assert features.resident is not None
    values = list(features.resident.values.values())
    assert all(value.address is not None for value in values)
    model.close()
    assert all(value.address is None for value in values)
    engine.close()
    assert not engine.standin.leaked


def test_memory_is_free_when_features_are_gone(engine: StandInEngine) -> None:
    with Model(engine.bundle, engine=engine) as model:
        first = model.encode(image(0))
        one = engine.standin.device_bytes()
        many = encoded(model, 20)
        assert engine.standin.device_bytes() > one
        assert engine.memory().held == engine.memory().weights + engine.standin.device_bytes()
        numbers = first.arrays
        del many
        gc.collect()
        first = model.encode(image(0))
        assert engine.standin.device_bytes() <= one + one // 8
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(array, numbers[name])


def test_features_outlive_their_model_on_the_host(
    engine: StandInEngine, alone: Callable[[int], list[np.ndarray]], tmp_path: Path
) -> None:
    with Model(engine.bundle, engine=engine) as model:
        kept, saved = model.encode(image(0)).on_host(), model.encode(image(1))
        saved.save(tmp_path / "one.features")
    with Session(engine.bundle, engine=engine) as session:
        for seed, features in enumerate((kept, Features.load(tmp_path / "one.features"))):
            session.use(features)
            np.testing.assert_array_equal(clicked(session), alone(seed))


def test_a_value_that_many_sessions_use_remembers_none_of_them(engine: StandInEngine) -> None:
    with Model(engine.bundle, engine=engine) as model:
        features = model.encode(image(0))
        for _ in range(10):
            with model.session() as session:
                session.use(features)
                clicked(session)
        assert features.resident is not None
        assert all(len(value.buffers) <= 3 for value in features.resident.values.values())


def test_no_room_for_another_image(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(history_block=1))
    with Model(paint, engine=engine) as model:
        first = model.encode(image(0))
        numbers = first.arrays
        engine._account._limit = engine.memory().held + 3000
        kept = []

        def fill() -> None:
            for seed in range(100):
                kept.append(model.encode(image(seed)))

        with pytest.raises(EngineError, match="more are needed on the GPU"):
            fill()
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(array, numbers[name])
        engine._account._limit = None
        kept.clear()
        assert model.encode(image(0)).content == first.content
    engine.close()
    assert not engine.standin.leaked
