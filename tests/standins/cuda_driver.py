"""A stand-in of the CUDA driver's calls for kernels: the module ``cuda.bindings.driver``, on a CUDA stand-in.

It reads the real PTX: a kernel has the name and the parameters that stand there. What a kernel computes is a plain
model of it in NumPy (``tests/standins/kernels``), which runs on the memory of the stand-in when the stream comes to it.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.standins.kernels import MODELS
from tests.standins.kernels.launch import Launch

if TYPE_CHECKING:
    from tests.standins.cuda import CudaStandIn

NEWEST_PTX = (8, 0)
"""What the oldest driver knows that the package allows: 525, of CUDA 12.0."""
OLDEST_ARCHITECTURE = 75
"""Of the GPUs that the package allows: the driver compiles PTX for its own architecture and for later ones."""

_TYPES = {"u64": ctypes.c_uint64, "u32": ctypes.c_uint32, "s32": ctypes.c_int32, "f32": ctypes.c_float}
_ENTRY = re.compile(r"\.visible \.entry (\w+)\(([^)]*)\)")
_PARAMETER = re.compile(r"\.param \.(\w+) \w+")


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_UNKNOWN = 999


class CUmodule(int):
    pass


class CUfunction(int):
    pass


@dataclass(frozen=True)
class Function:
    """A kernel.

    Attributes:
        name: Its name.
        parameters: The types of its parameters.
        module: Its module's handle.
    """

    name: str
    parameters: tuple[Any, ...]
    module: CUmodule


class Memory:
    """The memory of the GPU, as a model of a kernel sees it."""

    def __init__(self, gpu: CudaStandIn) -> None:
        self._gpu = gpu

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return memory at an address as an array; it fails where that is not all on the GPU."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if size == 0 or address % kind.itemsize or not self._gpu.on_device(address, size):
            raise MemoryError("not on the GPU")
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return raw.view(kind).reshape(shape)


class DriverStandIn:
    """Stands in for the module ``cuda.bindings.driver``.

    Args:
        gpu: The CUDA runtime, whose counts and failures are also those of these calls.
    """

    CUresult = CUresult

    def __init__(self, gpu: CudaStandIn) -> None:
        self._gpu = gpu
        self._modules: dict[CUmodule, dict[str, Function]] = {}
        self._functions: dict[int, Function] = {}
        self._numbers = iter(range(1 << 12, 1 << 60, 16))
        self.launched: list[str] = []

    @property
    def loaded(self) -> int:
        """How many modules are loaded."""
        return len(self._modules)

    def _enter(self, name: str) -> CUresult:
        error = CUresult(int(self._gpu._enter(name)))
        return error if error or self._gpu.is_current else CUresult.CUDA_ERROR_INVALID_CONTEXT

    def cuGetErrorName(self, error: CUresult) -> tuple[CUresult, bytes]:
        return CUresult.CUDA_SUCCESS, CUresult(error).name.encode()

    def cuModuleLoadData(self, image: bytes) -> tuple[CUresult, CUmodule | None]:
        assert type(image) is bytes
        assert image.endswith(b"\0"), "the driver reads up to a zero byte"
        error = self._enter("cuModuleLoadData") or CUresult(int(self._gpu._unsafe()))
        text = image.rstrip(b"\0").decode("ascii")
        version = re.search(r"^\.version (\d+)\.(\d+)$", text, re.MULTILINE)
        target = re.search(r"^\.target sm_(\d+)$", text, re.MULTILINE)
        if not error and (version is None or target is None or int(target[1]) > OLDEST_ARCHITECTURE):
            error = CUresult.CUDA_ERROR_INVALID_PTX
        if not error and version is not None and tuple(map(int, version.groups())) > NEWEST_PTX:
            error = CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        if error:
            return error, None
        module = CUmodule(next(self._numbers))
        self._modules[module] = {
            name: Function(name, tuple(_TYPES[kind] for kind in _PARAMETER.findall(parameters)), module)
            for name, parameters in _ENTRY.findall(text)
        }
        return error, module

    def cuModuleUnload(self, hmod: CUmodule) -> tuple[CUresult]:
        assert type(hmod) is CUmodule
        error = self._enter("cuModuleUnload")
        del self._modules[hmod]
        self._functions = {handle: known for handle, known in self._functions.items() if known.module != hmod}
        return (error,)

    def cuModuleGetFunction(self, hmod: CUmodule, name: bytes) -> tuple[CUresult, CUfunction | None]:
        assert type(hmod) is CUmodule
        assert type(name) is bytes
        error = self._enter("cuModuleGetFunction")
        found = self._modules[hmod].get(name.decode())
        if not error and found is None:
            error = CUresult.CUDA_ERROR_NOT_FOUND
        if error or found is None:
            return error, None
        function = CUfunction(next(self._numbers))
        self._functions[function] = found
        return error, function

    def cuLaunchKernel(
        self,
        f: CUfunction,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: Any,
        kernelParams: int,
        extra: int,
    ) -> tuple[CUresult]:
        grid, block = (gridDimX, gridDimY, gridDimZ), (blockDimX, blockDimY, blockDimZ)
        assert type(f) is CUfunction
        assert {type(number) for number in (*grid, *block, sharedMemBytes, kernelParams, extra)} == {int}
        assert extra == 0
        error = self._enter("cuLaunchKernel")
        function = self._functions[f]
        small = all(1 <= number <= most for number, most in zip(grid, (2**31 - 1, 65535, 65535), strict=True))
        fits = all(1 <= number <= most for number, most in zip(block, (1024, 1024, 64), strict=True))
        if not error and not (small and fits and np.prod(block) <= 1024 and 0 <= sharedMemBytes <= 48 << 10):
            error = CUresult.CUDA_ERROR_INVALID_VALUE
        if error:
            return (error,)
        kinds = function.parameters
        pointers = (ctypes.c_void_p * len(kinds)).from_address(kernelParams)
        # Copied in the call, as the driver does.
        arguments = [kind.from_address(place).value for kind, place in zip(kinds, pointers, strict=True)]
        model, launch = MODELS[function.name], Launch(grid, block, sharedMemBytes)

        def run() -> None:
            assert function.module in self._modules, "a kernel of a module that was unloaded"
            model(Memory(self._gpu), launch, *arguments)
            self.launched.append(function.name)

        return (CUresult(int(self._gpu.submit(hStream, run))),)
