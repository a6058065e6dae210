"""The documents are tested like code: links resolve, commands exist, examples run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import __version__
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.session.features import save_features
from tests.support.paths import ROOT
from tests.support.toy import write_toy

DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in {"runs", "build", "dist"} for part in path.relative_to(ROOT).parts)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(path) -> None:
    text = path.read_text()
    assert set(re.findall(r"\bmmms-(?!deploy)[a-z]+\b", text)) <= set(PROJECT["scripts"])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", text)) | set(re.findall(r"^make ([a-z-]+)$", text, re.M)) <= set(targets)


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_map_names_files_that_exist(name: str) -> None:
    """A path is below the repository, the package, the tests, or a folder that the same item or row named before."""
    for item in re.split(r"\n(?=\||\d+\.|- |\n)", (ROOT / name).read_text()):
        folders = [ROOT, ROOT / "mmms_deploy", ROOT / "tests"]
        for path in re.findall(r"`([\w/.]+(?:\.(?:py|toml|md)|/))`", item):
            known = re.sub(r"NAME(\.\w+|/)$", "", path)
            found = next((folder / known for folder in folders if (folder / known).exists()), None)
            if "test_NAME" not in path:
                assert found is not None, f"{path} in: {item}"
                folders.insert(0, found if found.is_dir() else found.parent)


def test_installs_name_extras_that_exist() -> None:
    extras = set(PROJECT["optional-dependencies"])
    for path in DOCUMENTS:
        for named in re.findall(r"(?:mmms-deploy|\"\.|\.whl)\[([a-z0-9,]+)\]", path.read_text()):
            assert set(named.split(",")) <= extras


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/session.md", "docs/results.md", "docs/sam.md", "docs/engines.md", "docs/evaluation.md"],
)
def test_python_examples_run(name, paint: Bundle, tmp_path) -> None:
    examples = blocks(ROOT / name, "python")
    assert examples
    (tmp_path / "bundles").mkdir()
    for place in (tmp_path / "bundles" / "demo", tmp_path / "demo"):
        place.symlink_to(paint.path)
    write_toy(tmp_path / "bundles" / "rgbd", modalities=(ModalitySpec(name="depth", scale=0.001),))
    write_toy(tmp_path / "bundles" / "provider", black_box=True)
    save_features(tmp_path / "features.npz", {"f1": np.zeros((1, 1, 1, 1), np.float32)}, (480, 640))
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(tmp_path / "photo.jpg")
    for depth in ("depth.png", "better.png"):
        Image.fromarray(np.ones((480, 640), np.uint16)).save(tmp_path / depth)
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_toml_example_is_a_description() -> None:
    from mmms_deploy.models.checkpoint import parse_description

    examples = blocks(ROOT / "docs/checkpoints.md", "toml")
    clicks, modalities = (parse_description(tomllib.loads(example), "docs") for example in examples)
    assert clicks.logits_resize.align_corners
    assert modalities.modalities[0].std == (2.0,)


def test_the_changelog_knows_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["export", "engines"])
def test_the_two_halves_are_links_at_the_top(name) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("mmms_deploy") / name
