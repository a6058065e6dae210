"""A GPU host with TensorRT and ONNX Runtime for CUDA, of stand-ins, which record what opening a bundle calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import registry
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda import runtime as cuda_runtime
from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt import engine as tensorrt_engine
from mmms_deploy.engines.tensorrt import plans as tensorrt_plans
from tests.standins.cuda import CudaStandIn
from tests.standins.tensorrt import TensorRtStandIn
from tests.support import standin_engine

VERSION = "11.4.0.106"
DRIVER = "580.65.06"


@dataclass
class GpuHost:
    """The host.

    Attributes:
        cuda: Its CUDA runtime.
        trt: Its TensorRT.
        imports: How often TensorRT was imported.
        opened: Engines of ONNX Runtime CUDA that were opened.
        broken: Why ONNX Runtime CUDA cannot be opened; None when it can.
    """

    cuda: CudaStandIn
    trt: TensorRtStandIn
    patch: pytest.MonkeyPatch
    imports: int = 0
    broken: Exception | None = None
    opened: list[standin_engine.StandInEngine] = field(default_factory=list)

    def update_driver(self, release: str) -> None:
        self.patch.setattr(tensorrt_plans, "driver_release", lambda: release)

    def without(self, *names: str) -> None:
        """Take engines away."""
        self.patch.setattr(registry, "BACKENDS", tuple(b for b in registry.BACKENDS if b.name not in names))

    def load_tensorrt(self, name: str | None = None) -> TensorRtStandIn:
        self.imports += 1
        return self.trt

    def onnxruntime_cuda(self, bundle: Bundle, *args: Any, **options: Any) -> standin_engine.StandInEngine:
        if self.broken is not None:
            raise self.broken
        engine = standin_engine.on_gpu(bundle, *args, **options)
        engine._info = replace(engine.info, name="onnxruntime-cuda")
        self.opened.append(engine)
        return engine


def prepare(monkeypatch: pytest.MonkeyPatch) -> GpuHost:
    """Make this machine look like such a host; the engines on the CPU are the real ones."""
    cuda = CudaStandIn()
    host = GpuHost(cuda, TensorRtStandIn(VERSION, cuda), monkeypatch)
    host.trt.inner_phases = False
    monkeypatch.setattr(tensorrt_api, "_LOGGERS", {})
    for module in (devices, tensorrt_plans, tensorrt_engine):
        monkeypatch.setattr(module, "import_cuda", lambda: cuda)
    monkeypatch.setattr(cuda_runtime, "import_driver", lambda: cuda.driver_calls)
    for module in (tensorrt_plans, tensorrt_engine):
        monkeypatch.setattr(module, "load_tensorrt", host.load_tensorrt)
    host.update_driver(DRIVER)
    monkeypatch.setattr(f"{__name__}.open_onnxruntime_cuda", host.onnxruntime_cuda, raising=False)
    changed = {
        "tensorrt": {"installed": lambda: ("tensorrt", VERSION)},
        "onnxruntime-cuda": {
            "installed": lambda: ("onnxruntime-gpu", "1.31.1"),
            "module": __name__,
            "factory": "open_onnxruntime_cuda",
        },
    }
    found = [replace(backend, **changed.get(backend.name, {})) for backend in registry.BACKENDS]
    monkeypatch.setattr(registry, "BACKENDS", tuple(found))
    return host
