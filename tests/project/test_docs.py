"""The documents are tested like code: links resolve, commands exist. What they quote runs in the modules beside."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mmms_deploy import __version__
from tests.support.documents import DOCUMENTS, PROJECT, blocks
from tests.support.paths import ROOT


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(path) -> None:
    text = path.read_text()
    # The bundle of the full-size network is called mmms-rgb.
    assert set(re.findall(r"\bmmms-(?!deploy|rgb)[a-z]+\b", text)) <= set(PROJECT["scripts"])
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


def test_the_set_up_names_every_target_and_every_extra() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"`make ([a-z-]+)`", text.partition("## What lint")[0]))
    (paragraph,) = re.findall(r"^Extras of the package: (?:.+\n)+", text, re.MULTILINE)
    assert set(PROJECT["optional-dependencies"]) <= set(re.findall(r"`([a-z0-9-]+)`", paragraph))


def test_installs_name_extras_that_exist() -> None:
    extras = set(PROJECT["optional-dependencies"])
    for path in DOCUMENTS:
        for named in re.findall(r"(?:mmms-deploy|\"\.|\.whl)\[([a-z0-9,]+)\]", path.read_text()):
            assert set(named.split(",")) <= extras


def test_no_install_asks_an_index_for_the_package() -> None:
    """It is on none: commands name the clone or a wheel's file."""
    texts = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
    for path in [*texts, *sorted((ROOT / "examples").glob("*.[pi]*"))]:
        for command in re.findall(r"pip install [^`\n]*\bmmms[-_]deploy(?!-[\d.]+-py3).*", path.read_text()):
            assert "--no-index" in command, path


def test_the_toml_example_is_a_description() -> None:
    from mmms_deploy.models.checkpoint import parse_description

    examples = blocks(ROOT / "docs/checkpoints.md", "toml")
    clicks, modalities = (parse_description(tomllib.loads(example.text), "docs") for example in examples)
    assert clicks.logits_resize.align_corners
    assert modalities.modalities[0].std == (2.0,)


def test_the_changelog_knows_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["export", "engines"])
def test_the_two_halves_are_links_at_the_top(name) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("mmms_deploy") / name
