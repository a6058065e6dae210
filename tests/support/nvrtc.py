"""NVIDIA's compilers of CUDA C and of PTX, where PyTorch's wheel or another one brought them."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import pytest

from tools.nvrtc import Nvrtc


@cache
def _library(name: str) -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    found = [file for folder in folders for file in sorted(folder.glob(f"*/lib/{name}.so.*"))]
    # The newest compiles for the newest GPUs.
    return max(found, key=lambda file: int(file.suffix[1:]), default=None)


@cache
def _loaded(path: Path) -> Nvrtc:
    return Nvrtc(path)


def nvrtc() -> Nvrtc:
    """Return NVRTC, or skip the test."""
    path = _library("libnvrtc")
    if path is None:
        pytest.skip("there is no NVRTC (PyTorch's wheel for CUDA brings it)")
    return _loaded(path)


class Assembler:
    """NVIDIA's compiler of PTX to machine code, nvJitLink: what a driver does with PTX when it loads it.

    Args:
        path: Its shared library.
    """

    _PTX = 2

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._major = int(path.suffix[1:])

    def _call(self, name: str, *arguments: object) -> int:
        # Every name carries the release since which it exists.
        names = (f"__{name}_{self._major}_{minor}" for minor in range(10))
        call = next(getattr(self._library, one) for one in names if hasattr(self._library, one))
        return int(call(*arguments))

    def assemble(self, ptx: bytes, architecture: str) -> bytes:
        """Return machine code.

        Args:
            ptx: The text, with a zero byte at its end.
            architecture: Such as ``sm_90``.
        """
        link, size = ctypes.c_void_p(), ctypes.c_size_t()
        options = (ctypes.c_char_p * 1)(f"-arch={architecture}".encode())
        assert self._call("nvJitLinkCreate", ctypes.byref(link), 1, options) == 0
        try:
            assert self._call("nvJitLinkAddData", link, self._PTX, ptx, ctypes.c_size_t(len(ptx)), b"ptx") == 0
            assert self._call("nvJitLinkComplete", link) == 0
            assert self._call("nvJitLinkGetLinkedCubinSize", link, ctypes.byref(size)) == 0
            code = ctypes.create_string_buffer(size.value)
            assert self._call("nvJitLinkGetLinkedCubin", link, code) == 0
            return code.raw
        finally:
            self._call("nvJitLinkDestroy", ctypes.byref(link))


def assembler() -> Assembler:
    """Return nvJitLink, or skip the test."""
    path = _library("libnvJitLink")
    if path is None:
        pytest.skip("there is no nvJitLink (PyTorch's wheel for CUDA brings it)")
    return Assembler(path)
