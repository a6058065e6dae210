"""Write which names the Python APIs of TensorRT have, read from the real binding wheels; needs no GPU and no TensorRT.

The binding wheels of TensorRT are small and hold the whole Python API, but import only next to three libraries of
gigabytes. The import needs only nine functions of these to exist, not to work; a C compiler creates them. TensorRT for
RTX is small enough to be installed whole.

    python tools/tensorrt_api_lists.py

installs the packages below into temporary folders, from the package index that pip is set up for, writes one JSON file
each to ``mmms_deploy/engines/tensorrt/surface/``, and needs ``gcc``. The tests compare every name that the code uses
with these files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "mmms_deploy" / "engines" / "tensorrt" / "surface"

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
"""The functions that the bindings need from TensorRT's libraries at import."""


@dataclass(frozen=True)
class Release:
    """A release whose API is listed.

    Attributes:
        name: Name of the list.
        module: The module to import.
        requirements: The exact packages to install, without their dependencies.
        libraries: The libraries that are replaced by stubs.
    """

    name: str
    module: str
    requirements: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def _libraries(major: int) -> tuple[str, ...]:
    return tuple(f"lib{name}.so.{major}" for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"))


RELEASES = (
    Release("tensorrt-10.12", "tensorrt_bindings", ("tensorrt_cu12_bindings==10.12.0.36",), _libraries(10)),
    Release("tensorrt-10.16", "tensorrt_bindings", ("tensorrt_cu13_bindings==10.16.1.11",), _libraries(10)),
    Release("tensorrt-11.4", "tensorrt_bindings", ("tensorrt_cu13_bindings==11.4.0.106",), _libraries(11)),
    Release(
        "tensorrt-rtx-1.7",
        "tensorrt_rtx",
        tuple(f"tensorrt_rtx_cu13{part}==1.7.1.116" for part in ("", "_bindings", "_libs")),
    ),
)

_DUMP = """
import importlib, inspect, json, sys, warnings
warnings.simplefilter("ignore")
module = importlib.import_module(sys.argv[1])
names = {}
for name, value in vars(module).items():
    if name.startswith("_") or inspect.ismodule(value):
        continue
    members = [member for member in dir(value) if not member.startswith("_")] if inspect.isclass(value) else []
    names[name] = sorted(members)
json.dump({"version": module.__version__, "names": dict(sorted(names.items()))}, sys.stdout)
"""


def main() -> None:
    """Write every list."""
    FOLDER.mkdir(exist_ok=True)
    for release in RELEASES:
        with tempfile.TemporaryDirectory() as folder:
            listed = _list(release, Path(folder))
        file = FOLDER / f"{release.name}.json"
        file.write_text(formatted({"source": list(release.requirements), **listed}))
        print(f"{file.relative_to(FOLDER.parents[2])}: {listed['version']}, {len(listed['names'])} names")


def _list(release: Release, folder: Path) -> dict[str, object]:
    site, stubs = folder / "site", folder / "stubs"
    stubs.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*pip, *release.requirements], check=True)
    source = stubs / "stubs.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in release.libraries:
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(stubs / library), str(source)]
        subprocess.run(command, check=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(stubs)}
    command = [sys.executable, "-c", _DUMP, release.module]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    listed: dict[str, object] = json.loads(done.stdout)
    return listed


def formatted(content: dict[str, object]) -> str:
    """Return JSON with one line for each name of the API, so that the next release shows as a readable difference."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


if __name__ == "__main__":
    main()
