"""Which process an engine belongs to, and when its library may be called: not after a fork, not at the very end.

A child that ``os.fork()`` makes has the memory of its parent, but neither its threads nor its contexts on a GPU. A
library waits there for threads that do not exist: when it computes, when it is closed, and when its objects are
destroyed. So what was opened before a fork raises :class:`~mmms_deploy.errors.ForkError` in the child, and nothing of
it is destroyed there.

When the interpreter ends while another thread is inside a library, that thread finds no interpreter when it comes back,
and C++ ends the process with an error. So the end waits for the calls that run, and no other thread begins a new one.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from mmms_deploy.documents import document
from mmms_deploy.errors import EngineError, ForkError

P = ParamSpec("P")
R = TypeVar("R")


class _Calls:
    """The calls of libraries that run in this process, counted for every thread.

    There is no lock: an interrupt between taking one and its release would let every later call wait for ever. A single
    operation on a dict is atomic, and a call is announced before it looks whether Python is ending.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, in a forked child: the calls of the parent's other threads go on in the parent."""
        self.running: dict[int, int] = {}
        self.ending: int | None = None
        """The thread that ends the interpreter."""

    def begin(self) -> None:
        thread = threading.get_ident()
        self.running[thread] = self.running.get(thread, 0) + 1
        if self.ending not in (None, thread):
            self.end()
            raise EngineError(
                "Python is ending, and no new call of an engine begins",
                expected="calls that begin before the program ends",
                fix="stop and join threads that use a session before the program ends",
            )

    def end(self) -> None:
        thread = threading.get_ident()
        left = self.running.get(thread, 1) - 1
        if left > 0:
            self.running[thread] = left
        else:
            self.running.pop(thread, None)

    def wait_at_exit(self) -> None:
        self.ending = threading.get_ident()
        while self._others():
            time.sleep(_PAUSE_SECONDS)

    def _others(self) -> set[int]:
        """Return the other threads that are inside of a library; one that has ended left nothing running."""
        # Threads that others started, such as Qt, are no threads of the module threading.
        alive = sys._current_frames().keys()
        return {thread for thread in list(self.running) if thread != self.ending and thread in alive}


_calls = _Calls()
_PAUSE_SECONDS = 0.005
_holders: weakref.WeakSet[object] = weakref.WeakSet()
"""What holds objects of libraries: engines, runners, sessions."""


class OwnProcess:
    """The process in which something was opened; a context in which calls of its library are made.

    Args:
        name: What was opened, such as ``this engine``.
        holder: What was opened. In a child that is forked later it is never destroyed, nor is anything that it holds.
    """

    __slots__ = ("_name", "_pid")

    def __init__(self, name: str, holder: object) -> None:
        self._name = name
        self._pid = os.getpid()
        _holders.add(holder)

    @property
    def elsewhere(self) -> bool:
        """Whether this is another process: a child that was forked."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Check that this is still the same process.

        Raises:
            ForkError: It is a child that was forked.
        """
        if self.elsewhere:
            raise ForkError(
                f"{self._name} was opened in process {self._pid}, and this is process {os.getpid()}, forked from it",
                expected=f"{self._name.replace('this', 'one', 1)} that was opened in this process",
                fix=f"open it after the fork, or start processes with spawn ({document('engines')})",
            )

    def __enter__(self) -> None:
        """Begin a call.

        Raises:
            ForkError: This is a child that was forked.
            EngineError: Python is ending.
        """
        self.check()
        _calls.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _calls.end()


@contextmanager
def library_call() -> Iterator[None]:
    """A context in which a library is called before anything is open, such as while an engine opens.

    Raises:
        EngineError: Python is ending.
    """
    _calls.begin()
    try:
        yield
    finally:
        _calls.end()


@runtime_checkable
class Locked(Protocol):
    """A holder with a lock: in a forked child the thread that held it does not exist, so the child needs another."""

    def renew_lock(self) -> None:
        """Take a new lock."""
        ...


class _Owned(Protocol):
    @property
    def _own(self) -> OwnProcess: ...


Self = TypeVar("Self", bound=_Owned)


def call(method: Callable[Concatenate[Self, P], R]) -> Callable[Concatenate[Self, P], R]:
    """Decorate a method that calls a library, of an object that keeps its :class:`OwnProcess` as ``_own``.

    It raises ``ForkError`` in a child that was forked after the object was made.
    """

    @wraps(method)
    def checked(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._own:
            return method(self, *args, **kwargs)

    return checked


def keep_forever(thing: object) -> None:
    """See to it that an object is never destroyed, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def in_children(function: Callable[[], None]) -> None:
    """Have a function called in every child that is forked from now on, before anything else of it runs."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


class ModuleLock:
    """A reentrant lock that a module keeps; a forked child has a new one, which no thread of the parent holds.

    Attributes:
        lock: The lock of this process, for ``with``: C code takes it, so that an interrupt cannot come right after.
    """

    def __init__(self) -> None:
        self._renew()
        in_children(self._renew)

    def _renew(self) -> None:
        self.lock = threading.RLock()


def _in_child() -> None:
    _calls.forget()
    for holder in list(_holders):
        keep_forever(holder)
        if isinstance(holder, Locked):
            holder.renew_lock()


in_children(_in_child)
atexit.register(_calls.wait_at_exit)
