"""How the tests are laid out: folders mirror the package's, and what test modules share is in ``tests/support``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
_PRIVATE = re.compile(r"(.+\.)?conftest|tests\.(.+\.)?test_\w+")
"""Names of modules that no other file may import."""
OTHERS = {
    "examples": "the folder examples/",
    "gpu": "what has to hold on a real GPU",
    "project": "what holds for the repository as a whole",
    "rehearsal": "commands and tests/gpu on a GPU host of stand-ins",
    "standins": "stand-ins of libraries",
    "support": "what test modules share",
    "training": "the folder training/, and the room of this name",
}
"""The folders that mirror none of the package's, and what they hold."""


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield every module that a file imports, or may import: of ``from a import b``, ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def not_to_be_imported(tree: ast.Module, package: str = "tests") -> set[str]:
    """Return the test modules and conftests that a file imports."""
    return {name for name in imported(tree, package) if _PRIVATE.fullmatch(name)}


def test_no_test_module_and_no_conftest_is_imported() -> None:
    found = {}
    for file in FILES:
        where = file.relative_to(ROOT)
        found[where.as_posix()] = not_to_be_imported(ast.parse(file.read_text()), ".".join(where.parent.parts))
    assert {name: modules for name, modules in found.items() if modules} == {}, "move what is shared to tests/support"
    assert len(found) > 100, "the check would pass if it found nothing to check"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from tests.session.test_session import GREY", {"tests.session.test_session"}),
        ("from tests.session import test_session", {"tests.session.test_session"}),
        ("import tests.conftest", {"tests.conftest"}),
        ("def f():\n    from tests.gpu.conftest import Open", {"tests.gpu.conftest"}),
        ("from .test_session import GREY", {"tests.session.test_session"}),
        ("from . import conftest", {"tests.session.conftest"}),
        ("from ..replay.test_verify import golden", {"tests.replay.test_verify"}),
        ("from tests.support.toy import write_toy", set()),
        ("from mmms_deploy.bench.timed import test_time", set()),
    ],
)
def test_an_import_that_is_not_allowed_is_found(code: str, found: set[str]) -> None:
    assert not_to_be_imported(ast.parse(code), "tests.session") == found


def test_every_folder_mirrors_one_of_the_package() -> None:
    folders = {file.parent.relative_to(TESTS) for file in FILES} - {Path()}
    own = {folder for folder in folders if folder.parts[0] not in OTHERS}
    assert len(own) > 15, "the check would pass if it found nothing to check"
    strange = [folder.as_posix() for folder in own if not (ROOT / "mmms_deploy" / folder / "__init__.py").is_file()]
    assert strange == []
    assert OTHERS.keys() <= {folder.parts[0] for folder in folders}


@pytest.mark.parametrize("folder", ["standins", "support"])
def test_every_shared_module_is_on_the_map(folder: str) -> None:
    text = ast.get_docstring(ast.parse((TESTS / folder / "__init__.py").read_text())) or ""
    listed = [line.partition(":")[0] for line in text.splitlines() if ": " in line]
    there = [file.stem for file in (TESTS / folder).glob("*.py") if file.name != "__init__.py"]
    there += [file.parent.name for file in (TESTS / folder).glob("*/__init__.py")]
    assert sorted(listed) == sorted(there + (["site"] if folder == "standins" else []))
