"""Kernels are loaded once, found by name and launched on a stream. On the stand-in of the CUDA driver."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.engines.cuda.graph import CudaGraph
from mmms_deploy.engines.cuda.kernels import module
from mmms_deploy.engines.cuda.kernels.module import Kernel, KernelModules
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import CudaError
from tests.standins import kernels as models
from tests.standins.cuda import CudaStandIn, Error

ADD = """
.version 8.0
.target sm_70
.address_size 64
.visible .entry add(
	.param .u64 add_param_0,
	.param .u32 add_param_1,
	.param .f32 add_param_2
)
{ ret; }
"""


def add(memory: object, launch: object, place: int, count: int, number: float) -> None:
    memory.array(place, (count,), np.float32)[: launch.threads[0]] += np.float32(number)  # type: ignore[attr-defined]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaStandIn]:
    (tmp_path / "sums.ptx").write_text(ADD)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setitem(models.MODELS, "add", add)
    gpu = CudaStandIn()
    yield gpu
    assert not gpu.leaked


@pytest.fixture
def cuda(standin: CudaStandIn) -> Cuda:
    found = Cuda(standin, driver=standin.driver_calls)
    found.activate()
    return found


class Numbers:
    """Four numbers on the GPU."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.stream, self.address = cuda, cuda.create_stream(), cuda.allocate(16)
        cuda.clear(self.address, 16, self.stream)

    def add(self, kernel: Kernel, number: float) -> None:
        place, count = ctypes.c_uint64(self.address), ctypes.c_int32(4)
        kernel.launch((1, 1, 1), (32, 1, 1), [place, count, ctypes.c_float(number)], self.stream)

    def read(self) -> list[float]:
        self.cuda.synchronize(self.stream)
        return list((ctypes.c_float * 4).from_address(self.address))

    def close(self) -> None:
        self.cuda.free(self.address)
        self.cuda.destroy_stream(self.stream)


def test_a_kernel_runs_in_the_order_of_its_stream(cuda: Cuda) -> None:
    modules, numbers = KernelModules(cuda), Numbers(cuda)
    kernel = modules.kernel("sums", "add")
    numbers.add(kernel, 1.5)
    numbers.add(kernel, 2.0)
    assert list((ctypes.c_float * 4).from_address(numbers.address)) != [3.5] * 4, "it does not wait"
    assert numbers.read() == [3.5] * 4
    numbers.close()
    modules.close()


def test_a_capture_records_a_launch_with_the_arguments_of_then(cuda: Cuda) -> None:
    modules, numbers = KernelModules(cuda), Numbers(cuda)
    kernel = modules.kernel("sums", "add")
    graph = CudaGraph(cuda, numbers.stream, lambda: numbers.add(kernel, 2.5))
    assert numbers.read() == [0.0] * 4, "it was recorded and did not run"
    for _ in range(3):
        graph.launch()
    assert numbers.read() == [7.5] * 4
    graph.close()
    numbers.close()
    modules.close()


def test_a_module_is_loaded_once_and_unloaded_at_the_end(standin: CudaStandIn, cuda: Cuda) -> None:
    modules = KernelModules(cuda)
    kernel = modules.kernel("sums", "add")
    assert modules.kernel("sums", "add") is kernel
    assert standin.count()["cuModuleLoadData"] == 1
    assert standin.leaked == {"modules": 1}
    modules.close()
    modules.close()
    assert standin.count()["cuModuleUnload"] == 1


def test_every_failure_is_named(standin: CudaStandIn, cuda: Cuda) -> None:
    modules, numbers = KernelModules(cuda), Numbers(cuda)
    for call in ("cuModuleLoadData", "cuModuleGetFunction"):
        standin.fail_always = {call: Error.cudaErrorUnknown}
        with pytest.raises(CudaError, match=rf"{call} failed with CUDA_ERROR_UNKNOWN \(999\)") as caught:
            modules.kernel("sums", "add")
        assert (caught.value.call, caught.value.code) == (call, 999)
        assert "mmms-doctor" in str(caught.value.fix)
    standin.fail_always = {}
    with pytest.raises(CudaError, match="CUDA_ERROR_NOT_FOUND"):
        modules.kernel("sums", "subtract")
    kernel = modules.kernel("sums", "add")
    standin.fail_always = {"cuLaunchKernel": Error.cudaErrorUnknown, "cuModuleUnload": Error.cudaErrorUnknown}
    with pytest.raises(CudaError, match="cuLaunchKernel"):
        numbers.add(kernel, 1.0)
    numbers.close()
    modules.close()


def test_a_launch_that_is_too_large_is_refused(cuda: Cuda) -> None:
    modules, numbers = KernelModules(cuda), Numbers(cuda)
    kernel = modules.kernel("sums", "add")
    arguments = [ctypes.c_uint64(numbers.address), ctypes.c_int32(4), ctypes.c_float(1)]
    for grid, block in (((1, 65536, 1), (32, 1, 1)), ((1, 1, 1), (32, 64, 1)), ((0, 1, 1), (32, 1, 1))):
        with pytest.raises(CudaError, match="INVALID_VALUE"):
            kernel.launch(grid, block, arguments, numbers.stream)
    numbers.close()
    modules.close()


def test_a_driver_too_old_for_the_ptx_is_named(cuda: Cuda, tmp_path: Path) -> None:
    (tmp_path / "sums.ptx").write_text(ADD.replace(".version 8.0", ".version 9.0"))
    with pytest.raises(CudaError, match="UNSUPPORTED_PTX_VERSION") as caught:
        KernelModules(cuda).kernel("sums", "add")
    assert "update the NVIDIA driver" in str(caught.value.fix)
    assert "525" in str(caught.value.expected)


def test_without_a_driver_the_real_bindings_fail_by_name(standin: CudaStandIn) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    try:
        driver.cuInit(0)
    except RuntimeError:
        with pytest.raises(CudaError, match="cuModuleLoadData cannot be called"):
            KernelModules(Cuda(standin)).kernel("sums", "add")
    else:
        pytest.skip("there is a driver here")
