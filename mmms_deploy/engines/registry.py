"""The engines of this version, and which of them could execute a bundle on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import ASKED, DRIVER_FILE, require_gpu, split_device
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.verdicts import Verdict, read_verdict
from mmms_deploy.engines.wheels import (
    require_onnxruntime,
    require_onnxruntime_cuda,
    require_openvino,
    require_tensorrt,
)
from mmms_deploy.errors import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from mmms_deploy.engines.tensorrt.build import OnPhase

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
        module: Where it is; imported when it is chosen.
        factory: Name of the class in that module.
        not_compiled: Returns why opening it would compile a bundle first, for minutes, on the GPU of a number; None
            when that is done. None itself for engines that open at once.
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
        threads: int | None,
        reason: str = "",
        strict: bool = False,
        *,
        ordinal: int = 0,
        may_build: bool = True,
        on_progress: OnPhase | None = None,
    ) -> Engine:
        """Open the engine.

        Args:
            bundle: What to execute.
            precision: What to compute in.
            threads: CPU threads a stage computes with; None for the physical cores.
            reason: Why it was chosen, for its ``info``.
            strict: On a GPU, whether to refuse clicks that cannot be one CUDA graph instead of warning.
            ordinal: Number of the GPU.
            may_build: Whether it may compile for minutes first.
            on_progress: Told of every step while it compiles, from another thread; None for nobody.

        Raises:
            EngineUnavailableError: It cannot be used here, or would have to compile and may not.
            BundleCorruptError: A graph is not what the manifest says.
        """
        factory = cast(_EngineClass, getattr(import_module(self.module), self.factory))
        options: dict[str, Any] = {}
        if self.device == "cuda" and (strict or ordinal):
            options["options"] = CudaOptions(strict=strict, ordinal=ordinal)
        if self.not_compiled is not None:
            options |= {"may_build": may_build, "on_progress": on_progress}
        return factory(bundle, precision, threads, reason, **options)

    def usable(self, ordinal: int = 0) -> tuple[str, str]:
        """Return name and version of its distribution, and for a GPU also which one, or raise.

        Args:
            ordinal: Number of the GPU.

        Raises:
            EngineUnavailableError: It is not installed, or there is no usable GPU.
            EngineConflictError: Two installed packages exclude each other.
        """
        name, version = self.installed()
        # What was measured on one GPU and driver says nothing of another.
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
        computes=MappingProxyType({Precision.FP32: Precision.FP32, Precision.BF16: Precision.FP32}),
        installed=require_openvino,
        module="mmms_deploy.engines.openvino.engine",
        factory="OpenVinoCpu",
    ),
    Backend(
        name="onnxruntime",
        device="cpu",
        computes=MappingProxyType({Precision.FP32: Precision.FP32, Precision.FP16: Precision.FP16}),
        installed=require_onnxruntime,
        module="mmms_deploy.engines.onnxruntime.cpu",
        factory="OnnxRuntimeCpu",
    ),
)
"""Every engine of this version, in the order in which they are taken when nothing was measured (docs/engines.md)."""


@dataclass(frozen=True)
class Candidate:
    """An engine and a precision in which it could execute a bundle here.

    Attributes:
        backend: The engine.
        precision: What it would compute in.
        version: Version of its distribution, and for a GPU also which one.
        verdict: How it did in the bundle's golden replay on this machine; None when nobody tried.
        not_compiled: Why opening it would compile for minutes first; None when it opens at once, or nobody asked.
        may_build: Whether it may do so.
        ordinal: Number of the GPU.
    """

    backend: Backend
    precision: Precision
    version: str
    verdict: Verdict | None = None
    not_compiled: str | None = None
    may_build: bool = True
    ordinal: int = 0

    @property
    def exact(self) -> bool:
        """Whether it computes in float32."""
        return self.precision is Precision.FP32

    @property
    def passed(self) -> bool:
        """Whether it passed the golden replay on this machine."""
        return self.verdict is not None and self.verdict.passed

    @property
    def failed(self) -> bool:
        """Whether a mask differed in the golden replay on this machine.

        Masks that are all empty or full let no reduced precision pass, and say nothing against it.
        """
        return self.verdict is not None and self.verdict.iou < self.verdict.limit

    def asked(self, bundle: Bundle) -> Candidate:
        """Return the same, knowing whether it opens at once."""
        if self.backend.not_compiled is None:
            return self
        return replace(self, not_compiled=self.backend.not_compiled(bundle, self.precision, self.ordinal))

    def __str__(self) -> str:
        return f"{self.backend.name} in {self.precision}"


def backends(device: str, engine: str | None) -> list[Backend]:
    """Return the engines of that device and name, installed or not.

    Raises:
        EngineUnavailableError: There is none in this version.
    """
    listed = ", ".join(f"{b.name} ({b.device})" for b in BACKENDS)
    kind, _ = split_device(device)
    if kind not in DEVICES:
        raise EngineUnavailableError(
            f"device {device!r} was asked for",
            expected=f"one of {', '.join(DEVICES)}, cuda:1, cuda:2, ...",
            fix='pass device="auto"',
        )
    fitting = [b for b in BACKENDS if kind in ("auto", b.device)]
    if not fitting:
        raise EngineUnavailableError(
            f"device {device!r} was asked for, but this version of mmms-deploy has no engine for it",
            expected=f"a device with an engine: {listed}",
            fix='pass device="cpu" or device="auto"',
        )
    named = [b for b in fitting if engine in (None, b.name)]
    if not named:
        raise EngineUnavailableError(
            f"engine {engine!r} was asked for on device {device!r}",
            expected=f"one of {listed}",
            fix="pass engine=None to take the best for the device",
        )
    return named


def candidates(bundle: Bundle, device: str = "auto", engine: str | None = None) -> list[Candidate]:
    """Return every installed engine and precision that could execute a bundle, float32 first.

    Whether the CPU can compute in a precision shows when the engine is opened.

    Args:
        bundle: The bundle.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        engine: Name of an engine; None for all.

    Raises:
        EngineUnavailableError: There is none.
        EngineConflictError: Two installed packages exclude each other.
    """
    named, (_, ordinal) = backends(device, engine), split_device(device)
    if all(backend.device == "cuda" for backend in named):
        require_gpu(ordinal)  # without one, no wheel helps
    here: list[tuple[Backend, str]] = []
    missing: list[EngineUnavailableError] = []
    for backend in named:
        try:
            here.append((backend, backend.usable(ordinal)[1]))
        except EngineUnavailableError as error:
            missing.append(error)
    if not here and len(missing) == 1:
        raise missing[0]
    if not here:
        raise EngineUnavailableError(
            f"no engine is installed: {', '.join(error.given for error in missing)}",
            expected="one engine beside the base install",
            # That of the CPU, when both are possible: it works on every machine.
            fix=missing[-1].fix,
        )
    held = bundle.manifest.precisions
    found = [
        Candidate(backend, precision, version, ordinal=ordinal)
        for backend, version in here
        for precision, source in backend.computes.items()
        if source in held
    ]
    if not found:
        runs = dict.fromkeys(str(source) for backend, _ in here for source in backend.computes.values())
        raise EngineUnavailableError(
            f"{bundle.path} has graphs in {', '.join(held) or 'no precision in which every stage exists'}, of which"
            f" {' and '.join(backend.name for backend, _ in here)} can load none",
            expected=f"graphs in {' or '.join(runs)}",
            fix="export the checkpoint again",
        )
    found.sort(key=lambda candidate: not candidate.exact)
    return [replace(c, verdict=read_verdict(bundle, c.backend.name, c.version, c.precision)) for c in found]


def why_not_cuda() -> str | None:
    """Return why no engine can use a GPU here, when somebody prepared this machine for one; None otherwise.

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
            return error.given.removeprefix(ASKED)  # nobody asked
        return None
    return "; ".join(reasons.values()) if DRIVER_FILE.exists() else None
