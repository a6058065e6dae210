"""What napari finds of the plugin: the entry point, the file, and the names in it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_entry_point_is_a_file_of_the_package(manifest: Path) -> None:
    module, _, name = PROJECT["project"]["entry-points"]["napari.manifest"]["mmms-deploy"].partition(":")
    assert ROOT.joinpath(*module.split("."), name) == manifest
    assert (
        manifest.relative_to(ROOT / "mmms_deploy").as_posix()
        in (PROJECT["tool"]["setuptools"]["package-data"]["mmms_deploy"])
    )


def test_the_manifest_names_what_exists(manifest: Path) -> None:
    said = yaml.safe_load(manifest.read_text())
    assert said["name"] == PROJECT["project"]["name"]
    commands = {command["id"]: command["python_name"] for command in said["contributions"]["commands"]}
    assert {widget["command"] for widget in said["contributions"]["widgets"]} == set(commands)
    for python_name in commands.values():
        module, _, name = python_name.partition(":")
        tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_napari_imports_nothing_to_find_it() -> None:
    """napari imports the entry point's module at its start, for every user of it."""
    code = "import sys, mmms_deploy.doors.napari; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"napari", "qtpy", "magicgui", "numpy", "msgspec", "PIL"}
