"""A GPU host with TensorRT and ONNX Runtime for CUDA, of fakes: what opening a bundle asks of them is on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import registry
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt import engine as tensorrt_engine
from mmms_deploy.engines.tensorrt import plans as tensorrt_plans
from tests.engines.tensorrt.test_engine import (
    Engine,
    ExecutionContextAllocationStrategy,
    TensorIOMode,
    TensorLocation,
)
from tests.standins.fake_cuda import FakeCuda
from tests.standins.fake_tensorrt import FakeTensorRT
from tests.support import fake_engine

VERSION = "11.4.0.106"
DRIVER = "580.65.06"


class CompilingAndRunning(FakeTensorRT):
    """TensorRT whose plans run, on ONNX Runtime's CPU and the fake CUDA runtime."""

    TensorLocation = TensorLocation
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__(VERSION)
        self.compiles_in = "Float"
        self.cuda = cuda
        self.refuse: set[str] = set()
        self.contexts = 0
        self.said: Callable[[str], None] = lambda text: None
        self._let_plans_run()

    @property
    def builds(self) -> int:
        """How often something was compiled."""
        return sum(call.startswith("aux streams") for call in self.calls)

    def _let_plans_run(self) -> None:
        """Let a plan hold the path of its graph."""
        trt = self
        parse, build = self.OnnxParser.parse_from_file, self.Builder.build_serialized_network
        deserialise = self.Runtime.deserialize_cuda_engine

        def parse_from_file(parser: Any, file: str) -> bool:
            parser._network.file = file
            return bool(parse(parser, file))

        def build_serialized_network(builder: Any, network: Any, config: Any) -> bytes | None:
            plan = build(builder, network, config)
            return None if plan is None else json.dumps({**json.loads(plan), "file": network.file}).encode()

        class Loaded(Engine):
            def __init__(self, plan: bytes) -> None:
                super().__init__(trt, json.loads(plan)["file"])  # type: ignore[arg-type]
                self.create_engine_inspector = deserialise(SimpleNamespace(), plan).create_engine_inspector

        self.OnnxParser.parse_from_file = parse_from_file
        self.Builder.build_serialized_network = build_serialized_network
        self.Runtime.deserialize_cuda_engine = lambda runtime, plan: Loaded(plan)

    def fails_with(self, words: str) -> None:
        """Let every build fail."""

        def fail(logger: Any) -> bool:
            logger.log(self.ILogger.Severity.ERROR, words)
            return True

        self.fail = fail


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

    cuda: FakeCuda
    trt: CompilingAndRunning
    patch: pytest.MonkeyPatch
    imports: int = 0
    broken: Exception | None = None
    opened: list[fake_engine.FakeGpu] = field(default_factory=list)

    def update_driver(self, release: str) -> None:
        self.patch.setattr(tensorrt_plans, "driver_release", lambda: release)

    def without(self, *names: str) -> None:
        """Take engines away."""
        self.patch.setattr(registry, "BACKENDS", tuple(b for b in registry.BACKENDS if b.name not in names))

    def load_tensorrt(self, name: str | None = None) -> CompilingAndRunning:
        self.imports += 1
        return self.trt

    def onnxruntime_cuda(self, bundle: Bundle, *args: Any, **options: Any) -> fake_engine.FakeGpu:
        if self.broken is not None:
            raise self.broken
        engine = fake_engine.on_gpu(bundle, *args, **options)
        engine._info = replace(engine.info, name="onnxruntime-cuda")
        self.opened.append(engine)
        return engine


def prepare(monkeypatch: pytest.MonkeyPatch) -> GpuHost:
    """Make this machine look like such a host; the engines on the CPU are the real ones."""
    cuda = FakeCuda()
    host = GpuHost(cuda, CompilingAndRunning(cuda), monkeypatch)
    monkeypatch.setattr(tensorrt_api, "_LOGGERS", {})
    for module in (devices, tensorrt_plans, tensorrt_engine):
        monkeypatch.setattr(module, "import_cuda", lambda: cuda)
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
