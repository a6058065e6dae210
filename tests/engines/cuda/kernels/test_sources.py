"""The PTX that ships is what the sources give, the oldest driver takes it, and the sources compile to machine code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmms_deploy.engines.cuda.kernels.module import FOLDER, ptx
from tests.support.nvrtc import assembler, nvrtc
from tools.kernel_ptx import heading

SOURCES = sorted(FOLDER.glob("*.cu"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_ptx_is_that_of_the_source(source: Path) -> None:
    text = source.with_suffix(".ptx").read_bytes()
    head, compiled = b"".join(text.splitlines(keepends=True)[:3]), b"".join(text.splitlines(keepends=True)[3:])
    assert head == heading(source.read_bytes(), compiled), "run python -m tools.kernel_ptx"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_oldest_driver_takes_the_ptx(source: Path) -> None:
    text = ptx(source.stem).decode("ascii")
    assert text.endswith("\0")
    assert re.search(r"^\.version 8\.0$", text, re.MULTILINE)
    assert re.search(r"^\.target sm_70$", text, re.MULTILINE)


def test_every_ptx_has_its_source() -> None:
    assert {file.stem for file in FOLDER.glob("*.ptx")} == {file.stem for file in SOURCES}
    assert SOURCES


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_source_compiles_to_machine_code(source: Path, architecture: str) -> None:
    """With NVRTC, which PyTorch's wheel for CUDA brings along. It needs no GPU."""
    compiled = nvrtc().compile(source.read_text(), source.name, architecture)
    assert compiled.startswith(b"\x7fELF")
    names = re.findall(r"\.visible \.entry (\w+)", ptx(source.stem).decode("ascii"))
    assert names
    assert all(f".text.{name}".encode() in compiled for name in names)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_ptx_that_ships_becomes_machine_code(source: Path, architecture: str) -> None:
    """As in a driver, on GPUs from the oldest to the newest."""
    code = assembler().assemble(ptx(source.stem), architecture)
    assert code.startswith(b"\x7fELF")
    names = re.findall(r"\.visible \.entry (\w+)", ptx(source.stem).decode("ascii"))
    assert all(f".text.{name}".encode() in code for name in names)
