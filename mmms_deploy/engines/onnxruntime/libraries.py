"""The CUDA libraries that ONNX Runtime's CUDA provider needs: load them, and find out which are missing.

When its provider cannot be loaded, ONNX Runtime writes the reason to standard error, from C++, and takes the CPU. So
this module finds out the reason for our messages by itself.
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
"""Every release that runs our graphs needs it. Since 1.28 the provider loads without it and fails at a convolution."""
INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
"""The command that installs the libraries."""
_LIBRARY = re.compile(r"\blib[\w+-]+\.so[.\d]*\d")
TINY = bytes.fromhex(
    "080812003a320a0c0a0178120179220452656c7512005a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100e"
)
"""An ONNX model of one node: ``y = Relu(x)``, both one float32."""


def preload(ort: Any) -> str:
    """Load the CUDA and cuDNN libraries from NVIDIA's wheels, where ONNX Runtime does not search by itself.

    Returns:
        The system's messages for libraries that are not found; empty when all are there.
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

    ONNX Runtime finds loaded libraries by their names. PYTHONPATH may name a folder that holds onnxruntime-gpu alone.
    """
    names = dict.fromkeys(name for text in missing for name in _LIBRARY.findall(text))
    files = [file for name in names for root in sys.path for file in sorted(Path(root).glob(f"nvidia/*/lib/{name}"))]
    loaded = [file for file in files if not _why_not(str(file))]
    return bool(loaded)


def why_not_loaded(ort: Any) -> str:
    """Return the system's message why the CUDA provider cannot be loaded; empty when it can or the reason is unknown.

    Call it after ONNX Runtime has tried: loaded before that, the provider's library ends the process.
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
    """Return an error of ONNX Runtime in one line, without positions in its source and the name of the machine."""
    text = " ".join(str(error).split())
    text = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return re.sub(r"\s*; GPU=-?\d+ ; hostname=.*$", "", text)


def try_provider(ort: Any, provider: str, ordinal: int) -> str:
    """Open a model of one node on a GPU and close it again.

    Returns:
        Why it fails; empty when it works.
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
