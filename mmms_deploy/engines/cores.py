"""How many physical cores this process may use.

Two hyper-threads of a core share its multipliers, so matrix kernels gain nothing from the second one; and a container
with a quota of two CPUs on a machine of 64 crawls with 64 threads.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cpu: Path = _CPU, cgroup: Path = _CGROUP) -> int:
    """Return the number of physical cores this process may use, at least 1.

    Args:
        cpu: Where Linux describes its CPUs.
        cgroup: Where Linux describes the limits of this container.
    """
    everything = range(os.cpu_count() or 1)
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everything
    cores = {_core(cpu, index) for index in logical}
    quota = _quota(cgroup)
    return max(1, len(cores) if quota is None else min(len(cores), quota))


def _core(cpu: Path, index: int) -> tuple[str, str]:
    """Return (package, core) of a logical CPU, or a name of its own where the system does not say."""
    topology = cpu / f"cpu{index}" / "topology"
    try:
        package = (topology / "physical_package_id").read_text().strip()
        return package, (topology / "core_id").read_text().strip()
    except OSError:
        return "?", f"cpu{index}"


def _quota(cgroup: Path) -> int | None:
    """Return the CPU quota of the container (cgroup v2, else v1), rounded up, or None without one."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return math.ceil(int(limit) / int(period)) if int(limit) > 0 and int(period) > 0 else None
    except ValueError:
        return None
