"""The engines' libraries send nothing and keep nothing when this package imports them."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_deploy import telemetry
from mmms_deploy.bundle import Bundle
from tests.support.paths import ROOT

WATCHED = """
import os, socket
marks = os.environ["MARKS"]

def mark(what):
    with open(marks, "a") as file:
        file.write(what + "\\n")

def refused(name):
    def call(*args, **kwargs):
        mark(name)
        raise OSError("this network raises")
    return call

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refused(name))
socket.getaddrinfo = refused("getaddrinfo")
os.register_at_fork(before=lambda: mark("fork"))
"""
"""A ``sitecustomize`` that every Python process of the test runs first."""

CLICK = """
import sys
import numpy as np
from mmms_deploy import Session
with Session(sys.argv[1], engine=sys.argv[2], threads=1) as session:
    session.set_image(np.zeros((30, 40, 3), np.uint8))
    session.click(3, 4)
print("clicked")
"""


def watched(tmp_path: Path, script: str, *arguments: str, **variables: str) -> tuple[list[str], list[str]]:
    """Run a script as a new user, without ``CI``; return what it tried, and the files that it left at home."""
    home, site, marks = tmp_path / "home", tmp_path / "site", tmp_path / "marks"
    home.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCHED)
    marks.touch()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "LANG")}
    environment = {
        **kept,
        "HOME": str(home),
        "MARKS": str(marks),
        "MMMS_DEPLOY_CACHE": "off",
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    left = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    return marks.read_text().split(), left


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_sends_and_keeps_nothing(paint: Bundle, tmp_path: Path, engine: str) -> None:
    assert watched(tmp_path, CLICK, str(paint.path), engine) == ([], [])


def test_the_doctor_sends_and_keeps_nothing(tmp_path: Path) -> None:
    script = "from mmms_deploy.commands.doctor import main; main(['--json'], standalone_mode=False)"
    assert watched(tmp_path, script) == ([], [])


@pytest.mark.skipif(
    importlib.util.find_spec(telemetry.OPENVINO_MODULE) is None, reason="OpenVINO has nothing to send with"
)
def test_the_watch_sees_what_openvino_sends(paint: Bundle, tmp_path: Path) -> None:
    """The other tests can fail: with telemetry on, the same watch sees it."""
    tried, left = watched(tmp_path, CLICK, str(paint.path), "openvino", **{telemetry.VARIABLE: "1"})
    assert tried or left


def test_the_libraries_are_imported_in_one_place() -> None:
    allowed = {
        "mmms_deploy/engines/openvino/library.py",
        "mmms_deploy/engines/onnxruntime/libraries.py",
        "mmms_deploy/export/int8/quantisation.py",
    }
    places = [file for folder in ("mmms_deploy", "tools", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    found = set()
    for place in places:
        tree = ast.parse(place.read_text())
        typing_only = {
            node
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
            for node in ast.walk(branch)
        }
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            roots = {name.partition(".")[0] for name in names}
            if node not in typing_only and roots & {"openvino", "onnxruntime", "nncf"}:
                found.add(place.relative_to(ROOT).as_posix())
    assert found <= allowed, found - allowed


def test_a_program_decides_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    monkeypatch.setenv(telemetry.ORT_VARIABLE, "0")
    with telemetry.off("onnxruntime"):
        assert os.environ[telemetry.ORT_VARIABLE] == "0"
    monkeypatch.undo()
    assert dict(os.environ) == before
    for library in ("openvino", "nncf"):
        with telemetry.off(library):
            pass
    assert telemetry.OPENVINO_MODULE not in sys.modules or sys.modules[telemetry.OPENVINO_MODULE].__spec__ is not None
