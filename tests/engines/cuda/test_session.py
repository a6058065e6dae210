"""What a session costs on the GPU, and its answers. On the CUDA stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines.cuda.memory import aligned
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import CudaError, MMMSDeployWarning
from mmms_deploy.session import LATER, Session
from tests.standins.cuda import CudaStandIn, Error, Kind
from tests.support.annotating import GREY, PLANE, SIZE, annotated, recorded_outputs
from tests.support.standin_engine import StandInEngine
from tests.support.toy import write_toy

BITS = 4 * 3 * SIZE[0]
"""Bytes of a mask of the image's size: three words of 32 pixels a row."""

# --- what a click costs -----------------------------------------------------------------------------------------------


def test_a_click_is_one_launch_and_one_wait(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        session.click(5, 5)
        for number in range(10):
            capturing.standin.reset()
            session.click(10 + number, 10)
            count = capturing.standin.count()
            assert count["cudaGraphLaunch"] == 1
            assert count["cudaStreamSynchronize"] == 1
            assert not {name for name in count if "Malloc" in name or "Alloc" in name or "Free" in name}
            # Beside the CUDA graph: state and answer of the click before are copied to spare buffers, and not the mask.
            assert count["cudaMemcpyAsync"] == 2
            # Two maps and a probability, there and in the CUDA graph, which makes them the next click's.
            assert capturing.standin.copied[Kind.cudaMemcpyDeviceToDevice] == 2 * 3 * PLANE
            assert set(count) <= {"cudaSetDevice", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"}


def test_a_click_moves_16_bytes_in_and_the_answer_out(engine: StandInEngine) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        session.click(5, 5)
        engine.standin.reset()
        session.click(10, 10)
        assert engine.standin.copied[Kind.cudaMemcpyHostToDevice] == 16
        assert engine.standin.copied[Kind.cudaMemcpyDeviceToHost] == PLANE + BITS


def test_without_a_cuda_graph_a_click_still_waits_and_allocates_once_and_never(
    engine: StandInEngine, paint: Bundle
) -> None:
    eager = StandInEngine(paint, options=CudaOptions(cuda_graph=False), standin=engine.standin)
    with Session(paint, engine=eager) as session:
        session.set_image(GREY)
        session.click(5, 5)
        engine.standin.reset()
        session.click(10, 10)
        count = engine.standin.count()
        assert count["cudaGraphLaunch"] == 0
        assert count["cudaStreamSynchronize"] == 1
        assert count["cudaMalloc"] == 0
    eager.close()


def test_the_history_takes_memory_a_block_at_a_time(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(history_block=4))
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        before = engine.memory().history
        allocations = []
        for number in range(20):
            engine.standin.reset()
            session.click(number, 10)
            allocations.append(engine.standin.count()["cudaMalloc"])
        assert sum(1 for number in allocations if number) <= 2 * 20 // 4
        # Two maps and a probability a click.
        assert engine.memory().history - before <= (20 + 4) * 3 * aligned(PLANE)
        used = engine.memory().history
        session.reset()
        for number in range(20):
            session.click(number, 30)
        assert engine.memory().history == used, "spare buffers are used again when their handles are gone"
    engine.close()


def test_without_a_history_a_thousand_clicks_allocate_nothing(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing, history_limit=0) as session:
        session.set_image(GREY)
        session.click(1, 1)
        session.click(1, 1)
        capturing.standin.reset()
        for number in range(1000):
            session.click(number % 70, number % 50)
        assert capturing.standin.count()["cudaMalloc"] == 0


def test_undo_and_redo_copy_and_run_no_stage(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        for x in (10, 20, 30):
            session.click(x, 10)
        for step in (session.undo, session.undo, session.redo):
            capturing.standin.reset()
            step()
            count = capturing.standin.count()
            # The answer is copied to the host; its mask is made again, which is one kernel and one copy.
            assert count["cuLaunchKernel"] == 1
            assert (count["cudaGraphLaunch"], count["cudaMemcpyAsync"], count["cudaStreamSynchronize"]) == (0, 2, 2)


def test_a_click_after_undo_brings_the_state_back_on_the_gpu(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        for x in (10, 20, 30):
            session.click(x, 10)
        session.undo()
        capturing.standin.reset()
        session.click(40, 10)
        assert capturing.standin.count()["cudaStreamSynchronize"] == 1
        assert capturing.standin.copied[Kind.cudaMemcpyHostToDevice] == 16
        # Maps (2) and probability (1): nothing saves the undone ones, the kept ones are copied back, and the CUDA graph
        # copies its state links; and the mask of the click before.
        assert capturing.standin.copied[Kind.cudaMemcpyDeviceToDevice] <= 9 * PLANE + PLANE // 4


def test_features_stay_where_the_image_stage_wrote_them(engine: StandInEngine) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        resources = session._runner._resources  # type: ignore[attr-defined]
        (buffer,) = (buffer for buffer in resources.stages["image"].outputs if buffer.spec.name == "f1")
        assert buffer in resources.stages["click"].inputs
        engine.standin.reset()
        session.click(10, 10)
        assert buffer.content is session._state.image.pipeline.value("f1")


def test_an_image_goes_to_the_gpu_once_and_waits_once(engine: StandInEngine) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        session.set_image(GREY // 2)  # the features before are saved, which takes memory once
        engine.standin.reset()
        session.set_image(255 - GREY)
        count = engine.standin.count()
        assert engine.standin.copied[Kind.cudaMemcpyHostToDevice] == GREY.nbytes
        assert engine.standin.copied[Kind.cudaMemcpyDeviceToDevice] < PLANE, "the image before is not needed any more"
        assert (count["cudaStreamSynchronize"], count["cuLaunchKernel"]) == (1, 2)
        assert not {name for name in count if "Malloc" in name or "Alloc" in name or "Free" in name}


# --- the same answers -------------------------------------------------------------------------------------------------


def test_a_cuda_graph_answers_as_its_operations_one_by_one(paint: Bundle) -> None:
    answers = {}
    for cuda_graph in (True, False):
        engine = StandInEngine(paint, options=CudaOptions(cuda_graph=cuda_graph))
        with Session(paint, engine=engine) as session:
            answers[cuda_graph] = annotated(session)
        assert bool(engine.standin.count()["cudaGraphLaunch"]) is cuda_graph
        engine.close()
    np.testing.assert_array_equal(answers[True], answers[False])


def test_answers_are_those_of_the_cpu(engine: StandInEngine, paint: Bundle) -> None:
    with Session(paint, engine=engine) as session, Session(paint, engine="onnxruntime", threads=1) as other:
        np.testing.assert_array_equal(annotated(session), annotated(other))


def test_a_real_click_stage_at_full_size(cell448: Bundle) -> None:
    """Its previous mask is thresholded inside. The host prepares the image, so that the network sees the same bits."""
    engine = StandInEngine(cell448, options=CudaOptions(prepare_images=False))
    with Session(cell448, engine=engine) as session, Session(cell448, engine="onnxruntime", threads=1) as other:
        for one in (session, other):
            one.set_image(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
        for x, y in ((30, 20), (50, 40), (10, 50)):
            a, b = session.click(x, y).network_probability, other.click(x, y).network_probability
            np.testing.assert_array_equal(a, b)
    engine.close()


def test_two_sessions_interleaved(engine: StandInEngine, paint: Bundle) -> None:
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


def test_sessions_in_threads(engine: StandInEngine, paint: Bundle) -> None:
    def annotate(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        with Session(paint, engine=engine) as session:
            session.set_image(np.full((*SIZE, 3), 10 * seed, dtype=np.uint8))
            return [session.click(x, y).network_probability for x, y in rng.uniform(0, 49, (10, 2))]

    alone = [annotate(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(annotate, range(6)))
    np.testing.assert_array_equal(alone, together)


def test_a_session_may_be_used_in_several_threads_in_turn(engine: StandInEngine, paint: Bundle) -> None:
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
    engine = StandInEngine(bundle)
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
    assert not engine.standin.leaked


def test_a_value_whose_last_copy_is_in_another_buffer_is_saved_when_that_is_overwritten(tmp_path: Path) -> None:
    """As with a bypassed stage: the input that reads the feature instead holds the last copy."""
    bundle = write_toy(tmp_path / "late", modalities=(ModalitySpec(name="depth", optional=True),))
    engine = StandInEngine(bundle)
    runner = engine.open()
    click = {spec.name: spec for spec in engine.graphs["click"].inputs}
    (rgb,) = engine.graphs["image"].inputs
    kept = []
    for brightness in (0.25, 0.5, 0.75):
        feature = runner.run("image", {"rgb": runner.upload(rgb, np.full(rgb.shape, brightness))})["f1"]
        given = {name: runner.zeros(click[name]) for name in ("maps", "prev", "click")}
        runner.run("click", {**given, "fused": feature})
        kept.append((feature, brightness))
    for feature, brightness in kept:
        np.testing.assert_allclose(runner.download(feature), brightness, atol=1e-6)
    del kept, feature
    runner.close()
    engine.close()
    assert not engine.standin.leaked


# --- the CUDA graph ---------------------------------------------------------------------------------------------------


def test_the_cuda_graph_is_captured_after_one_run_and_before_the_first_click(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        calls = capturing.standin.calls
        start = calls.index("cudaStreamBeginCapture")
        assert calls[start - 1] == "cudaStreamSynchronize", "the warm-up is over before the capture"
        order = ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"]
        assert [name for name in calls if name in order] == order
        session.set_image(GREY)
        capturing.standin.reset()
        session.click(1, 1)
        session.set_image(GREY // 2)
        session.click(1, 1)
        assert "cudaStreamBeginCapture" not in capturing.standin.count()


def test_addresses_never_change(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        stages = session._runner._resources.stages  # type: ignore[attr-defined]
        bound = dict(stages["click"]._executor.bound)
        annotated(session)
        assert stages["click"]._executor.bound == bound
        assert stages["image"]._executor.bound["f1"] == bound["f1"]


def test_new_addresses_are_bound_and_captured_again(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        session.click(10, 10)
        resources = session._runner._resources  # type: ignore[attr-defined]
        buffer = resources.buffers["mask"]
        spare = resources.spare_buffers.acquire(buffer.spec.nbytes)
        buffer.address = spare.address
        capturing.standin.reset()
        session.click(20, 20)
        assert capturing.standin.count()["cudaGraphLaunch"] == 0
        assert capturing.standin.count()["cudaStreamBeginCapture"] == 1
        capturing.standin.reset()
        outputs = recorded_outputs(session)
        result = session.click(30, 30)
        assert capturing.standin.count()["cudaGraphLaunch"] == 1
        mask = session._runner.download(outputs["mask"])[0, 0]
        np.testing.assert_array_equal(mask > 0, result.network_probability > 0.5)


def test_a_click_that_cannot_be_captured_works_with_a_warning(paint: Bundle) -> None:
    for call in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"):
        standin = CudaStandIn()
        engine = StandInEngine(paint, standin=standin)
        standin.fail_always[call] = Error.cudaErrorUnknown
        with pytest.warns(MMMSDeployWarning, match=f"not as one CUDA graph: {call} failed"):
            session = Session(paint, engine=engine)
        with session, Session(paint, engine="onnxruntime", threads=1) as other:
            np.testing.assert_array_equal(annotated(session), annotated(other))
        engine.close()
        assert not standin.leaked


def test_a_click_that_cannot_be_captured_is_refused_when_strict(paint: Bundle) -> None:
    standin = CudaStandIn()
    engine = StandInEngine(paint, standin=standin, options=CudaOptions(strict=True))
    standin.fail_always["cudaGraphInstantiate"] = Error.cudaErrorUnknown
    with pytest.raises(CudaError, match="cudaGraphInstantiate failed with cudaErrorUnknown"):
        Session(paint, engine=engine)
    standin.fail_always.clear()
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        session.click(1, 1)
    engine.close()
    assert not standin.leaked
