"""ONNX Runtime's IO bindings, CUDA graphs and checks, on its CPU provider or its stand-in, and on the CUDA stand-in."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.onnxruntime import cuda as onnxruntime_cuda
from mmms_deploy.engines.onnxruntime import libraries as onnxruntime_libraries
from mmms_deploy.engines.onnxruntime.binding import CUDA, OnnxRuntimeExecutor, Place
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.onnxruntime.cuda import OnnxRuntimeCuda, OnnxRuntimeOnStream
from mmms_deploy.engines.onnxruntime.libraries import plain, preload, try_provider, why_not_loaded
from mmms_deploy.engines.wheels import require_onnxruntime_cuda
from mmms_deploy.errors import (
    BundleCorruptError,
    EngineConflictError,
    EngineError,
    EngineUnavailableError,
    MMMSDeployWarning,
)
from mmms_deploy.replay.verification import verify
from mmms_deploy.session import Session
from tests.standins.cuda import CudaStandIn, Error
from tests.standins.onnxruntime import OnnxRuntimeStandIn
from tests.support.annotating import annotated
from tests.support.toy import taken_as_it_is, write_toy

onnxruntime = import_onnxruntime()

CPU = Place("CPUExecutionProvider", "cpu", cuda_graphs=False)


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    """Runs are enqueued on a stream and happen when a caller waits for it, as on a GPU."""
    standin = CudaStandIn()
    enqueue = OnnxRuntimeExecutor.enqueue

    def later(self: OnnxRuntimeExecutor, stream: int) -> None:
        standin.submit(stream, lambda: enqueue(self, stream))

    monkeypatch.setattr(OnnxRuntimeExecutor, "enqueue", later)
    return standin


def cuda_of(standin: CudaStandIn) -> Cuda:
    return Cuda(standin, driver=standin.driver_calls)


def opened(bundle: Bundle, standin: CudaStandIn, place: Place = CPU, ort: Any = onnxruntime, **options: Any) -> Any:
    return OnnxRuntimeOnStream(ort, place, cuda_of(standin), bundle, Precision.FP32, "tested", CudaOptions(**options))


@pytest.fixture
def engine(paint: Bundle, standin: CudaStandIn) -> Iterator[OnnxRuntimeOnStream]:
    engine = opened(paint, standin)
    yield engine
    engine.close()
    assert not standin.leaked


def test_sessions_answer_as_on_the_cpu(engine: OnnxRuntimeOnStream, paint: Bundle) -> None:
    with Session(paint, engine="onnxruntime", threads=1) as other:
        expected = annotated(other)
    for _ in range(2):  # the second time on the same resources
        with Session(paint, engine=engine) as session, Session(paint, engine=engine) as second:
            np.testing.assert_array_equal(annotated(session), expected)
            np.testing.assert_array_equal(annotated(second), expected)
    assert verify(paint, engine=engine).checks


def test_a_click_waits_once_and_allocates_nothing(engine: OnnxRuntimeOnStream, standin: CudaStandIn) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(np.zeros((50, 70, 3), dtype=np.uint8))
        session.click(1, 1)
        standin.reset()
        session.click(2, 2)
        count = standin.count()
        assert (count["cudaStreamSynchronize"], count["cudaMalloc"], count["cudaHostAlloc"]) == (1, 0, 0)


def test_the_evidence(engine: OnnxRuntimeOnStream) -> None:
    assert engine.info.providers == ("CPUExecutionProvider",)
    assert engine.info.evidence == "graphs in fp32, 29 of 29 nodes on CPUExecutionProvider"
    assert (engine.info.name, engine.info.device, engine.info.threads) == ("onnxruntime-cuda", "cuda", None)


def test_every_run_is_made_in_one_thread(
    engine: OnnxRuntimeOnStream, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    program = engine._programs["click"]
    run = program.run

    def watched(call: Any) -> None:
        run(lambda: (seen.append(threading.current_thread().name), call()))

    monkeypatch.setattr(program, "run", watched)
    for _ in range(2):
        thread = threading.Thread(target=lambda: annotated(Session(paint, engine=engine)))
        thread.start()
        thread.join()
    assert set(seen) == {"onnxruntime-cuda_0"}


NOT_CAPTURED = "operation not permitted when stream is capturing"


def on_gpu(cuda: CudaStandIn, **given: Any) -> OnnxRuntimeStandIn:
    """ONNX Runtime with CUDA, which says that every stage has three nodes."""
    ort = OnnxRuntimeStandIn(onnxruntime, cuda, **given)
    ort.nodes = {"CUDAExecutionProvider": 3}
    return ort


def test_the_settings_for_a_gpu(paint: Bundle) -> None:
    standin = CudaStandIn()
    ort = on_gpu(standin)
    engine = opened(paint, standin, CUDA, ort)
    with Session(paint, engine=engine) as first, Session(paint, engine=engine) as second:
        for session in (first, second):
            session.set_image(np.zeros((50, 70, 3), dtype=np.uint8))
            session.click(1, 1)
    with Session(paint, engine=engine):
        pass
    assert engine.memory().resident == 2, "resources are used again, because CUDA graphs keep their addresses"
    engine.close()
    assert not standin.leaked
    for settings in ort.settings:
        assert settings["use_tf32"] == "0"
        assert settings["user_compute_stream"] == "1"
        assert settings["enable_cuda_graph"] == "1", (
            "which makes ONNX Runtime refuse what is copied to the CPU and back"
        )
    assert [run["gpu_graph_id"] for run in ort.runs] == ["1", "1", "2", "2"], "two CUDA graphs for every session"
    assert all(run["disable_synchronize_execution_providers"] == "1" for run in ort.runs)
    assert engine.info.evidence == "graphs in fp32, without TF32, 6 of 6 nodes on CUDAExecutionProvider"


def test_channels_last_are_for_the_stages_of_a_click(paint: Bundle) -> None:
    """The image stage would have nodes for the CPU, and so no CUDA graph."""
    standin = CudaStandIn()
    for prefer in (False, True):
        ort = on_gpu(standin)
        opened(paint, standin, CUDA, ort, prefer_nhwc=prefer).close()
        assert [stage.name for stage in paint.manifest.stages] == ["image", "click"]
        assert [settings.get("prefer_nhwc") for settings in ort.settings] == [None, "1" if prefer else None]


@pytest.mark.parametrize(("version", "strict"), [("1.25.1", "1"), ("1.26.0", "1"), ("1.27.0", None), ("2.0", None)])
def test_sums_of_norms_are_float32_in_every_release(paint: Bundle, version: str, strict: str | None) -> None:
    """Up to 1.26, SkipLayerNormalization of float16 sums in float16 unless it is strict."""
    standin = CudaStandIn()
    ort = on_gpu(standin)
    ort.__version__ = version
    opened(paint, standin, CUDA, ort).close()
    assert [settings.get("enable_skip_layer_norm_strict_mode") for settings in ort.settings] == [strict] * 2


def test_without_cuda_graphs(paint: Bundle) -> None:
    standin = CudaStandIn()
    ort = on_gpu(standin)
    ort.capture_error = NOT_CAPTURED
    with Session(paint, engine=opened(paint, standin, CUDA, ort, cuda_graph=False)):
        pass
    assert [run["gpu_graph_id"] for run in ort.runs] == ["-1", "-1"]


def test_a_run_that_cannot_be_captured_warns(paint: Bundle) -> None:
    standin = CudaStandIn()
    ort = on_gpu(standin)
    ort.capture_error = NOT_CAPTURED
    engine = opened(paint, standin, CUDA, ort)
    with pytest.warns(MMMSDeployWarning, match="runs as a sequence of operations.* when stream is cap") as warned:
        runner = engine.open()
    assert ["'image'" in str(warning.message) for warning in warned] == [True, False]
    assert not runner.is_cuda_graph
    runner.close()
    engine.close()
    engine = opened(paint, standin, CUDA, ort, strict=True)
    with pytest.raises(EngineError, match="failed in stage 'image': operation not permitted"):
        engine.open()
    engine.close()
    assert not standin.leaked


def test_a_captured_run_that_fails_is_not_tried_without(paint: Bundle) -> None:
    standin = CudaStandIn()
    ort = on_gpu(standin)
    engine = opened(paint, standin, CUDA, ort)
    runner = engine.open()
    ort.capture_error = NOT_CAPTURED
    with pytest.raises(EngineError, match="failed in stage 'click'"):
        runner._resources.stages["click"]._executor.enqueue(1)
    assert runner.is_cuda_graph
    runner.close()
    engine.close()


def test_what_is_not_on_the_gpu_is_refused(paint: Bundle, standin: CudaStandIn) -> None:
    refusal = "This session cannot use the graph capture feature as requested by the user"
    with pytest.raises(EngineUnavailableError, match="cannot use the graph capture feature") as caught:
        opened(paint, standin, CUDA, on_gpu(standin, refuse=refusal))
    assert "onnxruntime-gpu[cuda,cudnn]" in str(caught.value.fix)
    with pytest.raises(EngineUnavailableError, match="on something else: 3 nodes on CUDAExecutionProvider"):
        opened(paint, standin, CUDA, on_gpu(standin, providers=("CPUExecutionProvider",)))
    ort = on_gpu(standin)
    ort.nodes = {"CUDAExecutionProvider": 2, "TensorrtExecutionProvider": 1}
    with pytest.raises(EngineUnavailableError, match="1 nodes on TensorrtExecutionProvider"):
        opened(paint, standin, CUDA, ort)
    assert not standin.leaked


def test_shapes_may_be_computed_on_the_cpu(paint: Bundle, standin: CudaStandIn) -> None:
    """As those of GroupNormalization, which ONNX Runtime expands: they need no data from the GPU."""
    ort = on_gpu(standin)
    ort.nodes = {"CUDAExecutionProvider": 9, "CPUExecutionProvider": 2}
    engine = opened(paint, standin, CUDA, ort)
    assert engine.info.evidence.endswith(
        "18 of 22 nodes on CUDAExecutionProvider (the other 4 compute shapes; nothing is copied)"
    )
    engine.close()


def test_the_real_library_takes_the_cpu_and_is_refused(paint: Bundle, standin: CudaStandIn) -> None:
    if CUDA.provider in onnxruntime.get_available_providers():
        pytest.skip("there is a wheel with CUDA here")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EngineUnavailableError, match="on something else: 2 nodes on CPUExecutionProvider"),
    ):
        opened(paint, standin, CUDA)
    assert not standin.leaked


def test_a_broken_graph(copy: Path, standin: CudaStandIn) -> None:
    bundle = Bundle(copy)
    bundle.file("click.fp32.onnx").write_bytes(b"nonsense")
    taken_as_it_is(bundle)
    with pytest.raises(BundleCorruptError, match=r"stage 'click' .* cannot be loaded"):
        opened(bundle, standin)
    assert not standin.leaked


def test_a_full_gpu_is_no_engine(paint: Bundle) -> None:
    standin = CudaStandIn()
    standin.fail_always["cudaStreamCreateWithFlags"] = Error.cudaErrorMemoryAllocation
    with pytest.raises(EngineUnavailableError, match="cudaStreamCreateWithFlags failed"):
        opened(paint, standin)


def test_another_stream(engine: OnnxRuntimeOnStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    executor = engine._programs["click"].executor()
    with pytest.raises(ValueError, match="its session was made for"):
        executor.enqueue(7)
    engine.close()


def test_a_failing_run_is_named(paint: Bundle) -> None:
    standin = CudaStandIn()
    engine = opened(paint, standin)
    executor = engine._programs["image"].executor()
    with pytest.raises(EngineError, match="ONNX Runtime failed in stage 'image'"):
        executor.enqueue(1)  # nothing is bound
    engine.close()
    with pytest.raises(EngineError, match="engine is closed"):
        engine.open()


# --- what has to be there ---------------------------------------------------------------------------------------------


def test_without_a_gpu_it_names_the_reason(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    standin = CudaStandIn()
    standin.unusable, standin.driver = Error.cudaErrorInsufficientDriver, 0
    monkeypatch.setattr(devices, "import_cuda", lambda: standin)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # not imported
    with pytest.raises(EngineUnavailableError, match="there is no NVIDIA driver"):
        OnnxRuntimeCuda(paint, Precision.FP32)


def test_a_wheel_without_cuda(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "import_cuda", CudaStandIn)
    with pytest.raises(EngineUnavailableError, match=r"onnxruntime .* is a wheel without CUDA") as caught:
        OnnxRuntimeCuda(paint, Precision.FP32)
    assert 'pip uninstall -y onnxruntime, then pip install "mmms-deploy[cuda]"' in str(caught.value.fix)
    monkeypatch.setattr(onnxruntime_cuda, "require_onnxruntime_cuda", lambda: ("onnxruntime-gpu", "1.31.1"))
    with pytest.raises(EngineUnavailableError, match="has no CUDAExecutionProvider"):
        OnnxRuntimeCuda(paint, Precision.FP32)


def test_the_wheels() -> None:
    assert require_onnxruntime_cuda({"onnxruntime-gpu": "1.31.1"}) == ("onnxruntime-gpu", "1.31.1")
    with pytest.raises(EngineConflictError, match="are installed together"):
        require_onnxruntime_cuda({"onnxruntime-gpu": "1.31.1", "onnxruntime": "1.31.1"})
    with pytest.raises(EngineUnavailableError, match=r"1\.24\.4 computes parts of our graphs on the CPU") as caught:
        require_onnxruntime_cuda({"onnxruntime-gpu": "1.24.4"})
    assert caught.value.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.25"'
    with pytest.raises(EngineUnavailableError, match="not installed") as caught:
        require_onnxruntime_cuda({})
    assert "mmms-deploy[cuda]" in str(caught.value.fix)


def test_missing_libraries_are_named(paint: Bundle, standin: CudaStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    def preload_dlls(**kwargs: object) -> None:
        print("Failed to load libcudnn.so.9: no such file")
        print("Please follow the instructions")

    missing = preload(SimpleNamespace(preload_dlls=preload_dlls))
    assert missing == "Failed to load libcudnn.so.9: no such file"
    assert capsys.readouterr().out == ""
    assert preload(SimpleNamespace()) == ""
    with pytest.raises(EngineUnavailableError, match=r"no luck \(Failed to load libcudnn"):
        OnnxRuntimeOnStream(
            on_gpu(standin, refuse="no luck"),
            CUDA,
            cuda_of(standin),
            paint,
            Precision.FP32,
            "",
            CudaOptions(),
            missing,
        )


def test_a_library_that_the_provider_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_libraries, "CUDNN", "libcudnn-none.so.9")
    (tmp_path / "capi").mkdir()
    ort = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    assert (preload(ort), why_not_loaded(ort)) == ("", ""), "a wheel without CUDA lacks nothing"
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"nonsense")
    assert "libonnxruntime_providers_cuda.so" in why_not_loaded(ort)
    assert "libcudnn-none.so.9" in preload(ort)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux and a C compiler")
def test_libraries_in_another_folder_than_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPATH names a folder with onnxruntime-gpu, and NVIDIA's wheels are where PyTorch is."""
    name = f"libmmms-{tmp_path.name.replace('_', '-')}.so.13"
    file = tmp_path / "nvidia" / "cu13" / "lib" / name
    file.parent.mkdir(parents=True)

    def preload_dlls(**kwargs: object) -> None:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            print(f"Failed to load {name}: {error}")

    assert name in preload(SimpleNamespace(preload_dlls=preload_dlls))
    source = ["gcc", "-shared", "-x", "c", os.devnull, f"-Wl,-soname,{name}", "-o", str(file)]
    subprocess.run(source, check=True)
    assert name in preload(SimpleNamespace(preload_dlls=preload_dlls))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert preload(SimpleNamespace(preload_dlls=preload_dlls)) == ""


def test_messages_without_positions_and_names_of_machines() -> None:
    """The message of 1.31 with a driver that is too old."""
    error = RuntimeError(
        "/onnxruntime_src/x.cc:63 static T onnxruntime::F(const P&) [ONNXRuntimeError] : 1 : FAIL : options.h:187"
        ' Parse Failed to parse provider option "device_id": CUDA failure 35: CUDA driver version is insufficient'
        " for CUDA runtime version ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/x.cc ; line=70 ; expr=f(&n);\n"
    )
    assert plain(error) == (
        'options.h:187 Parse Failed to parse provider option "device_id": CUDA failure 35: CUDA driver'
        " version is insufficient for CUDA runtime version"
    )
    assert plain(ValueError("something\nelse")) == "something else"


def test_a_provider_is_tried() -> None:
    assert try_provider(onnxruntime, CPU.provider, 0) == ""
    if CUDA.provider not in onnxruntime.get_available_providers():
        with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
            assert try_provider(onnxruntime, CUDA.provider, 0) == "it takes CPUExecutionProvider"

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("CUDA failure 35: driver\n version is insufficient")

    ort = SimpleNamespace(SessionOptions=onnxruntime.SessionOptions, InferenceSession=refuse)
    assert try_provider(ort, CUDA.provider, 0) == "CUDA failure 35: driver version is insufficient"


def test_half_graphs_and_a_bundle_of_three_stages(tmp_path: Path, standin: CudaStandIn) -> None:
    bundle = write_toy(tmp_path / "three", three_stages=True, precisions=(Precision.FP16,))
    engine = OnnxRuntimeOnStream(onnxruntime, CPU, cuda_of(standin), bundle, Precision.FP16, "", CudaOptions())
    with Session(bundle, engine=engine) as session:
        assert len(annotated(session)) == 10
    engine.close()
    assert not standin.leaked
