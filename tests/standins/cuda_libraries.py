"""Stand-ins of CUDA's shared libraries. With them, ONNX Runtime's real CUDA provider loads, and calls kernels.

The functions that the provider needs are read off its file. ``cuda_libraries.c`` has those that must answer sensibly;
all others succeed and do nothing. Nothing is computed: this shows what ONNX Runtime does with CUDA, not the result.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

TOOLS = ("gcc", "nm", "readelf", "strings")
SOURCE = Path(__file__).with_name("cuda_libraries.c")
_LIBRARIES = ("cublasLt", "cublas", "cudnn", "cufft", "curand")


def can_build() -> bool:
    return all(shutil.which(tool) for tool in TOOLS)


def build(provider: Path, folder: Path) -> None:
    """Write the libraries for a file ``libonnxruntime_providers_cuda.so``; for LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {line.split()[-1].partition("@")[0] for line in _lines("nm", "-D", "--undefined-only", provider)}
    # cuDNN is looked up by name since 1.28.
    wanted |= {line for line in _lines("strings", provider) if re.fullmatch(r"cudnn[A-Z]\w+", line)}
    own = set(re.findall(r"^[\w ]+?\**\s*\**(__cuda\w+|cuda\w+)\(", SOURCE.read_text(), re.MULTILINE))
    named = re.findall(r"\[(lib(?:cu|nvrtc)[\w]*)\.so([.\d]*)\]", "\n".join(_lines("readelf", "-d", provider)))
    for library, version in {**dict(named), "libcudnn": ".9"}.items():
        functions = {name for name in wanted if _library_of(name) == library}
        text = SOURCE.read_text() if library == "libcudart" else "#include <stdlib.h>\n"
        text += "".join(_function(name) for name in sorted(functions - own))
        source = folder / f"{library}.c"
        source.write_text(text)
        target = folder / f"{library}.so{version}"
        command = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{target.name}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)


def _lines(*command: str | Path) -> list[str]:
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, errors="replace")
    return done.stdout.splitlines()


def _library_of(function: str) -> str:
    """Return the library that a function belongs to."""
    for prefix in _LIBRARIES:
        if function.startswith(prefix):
            return f"lib{prefix}"
    if function.startswith(("cuda", "__cuda")):
        return "libcudart"
    return "libnvrtc" if function.startswith("nvrtc") else "libcuda" if re.match(r"cu[A-Z]", function) else ""


def _function(name: str) -> str:
    if name == "cudnnGetVersion":
        return f"unsigned long {name}(void) {{ return 92800; }}\n"
    if re.search(r"Create", name):
        return f"int {name}(void **out) {{ *out = malloc(4096); return 0; }}\n"
    trace = f'trace_call("{name}"); ' if re.match(r"cuda.*(Graph|Synchronize)", name) else ""
    return f"int {name}() {{ {trace}return 0; }}\n"
