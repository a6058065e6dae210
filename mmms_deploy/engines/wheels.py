"""Which wheels of the engines are installed, and whether two of ONNX Runtime overwrote each other.

``onnxruntime`` and ``onnxruntime-gpu`` install the same files under ``site-packages/onnxruntime``. pip does not see the
conflict: the wheel installed last wins, and which providers exist then is chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from mmms_deploy.errors import EngineConflictError, EngineUnavailableError
from mmms_deploy.installed import pip_install, requirement

FLAVOURS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""Distributions that ship the module ``onnxruntime``. Add-ons (onnxruntime-extensions, -genai, -ep-*) do not."""

WITH_CUDA = ("onnxruntime-gpu", "ort-nightly-gpu")
"""Those of them that ship the CUDA provider."""

OLDEST_CUDA = (1, 25)
"""The first release whose CUDA provider has kernels for all our nodes: before, Reshape and Transpose of opset 21 (until
1.23) and Resize of opset 19 (until 1.24) are computed on the CPU."""

TENSORRT_FLAVOURS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx", "tensorrt-rtx-cu13")
"""Distributions that ship the module ``tensorrt`` or ``tensorrt_rtx``, or stand for it."""

OPENVINO_FLAVOURS = ("openvino", "openvino-nightly")
"""Distributions that ship the module ``openvino``."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra, after the one that removes what excludes it.

    Args:
        extra: ``cpu`` or ``cuda``.
    """
    wrong = [name for name in installed_flavours() if (name in WITH_CUDA) != (extra == "cuda")]
    remove = f"pip uninstall -y {' '.join(wrong)}, then " if wrong else ""
    return f"{remove}{pip_install(extra)}"


def _require(library: str, flavours: tuple[str, ...], fix: str) -> tuple[str, str]:
    """Return name and version of the first distribution that is installed, without importing it."""
    for name in flavours:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise EngineUnavailableError(
        f"{library} is not installed",
        expected=f"the package {flavours[0]} beside the base install",
        fix=fix,
    )


def require_openvino() -> tuple[str, str]:
    """Return name and version of the installed distribution of OpenVINO.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    # Beside a wheel with CUDA, [cpu] would bring the other ONNX Runtime.
    alone = any(name in WITH_CUDA for name in installed_flavours())
    return _require("OpenVINO", OPENVINO_FLAVOURS, "pip install openvino" if alone else install_command("cpu"))


def require_tensorrt() -> tuple[str, str]:
    """Return name and version of the installed distribution of TensorRT.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    return _require("TensorRT", TENSORRT_FLAVOURS, install_command("cuda"))


def require_onnxruntime_cuda(installed: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return name and version of the one installed distribution of ONNX Runtime, which has to be one with CUDA.

    Args:
        installed: Versions by distribution; None asks the running environment.

    Raises:
        EngineUnavailableError: None is installed, or one without CUDA, or one that is too old.
        EngineConflictError: More than one is installed.
    """
    name, version = require_onnxruntime("cuda", installed=installed)
    if name not in WITH_CUDA:
        raise EngineUnavailableError(
            f"{name} {version} is a wheel without CUDA",
            expected="the package onnxruntime-gpu in its place",
            fix=f"pip uninstall -y {name}, then {pip_install('cuda')}",
        )
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_CUDA:
        raise EngineUnavailableError(
            f"{name} {version} computes parts of our graphs on the CPU",
            expected=f"{'.'.join(map(str, OLDEST_CUDA))} or newer",
            fix=f'pip install "{name}[cuda,cudnn]>={".".join(map(str, OLDEST_CUDA))}"',
        )
    return name, version


def installed_flavours() -> dict[str, str]:
    """Return the versions of the installed distributions that ship the module ``onnxruntime``, by name.

    Those in other folders than the one that is imported from (PYTHONPATH, ``pip install --target``) overwrite nothing
    and are left out.
    """
    found = {}
    for name in FLAVOURS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return found
    spec = PathFinder.find_spec("onnxruntime")
    imported = Path(spec.origin).parent.resolve() if spec is not None and spec.origin else None
    return {name: version for name, version in found.items() if _folder(name) in (None, imported)} or found


def _folder(name: str) -> Path | None:
    """Return the folder of the module that a distribution installed; None when it does not say."""
    try:
        return Path(str(metadata.distribution(name).locate_file("onnxruntime"))).resolve()
    except metadata.PackageNotFoundError:
        return None


def require_onnxruntime(extra: str = "cpu", *, installed: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return name and version of the one installed distribution of ONNX Runtime.

    Args:
        extra: The extra of mmms-deploy to recommend when none is installed, ``cpu`` or ``cuda``.
        installed: Versions by distribution; None asks the running environment.

    Raises:
        EngineUnavailableError: None is installed.
        EngineConflictError: More than one is installed.
    """
    found = dict(installed_flavours() if installed is None else installed)
    if not found:
        raise EngineUnavailableError(
            "ONNX Runtime is not installed",
            expected="one engine beside the base install",
            fix=pip_install(extra),
        )
    if len(found) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in found.items())
        other = "cuda" if extra == "cpu" else "cpu"
        raise EngineConflictError(
            f"{listed} are installed together; they overwrite each other's files",
            expected="exactly one distribution of ONNX Runtime",
            fix=(
                f"pip uninstall -y {' '.join(found)}, then {pip_install(extra)} (or {requirement(other)}, never both)"
            ),
        )
    return next(iter(found.items()))
