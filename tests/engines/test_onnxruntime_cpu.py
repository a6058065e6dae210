from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, StageGraph, TensorSpec
from mmms_deploy.engines import onnxruntime_cpu
from mmms_deploy.engines.onnxruntime_cpu import OnnxRuntimeCpu
from mmms_deploy.engines.protocol import Engine, Runner, Value
from mmms_deploy.errors import BundleCorruptError, EngineError


@pytest.fixture
def engine(paint: Bundle) -> Iterator[OnnxRuntimeCpu]:
    engine = OnnxRuntimeCpu(paint, Precision.FP32, threads=1)
    yield engine
    engine.close()


@pytest.fixture
def runner(engine: OnnxRuntimeCpu) -> Runner:
    return engine.open()


def specs(engine: Engine, stage: str) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in engine.graphs[stage].inputs}


def click_inputs(engine: Engine, runner: Runner, x: float = 20.0) -> dict[str, Value]:
    given = specs(engine, "click")
    values = {name: runner.zeros(given[name]) for name in ("f1", "maps", "prev")}
    return {**values, "click": runner.upload(given["click"], np.array([[x, 10, 1, 1]]))}


def test_info_is_what_the_library_says(engine: OnnxRuntimeCpu) -> None:
    info = engine.info
    assert isinstance(engine, Engine)
    assert (info.name, info.device, info.precision, info.threads) == ("onnxruntime", "cpu", Precision.FP32, 1)
    assert info.providers == ("CPUExecutionProvider",)
    assert str(info) == f"ONNX Runtime {info.version} on cpu, fp32, 1 thread"


def test_sessions_do_not_spin(engine: OnnxRuntimeCpu) -> None:
    for session in engine._sessions.values():
        options = session.get_session_options()
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert options.intra_op_num_threads == 1


def test_upload_and_download(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    spec = specs(engine, "image")["rgb"]
    array = np.random.default_rng(0).random(spec.shape)
    value = runner.upload(spec, array)
    expected = array.astype(np.float32)
    array[:] = 0
    np.testing.assert_array_equal(runner.download(value), expected)
    first = runner.download(value)
    first[:] = 7
    np.testing.assert_array_equal(runner.download(value), expected)
    assert not runner.download(runner.zeros(spec)).any()
    with pytest.raises(ValueError, match=r"rgb: expected shape \(1, 3, 64, 96\)"):
        runner.upload(spec, array[0])


def test_strided_arrays_are_uploaded_as_they_look(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    spec = specs(engine, "image")["rgb"]
    array = np.random.default_rng(0).random((1, 64, 96, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(runner.download(runner.upload(spec, array)), array)


def test_values_never_change(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    """Undo keeps old handles, so later runs must not write into earlier outputs."""
    kept = []
    for x in range(0, 90, 9):
        outputs = runner.run("click", click_inputs(engine, runner, x))
        kept.append((outputs, {name: runner.download(value) for name, value in outputs.items()}))
    gc.collect()
    for outputs, copies in kept:
        for name, value in outputs.items():
            np.testing.assert_array_equal(runner.download(value), copies[name])


def test_outputs_have_the_manifests_types(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    outputs = runner.run("click", click_inputs(engine, runner))
    for spec in engine.graphs["click"].outputs:
        array = runner.download(outputs[spec.name])
        assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype))


def test_the_librarys_errors_are_named(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    inputs = click_inputs(engine, runner)
    wrong = runner.zeros(specs(engine, "image")["rgb"])
    with pytest.raises(EngineError, match="ONNX Runtime failed in stage 'click'"):
        runner.run("click", {**inputs, "prev": wrong})
    with pytest.raises(EngineError, match="stage 'nothing' cannot run"):
        runner.run("nothing", inputs)


def test_closing(engine: OnnxRuntimeCpu, runner: Runner) -> None:
    inputs = click_inputs(engine, runner)
    second = engine.open()
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="runner is closed"):
        runner.run("click", inputs)
    second.run("click", inputs)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="engine is closed"):
        second.run("click", inputs)
    with pytest.raises(EngineError, match="engine is closed"):
        engine.open()


def changed(bundle: Bundle, side: str, **changes: object) -> Bundle:
    """The bundle, with one tensor of its click stage described wrongly."""
    stages = list(bundle.manifest.stages)
    graph = stages[-1].graphs[Precision.FP32]
    tensors = list(getattr(graph, side))
    tensors[0] = msgspec.structs.replace(tensors[0], **changes)
    graph = msgspec.structs.replace(graph, **{side: tuple(tensors)})
    stages[-1] = msgspec.structs.replace(stages[-1], graphs={Precision.FP32: graph})
    copy = Bundle(bundle.path)
    copy.manifest = msgspec.structs.replace(bundle.manifest, stages=tuple(stages))
    return copy


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("change", [{"name": "other"}, {"shape": (1, 9)}, {"dtype": "float16"}, {"dtype": "bfloat16"}])
def test_graphs_must_be_what_the_manifest_says(paint: Bundle, side: str, change: dict[str, object]) -> None:
    with pytest.raises(BundleCorruptError, match=f"stage 'click' .* has the {side}"):
        OnnxRuntimeCpu(changed(paint, side, **change), Precision.FP32)


def test_a_graph_that_is_none(copy: Path) -> None:
    bundle = Bundle(copy)
    bundle.file("click.fp32.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleCorruptError, match=r"stage 'click' .* cannot be loaded"):
        OnnxRuntimeCpu(bundle, Precision.FP32)


def test_another_provider_is_refused(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime_cpu.import_onnxruntime()

    class Elsewhere:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    fake = SimpleNamespace(
        OrtValue=real.OrtValue,
        SessionOptions=real.SessionOptions,
        InferenceSession=Elsewhere,
        __version__=real.__version__,
    )
    monkeypatch.setattr(onnxruntime_cpu, "import_onnxruntime", lambda: fake)
    with pytest.raises(EngineError, match="runs stage 'image' on CUDAExecutionProvider, CPUExecutionProvider"):
        OnnxRuntimeCpu(paint, Precision.FP32)


def test_graphs_by_stage(engine: OnnxRuntimeCpu, paint: Bundle) -> None:
    assert list(engine.graphs) == ["image", "click"]
    assert all(isinstance(graph, StageGraph) for graph in engine.graphs.values())
    assert engine.bundle is paint
