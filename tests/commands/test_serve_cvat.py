"""``mmms-serve cvat``: what it writes and says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result

from mmms_deploy.bundle import Bundle
from mmms_deploy.commands.serve import main
from tests.support.invoke import invoke
from tests.support.wheels import write_wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A file like a wheel of the package."""
    return write_wheel(tmp_path)


def run(*words: object) -> Result:
    return invoke(main, "cvat", *words)


def test_it_writes_the_folder_and_says_how_to_go_on(tmp_path: Path, paint: Bundle, wheel: Path) -> None:
    out = tmp_path / "function"
    given = ("--out", out, "--wheel", wheel)
    settings = ("--engine", "onnxruntime", "--threads", "2", "--set", "whole_image=true")
    done = run(paint.path, *given, *settings, "--name", "mine")
    assert done.exit_code == 0, done.stderr
    assert f"nuctl deploy --project-name cvat --path {out}" in done.stdout
    assert "name: mine" in (out / "function.yaml").read_text()
    main_py = (out / "main.py").read_text()
    assert "SETTINGS = {'engine': 'onnxruntime', 'threads': 2, 'whole_image': 'true'}" in main_py
    again = run(paint.path, *given)
    assert again.exit_code == 1
    assert "pass --overwrite" in again.stderr
    assert run(paint.path, *given, "--overwrite").exit_code == 0
    assert "SETTINGS = {}" in (out / "main.py").read_text()


def test_it_names_what_is_wrong(tmp_path: Path, paint: Bundle, wheel: Path) -> None:
    out = tmp_path / "function"
    given = ("--out", out, "--wheel", wheel)
    assert run(paint.path, *given, "--set", "engine").exit_code == 2
    unknown = run(paint.path, *given, "--set", "engin=x")
    assert unknown.exit_code == 2
    assert "engin" in unknown.stderr
    missing = run(tmp_path / "none", *given)
    assert missing.exit_code == 1
    name = run(paint.path, *given, "--name", "A")
    assert name.exit_code == 1
    assert "--name" in name.stderr
    other = run(paint.path, "--out", out, "--wheel", tmp_path / "none.whl")
    assert other.exit_code == 1
    assert "pip wheel" in other.stderr
    assert not out.exists()
