"""Describing this machine, without naming it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy.bench.report import MachineFacts
from mmms_deploy.engines.cores import available_cores

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


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo"), meminfo: Path = Path("/proc/meminfo")) -> MachineFacts:
    """Return what matters of this machine.

    Args:
        cpuinfo: Where Linux describes its processors.
        meminfo: Where Linux describes its memory.
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
        packages=_packages(),
        blas=_blas(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


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
    """Name and version of the system; of the kernel only its numbers, as builders put names behind them."""
    version = re.match(r"\d+(\.\d+)*", platform.release())
    system = f"{platform.system()} {version[0] if version else ''}".strip()
    with suppress(OSError, KeyError, AttributeError):
        system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    return f"{system}, {platform.machine()}"


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
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
