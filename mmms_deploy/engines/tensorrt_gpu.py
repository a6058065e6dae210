"""Which GPU plans are compiled for, asked of the CUDA runtime: it answers without a driver too, TensorRT does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.engines.cuda import Cuda, import_cuda
from mmms_deploy.errors import EngineUnavailableError

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: Its name, e.g. ``NVIDIA H200``.
        compute_capability: Its architecture, e.g. ``9.0``.
        driver: Version of the driver, e.g. ``580.65.06``, or the newest CUDA version that it supports.
        ordinal: Its number among those that CUDA_VISIBLE_DEVICES leaves.
    """

    name: str
    compute_capability: str
    driver: str
    ordinal: int = 0

    def activate(self) -> None:
        """Make it the calling thread's."""
        Cuda(import_cuda(), self.ordinal).activate()

    def __str__(self) -> str:
        return f"{self.name} ({self.compute_capability}, driver {self.driver})"


def see_gpu(ordinal: int = 0) -> Gpu:
    """Return a GPU of this machine; must be called before anything of TensorRT is.

    Args:
        ordinal: Its number.

    Raises:
        EngineUnavailableError: cuda-python is not installed, there is no driver, or no such GPU.
    """
    cuda = import_cuda()
    code, count = cuda.cudaGetDeviceCount()
    if int(code) != 0 or count <= ordinal:
        said = code.name if int(code) != 0 else f"{count} GPUs"
        raise EngineUnavailableError(
            f"GPU {ordinal} was asked for, and the CUDA runtime finds {said}",
            expected="an NVIDIA GPU and its driver",
            fix="check nvidia-smi and CUDA_VISIBLE_DEVICES; docs/gpu-host.md lists what each answer means",
        )
    code, facts = cuda.cudaGetDeviceProperties(ordinal)
    if int(code) != 0:
        raise EngineUnavailableError(
            f"GPU {ordinal} does not answer: {code.name}", expected="a GPU that works", fix="check nvidia-smi"
        )
    name = facts.name.decode(errors="replace") if isinstance(facts.name, bytes) else str(facts.name)
    return Gpu(name.rstrip("\0"), f"{facts.major}.{facts.minor}", driver_version(), ordinal)


def driver_version(file: Path = _DRIVER) -> str:
    """Return the version of the NVIDIA driver, or, where the system does not tell, the CUDA version that it supports.

    Args:
        file: Where Linux tells.
    """
    try:
        found = re.search(r"(?:Kernel Module\D*?|\s)(\d{3,}\.\d+(?:\.\d+)?)\s", file.read_text(errors="replace"))
    except OSError:
        found = None
    if found:
        return found[1]
    code, number = import_cuda().cudaDriverGetVersion()
    return f"for CUDA {number // 1000}.{number % 1000 // 10}" if int(code) == 0 else "unknown"
