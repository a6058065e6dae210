"""A GPU whose clock is scripted: stages on the CUDA stand-in that take as long as this module says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mmms_deploy.bench import memory
from mmms_deploy.bundle import Precision
from mmms_deploy.engines import registry
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda.options import CudaOptions
from tests.standins.cuda import CudaStandIn
from tests.support.standin_engine import GPU_BACKENDS, StandInEngine

MILLISECONDS = {("image", True): 20.0, ("image", False): 20.0, ("click", True): 2.0, ("click", False): 5.0}
"""What a stage takes on the GPU, by its name and whether clicks are CUDA graphs."""
LIBRARIES = 3 << 20
"""Bytes that the library takes and no account shows."""


class ClockedCuda(CudaStandIn):
    """Its events take the time ``now``, in milliseconds."""

    def __init__(self) -> None:
        super().__init__(room=1 << 30, reserved=100 << 20)
        self.now = 0.0
        self.clock = lambda: self.now


class Clocked:
    """A stage's session whose runs take their time."""

    def __init__(self, session: Any, standin: ClockedCuda, milliseconds: float) -> None:
        self.session = session
        self.standin = standin
        self.milliseconds = milliseconds

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any) -> None:
        self.standin.now += self.milliseconds
        self.session.run_with_iobinding(binding)


class ClockedGpu(StandInEngine):
    standin: ClockedCuda

    def __init__(self, *args: Any, standin: ClockedCuda, options: CudaOptions | None = None, **kwargs: Any) -> None:
        super().__init__(*args, standin=standin, options=options, **kwargs)
        self._info = replace(self.info, device="cuda", threads=None)
        for name, program in self.programs.items():
            program.session = Clocked(program.session, standin, MILLISECONDS[name, self.options.cuda_graph])
        standin.reserve(LIBRARIES)

    def close(self) -> None:
        if not self._closed:
            self.standin.reserve(-LIBRARIES)
        super().close()


def install(monkeypatch: pytest.MonkeyPatch, *, shared: bool = False) -> ClockedCuda:
    """Make it the GPU of this machine, and its engine the only one."""
    standin = ClockedCuda()

    class Engine(ClockedGpu):
        def __init__(
            self, bundle: Any, precision: Precision, threads: Any = None, reason: str = "", *, options: Any = None
        ) -> None:
            super().__init__(bundle, precision, threads, reason, standin=standin, options=options, shared=shared)

    found: Callable[[], ClockedCuda] = lambda: standin  # noqa: E731
    monkeypatch.setattr(registry, "BACKENDS", (replace(GPU_BACKENDS[0], module=__name__, factory="clocked"),))
    monkeypatch.setattr(f"{__name__}.clocked", Engine, raising=False)
    monkeypatch.setattr(devices, "import_cuda", found)
    monkeypatch.setattr(memory, "import_cuda", found)
    return standin
