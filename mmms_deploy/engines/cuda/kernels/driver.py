"""The calls of the CUDA driver that load and launch kernels: every return code is checked, and a failure is named.

The calls are those of ``cuda.bindings.driver`` (NVIDIA's cuda-python). The runtime made the GPU's primary context and
made it current (:meth:`~mmms_deploy.engines.cuda.runtime.Cuda.activate`); the driver works in that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmms_deploy.engines.imports import import_library, in_words
from mmms_deploy.engines.wheels import install_command
from mmms_deploy.errors import CudaError

_NEWER_DRIVER = frozenset({209, 218, 222})
"""No machine code for this GPU, or PTX that the driver does not know."""

NOT_LOADED = -1
"""Code of a call that the bindings could not make at all, because a library or a function is not there."""


def import_driver() -> Any:
    """Import ``cuda.bindings.driver``, lazily.

    Raises:
        EngineUnavailableError: cuda-python is not installed or cannot be loaded.
    """
    expected, fix = "the package cuda-python beside the base install", install_command("cuda")
    needed = ("cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel")
    return import_library("cuda.bindings.driver", *needed, called="cuda-python", expected=expected, fix=fix)


class Driver:
    """The CUDA driver, in the context that is current in the calling thread.

    Args:
        library: The module ``cuda.bindings.driver``.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver and return its result without the code; None for a call without one.

        Raises:
            CudaError: The code is not success, or the call cannot be made.
        """
        try:
            code, *values = getattr(self._library, name)(*arguments)
        except (RuntimeError, OSError) as error:  # the bindings look for libcuda and its functions at the first call
            raise CudaError(
                f"{name} cannot be called: {in_words(error)}",
                call=name,
                code=NOT_LOADED,
                name="not loaded",
                expected="an NVIDIA driver that answers",
                fix="run mmms-doctor, and report the call with what it prints",
            ) from error
        if int(code) != 0:
            raise self._failure(name, code)
        return values[0] if values else None

    def _failure(self, call: str, code: Any) -> CudaError:
        text = self._library.cuGetErrorName(code)[1]
        name = text.decode(errors="replace") if isinstance(text, bytes) else str(text or f"error {int(code)}")
        newer = int(code) in _NEWER_DRIVER
        return CudaError(
            f"{call} failed with {name} ({int(code)})",
            call=call,
            code=int(code),
            name=name,
            expected="a driver that takes PTX 8.0, from 525 on" if newer else "a GPU that answers",
            fix="update the NVIDIA driver; mmms-doctor says which one is there"
            if newer
            else "run mmms-doctor, and report the call and the code with what it prints",
        )

    def load(self, image: bytes) -> Any:
        """Compile PTX for the GPU and load it.

        Args:
            image: The text of the PTX; a zero byte ends it.

        Returns:
            The module's handle.
        """
        return self._call("cuModuleLoadData", image)

    def unload(self, module: Any) -> None:
        """Unload a module; no kernel of it may run any more."""
        self._call("cuModuleUnload", module)

    def function(self, module: Any, name: str) -> Any:
        """Return the handle of a kernel of a module."""
        return self._call("cuModuleGetFunction", module, name.encode())

    def launch(
        self, function: Any, grid: Sequence[int], block: Sequence[int], shared: int, stream: Any, parameters: int
    ) -> None:
        """Enqueue a kernel on a stream.

        Args:
            function: The kernel.
            grid: Blocks along x, y and z.
            block: Threads of a block along x, y and z.
            shared: Bytes of dynamic shared memory of a block.
            stream: The stream; a capture of it records the launch.
            parameters: Address of an array of pointers to the arguments, which are copied in the call.
        """
        columns, rows, layers = grid
        x, y, z = block
        self._call("cuLaunchKernel", function, columns, rows, layers, x, y, z, shared, int(stream), parameters, 0)
