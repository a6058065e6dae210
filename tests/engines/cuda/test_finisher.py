"""Masks at the image's size, made on the GPU. On the CUDA stand-in, which runs a model of the kernel."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import CudaError, MMMSDeployWarning, ResidentBudgetError
from mmms_deploy.session import ClickResult, Session
from tests.standins.cuda import CudaStandIn, Error, Kind
from tests.support.batched import write_batched
from tests.support.near import assert_same_mask
from tests.support.standin_engine import StandInEngine, failure_of
from tests.support.toy import write_toy

SMALL, ODD, LARGE = (50, 70), (131, 97), (269, 481)
"""Sizes of images; the large one is a quarter of 1080 x 1920 along each axis, odd."""


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def walked(session: Session, size: tuple[int, int]) -> list[ClickResult]:
    """Clicks, undo, redo, a mask put in, reset, another object and back."""
    height, width = size
    session.set_image(picture(size))
    results = [session.click(x * width, y * height, x < 0.8) for x, y in ((0.2, 0.3), (0.6, 0.7), (0.9, 0.1))]
    results += [session.undo(), session.undo(), session.redo(), session.redo()]
    given = np.zeros(size, dtype=bool)
    given[: height // 2] = True
    results.append(session.set_mask(given))
    results.append(session.click(width // 2, height // 2))
    results.append(session.undo())
    session.reset()
    results.append(session.result)
    results.append(session.click(1, 1))
    session.select("other")
    results.append(session.click(width - 2, height - 2))
    return results


@pytest.mark.parametrize("size", [SMALL, ODD, LARGE], ids=str)
def test_masks_are_those_of_a_session_on_the_cpu(engine: StandInEngine, paint: Bundle, size: tuple[int, int]) -> None:
    with Session(paint, engine=engine) as session, Session(paint, engine="onnxruntime", threads=1) as other:
        ours, theirs = walked(session, size), walked(other, size)
        for our, their in zip(ours, theirs, strict=True):
            assert_same_mask(our, their)
            assert their.mask_device == "cpu"
            np.testing.assert_array_equal(our.probability, their.probability)
        given, given_again, empty = 7, 9, 10
        assert [place for place, our in enumerate(ours) if our.mask_device == "cpu"] == [given, given_again, empty]
        assert all(our.mask.any() for our in ours[:3])


@pytest.mark.parametrize("aligned", [False, True])
def test_float16_answers_and_both_rules(tmp_path: Path, aligned: bool) -> None:
    rule = ResizeRule(align_corners=aligned)
    bundle = write_toy(tmp_path / "half", precisions=(Precision.FP16,), mask_resize=rule)
    engine = StandInEngine(bundle, Precision.FP16)
    with Session(bundle, engine=engine) as session:
        session.set_image(picture(ODD))
        for x, y in ((20, 30), (60, 90), (90, 125)):
            result = session.click(x, y)
            assert result.mask_device == "cuda"
            assert_same_mask(result)
    engine.close()


def test_another_size_is_recorded_once_and_a_click_stays_one_launch(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        for size, recorded in ((SMALL, 1), (SMALL, 0), (LARGE, 1), (ODD, 1), (ODD, 0), (SMALL, 1)):
            capturing.standin.reset()
            session.set_image(picture(size))
            count = capturing.standin.count()
            assert count["cudaStreamBeginCapture"] == count["cudaGraphInstantiate"] == recorded
            assert count["cudaGraphExecDestroy"] == recorded
            for x in (5, 25):
                capturing.standin.reset()
                result = session.click(x, 10)
                count = capturing.standin.count()
                assert (count["cudaGraphLaunch"], count["cudaStreamSynchronize"], count["cuLaunchKernel"]) == (1, 1, 0)
                assert result.mask_device == "cuda"
                assert_same_mask(result)


def test_the_larger_memory_is_kept_for_smaller_images(engine: StandInEngine, paint: Bundle) -> None:
    with Session(paint, engine=engine) as session:
        for _ in range(2):  # the second one takes memory for the features of the first, which an undo may need
            session.set_image(picture(LARGE))
            session.click(10, 10)
        largest = engine.memory().masks
        words = -(-LARGE[1] // 32)
        assert largest >= 4 * words * LARGE[0]
        assert "masks" in str(engine.memory())
        engine.standin.reset()
        session.set_image(picture(SMALL))
        assert_same_mask(session.click(10, 10))
        session.set_image(picture(LARGE))
        assert_same_mask(session.click(10, 10))
        assert engine.memory().masks == largest
        assert not {name for name in engine.standin.count() if "Alloc" in name or "Malloc" in name or "Free" in name}


def test_bits_come_down_and_not_bytes(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(picture(LARGE))
        session.click(10, 10)
        capturing.standin.reset()
        result = session.click(200, 100)
        bits = 4 * -(-LARGE[1] // 32) * LARGE[0]
        assert capturing.standin.copied[Kind.cudaMemcpyDeviceToHost] == bits + result.answer.numbers.nbytes
        assert session._runner.take_moved().down >= bits  # type: ignore[attr-defined]


def test_sessions_of_different_sizes_do_not_mix(engine: StandInEngine, paint: Bundle) -> None:
    sizes = (SMALL, ODD, LARGE)
    sessions = [Session(paint, engine=engine) for _ in sizes]
    for session, size in zip(sessions, sizes, strict=True):
        session.set_image(picture(size))
    for x in (3, 30, 60):
        for session in sessions:
            assert_same_mask(session.click(x, 10))
        for session in sessions[::2]:
            assert_same_mask(session.undo())
    for session in sessions:
        session.close()


def test_sessions_in_threads(engine: StandInEngine, paint: Bundle) -> None:
    def annotate(number: int) -> list[ClickResult]:
        with Session(paint, engine=engine) as session:
            session.set_image(picture((60 + 11 * number, 50 + 7 * number), number))
            return [session.click(10 * step, 10) for step in range(4)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(annotate, range(6)):
            for result in results:
                assert_same_mask(result)


@pytest.mark.parametrize("shared", [False, True], ids=["own-stream", "shared-stream"])
def test_clicks_on_several_objects_in_one_run(paint: Bundle, tmp_path: Path, shared: bool) -> None:
    """Their masks are made one after the other, outside of the CUDA graph."""
    bundle = write_batched(paint, tmp_path / "batched", (2,))
    engine = StandInEngine(bundle, shared=shared)
    with Session(bundle, engine=engine, batch=True) as session:
        session.set_image(picture(ODD))
        launched = engine.standin.driver_calls.launched
        launched.clear()
        results = session.click_objects({"a": (10, 10), "b": (80, 120)})
        assert (session.runs["click"], session.runs["click_batch_2"]) == (0, 1)
        assert launched == ["answer_float32"] * 2
        for result in (*results.values(), session.select("a"), session.select("b"), session.undo()):
            assert result.mask_device == ("cuda" if result.index else "cpu")
            assert_same_mask(result)
    engine.close()
    assert not engine.standin.leaked


def test_without_a_cuda_graph(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(cuda_graph=False))
    with Session(paint, engine=engine) as session:
        session.set_image(picture(ODD))
        result = session.click(20, 20)
        assert engine.standin.driver_calls.launched.count("answer_float32") == 1
        assert_same_mask(result)
    engine.close()


def test_mirrored_sessions_make_their_masks_on_the_cpu(engine: StandInEngine, paint: Bundle) -> None:
    """They put answers together first. Nothing is made on the GPU for nothing, nor left over from a session before."""
    with Session(paint, engine=engine) as session:
        session.set_image(picture(ODD))
        session.click(10, 10)
    with Session(paint, engine=engine, flip=True) as session:
        engine.standin.driver_calls.launched.clear()
        session.set_image(picture(ODD))
        assert session.click(10, 10).mask_device == "cpu"
    assert "answer_float32" not in engine.standin.driver_calls.launched


# --- what fails -------------------------------------------------------------------------------------------------------


def test_without_its_kernel_the_cpu_makes_the_masks(paint: Bundle) -> None:
    for call in ("cuModuleLoadData", "cuModuleGetFunction"):
        standin = CudaStandIn()
        standin.fail_always[call] = Error.cudaErrorUnknown
        engine = StandInEngine(paint, standin=standin)
        with pytest.warns(MMMSDeployWarning, match=f"on the CPU, and not on the GPU: {call} failed"):
            session = Session(paint, engine=engine)
        with session, Session(paint, engine=engine):  # it says so once
            session.set_image(picture(ODD))
            result = session.click(10, 10)
            assert result.mask_device == "cpu"
            assert_same_mask(result)
            assert engine.memory().masks == 0
        engine.close()
        strict = StandInEngine(paint, standin=standin, options=CudaOptions(strict=True))
        with pytest.raises(CudaError, match=call):
            Session(paint, engine=strict)
        standin.fail_always.clear()
        with Session(paint, engine=strict) as session:
            session.set_image(picture(ODD))
            assert session.click(10, 10).mask_device == "cuda"
        strict.close()
        assert not standin.leaked


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_without_memory_for_it_the_cpu_makes_the_masks(paint: Bundle, call: str) -> None:
    engine = StandInEngine(paint)
    with Session(paint, engine=engine) as session:
        for _ in range(2):
            session.set_image(picture(SMALL))
            session.click(10, 10)
        engine.standin.fail_always[call] = Error.cudaErrorMemoryAllocation
        with pytest.warns(MMMSDeployWarning, match="masks of 481 x 269 pixels are made on the CPU"):
            session.set_image(picture(LARGE))
        engine.standin.reset()
        for result in (session.click(10, 10), session.click(200, 10), session.undo()):  # it says so once
            assert result.mask_device == "cpu"
            assert_same_mask(result)
        assert engine.standin.count()["cudaGraphLaunch"] == 2, "the CUDA graph was recorded without the mask"
        engine.standin.fail_always.clear()
        session.set_image(picture(LARGE))
        assert session.click(10, 10).mask_device == "cuda", "there is memory again"
        session.set_image(picture(SMALL))
        assert session.click(10, 10).mask_device == "cuda"
        assert_same_mask(session.result)
    engine.close()
    assert not engine.standin.leaked


def test_a_strict_engine_refuses_an_image_without_memory_for_its_mask(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(strict=True))
    with Session(paint, engine=engine) as session:
        for _ in range(2):
            session.set_image(picture(SMALL))
            before = session.click(10, 10)
        engine.standin.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.raises(ResidentBudgetError, match=r"needed on the GPU \(masks\)"):
            session.set_image(picture(LARGE))
        engine.standin.fail_always.clear()
        assert session.image_size == SMALL
        np.testing.assert_array_equal(session.result.mask, before.mask)
        assert_same_mask(session.click(60, 40))
    engine.close()


@pytest.mark.parametrize("shared", [False, True], ids=["own-stream", "shared-stream"])
def test_any_call_may_fail(paint: Bundle, shared: bool) -> None:
    """The error is named, the image and the clicks stay, and every mask afterwards is right."""

    def prepared(session: Session) -> ClickResult:
        session.set_image(picture(ODD))
        session.click(10, 10)
        return session.click(60, 10, False)

    engine = StandInEngine(paint, shared=shared, options=CudaOptions(strict=True))
    steps: dict[str, Callable[[Session], object]] = {
        "another size": lambda session: session.set_image(picture(LARGE)),
        "click": lambda session: session.click(40, 20),
        "undo": lambda session: session.undo(),
    }
    for name, step in steps.items():
        with Session(paint, engine=engine) as session:
            prepared(session)
            engine.standin.reset()
            step(session)
            calls = list(engine.standin.calls)
        for number, call in enumerate(calls):
            with Session(paint, engine=engine) as session:
                second = prepared(session)
                engine.standin.reset()
                engine.standin.fail_at[number] = Error.cudaErrorUnknown
                error = failure_of(lambda step=step, session=session: step(session))  # type: ignore[misc]
                if error is None:
                    # A CUDA graph need not be destroyed once it is instantiated, and a session that uses what another
                    # one left has enough memory.
                    assert call == "cudaGraphDestroy" or engine.standin.fail_at, (name, call)
                    engine.standin.fail_at.clear()
                    continue
                assert error.call in calls
                assert session.image_size == ODD
                assert session.result.index == 2
                np.testing.assert_array_equal(session.result.mask, second.mask)
                assert_same_mask(session.click(22, 22))
                assert_same_mask(session.undo())
                session.set_image(picture(LARGE))
                assert_same_mask(session.click(100, 100))
    engine.close()
    assert not engine.standin.leaked


def test_a_session_that_was_not_closed(paint: Bundle) -> None:
    engine = StandInEngine(paint)
    session = Session(paint, engine=engine)
    session.set_image(picture(ODD))
    session.click(1, 1)
    del session
    gc.collect()
    assert engine.memory().masks == 0
    engine.close()
    assert not engine.standin.leaked
