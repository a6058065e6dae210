"""Which GPUs can be used and, if none, why not.

This is checked before any library that needs a GPU is used. Without a GPU, TensorRT returns objects that crash when
they are used, and ONNX Runtime silently takes the CPU. ``cuda.bindings.runtime`` imports without a driver too.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmms_deploy.engines.cuda.runtime import import_cuda
from mmms_deploy.errors import EngineUnavailableError
from mmms_deploy.installed import pip_install

REQUESTED = "CUDA was requested, but "
"""The beginning of the message that refuses a GPU; the reason follows."""
DRIVER_FILE = Path("/proc/driver/nvidia/version")
"""The file in which Linux describes the loaded NVIDIA driver."""
_DRIVERS = {11: 450, 12: 525, 13: 580}
"""The first driver release of every CUDA version, from NVIDIA's compatibility table."""
_INSUFFICIENT_DRIVER, _NO_DEVICE = 35, 100
_FIXES = {
    3: "start the process again without forking it after CUDA was used: use spawn in multiprocessing",
    46: "another process holds the GPU exclusively; see nvidia-smi",
    101: "check CUDA_VISIBLE_DEVICES",
    802: "start nvidia-fabricmanager, which this machine's GPUs need",
    803: "the driver was updated without a restart: restart the machine",
    804: "remove the CUDA compatibility package (cuda-compat) from LD_LIBRARY_PATH",
}


class Problem(StrEnum):
    """Why no GPU can be used."""

    NO_BINDINGS = "cuda-python is missing"
    NO_DRIVER = "no driver"
    DRIVER_TOO_OLD = "driver too old"
    NO_GPU = "no GPU"
    FAILED = "CUDA failed"


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA can use.

    Attributes:
        ordinal: Its number among those that CUDA_VISIBLE_DEVICES leaves.
        name: Its name.
        capability: Its compute capability, e.g. (9, 0).
        memory: Its memory in bytes.
        cuda: The newest CUDA version that its driver runs, e.g. ``13.0``.
    """

    ordinal: int
    name: str
    capability: tuple[int, int]
    memory: int
    cuda: str

    def __str__(self) -> str:
        return f"{self.name} (SM {self.capability[0]}.{self.capability[1]}), driver for CUDA {self.cuda}"


@dataclass(frozen=True)
class Probe:
    """What CUDA reports about this machine.

    Attributes:
        gpus: The GPUs that can be used.
        problem: Why there are none; None when there are some.
        given: The problem as a sentence.
        fix: What to do about it.
        driver: Release of the NVIDIA driver, e.g. ``580.65.06``; None when none is loaded or the system does not say.
        cuda: The newest CUDA version that the driver runs; None without a driver, or when CUDA cannot be queried.
        runtime: The CUDA version that cuda-python was made for; None without it.
    """

    gpus: tuple[Gpu, ...]
    problem: Problem | None = None
    given: str = ""
    fix: str = ""
    driver: str | None = None
    cuda: str | None = None
    runtime: str | None = None


def probe(library: Any = None, driver_file: Path = DRIVER_FILE) -> Probe:
    """Query CUDA for the GPUs of this machine; allocates nothing on them.

    Args:
        library: The module ``cuda.bindings.runtime``; None imports it.
        driver_file: The file in which Linux describes the driver.
    """
    driver = driver_release(driver_file)
    if library is None:
        try:
            library = import_cuda()
        except EngineUnavailableError as error:
            given, fix = error.given, str(error.fix)
            if driver is None and not _driver_loads():
                # Gigabytes of packages for a GPU are no advice for a machine without one.
                given = f"there is no NVIDIA driver, and {given}"
                fix = f"on a machine with an NVIDIA GPU, install its driver, then {fix}"
            return Probe((), Problem.NO_BINDINGS, given, fix, driver)
    try:
        runs, made_for = _version(library.cudaDriverGetVersion()), _version(library.cudaRuntimeGetVersion())
        code, count = library.cudaGetDeviceCount()
    # Without a driver, cuda-python before 12.9 raises "Failed to dlopen libcuda.so.1" where later ones return a code.
    except RuntimeError as error:
        return Probe((), *_unanswered(error), driver)
    if int(code) == 0 and count:
        return Probe(
            tuple(_gpu(library, ordinal, runs or "?") for ordinal in range(count)), None, "", "", driver, runs, made_for
        )
    problem, given, fix = _problem(library, code, runs, made_for or "?")
    return Probe((), problem, given, fix, driver, runs, made_for)


def _unanswered(error: RuntimeError) -> tuple[Problem, str, str]:
    if "libcuda.so" in str(error) or "nvcuda.dll" in str(error):
        return Problem.NO_DRIVER, "there is no NVIDIA driver", "install the NVIDIA driver"
    return Problem.FAILED, f"CUDA cannot be used: {error}", "check nvidia-smi"


def _problem(library: Any, code: Any, runs: str | None, made_for: str) -> tuple[Problem, str, str]:
    number, needed = int(code), _DRIVERS.get(int(made_for.partition(".")[0] or 0) if made_for != "?" else 0)
    wanted = f"CUDA {made_for}" + (f", release {needed} or newer" if needed else "")
    if number == _INSUFFICIENT_DRIVER and runs is None:
        return Problem.NO_DRIVER, "there is no NVIDIA driver", f"install the NVIDIA driver for {wanted}"
    if number == _INSUFFICIENT_DRIVER:
        return (
            Problem.DRIVER_TOO_OLD,
            f"the NVIDIA driver runs CUDA {runs} at most, and cuda-python is for CUDA {made_for}",
            f"update the NVIDIA driver to one for {wanted}, or install packages for the older CUDA"
            f" (for 12: {pip_install('cuda12')})",
        )
    if number in (0, _NO_DEVICE):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
        return (
            Problem.NO_GPU,
            f"the NVIDIA driver finds no GPU{hidden}",
            "unset CUDA_VISIBLE_DEVICES" if hidden else "check nvidia-smi; in a container, pass --gpus all",
        )
    name = library.cudaGetErrorName(code)[1]
    name = name.decode() if isinstance(name, bytes) else str(name)
    return (
        Problem.FAILED,
        f"CUDA cannot be used: cudaGetDeviceCount failed with {name} ({number})",
        _FIXES.get(number, "check nvidia-smi"),
    )


def _gpu(library: Any, ordinal: int, runs: str) -> Gpu:
    code, facts = library.cudaGetDeviceProperties(ordinal)
    if int(code) != 0:
        return Gpu(ordinal, f"GPU {ordinal}", (0, 0), 0, runs)
    name = facts.name.decode(errors="replace") if isinstance(facts.name, bytes) else str(facts.name)
    return Gpu(ordinal, name.strip("\0 "), (int(facts.major), int(facts.minor)), int(facts.totalGlobalMem), runs)


def _version(answer: tuple[Any, int]) -> str | None:
    """Write 13020 as 13.2; None for 0, which CUDA returns when there is no driver."""
    code, number = answer
    return f"{number // 1000}.{number % 1000 // 10}" if int(code) == 0 and number else None


def driver_release(driver_file: Path = DRIVER_FILE) -> str | None:
    """Return the release of the NVIDIA driver that is loaded, e.g. ``580.65.06``."""
    try:
        found = re.search(r"Module.*?\s(\d{3,}\.[\d.]*\d)\s", driver_file.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _driver_loads() -> bool:
    """Whether the driver's library loads; Windows and WSL have no file that describes the driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def split_device(device: str) -> tuple[str, int]:
    """Split a device into kind and number of the GPU: ``cuda`` and 1 for ``cuda:1``; other names as given and 0."""
    kind, _, number = device.partition(":")
    plain = number.isascii() and number.isdigit() and len(number) < 10
    return (kind, int(number)) if kind == "cuda" and plain else (device, 0)


def require_gpu(ordinal: int = 0, library: Any = None, *, alone: bool = False) -> Gpu:
    """Return a GPU that can be used.

    Args:
        ordinal: Its number among those that CUDA_VISIBLE_DEVICES leaves.
        library: The module ``cuda.bindings.runtime``; None imports it.
        alone: Nothing but a GPU can do what is asked, so that no error advises the CPU.

    Raises:
        EngineUnavailableError: There is none; the message names the reason.
    """
    found = probe(library)
    if found.problem is not None:
        raise EngineUnavailableError(
            f"{REQUESTED}{found.given}",
            expected="an NVIDIA GPU, its driver, and cuda-python",
            fix=found.fix if alone else f'{found.fix}; or pass device="cpu"',
            command_fix=None if alone else f"{found.fix}; or pass --device cpu",
        )
    if ordinal >= len(found.gpus):
        raise EngineUnavailableError(
            f"GPU {ordinal} was requested, and there are {len(found.gpus)}",
            expected=f"a number from 0 to {len(found.gpus) - 1}",
            fix="check CUDA_VISIBLE_DEVICES",
        )
    return found.gpus[ordinal]
