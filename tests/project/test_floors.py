"""The floors of the package: imports only run downward, without a circle, and heavy libraries load when needed.

docs/architecture.md describes the rooms and the floors.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "mmms_deploy"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {"arguments", "documents", "errors", "installed", "lazy", "progress", "spelling", "telemetry", "version"}
    ),
    frozenset({"cluster", "files"}),
    frozenset({"hub", "reporting"}),
    frozenset({"weights"}),
    frozenset({"bundle"}),
    frozenset({"imaging", "models"}),
    frozenset({"annotations"}),
    frozenset({"engines"}),
    frozenset({"session"}),
    frozenset({"journal", "page", "replay"}),
    frozenset({"store"}),
    frozenset({"precompute"}),
    frozenset({"server"}),
    frozenset({"doors"}),
    frozenset({"export"}),
    frozenset({"bench", "evaluation"}),
    frozenset({"training"}),
    frozenset({"commands"}),
)
"""Rooms from the lowest floor up. A module imports from its own room and from lower floors only."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

WITHOUT_CODE = frozenset({"demo"})
"""Rooms that hold files only."""

HEAVY = (
    "cuda",
    "cv2",
    "cvat_sdk",
    "fastapi",
    "huggingface_hub",
    "magicgui",
    "napari",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyarrow",
    "pycocotools",
    "pytriton",
    "qtpy",
    "ray",
    "safetensors",
    "shapely",
    "tensorrt",
    "timm",
    "torch",
    "tritonclient",
    "uvicorn",
    "websockets",
)
"""Libraries that load when they are needed and not before."""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str, *, at_import: bool = False) -> Iterator[str]:
    """Yield the modules of the package that a module imports.

    Args:
        module: Its name.
        at_import: Only those that are loaded when it is imported, not those inside functions or for type checkers.
    """

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if at_import and (lazy or typing):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names if alias.name in MODULES)
            elif isinstance(child, ast.ImportFrom) and child.module in MODULES:
                for alias in child.names:
                    below = f"{child.module}.{alias.name}"
                    yield below if below in MODULES else child.module
            yield from walk(child)

    return walk(ast.parse(MODULES[module].read_text()))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_floor() -> None:
    rooms = {room(module) for module in MODULES} - {""}
    assert rooms == {name for floor in FLOORS for name in floor} | WITHOUT_CODE


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in FLOOR])
def test_imports_run_downward(module: str) -> None:
    here = room(module)
    upward = {
        other
        for other in imports(module)
        if room(other) != here and (room(other) not in FLOOR or FLOOR[room(other)] >= FLOOR[here])
    }
    assert not upward, f"{module} imports from its own floor or from above it"


def test_no_circle() -> None:
    """Imports inside functions count too: they hide a circle, they do not break it. The lazy faces do not import."""
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    faces = [
        module for module, file in MODULES.items() if "lazy_names" in file.read_text() and module != "mmms_deploy.lazy"
    ]
    for face in faces:
        graph[face] = set(imports(face, at_import=True))
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_relative_imports_are_not_used() -> None:
    for module, file in MODULES.items():
        found = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.level
        ]
        assert not found, module


@pytest.mark.parametrize(
    "name", ["mmms_deploy", *(f"mmms_deploy.{room}" for floor in FLOORS for room in sorted(floor))]
)
def test_lazy_imports_stay_lazy(name: str) -> None:
    """Importing a room loads no engine's library, no torch and no library that only some data sets need."""
    code = f"import sys, {name}; print(*sorted({{m.partition('.')[0] for m in sys.modules}} & {set(HEAVY)}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    allowed = {"cuda", "timm", "torch"} if name == "mmms_deploy.models" else set()
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= allowed


@pytest.mark.parametrize(
    "command",
    [
        "bench",
        "build",
        "demo",
        "doctor",
        "eval",
        "export",
        "package",
        "push",
        "replay",
        "segment",
        "serve",
        "train",
        "verify",
        "weights",
    ],
)
def test_commands_answer_help_without_loading_what_they_run(command: str) -> None:
    code = f"import sys, mmms_deploy.commands.{command}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*HEAVY, "numpy"} or command in ("doctor", "export")
    assert not set(done.stdout.split()) & set(HEAVY)
