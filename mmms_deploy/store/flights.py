"""One thread makes a thing, and the others that want it wait for it."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Flights:
    """What is being made at the moment, by key. It belongs to one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, threading.Event] = {}

    def begin(self, key: Hashable) -> threading.Event | None:
        """Begin to make a thing.

        Args:
            key: What the thing is.

        Returns:
            None where the caller makes it, and calls :meth:`end` afterwards; or an event that is set when the thread
            that makes it has ended, whether it succeeded or not.
        """
        with self._lock:
            running = self._running.get(key)
            if running is None:
                self._running[key] = threading.Event()
            return running

    def end(self, key: Hashable) -> None:
        """Wake those who wait for a thing."""
        with self._lock:
            running = self._running.pop(key, None)
        if running is not None:
            running.set()

    def is_running(self, key: Hashable) -> bool:
        """Whether a thing is being made."""
        with self._lock:
            return key in self._running
