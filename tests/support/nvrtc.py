"""NVIDIA's compiler, where PyTorch's wheel or another one brought it."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from tools.nvrtc import Nvrtc


@cache
def _library() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    found = [file for folder in folders for file in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    # The newest compiles for the newest GPUs.
    return max(found, key=lambda file: int(file.suffix[1:]), default=None)


@cache
def _loaded(path: Path) -> Nvrtc:
    return Nvrtc(path)


def nvrtc() -> Nvrtc:
    """Return NVRTC, or skip the test."""
    path = _library()
    if path is None:
        pytest.skip("there is no NVRTC (PyTorch's wheel for CUDA brings it)")
    return _loaded(path)
