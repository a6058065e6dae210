"""A GPU whose clock is scripted: the fake CUDA runtime with events, and stages that take as long as they are told."""

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
from tests.standins.fake_cuda import Error, FakeCuda
from tests.support.fake_engine import GPU_BACKENDS, FakeGpu

MILLISECONDS = {("image", True): 20.0, ("image", False): 20.0, ("click", True): 2.0, ("click", False): 5.0}
"""What a stage takes on the GPU, by its name and whether clicks are CUDA graphs."""
LIBRARIES = 3 << 20
"""Bytes that the library takes in nobody's account."""


class ClockedCuda(FakeCuda):
    def __init__(self) -> None:
        super().__init__(room=1 << 30)
        self.now = 0.0
        self.clock = lambda: self.now
        self.taken = 0

    def cudaMemGetInfo(self) -> tuple[Error, int | None, int | None]:
        error, free, total = super().cudaMemGetInfo()
        return error, None if free is None else free - self.taken, total


class Clocked:
    """A stage's session whose runs take their time."""

    def __init__(self, session: Any, fake: ClockedCuda, milliseconds: float) -> None:
        self.session = session
        self.fake = fake
        self.milliseconds = milliseconds

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any) -> None:
        self.fake.now += self.milliseconds
        self.session.run_with_iobinding(binding)


class ClockedGpu(FakeGpu):
    fake: ClockedCuda

    def __init__(self, *args: Any, fake: ClockedCuda, options: CudaOptions | None = None, **kwargs: Any) -> None:
        super().__init__(*args, fake=fake, options=options, **kwargs)
        self._info = replace(self.info, device="cuda", threads=None)
        for name, program in self.programs.items():
            program.session = Clocked(program.session, fake, MILLISECONDS[name, self.options.cuda_graph])
        fake.taken += LIBRARIES

    def close(self) -> None:
        if not self._closed:
            self.fake.taken -= LIBRARIES
        super().close()


def install(monkeypatch: pytest.MonkeyPatch, *, shared: bool = False) -> ClockedCuda:
    """Make it the GPU of this machine, and its engine the only one."""
    fake = ClockedCuda()
    fake.taken = 100 << 20

    class Engine(ClockedGpu):
        def __init__(
            self, bundle: Any, precision: Precision, threads: Any = None, reason: str = "", *, options: Any = None
        ) -> None:
            super().__init__(bundle, precision, threads, reason, fake=fake, options=options, shared=shared)

    found: Callable[[], ClockedCuda] = lambda: fake  # noqa: E731
    monkeypatch.setattr(registry, "BACKENDS", (replace(GPU_BACKENDS[0], module=__name__, factory="clocked"),))
    monkeypatch.setattr(f"{__name__}.clocked", Engine, raising=False)
    monkeypatch.setattr(devices, "import_cuda", found)
    monkeypatch.setattr(memory, "import_cuda", found)
    return fake
