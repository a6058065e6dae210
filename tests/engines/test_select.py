from __future__ import annotations

import warnings
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines import registry, select
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.explain import reason
from mmms_deploy.engines.openvino import engine as openvino_engine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import check_shared, choose, open_engine
from mmms_deploy.engines.verdicts import Verdict
from mmms_deploy.errors import (
    BundleCorruptError,
    EngineError,
    EngineUnavailableError,
    MMMSDeployError,
    MMMSDeployWarning,
)
from tests.standins.cuda import CudaStandIn, Error
from tests.support import standin_engine
from tests.support.paths import ROOT
from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles")
    return write_toy(folder / "both", precisions=(Precision.FP32, Precision.FP16))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundles") / "half", precisions=(Precision.FP16,))


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundles") / "brain", precisions=(Precision.BF16,))


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("engine", [None, "openvino", "onnxruntime"])
def test_the_cpu(paint: Bundle, device: str, engine: str | None) -> None:
    opened = open_engine(paint, device=device, engine=engine)
    assert (opened.info.device, opened.info.precision) == ("cpu", Precision.FP32)
    assert opened.info.name == (engine or "openvino")
    assert opened.info.threads == available_cores()
    opened.close()


def test_threads(paint: Bundle) -> None:
    assert open_engine(paint, threads=3, engine="onnxruntime").info.threads == 3
    with pytest.raises(EngineError, match="number of threads 0"):
        open_engine(paint, threads=0)


def test_fewer_threads_than_asked_for(paint: Bundle) -> None:
    with pytest.warns(MMMSDeployWarning, match="openvino computes with .* threads instead of 64"):
        open_engine(paint, threads=64, engine="openvino")
    with pytest.raises(EngineUnavailableError, match="instead of 64"):
        open_engine(paint, threads=64, engine="openvino", strict=True)


@pytest.mark.parametrize("asked", [{"device": "cuda"}, {"engine": "tensorrt"}, {"engine": "onnxruntime-cuda"}])
def test_cuda_is_refused_and_not_replaced(
    paint: Bundle, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_gpu(monkeypatch)
    with pytest.raises(EngineUnavailableError, match="CUDA was requested, but there is no NVIDIA driver") as caught:
        open_engine(paint, **asked)
    assert "install the NVIDIA driver" in str(caught.value.fix)
    assert 'pass device="cpu"' in str(caught.value.fix)


@pytest.fixture(autouse=True)
def no_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """What make test-rtx installs is no part of these machines."""
    for name in ("tensorrt-rtx", "tensorrt-rtx-cu13"):
        lacking(name, monkeypatch)


def test_cuda_without_its_wheels_names_them(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch)
    lacking("tensorrt", monkeypatch)
    with pytest.raises(
        EngineUnavailableError, match=r"TensorRT is not installed, onnxruntime .* without CUDA"
    ) as caught:
        open_engine(paint, device="cuda")
    assert 'pip install "mmms-deploy[cuda]"' in str(caught.value.fix)


def test_the_gpu_comes_first_where_there_is_one(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch)
    having(monkeypatch, tensorrt="11.4.0")
    order = choose(paint, EngineRequest()).order
    assert [candidate.backend.name for candidate in order] == ["tensorrt", "openvino", "onnxruntime"]
    assert order[0].version == "11.4.0 on Stand-in GPU (SM 9.0), driver for CUDA 13.0"
    assert choose(paint, EngineRequest(device="cuda")).order[0] == order[0]
    assert "the first engine in fp32" in reason(choose(paint, EngineRequest()))


def test_another_gpu(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", standin_engine.GPU_BACKENDS)
    standin = CudaStandIn()
    monkeypatch.setattr(devices, "import_cuda", lambda: standin)
    with pytest.raises(EngineUnavailableError, match="GPU 1 was requested, and there are 1"):
        open_engine(paint, device="cuda:1")
    standin.devices = 2
    with closing(open_engine(paint, device="cuda:1")) as engine:
        assert isinstance(engine, CudaEngine)
        assert (engine.info.device, engine.options.ordinal) == ("cuda", 1)
        for device in ("auto", "cuda", "cuda:1"):
            check_shared(engine, paint, EngineRequest(device=device))
        for device in ("cuda:0", "cpu"):
            with pytest.raises(EngineError, match="were requested of an open engine"):
                check_shared(engine, paint, EngineRequest(device=device))
    with closing(open_engine(paint, device="cuda:0")) as engine:
        assert isinstance(engine, CudaEngine)
        assert engine.options.ordinal == 0


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "cpu:0", "auto:1", "cuda1"])
def test_devices_that_are_none(paint: Bundle, device: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"device '{device}' was requested") as caught:
        open_engine(paint, device=device)
    assert "cuda:1" in str(caught.value.expected)


def test_auto_says_why_it_takes_the_cpu_on_a_machine_prepared_for_cuda(
    paint: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_gpu(monkeypatch)
    assert "on the CPU, because" not in reason(choose(paint, EngineRequest())), "this machine was not prepared for CUDA"
    (tmp_path / "version").write_text("a driver")
    monkeypatch.setattr(registry, "DRIVER_FILE", tmp_path / "version")
    assert "on the CPU, because TensorRT is not installed; onnxruntime" in reason(choose(paint, EngineRequest()))
    having(monkeypatch, tensorrt="11.4.0")
    with closing(open_engine(paint)) as engine:
        assert engine.info.device == "cpu"
        assert engine.info.reason.endswith("; on the CPU, because there is no NVIDIA driver")
    assert "because" not in reason(choose(paint, EngineRequest(device="cpu")))


def test_strict_refuses_a_click_that_is_no_graph(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", standin_engine.GPU_BACKENDS)
    with_gpu(monkeypatch)
    for strict in (True, False):
        engine = open_engine(paint, strict=strict)
        assert isinstance(engine, standin_engine.StandInEngine)
        assert engine.options.strict is strict
        engine.close()


def test_threads_mean_nothing_on_a_gpu(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", standin_engine.GPU_BACKENDS)
    with_gpu(monkeypatch)
    with pytest.warns(MMMSDeployWarning, match="standin computes with no CPU threads instead of 3"):
        open_engine(paint, threads=3).close()


def test_unknown_names(paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="device 'tpu'"):
        open_engine(paint, device="tpu")
    with pytest.raises(EngineUnavailableError, match="engine 'torch'") as caught:
        open_engine(paint, engine="torch")
    assert "onnxruntime (cpu)" in str(caught.value.expected)
    with pytest.raises(EngineUnavailableError, match="precision 'int4'"):
        open_engine(paint, precision="int4")


def test_the_best_precision_and_the_one_asked_for(both: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_engine(both).info.precision is Precision.FP32
        assert open_engine(both, precision="fp16").info.precision is Precision.FP16
        assert open_engine(both, precision=Precision.FP32, strict=True).info.precision is Precision.FP32


def test_a_fallback_is_said_aloud(half: Bundle, paint: Bundle) -> None:
    with pytest.warns(MMMSDeployWarning, match="in fp16 instead of fp32: the bundle does not hold it"):
        assert open_engine(half).info.precision is Precision.FP16
    with pytest.warns(MMMSDeployWarning, match="in fp32 instead of fp16: the bundle does not hold it"):
        assert open_engine(paint, precision="fp16").info.precision is Precision.FP32


def test_a_fallback_is_refused_when_strict(half: Bundle, paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="fp32 is not possible") as caught:
        open_engine(half, strict=True)
    assert "precision='fp16'" in str(caught.value.fix)
    with pytest.raises(EngineUnavailableError, match="fp16 is not possible"):
        open_engine(paint, precision="fp16", strict=True)


def test_a_precision_the_engine_does_not_run(brain: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match=r"has graphs in bf16, of which openvino and onnxruntime can load"):
        open_engine(brain)
    with pytest.raises(EngineUnavailableError, match=r"of which onnxruntime can load none") as caught:
        open_engine(brain, engine="onnxruntime")
    assert caught.value.expected == "graphs in fp32, fp16, int8"


def test_a_precision_that_another_engine_computes(paint: Bundle) -> None:
    with pytest.warns(MMMSDeployWarning, match="onnxruntime runs .* in fp32 instead of bf16: onnxruntime on cpu does"):
        assert open_engine(paint, engine="onnxruntime", precision="bf16").info.precision is Precision.FP32
    with pytest.raises(EngineUnavailableError, match="bf16 is not possible: onnxruntime on cpu does not run it"):
        open_engine(paint, engine="onnxruntime", precision="bf16", strict=True)


def test_backends_are_where_they_say(paint: Bundle) -> None:
    assert len({(backend.name, backend.device) for backend in registry.BACKENDS}) == len(registry.BACKENDS)
    for backend in registry.BACKENDS:
        assert (ROOT / (backend.module.replace(".", "/") + ".py")).is_file()


# --- what was measured on this machine --------------------------------------------------------------------------------


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], tuple[bool, float]]:
    """(passed, milliseconds) by (engine, precision), to be filled in by a test."""
    known: dict[tuple[str, str], tuple[bool, float]] = {}

    def read_verdict(bundle: Bundle, engine: str, version: str, precision: Precision) -> Verdict | None:
        if (engine, str(precision)) not in known:
            return None
        passed, milliseconds = known[engine, str(precision)]
        return Verdict(
            engine=engine,
            version=version,
            precision=precision,
            passed=passed,
            iou=1.0 if passed else 0.5,
            limit=0.99,
            milliseconds=milliseconds,
            threads=1,
        )

    monkeypatch.setattr(select, "read_verdict", read_verdict)
    return known


def first(bundle: Bundle, **asked: Any) -> tuple[str, str]:
    candidate = choose(bundle, EngineRequest(**asked)).order[0]
    return candidate.backend.name, str(candidate.precision)


def test_nothing_measured_takes_the_first_in_float32_and_says_so(paint: Bundle) -> None:
    choice = choose(paint, EngineRequest())
    assert [str(candidate) for candidate in choice.order] == ["openvino in fp32", "onnxruntime in fp32"]
    assert "nothing was measured here yet" in reason(choice)
    assert f"mmms-verify {paint.path} --all-engines" in reason(choice)
    engine = open_engine(paint)
    assert engine.info.reason == reason(choice)
    engine.close()


def test_the_fastest_that_passed_is_taken(paint: Bundle, verdicts: dict[tuple[str, str], tuple[bool, float]]) -> None:
    verdicts["onnxruntime", "fp32"] = (True, 20.0)
    assert first(paint) == ("onnxruntime", "fp32"), "measured goes before not measured"
    verdicts["openvino", "fp32"] = (True, 30.0)
    assert first(paint) == ("onnxruntime", "fp32")
    verdicts["openvino", "bf16"] = (True, 12.3)
    assert first(paint) == ("openvino", "bf16")
    assert reason(choose(paint, EngineRequest())) == (
        "the fastest of 3 that passed the golden replay here: 12.3 ms a click, smallest IoU 1.0000"
    )
    assert first(paint, precision="fp32") == ("onnxruntime", "fp32")
    assert first(paint, engine="openvino") == ("openvino", "bf16")
    assert first(paint, engine="onnxruntime") == ("onnxruntime", "fp32")
    assert first(paint, engine="openvino", precision="fp32") == ("openvino", "fp32")
    assert first(paint, strict=True) == ("onnxruntime", "fp32"), "strict takes no reduced precision by itself"


def test_a_reduced_precision_that_failed_or_was_not_tried_is_never_taken(
    paint: Bundle, verdicts: dict[tuple[str, str], tuple[bool, float]]
) -> None:
    assert ("openvino", "bf16") not in [(c.backend.name, c.precision) for c in choose(paint, EngineRequest()).order]
    verdicts["openvino", "bf16"] = (False, 1.0)
    assert ("openvino", "bf16") not in [(c.backend.name, c.precision) for c in choose(paint, EngineRequest()).order]
    assert first(paint) == ("openvino", "fp32")


def test_an_engine_that_failed_comes_last_and_is_warned_of(
    paint: Bundle, verdicts: dict[tuple[str, str], tuple[bool, float]]
) -> None:
    verdicts["openvino", "fp32"] = (False, 1.0)
    assert first(paint) == ("onnxruntime", "fp32")
    with pytest.warns(MMMSDeployWarning, match="openvino in fp32 failed the golden replay"):
        open_engine(paint, engine="openvino").close()
    with pytest.raises(EngineUnavailableError, match="failed the golden replay"):
        open_engine(paint, engine="openvino", strict=True)


# --- what cannot be opened --------------------------------------------------------------------------------------------


def having(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    """Make distributions look as if they were installed."""
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: installed.get(name) or real(name))


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    standin = CudaStandIn()
    standin.unusable, standin.driver = Error.cudaErrorInsufficientDriver, 0
    monkeypatch.setattr(devices, "import_cuda", lambda: standin)


def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    standin = CudaStandIn()
    monkeypatch.setattr(devices, "import_cuda", lambda: standin)


def lacking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a distribution look as if it were not installed."""
    real = metadata.version

    def version(distribution: str) -> str:
        if distribution == name:
            raise metadata.PackageNotFoundError(distribution)
        return real(distribution)

    monkeypatch.setattr(metadata, "version", version)


def test_an_engine_that_is_not_installed_names_the_command(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking("openvino", monkeypatch)
    assert open_engine(paint, strict=True).info.name == "onnxruntime"
    with pytest.raises(EngineUnavailableError, match="OpenVINO is not installed") as caught:
        open_engine(paint, engine="openvino")
    assert caught.value.fix == 'pip install "mmms-deploy[cpu]"'
    with pytest.raises(EngineUnavailableError, match="bf16 is not possible: openvino is not installed") as caught:
        open_engine(paint, precision="bf16", strict=True)
    assert 'pip install "mmms-deploy[cpu]"' in str(caught.value.fix)
    with pytest.warns(MMMSDeployWarning, match=r"in fp32 instead of bf16: openvino is not installed"):
        assert open_engine(paint, precision="bf16").info.precision is Precision.FP32
    lacking("onnxruntime", monkeypatch)
    with pytest.raises(EngineUnavailableError, match="no engine is installed") as caught:
        open_engine(paint)
    assert caught.value.fix == 'pip install "mmms-deploy[cpu]"'
    assert caught.value.given.count("ONNX Runtime is not installed") == 1


@pytest.mark.parametrize(
    "error", [EngineUnavailableError("its libraries are broken"), BundleCorruptError("no such op")]
)
def test_an_engine_that_cannot_be_opened_is_replaced_aloud(
    paint: Bundle, monkeypatch: pytest.MonkeyPatch, error: MMMSDeployError
) -> None:
    def broken(*args: object, **kwargs: object) -> NoReturn:
        raise error

    monkeypatch.setattr(openvino_engine, "OpenVinoCpu", broken)
    with pytest.warns(MMMSDeployWarning, match="onnxruntime in fp32 is taken instead of openvino in fp32: "):
        engine = open_engine(paint)
    assert engine.info.name == "onnxruntime"
    assert error.given in engine.info.reason
    with pytest.raises(type(error), match=error.given):
        open_engine(paint, strict=True)
    with pytest.raises(type(error), match=error.given):
        open_engine(paint, engine="openvino")
