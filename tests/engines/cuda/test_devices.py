from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmms_deploy.engines import imports
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda import runtime as cuda_runtime
from mmms_deploy.engines.cuda.devices import Gpu, Problem, driver_release, probe, require_gpu
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import CudaError, EngineUnavailableError
from tests.standins.cuda import CudaStandIn, Error, Mode

NOWHERE = Path("/nonexistent")
DRIVER = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder)  Sun Jul 27 2025\n"
    "GCC version:  gcc version 13.3.0\n"
)


@pytest.fixture
def standin() -> CudaStandIn:
    return CudaStandIn()


def test_a_gpu(standin: CudaStandIn, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(DRIVER)
    found = probe(standin, tmp_path / "version")
    assert found.gpus == (Gpu(0, "Stand-in GPU", (9, 0), 1 << 40, "13.0"),)
    assert (found.problem, found.driver, found.cuda, found.runtime) == (None, "580.65.06", "13.0", "13.0")
    assert str(require_gpu(library=standin)) == "Stand-in GPU (SM 9.0), driver for CUDA 13.0"
    with pytest.raises(EngineUnavailableError, match="GPU 3 was requested, and there are 1"):
        require_gpu(3, standin)


def test_no_driver(standin: CudaStandIn) -> None:
    """The runtime returns the same code as for an old driver; only the driver's version differs."""
    standin.unusable, standin.driver = Error.cudaErrorInsufficientDriver, 0
    found = probe(standin, NOWHERE)
    assert found.problem is Problem.NO_DRIVER
    with pytest.raises(EngineUnavailableError, match="there is no NVIDIA driver") as caught:
        require_gpu(library=standin)
    assert "release 580 or newer" in str(caught.value.fix)
    assert 'device="cpu"' in str(caught.value.fix)
    assert "--device cpu" in str(caught.value.command_fix)


@pytest.mark.parametrize(
    ("message", "problem"),
    [("Failed to dlopen libcuda.so.1", Problem.NO_DRIVER), ("Failed to initialise", Problem.FAILED)],
)
def test_bindings_that_raise_without_a_driver(
    standin: CudaStandIn, monkeypatch: pytest.MonkeyPatch, message: str, problem: Problem
) -> None:
    """As cuda-python does before 12.9."""

    def refuse() -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(standin, "cudaDriverGetVersion", refuse)
    found = probe(standin, NOWHERE)
    assert found.problem is problem
    assert found.fix
    with pytest.raises(EngineUnavailableError, match="CUDA was requested"):
        require_gpu(library=standin)


def test_an_old_driver(standin: CudaStandIn) -> None:
    standin.unusable, standin.driver = Error.cudaErrorInsufficientDriver, 12040
    found = probe(standin, NOWHERE)
    assert found.problem is Problem.DRIVER_TOO_OLD
    assert found.given == "the NVIDIA driver runs CUDA 12.4 at most, and cuda-python is for CUDA 13.0"
    assert "update the NVIDIA driver" in found.fix


@pytest.mark.parametrize("visible", [None, ""])
def test_no_gpu(standin: CudaStandIn, visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for standin.unusable, standin.devices in ((Error.cudaErrorNoDevice, 1), (Error.cudaSuccess, 0)):
        found = probe(standin, NOWHERE)
        assert found.problem is Problem.NO_GPU
        assert ("CUDA_VISIBLE_DEVICES=''" in found.given) is (visible is not None)
        assert ("unset CUDA_VISIBLE_DEVICES" in found.fix) is (visible is not None)


def test_cuda_that_fails(standin: CudaStandIn) -> None:
    standin.unusable = Error.cudaErrorUnknown
    found = probe(standin, NOWHERE)
    assert found.problem is Problem.FAILED
    assert "cudaGetDeviceCount failed with cudaErrorUnknown (999)" in found.given


def test_no_cuda_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)  # an earlier test may have imported it
    monkeypatch.setattr(devices, "_driver_loads", lambda: False)
    found = probe(driver_file=NOWHERE)
    assert found.problem is Problem.NO_BINDINGS
    assert found.given == "there is no NVIDIA driver, and cuda-python is not installed"
    assert found.fix.startswith("on a machine with an NVIDIA GPU, install its driver, then pip ")
    with pytest.raises(EngineUnavailableError) as caught:
        require_gpu(alone=True)
    assert "cpu" not in f"{caught.value.fix}{caught.value.command_fix}", "a plan cannot be compiled on a CPU"
    monkeypatch.setattr(devices, "_driver_loads", lambda: True)
    assert probe(driver_file=NOWHERE).given == "cuda-python is not installed", "as on Windows and in WSL"
    (tmp_path / "version").write_text(DRIVER)
    monkeypatch.setattr(devices, "_driver_loads", lambda: False)
    assert probe(driver_file=tmp_path / "version").given == "cuda-python is not installed"
    with pytest.raises(EngineUnavailableError, match="cuda-python") as caught:
        require_gpu()
    assert 'pip install "mmms-deploy[cuda]"' in str(caught.value.fix)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (DRIVER, "580.65.06"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n", "535.183.01"),
        ("something else", None),
    ],
)
def test_the_drivers_release(tmp_path: Path, text: str, release: str | None) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_release(tmp_path / "version") == release
    assert driver_release(NOWHERE) is None


# --- the real bindings, which answer without a driver -----------------------------------------------------------------


@pytest.fixture
def real() -> Cuda:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU here")
    return Cuda(runtime)


def test_every_call_exists_in_the_real_bindings_and_is_checked(real: Cuda) -> None:
    """Without a driver each of them fails with the same code, after its arguments were parsed."""
    calls = {
        "cudaSetDevice": real.activate,
        "cudaMemGetInfo": real.memory,
        "cudaMalloc": lambda: real.allocate(256),
        "cudaFree": lambda: real.free(256),
        "cudaHostAlloc": lambda: real.allocate_host(256),
        "cudaFreeHost": lambda: real.free_host(256),
        "cudaStreamCreateWithFlags": real.create_stream,
        "cudaStreamDestroy": lambda: real.destroy_stream(1),
        "cudaStreamSynchronize": lambda: real.synchronize(1),
        "cudaMemsetAsync": lambda: real.clear(256, 4, 1),
        "cudaStreamBeginCapture": lambda: real.capture(1).__enter__(),
        "cudaGraphInstantiate": lambda: real.instantiate(0),
        "cudaGraphUpload": lambda: real.upload_executable(0, 1),
        "cudaGraphLaunch": lambda: real.launch(0, 1),
        "cudaGraphDestroy": lambda: real.destroy_cuda_graph(0),
        "cudaGraphExecDestroy": lambda: real.destroy_executable(0),
    }
    for name, call in calls.items():
        with pytest.raises(CudaError, match=f"{name} failed with cudaErrorInsufficientDriver") as caught:
            call()
        assert (caught.value.call, caught.value.code) == (name, 35)
        assert "update the NVIDIA driver" in str(caught.value.fix)
    for copy in (real.upload, real.download, real.copy):
        with pytest.raises(CudaError, match="cudaMemcpyAsync failed"):
            copy(256, 512, 4, 1)


def test_the_stand_in_has_what_the_real_bindings_have() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    for name in vars(CudaStandIn):
        if name.startswith("cuda"):
            assert hasattr(runtime, name), name
    for code in Error:
        assert int(getattr(runtime.cudaError_t, code.name)) == code
    for mode in Mode:
        assert int(getattr(runtime.cudaStreamCaptureMode, mode.name)) == mode
    assert int(runtime.cudaStreamNonBlocking) == CudaStandIn.cudaStreamNonBlocking


def test_a_broken_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(imports, "import_module", broken)
    with pytest.raises(EngineUnavailableError, match=r"cannot be imported: .*libcudart"):
        cuda_runtime.import_cuda()


def test_an_error_of_another_library_is_not_left_behind(standin: CudaStandIn) -> None:
    cleared = []
    standin.cudaGetLastError = lambda: cleared.append(1) or (Error.cudaSuccess,)  # type: ignore[method-assign]
    standin.fail_always["cudaMalloc"] = Error.cudaErrorMemoryAllocation
    with pytest.raises(CudaError, match="cudaMalloc failed with cudaErrorMemoryAllocation") as caught:
        Cuda(standin).allocate(1)
    assert cleared
    assert "nvidia-smi" in str(caught.value.fix)
