"""The decision between objects that are answered at once, made on the GPU. On the CUDA stand-in, with a model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Click
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda.memory import aligned
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import CudaError, MMMSDeployWarning, ResidentBudgetError
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.decision import Enlargement
from mmms_deploy.session import Session
from mmms_deploy.session.joint_surfaces import JointSurfaces
from tests.standins.cuda import CudaStandIn, Error, Kind
from tests.support.joint import GRID, write_joint
from tests.support.near import assert_same_labels
from tests.support.standin_engine import StandInEngine, failure_of, tidy

SMALL, ODD, LARGE = (50, 70), (131, 97), (269, 481)
LABELS = "labels"
"""Name of the kernel."""


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


@pytest.fixture(params=[False, True], ids=["own-stream", "shared-stream"])
def gpu(request: pytest.FixtureRequest, joint: Bundle) -> Iterator[StandInEngine]:
    with tidy(joint, shared=request.param) as engine:
        yield engine


def grey(size: tuple[int, int], value: int = 51) -> np.ndarray:
    return np.full((*size, 3), value, dtype=np.uint8)


def check(session: Session, device: str = "cuda") -> None:
    """Compare all that a session says with the CPU's decision between the rows that it holds."""
    surfaces = session._state.surfaces
    assert isinstance(surfaces, JointSurfaces)
    rows, size = surfaces.now.rows, session.image_size
    assert size is not None
    labels = session.labels
    assert (labels.shape, labels.dtype, labels.flags.writeable) == (size, np.int32, False)
    assert session.labels is labels
    result = session.result
    assert result.mask_device == (device if rows is not None else "cpu")
    assert (result.mask.dtype, result.mask.flags.writeable) == (np.bool_, False)
    np.testing.assert_array_equal(result.mask, labels == session.surfaces[session.surface])
    if rows is None:
        assert not labels.any()
    else:
        assert_same_labels(labels, rows.logits, rows.owners, rows.enlarged(size))


def walked(session: Session, size: tuple[int, int]) -> Iterator[None]:
    """Every kind of call; stops after each."""
    height, width = size
    session.set_image(grey(size))
    yield
    session.click(0.2 * width, 0.3 * height)
    yield
    session.select("dog")
    yield
    session.click(0.7 * width, 0.6 * height)
    yield
    session.click(0.5 * width, 0.5 * height, positive=False)
    yield
    for _ in range(3):
        session.undo()
        yield
    for _ in range(3):
        session.redo()
        yield
    session.click_objects({"1": (0.1 * width, 0.9 * height), "cat": (0.9 * width, 0.1 * height)})
    yield
    session.add_clicks([(0.3 * width, 0.3 * height), (0.4 * width, 0.4 * height, 0)])
    yield
    session.rename("cat", "cow")
    yield
    session.remove("dog")
    yield
    session.restore(session.to_dict())
    yield
    session.reset()
    yield
    session.set_image(grey(size, 80))
    session.click(0.5 * width, 0.5 * height)
    yield


@pytest.mark.parametrize("cleaning", [None, MaskCleaning(fill_holes=20, drop_specks=20)], ids=["plain", "cleaned"])
@pytest.mark.parametrize("size", [SMALL, ODD, LARGE], ids=str)
def test_labels_are_those_of_a_session_on_the_cpu(
    gpu: StandInEngine, joint: Bundle, size: tuple[int, int], cleaning: MaskCleaning | None
) -> None:
    with (
        Session(joint, engine=gpu, cleaning=cleaning) as session,
        Session(joint, engine="onnxruntime", threads=1, cleaning=cleaning) as other,
    ):
        steps = 0
        for _ in zip(walked(session, size), walked(other, size), strict=True):
            steps += 1
            if cleaning is None:
                check(session)
                check(other, "cpu")
            assert dict(session.surfaces) == dict(other.surfaces)
            assert session.all_clicks == other.all_clicks
            assert (session.labels != other.labels).mean() < 1e-3
            assert (session.mask != other.mask).mean() < 1e-3
            np.testing.assert_allclose(session.result.answer.numbers, other.result.answer.numbers, atol=1e-5)
            np.testing.assert_allclose(session.result.probability, other.result.probability, atol=1e-5)
        assert steps == 18
        assert set(np.unique(session.labels)) == {0, 1}


def test_one_decision_a_click(gpu: StandInEngine, joint: Bundle) -> None:
    """Whatever is read of it; and no memory is allocated."""
    with Session(joint, engine=gpu) as session:
        session.set_image(grey(ODD))
        session.click(20, 20)
        gpu.standin.reset()
        launched = gpu.standin.driver_calls.launched
        launched.clear()
        session.select("dog")
        results = session.click_objects({"1": Click(10, 60), "dog": Click(60, 90)})
        _ = session.labels, session.result.mask, session.mask, results["1"].area, session.detections().mask
        assert launched.count(LABELS) == 1
        session.select("1")
        session.rename("dog", "cat")
        _ = session.labels, session.mask
        assert launched.count(LABELS) == 1
        session.undo()
        assert launched.count(LABELS) == 2
        assert not {name for name in gpu.standin.count() if "Alloc" in name or "Malloc" in name or "Free" in name}
        # The first of two clicks that came together was not answered before it was undone to.
        down = 2 * (ODD[0] * ODD[1] + 4 * 5 * GRID[0] * GRID[1])
        assert gpu.standin.copied[Kind.cudaMemcpyDeviceToHost] == down


def test_bytes_are_counted(gpu: StandInEngine, joint: Bundle) -> None:
    with Session(joint, engine=gpu) as session:
        session.set_image(grey(LARGE))
        session.click(200, 100)
        session._runner.take_moved()  # type: ignore[attr-defined]
        gpu.standin.reset()
        session.click(100, 100)
        moved = session._runner.take_moved()  # type: ignore[attr-defined]
        copied = gpu.standin.copied
        assert moved.up == copied[Kind.cudaMemcpyHostToDevice]
        assert moved.down == copied[Kind.cudaMemcpyDeviceToHost] == LARGE[0] * LARGE[1] + 4 * 5 * GRID[0] * GRID[1]
        # The list of clicks; two clicks and a learned row, their order, and the ends and numbers of two owners.
        assert moved.up == 4 * 4 * 5 + 3 * 4 * GRID[0] * GRID[1] + 4 * (3 + 2 + 2)


def test_the_account(gpu: StandInEngine, joint: Bundle) -> None:
    with Session(joint, engine=gpu) as session:
        assert gpu.memory().masks == 0
        pinned = gpu.memory().pinned
        for _ in range(2):
            session.set_image(grey(LARGE))
            session.click(10, 10)
        memory = gpu.memory()
        # The map, both axes' tables of three weights, the list of eight rows, and these.
        tables, rows = 4 * sum(LARGE) + 4 * 3 * sum(LARGE), 8 * 4 * GRID[0] * GRID[1]
        assert memory.masks == aligned(LARGE[0] * LARGE[1]) + aligned(tables) + aligned(8 * 3 * 4) + rows
        assert memory.pinned == pinned + LARGE[0] * LARGE[1]
        assert "masks" in str(memory)
        gpu.standin.reset()
        session.set_image(grey(SMALL))
        session.click(10, 10)
        check(session)
        session.set_image(grey(LARGE))
        session.click(10, 10)
        check(session)
        assert gpu.memory().masks == memory.masks, "the larger memory is kept for smaller images"
        assert not {name for name in gpu.standin.count() if "Alloc" in name or "Malloc" in name or "Free" in name}


def test_memory_grows_with_the_clicks_twice_at_a_time(tmp_path: Path) -> None:
    bundle = write_joint(tmp_path / "long", sizes=(4, 40))
    with tidy(bundle) as engine, Session(bundle, engine=engine) as session:
        session.set_image(grey(ODD))
        held = []
        for number in range(33):
            session.click(3 + 5 * (number % 18), 5 + 7 * (number % 17), number % 3 > 0)
            check(session)
            held.append(engine.memory().masks)
        # With the learned row: at 9, 17 and 33 rows.
        assert [number for number in range(1, 33) if held[number] != held[number - 1]] == [7, 15, 31]


def test_labels_that_no_byte_holds(joint: Bundle) -> None:
    with tidy(joint) as engine, Session(joint, engine=engine) as session:
        session.set_image(grey(ODD))
        session.click(20, 20)
        for number in range(2, 302):
            session.select(str(number))
        session.select("300")
        session.click(70, 110)
        session.select("256")
        session.click(80, 20)
        check(session)
        assert set(np.unique(session.labels)) == {0, 1, 256, 300}
        assert session.mask.any()
        for name in ("1", "300", "2", "301"):
            session.select(name)
            check(session)
            assert session.mask.any() == (name in ("1", "300"))
        np.testing.assert_array_equal(session.detections().mask.any(axis=(1, 2)), [True] * 3)


def test_an_object_without_a_click_whose_label_no_byte_holds(joint: Bundle) -> None:
    with tidy(joint) as engine, Session(joint, engine=engine) as session:
        session.set_image(grey(ODD))
        session.click(20, 20)
        for number in range(2, 260):
            session.select(str(number))
        assert session.surfaces[session.surface] == 259
        check(session)
        assert not session.mask.any()


def test_sessions_in_threads(gpu: StandInEngine, joint: Bundle) -> None:
    def annotate(number: int) -> None:
        size = (60 + 11 * number, 50 + 7 * number)
        with Session(joint, engine=gpu) as session:
            session.set_image(grey(size, 40 + number))
            for step in range(4):
                session.select(str(step % 3))
                session.click(10 * step, 10)
                check(session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(annotate, range(6)))


def test_a_timed_session_decides_there_too(joint: Bundle) -> None:
    with tidy(joint) as engine, TimedSession(engine) as session:
        session._session.set_image(grey(ODD))
        sample = session.click((20, 20, True))
        assert session.result.mask_device == "cuda"
        check(session._session)
        assert sample.mask > 0
    with Session(joint, engine="onnxruntime", threads=1) as plain, TimedSession(plain._engine) as session:
        session._session.set_image(grey(ODD))
        session.click((20, 20, True))
        assert session.result.mask_device == "cpu"


# --- what fails -------------------------------------------------------------------------------------------------------


def test_without_its_kernel_the_cpu_decides(joint: Bundle) -> None:
    for call in ("cuModuleLoadData", "cuModuleGetFunction"):
        standin = CudaStandIn()
        standin.fail_always[call] = Error.cudaErrorUnknown
        prepared = CudaOptions(prepare_images=False)
        engine = StandInEngine(joint, standin=standin, options=prepared)
        with pytest.warns(
            MMMSDeployWarning, match=f"label maps are made on the CPU, and not on the GPU: {call} failed"
        ):
            session = Session(joint, engine=engine)
        with session, Session(joint, engine=engine):  # it says so once
            session.set_image(grey(ODD))
            session.click(10, 10)
            check(session, "cpu")
            assert engine.memory().masks == 0
        engine.close()
        strict = StandInEngine(joint, standin=standin, options=CudaOptions(strict=True, prepare_images=False))
        with pytest.raises(CudaError, match=call):
            Session(joint, engine=strict)
        standin.fail_always.clear()
        with Session(joint, engine=strict) as session:
            session.set_image(grey(ODD))
            session.click(10, 10)
            check(session)
        strict.close()
        assert not standin.leaked


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_without_memory_for_it_the_cpu_decides(joint: Bundle, call: str) -> None:
    engine = StandInEngine(joint)
    with Session(joint, engine=engine) as session:
        for _ in range(2):
            session.set_image(grey(SMALL))
            session.click(10, 10)
        engine.standin.fail_always[call] = Error.cudaErrorMemoryAllocation
        with pytest.warns(MMMSDeployWarning, match="label maps of 481 x 269 pixels are made on the CPU and not on the"):
            session.set_image(grey(LARGE))
        for step in (lambda: session.click(10, 10), lambda: session.click(200, 10), session.undo):  # it says so once
            step()
            check(session, "cpu")
        assert engine.memory().masks == 0
        engine.standin.fail_always.clear()
        session.set_image(grey(LARGE))
        session.click(10, 10)
        check(session)  # there is memory again
        session.set_image(grey(SMALL))
        session.click(10, 10)
        check(session)
    engine.close()
    assert not engine.standin.leaked


def test_without_memory_for_more_clicks_the_cpu_decides(tmp_path: Path) -> None:
    """And the GPU again, when there are fewer of them."""
    bundle = write_joint(tmp_path / "long", sizes=(4, 40))
    with tidy(bundle) as engine, Session(bundle, engine=engine) as session:
        session.set_image(grey(ODD))
        for number in range(7):
            session.click(10 * number, 10)
        check(session)
        engine.standin.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.warns(MMMSDeployWarning, match="label maps of 97 x 131 pixels"):
            session.click(20, 90)
        check(session, "cpu")
        session.click(30, 90)
        check(session, "cpu")
        engine.standin.fail_always.clear()
        for _ in range(2):
            session.undo()
        check(session)


def test_a_strict_engine_refuses_what_there_is_no_memory_for(joint: Bundle) -> None:
    engine = StandInEngine(joint, options=CudaOptions(strict=True))
    with Session(joint, engine=engine) as session:
        for _ in range(2):
            session.set_image(grey(SMALL))
            before = session.click(10, 10)
        engine.standin.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.raises(ResidentBudgetError, match=r"needed on the GPU \(masks\)"):
            session.set_image(grey(LARGE))
        engine.standin.fail_always.clear()
        assert session.image_size == SMALL
        np.testing.assert_array_equal(session.result.mask, before.mask)
        session.click(60, 40)
        check(session)
    engine.close()
    assert not engine.standin.leaked


@pytest.mark.parametrize("shared", [False, True], ids=["own-stream", "shared-stream"])
def test_any_call_may_fail(joint: Bundle, shared: bool) -> None:
    """The error is named, the image and the clicks stay, and every map afterwards is right."""

    def prepared(session: Session) -> np.ndarray:
        session.set_image(grey(ODD))
        session.click(10, 10)
        session.select("dog")
        session.click(60, 100)
        return session.labels

    engine = StandInEngine(joint, shared=shared, options=CudaOptions(strict=True))
    steps: dict[str, Callable[[Session], object]] = {
        "another size": lambda session: session.set_image(grey(LARGE)),
        "click": lambda session: session.click(40, 20),
        "undo": lambda session: session.undo(),
        "remove": lambda session: (session.remove("1"), session.labels),
    }
    for name, step in steps.items():
        with Session(joint, engine=engine) as session:
            prepared(session)
            engine.standin.reset()
            step(session)
            calls = list(engine.standin.calls)
        assert name == "another size" or "cuLaunchKernel" in calls
        for number, call in enumerate(calls):
            with Session(joint, engine=engine) as session:
                labels = prepared(session)
                engine.standin.reset()
                engine.standin.fail_at[number] = Error.cudaErrorUnknown
                error = failure_of(lambda step=step, session=session: step(session))  # type: ignore[misc]
                if error is None:
                    # A session that uses what another one left has enough memory.
                    assert engine.standin.fail_at, (name, call)
                    engine.standin.fail_at.clear()
                    continue
                assert error.call in calls
                assert session.image_size == ODD
                if name != "remove":  # which is done when its map is requested
                    np.testing.assert_array_equal(session.labels, labels)
                check(session)
                session.click(22, 22)
                check(session)
                session.undo()
                check(session)
                session.set_image(grey(LARGE))
                session.click(100, 100)
                check(session)
    engine.close()
    assert not engine.standin.leaked


@pytest.mark.parametrize("place", ["upload", "launch", "download"])
def test_an_interrupt_leaves_a_session_that_works(
    gpu: StandInEngine, joint: Bundle, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with Session(joint, engine=gpu) as session:
        session.set_image(grey(ODD))
        session.click(20, 20)
        labels, runs = session.labels, 0
        resources = session._runner._resources  # type: ignore[attr-defined]
        owner = resources.decider.kernel if place == "launch" else resources.cuda
        before = getattr(owner, place)

        def interrupted(*arguments: object) -> None:
            nonlocal runs
            before(*arguments)
            if resources.decider.busy:
                runs += 1
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.click(80, 100, positive=False)
        assert runs == 1
        assert session.labels is labels
        session.click(60, 100, positive=False)
        check(session)
        session.set_image(grey(LARGE))
        session.click(60, 100)
        check(session)


def test_nothing_is_freed_that_the_gpu_may_still_use(gpu: StandInEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interrupt, the pinned memory is written to until the stream was waited for."""
    runner = gpu.open()
    planes, owners = np.random.default_rng(0).normal(size=(3, *GRID)).astype(np.float32), np.arange(3, dtype=np.uint8)
    small, large = (Enlargement((32, 64), (24, 40), size, ResizeRule()) for size in (SMALL, LARGE))

    def interrupted() -> None:
        raise KeyboardInterrupt

    runner.decided(planes, owners, small)
    decider = runner._resources.decider  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        patch.setattr(decider, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.decided(planes, owners, small)
    assert decider.busy
    gpu.standin.reset()
    found = runner.decided(planes, owners, large)
    calls = gpu.standin.calls
    assert calls.index("cudaStreamSynchronize") < calls.index("cudaFreeHost")
    assert found is not None
    assert_same_labels(found.astype(np.int32), planes, owners.astype(np.int32), large)
    runner.close()


def test_a_session_that_was_not_closed(joint: Bundle) -> None:
    engine = StandInEngine(joint)
    session = Session(joint, engine=engine)
    session.set_image(grey(ODD))
    session.click(1, 1)
    assert engine.memory().masks > 0
    del session
    gc.collect()
    assert engine.memory().masks == 0
    engine.close()
    assert not engine.standin.leaked


def test_other_networks_need_no_kernel_for_it(paint: Bundle) -> None:
    with tidy(paint) as engine, Session(paint, engine=engine) as session:
        session.set_image(grey(ODD))
        session.click(10, 10)
        assert LABELS not in engine.standin.driver_calls.launched
        assert session._runner._resources.decider.kernel is None  # type: ignore[attr-defined]
