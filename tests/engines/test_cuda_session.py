"""What a session costs on the GPU and what it leaves there, counted on the fake CUDA runtime."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, Role, StateLink, TensorSpec
from mmms_deploy.contract import ModalitySpec
from mmms_deploy.engines.cuda_memory import DeviceMemory, aligned
from mmms_deploy.engines.cuda_options import CudaOptions
from mmms_deploy.engines.cuda_values import Tensor
from mmms_deploy.engines.onnxruntime_cpu import OnnxRuntimeCpu
from mmms_deploy.errors import (
    BundleCorruptError,
    CudaError,
    EngineError,
    MMMSDeployWarning,
    ResidentBudgetError,
    SessionError,
)
from mmms_deploy.session import LATER, Session
from tests.engines.fake_cuda import Error, FakeCuda, Kind
from tests.engines.fake_engine import FakeGpu
from tests.toy import write_toy

SIZE = (50, 70)
GREY = np.full((*SIZE, 3), 51, dtype=np.uint8)
NETWORK = (64, 96)
PLANE = 4 * NETWORK[0] * NETWORK[1]
"""Bytes of a float32 map of the network's size."""


@pytest.fixture(params=[False, True], ids=["own-stream", "shared-stream"])
def engine(request: pytest.FixtureRequest, paint: Bundle) -> Iterator[FakeGpu]:
    engine = FakeGpu(paint, shared=request.param)
    yield engine
    engine.close()
    assert not engine.fake.leaked


@pytest.fixture
def graphs(paint: Bundle) -> Iterator[FakeGpu]:
    engine = FakeGpu(paint)
    yield engine
    engine.close()
    assert not engine.fake.leaked


def annotated(session: Session) -> list[np.ndarray]:
    """Clicks, undo, redo and a new branch; the answers."""
    session.set_image(GREY)
    answers = [session.click(x, y, x != 30).network_probability for x, y in ((10, 10), (60, 40), (30, 20), (31, 22))]
    answers += [session.undo().network_probability for _ in range(3)]
    answers.append(session.redo().network_probability)
    answers.append(session.click(5, 45).network_probability)
    session.set_image(GREY // 2)
    answers.append(session.click(35, 25).network_probability)
    return answers


# --- what a click costs -----------------------------------------------------------------------------------------------


def test_a_click_is_one_launch_and_one_wait(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        session.set_image(GREY)
        session.click(5, 5)
        for number in range(10):
            graphs.fake.reset()
            session.click(10 + number, 10)
            count = graphs.fake.count()
            assert count["cudaGraphLaunch"] == 1
            assert count["cudaStreamSynchronize"] == 1
            assert not {name for name in count if "Malloc" in name or "Alloc" in name or "Free" in name}
            # Beside the graph: the state, the answer and the mask of the click before move to slots.
            assert count["cudaMemcpyAsync"] == 3
            assert set(count) <= {"cudaSetDevice", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"}


def test_a_click_moves_16_bytes_in_and_the_answer_out(engine: FakeGpu) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        session.click(5, 5)
        engine.fake.reset()
        session.click(10, 10)
        assert engine.fake.copied[Kind.cudaMemcpyHostToDevice] == 16
        assert engine.fake.copied[Kind.cudaMemcpyDeviceToHost] == PLANE


def test_without_a_graph_a_click_still_waits_and_allocates_once_and_never(engine: FakeGpu, paint: Bundle) -> None:
    eager = FakeGpu(paint, options=CudaOptions(graph=False), fake=engine.fake)
    with Session(paint, engine=eager) as session:
        session.set_image(GREY)
        session.click(5, 5)
        engine.fake.reset()
        session.click(10, 10)
        count = engine.fake.count()
        assert count["cudaGraphLaunch"] == 0
        assert count["cudaStreamSynchronize"] == 1
        assert count["cudaMalloc"] == 0
    eager.close()


def test_the_history_takes_memory_a_block_at_a_time(paint: Bundle) -> None:
    engine = FakeGpu(paint, options=CudaOptions(history_block=4))
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        before = engine.memory().history
        allocations = []
        for number in range(20):
            engine.fake.reset()
            session.click(number, 10)
            allocations.append(engine.fake.count()["cudaMalloc"])
        assert sum(1 for number in allocations if number) <= 2 * 20 // 4
        # Two maps and a probability a click.
        assert engine.memory().history - before <= (20 + 4) * 3 * aligned(PLANE)
        used = engine.memory().history
        session.reset()
        for number in range(20):
            session.click(number, 30)
        assert engine.memory().history == used, "slots are used again when their handles are gone"
    engine.close()


def test_without_a_history_a_thousand_clicks_allocate_nothing(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs, history_limit=0) as session:
        session.set_image(GREY)
        session.click(1, 1)
        session.click(1, 1)
        graphs.fake.reset()
        for number in range(1000):
            session.click(number % 70, number % 50)
        assert graphs.fake.count()["cudaMalloc"] == 0


def test_undo_and_redo_copy_and_run_nothing(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        session.set_image(GREY)
        for x in (10, 20, 30):
            session.click(x, 10)
        for step in (session.undo, session.undo, session.redo):
            graphs.fake.reset()
            step()
            count = graphs.fake.count()
            assert (count["cudaGraphLaunch"], count["cudaMemcpyAsync"], count["cudaStreamSynchronize"]) == (0, 1, 1)


def test_a_click_after_undo_brings_the_state_back_on_the_gpu(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        session.set_image(GREY)
        for x in (10, 20, 30):
            session.click(x, 10)
        session.undo()
        graphs.fake.reset()
        session.click(40, 10)
        assert graphs.fake.count()["cudaStreamSynchronize"] == 1
        assert graphs.fake.copied[Kind.cudaMemcpyHostToDevice] == 16
        # Maps (2) and probability (1): the undone ones are saved for nobody, the kept ones come back, and the graph
        # links them; and the mask of the click before.
        assert graphs.fake.copied[Kind.cudaMemcpyDeviceToDevice] <= 9 * PLANE + PLANE // 4


def test_features_stay_where_the_image_stage_wrote_them(engine: FakeGpu) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        seat = session._runner._seat  # type: ignore[attr-defined]
        (home,) = (home for home in seat.stages["image"].outputs if home.spec.name == "f1")
        assert home in seat.stages["click"].inputs
        engine.fake.reset()
        session.click(10, 10)
        assert home.content is session._chain.value("f1")


def test_an_image_goes_to_the_gpu_once_and_waits_once(engine: FakeGpu) -> None:
    with Session(engine.bundle, engine=engine) as session:
        engine.fake.reset()
        session.set_image(GREY)
        assert engine.fake.copied[Kind.cudaMemcpyHostToDevice] == 3 * PLANE
        assert engine.fake.count()["cudaStreamSynchronize"] == 1


# --- the same answers -------------------------------------------------------------------------------------------------


def test_a_graph_answers_as_its_operations_one_by_one(paint: Bundle) -> None:
    answers = {}
    for graph in (True, False):
        engine = FakeGpu(paint, options=CudaOptions(graph=graph))
        with Session(paint, engine=engine) as session:
            answers[graph] = annotated(session)
        assert bool(engine.fake.count()["cudaGraphLaunch"]) is graph
        engine.close()
    np.testing.assert_array_equal(answers[True], answers[False])


def test_answers_are_those_of_the_cpu(engine: FakeGpu, paint: Bundle) -> None:
    with Session(paint, engine=engine) as session, Session(paint, engine="onnxruntime", threads=1) as other:
        np.testing.assert_array_equal(annotated(session), annotated(other))


def test_a_real_cell_at_full_size(cell448: Bundle) -> None:
    """Its previous mask is thresholded inside."""
    engine = FakeGpu(cell448)
    with Session(cell448, engine=engine) as session, Session(cell448, engine="onnxruntime", threads=1) as other:
        for one in (session, other):
            one.set_image(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
        for x, y in ((30, 20), (50, 40), (10, 50)):
            a, b = session.click(x, y).network_probability, other.click(x, y).network_probability
            np.testing.assert_array_equal(a, b)
    engine.close()


def test_two_sessions_interleaved(engine: FakeGpu, paint: Bundle) -> None:
    def walk(session: Session, seed: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        session.set_image(np.full((*SIZE, 3), rng.integers(0, 120), dtype=np.uint8))
        for x, y, kind in rng.uniform((0, 0, 0), (69, 49, 1), (30, 3)):
            if kind > 0.8 and session.can_undo:
                yield session.undo().network_probability
            elif kind > 0.7 and session.can_redo:
                yield session.redo().network_probability
            else:
                yield session.click(x, y, kind > 0.2).network_probability

    alone = []
    for seed in range(2):
        with Session(paint, engine=engine) as session:
            alone.append(list(walk(session, seed)))
    with Session(paint, engine=engine) as first, Session(paint, engine=engine) as second:
        together = list(zip(walk(first, 0), walk(second, 1), strict=True))
    np.testing.assert_array_equal(alone, list(zip(*together, strict=True)))


def test_sessions_in_threads(engine: FakeGpu, paint: Bundle) -> None:
    def annotate(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        with Session(paint, engine=engine) as session:
            session.set_image(np.full((*SIZE, 3), 10 * seed, dtype=np.uint8))
            return [session.click(x, y).network_probability for x, y in rng.uniform(0, 49, (10, 2))]

    alone = [annotate(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(annotate, range(6)))
    np.testing.assert_array_equal(alone, together)


def test_a_session_may_wander_between_threads(engine: FakeGpu, paint: Bundle) -> None:
    with Session(paint, engine=engine) as session, Session(paint, engine="onnxruntime", threads=1) as other:
        for one in (session, other):
            one.set_image(GREY)
        for x in range(6):
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(session.click, 10 * x, 10).result()
            np.testing.assert_array_equal(answer.network_probability, other.click(10 * x, 10).network_probability)


def test_late_modalities_and_bypass(tmp_path: Path) -> None:
    modalities = (ModalitySpec(name="depth", scale=0.01, optional=True),)
    bundle = write_toy(tmp_path / "late", modalities=modalities)
    engine = FakeGpu(bundle)
    depth = np.full(SIZE, 20, dtype=np.uint16)

    def walk(session: Session) -> list[np.ndarray]:
        session.set_image(GREY)
        answers = [session.click(10, 10).network_probability, session.click(60, 40).network_probability]
        session.set_modalities(depth=depth)
        answers += [session.result.network_probability, session.undo().network_probability]
        session.set_modalities(depth=None)
        answers += [session.result.network_probability, session.redo().network_probability]
        session.set_image(GREY, depth=LATER)
        session.set_modalities(depth=depth)
        return [*answers, session.click(20, 20).network_probability]

    with Session(bundle, engine=engine) as session, Session(bundle, engine="onnxruntime", threads=1) as other:
        np.testing.assert_array_equal(walk(session), walk(other))
    engine.close()
    assert not engine.fake.leaked


# --- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_is_recorded_after_one_run_and_before_the_first_click(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        calls = graphs.fake.calls
        start = calls.index("cudaStreamBeginCapture")
        assert calls[start - 1] == "cudaStreamSynchronize", "the warm-up is over before the recording"
        order = ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"]
        assert [name for name in calls if name in order] == order
        graphs.fake.reset()
        session.set_image(GREY)
        session.click(1, 1)
        assert "cudaStreamBeginCapture" not in graphs.fake.count()


def test_addresses_never_change(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        seat = session._runner._seat  # type: ignore[attr-defined]
        bound = dict(seat.stages["click"]._executor.bound)
        annotated(session)
        assert seat.stages["click"]._executor.bound == bound
        assert seat.stages["image"]._executor.bound["f1"] == bound["f1"]


def test_new_addresses_are_bound_and_recorded_again(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        session.set_image(GREY)
        session.click(10, 10)
        seat = session._runner._seat  # type: ignore[attr-defined]
        home = seat.homes["mask"]
        spare = seat.slots.take(home.spec.nbytes)
        home.address = spare.address
        graphs.fake.reset()
        session.click(20, 20)
        assert graphs.fake.count()["cudaGraphLaunch"] == 0
        assert graphs.fake.count()["cudaStreamBeginCapture"] == 1
        graphs.fake.reset()
        result = session.click(30, 30)
        assert graphs.fake.count()["cudaGraphLaunch"] == 1
        mask = session._runner.download(session._chain.value("mask"))[0, 0]
        np.testing.assert_array_equal(mask > 0, result.network_probability > 0.5)


def test_a_click_that_cannot_be_recorded_is_said_aloud_and_works(paint: Bundle) -> None:
    for call in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"):
        fake = FakeCuda()
        engine = FakeGpu(paint, fake=fake)
        fake.fail_always[call] = Error.cudaErrorUnknown
        with pytest.warns(MMMSDeployWarning, match=f"not as one CUDA graph: {call} failed"):
            session = Session(paint, engine=engine)
        with session, Session(paint, engine="onnxruntime", threads=1) as other:
            np.testing.assert_array_equal(annotated(session), annotated(other))
        engine.close()
        assert not fake.leaked


def test_a_click_that_cannot_be_recorded_is_refused_when_strict(paint: Bundle) -> None:
    fake = FakeCuda()
    engine = FakeGpu(paint, fake=fake, options=CudaOptions(strict=True))
    fake.fail_always["cudaGraphInstantiate"] = Error.cudaErrorUnknown
    with pytest.raises(CudaError, match="cudaGraphInstantiate failed with cudaErrorUnknown"):
        Session(paint, engine=engine)
    fake.fail_always.clear()
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        session.click(1, 1)
    engine.close()
    assert not fake.leaked


# --- what it leaves ---------------------------------------------------------------------------------------------------


def test_everything_comes_back(engine: FakeGpu, paint: Bundle) -> None:
    empty = {"streams": 1} if engine.info.name == "fake-shared" else {}
    for _ in range(3):
        with Session(paint, engine=engine) as session:
            annotated(session)
            result = session.result
    assert result.probability.shape == SIZE
    if not empty:
        assert not engine.fake.leaked
    engine.close()
    assert not engine.fake.leaked


def test_a_thousand_sessions(engine: FakeGpu, paint: Bundle) -> None:
    def use(count: int) -> int:
        for _ in range(count):
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
        return engine.fake.device_bytes()

    once = use(1)
    assert use(999) == once
    assert sum(program.executors for program in engine.programs.values()) == (2 if once else 0)


def test_a_session_that_nobody_closed(engine: FakeGpu, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    session.click(1, 1)
    del session
    gc.collect()
    assert engine.memory().sessions == 0


def test_an_engine_that_nobody_closed(paint: Bundle) -> None:
    fake = FakeCuda()
    session = Session(paint, engine=FakeGpu(paint, fake=fake))
    session.set_image(GREY)
    session.click(1, 1)
    del session
    gc.collect()
    gc.collect()
    assert not fake.leaked


def test_handles_outlive_their_session(engine: FakeGpu, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    for x in range(5):
        session.click(x, 1)
    chain = session._chain
    session.close()
    assert chain.value("prob") is not None
    engine.close()
    assert not engine.fake.leaked
    del chain
    gc.collect()


def test_closing_the_engine_under_a_session(engine: FakeGpu, paint: Bundle) -> None:
    session = Session(paint, engine=engine)
    session.set_image(GREY)
    engine.close()
    with pytest.raises(EngineError, match="engine is closed"):
        session.click(1, 1)
    with pytest.raises(EngineError, match="engine is closed"):
        engine.memory()
    session.close()


# --- budget and account -----------------------------------------------------------------------------------------------


def test_the_account_adds_up(engine: FakeGpu, paint: Bundle) -> None:
    before = engine.memory()
    assert (before.sessions, before.held) == (0, before.weights)
    with Session(paint, engine=engine) as session, Session(paint, engine=engine):
        annotated(session)
        memory = engine.memory()
        assert memory.sessions == memory.resident == 2
        assert memory.held == memory.weights + engine.fake.device_bytes()
        assert memory.inputs == 2 * 3 * PLANE
        assert memory.features == 2 * (aligned(4) + aligned(3 * 8 * 12 * 4))
        # maps, maps_next: two planes each; prev and prob; the mask; the click.
        assert memory.state == 2 * (6 * PLANE + aligned(PLANE // 4) + aligned(16))
        assert memory.activations == (0 if engine.info.name == "fake-shared" else 2 * 4096)
        assert memory.history > 2 * 16 * 3 * PLANE
        assert memory.pinned == 2 * (3 * PLANE + PLANE + aligned(16))
        assert memory.free == memory.total - engine.fake.device_bytes()
        assert "2 resident images" in str(memory)
        assert "features" in str(memory)
    assert isinstance(before, DeviceMemory)


def test_no_more_sessions_than_asked_for(paint: Bundle) -> None:
    engine = FakeGpu(paint, options=CudaOptions(resident_images=2))
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
    assert not engine.fake.leaked


def test_no_more_memory_than_asked_for(paint: Bundle) -> None:
    with pytest.raises(ResidentBudgetError, match="left of the limit"):
        Session(paint, engine=FakeGpu(paint, options=CudaOptions(memory_limit=100_000)))
    engine = FakeGpu(paint, options=CudaOptions(memory_limit=2 << 20, history_block=1))
    with Session(paint, engine=engine, history_limit=None) as session:
        session.set_image(GREY)
        with pytest.raises(ResidentBudgetError, match="more are needed on the GPU"):
            click_on(session, 1000)
        assert len(session.clicks) > 5
        assert engine.memory().held <= 2 << 20
        session.undo()
        session.reset()
        session.click(1, 1)
    engine.close()
    assert not engine.fake.leaked


def test_a_full_gpu(paint: Bundle) -> None:
    fake = FakeCuda(room=70 << 20)
    engine = FakeGpu(paint, fake=fake)
    sessions = [Session(paint, engine=engine)]
    with pytest.raises(ResidentBudgetError, match="no room on the GPU for another session beside") as caught:
        sessions.extend(Session(paint, engine=engine) for _ in range(30))
    assert "history" in caught.value.given
    left = fake.device_bytes()
    sessions[0].set_image(GREY)
    sessions[0].click(1, 1)
    assert fake.device_bytes() == left
    for session in sessions:
        session.close()
    engine.close()
    assert not fake.leaked


@pytest.mark.parametrize("setting", ["resident_images", "memory_limit", "history_block"])
def test_settings_are_checked(setting: str) -> None:
    with pytest.raises(EngineError, match=f"{setting}=0"):
        CudaOptions(**{setting: 0})
    with pytest.raises(EngineError, match="ordinal=-1"):
        CudaOptions(ordinal=-1)


# --- failures ---------------------------------------------------------------------------------------------------------


def failure_of(step: Callable[[], object]) -> CudaError | None:
    try:
        step()
    except CudaError as error:
        return error
    return None


def click_on(session: Session, count: int) -> None:
    for number in range(count):
        session.click(number % 70, 10)


def test_any_call_may_fail_while_a_session_is_opened(paint: Bundle) -> None:
    for shared in (False, True):
        probe = FakeGpu(paint, shared=shared)
        probe.fake.reset()
        Session(paint, engine=probe).close()
        calls = list(probe.fake.calls)
        probe.close()
        for number, call in enumerate(calls):
            fake = FakeCuda()
            engine = FakeGpu(paint, fake=fake, shared=shared, options=CudaOptions(strict=True))
            fake.reset()
            fake.fail_at[number] = Error.cudaErrorUnknown
            error = failure_of(lambda engine=engine: Session(paint, engine=engine).close())
            if error is None:
                # Giving back a graph that was made executable, and the wait before memory is freed, need not succeed.
                assert call in {"cudaGraphDestroy", "cudaStreamSynchronize"}, call
            else:
                assert (error.call, error.name) == (call, "cudaErrorUnknown")
                assert "mmms-doctor" in str(error.fix)
            fake.fail_at.clear()
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(1, 1)
            engine.close()
            assert not fake.leaked, call


def test_any_call_may_fail_while_a_session_works(engine: FakeGpu, paint: Bundle) -> None:
    """Whatever fails, the error is named, the session answers as before, and then goes on."""

    def clicked(session: Session) -> np.ndarray:
        return session.click(40, 20).network_probability

    steps = {
        "click": clicked,
        "undo": lambda session: session.undo().network_probability,
        "image": lambda session: session.set_image(GREY // 2),
        "branch": lambda session: (session.undo(), session.click(22, 22))[1].network_probability,
    }
    with Session(paint, engine="onnxruntime", threads=1) as other:
        other.set_image(GREY)
        first, second = (other.click(x, 10, x < 30).network_probability for x in (10, 60))
        third = clicked(other)
    for name, step in steps.items():
        for _ in range(2):  # what is kept for the next session shows with the second
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
                session.click(60, 10, False)
                engine.fake.reset()
                step(session)
                calls = list(engine.fake.calls)
        for number, call in enumerate(calls):
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
                session.click(60, 10, False)
                engine.fake.reset()
                engine.fake.fail_at[number] = Error.cudaErrorUnknown
                with pytest.raises(CudaError) as caught:
                    step(session)
                assert caught.value.call == call
                if name == "undo":
                    assert len(session.clicks) == 1, "the step was taken, its answer could not be fetched"
                    session.redo()
                elif name == "branch" and len(session.clicks) == 1:
                    session.redo()
                np.testing.assert_array_equal(session.result.network_probability, second)
                np.testing.assert_array_equal(clicked(session), third)
                session.undo()
                np.testing.assert_array_equal(session.undo().network_probability, first)


def test_out_of_memory_in_a_click_takes_no_click(graphs: FakeGpu, paint: Bundle) -> None:
    engine = FakeGpu(paint, fake=graphs.fake, options=CudaOptions(history_block=1))
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        session.click(10, 10)
        graphs.fake.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.raises(ResidentBudgetError, match="the GPU's memory is used up") as caught:
            click_on(session, 5)
        assert "close a session" in str(caught.value.fix)
        taken = session.clicks
        assert session.result.index == len(taken) < 6
        graphs.fake.fail_always.clear()
        session.click(30, 30)
        assert session.clicks[:-1] == taken
    engine.close()


def test_a_lost_gpu_says_so(graphs: FakeGpu) -> None:
    with Session(graphs.bundle, engine=graphs) as session:
        session.set_image(GREY)
        graphs.fake.fail_always["cudaGraphLaunch"] = Error.cudaErrorIllegalAddress
        with pytest.raises(CudaError, match="cudaErrorIllegalAddress") as caught:
            session.click(1, 1)
        assert "start the process again" in str(caught.value.fix)
        assert caught.value.code == 700


def test_a_library_that_refuses(engine: FakeGpu, paint: Bundle) -> None:
    engine.programs["image"].fail = "executor"
    with pytest.raises(EngineError, match="no execution context"):
        Session(paint, engine=engine)
    engine.programs["image"].fail = "enqueue"
    with Session(paint, engine=engine) as session:
        with pytest.raises(EngineError, match="the library refuses"):
            session.set_image(GREY)
        engine.programs["image"].fail = None
        session.set_image(GREY)
        session.click(1, 1)


# --- bundles that do not fit ------------------------------------------------------------------------------------------


def changed(bundle: Bundle, side: str, **changes: object) -> Bundle:
    stages = list(bundle.manifest.stages)
    graph = stages[-1].graphs[Precision.FP32]
    tensors = list(getattr(graph, side))
    tensors[0] = msgspec.structs.replace(tensors[0], **changes)
    graph = msgspec.structs.replace(graph, **{side: tuple(tensors)})
    stages[-1] = msgspec.structs.replace(stages[-1], graphs={Precision.FP32: graph})
    copy = Bundle(bundle.path)
    copy.manifest = msgspec.structs.replace(bundle.manifest, stages=tuple(stages))
    return copy


def test_tensors_that_cannot_share_a_place(paint: Bundle) -> None:
    with pytest.raises(BundleCorruptError, match="f1 is float32"):
        FakeGpu(changed(paint, "inputs", shape=(1, 9)))
    with pytest.raises(BundleCorruptError, match=r"the state of .*: maps is float32"):
        FakeGpu(changed(paint, "outputs", shape=(1, 3, 64, 96)))


def test_a_state_that_no_stage_has_is_the_sessions_to_refuse(paint: Bundle) -> None:
    bundle = Bundle(paint.path)
    bundle.manifest = msgspec.structs.replace(
        bundle.manifest, state=(*bundle.manifest.state[:1], StateLink(input="prev", output="nothing"))
    )
    engine = FakeGpu(bundle)
    with pytest.raises((BundleCorruptError, SessionError), match="nothing"):
        Session(bundle, engine=engine)
    engine.close()
    assert not engine.fake.leaked


def test_bfloat16_is_widened(graphs: FakeGpu) -> None:
    runner = graphs.open()
    numbers = np.array([1.0, -2.5, 1e38, 0.0], dtype=np.float32)
    slot = runner._seat.slots.take(8)  # type: ignore[union-attr]
    tensor = Tensor(TensorSpec(name="f", role=Role.FEATURE, dtype="bfloat16", shape=(1, 4)))
    tensor.slot = slot
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    ctypes.memmove(slot.address, bits.ctypes.data, 8)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(runner.download(tensor), expected[None])
    zeros = runner.zeros(tensor.spec)
    assert runner.download(zeros).dtype == np.float32
    del tensor
    runner.close()


def test_values_of_another_engine(graphs: FakeGpu, paint: Bundle) -> None:
    other = OnnxRuntimeCpu(paint, Precision.FP32, 1).open()
    runner = graphs.open()
    inputs = {spec.name: other.zeros(spec) for spec in graphs.graphs["image"].inputs}
    with pytest.raises(EngineError, match="Fake failed in stage 'image': rgb is OrtValue"):
        runner.run("image", inputs)
    wrong = {"rgb": runner.zeros(graphs.graphs["click"].inputs[0])}
    with pytest.raises(EngineError, match=r"rgb is float32 \(1, 1, 1, 1\)"):
        runner.run("image", wrong)
    with pytest.raises(EngineError, match="cannot be downloaded"):
        runner.download(inputs["rgb"])
    with pytest.raises(EngineError, match="stage 'nothing' cannot run"):
        runner.run("nothing", {})
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="runner is closed"):
        runner.synchronize()
