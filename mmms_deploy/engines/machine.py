"""This machine as reports describe it: processor, memory, GPU, libraries. No names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.cuda.devices import Gpu, driver_release

FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
"""Instruction sets that decide how fast matrices are multiplied, as Linux names them."""
PACKAGES = (
    "mmms-deploy",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "onnx",
    "torch",
    "timm",
)
"""Packages whose versions matter to how fast something computes."""
GPU_PACKAGES = ("cuda-python", "cuda-bindings", "tensorrt-rtx")
"""Further ones for a GPU."""


class GpuFacts(Struct, frozen=True, kw_only=True):
    """The GPU that a report is about.

    Attributes:
        name: Its name.
        capability: Its compute capability, e.g. ``9.0``.
        memory_gib: Its memory in GiB.
        driver: Release of its driver; empty where the system does not say.
        cuda: The newest CUDA version that the driver runs.
    """

    name: str
    capability: str
    memory_gib: float
    driver: str
    cuda: str

    def __str__(self) -> str:
        driver = f"driver {self.driver or 'unknown'} for CUDA {self.cuda}"
        return f"{self.name}, compute capability {self.capability}, {self.memory_gib:.1f} GiB, {driver}"


class MachineFacts(Struct, frozen=True, kw_only=True):
    """What matters of a machine.

    Attributes:
        cpu: Model name of the processor.
        flags: Instruction sets of interest that it has.
        logical_cpus: Logical CPUs that this process may use.
        cores: Physical cores that it may use, within the container's quota.
        memory_gib: Main memory in GiB.
        system: Operating system.
        python: Version of Python.
        packages: Versions of the libraries of interest that are installed.
        blas: Name and version of NumPy's BLAS.
        others: CPUs that other programs kept busy during a run, on average; None where the system does not say.
        gpu: The GPU; left out where a CPU computes.
    """

    cpu: str
    flags: tuple[str, ...]
    logical_cpus: int
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    blas: str
    others: float | None
    gpu: GpuFacts | msgspec.UnsetType = msgspec.UNSET


def describe_machine(
    cpuinfo: Path = Path("/proc/cpuinfo"), meminfo: Path = Path("/proc/meminfo"), gpu: Gpu | None = None
) -> MachineFacts:
    """Return what matters of this machine; its ``others`` is None, see :class:`OtherPrograms`.

    Args:
        cpuinfo: Where Linux describes its processors.
        meminfo: Where Linux describes its memory.
        gpu: The GPU that computes; None for a CPU.
    """
    entries = _first_cpu(cpuinfo)
    known = set((entries.get("flags") or entries.get("Features") or "").split())
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return MachineFacts(
        cpu=entries.get("model name") or platform.processor() or platform.machine() or "unknown",
        flags=tuple(flag for flag in FLAGS if flag in known),
        logical_cpus=affinity,
        cores=available_cores(),
        memory_gib=round(_memory(meminfo) / 2**30, 1),
        system=_system(),
        python=platform.python_version(),
        packages=_packages(PACKAGES if gpu is None else (*PACKAGES, *GPU_PACKAGES)),
        blas=_blas(),
        others=None,
        gpu=msgspec.UNSET if gpu is None else _gpu(gpu),
    )


def _gpu(gpu: Gpu) -> GpuFacts:
    return GpuFacts(
        name=gpu.name,
        capability="{}.{}".format(*gpu.capability),
        memory_gib=round(gpu.memory / 2**30, 1),
        driver=driver_release() or "",
        cuda=gpu.cuda,
    )


def machine_lines(machine: MachineFacts) -> list[tuple[str, str]]:
    """Return the machine for people, as pairs of a heading and a text."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    pairs = [
        ("processor", machine.cpu),
        ("instructions", ", ".join(machine.flags) or "none of interest"),
        ("cores", f"{machine.cores} physical, {machine.logical_cpus} logical, as this process may use them"),
        ("memory", f"{machine.memory_gib:.1f} GiB"),
        ("system", machine.system),
        ("software", f"Python {machine.python}, {packages}; NumPy's BLAS is {machine.blas}"),
    ]
    if machine.gpu:
        pairs.insert(4, ("GPU", str(machine.gpu)))
    if machine.others is not None:
        pairs.append(("beside it", f"other programs kept {machine.others:.2f} CPUs busy during the run, on average"))
    return pairs


class OtherPrograms:
    """Measures how many CPUs other programs keep busy, from the moment at which it is created.

    Args:
        stat: Where Linux accounts for the time of all CPUs together.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._start = self._now()

    def cpus(self) -> float | None:
        """Return how many CPUs other programs kept busy, on average; None where the system does not say.

        This process and its children do not count.
        """
        now = self._now()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        seconds, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return round(max(busy - own, 0.0) / seconds, 2)

    def _now(self) -> tuple[float, float, float] | None:
        """Return seconds: wall time, busy time of all CPUs, busy time of this process and its children."""
        try:
            fields = self._stat.read_text().split("\n", 1)[0].split()
            ticks = os.sysconf("SC_CLK_TCK")
            user, nice, system, _idle, _wait, *interrupts = (int(field) / ticks for field in fields[1:9])
        except (OSError, ValueError, AttributeError):
            return None
        # Guest time is part of user time; time that a hypervisor took away (the eighth) is as busy as any other.
        own = os.times()
        return perf_counter(), user + nice + system + sum(interrupts), sum(own[:4])


def _first_cpu(cpuinfo: Path) -> Mapping[str, str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory(meminfo: Path) -> int:
    try:
        found = re.search(r"MemTotal:\s+(\d+) kB", meminfo.read_text())
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _system() -> str:
    """Return name and version of the system; of the kernel's version only the numbers, as builders append names."""
    version = re.match(r"\d+(\.\d+)*", platform.release())
    system = f"{platform.system()} {version[0] if version else ''}".strip()
    with suppress(OSError, KeyError, AttributeError):
        system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    return f"{system}, {platform.machine()}"


def _packages(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _blas() -> str:
    try:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (TypeError, KeyError):
        return "unknown"
