"""The order of the calls on one session from asyncio: one after the other, cancelled or superseded as a whole.

A call waits, then runs in a thread, then hands its answer to the coroutine that made it. Only when that coroutine has
taken the answer does the next call begin. So when a coroutine is cancelled or superseded at any moment before, its call
can be taken back, and no other call has seen what it did. Everything but the call itself runs on the event loop's
thread; there is no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from mmms_deploy.errors import SessionError, SupersededError
from mmms_deploy.session.workers import Workers

T = TypeVar("T")


class Phase(Enum):
    """Where a call is."""

    WAITING = auto()
    RUNNING = auto()
    RAN = auto()
    DROPPED = auto()
    """It never ran, and never will."""


@dataclass(eq=False)
class Call:
    """One call on a session.

    Attributes:
        run: What runs in a thread.
        woken: Set when its coroutine can go on.
        kind: What it is, where a newer one of this kind takes its place; empty where none does.
        phase: Where it is.
        unwanted: Whether nothing will take its answer.
        done: Its answer or error, once it ran.
    """

    run: Callable[[], Any]
    woken: asyncio.Future[None]
    kind: str
    phase: Phase = Phase.WAITING
    unwanted: bool = False
    done: Future[Any] | None = field(default=None)

    def wake(self) -> None:
        """Let its coroutine go on."""
        if not self.woken.done():
            self.woken.set_result(None)


class Turns:
    """The calls on one session.

    Args:
        workers: The threads in which they run.
        back: Takes back what a call did, given its answer; it runs in a thread, too.
    """

    def __init__(self, workers: Workers, back: Callable[[Any], None]) -> None:
        self._workers, self._back = workers, back
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Call] = deque()
        self._running: Call | None = None

    def __len__(self) -> int:
        """How many calls wait or run."""
        return len(self._waiting) + (self._running is not None)

    async def take(self, run: Callable[[], T], kind: str = "") -> T:
        """Run a function in a thread, after all calls that were made before it, and return its answer.

        Args:
            run: The function.
            kind: Takes the place of the last calls that wait, where they are of this kind; empty takes no place.

        Raises:
            SupersededError: A newer call took its place, or :meth:`supersede` was called.
            SessionError: It comes from another event loop than the calls before, or the workers are closed.
        """
        call = Call(run, self._bound().create_future(), kind)
        while kind and self._waiting and self._waiting[-1].kind == kind:
            self._drop(self._waiting.pop())
        self._waiting.append(call)
        self._start()
        try:
            await call.woken
        except BaseException:
            # Cancelled, or its coroutine is thrown away: it can be so at any moment.
            self._give_up(call)
            raise
        if call.phase is Phase.DROPPED or call.unwanted:
            self._give_up(call)
            raise superseded()
        assert call.done is not None
        self._release()
        answer: T = call.done.result()
        return answer

    def supersede(self) -> int:
        """Drop all calls that wait, take back the one whose answer is not there yet, and return how many these are."""
        count = len(self._waiting)
        while self._waiting:
            self._drop(self._waiting.popleft())
        running = self._running
        if running is not None and not running.unwanted:
            self._give_up(running)
            running.wake()
            count += 1
        return count

    def _bound(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SessionError(
                "this session was called from another event loop before",
                expected="all calls from one loop, so that they have an order",
                fix="open an AsyncSession for each loop; they may share a Model",
            )
        return loop

    def _drop(self, call: Call) -> None:
        call.phase = Phase.DROPPED
        call.wake()

    def _start(self) -> None:
        """Begin the next call, where none runs."""
        if self._running is not None or not self._waiting:
            return
        call = self._waiting.popleft()
        try:
            done = self._workers.submit(call.run)
        except BaseException as error:
            done = Future()
            done.set_exception(error)
        call.phase, self._running = Phase.RUNNING, call
        done.add_done_callback(lambda done: self._soon(self._ran, call, done))

    def _soon(self, function: Callable[..., None], *given: Any) -> None:
        """Call something on the loop's thread; where the loop is gone, nothing waits for it."""
        assert self._loop is not None
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(function, *given)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise

    def _ran(self, call: Call, done: Future[Any]) -> None:
        call.phase, call.done = Phase.RAN, done
        if call.unwanted:
            self._take_back(call)
        else:
            call.wake()

    def _give_up(self, call: Call) -> None:
        """Let a call be as if it had never been made, wherever it is."""
        if call.phase is Phase.WAITING:
            self._waiting.remove(call)
            call.phase = Phase.DROPPED
        elif call.phase is Phase.RUNNING:
            call.unwanted = True
        elif call.phase is Phase.RAN and call is self._running and not call.unwanted:
            call.unwanted = True
            self._take_back(call)

    def _take_back(self, call: Call) -> None:
        """Undo what a call did, and begin the next one then."""
        assert call.done is not None
        if call.done.exception() is not None:
            self._release()
            return
        answer = call.done.result()
        try:
            taken = self._workers.submit(lambda: self._back(answer))
        except SessionError:
            self._release()
            return
        taken.add_done_callback(lambda _: self._soon(self._release))

    def _release(self) -> None:
        self._running = None
        self._start()


def superseded() -> SupersededError:
    """Return the error of a call that was superseded."""
    return SupersededError(
        "this call was superseded: it has not happened, and its answer is not there",
        expected="to be called no more once a newer call takes its place",
        fix="leave it at that: the newer call has the answer; make the call again if you want it all the same",
    )
