"""Write the PTX of the package's kernels, which ships beside their sources; needs no GPU.

    python -m tools.kernel_ptx

installs NVRTC of CUDA 12.0 into a temporary folder, from the package index that pip is set up for, and compiles every
``.cu`` in ``mmms_deploy/engines/cuda/kernels``. The oldest driver that the package allows (525) takes what 12.0 writes,
and every later one. The first lines of a PTX name the hashes of its source and
of the rest: a test compares them.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.nvrtc import Nvrtc

FOLDER = Path(__file__).parents[1] / "mmms_deploy" / "engines" / "cuda" / "kernels"
REQUIREMENT = "nvidia-cuda-nvrtc-cu12==12.0.140"
ARCHITECTURE = "compute_70"


def heading(source: bytes, compiled: bytes) -> bytes:
    """Return the first lines of a file of PTX.

    Args:
        source: The source.
        compiled: What follows these lines.
    """
    hashes = (
        f"// {what}: SHA-256 {hashlib.sha256(text).hexdigest()}\n"
        for what, text in (("source", source), ("PTX", compiled))
    )
    return f"// {ARCHITECTURE} by {REQUIREMENT}\n{''.join(hashes)}".encode()


def main() -> None:
    """Write all of them."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder]
        subprocess.run([*pip, REQUIREMENT], check=True)
        (library,) = Path(folder).glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
        nvrtc = Nvrtc(library)
        for file in sorted(FOLDER.glob("*.cu")):
            source = file.read_bytes()
            compiled = nvrtc.compile(source.decode(), file.name, ARCHITECTURE)
            target = file.with_suffix(".ptx")
            target.write_bytes(heading(source, compiled) + compiled)
            print(f"{target.name}: {target.stat().st_size} bytes by NVRTC {nvrtc.version}")


if __name__ == "__main__":
    main()
