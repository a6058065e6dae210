"""Sessions' memory on the GPU: what they hold, what they free, and their budget. On the CUDA stand-in."""

from __future__ import annotations

import gc

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.cuda.images.preparation import DEVICE_BYTES, PINNED_BYTES
from mmms_deploy.engines.cuda.memory import DeviceMemory, aligned
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import EngineError, ResidentBudgetError
from mmms_deploy.session import Session
from tests.standins.cuda import CudaStandIn
from tests.support.annotating import GREY, PLANE, SIZE, annotated, click_on
from tests.support.standin_engine import StandInEngine

# --- what is freed ----------------------------------------------------------------------------------------------------


def test_everything_is_freed(engine: StandInEngine, paint: Bundle) -> None:
    own = engine.info.name == "standin"
    for _ in range(3):
        with Session(paint, engine=engine) as session:
            annotated(session)
            result = session.result
    assert result.probability.shape == SIZE
    if own:
        assert engine.standin.leaked == {"modules": 2}, "the kernels are the engine's"
    engine.close()
    assert not engine.standin.leaked


def test_hundreds_of_sessions(engine: StandInEngine, paint: Bundle) -> None:
    def use(count: int) -> int:
        for _ in range(count):
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
        return engine.standin.device_bytes()

    once = use(1)
    assert use(299) == once
    assert sum(program.executors for program in engine.programs.values()) == (2 if once else 0)


def test_a_session_that_was_not_closed(engine: StandInEngine, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    session.click(1, 1)
    del session
    gc.collect()
    assert engine.memory().sessions == 0


def test_an_engine_that_was_not_closed(paint: Bundle) -> None:
    standin = CudaStandIn()
    session = Session(paint, engine=StandInEngine(paint, standin=standin))
    session.set_image(GREY)
    session.click(1, 1)
    del session
    gc.collect()
    gc.collect()
    assert not standin.leaked


def test_handles_outlive_their_session(engine: StandInEngine, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    for x in range(5):
        session.click(x, 1)
    state = session._state
    session.close()
    assert state.surfaces.current.history.current.probability is not None
    engine.close()
    assert not engine.standin.leaked
    del state
    gc.collect()


def test_closing_the_engine_under_a_session(engine: StandInEngine, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    engine.close()
    with pytest.raises(EngineError, match="engine is closed"):
        session.click(1, 1)
    with pytest.raises(EngineError, match="engine is closed"):
        engine.memory()
    session.close()


# --- budget and account -----------------------------------------------------------------------------------------------


def test_the_account_adds_up(engine: StandInEngine, paint: Bundle) -> None:
    before = engine.memory()
    assert (before.sessions, before.held) == (0, before.weights)
    with Session(paint, engine=engine) as session, Session(paint, engine=engine):
        annotated(session)
        memory = engine.memory()
        # Three words a row, and the tables of both axes; only one session has an image.
        assert memory.masks == aligned(4 * 3 * SIZE[0]) + sum(aligned(4 * n) + aligned(4 * 2 * n) for n in SIZE)
        assert memory.sessions == memory.resident == 2
        assert memory.held == memory.weights + engine.standin.device_bytes()
        assert memory.inputs == 2 * (3 * PLANE + DEVICE_BYTES)
        assert memory.features == 2 * (aligned(4) + aligned(3 * 8 * 12 * 4))
        # maps, maps_next: two planes each; prev and prob; the mask; the click.
        assert memory.state == 2 * (6 * PLANE + aligned(PLANE // 4) + aligned(16))
        assert memory.activations == (0 if engine.info.name == "standin-shared" else 2 * 4096)
        assert memory.history > 2 * 16 * 3 * PLANE
        assert memory.pinned == 2 * (3 * PLANE + PLANE + aligned(16) + PINNED_BYTES) + memory.masks
        assert memory.free == memory.total - engine.standin.device_bytes()
        assert "2 resident images" in str(memory)
        assert "features" in str(memory)
    assert isinstance(before, DeviceMemory)


def test_no_more_sessions_than_allowed(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(resident_images=2))
    first, second = Session(paint, engine=engine), Session(paint, engine=engine)
    with pytest.raises(ResidentBudgetError, match="2 sessions are open") as caught:
        Session(paint, engine=engine)
    assert "close a session" in str(caught.value.fix)
    first.close()
    with Session(paint, engine=engine) as third:
        third.set_image(GREY)
        third.click(1, 1)
    second.close()
    engine.close()
    assert not engine.standin.leaked


def test_no_more_memory_than_allowed(paint: Bundle) -> None:
    with pytest.raises(ResidentBudgetError, match="left of the limit"):
        Session(paint, engine=StandInEngine(paint, options=CudaOptions(memory_limit=100_000)))
    engine = StandInEngine(paint, options=CudaOptions(memory_limit=6 << 20, history_block=1))
    with Session(paint, engine=engine, history_limit=None) as session:
        session.set_image(GREY)
        with pytest.raises(ResidentBudgetError, match="more are needed on the GPU"):
            click_on(session, 1000)
        assert len(session.clicks) > 5
        assert engine.memory().held <= 6 << 20
        session.undo()
        session.reset()
        session.click(1, 1)
    engine.close()
    assert not engine.standin.leaked


def test_a_full_gpu(paint: Bundle) -> None:
    standin = CudaStandIn(room=70 << 20)
    engine = StandInEngine(paint, standin=standin)
    sessions = [Session(paint, engine=engine)]
    with pytest.raises(ResidentBudgetError, match="no room on the GPU for another session beside") as caught:
        sessions.extend(Session(paint, engine=engine) for _ in range(30))
    assert "history" in caught.value.given
    left = standin.device_bytes()
    sessions[0].set_image(GREY)
    sessions[0].click(1, 1)
    assert standin.device_bytes() == left + engine.memory().masks
    for session in sessions:
        session.close()
    engine.close()
    assert not standin.leaked


@pytest.mark.parametrize("setting", ["resident_images", "memory_limit", "history_block"])
def test_settings_are_checked(setting: str) -> None:
    with pytest.raises(EngineError, match=f"{setting} 0"):
        CudaOptions(**{setting: 0})
    with pytest.raises(EngineError, match="ordinal -1"):
        CudaOptions(ordinal=-1)
