"""How many physical cores this process may use.

Two hyper-threads of a core share its multipliers, so matrix kernels gain nothing from the second one; and a container
with a quota of two CPUs on a machine of 64 crawls with 64 threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_cores(cpu: Path = _CPU, cgroup: Path = _CGROUP, own: Path = _OWN) -> int:
    """Return the number of physical cores this process may use, at least 1.

    Args:
        cpu: Where Linux describes its CPUs.
        cgroup: Where Linux describes the limits of groups of processes, such as containers.
        own: Where Linux says which of these groups this process is in.
    """
    everything = range(os.cpu_count() or 1)
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everything
    cores = {_core(cpu, index) for index in logical}
    return max(1, min([len(cores), *(math.ceil(quota) for quota in _quotas(cgroup, own))]))


def _core(cpu: Path, index: int) -> tuple[str, str]:
    """Return (package, core) of a logical CPU, or a name of its own where the system does not say."""
    topology = cpu / f"cpu{index}" / "topology"
    try:
        package = (topology / "physical_package_id").read_text().strip()
        return package, (topology / "core_id").read_text().strip()
    except OSError:
        return "?", f"cpu{index}"


def _quotas(cgroup: Path, own: Path) -> Iterator[float]:
    """Yield the CPU quota, in CPUs, of every group that this process is in: its own and all above it."""
    for folder in _groups(cgroup, own):
        yield from _quota(folder, "cpu.max")
        yield from _quota(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Return the folders of this process's groups, of both versions of cgroups.

    A container usually sees its own group as the root. Otherwise ``own`` names a path below the root; inside a
    container that path may be the host's and not exist, or begin with ``/..``.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        lines = []
    # Lines are number:controllers:path. Version 2 has no controllers there; beside version 1 it may be in "unified".
    groups = [
        (mount, path) for _, names, path in (line for line in lines if len(line) == 3) for mount in _mounts(names)
    ]
    folders = [cgroup, cgroup / "cpu"]
    for mount, path in groups:
        folders.append(cgroup / mount)
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        folders += [cgroup / mount / Path(*parts[: i + 1]) for i in range(len(parts))]
    return list(dict.fromkeys(folders))


def _mounts(controllers: str) -> tuple[str, ...]:
    """Return the folders where the groups of these controllers may be mounted; none for those without quotas."""
    if not controllers:
        return ("", "unified")
    return (controllers, "cpu") if "cpu" in controllers.split(",") else ()


def _quota(folder: Path, *files: str) -> Iterator[float]:
    """Yield the quota of a group, in CPUs, if it has one: microseconds of CPU time in a period of microseconds."""
    try:
        limit, period = " ".join((folder / file).read_text() for file in files).split()
        if int(limit) > 0 and int(period) > 0:
            yield int(limit) / int(period)
    except (OSError, ValueError):  # there is no such file, or no limit ("max", -1)
        return
