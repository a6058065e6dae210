"""Which CPU this is: compiled graphs and measurements of one CPU are not used on another."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4)
def cpu_identity(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return model and instruction sets of the CPU, as one string that is the same as long as they are.

    Args:
        cpuinfo: Where Linux describes its CPUs.
    """
    found: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    model = found.get("model name") or platform.processor() or "unknown CPU"
    sets = " ".join(sorted((found.get("flags") or found.get("Features") or "").split()))
    return f"{platform.system()} {platform.machine()} {model} {hashlib.sha256(sets.encode()).hexdigest()[:12]}"
