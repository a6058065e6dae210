"""NVIDIA's compiler of CUDA C, NVRTC, as a library; it needs no GPU and no header."""

from __future__ import annotations

import ctypes
from pathlib import Path


class CompilationError(Exception):
    """The source cannot be compiled; the text is the compiler's log."""


class Nvrtc:
    """NVRTC.

    Args:
        path: Its shared library, ``libnvrtc.so.12`` or ``.13``; its ``libnvrtc-builtins`` lies beside it.
    """

    def __init__(self, path: Path) -> None:
        for builtins in sorted(path.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))

    @property
    def version(self) -> str:
        """Its version, such as ``12.0``."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: str, name: str, architecture: str) -> bytes:
        """Compile CUDA C.

        Args:
            source: The source.
            name: Name of its file, for messages.
            architecture: ``compute_70`` for PTX, ``sm_90`` for machine code.

        Returns:
            The text of the PTX, without the zero byte at its end, or the machine code (CUBIN).

        Raises:
            CompilationError: It cannot be compiled.
        """
        program = ctypes.c_void_p()
        self._check("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        try:
            options = [f"--gpu-architecture={architecture}", "--std=c++14"]
            array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self._library.nvrtcCompileProgram(program, len(options), array) != 0:
                raise CompilationError(self._text(program, "ProgramLog").decode(errors="replace"))
            if architecture.startswith("compute_"):
                return self._text(program, "PTX").rstrip(b"\0")
            return self._text(program, "CUBIN")
        finally:
            self._check("nvrtcDestroyProgram", ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _check(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed with {code}")
