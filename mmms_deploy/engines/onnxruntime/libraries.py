"""The libraries of CUDA that ONNX Runtime's CUDA provider needs: loading them, and finding out which is missing.

ONNX Runtime writes the reason why its provider cannot be loaded to the process's standard error, from C++, and takes
the CPU. So whatever a message is to name has to be found out beside it.
"""

from __future__ import annotations

import ctypes
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

CUDNN = "libcudnn.so.9"
"""Of every release that can run our graphs; since 1.28 the provider loads without it, and fails at a convolution."""
INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
"""The command that brings what it needs."""
_LIBRARY = re.compile(r"\blib[\w+-]+\.so[.\d]*\d")
TINY = bytes.fromhex(
    "080812003a320a0c0a0178120179220452656c7512005a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100e"
)
"""An ONNX model of one node: ``y = Relu(x)``, both one float32."""


def preload(ort: Any) -> str:
    """Load CUDA's and cuDNN's libraries from NVIDIA's wheels, where ONNX Runtime does not look by itself.

    Returns:
        Which of them are not found, in the system's words; empty when all are there.
    """
    missing = _missing(ort)
    if missing and _load_from_other_folders(missing):
        missing = _missing(ort)
    return "; ".join(missing)


def _missing(ort: Any) -> list[str]:
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(said):
            ort.preload_dlls(msvc=False, directory="")
    missing = [line.strip() for line in said.getvalue().splitlines() if "Failed" in line]
    if _provider_file(ort) is not None and not any(CUDNN in line for line in missing):
        missing += filter(None, [_why_not(CUDNN)])
    return missing


def _load_from_other_folders(missing: list[str]) -> bool:
    """Load libraries from NVIDIA's wheels in other folders of ``sys.path`` than ONNX Runtime's; False if none is there.

    What is loaded is found by its name afterwards. PYTHONPATH may name a folder with onnxruntime-gpu alone.
    """
    names = dict.fromkeys(name for text in missing for name in _LIBRARY.findall(text))
    files = [file for name in names for root in sys.path for file in sorted(Path(root).glob(f"nvidia/*/lib/{name}"))]
    loaded = [file for file in files if not _why_not(str(file))]
    return bool(loaded)


def why_not_loaded(ort: Any) -> str:
    """Return why the CUDA provider cannot be loaded, in the system's words; empty when it can, or nobody knows.

    To be asked after ONNX Runtime has tried: loaded before that, the provider's library ends the process.
    """
    file = _provider_file(ort)
    return "" if file is None else _why_not(str(file))


def _provider_file(ort: Any) -> Path | None:
    file = Path(getattr(ort, "__file__", "")).parent / "capi" / "libonnxruntime_providers_cuda.so"
    return file if sys.platform == "linux" and file.is_file() else None


def _why_not(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""


def plain(error: Exception) -> str:
    """Return what ONNX Runtime says, in one line, without places in its source and the machine's name."""
    text = " ".join(str(error).split())
    text = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return re.sub(r"\s*; GPU=-?\d+ ; hostname=.*$", "", text)


def try_provider(ort: Any, provider: str, ordinal: int) -> str:
    """Open a model of one node on a GPU and close it again.

    Returns:
        Why that is not possible; empty when it is.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            TINY, sess_options=options, providers=[(provider, {"device_id": str(ordinal)})], enable_fallback=0
        )
    # ONNX Runtime raises its own exception types, which derive from RuntimeError or straight from Exception.
    except Exception as error:
        return plain(error)
    if list(session.get_providers())[:1] == [provider]:
        return ""
    return why_not_loaded(ort) or f"it takes {', '.join(session.get_providers())}"
