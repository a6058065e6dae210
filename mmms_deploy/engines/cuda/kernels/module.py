"""Loads the kernels of this package on a GPU, and launches them.

A kernel is written in ``NAME.cu`` and ships as PTX, ``NAME.ptx``, beside it: text that the driver compiles for the GPU
at hand when it is loaded, and keeps in its own cache. So no compiler is needed where it runs, and a GPU of any later
architecture can run it. ``tools/kernel_ptx.py`` writes the PTX.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from mmms_deploy.engines.cuda.kernels.driver import Driver
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.errors import EngineError

FOLDER = Path(__file__).parent

Argument: TypeAlias = "ctypes.c_uint64 | ctypes.c_int32 | ctypes.c_uint32 | ctypes.c_float"
"""An argument of a kernel, of exactly the type that its source says: an address is a ``c_uint64``."""

Size3: TypeAlias = tuple[int, int, int]
"""Along x, y and z."""


def ptx(name: str) -> bytes:
    """Return the PTX of a module of kernels, as text that ends with a zero byte, which the driver needs."""
    return (FOLDER / f"{name}.ptx").read_bytes() + b"\0"


class Kernel:
    """A kernel that is loaded. May be used by several threads at the same time.

    Args:
        driver: The driver.
        function: Its handle.
        name: Its name, for messages.
    """

    def __init__(self, driver: Driver, function: Any, name: str) -> None:
        self._driver, self._function, self.name = driver, function, name

    def launch(self, grid: Size3, block: Size3, arguments: Sequence[Argument], stream: Any, *, shared: int = 0) -> None:
        """Enqueue one run on a stream; does not wait for it. In a capture of the stream it becomes part of the graph.

        Args:
            grid: How many blocks.
            block: How many threads a block has.
            arguments: One for each parameter, in order. They are copied.
            stream: The stream.
            shared: Bytes of dynamic shared memory of a block.

        Raises:
            CudaError: It was refused.
        """
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._driver.launch(self._function, grid, block, shared, stream, ctypes.addressof(pointers))


class KernelModules:
    """The modules of kernels on one GPU. Each is loaded once, when it is first needed, by any thread.

    The GPU's context has to be current in every thread that calls it
    (:meth:`~mmms_deploy.engines.cuda.runtime.Cuda.activate`).

    Args:
        cuda: The GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._lock = threading.Lock()
        self._modules: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], Kernel] = {}

    def kernel(self, module: str, name: str) -> Kernel:
        """Return a kernel; its module is loaded before, which may compile it. Not inside a capture.

        Args:
            module: Name of the module: of its files in this folder, without the suffix.
            name: Name of the kernel.

        Raises:
            CudaError: It cannot be loaded.
            EngineUnavailableError: cuda-python's calls of the driver cannot be imported.
        """
        driver = self._cuda.driver
        with self._lock:
            known = self._kernels.get((module, name))
            if known is not None:
                return known
            if module not in self._modules:
                self._modules[module] = driver.load(ptx(module))
            kernel = Kernel(driver, driver.function(self._modules[module], name), name)
            self._kernels[module, name] = kernel
            return kernel

    def close(self) -> None:
        """Unload all modules, once no kernel runs any more. Safe to call twice; it ignores errors, as at the end."""
        with self._lock:
            self._kernels = {}
            if self._modules:
                with suppress(EngineError):
                    self._cuda.activate()
            while self._modules:
                _, module = self._modules.popitem()
                with suppress(EngineError):
                    self._cuda.driver.unload(module)
