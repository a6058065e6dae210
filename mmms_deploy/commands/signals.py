"""Signals that stop a command: each unwinds it, so that every clean-up runs, and has its exit code.

Ctrl-C (SIGINT), SIGTERM, and SIGHUP, which a terminal sends when it is closed. The exit code is 128 and the number of
the signal, as shells count: 130, 143, 129. A signal that is ignored when the command starts, as ``nohup`` and shells'
background jobs have it, stays ignored.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import NoReturn

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_SAME_SECONDS = 2.0
"""A signal that follows within this time is the same wish: it does not interrupt the clean-up."""


class Stopped(KeyboardInterrupt):
    """A signal asked the command to stop.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return 128 + self.number

    def __str__(self) -> str:
        return _WORDS.get(signal.Signals(self.number).name, "stopped")


class _Handler:
    """Raises :class:`Stopped` for a signal, and remembers it."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = monotonic()
        if self.received is not None and now - self._since < _SAME_SECONDS:
            return
        self.received, self._since = number, now
        raise Stopped(number)

    def install(self) -> list[signal.Signals]:
        """Handle every signal that still has Python's own handler; returns those."""
        numbers = [getattr(signal, name) for name in _WORDS if hasattr(signal, name)]
        taken = [number for number in numbers if signal.getsignal(number) in _DEFAULTS]
        for number in taken:
            signal.signal(number, self)
        return taken


_newest: _Handler | None = None


def handle_until_exit() -> None:
    """Handle signals from now on until the process is over."""
    global _newest  # noqa: PLW0603
    _newest = _Handler()
    _newest.install()


@contextmanager
def handled() -> Iterator[None]:
    """Handle signals in this block, unless they are handled already or this is not the main thread."""
    global _newest  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread handle signals
        return
    before, handler = _newest, _Handler()
    taken = handler.install()
    if not taken:
        yield
        return
    _newest = handler
    try:
        yield
    finally:
        _newest = before
        for number in taken:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def stopped_by(error: BaseException) -> Stopped | None:
    """Return the signal that an error comes from, or None when it comes from none.

    A library that a signal interrupts, an import most of all, may turn it into an error of its own.
    """
    if isinstance(error, Stopped):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Stopped(signal.SIGINT)
    received = None if _newest is None else _newest.received
    return None if received is None else Stopped(received)


def leave(stopped: Stopped) -> NoReturn:
    """Exit with the code of a signal."""
    sys.exit(stopped.exit_code)
