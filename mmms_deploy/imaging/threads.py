"""Shares the pieces of one computation among threads that end with it.

NumPy gives up Python's lock inside products and conversions, so pieces of an image compute beside each other. Threads
are started for one computation, which waits for those that have begun: none is left for a fork to lose, or to keep
Python from ending. One that comes too late, because the machine is busy, finds nothing to do. What a piece computes is
its own affair, so the numbers are the same bits whatever the number of threads and whichever takes a piece.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

MOST = 2
"""Threads at most: the work is some milliseconds, and each has buffers of its own."""


def usable() -> int:
    """Return how many threads a computation gets: the CPUs this process may use, at most :data:`MOST`."""
    # Python 3.13 has os.process_cpu_count, which is the same.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, MOST)


def shared(work: Callable[[Iterator[T]], None], pieces: Sequence[T], threads: int) -> None:
    """Compute pieces in this thread and in others beside it; return when all are computed.

    Where no other thread can be started (a limit of the system, or Python is ending), this one computes everything.

    Args:
        work: Takes an iterator of pieces and computes them; it is called once in every thread, in which it may keep
            buffers. No two pieces may write to the same place.
        pieces: All pieces; each is given to one thread.
        threads: How many threads compute, this one included; 1 or more.

    Raises:
        BaseException: The first error of ``work`` in any thread; the pieces that nothing has begun are left out then.
    """
    left = deque(pieces)
    errors: list[BaseException] = []
    gate = threading.Lock()
    ends: list[threading.Event] = []  # of the threads that have begun
    closed = False
    state = np.geterr()

    def take() -> Iterator[T]:
        while True:
            try:
                piece = left.popleft()
            except IndexError:
                return
            yield piece

    def help_out() -> None:
        end = threading.Event()
        with gate:
            if closed:
                return
            ends.append(end)
        try:
            with np.errstate(**state):  # each thread has its own
                work(take())
        except BaseException as error:  # raised again where the caller sees it
            left.clear()
            errors.append(error)
        finally:
            end.set()

    try:
        for _ in range(min(threads, len(left)) - 1):
            try:
                # threading.Thread would wait until the thread runs: on a busy CPU, longer than the work takes.
                _thread.start_new_thread(help_out, ())
            except RuntimeError:
                break
        work(take())
    finally:
        left.clear()
        with gate:
            closed = True
        for end in ends:
            end.wait()
    if errors:
        raise errors[0]
