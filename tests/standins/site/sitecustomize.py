"""Puts the stand-ins of a GPU host into this process; see tests/support/rehearsal.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

TENSORRT = os.environ.get("MMMS_REHEARSAL_TENSORRT", "11.4.0.106")
VERSIONS = {"tensorrt": TENSORRT, "cuda-python": "13.0.3"}


def _distributions() -> None:
    """Report onnxruntime-gpu in the place of onnxruntime, and the other packages of a GPU host."""
    usual = metadata.Distribution.from_name

    def from_name(name: str) -> Any:
        absent = name == "onnxruntime" or name.startswith("tensorrt-")  # TensorRT for RTX, where it is installed
        if absent or (name == "tensorrt" and TENSORRT == "off"):
            raise metadata.PackageNotFoundError(name)
        if name == "onnxruntime-gpu":
            return usual("onnxruntime")
        if name in VERSIONS:
            return SimpleNamespace(version=VERSIONS[name], metadata={"Name": name, "Version": VERSIONS[name]})
        return usual(name)

    metadata.Distribution.from_name = staticmethod(from_name)  # type: ignore[assignment, method-assign]


def _onnxruntime(module: ModuleType) -> None:
    from tests.standins.onnxruntime import give_cuda

    give_cuda(module)


def _eager(module: Any) -> None:
    """Let PyTorch's GPU be the CPU."""

    class EagerOnCpu(module.EagerMMMS):  # type: ignore[misc]
        def __init__(self, manifest: Any, threads: int, device: str = "cpu") -> None:
            super().__init__(manifest, threads)

    module.EagerMMMS = EagerOnCpu


class Afterwards(MetaPathFinder):
    """Changes modules when they have been imported."""

    changes: ClassVar[dict[str, Callable[[Any], None]]] = {"onnxruntime": _onnxruntime}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        change = self.changes.get(name)
        spec = None if change is None else PathFinder.find_spec(name, path)
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("MMMS_REHEARSAL_TORCH") == "on":
    Afterwards.changes["mmms_deploy.bench.eager"] = _eager
_distributions()
sys.meta_path.insert(0, Afterwards())
