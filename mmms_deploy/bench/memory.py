"""Memory of this process by phase: the most RAM it held within each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.report import Metric

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class MemoryPhases:
    """The peak of this process's resident memory in each phase of a run."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    @contextmanager
    def phase(self, key: str, title: str) -> Iterator[None]:
        """Record the most memory held at any moment of the block.

        Args:
            key: Key of the metric, without its group.
            title: What the phase is, for people.
        """
        samples: tuple[float, ...] = ()
        why = ""
        try:
            reset_peak()
        except NotMeasuredError as error:
            why = error.given
        yield
        if not why:
            try:
                samples = (peak_mib(),)
            except NotMeasuredError as error:
                why = error.given
        self.metrics.append(Metric(key=f"memory.{key}", title=title, unit="MiB", samples=samples, gated=True, why=why))


def reset_peak() -> None:
    """Let the peak start anew at what the process holds now.

    Raises:
        NotMeasuredError: This system has no such thing.
    """
    try:
        _CLEAR.write_text("5")
    except OSError as error:
        raise NotMeasuredError(f"{sys.platform} cannot restart its record of the peak ({error.strerror})") from error


def peak_mib() -> float:
    """Return the most memory this process held in RAM since :func:`reset_peak`, in MiB.

    Raises:
        NotMeasuredError: This system does not say.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found is None:
        raise NotMeasuredError(f"{sys.platform} does not say how much memory a process held")
    return int(found[1]) / 1024
