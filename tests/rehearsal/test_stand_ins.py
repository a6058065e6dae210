"""The stand-ins take what the real libraries take: their names, arguments and refusals."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.errors import PlanBuildError
from tests.standins.cuda import DEFAULT_STREAM, CudaStandIn, Error, Kind, Mode
from tests.standins.tensorrt import SURFACES, TensorRtStandIn, classes
from tests.support.attention import write_attention

CALLS = sorted(name for name, item in vars(CudaStandIn).items() if name.startswith("cuda") and inspect.isfunction(item))
VERSIONS = {"10.16.1.11": "tensorrt-10.16.json", "11.4.0.106": "tensorrt-11.4.json"}


@pytest.fixture(scope="module")
def bindings() -> Any:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pytest.skip("cuda-python is not installed")
    from cuda.bindings import runtime

    return runtime


@pytest.mark.parametrize("name", CALLS)
def test_calls_have_the_arguments_of_cuda_python(bindings: Any, name: str) -> None:
    ours = list(inspect.signature(getattr(CudaStandIn, name)).parameters)[1:]
    assert ours == list(inspect.signature(getattr(bindings, name)).parameters)


@pytest.mark.parametrize("ours", [Error, Kind, Mode], ids=lambda ours: ours.__name__)
def test_numbers_are_those_of_cuda_python(bindings: Any, ours: Any) -> None:
    theirs = {Error: bindings.cudaError_t, Kind: bindings.cudaMemcpyKind, Mode: bindings.cudaStreamCaptureMode}[ours]
    assert {member.name: int(member) for member in ours} == {
        member.name: int(getattr(theirs, member.name)) for member in ours
    }


def test_what_cuda_python_refuses() -> None:
    gpu = CudaStandIn(default_stream=True)
    _, stream = gpu.cudaStreamCreateWithFlags(1)
    _, address = gpu.cudaMalloc(256)
    for wrong in (
        lambda: gpu.cudaMalloc(256.0),
        lambda: gpu.cudaStreamSynchronize("1"),
        lambda: gpu.cudaMemcpyAsync(address, address, 256, 3, stream),
        lambda: gpu.cudaStreamBeginCapture(stream, 1),
        lambda: gpu.cudaGetErrorName(2),
        lambda: gpu.cudaGraphLaunch(stream, stream),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert gpu.cudaMemsetAsync(address, 0, 256, DEFAULT_STREAM) == (Error.cudaSuccess,)


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_only_what_the_release_has(version: str) -> None:
    names = json.loads((SURFACES / VERSIONS[version]).read_text())["names"]
    for name, kind in classes(TensorRtStandIn(version)).items():
        given = {member for member in vars(kind) if not member.startswith("_")}
        assert given <= set(names[name]) | {"device_memory_size_v2"}, name


def test_tensorrts_enumerations_are_no_integers() -> None:
    trt: Any = TensorRtStandIn("10.16.1.11")
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert int(flag) == 1
    assert flag != 1
    with pytest.raises(TypeError):
        1 << flag
    with pytest.raises(AttributeError):
        _ = trt.BuilderFlag.REQUIRE_USER_ALLOCATION


def test_plans_are_those_of_one_release(tmp_path: Path) -> None:
    bundle = write_attention(tmp_path / "attention")
    (graph,) = bundle.manifest.stages[0].graphs.values()
    said: list[str] = []

    def built(version: str) -> tuple[Any, Any]:
        trt: Any = TensorRtStandIn(version)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: Any, message: str) -> None:
                said.append(message)

        return trt, Logger()

    trt, logger = built("11.4.0.106")
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(bundle.file(graph.file)))
    config = trt.Builder(logger).create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    plan = bytes(trt.Builder(logger).build_serialized_network(network, config))
    assert trt.Runtime(logger).deserialize_cuda_engine(plan).num_io_tensors == 2
    assert trt.Runtime(logger).deserialize_cuda_engine(plan[:-100]) is None
    other, logger = built("10.16.1.11")
    assert other.Runtime(logger).deserialize_cuda_engine(plan) is None
    assert said
    with pytest.raises(TypeError):
        other.Runtime(None)


@pytest.mark.parametrize("name", ["Builder", "OnnxParser", "Runtime"])
def test_a_constructor_that_gives_nothing_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The real ones raise TypeError where everything else returns None."""
    trt: Any = TensorRtStandIn("11.4.0.106")
    trt.__name__ = f"tensorrt without {name}"
    bundle = write_attention(tmp_path / "attention")
    (graph,) = bundle.manifest.stages[0].graphs.values()

    def nothing(*arguments: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, name, nothing)
    with pytest.raises(PlanBuildError, match=r"TensorRT 11\.4\.0\.106 cannot compile stage 'click'"):
        build_plan(
            trt,
            bundle.file(graph.file),
            stage="click",
            precision=Precision.FP16,
            every_click=True,
            options=BuildOptions(),
            activate=lambda: None,
        )
