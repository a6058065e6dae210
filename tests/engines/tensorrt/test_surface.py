"""Every name of TensorRT's API that the code uses exists in 10.12, 10.16, 11.4 and RTX, as their own wheels say."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import pytest

import mmms_deploy.engines
from tests.standins.tensorrt import TensorRtStandIn

ENGINES = Path(mmms_deploy.engines.__file__).parent
FILES = sorted((ENGINES / "tensorrt").glob("*.py"))
SURFACES: Mapping[str, Mapping[str, list[str]]] = {
    file.stem: json.loads(file.read_text())["names"]
    for file in sorted((ENGINES / "tensorrt" / "surface").glob("*.json"))
}
RTX = "tensorrt-rtx-1.7"
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "fault": "ParserError",
    "runtime": "Runtime",
    "inspector": "EngineInspector",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "timing": "ITimingCache",
    "layer": "ILayer",
    "norm": "INormalizationLayer",
    "tensor": "ITensor",
}
"""The names of variables for objects of the library, and the classes of these objects."""
NOT_THE_LIBRARYS = {"inspect.py": {"network", "tensor", "layer"}}
"""Files in which such a name is one of our own objects."""


def uses(tree: ast.Module, file: str = "") -> Iterator[tuple[str, str, bool]]:
    """Yield each used name of the module, a member of it or nothing, and whether the code checks with ``hasattr``."""
    for outer in tree.body:
        asked = "hasattr" in ast.unparse(outer)
        for node in ast.walk(outer):
            if isinstance(node, ast.Attribute):
                base = node.value
                name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
                name = name.lstrip("_")
                if name == "trt":
                    yield node.attr, "", asked
                elif isinstance(base, ast.Attribute) and _is_trt(base.value):
                    yield base.attr, node.attr, asked
                elif name in OBJECTS and name not in NOT_THE_LIBRARYS.get(file, set()):
                    yield OBJECTS[name], node.attr, asked


def _is_trt(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lstrip("_") == "trt"


def missing(owner: str, member: str) -> list[str]:
    """Which releases do not have it."""
    if owner.startswith("__") or member.startswith("__"):
        return []
    return [
        name for name, surface in SURFACES.items() if owner not in surface or (member and member not in surface[owner])
    ]


def faults(tree: ast.Module, file: str = "") -> list[str]:
    found = []
    for owner, member, asked in uses(tree, file):
        absent = missing(owner, member)
        if absent and not (asked and RTX not in absent):
            found.append(f"{owner}.{member} is not in {', '.join(absent)}")
    return found


def test_the_lists_are_there_and_long() -> None:
    assert set(SURFACES) == {"tensorrt-10.12", "tensorrt-10.16", "tensorrt-11.4", RTX}
    assert all(len(surface) > 200 for surface in SURFACES.values())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_name_exists_in_every_release(file: Path) -> None:
    assert faults(ast.parse(file.read_text()), file.name) == []


def test_the_build_uses_the_library() -> None:
    """The check above would pass if it found nothing to check."""
    found = set()
    for name in ("build.py", "network.py", "norms.py", "api.py"):
        found |= {
            (owner, member) for owner, member, _ in uses(ast.parse((ENGINES / "tensorrt" / name).read_text()), name)
        }
    assert len(found) > 50
    for use in (
        ("Builder", "build_serialized_network"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ParserError", "node_name"),
        ("LayerInformationFormat", "JSON"),
        ("ILayer", "metadata"),
        ("INetworkDefinition", "add_cast"),
        ("INormalizationLayer", "set_input"),
        ("ICudaEngine", "create_engine_inspector"),
    ):
        assert use in found


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("trt.BuilderFlag.FP16", "BuilderFlag.FP16 is not in tensorrt-11.4, tensorrt-rtx-1.7"),
        ("config.set_calibration_profile()", "tensorrt-11.4"),
        ("self._trt.ComputeCapability", "ComputeCapability. is not in tensorrt-10.12, tensorrt-10.16, tensorrt-11.4"),
        ("def f(engine): engine.device_memory_size", "ICudaEngine.device_memory_size is not in"),
        ("def f():\n if hasattr(trt, 'X'): trt.NoSuchThing", "NoSuchThing"),
    ],
)
def test_a_name_of_some_releases_is_found(code: str, fault: str) -> None:
    (found,) = faults(ast.parse(code))
    assert fault in found


def test_a_name_of_rtx_is_allowed_where_the_code_asks_for_it() -> None:
    assert faults(ast.parse("def f():\n if hasattr(trt, 'ComputeCapability'): trt.ComputeCapability.SM89")) == []


def test_no_flag_is_a_number() -> None:
    """STRONGLY_TYPED is 1 in TensorRT 10 and 0 in 11, and every BuilderFlag behind FP16 moved."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            takes_flags = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if takes_flags and node.func.attr in ("create_network", "set_flag", "clear_flag"):
                assert not any(isinstance(part, ast.Constant) for part in node.args), ast.unparse(node)


def test_the_stand_in_has_no_name_of_its_own() -> None:
    """Its enumerations are read off the list of its release, so that only classes can have one."""
    standin = TensorRtStandIn()
    for owner, item in vars(standin).items():
        if inspect.isclass(item) and not issubclass(item, Enum):
            for member in vars(item):
                if not member.startswith("_"):
                    assert missing(owner, member) == [], f"{owner}.{member}"


def test_the_list_of_rtx_is_what_is_installed() -> None:
    module = pytest.importorskip("tensorrt_rtx")
    if not module.__version__.startswith("1.7."):
        pytest.skip(f"TensorRT-RTX {module.__version__} is installed")
    names = {name for name, item in vars(module).items() if not name.startswith("_") and not inspect.ismodule(item)}
    assert names == set(SURFACES[RTX])
