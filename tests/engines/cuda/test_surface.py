"""Every call of CUDA in the code exists, with as many arguments, in NVIDIA's bindings 12.6 to 13.5."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda import runtime as cuda_runtime
from mmms_deploy.engines.cuda.kernels import driver as cuda_driver
from tests.standins.cuda import CudaStandIn
from tests.standins.cuda_driver import DriverStandIn

DRIVER = {"cuGetErrorName", "cuLaunchKernel", "cuModuleGetFunction", "cuModuleLoadData", "cuModuleUnload"}

SURFACES: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "surface").glob("*.json"))
}
"""By release, as tools/cuda_api_lists.py read them off the wheels."""


def uses(tree: ast.Module) -> Iterator[tuple[str, int | None]]:
    """Yield the names of the runtime that are used, with the number of arguments where they are called."""
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "_call" and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), len(node.args) - 1
        elif _is_library(node.func.value):
            called.add(node.func)
            yield node.func.attr, len(node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in called:
            if _is_library(node.value):
                yield node.attr, None
            elif isinstance(node.value, ast.Attribute) and _is_library(node.value.value):
                yield f"{node.value.attr}.{node.attr}", None


def _is_library(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") == "library"


def missing(name: str, arguments: int | None, surface: dict[str, Any]) -> bool:
    if arguments is not None:
        parameters = {**surface["functions"], **surface["driver"]}.get(name)
        return parameters is None or len(parameters) != arguments
    enum, _, member = name.partition(".")
    return member not in surface["enums"][enum] if member else name not in {**surface["constants"], **surface["enums"]}


@pytest.mark.parametrize("release", SURFACES)
def test_what_is_called_exists(release: str) -> None:
    found = set()
    for module in (cuda_runtime, devices, cuda_driver):
        found |= set(uses(ast.parse(Path(module.__file__).read_text())))
    assert [use for use in sorted(found, key=str) if missing(*use, SURFACES[release])] == []
    assert {name for name, _ in found if not name.startswith("cuda")} == DRIVER
    assert len(found) > 30, "the check would pass if it found nothing to check"
    for use in (
        ("cudaMemcpyAsync", 5),
        ("cudaGraphInstantiate", 2),
        ("cudaGetDeviceProperties", 1),
        ("cudaStreamNonBlocking", None),
        ("cudaMemcpyKind.cudaMemcpyDeviceToHost", None),
    ):
        assert use in found


@pytest.mark.parametrize(
    "code",
    [
        "self._call('cudaMalloc')",
        "library.cudaGraphNothing(1)",
        "self._library.cudaHostAllocNothing",
        "library.cudaMemcpyKind.x",
    ],
)
def test_a_call_that_does_not_exist_is_found(code: str) -> None:
    assert all(any(missing(*use, surface) for use in uses(ast.parse(code))) for surface in SURFACES.values())


@pytest.mark.parametrize("release", SURFACES)
def test_codes_and_facts_are_what_the_code_takes_them_for(release: str) -> None:
    surface = SURFACES[release]
    errors = {number: name for name, number in surface["enums"]["cudaError_t"].items()}
    newer = {721}  # since CUDA 12.8
    assert (cuda_runtime._LOST | cuda_runtime._FIXES.keys() | devices._FIXES.keys()) - newer <= errors.keys()
    assert errors[cuda_runtime.OUT_OF_MEMORY] == "cudaErrorMemoryAllocation"
    assert errors[devices._INSUFFICIENT_DRIVER] == "cudaErrorInsufficientDriver"
    assert errors[devices._NO_DEVICE] == "cudaErrorNoDevice"
    assert {"name", "major", "minor", "totalGlobalMem"} <= set(surface["cudaDeviceProp"])


@pytest.mark.parametrize("release", SURFACES)
def test_the_stand_in_has_no_call_of_its_own(release: str) -> None:
    surface = SURFACES[release]
    for name, item in vars(CudaStandIn).items():
        if name.startswith("cuda") and callable(item) and not isinstance(item, type):
            assert item.__code__.co_argcount - 1 == len(surface["functions"][name]), name
    for name, item in vars(DriverStandIn).items():
        if name.startswith("cu"):
            assert list(item.__code__.co_varnames[1 : item.__code__.co_argcount]) == surface["driver"][name], name
