"""The engines that tests run on, in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines import registry
from mmms_deploy.engines.cuda.engine import CudaEngine
from tests.support import standin_engine

Open = Callable[..., CudaEngine]
"""The fixture that opens an engine on a real GPU for a bundle."""

CPU_ENGINES = [
    pytest.param((backend.name, precision), id=f"{backend.name}-{precision}")
    for backend in registry.BACKENDS
    if backend.device == "cpu"
    for precision, source in backend.computes.items()
    if source is Precision.FP32
]
"""Every engine on the CPU in every precision that it computes from float32 graphs."""

CUDA_ENGINES = [pytest.param((backend.name, Precision.FP32), id=backend.name) for backend in standin_engine.BACKENDS]
"""What runs on CUDA, as TensorRT and as ONNX Runtime use it, on the CUDA stand-in."""


def skip_without(name: str, precision: Precision) -> None:
    if name == "openvino" and precision is Precision.BF16:
        from mmms_deploy.engines.openvino.library import bf16_capable

        if not bf16_capable():
            pytest.skip("this CPU has no instructions for bf16 (AVX512_BF16 or AMX)")
