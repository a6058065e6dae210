"""Write which functions NVIDIA's Python bindings of CUDA have, read from the real wheels; needs no GPU.

    python tools/cuda_api_lists.py

installs the packages below into temporary folders, from the package index that pip is set up for, and writes one JSON
file each to ``tests/engines/cuda/surface/``. The tests compare every call of ours with these files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tensorrt_api_lists import formatted

FOLDER = Path(__file__).parents[1] / "tests" / "engines" / "cuda" / "surface"

RELEASES = {
    "12.6": ("cuda-python==12.6.2.post1",),
    "12.9": ("cuda-bindings==12.9.10", "cuda-pathfinder==1.9.0"),
    "13.0": ("cuda-bindings==13.0.3", "cuda-pathfinder==1.9.0"),
    "13.5": ("cuda-bindings==13.5.0", "cuda-pathfinder==1.9.0"),
}
"""The exact packages to install for each list, without their dependencies."""

DRIVER = (
    "cuGetErrorName",
    "cuLaunchKernel",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
)
"""What is listed of the driver, of whose calls the package makes these alone."""

_DUMP = """
import inspect, json, sys
import cuda.bindings
from cuda.bindings import driver, runtime
enums = ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode")
functions = {
    name: list(inspect.signature(item).parameters)
    for name, item in vars(runtime).items()
    if name.startswith("cuda") and inspect.isroutine(item)
}
json.dump({
    "version": cuda.bindings.__version__,
    "functions": dict(sorted(functions.items())),
    "driver": {name: list(inspect.signature(getattr(driver, name)).parameters) for name in sys.argv[1:]},
    "constants": {name: int(getattr(runtime, name)) for name in ("cudaHostAllocDefault", "cudaStreamNonBlocking")},
    "enums": {enum: {item.name: int(item) for item in getattr(runtime, enum)} for enum in enums},
    "cudaDeviceProp": sorted(name for name in dir(runtime.cudaDeviceProp) if not name.startswith("_")),
}, sys.stdout)
"""


def main() -> None:
    """Write every list."""
    FOLDER.mkdir(exist_ok=True)
    for release, requirements in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder]
            subprocess.run([*pip, *requirements], check=True)
            command = [sys.executable, "-c", _DUMP, *DRIVER]
            environment = {**os.environ, "PYTHONPATH": folder}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        listed = json.loads(done.stdout)
        (FOLDER / f"{release}.json").write_text(formatted({"source": list(requirements), **listed}))
        print(f"{release}: {listed['version']}, {len(listed['functions'])} functions")


if __name__ == "__main__":
    main()
