"""The documents come with the package, their links lead somewhere in it, and messages name those that are there."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from mmms_deploy.documents import FOLDER, document, documents
from tests.support.paths import ROOT

PACKAGE = ROOT / "mmms_deploy"
SHIPPED = (".ipynb", ".jpg", ".md", ".png", ".py", ".svg")
"""What pyproject.toml takes into a wheel."""


def shipped() -> list[Path]:
    """The documents, through links to folders, as a wheel holds them."""
    found = (Path(folder) / name for folder, _, names in os.walk(FOLDER, followlinks=True) for name in names)
    return sorted(path for path in found if path.suffix == ".md")


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_links_lead_to_what_a_wheel_holds(path: Path) -> None:
    """A document beside docs/ that they link to needs a link in mmms_deploy/documents/."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
        place = Path(os.path.normpath(path.parent / target))
        assert place.is_relative_to(FOLDER), target
        assert place.exists(), target
        assert place.is_dir() or place.suffix in SHIPPED, f"{target} is not taken into a wheel"


def test_every_document_is_listed() -> None:
    assert set(documents()) == {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}


def strings(file: Path) -> list[str]:
    """The texts of a module that are no docstrings."""
    tree = ast.parse(file.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    return [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_messages_name_documents_that_a_user_of_pip_has(file: Path) -> None:
    text = file.read_text()
    named = set(re.findall(r"document\(['\"]([\w-]+)", text)) | set(re.findall(r"mmms-doctor --docs ([\w-]+)", text))
    assert named - {"NAME"} <= set(documents())
    for string in strings(file):
        assert not re.search(r"\bdocs/[\w-]+\.md", string), "say document(NAME), or mmms-doctor --docs NAME"
        assert "mmms-deploy[" not in string.replace("mmms-deploy[{", ""), "say installed.pip_install(EXTRA)"


def test_a_document_is_named_by_its_path() -> None:
    assert document("engines") == str(ROOT / "docs" / "engines.md")
    assert document("engines#the-cache").endswith("engines.md#the-cache")
