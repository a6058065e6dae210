"""Any call may fail: the error is named, nothing leaks, and the session goes on. On the CUDA stand-in."""

from __future__ import annotations

import ctypes

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, Role, StateLink, TensorSpec
from mmms_deploy.engines.cuda import runner as runner_module
from mmms_deploy.engines.cuda.memory import PinnedBuffer
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.values import BindingBuffer, Tensor
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu
from mmms_deploy.errors import BundleCorruptError, CudaError, EngineError, ResidentBudgetError, SessionError
from mmms_deploy.imaging.float16 import as_float32
from mmms_deploy.session import Session
from tests.standins.cuda import CudaStandIn, Error
from tests.support.annotating import GREY, click_on, recorded_outputs
from tests.support.standin_engine import StandInEngine, failure_of
from tests.support.toy import misdescribed

# --- failures ---------------------------------------------------------------------------------------------------------


def test_any_call_may_fail_while_a_session_is_opened(paint: Bundle) -> None:
    for shared in (False, True):
        probe = StandInEngine(paint, shared=shared)
        probe.standin.reset()
        Session(paint, engine=probe).close()
        calls = list(probe.standin.calls)
        probe.close()
        for number, call in enumerate(calls):
            standin = CudaStandIn()
            engine = StandInEngine(paint, standin=standin, shared=shared, options=CudaOptions(strict=True))
            standin.reset()
            standin.fail_at[number] = Error.cudaErrorUnknown
            error = failure_of(lambda engine=engine: Session(paint, engine=engine).close())
            if error is None:
                # Destroying an instantiated CUDA graph, and the wait before memory is freed, need not succeed.
                assert call in {"cudaGraphDestroy", "cudaStreamSynchronize"}, call
            else:
                unknown = "cudaErrorUnknown" if call.startswith("cuda") else "CUDA_ERROR_UNKNOWN"
                assert (error.call, error.name) == (call, unknown)
                assert "mmms-doctor" in str(error.fix)
            standin.fail_at.clear()
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(1, 1)
            engine.close()
            assert not standin.leaked, call


def test_any_call_may_fail_while_a_session_works(engine: StandInEngine, paint: Bundle) -> None:
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
        for _ in range(2):  # the second session uses what the first one left
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
                session.click(60, 10, False)
                engine.standin.reset()
                step(session)
                calls = list(engine.standin.calls)
        for number, call in enumerate(calls):
            with Session(paint, engine=engine) as session:
                session.set_image(GREY)
                session.click(10, 10)
                session.click(60, 10, False)
                engine.standin.reset()
                engine.standin.fail_at[number] = Error.cudaErrorUnknown
                with pytest.raises(CudaError) as caught:
                    step(session)
                assert caught.value.call == call
                if name == "undo":
                    assert len(session.clicks) == 2, "the answer could not be downloaded, so the step was not taken"
                elif name == "branch" and len(session.clicks) == 1:
                    session.redo()
                np.testing.assert_array_equal(session.result.network_probability, second)
                np.testing.assert_array_equal(clicked(session), third)
                session.undo()
                np.testing.assert_array_equal(session.undo().network_probability, first)


def test_out_of_memory_in_a_click_takes_no_click(capturing: StandInEngine, paint: Bundle) -> None:
    engine = StandInEngine(paint, standin=capturing.standin, options=CudaOptions(history_block=1))
    with Session(paint, engine=engine) as session:
        session.set_image(GREY)
        session.click(10, 10)
        capturing.standin.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.raises(ResidentBudgetError, match="the GPU's memory is used up") as caught:
            click_on(session, 5)
        assert "close a session" in str(caught.value.fix)
        taken = session.clicks
        assert session.result.index == len(taken) < 6
        capturing.standin.fail_always.clear()
        session.click(30, 30)
        assert session.clicks[:-1] == taken
    engine.close()


def test_a_lost_gpu_is_named(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        capturing.standin.fail_always["cudaGraphLaunch"] = Error.cudaErrorIllegalAddress
        with pytest.raises(CudaError, match="cudaErrorIllegalAddress") as caught:
            session.click(1, 1)
        assert "start the process again" in str(caught.value.fix)
        assert caught.value.code == 700


def test_a_library_that_refuses(engine: StandInEngine, paint: Bundle) -> None:
    engine.programs["image"].fail = "executor"
    with pytest.raises(EngineError, match="no execution context"):
        Session(paint, engine=engine)
    engine.programs["image"].fail = "enqueue"
    with pytest.raises(EngineError, match="the library refuses"):
        Session(paint, engine=engine)
    engine.programs["image"].fail = None
    with Session(paint, engine=engine) as session:
        engine.programs["image"].fail = "enqueue"
        with pytest.raises(EngineError, match="the library refuses"):
            session.set_image(GREY)
        engine.programs["image"].fail = None
        session.set_image(GREY)
        session.click(1, 1)


# --- bundles that do not fit ------------------------------------------------------------------------------------------


def test_tensors_that_cannot_share_a_buffer(paint: Bundle) -> None:
    with pytest.raises(BundleCorruptError, match="f1 is float32"):
        StandInEngine(misdescribed(paint, "inputs", shape=(1, 9)))
    with pytest.raises(BundleCorruptError, match=r"the state of .*: maps is float32"):
        StandInEngine(misdescribed(paint, "outputs", shape=(1, 3, 64, 96)))


def test_the_session_refuses_a_state_that_no_stage_has(paint: Bundle) -> None:
    bundle = Bundle(paint.path)
    bundle.manifest = msgspec.structs.replace(
        bundle.manifest, state=(*bundle.manifest.state[:1], StateLink(input="prev", output="nothing"))
    )
    engine = StandInEngine(bundle)
    with pytest.raises((BundleCorruptError, SessionError), match="nothing"):
        Session(bundle, engine=engine)
    engine.close()
    assert not engine.standin.leaked


def test_bfloat16_is_widened(capturing: StandInEngine) -> None:
    runner = capturing.open()
    numbers = np.array([1.0, -2.5, 1e38, 0.0], dtype=np.float32)
    spare = runner._resources.spare_buffers.acquire(8)  # type: ignore[union-attr]
    tensor = Tensor(TensorSpec(name="f", role=Role.FEATURE, dtype="bfloat16", shape=(1, 4)))
    tensor.spare = spare
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    ctypes.memmove(spare.address, bits.ctypes.data, 8)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(runner.download(tensor), expected[None])
    zeros = runner.zeros(tensor.spec)
    assert runner.download(zeros).dtype == np.float32
    del tensor
    runner.close()


def test_float16_is_widened_straight_from_pinned_memory(
    capturing: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = capturing.open()
    resources = runner._resources
    assert resources is not None
    numbers = np.array([[1.0, -2.5, 6e-8, np.inf], [0.1, 65504.0, 0.0, -0.0]], dtype=np.float16)
    spec = TensorSpec(name="half", role=Role.PROBABILITY, dtype="float16", shape=(2, 4))
    spare = resources.spare_buffers.acquire(16)
    ctypes.memmove(spare.address, numbers.ctypes.data, 16)
    host = resources.cuda.allocate_host(16)
    buffer = BindingBuffer(spec, spare.address, PinnedBuffer(host, 16))
    resources.buffers["half"] = buffer
    tensor = Tensor(spec)
    buffer.hold(tensor)
    seen: list[int] = []
    monkeypatch.setattr(runner_module, "as_float32", lambda array: seen.append(array.ctypes.data) or as_float32(array))
    wide, narrow = runner.download_float32(tensor), runner.download(tensor)
    assert seen == [host], "no copy in between"
    ctypes.memset(host, 0, 16)
    assert (wide.dtype, narrow.dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(wide, numbers.astype(np.float32))
    np.testing.assert_array_equal(narrow, numbers)
    zeros = runner.download_float32(runner.zeros(spec))
    assert (zeros.dtype, zeros.shape, zeros.any()) == (np.float32, (2, 4), False)
    del resources.buffers["half"], buffer
    resources.cuda.free_host(host)
    del tensor
    runner.close()


def test_an_answer_in_float32_is_the_callers_own(capturing: StandInEngine) -> None:
    with Session(capturing.bundle, engine=capturing) as session:
        session.set_image(GREY)
        outputs = recorded_outputs(session)
        session.click(10, 10)
        first = session._runner.download_float32(outputs["prob"])
        kept = first.copy()
        session.click(40, 30)
        np.testing.assert_array_equal(first, kept)
        assert not np.array_equal(session._runner.download_float32(outputs["prob"]), kept)


def test_values_of_another_engine(capturing: StandInEngine, paint: Bundle) -> None:
    other = OnnxRuntimeCpu(paint, Precision.FP32, 1).open()
    runner = capturing.open()
    inputs = {spec.name: other.zeros(spec) for spec in capturing.graphs["image"].inputs}
    with pytest.raises(EngineError, match="Stand-in failed in stage 'image': rgb is OrtValue"):
        runner.run("image", inputs)
    wrong = {"rgb": runner.zeros(capturing.graphs["click"].inputs[0])}
    with pytest.raises(EngineError, match=r"rgb is float32 \(1, 1, 1, 1\)"):
        runner.run("image", wrong)
    for download in (runner.download, runner.download_float32):
        with pytest.raises(EngineError, match="cannot be downloaded"):
            download(inputs["rgb"])
    with pytest.raises(EngineError, match="stage 'nothing' cannot run"):
        runner.run("nothing", {})
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="runner is closed"):
        runner.synchronize()
