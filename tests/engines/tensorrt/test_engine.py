"""TensorRT's engines and contexts as executors, on a runtime that has its API, ONNX Runtime's CPU and the fake CUDA.

Whether the names are those of the real libraries is tested in ``test_surface.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mmms_deploy.bundle import Bundle, Precision
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
from tests.engines.cuda.test_session import annotated
from tests.standins.fake_cuda import Error, FakeCuda
from tests.standins.fake_tensorrt import ILogger, Severity

SCRATCH = 1000


class DataType(Enum):
    FLOAT = 0
    UINT8 = 1
    INT64 = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


class TensorIOMode(Enum):
    INPUT = 0
    OUTPUT = 1


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 1


_TYPES = {"tensor(float)": DataType.FLOAT, "tensor(uint8)": DataType.UINT8}


class FakeRuntimeTensorRt(SimpleNamespace):
    """The part of TensorRT that runs plans; a plan is the path of an ONNX graph."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__(
            __name__="tensorrt",
            __version__="11.4.0.106",
            ILogger=ILogger,
            TensorLocation=TensorLocation,
            TensorIOMode=TensorIOMode,
            ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        )
        self.cuda = cuda
        self.refuse: set[str] = set()
        self.contexts = 0
        self.host: str | None = None
        self.said: Callable[[str], None] = lambda text: None

    def Runtime(self, logger: Any) -> Any:
        self.said = lambda text: logger.log(Severity.ERROR, text)
        return None if "runtime" in self.refuse else SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan: bytes) -> Any:
        if "plan" in self.refuse:
            self.said("The plan was made for SM 8.0 (In load at engine.cpp:7)")
            return None
        return Engine(self, json.loads(plan))


class Engine:
    device_memory_size_v2 = SCRATCH

    def __init__(self, trt: FakeRuntimeTensorRt, file: str) -> None:
        self.trt = trt
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.tensors = {**self.inputs, **{node.name: node for node in self.session.get_outputs()}}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.INT64 if "dtype" in self.trt.refuse else _TYPES[self.tensors[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self.tensors[name].shape)
        return (-1, *shape[1:]) if "shape" in self.trt.refuse else shape

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if "location" in self.trt.refuse else TensorLocation.DEVICE

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Any:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if "context" in self.trt.refuse:
            self.trt.said("out of memory")
            return None
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.trt = engine, engine.trt
        self.binding = engine.session.io_binding()
        self.bound: set[str] = set()
        self.lent = 0
        self.trt.contexts += 1

    def __del__(self) -> None:
        self.trt.contexts -= 1

    def set_device_memory(self, address: int, size: int) -> None:
        assert size == SCRATCH
        assert self.trt.cuda.on_device(address, size)
        self.lent = address

    def set_tensor_address(self, name: str, address: int) -> bool:
        if "address" in self.trt.refuse:
            self.trt.said(f"no such tensor: {name}")
            return False
        node = self.engine.tensors[name]
        bind = self.binding.bind_input if name in self.engine.inputs else self.binding.bind_output
        bind(name, "cpu", 0, "float32" if node.type == "tensor(float)" else "uint8", node.shape, address)
        self.bound.add(name)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert isinstance(stream, int)
        if "run" in self.trt.refuse or not self.lent or self.bound != set(self.engine.tensors):
            return False
        self.trt.cuda.submit(stream, lambda: self.engine.session.run_with_iobinding(self.binding))
        return True


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, paint: Bundle) -> Iterator[FakeRuntimeTensorRt]:
    fake = FakeCuda()
    trt = FakeRuntimeTensorRt(fake)

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
                json.dumps(str(bundle.file(stage.graphs[precision].file))).encode(),
                report,
                1.0,
                "",
                bundle.path / "a.plan",
            )
            for stage in bundle.manifest.stages
        }

    monkeypatch.setattr(tensorrt_engine, "plans", plans)
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(tensorrt_engine, "import_cuda", lambda: fake)
    monkeypatch.setattr(tensorrt_engine, "require_gpu", lambda ordinal: "Fake GPU")
    yield trt
    assert not fake.leaked
    assert not trt.contexts


def test_sessions_answer_as_on_the_cpu(trt: FakeRuntimeTensorRt, paint: Bundle) -> None:
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


def test_what_proves_it(trt: FakeRuntimeTensorRt, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32, reason="tested")
    info = engine.info
    engine.close()
    assert info.evidence == "4 of 4 matrix operations in fp32, 2 of 2 attentions fused"
    assert (info.library, info.version, info.device, info.threads) == ("TensorRT", "11.4.0.106", "cuda", None)
    assert info.providers == ("Fake GPU",)
    assert info.reason == "tested"
    assert str(info) == "TensorRT 11.4.0.106 on cuda, fp32"


def test_a_gpu_is_looked_for_before_anything_of_tensorrt(
    trt: FakeRuntimeTensorRt, paint: Bundle, monkeypatch: pytest.MonkeyPatch
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
    trt: FakeRuntimeTensorRt, paint: Bundle, refused: str, error: type[EngineError], message: str
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
def test_what_a_session_may_be_refused(trt: FakeRuntimeTensorRt, paint: Bundle, refused: str, message: str) -> None:
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


def test_a_run_that_is_refused_takes_no_click(trt: FakeRuntimeTensorRt, paint: Bundle) -> None:
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


def test_a_build_that_fails_is_no_engine(
    trt: FakeRuntimeTensorRt, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that another engine can be taken instead, with a warning."""

    def plans(*args: object, **asked: object) -> None:
        raise PlanBuildError("cannot be compiled", fix="see the log")

    monkeypatch.setattr(tensorrt_engine, "plans", plans)
    with pytest.raises(EngineUnavailableError, match="cannot be compiled") as caught:
        TensorRtCuda(paint, Precision.FP32)
    assert caught.value.fix == "see the log"


def test_a_plan_of_something_else(
    trt: FakeRuntimeTensorRt, paint: Bundle, echo: Bundle, modal: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = tensorrt_engine.plans
    other = plans(modal, Precision.FP32)["click"]
    monkeypatch.setattr(tensorrt_engine, "plans", lambda *args, **asked: {**plans(*args, **asked), "click": other})
    with pytest.raises(BundleCorruptError, match=r"stage 'click' of .* has the inputs"):
        TensorRtCuda(paint, Precision.FP32)


def test_a_capture_that_fails_is_said_aloud(trt: FakeRuntimeTensorRt, paint: Bundle) -> None:
    engine = TensorRtCuda(paint, Precision.FP32)
    trt.cuda.fail_always["cudaStreamEndCapture"] = Error.cudaErrorStreamCaptureInvalidated
    with pytest.warns(MMMSDeployWarning, match="cudaErrorStreamCaptureInvalidated"):
        session = Session(paint, engine=engine)
    with session:
        annotated(session)
    engine.close()
