"""The engines of this version: what each computes in, what it needs, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import DRIVER_FILE, REQUESTED, require_gpu
from mmms_deploy.engines.process import library_call
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.wheels import (
    require_onnxruntime,
    require_onnxruntime_cuda,
    require_openvino,
    require_tensorrt,
)
from mmms_deploy.errors import EngineError, EngineUnavailableError
from mmms_deploy.progress import OnProgress

DEVICES = ("auto", "cpu", "cuda")
"""What ``device=`` takes; ``cuda:1`` is the second GPU."""


class _EngineClass(Protocol):
    def __call__(
        self, bundle: Bundle, precision: Precision, threads: int | None = None, reason: str = "", **options: Any
    ) -> Engine: ...


@dataclass(frozen=True)
class Backend:
    """An engine that can be chosen.

    Attributes:
        name: What ``engine=`` takes.
        device: The device it computes on.
        computes: What it can compute in, best first, and which of a bundle's graphs it loads for that.
        installed: Returns name and version of the distribution that it needs, or raises; imports nothing of it.
        module: The module of its class; imported when the engine is opened.
        factory: Name of the class in that module.
        not_compiled: Returns why opening it would first compile the bundle for minutes, given the number of a GPU;
            returns None when nothing has to be compiled. The field is None for engines that open at once.
    """

    name: str
    device: str
    computes: Mapping[Precision, Precision]
    installed: Callable[[], tuple[str, str]]
    module: str
    factory: str
    not_compiled: Callable[[Bundle, Precision, int], str | None] | None = None

    def open(
        self,
        bundle: Bundle,
        precision: Precision,
        request: EngineRequest,
        *,
        reason: str = "",
        may_build: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Engine:
        """Open the engine.

        Args:
            bundle: What to execute.
            precision: What to compute in.
            request: Threads, strictness and GPU; the choice of engine and precision is made already.
            reason: Why it was chosen, for its ``info``.
            may_build: Whether it may compile first, which takes minutes.
            on_progress: Receives every step of such a build, from another thread.

        Raises:
            EngineUnavailableError: It cannot be used here, or would have to compile and may not.
            BundleCorruptError: A graph is not what the manifest says.
        """
        factory = cast(_EngineClass, getattr(import_module(self.module), self.factory))
        options: dict[str, Any] = {}
        if self.device == "cuda":
            options["options"] = request.on_gpu()
        if self.not_compiled is not None:
            options |= {"may_build": may_build, "on_progress": on_progress}
        with library_call():
            return factory(bundle, precision, request.threads, reason, **options)

    def usable(self, ordinal: int = 0) -> tuple[str, str]:
        """Return name and version of its distribution, and for a GPU also which one, or raise.

        Args:
            ordinal: Number of the GPU.

        Raises:
            EngineUnavailableError: It is not installed, or there is no usable GPU.
            EngineConflictError: Two installed packages exclude each other.
        """
        name, version = self.installed()
        # A measurement on one GPU and driver says nothing about another.
        return name, f"{version} on {require_gpu(ordinal)}" if self.device == "cuda" else version


def _plans_missing(bundle: Bundle, precision: Precision, ordinal: int) -> str | None:
    from mmms_deploy.engines.tensorrt.plans import why_not_ready

    return why_not_ready(bundle, precision, ordinal)


BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="tensorrt",
        device="cuda",
        computes=MappingProxyType(
            {
                Precision.FP32: Precision.FP32,
                Precision.FP16: Precision.FP16,
                Precision.BF16: Precision.BF16,
            }
        ),
        installed=require_tensorrt,
        module="mmms_deploy.engines.tensorrt.engine",
        factory="TensorRtCuda",
        not_compiled=_plans_missing,
    ),
    Backend(
        name="onnxruntime-cuda",
        device="cuda",
        computes=MappingProxyType({Precision.FP32: Precision.FP32, Precision.FP16: Precision.FP16}),
        installed=require_onnxruntime_cuda,
        module="mmms_deploy.engines.onnxruntime.cuda",
        factory="OnnxRuntimeCuda",
    ),
    Backend(
        name="openvino",
        device="cpu",
        computes=MappingProxyType(
            {Precision.FP32: Precision.FP32, Precision.BF16: Precision.FP32, Precision.INT8: Precision.INT8}
        ),
        installed=require_openvino,
        module="mmms_deploy.engines.openvino.engine",
        factory="OpenVinoCpu",
    ),
    Backend(
        name="onnxruntime",
        device="cpu",
        computes=MappingProxyType(
            {Precision.FP32: Precision.FP32, Precision.FP16: Precision.FP16, Precision.INT8: Precision.INT8}
        ),
        installed=require_onnxruntime,
        module="mmms_deploy.engines.onnxruntime.cpu",
        factory="OnnxRuntimeCpu",
    ),
)
"""Every engine of this version, in the order in which they are taken when nothing was measured (docs/engines.md)."""


def why_not_cuda() -> str | None:
    """Return why no engine can use a GPU here, when this machine was prepared for one; None otherwise.

    A machine without an NVIDIA driver and without any package for CUDA was not meant to use a GPU.
    """
    reasons: dict[str, str] = {}
    for backend in BACKENDS:
        if backend.device != "cuda":
            continue
        try:
            backend.installed()
        except EngineError as error:
            reasons[backend.name] = error.given
            continue
        try:
            require_gpu()
        except EngineUnavailableError as error:
            return error.given.removeprefix(REQUESTED)
        return None
    return "; ".join(reasons.values()) if DRIVER_FILE.exists() else None
