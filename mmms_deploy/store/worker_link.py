"""A process and its worker: its priority, and messages, Python's own objects with large arrays that are not copied.

Both ends are this package, and the pipe has no other ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
from enum import StrEnum
from typing import Any

_COUNT = struct.Struct("<Q")
_MOST = 1 << 20
"""Bytes of one call of the system, so that an interrupt does not wait for long."""


class Link:
    """One end of a pair of pipes.

    Args:
        reading: File descriptor to read from.
        writing: File descriptor to write to.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def send(self, message: object) -> None:
        """Send an object.

        Raises:
            OSError: The other end is gone.
            Exception: What pickling raises; nothing was sent.
        """
        parts: list[pickle.PickleBuffer] = []
        text = pickle.dumps(message, protocol=5, buffer_callback=parts.append)
        views = [memoryview(text), *(part.raw() for part in parts)]
        self._write(memoryview(_COUNT.pack(len(views)) + b"".join(_COUNT.pack(view.nbytes) for view in views)))
        for view in views:
            self._write(view)

    def receive(self) -> Any:
        """Return the next object that the other end sent.

        Raises:
            EOFError: The other end is gone.
        """
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        sizes = [_COUNT.unpack(self._read(_COUNT.size))[0] for _ in range(count)]
        text, *parts = [self._read(size) for size in sizes]
        return pickle.loads(text, buffers=parts)

    def close(self) -> None:
        """Close both pipes."""
        for one in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                os.close(one)

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self._writing, view[:_MOST]) :]

    def _read(self, size: int) -> bytearray:
        content, at = bytearray(size), 0
        while at < size:
            part = os.read(self._reading, min(size - at, _MOST))
            if not part:
                raise EOFError("the other end of the pipe is gone")
            content[at : at + len(part)] = part
            at += len(part)
        return content


class Priority(StrEnum):
    """When a process computes."""

    IDLE = "idle"
    """While nothing else on the machine wants to; on Linux, elsewhere as ``low``."""
    LOW = "low"
    """Rarely while something else wants to, as with ``nice -n 19``."""
    NORMAL = "normal"
    """Like every other process."""


def take_priority(priority: Priority) -> None:
    """Give the first thread of this process a priority, as far as the system knows it.

    Threads that it starts afterwards have the same; so this comes before libraries that start threads when they are
    imported, as NumPy's does.
    """
    if priority is Priority.NORMAL:
        return
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
    if priority is Priority.IDLE and sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
