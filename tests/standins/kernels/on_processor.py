"""The sources of kernels, compiled for the processor with ``on_processor.h``: they show whether a model is right."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmms_deploy.engines.cuda.kernels.module import FOLDER, ptx
from tests.standins.kernels.launch import Launch

HEADER = Path(__file__).with_suffix(".h")
_TYPES = {"u64": ctypes.c_uint64, "u32": ctypes.c_int32, "f32": ctypes.c_float}
COMPILER = "g++"


def compiled(module: str, folder: Path) -> dict[str, Callable[[Launch, Sequence[Any]], None]]:
    """Compile a module, and return what launches its kernels, by name.

    Args:
        module: Name of the module.
        folder: Where the compiler may write.
    """
    entries = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", ptx(module).decode("ascii"))
    source, library = folder / f"{module}.cpp", folder / f"{module}.so"
    named = "".join(f"LAUNCHED({name})\n" for name, _ in entries)
    source.write_text(f'#include "{HEADER}"\n#include "{FOLDER / module}.cu"\n{named}')
    # Products and sums are rounded as they are written.
    options = ("-std=c++17", "-O2", "-ffp-contract=off", "-w", "-shared", "-fPIC")
    subprocess.run([COMPILER, *options, "-o", str(library), str(source)], check=True, capture_output=True)
    loaded = ctypes.CDLL(str(library))

    def launcher(name: str, kinds: list[Any]) -> Callable[[Launch, Sequence[Any]], None]:
        def launch(how: Launch, arguments: Sequence[Any]) -> None:
            values = [kind(argument) for kind, argument in zip(kinds, arguments, strict=True)]
            pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            getattr(loaded, f"launch_{name}")((ctypes.c_int32 * 6)(*how.grid, *how.block), pointers)

        return launch

    return {
        name: launcher(name, [_TYPES[kind] for kind in re.findall(r"\.param \.(\w+) \w+", parameters)])
        for name, parameters in entries
    }
