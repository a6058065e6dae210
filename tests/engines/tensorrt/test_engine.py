"""TensorRT's engines and contexts as executors, on the stand-ins of TensorRT and CUDA.

Whether the names are those of the real libraries is tested in ``test_surface.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda import runtime as cuda_runtime
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.tensorrt import engine as tensorrt_engine
from mmms_deploy.engines.tensorrt.engine import TensorRtCuda
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.engines.tensorrt.plans import StagePlan
from mmms_deploy.errors import (
    BundleCorruptError,
    EngineError,
    EngineUnavailableError,
    MMMSDeployWarning,
    PlanBuildError,
)
from mmms_deploy.session import Session
from tests.standins.cuda import CudaStandIn, Error
from tests.standins.tensorrt import TensorRtStandIn
from tests.support.annotating import annotated


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, paint: Bundle) -> Iterator[TensorRtStandIn]:
    standin = CudaStandIn()
    trt = TensorRtStandIn(cuda=standin, scratch=1000)

    def plans(bundle: Bundle, precision: Precision, **asked: Any) -> dict[str, StagePlan]:
        report = PlanReport(
            kernels=3,
            types={},
            matrices={"fp32": 2},
            wide=(),
            attentions=1,
            fused=1,
            weight_bytes=77,
            listed="inspector",
        )
        return {
            stage.name: StagePlan(
                stage.name,
                trt.plan(bundle.file(stage.graphs[precision].file)),
                report,
                1.0,
                "",
                bundle.path / "a.plan",
            )
            for stage in bundle.manifest.stages
        }

    monkeypatch.setattr(tensorrt_engine, "plans", plans)
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(tensorrt_engine, "import_cuda", lambda: standin)
    monkeypatch.setattr(cuda_runtime, "import_driver", lambda: standin.driver_calls)
    monkeypatch.setattr(tensorrt_engine, "require_gpu", lambda ordinal, **_: "Stand-in GPU")
    yield trt
    assert not standin.leaked
    assert not trt.contexts


def test_sessions_answer_as_on_the_cpu(trt: TensorRtStandIn, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32, reason="tested")
    with Session(paint, engine="onnxruntime", threads=1) as other:
        expected = annotated(other)
    with Session(paint, engine=engine) as first, Session(paint, engine=engine) as second:
        for session in (first, second):
            np.testing.assert_array_equal(annotated(session), expected)
        assert trt.contexts == 4, "two stages a session"
        assert engine.memory().activations == 2 * 1024, "which share their scratch memory"
        assert engine.memory().weights == 2 * 77
    assert trt.cuda.count()["cudaGraphLaunch"] > 0
    engine.close()


def test_what_proves_it(trt: TensorRtStandIn, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32, reason="tested")
    info = engine.info
    engine.close()
    assert info.evidence == "4 of 4 matrix operations in fp32, 2 of 2 attentions fused"
    assert (info.library, info.version, info.device, info.threads) == ("TensorRT", "11.4.0.106", "cuda", None)
    assert info.providers == ("Stand-in GPU",)
    assert info.reason == "tested"
    assert str(info) == "TensorRT 11.4.0.106 on cuda, fp32"


def test_a_gpu_is_looked_for_before_anything_of_tensorrt(
    trt: TensorRtStandIn, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(ordinal: int) -> None:
        raise EngineUnavailableError("no GPU")

    def hollow() -> None:
        pytest.fail("a hollow object would end the process")

    monkeypatch.setattr(tensorrt_engine, "require_gpu", none)
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", hollow)
    with pytest.raises(EngineUnavailableError, match="no GPU"):
        TensorRtCuda(paint, Precision.FP32)


@pytest.mark.parametrize(
    ("refused", "error", "message"),
    [
        ("runtime", EngineError, "TensorRT 11.4.0.106 cannot be started"),
        ("plan", EngineUnavailableError, "the plan of stage 'image' cannot be loaded: The plan was made for SM 8.0$"),
        ("dtype", EngineError, "stage 'image' has rgb as INT64"),
        ("shape", EngineError, "stage 'image' has rgb as FLOAT"),
        ("location", EngineError, "stage 'image' has rgb as FLOAT"),
    ],
)
def test_what_an_engine_may_refuse(
    trt: TensorRtStandIn, paint: Bundle, refused: str, error: type[EngineError], message: str
) -> None:
    trt.refuse = {refused}
    with pytest.raises(error) as caught:
        TensorRtCuda(paint, Precision.FP32)
    assert message.rstrip("$") in caught.value.given
    if message.endswith("$"):
        assert "a.plan" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("context", "stage 'image' gets no execution context: out of memory"),
        ("address", "TensorRT failed in stage 'image': rgb cannot be bound: no such tensor: rgb"),
        ("run", "TensorRT failed in stage 'image': cannot run"),
    ],
)
def test_what_a_session_may_be_refused(trt: TensorRtStandIn, paint: Bundle, refused: str, message: str) -> None:
    engine = TensorRtCuda(paint, Precision.FP32)
    trt.refuse = {refused}
    with pytest.raises(EngineError) as caught:
        Session(paint, engine=engine)
    assert caught.value.given == message
    del caught
    trt.refuse = set()
    with Session(paint, engine=engine) as session:
        annotated(session)
    engine.close()


def test_a_run_that_is_refused_takes_no_click(trt: TensorRtStandIn, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32, options=CudaOptions(cuda_graph=False))
    with Session(paint, engine=engine) as session:
        session.set_image(np.zeros((50, 70, 3), dtype=np.uint8))
        first = session.click(1, 1)
        trt.refuse = {"run"}
        with pytest.raises(EngineError, match="cannot run"):
            session.click(2, 2)
        assert session.result is first
        trt.refuse = set()
        session.click(2, 2)
    engine.close()


def test_a_build_that_fails_is_no_engine(trt: TensorRtStandIn, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that another engine can be taken instead, with a warning."""

    def plans(*args: object, **asked: object) -> None:
        raise PlanBuildError("cannot be compiled", fix="see the log")

    monkeypatch.setattr(tensorrt_engine, "plans", plans)
    with pytest.raises(EngineUnavailableError, match="cannot be compiled") as caught:
        TensorRtCuda(paint, Precision.FP32)
    assert caught.value.fix == "see the log"


def test_a_plan_of_something_else(
    trt: TensorRtStandIn, paint: Bundle, echo: Bundle, modal: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = tensorrt_engine.plans
    other = plans(modal, Precision.FP32)["click"]
    monkeypatch.setattr(tensorrt_engine, "plans", lambda *args, **asked: {**plans(*args, **asked), "click": other})
    with pytest.raises(BundleCorruptError, match=r"stage 'click' of .* has the inputs"):
        TensorRtCuda(paint, Precision.FP32)


def test_a_capture_that_fails_is_said_aloud(trt: TensorRtStandIn, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32)
    trt.cuda.fail_always["cudaStreamEndCapture"] = Error.cudaErrorStreamCaptureInvalidated
    with pytest.warns(MMMSDeployWarning, match="cudaErrorStreamCaptureInvalidated"):
        session = Session(paint, engine=engine)
    with session:
        annotated(session)
    engine.close()
