"""No answer and no test depends on the kernel that a BLAS library chooses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.every_blas import NEEDS, TESTS, kernels

PRODUCTS = {"matmul", "dot", "vdot", "inner", "outer", "einsum", "tensordot", "linalg"}


def multiplies_with_numpy(tree: ast.Module) -> bool:
    """Whether a module that computes without torch has a product of matrices."""
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    if "torch" in imported:
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            return True
        if isinstance(node, ast.Attribute) and node.attr in PRODUCTS and ast.unparse(node.value) == "np":
            return True
    return False


def test_what_multiplies_with_numpy_is_tested_with_every_kernel() -> None:
    package = ROOT / "mmms_deploy"
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if multiplies_with_numpy(ast.parse(file.read_text()))
    }
    assert found == set(TESTS), "name the module and its tests in tools/every_blas.py"
    for tests in TESTS.values():
        for test in tests:
            assert (ROOT / test.partition("::")[0]).exists(), test


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (set(), []),
        ({"avx2", "fma"}, ["Zen", "Haswell"]),
        ({"avx2", "fma"} | NEEDS["SkylakeX"], ["SkylakeX", "Zen", "Haswell"]),
    ],
)
def test_a_cpu_runs_the_kernels_that_it_has(flags: set[str], expected: list[str]) -> None:
    assert kernels(flags) == expected


def test_continuous_integration_runs_them() -> None:
    assert re.search(r"^make .*\btest-blas\b", Path(ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert "tools/every_blas.py" in (ROOT / "Makefile").read_text()
