"""Errors give a command that installs what is missing, for the way in which this package was installed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from mmms_deploy import installed

SOURCE_TREE, ORIGIN = installed.source_tree, installed._origin
"""Before the tests' own environment is hidden."""


class Distribution:
    def __init__(self, direct_url: object) -> None:
        self.direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.direct_url if isinstance(self.direct_url, str | None) else json.dumps(self.direct_url)


def command(monkeypatch, direct_url: object, extras: str = "cpu") -> str:
    monkeypatch.setattr(installed, "_origin", ORIGIN)
    monkeypatch.setattr(installed.metadata, "distribution", lambda name: Distribution(direct_url))
    return installed.pip_install(extras)


@pytest.mark.parametrize("direct_url", [None, "", "no JSON", "[]", "3"])
def test_from_an_index_or_nobody_knows(monkeypatch, direct_url: str | None) -> None:
    assert command(monkeypatch, direct_url) == 'pip install "mmms-deploy[cpu]"'


def test_without_metadata(monkeypatch) -> None:
    def absent(name: str) -> None:
        raise installed.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installed, "_origin", ORIGIN)
    monkeypatch.setattr(installed.metadata, "distribution", absent)
    assert installed.pip_install("cpu") == 'pip install "mmms-deploy[cpu]"'


def test_from_a_wheel_or_a_folder(monkeypatch, tmp_path: Path) -> None:
    wheel = tmp_path / "with space" / "mmms_deploy-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    given = command(monkeypatch, {"url": wheel.as_uri(), "archive_info": {}}, "export,cpu")
    assert shlex.split(given) == ["pip", "install", f"{wheel}[export,cpu]"]
    given = command(monkeypatch, {"url": tmp_path.as_uri(), "dir_info": {}})
    assert given == f'pip install "{tmp_path}[cpu]"'


def test_from_a_wheel_that_is_gone(monkeypatch, tmp_path: Path) -> None:
    lines = ['onnxruntime>=1.20; extra == "cpu"', "openvino>=2026.2; extra == 'cpu'", "numpy>=1", 'torch; extra == "x"']
    monkeypatch.setattr(installed.metadata, "requires", lambda name: lines)
    gone = {"url": (tmp_path / "gone.whl").as_uri()}
    assert command(monkeypatch, gone) == 'pip install "onnxruntime>=1.20" "openvino>=2026.2"'
    assert command(monkeypatch, gone, "other") == 'pip install "mmms-deploy[other]"'


def test_from_an_address(monkeypatch) -> None:
    url = "https://example.org/mmms_deploy-0.1.0-py3-none-any.whl"
    assert command(monkeypatch, {"url": url}) == f'pip install "mmms-deploy[cpu] @ {url}"'
    git = {"url": "https://example.org/mmms.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    assert command(monkeypatch, git) == 'pip install "mmms-deploy[cpu] @ git+https://example.org/mmms.git@abc"'


@pytest.mark.parametrize("name", ["plain", "two words", 'a"b', "$HOME", "`x`"])
def test_from_a_clone(monkeypatch, name: str) -> None:
    monkeypatch.setattr(installed, "source_tree", lambda: Path("/src") / name)
    assert shlex.split(installed.pip_install("cpu")) == ["pip", "install", "-e", f"/src/{name}[cpu]"]


def test_these_tests_run_in_a_clone() -> None:
    folder = SOURCE_TREE()
    assert folder is not None
    assert (folder / "pyproject.toml").is_file()
