"""One thread for all that takes time, so that the interface's thread never waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias, TypeVar

from mmms_deploy.session.workers import Workers

T = TypeVar("T")

Post: TypeAlias = Callable[[Callable[[], None]], None]
"""Has a function called in the interface's thread, soon and in order; it is called from any thread."""


class Worker:
    """Calls functions in a thread of its own, one after the other, and hands their answers over in the same order.

    Everything but the functions themselves happens in the interface's thread.

    Args:
        post: How an answer comes to the interface's thread.

    Attributes:
        waiting: How many calls have no answer yet.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._threads = Workers(1)
        self._closed = False
        self.waiting = 0

    def submit(self, call: Callable[[], T], then: Callable[[T], None]) -> None:
        """Call a function after all that were given before it.

        Args:
            call: It runs in the thread.
            then: It takes the answer in the interface's thread. What the call raised is raised there instead.
        """
        if self._closed:
            return
        self.waiting += 1
        self._threads.submit(partial(self._run, call)).add_done_callback(partial(self._hand_over, then))

    def close(self, last: Callable[[], object]) -> None:
        """Let the running call end, drop all others and their answers, and end the thread. Safe to call twice.

        It waits for nothing.

        Args:
            last: Called in the thread at the very end.
        """
        if not self._closed:
            self._closed = True
            self._threads.submit(last)
            self._threads.close()

    def _run(self, call: Callable[[], T]) -> T | None:
        return None if self._closed else call()

    def _hand_over(self, then: Callable[[Any], None], done: Future[Any]) -> None:
        if not self._closed:
            self._post(partial(self._deliver, then, done))

    def _deliver(self, then: Callable[[Any], None], done: Future[Any]) -> None:
        if self._closed:
            return
        self.waiting -= 1
        then(done.result())
