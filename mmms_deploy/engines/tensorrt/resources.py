"""The library without which TensorRT's builder cannot compile for a GPU: one for each GPU architecture.

TensorRT splits its kernels into ``libnvinfer_builder_resource_smNN.so`` and loads the one of the GPU when a builder is
made. Without it TensorRT says ``Unable to load library``. Some collections of its libraries hold only the resource for
PTX, so that nothing can be compiled on a data-centre GPU. Looking for the file costs nothing and tells before a build.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.documents import document

MAPS = Path("/proc/self/maps")
"""The file in which Linux lists the libraries that this process has loaded."""
ARCHITECTURES = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)})
"""Compute capabilities that have a resource of their own in TensorRT 10.12 to 11. Others take one of these, and nothing
is said of them."""
_CORE = re.compile(r"libnvinfer\.so(\.\d+)*")
_RESOURCE = re.compile(r"libnvinfer_builder_resource_(\w+)\.so[.\d]*")


@dataclass(frozen=True)
class MissingResource:
    """A builder resource that is not where TensorRT looks for it.

    Attributes:
        name: The library's name, without a version, e.g. ``libnvinfer_builder_resource_sm90.so``.
        folder: The folder of TensorRT's core library.
        found: What the resources that are there are for, e.g. ``ptx``.
    """

    name: str
    folder: Path
    found: tuple[str, ...]

    def __str__(self) -> str:
        there = f"those for {', '.join(self.found)}" if self.found else "none"
        return f"{self.name} is missing in {self.folder} (of such libraries there are {there})"

    def fix(self, version: str) -> str:
        """Return what to do.

        Args:
            version: The version of TensorRT.
        """
        return (
            f"install all of TensorRT's libraries in version {version} (the package tensorrt-cu13-libs or"
            f" tensorrt-cu12-libs holds them), or copy {self.name}.* of that version to {self.folder};"
            f" {document('gpu-host')} says which files a build needs"
        )


def missing_resource(capability: tuple[int, int], maps: Path = MAPS) -> MissingResource | None:
    """Return the builder resource that compiling for a GPU needs and that is not there.

    None where it is there, and where nothing can be said: TensorRT is not loaded into this process, the system lists no
    loaded libraries, or the architecture is not known to have a resource of its own.

    Args:
        capability: The GPU's compute capability, e.g. (9, 0).
        maps: The list of loaded libraries.
    """
    core = _loaded(maps)
    if core is None or capability not in ARCHITECTURES:
        return None
    wanted = "sm{}{}".format(*capability)
    searched = [core.parent, *(Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part)]
    found = {match[1] for folder in searched for name in _names(folder) if (match := _RESOURCE.fullmatch(name))}
    if wanted in found:
        return None
    return MissingResource(f"libnvinfer_builder_resource_{wanted}.so", core.parent, tuple(sorted(found)))


def _loaded(maps: Path) -> Path | None:
    """Return the file of TensorRT's core library, as this process has loaded it."""
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return None
    files = (Path("/", line.partition("/")[2]) for line in lines)
    return next((file for file in files if _CORE.fullmatch(file.name)), None)


def _names(folder: Path) -> list[str]:
    try:
        return [file.name for file in folder.iterdir()]
    except OSError:
        return []
