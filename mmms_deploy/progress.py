"""How far long work is: one event and one callback for exports, builds, replays, evaluations and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a task is. Tasks may be nested; the same ``task`` and ``depth`` name the same task.

    Attributes:
        task: What is done, in the words of a progress bar, e.g. ``stage 'click': choosing kernels``.
        done: Steps that are done.
        total: Steps in all; None when it is unknown.
        depth: 0 for the outermost task, 1 for one inside it.
        finished: Whether the task is over.
        detail: One more sentence, e.g. why a plan has to be compiled; empty when there is none.
    """

    task: str
    done: int = 0
    total: int | None = None
    depth: int = 0
    finished: bool = False
    detail: str = ""


OnProgress = Callable[[Progress], None]
"""Receives every step of long work. It may be called from another thread than the one that waits."""
