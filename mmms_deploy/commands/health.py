"""Which engines work on this machine: the facts behind ``mmms-doctor``. Imports no torch and opens no bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from mmms_deploy import telemetry
from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.cuda.devices import Gpu, Probe, probe
from mmms_deploy.engines.imports import in_words
from mmms_deploy.engines.machine import MachineFacts, describe_machine
from mmms_deploy.engines.registry import BACKENDS, Backend
from mmms_deploy.engines.wheels import FLAVOURS, OPENVINO_FLAVOURS, TENSORRT_FLAVOURS, installed_flavours
from mmms_deploy.errors import EngineError, EngineUnavailableError
from mmms_deploy.files.cache import cache_folder, why_off
from mmms_deploy.installed import pip_install

CUDNN = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
"""Distributions of cuDNN, which write the same files."""
PACKAGES = (
    "mmms-deploy",
    "numpy",
    "pillow",
    *FLAVOURS,
    *OPENVINO_FLAVOURS,
    *TENSORRT_FLAVOURS,
    "tensorrt-cu13-bindings",
    "tensorrt-cu13-libs",
    "tensorrt-cu12-bindings",
    "tensorrt-cu12-libs",
    "cuda-python",
    "cuda-bindings",
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    *CUDNN,
    "onnx",
    "torch",
    "timm",
)
"""Packages that matter to an engine or to exporting."""


class EngineHealth(Struct, frozen=True, kw_only=True):
    """Whether an engine works on this machine.

    Attributes:
        name: What ``engine=`` takes.
        device: The device it computes on.
        works: Whether it can be opened.
        library: Its library and version, and for a GPU also which one; empty when it does not work.
        precisions: What it can compute in here, best first.
        why: Why it does not work, or in which precisions it cannot compute; empty when there is nothing to say.
        fix: How to fix that.
    """

    name: str
    device: str
    works: bool
    library: str = ""
    precisions: tuple[str, ...] = ()
    why: str = ""
    fix: str = ""


class GpuHealth(Struct, frozen=True, kw_only=True):
    """What CUDA reports.

    Attributes:
        gpus: The GPUs that can be used, as text.
        problem: Why there are none; empty when there are.
        fix: How to fix that.
        driver: Release of the NVIDIA driver; None when none is loaded, or the system does not say.
        cuda: The newest CUDA version that the driver runs.
        runtime: The CUDA version that cuda-python was made for.
    """

    gpus: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""
    driver: str | None = None
    cuda: str | None = None
    runtime: str | None = None


class Health(Struct, frozen=True, kw_only=True):
    """The whole picture.

    Attributes:
        machine: System, processor and memory.
        gpu: GPUs and their driver.
        packages: Versions of the installed packages that matter, by name.
        engines: Every engine of this version.
        conflicts: Packages that exclude each other, each with the command that fixes it.
        cache: Where compiled graphs and verdicts are kept; None when caching is off.
        cache_problem: Why nothing can be kept there; empty when it can.
        telemetry: Whether the engines' libraries send telemetry, in words.
    """

    machine: MachineFacts
    gpu: GpuHealth
    packages: dict[str, str]
    engines: tuple[EngineHealth, ...]
    conflicts: tuple[str, ...] = ()
    cache: str | None = None
    cache_problem: str = ""
    telemetry: str = ""

    @property
    def works(self) -> bool:
        """Whether at least one engine works."""
        return any(engine.works for engine in self.engines)


def examine() -> Health:
    """Examine this machine; libraries are imported, and nothing stays on a GPU."""
    found = probe()
    packages = _packages()
    folder = cache_folder()
    return Health(
        machine=describe_machine(),
        gpu=_gpu_health(found),
        packages=packages,
        engines=tuple(_engine_health(backend, found) for backend in BACKENDS),
        conflicts=tuple(_conflicts(found, packages)),
        cache=None if folder is None else str(folder),
        cache_problem=why_off() or "",
        telemetry=telemetry.describe(),
    )


def _conflicts(found: Probe, packages: Mapping[str, str]) -> Iterator[str]:
    """Yield the packages that are installed together and write the same files, with the command that fixes it."""
    extra = "cpu" if not found.gpus else "cuda12" if (found.cuda or "").startswith("12.") else "cuda"
    # Without a GPU no library loads cuDNN.
    cudnn = {name: packages[name] for name in CUDNN if name in packages and found.gpus}
    for together in (installed_flavours(), cudnn):
        if len(together) > 1:
            listed = " and ".join(f"{name} {version}" for name, version in together.items())
            yield (
                f"{listed} are installed together and overwrite each other's files: pip uninstall -y"
                f" {' '.join(together)}, then {pip_install(extra)}"
            )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gpu_health(found: Probe) -> GpuHealth:
    return GpuHealth(
        gpus=tuple(f"{gpu}, {gpu.memory / 2**30:.0f} GiB" for gpu in found.gpus),
        problem=found.given,
        fix=found.fix,
        driver=found.driver,
        cuda=found.cuda,
        runtime=found.runtime,
    )


def _engine_health(backend: Backend, found: Probe) -> EngineHealth:
    can: tuple[Precision, ...] = tuple(backend.computes)
    gpu = found.gpus[0] if found.gpus else None
    try:
        if backend.device == "cuda" and gpu is None:
            # Without a GPU, the advice on wheels does not help.
            raise EngineUnavailableError(found.given, fix=found.fix)
        backend.installed()
        library, can, why, fix = _CHECKS[backend.name](can, gpu)
    except EngineError as error:
        return EngineHealth(
            name=backend.name, device=backend.device, works=False, why=error.given, fix=str(error.fix or "")
        )
    # A library that is broken in a way of its own must not hide what works beside it.
    except Exception as error:
        why = f"its library is installed but broken: {in_words(error)}"
        return EngineHealth(
            name=backend.name,
            device=backend.device,
            works=False,
            why=why,
            fix="install it again with --force-reinstall",
        )
    return EngineHealth(
        name=backend.name,
        device=backend.device,
        works=True,
        library=library,
        precisions=tuple(str(precision) for precision in can),
        why=why,
        fix=fix,
    )


_Found = tuple[str, tuple[Precision, ...], str, str]
"""Library, precisions, what cannot be done, and how to fix that."""


def _openvino(can: tuple[Precision, ...], gpu: Gpu | None) -> _Found:
    from mmms_deploy.engines.openvino.library import bf16_capable, import_openvino

    version = str(import_openvino().__version__).partition("-")[0]
    if not bf16_capable():
        can = tuple(precision for precision in can if precision is not Precision.BF16)
        return f"OpenVINO {version}", can, "no bf16: this CPU has neither AVX512_BF16 nor AMX", ""
    return f"OpenVINO {version}", can, "", ""


def _onnxruntime(can: tuple[Precision, ...], gpu: Gpu | None) -> _Found:
    from mmms_deploy.engines.onnxruntime.cpu import PROVIDER, import_onnxruntime

    ort = import_onnxruntime()
    _require_provider(ort, PROVIDER)
    return f"ONNX Runtime {ort.__version__}", can, "", ""


def _onnxruntime_cuda(can: tuple[Precision, ...], gpu: Gpu | None) -> _Found:
    from mmms_deploy.engines.onnxruntime.binding import CUDA
    from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
    from mmms_deploy.engines.onnxruntime.libraries import INSTALL, preload, try_provider

    ort = import_onnxruntime()
    missing = preload(ort)
    _require_provider(ort, CUDA.provider)
    made_for, runs = getattr(ort, "cuda_version", "") or "", "" if gpu is None else gpu.cuda
    if made_for and runs and _major(made_for) > _major(runs):
        raise EngineUnavailableError(
            f"ONNX Runtime {ort.__version__} is for CUDA {made_for}, and the driver runs CUDA {runs} at most",
            expected="a driver for that CUDA",
            fix=f"update the NVIDIA driver to one for CUDA {made_for}, or install packages for the older CUDA",
        )
    if missing:
        raise EngineUnavailableError(
            f"libraries of CUDA are missing: {missing}",
            expected="CUDA and cuDNN as onnxruntime-gpu was built for",
            fix=INSTALL,
        )
    # The provider is loaded only now, whatever the packages claim; the reason of a failure goes to standard error.
    ort.set_default_logger_severity(4)
    refused = try_provider(ort, CUDA.provider, 0 if gpu is None else gpu.ordinal)
    if refused:
        raise EngineUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot use the GPU: {refused}", expected="its CUDA provider", fix=INSTALL
        )
    return f"ONNX Runtime {ort.__version__} on {gpu}", can, "", ""


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


def _require_provider(ort: Any, provider: str) -> None:
    available = list(ort.get_available_providers())
    if provider not in available:
        raise EngineUnavailableError(
            f"ONNX Runtime {ort.__version__} has no {provider}, but {', '.join(available)}",
            expected=provider,
            fix="pip install --force-reinstall the package of ONNX Runtime that is installed",
        )


def _tensorrt(can: tuple[Precision, ...], gpu: Gpu | None) -> _Found:
    from mmms_deploy.engines.tensorrt.api import describe, load_tensorrt
    from mmms_deploy.engines.tensorrt.resources import missing_resource

    trt = load_tensorrt()
    about = describe(trt)
    if gpu is not None and about.ahead_of_time:
        architecture = f"SM{gpu.capability[0]}{gpu.capability[1]}"
        if not hasattr(trt.ComputeCapability, architecture):
            raise EngineUnavailableError(
                f"{about} does not run on {gpu}", expected="a GPU that it knows", fix="pip install tensorrt"
            )
    if gpu is not None and not about.ahead_of_time and (missing := missing_resource(gpu.capability)) is not None:
        raise EngineUnavailableError(
            f"{about} cannot compile for {gpu}: {missing}", expected=missing.name, fix=missing.fix(about.version)
        )
    return f"{about} on {gpu}", can, "", ""


_CHECKS: Mapping[str, Callable[[tuple[Precision, ...], Gpu | None], _Found]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "tensorrt": _tensorrt,
}
