"""Sessions on a real GPU, on every engine for it."""

from __future__ import annotations

import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.registry import Backend
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import EngineError, ResidentBudgetError
from mmms_deploy.replay.verification import verify
from mmms_deploy.session import Session
from tests.support.annotating import GREY, annotated
from tests.support.engines import Open

CLICKS = ((30, 20, True), (50, 40, False), (10, 50, True), (31, 22, True), (60, 5, False))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def clicked(session: Session, seed: int = 0) -> list[np.ndarray]:
    session.set_image(picture(seed))
    return [session.click(*click).network_probability for click in CLICKS]


def free_bytes() -> int:
    cuda = Cuda(import_cuda())
    cuda.activate()
    return cuda.memory()[0]


def assert_the_same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Check that answers to CLICKS agree, as far as different computations in float32 do.

    A pixel at the threshold may fall on either side, and then the next click starts from another previous mask. Two
    engines on one CPU, 5e-6 apart, were 8e-4 apart at 1 % of the pixels after one such pixel.
    """
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        limit = 1e-3 if number == 0 else 2e-2
        difference = np.abs(our - their)
        assert difference.max() <= limit, number
        assert difference.mean() <= limit / 20, number
        certain = np.abs(their - 0.5) > limit
        np.testing.assert_array_equal((our > 0.5)[certain], (their > 0.5)[certain])


# --- the answers ------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_cpu(opened: Open, cell448: Bundle) -> None:
    with Session(cell448, engine=opened(cell448)) as session, Session(cell448, engine="onnxruntime") as other:
        assert_the_same(clicked(session), clicked(other))


def test_disks_are_exact(opened: Open, echo: Bundle) -> None:
    """The toy's probability is the newest disk: coordinates and squared distances are float32 on every engine."""
    with Session(echo, engine=opened(echo)) as session, Session(echo, engine="onnxruntime") as other:
        for one in (session, other):
            one.set_image(GREY)
        for x, y in np.random.default_rng(0).uniform(0, 49, (50, 2)):
            np.testing.assert_array_equal(session.click(x, y).mask, other.click(x, y).mask)


def test_the_golden_replay_passes(opened: Open, cell448: Bundle) -> None:
    assert verify(cell448, engine=opened(cell448)).telling


def test_undo_redo_and_branches(opened: Open, paint: Bundle) -> None:
    with Session(paint, engine=opened(paint)) as session, Session(paint, engine="onnxruntime") as other:
        for ours, theirs in zip(annotated(session), annotated(other), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_undone_and_redone_answers_are_the_same_bits(opened: Open, cell448: Bundle) -> None:
    with Session(cell448, engine=opened(cell448)) as session:
        answers = clicked(session)
        for expected in answers[-2::-1]:
            np.testing.assert_array_equal(session.undo().network_probability, expected)
        for expected in answers[1:]:
            np.testing.assert_array_equal(session.redo().network_probability, expected)


def test_answers_with_channels_last(opened: Open, cell448: Bundle, backend: Backend) -> None:
    """The stages of a click stay on the GPU, so that each is one CUDA graph."""
    if backend.name != "onnxruntime-cuda":
        return  # TensorRT chooses layouts itself
    options = CudaOptions(prefer_nhwc=True, strict=True)
    with Session(cell448, engine=opened(cell448, options=options)) as session:
        answers = clicked(session)
    with Session(cell448, engine=opened(cell448)) as session:
        assert_the_same(answers, clicked(session))


# --- the CUDA graph ---------------------------------------------------------------------------------------------------


def test_a_cuda_graph_answers_as_its_operations_one_by_one(opened: Open, cell448: Bundle, backend: Backend) -> None:
    with Session(cell448, engine=opened(cell448)) as session:
        captured = clicked(session)
    with Session(cell448, engine=opened(cell448, options=CudaOptions(cuda_graph=False))) as session:
        sequence = clicked(session)
    if backend.name == "tensorrt":
        np.testing.assert_array_equal(captured, sequence)
    else:
        # ONNX Runtime times its convolution algorithms when it loads a graph, and may take another one this time.
        assert_the_same(captured, sequence)


def test_a_cuda_graph_is_captured_while_others_use_the_default_stream(
    opened: Open, cell448: Bundle, backend: Backend
) -> None:
    """In the global mode their calls would fail, and invalidate the capture.

    ONNX Runtime captures in that mode, while a session's resources are made. So it captures before
    the others begin, and no later session captures anything.
    """
    engine = opened(cell448, options=CudaOptions(strict=True))
    if backend.name == "onnxruntime-cuda":
        Session(cell448, engine=engine).close()
    stop = threading.Event()
    failures: list[Exception] = []

    def disturb() -> None:
        cuda = Cuda(import_cuda())
        try:
            cuda.activate()
            while not stop.is_set():
                address = cuda.allocate(1 << 20)
                cuda.clear(address, 1 << 20, 0)
                cuda.free(address)
        except EngineError as error:
            failures.append(error)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            with Session(cell448, engine=engine) as session:
                clicked(session)
    finally:
        stop.set()
        thread.join()
    assert not failures


# --- several sessions -------------------------------------------------------------------------------------------------


def test_sessions_in_threads_answer_as_alone(opened: Open, cell448: Bundle) -> None:
    engine = opened(cell448)

    def annotate(seed: int) -> list[np.ndarray]:
        with Session(cell448, engine=engine) as session:
            return clicked(session, seed)

    alone = [annotate(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(annotate, range(4)))
    np.testing.assert_array_equal(alone, together)


def test_sessions_interleaved_do_not_mix(opened: Open, cell448: Bundle) -> None:
    engine = opened(cell448)
    with Session(cell448, engine=engine) as first, Session(cell448, engine=engine) as second:
        alone = [clicked(first, 1), clicked(second, 2)]
        first.set_image(picture(1))
        second.set_image(picture(2))
        together = [[one.click(*c).network_probability for one in (first, second)] for c in CLICKS]
    np.testing.assert_array_equal(alone, list(zip(*together, strict=True)))


def test_memory_over_many_sessions(opened: Open, paint: Bundle) -> None:
    engine = opened(paint)

    def use(count: int) -> int:
        for _ in range(count):
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
        gc.collect()
        return free_bytes()

    use(5)
    before = use(1)
    assert before - use(300) < 16 << 20


def test_memory_over_many_clicks(opened: Open, paint: Bundle) -> None:
    engine = opened(paint)
    with Session(paint, engine=engine, history_limit=5) as session:
        session.set_image(GREY)
        for x in range(50):
            session.click(x, 10)
        before, held = free_bytes(), engine.memory().held
        for x in range(2000):
            session.click(x % 70, 10)
        assert engine.memory().held == held
        assert before - free_bytes() < 16 << 20


def test_everything_is_freed(opened: Open, cell448: Bundle, paint: Bundle) -> None:
    def once() -> int:
        engine = opened(cell448)
        with Session(cell448, engine=engine) as session:
            clicked(session)
        engine.close()
        del session, engine
        gc.collect()
        return free_bytes()

    once()  # the libraries keep what they load once
    before = once()
    assert before - once() < 32 << 20


def test_the_account_is_what_the_gpu_says(opened: Open, cell448: Bundle) -> None:
    engine = opened(cell448)
    with Session(cell448, engine=engine):
        before, held = free_bytes(), engine.memory().held
        with Session(cell448, engine=engine):
            taken = engine.memory().held - held
            # Contexts and CUDA graphs take some memory, which no library reports.
            assert taken <= before - free_bytes() + (4 << 20)


def test_the_budget(opened: Open, paint: Bundle) -> None:
    engine = opened(paint, options=CudaOptions(resident_images=1))
    with Session(paint, engine=engine), pytest.raises(ResidentBudgetError):
        Session(paint, engine=engine)


# --- the evidence -----------------------------------------------------------------------------------------------------


def test_nothing_falls_back(opened: Open, cell448: Bundle, backend: Backend) -> None:
    onnx = pytest.importorskip("onnx")
    info = opened(cell448).info
    assert (info.name, info.device, info.precision) == (backend.name, "cuda", Precision.FP32)
    if backend.name == "onnxruntime-cuda":
        assert info.providers == ("CUDAExecutionProvider",)
        # GroupNormalization is expanded into operations of which the arithmetic of shapes stays on the CPU.
        found = re.search(r", (\d+) of (\d+) nodes on CUDAExecutionProvider(.*)", info.evidence)
        assert found
        on_cpu = int(found[2]) - int(found[1])
        files = [cell448.file(stage.graphs[Precision.FP32].file) for stage in cell448.manifest.stages]
        groups = sum(node.op_type == "GroupNormalization" for file in files for node in onnx.load(file).graph.node)
        assert on_cpu <= 2 * groups
        assert found[3] == (f" (the other {on_cpu} compute shapes; nothing is copied)" if on_cpu else "")
        assert "without TF32" in info.evidence
    else:
        assert "matrix operations in fp32" in info.evidence


def test_device_cuda_takes_it(paint: Bundle, backend: Backend) -> None:
    engine = open_engine(paint, device="cuda", engine=backend.name, strict=True)
    assert engine.info.device == "cuda"
    engine.close()
    with Session(paint, device="auto") as session:
        assert session.engine.device == "cuda"
        assert session.engine.reason


def test_closing_under_a_session(opened: Open, paint: Bundle) -> None:
    engine = opened(paint)
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            session.click(1, 1)
