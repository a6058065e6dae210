"""The threads in which calls of :class:`~mmms_deploy.AsyncSession` run: a bounded number, shared by many sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar
from weakref import WeakKeyDictionary

from mmms_deploy.arguments import shown
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import SessionError

T = TypeVar("T")

AT_ONCE = 4
"""How many calls run at once where nothing else is said (docs/many.md has the figures)."""


class Workers:
    """A bounded number of threads; the calls of all sessions that share them take turns.

    A session has at most one call among those that run or wait here, so no session keeps the others waiting for longer
    than a call each.

    Args:
        at_once: How many calls run at once, from 1 on.

    Raises:
        SessionError: ``at_once`` is no such number.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
            raise SessionError(
                f"at_once is {shown(at_once)}",
                expected="how many calls may run at once: a whole number from 1 on",
                fix=f"pass at_once={AT_ONCE}",
            )
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="mmms-session")

    @property
    def at_once(self) -> int:
        """How many calls run at once."""
        return self._at_once

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Call a function in a thread, after all that came before it.

        Args:
            function: What is called.

        Raises:
            SessionError: The workers are closed.
        """
        try:
            return self._threads.submit(function)
        except RuntimeError as error:
            raise SessionError(
                "these workers are closed", expected="open ones", fix="close them after the sessions that use them"
            ) from error

    def close(self) -> None:
        """Take no more calls; those that were given still run. It waits for none of them."""
        self._threads.shutdown(wait=False)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Workers(at_once={self._at_once})"


_of_engines: WeakKeyDictionary[Engine, Workers] = WeakKeyDictionary()
_lock = threading.Lock()


def workers_of(engine: Engine) -> Workers:
    """Return the workers that sessions on an engine share; they end with the engine.

    Args:
        engine: An open engine.
    """
    with _lock:
        workers = _of_engines.get(engine)
        if workers is None:
            workers = _of_engines[engine] = Workers()
        return workers
